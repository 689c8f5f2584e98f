"""The language model against interpolated modified Kneser-Ney written with dictionaries, straight from the formulas."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.errors import UserError
from corpus.text import ngram_lm
from corpus.text.segment import lm_sentences

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
Gram = tuple[str, ...]


class SlowModel:
    """p(w | context) = (c - D(c)) / total + free mass * p(w | shorter context), with dictionaries and recursion."""

    def __init__(self, sentences: Sequence[Sequence[str]], order: int) -> None:
        self.order = order
        seen: list[Counter[Gram]] = [Counter() for _ in range(order + 2)]
        for sentence in sentences:
            padded = ("<s>", *sentence, "</s>")
            for length in range(1, order + 2):
                seen[length].update(padded[i : i + length] for i in range(len(padded) - length + 1))
        self.counts: list[dict[Gram, int]] = [{}]
        for length in range(1, order + 1):
            lefts: dict[Gram, set[str]] = {}
            for gram in seen[length + 1]:
                lefts.setdefault(gram[1:], set()).add(gram[0])
            raw = length == order
            self.counts.append(
                {gram: n if raw or gram[0] == "<s>" else len(lefts[gram]) for gram, n in seen[length].items()}
            )
        self.counts[1].pop(("<s>",))
        self.vocabulary = [*(gram[0] for gram in self.counts[1]), "<unk>"]
        self.discounts = [self._estimate(counts) for counts in self.counts]
        self.extensions: list[dict[Gram, list[int]]] = []
        for counts in self.counts:
            by_context: dict[Gram, list[int]] = {}
            for gram, n in counts.items():
                by_context.setdefault(gram[:-1], []).append(n)
            self.extensions.append(by_context)

    @staticmethod
    def _estimate(counts: dict[Gram, int]) -> dict[int, float]:
        t = Counter(counts.values())
        if min(t[1], t[2], t[3], t[4]) > 0:
            y = t[1] / (t[1] + 2 * t[2])
            d = {1: 1 - 2 * y * t[2] / t[1], 2: 2 - 3 * y * t[3] / t[2], 3: 3 - 4 * y * t[4] / t[3]}
            if all(0 <= d[n] <= n for n in d):
                return d
        return {1: 0.5, 2: 1.0, 3: 1.5}

    def prob(self, word: str, context: Gram) -> float:
        context = context[-(self.order - 1) :] if self.order > 1 else ()
        length = len(context) + 1
        lower = self.prob(word, context[1:]) if context else 1 / len(self.vocabulary)
        extensions = self.extensions[length].get(context)
        if not extensions:
            return lower
        discount = self.discounts[length]
        free = sum(discount[min(n, 3)] for n in extensions) / sum(extensions)
        n = self.counts[length].get((*context, word), 0)
        own = (n - discount[min(n, 3)]) / sum(extensions) if n else 0.0
        return own + free * lower

    def log_probs(self, sentence: Sequence[str]) -> list[tuple[str, float]]:
        padded = ["<s>", *(token if token in self.vocabulary else "<unk>" for token in sentence), "</s>"]
        return [(padded[i], math.log(self.prob(padded[i], tuple(padded[:i])))) for i in range(1, len(padded))]

    def score(self, sentences: Sequence[Sequence[str]], unigram: SlowModel) -> ngram_lm.Score:
        scored = [pair for sentence in sentences for pair in self.log_probs(sentence)]
        known = [log for token, log in scored if token != "<unk>"]
        alone = [log for sentence in sentences for token, log in unigram.log_probs(sentence) if token != "<unk>"]
        return ngram_lm.Score(
            ppl=math.exp(-sum(log for _, log in scored) / len(scored)),
            ppl_excl_oov=math.exp(-sum(known) / len(known)),
            oov_rate=1 - len(known) / len(scored),
            fluency_gain=(sum(known) - sum(alone)) / len(known),
            lm_tokens=len(scored),
        )


def assert_same(ours: ngram_lm.Score, slow: ngram_lm.Score) -> None:
    assert ours.lm_tokens == slow.lm_tokens
    for field in ("ppl", "ppl_excl_oov", "oov_rate", "fluency_gain"):
        assert getattr(ours, field) == pytest.approx(getattr(slow, field), rel=1e-6, abs=1e-9), field


def log_probs(model: ngram_lm.NgramModel, sentence: Sequence[str]) -> list[float]:
    stream = ngram_lm.number_sentences([sentence], model.numbers)
    return ngram_lm.token_log_probs(model, stream)[1:].tolist()


tokens = st.sampled_from("abcd")
texts = st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=12)


@settings(deadline=None)
@given(texts, texts, st.integers(1, 5))
def test_probabilities_are_those_of_the_formulas(trained: list[list[str]], asked: list[list[str]], order: int) -> None:
    model, slow = ngram_lm.train(trained, order), SlowModel(trained, order)
    for sentence in [*asked, ["a", "?", "b"], ["?"]]:
        assert log_probs(model, sentence) == pytest.approx([log for _, log in slow.log_probs(sentence)])


@settings(deadline=None)
@given(texts, st.lists(tokens, max_size=5), st.integers(1, 4))
def test_probabilities_after_any_context_sum_to_one(trained: list[list[str]], context: list[str], order: int) -> None:
    model = ngram_lm.train(trained, order)
    after = [token for token in model.vocabulary if token != "<s>"]
    stream = [[ngram_lm.START, *(model.numbers.get(t, 0) for t in context), model.numbers[last]] for last in after]
    total = sum(math.exp(ngram_lm.token_log_probs(model, np.array(own))[-1]) for own in stream)
    assert total == pytest.approx(1)


@pytest.mark.parametrize(("name", "order"), [("en.txt", 3), ("zh.txt", 4)])
def test_perplexities_of_real_text(name: str, order: int) -> None:
    documents = (REFERENCE / name).read_text("utf-8").split("\n---\n")
    training = [sentence for text in documents[:40] for sentence in lm_sentences(text)]
    model = ngram_lm.train(training, order)
    slow, unigram = SlowModel(training, order), SlowModel(training, 1)
    assert any(discounts != {1: 0.5, 2: 1.0, 3: 1.5} for discounts in slow.discounts[1:])
    scores = ngram_lm.score_texts(model, documents[38:44])
    for text, ours in zip(documents[38:44], scores, strict=True):
        assert_same(ours, slow.score(list(lm_sentences(text)), unigram))
    assert scores[0].ppl < scores[-1].ppl  # the first was trained on


def test_shuffled_words_gain_less_from_their_context() -> None:
    documents = (REFERENCE / "en.txt").read_text("utf-8").split("\n---\n")
    model = ngram_lm.train([sentence for text in documents[:-8] for sentence in lm_sentences(text)], 3)
    sound = ngram_lm.score_texts(model, documents[-8:])
    shuffled = ngram_lm.score_texts(model, [" ".join(sorted(text.split())) for text in documents[-8:]])
    assert min(s.fluency_gain or 0 for s in sound) > max(s.fluency_gain or 0 for s in shuffled)


def test_the_score_of_a_document_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [*(REFERENCE / "zh.txt").read_text("utf-8").split("\n---\n")[:6], "", "  \n", "?"]
    model = ngram_lm.train(list(lm_sentences("\n".join(documents[:3]))), 4)
    together = ngram_lm.score_texts(model, documents)
    assert together == [ngram_lm.score_texts(model, [text])[0] for text in documents]
    monkeypatch.setattr(ngram_lm, "_CHUNK_TOKENS", 100)
    assert ngram_lm.score_texts(model, documents) == together
    assert together[-2] == ngram_lm.Score(None, None, None, None, 0)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 99])
def test_the_first_tokens_only(limit: int) -> None:
    model = ngram_lm.train([["a", "b", "c"], ["a", "b"]], 3)
    (score,) = ngram_lm.score_texts(model, ["a b c\na b"], limit)
    all_logs = [*log_probs(model, ["a", "b", "c"]), *log_probs(model, ["a", "b"])]
    assert score.lm_tokens == min(limit, 7)
    assert score.ppl == pytest.approx(math.exp(-np.mean(all_logs[:limit])))


@pytest.mark.parametrize("order", [2, 3, 5])
def test_a_model_comes_back_as_it_was_saved(tmp_path: Path, order: int) -> None:
    model = ngram_lm.train([["a", "b", "a", "c"], ["ß", "中"]], order)
    ngram_lm.save(model, tmp_path, "en", {"tokens": 6})
    facts = ngram_lm.describe_models(tmp_path)["en"]
    assert facts["tokens"] == 6
    loaded = ngram_lm.load(tmp_path, "en", facts["fingerprint"])
    assert loaded.fingerprint == model.fingerprint
    assert ngram_lm.score_texts(loaded, ["a b 中 ?"]) == ngram_lm.score_texts(model, ["a b 中 ?"])


def test_damaged_missing_and_foreign_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no language model: run `corpus reference` first"):
        ngram_lm.describe_models(tmp_path / "nowhere")
    model = ngram_lm.train([["a", "b"]], 2)
    ngram_lm.save(model, tmp_path, "en", {})
    path = tmp_path / "en.ngrams.parquet"
    pl.read_parquet(path).with_columns(pl.col("log_prob") - 1).write_parquet(path)
    with pytest.raises(UserError, match="is not the one it was built as"):
        ngram_lm.load(tmp_path, "en", model.fingerprint)
    facts = tmp_path / "en.json"
    facts.write_text(facts.read_text().replace('"lm_view": 1', '"lm_view": 0'))
    with pytest.raises(UserError, match="built with another segmentation"):
        ngram_lm.describe_models(tmp_path)
