"""The language model against interpolated modified Kneser-Ney written with dictionaries, straight from the formulas."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.text import ngram_lm
from corpus.text.buffers import Texts
from corpus.text.ngram_lm import NgramModel, find_all, score_texts, score_tokens, sentences
from corpus.text.ngram_train import Trained, _region, number_tokens, train
from corpus.text.segment import lm_sentences

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
Gram = tuple[str, ...]


class SlowModel:
    """p(w | context) = (c - D(c)) / total + free mass * p(w | shorter context), with dictionaries and recursion."""

    def __init__(self, sentences: Sequence[Sequence[str]], order: int, prune: Sequence[int] = ()) -> None:
        self.order = order
        seen: list[Counter[Gram]] = [Counter() for _ in range(order + 2)]
        for sentence in sentences:
            padded = ("<s>", *sentence, "</s>")
            for length in range(1, order + 2):
                seen[length].update(padded[i : i + length] for i in range(len(padded) - length + 1))
        self.counts: list[dict[Gram, int]] = [{}]
        self.pruned: list[set[Gram]] = [set()]
        for length in range(1, order + 1):
            lefts: dict[Gram, set[str]] = {}
            for gram in seen[length + 1]:
                lefts.setdefault(gram[1:], set()).add(gram[0])
            raw = length == order
            self.counts.append(
                {gram: n if raw or gram[0] == "<s>" else len(lefts[gram]) for gram, n in seen[length].items()}
            )
            least = prune[min(length, len(prune)) - 1] if prune else 0
            self.pruned.append({gram for gram, n in seen[length].items() if n <= least} - {("<s>",), ("</s>",)})
        self.counts[1].pop(("<s>",))
        self.vocabulary = [*(gram[0] for gram in self.counts[1] if gram not in self.pruned[1]), "<unk>"]
        self.discounts = [self._estimate(counts) for counts in self.counts]
        self.extensions: list[dict[Gram, list[Gram]]] = []
        for counts in self.counts:
            by_context: dict[Gram, list[Gram]] = {}
            for gram in counts:
                by_context.setdefault(gram[:-1], []).append(gram)
            self.extensions.append(by_context)

    @staticmethod
    def _estimate(counts: dict[Gram, int]) -> dict[int, float]:
        t = Counter(counts.values())
        if min(t[1], t[2], t[3], t[4]) > 0:
            y = t[1] / (t[1] + 2 * t[2])
            d = {1: 1 - 2 * y * t[2] / t[1], 2: 2 - 3 * y * t[3] / t[2], 3: 3 - 4 * y * t[4] / t[3]}
            if all(1e-9 < d[n] <= n for n in d):
                return d
        return {1: 0.5, 2: 1.0, 3: 1.5}

    def prob(self, word: str, context: Gram) -> float:
        context = context[-(self.order - 1) :] if self.order > 1 else ()
        length = len(context) + 1
        lower = self.prob(word, context[1:]) if context else 1 / len(self.vocabulary)
        counts, pruned = self.counts[length], self.pruned[length]
        extensions = self.extensions[length].get(context)
        if not extensions:
            return lower
        total = sum(counts[gram] for gram in extensions)
        left = {gram: counts[gram] - self.discounts[length][min(counts[gram], 3)] for gram in extensions}
        left = {gram: n for gram, n in left.items() if gram not in pruned}
        return left.get((*context, word), 0.0) / total + (1 - sum(left.values()) / total) * lower

    def log_probs(self, sentence: Sequence[str]) -> list[tuple[str, float]]:
        padded = ["<s>", *(token if token in self.vocabulary else "<unk>" for token in sentence), "</s>"]
        return [(padded[i], math.log(self.prob(padded[i], tuple(padded[:i])))) for i in range(1, len(padded))]

    def score(self, sentences: Sequence[Sequence[str]], unigram: SlowModel) -> dict[str, float | None]:
        scored = [pair for sentence in sentences for pair in self.log_probs(sentence)]
        known = [log for token, log in scored if token != "<unk>"]
        gains, word_gains = [], []
        for sentence in sentences:
            pairs = list(zip(sentence, self.log_probs(sentence), unigram.log_probs(sentence), strict=False))
            for (before, *_), (word, (token, log), (_, alone)) in itertools.pairwise(pairs):
                if token != "<unk>" and all(any(c.isalpha() for c in each) for each in (before, word)):
                    word_gains.append(log - alone)
            both = zip(self.log_probs(sentence), unigram.log_probs(sentence), strict=True)
            gains += [log - alone for (token, log), (_, alone) in both if token != "<unk>"]
        return {
            "ppl": math.exp(-sum(log for _, log in scored) / len(scored)) if scored else None,
            "ppl_excl_oov": math.exp(-sum(known) / len(known)) if known else None,
            "oov_rate": 1 - len(known) / len(scored) if scored else None,
            "fluency_gain": sum(gains) / len(gains) if gains else None,
            "word_gain": sum(word_gains) / len(word_gains) if word_gains else None,
            "lm_tokens": len(scored),
        }


def texts_of(sentences: Sequence[Sequence[str]]) -> Texts:
    """Sentences of words as the lines of a text."""
    return Texts.of_strings(["\n".join(" ".join(sentence) for sentence in sentences)])


def trained_on(texts: Sequence[str] | Texts, order: int, prune: Sequence[int] = ()) -> Trained:
    return train(number_tokens([texts if isinstance(texts, Texts) else Texts.of_strings(texts)]), order, prune)


def log_probs(model: NgramModel, text: Texts) -> list[float]:
    return (score_tokens(model, sentences(text).tokens).log_probs / -model.steps).tolist()


def score(model: NgramModel, texts: Sequence[str], max_tokens: int | None = None) -> list[dict[str, float | None]]:
    return score_texts(model, Texts.of_strings(texts), max_tokens).to_dicts()


@functools.cache
def documents(name: str) -> list[str]:
    return (REFERENCE / name).read_text("utf-8").split("\n---\n")


words = st.sampled_from("abcd")
many_sentences = st.lists(st.lists(words, min_size=1, max_size=8), min_size=1, max_size=12)
prunes = st.lists(st.integers(0, 2), max_size=3).map(sorted)


@settings(deadline=None)
@given(many_sentences, many_sentences, st.integers(2, 5), prunes)
def test_probabilities_are_those_of_the_formulas(
    learnt: list[list[str]], asked: list[list[str]], order: int, prune: list[int]
) -> None:
    model, slow = trained_on(texts_of(learnt), order, prune).model, SlowModel(learnt, order, prune)
    asked = [*asked, ["a", "q", "b"], ["q"]]
    expected = [log for sentence in asked for _, log in slow.log_probs(sentence)]
    assert log_probs(model, texts_of(asked)) == pytest.approx(expected, abs=order / model.steps)


@settings(deadline=None)
@given(many_sentences, st.lists(words, max_size=5), st.integers(2, 4), prunes)
def test_probabilities_after_any_context_sum_to_one(
    learnt: list[list[str]], context: list[str], order: int, prune: list[int]
) -> None:
    trained = trained_on(texts_of(learnt), order, prune)
    kept = trained.ngrams[0].kept
    after = [token for token, is_kept in zip(trained.spellings[2:], kept[2:], strict=True) if is_kept]
    total = sum(math.exp(log_probs(trained.model, texts_of([[*context, token]]))[-2]) for token in [*after, "unknown"])
    if context:  # a sentence of nothing is none
        total += math.exp(log_probs(trained.model, texts_of([context]))[-1])
        assert total == pytest.approx(1, abs=1e-3)
    else:
        assert total < 1 + 1e-3


@pytest.mark.parametrize(("name", "order", "prune"), [("en.txt", 3, ()), ("zh.txt", 4, ()), ("zh.txt", 4, (0, 0, 1))])
def test_perplexities_of_real_text(name: str, order: int, prune: tuple[int, ...]) -> None:
    learnt = [sentence for text in documents(name)[:40] for sentence in lm_sentences(text)]
    model = trained_on(documents(name)[:40], order, prune).model
    slow, unigram = SlowModel(learnt, order, prune), SlowModel(learnt, 1)
    assert any(discounts != {1: 0.5, 2: 1.0, 3: 1.5} for discounts in slow.discounts[1:])
    scores = score(model, documents(name)[38:44])
    for text, ours in zip(documents(name)[38:44], scores, strict=True):
        assert ours == pytest.approx(slow.score(list(lm_sentences(text)), unigram), rel=1e-5, abs=2e-5)
    assert (scores[0]["ppl"] or 0) < (scores[-1]["ppl"] or 0)  # the first was trained on


def test_pruned_models_are_smaller_and_lose_little() -> None:
    learnt, asked = documents("en.txt")[:-8], documents("en.txt")[-8:]
    whole, pruned = trained_on(learnt, 3).model, trained_on(learnt, 3, [0, 0, 1]).model
    assert len(pruned.table) < 0.8 * len(whole.table)
    for one, other in zip(score(whole, asked), score(pruned, asked), strict=True):
        assert one["ppl"] == pytest.approx(other["ppl"], rel=0.15)
        assert one["oov_rate"] == other["oov_rate"]


def test_shuffled_words_gain_less_from_their_context() -> None:
    model = trained_on(documents("en.txt")[:-8], 3).model
    sound = score(model, documents("en.txt")[-8:])
    shuffled = score(model, [" ".join(sorted(text.split())) for text in documents("en.txt")[-8:]])
    for gain in ("fluency_gain", "word_gain"):
        assert min(s[gain] or 0 for s in sound) > max(s[gain] or 0 for s in shuffled)


def test_the_score_of_a_document_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [*documents("zh.txt")[:6], "", "  \n", "?", "\n\n。\n"]
    model = trained_on(documents("zh.txt")[:3], 4).model
    together = score(model, asked)
    assert together == [score(model, [text])[0] for text in asked]
    monkeypatch.setattr(ngram_lm, "_BATCH_BYTES", 100)
    assert score(model, asked) == together
    nothing = {
        "ppl": None,
        "ppl_excl_oov": None,
        "oov_rate": None,
        "fluency_gain": None,
        "word_gain": None,
        "lm_tokens": 0,
    }
    assert together[6:8] == [nothing, nothing]
    assert score(model, []) == []


def test_documents_of_one_word_have_a_score() -> None:
    model = trained_on(["a b\na"], 3).model
    known, unknown = score(model, ["a", "zebra"])
    assert known["oov_rate"] == 0 and unknown["oov_rate"] == 0.5
    for row in (known, unknown):
        assert row.pop("word_gain") is None  # no word follows another
        assert all(value is not None and math.isfinite(value) for value in row.values())


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 99])
def test_the_first_tokens_only(limit: int) -> None:
    model = trained_on(["a b c\na b"], 3).model
    (first,) = score(model, ["a b c\na b"], limit)
    all_logs = log_probs(model, Texts.of_strings(["a b c\na b"]))
    assert first["lm_tokens"] == min(limit, 7)
    assert first["ppl"] == pytest.approx(math.exp(-np.mean(all_logs[:limit])))


def test_the_order_of_the_texts_does_not_change_the_model() -> None:
    learnt = documents("en.txt")[:20]
    assert trained_on(learnt, 3).model.fingerprint == trained_on(learnt[::-1], 3).model.fingerprint


@given(st.lists(st.text("ab中!。 \n", max_size=20), max_size=5))
def test_each_line_that_holds_a_token_is_a_sentence(texts: list[str]) -> None:
    found = sentences(Texts.of_strings(texts))
    for number, text in enumerate(texts):
        own = slice(found.offsets[number], found.offsets[number + 1])
        lengths = [len(sentence) + 1 for sentence in lm_sentences(text)]
        assert np.flatnonzero(found.tokens[own] == ngram_lm.END).tolist() == (np.cumsum(lengths) - 1).tolist()
        starts, ends = found.spans.starts[found.sources[own]], found.spans.ends[found.sources[own]]
        raw = Texts.of_strings(texts).data
        spelled = [raw[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=True)]
        kept = [word for word, token in zip(spelled, found.tokens[own], strict=True) if token != ngram_lm.END]
        assert kept == [token for sentence in lm_sentences(text) for token in sentence]


def fingerprint_of(hash_: int) -> int:
    return max(hash_ % 2**28, 1)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=300, unique_by=fingerprint_of), st.integers(0, 2**64 - 1))
def test_every_ngram_is_found_where_it_was_put(hashes: list[int], absent: int) -> None:
    """Also where lines run over into the next ones, or where fingerprints are the same."""
    own = np.sort(np.array(hashes, np.uint64))
    contents = np.maximum(own & np.uint64(2**28 - 1), np.uint64(1)) << np.uint64(36) | np.arange(
        len(own), dtype=np.uint64
    )
    region, lines = _region(own, contents)
    assert np.count_nonzero(region) == len(own) and len(region) % 8 == 0
    assert find_all(region, 0, lines, own).tolist() == contents.tolist()
    if fingerprint_of(absent) not in map(fingerprint_of, hashes):
        assert find_all(region, 0, lines, np.array([absent], np.uint64)) == 0


def test_ngrams_with_one_fingerprint_are_parted() -> None:
    """Evenly spread ones, of which two that point to the same line at first have the same fingerprint."""
    fingerprints = list(range(1, 401))
    fingerprints[200] = fingerprints[199]
    hashes = np.array([row * 2**64 // 400 // 2**32 << 32 | own for row, own in enumerate(fingerprints)], np.uint64)
    contents = np.array([own << 36 | row for row, own in enumerate(fingerprints)], np.uint64)
    region, lines = _region(hashes, contents)
    assert lines > len(hashes) // (0.65 * 8) + 1
    assert find_all(region, 0, lines, hashes).tolist() == contents.tolist()
