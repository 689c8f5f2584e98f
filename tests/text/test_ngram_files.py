"""Models as files; as ARPA, read and scored by a reader of its own; and beside figures of KenLM's."""

from __future__ import annotations

import functools
import math
import random
from pathlib import Path

import numpy as np
import pytest

from corpus.errors import UserError
from corpus.text.buffers import Texts
from corpus.text.ngram_files import describe_models, export_arpa, load, save
from corpus.text.ngram_lm import score_texts, score_tokens, sentences
from corpus.text.ngram_train import Trained, number_tokens, train
from corpus.text.segment import lm_sentences

REFERENCE = Path(__file__).parents[2] / "data" / "reference"


def trained_on(texts: list[str], order: int, prune: tuple[int, ...] = ()) -> Trained:
    return train(number_tokens([Texts.of_strings(texts)]), order, prune)


class Arpa:
    """A backoff model straight from the format's description: log10 probability and backoff weight by n-gram."""

    def __init__(self, path: Path) -> None:
        self.order = 0
        self.entries: dict[tuple[str, ...], tuple[float, float]] = {}
        promised: dict[int, int] = {}
        for line in path.read_text("utf-8").split("\n"):
            if line.startswith("ngram "):
                length, count = line.removeprefix("ngram ").split("=")
                promised[int(length)] = int(count)
            elif line.endswith("-grams:"):
                self.order = int(line[1:].split("-")[0])
            elif "\t" in line:
                log_prob, ngram, *backoff = line.split("\t")
                words = tuple(ngram.split(" "))
                assert len(words) == self.order and words not in self.entries
                self.entries[words] = (float(log_prob), float(backoff[0]) if backoff else 0.0)
        lengths = [len(words) for words in self.entries]
        assert promised == {length: lengths.count(length) for length in promised}

    def log_prob(self, word: str, context: tuple[str, ...]) -> float:
        context = context[-(self.order - 1) :]
        if (*context, word) in self.entries:
            return self.entries[*context, word][0]
        if not context:
            return self.entries[("<unk>",)][0]
        return self.entries.get(context, (0.0, 0.0))[1] + self.log_prob(word, context[1:])

    def log_probs(self, sentence: list[str]) -> list[float]:
        words = ["<s>", *sentence, "</s>"]
        return [self.log_prob(words[at], tuple(words[:at])) for at in range(1, len(words))]


@pytest.mark.parametrize(("name", "order", "prune"), [("en.txt", 3, ()), ("zh.txt", 4, ()), ("en.txt", 3, (0, 1, 2))])
def test_arpa_scores_as_the_model_does(tmp_path: Path, name: str, order: int, prune: tuple[int, ...]) -> None:
    documents = (REFERENCE / name).read_text("utf-8").split("\n---\n")
    trained = trained_on(documents[:20], order, prune)
    export_arpa(trained, tmp_path / "model.arpa")
    arpa = Arpa(tmp_path / "model.arpa")
    assert arpa.order == order
    for text in documents[18:22]:
        ours = score_tokens(trained.model, sentences(Texts.of_strings([text])).tokens).log_probs
        expected = [one for sentence in lm_sentences(text) for one in arpa.log_probs(sentence)]
        assert ours / -trained.model.steps / math.log(10) == pytest.approx(expected, abs=1e-6)


def test_arpa_keeps_apart_what_is_spelled_alike(tmp_path: Path) -> None:
    raw = b"good \xff bad\n\xfe \x00 bad"
    texts = Texts(np.frombuffer(raw, np.uint8), np.array([0, len(raw)]))
    trained = train(number_tokens([texts]), 2)
    assert len(set(trained.spellings)) < len(trained.spellings)
    export_arpa(trained, tmp_path / "model.arpa")
    assert (
        len([words for words in Arpa(tmp_path / "model.arpa").entries if len(words) == 1]) == len(trained.spellings) + 1
    )


@functools.cache
def made_text() -> tuple[str, str]:
    """Sentences of a little random grammar, to train on and held out: few frequent words, many rare ones, contexts."""
    source = random.Random(1998)
    lines = []
    for _ in range(4_000):
        word, line = 1, []
        for _ in range(source.randint(3, 12)):
            follows = source.random() < 0.6
            word = (word * 7 + int(source.paretovariate(1.2)) if follows else int(source.paretovariate(0.9))) % 26**4
            line.append("".join(chr(97 + word // 26**place % 26) for place in range(4)))
        lines.append(" ".join(line))
    return "\n".join(lines[:3_600]), "\n".join(lines[3_600:])


@pytest.mark.parametrize(
    ("order", "prune", "expected"),
    [
        (2, (), 21.31907791),
        (3, (), 22.18507184),
        (5, (), 22.83315623),
        (3, (0, 0, 1), 22.25561537),
        (4, (0, 1, 1, 2), 24.64597568),
    ],
)
def test_held_out_perplexity_is_that_of_lmplz(order: int, prune: tuple[int, ...], expected: float) -> None:
    """The figures are KenLM's, of its sources as kenlm 0.3.0 on PyPI has them.

    `made_text()`, in two files, through `lmplz -o ORDER --prune PRUNE --text train --arpa model.arpa`, and 10 to the
    power of minus the mean of `kenlm.Model("model.arpa").full_scores(line)` over all lines held out.
    """
    learnt, heldout = made_text()
    scores = score_texts(trained_on([learnt], order, prune).model, Texts.of_strings([heldout]))
    assert scores["ppl"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_a_model_comes_back_as_it_was_saved(tmp_path: Path, order: int) -> None:
    trained = trained_on(["a b a c\nß 中"], order)
    save(trained, tmp_path, "en", {"tokens": 6})
    facts = describe_models(tmp_path)["en"]
    assert (facts["tokens"], facts["order"]) == (6, min(order, 6))
    loaded = load(tmp_path, "en", facts["fingerprint"])
    assert loaded.fingerprint == trained.model.fingerprint
    asked = Texts.of_strings(["a b 中 ?"])
    assert score_texts(loaded, asked).equals(score_texts(trained.model, asked))
    assert loaded.table.ctypes.data % 64 == 0 and not loaded.table.flags.writeable


def test_damaged_missing_and_foreign_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no language model: run `corpus reference` first"):
        describe_models(tmp_path / "nowhere")
    trained = trained_on(["a b"], 2)
    save(trained, tmp_path, "en", {})
    path = tmp_path / "en.ngrams.npy"
    whole = path.read_bytes()
    for damaged in (whole[:-8], whole[:40], b"", whole[:-100] + b"\1" * 100):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is not the one it was built as"):
            load(tmp_path, "en", trained.model.fingerprint)
    path.unlink()
    with pytest.raises(UserError, match="is not the one it was built as"):
        load(tmp_path, "en", trained.model.fingerprint)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="is not the one it was built as"):
        load(tmp_path, "de", trained.model.fingerprint)
    facts = tmp_path / "en.json"
    whole_facts = facts.read_text()
    for name in ("lm_view", "format"):
        facts.write_text(whole_facts.replace(f'"{name}": 2', f'"{name}": 0'))
        with pytest.raises(UserError, match="built with another segmentation"):
            describe_models(tmp_path)
