"""Interpolated modified Kneser-Ney language models, trained and asked with vectorised numpy.

The recipe is Chen and Goodman's ("An Empirical Study of Smoothing Techniques for Language Modeling", 1998, section 3)
as KenLM has it (Heafield et al., "Scalable Modified Kneser-Ney Language Model Estimation", 2013): the same tokens give
the same probabilities.

The n-grams of each length lie in a table sorted by key. A key is exact and built to the left: the row that the last n-1
tokens have in the table before, times the size of the vocabulary, plus the number of the first token. The table of
length 1 is the vocabulary itself, a row a token. So looking up ever longer n-grams that end at a token stops at the
first one that was never seen, which is where the model backs off.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus.documents import open_part, write_table
from corpus.errors import UserError
from corpus.stage import write_json
from corpus.text.segment import LM_VIEW, lm_sentences

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

UNKNOWN, START, END = 0, 1, 2  # the first numbers of every vocabulary
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # KenLM's, where the text is too small or too odd to estimate them
_CHUNK_TOKENS = 200_000  # scored at once: bounds memory


@dataclasses.dataclass(frozen=True)
class Table:
    """The n-grams of one length, a row each; logarithms are natural."""

    keys: Ints  # ascending
    log_prob: Floats  # of the last token after the others, smoothed
    log_backoff: Floats  # what a shorter context's probability is weighted with when this n-gram is the context


@dataclasses.dataclass(frozen=True)
class NgramModel:
    """A language model of the order `len(tables)`."""

    vocabulary: list[str]  # a token's number is its position
    tables: tuple[Table, ...]  # of length 1, 2, ...
    unigram_log_prob: Floats  # by token, of a model of order 1: what `fluency_gain` compares with

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Token to number."""
        return {token: number for number, token in enumerate(self.vocabulary)}

    @functools.cached_property
    def fingerprint(self) -> str:
        """128-bit BLAKE2b of all that decides a score, in hex."""
        digest = hashlib.blake2b("\n".join(self.vocabulary).encode(), digest_size=16)
        for table in self.tables:
            for array in (table.keys, table.log_prob, table.log_backoff):
                digest.update(array.tobytes())
        digest.update(self.unigram_log_prob.tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model says of one document; perplexities are None where there is no token to take them of."""

    ppl: float | None  # per token, sentence ends included
    ppl_excl_oov: float | None  # over the tokens of the vocabulary only
    oov_rate: float | None  # share of tokens that the vocabulary lacks, 0 to 1
    fluency_gain: float | None  # nats a token that the context saves, over the tokens of the vocabulary
    lm_tokens: int  # tokens scored, sentence ends included


# ---- training --------------------------------------------------------------------------------------------------------


def train(sentences: Sequence[Sequence[str]], order: int) -> NgramModel:
    """Train a model on tokenised sentences; of a lower order where all sentences are shorter than the order.

    >>> model = train([["the", "cat"], ["the", "dog"]], order=2)
    >>> model.vocabulary
    ['<unk>', '<s>', '</s>', 'cat', 'dog', 'the']
    >>> [len(table.keys) for table in model.tables]
    [6, 5]
    """
    vocabulary = SPECIAL_TOKENS + sorted({token for sentence in sentences for token in sentence})
    numbers = {token: number for number, token in enumerate(vocabulary)}
    order = min(order, 2 + max(map(len, sentences)))
    size = len(vocabulary)
    keys, occurrence, counts, rows = _count(number_sentences(sentences, numbers), order, size)
    unigram = _unigram_prob(np.where(np.arange(size) == START, 0, counts[0]))
    adjusted = [*map(_continuations, keys[1:], counts[:-1], keys[:-1], [size] * (order - 1)), counts[-1]]
    adjusted[0][START] = 0  # never predicted
    probs = [_unigram_prob(adjusted[0])]
    backoffs: list[Floats] = []
    for length in range(2, order + 1):
        context = rows[length - 2][occurrence[length - 1] - 1]
        prob, backoff = _interpolate(
            adjusted[length - 1], context, len(keys[length - 2]), probs[-1][keys[length - 1] // size]
        )
        probs.append(prob)
        backoffs.append(backoff)
    backoffs.append(np.ones(len(keys[-1])))
    with np.errstate(divide="ignore"):  # the probability of <s> is 0
        tables = tuple(Table(k, np.log(p), np.log(b)) for k, p, b in zip(keys, probs, backoffs, strict=True))
        return NgramModel(vocabulary, tables, np.log(unigram))


def number_sentences(sentences: Iterable[Sequence[str]], numbers: Mapping[str, int], limit: int | None = None) -> Ints:
    """Sentences in a row as numbers, each between <s> and </s>; `limit` cuts after so many tokens other than <s>.

    >>> number_sentences([["a", "b"], ["b", "?"]], {"a": 3, "b": 4}, limit=5).tolist()
    [1, 3, 4, 2, 1, 4, 0]
    """
    stream: list[int] = []
    left = limit
    for sentence in sentences:
        own = [numbers.get(token, UNKNOWN) for token in sentence]
        own.append(END)
        stream.append(START)
        stream += own[:left]
        if left is not None and (left := left - len(own)) <= 0:
            break
    return np.array(stream, np.int64)


def _place_in_sentence(stream: Ints) -> Ints:
    """How many tokens stand before each in its sentence, <s> included."""
    position = np.arange(len(stream))
    return position - np.maximum.accumulate(np.where(stream == START, position, 0))


def _count(stream: Ints, order: int, size: int) -> tuple[list[Ints], list[Ints], list[Ints], list[Ints]]:
    """Per length: keys; a position at which each n-gram ends; its count; and the row of the n-gram ending anywhere."""
    place = _place_in_sentence(stream)
    keys = [np.arange(size, dtype=np.int64)]
    occurrence = [np.zeros(size, np.int64)]  # not asked for: length 1 has no context
    counts = [np.bincount(stream, minlength=size)]
    rows = [stream]
    for length in range(2, order + 1):
        ends = np.flatnonzero(place >= length - 1)
        found, first, row, count = np.unique(
            rows[-1][ends] * size + stream[ends - length + 1],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        keys.append(found)
        occurrence.append(ends[first])
        counts.append(count)
        rows.append(np.full(len(stream), -1, np.int64))
        rows[-1][ends] = row
    return keys, occurrence, counts, rows


def _continuations(longer: Ints, counts: Ints, keys: Ints, size: int) -> Ints:
    """How many different tokens stand before each n-gram; where it begins a sentence, so that none can, its count."""
    return np.where(keys % size == START, counts, np.bincount(longer // size, minlength=len(keys)))


def _discounts(counts: Ints) -> Floats:
    """What is taken off a count of 0, 1, 2, and 3 or more (Chen and Goodman's equation 26).

    >>> _discounts(np.array([1] * 8 + [2] * 3 + [3] * 2 + [4])).round(3).tolist()
    [0.0, 0.571, 0.857, 1.857]
    """
    of = [np.count_nonzero(counts == n) for n in range(5)]
    if not all(of[1:]):
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    share = of[1] / (of[1] + 2 * of[2])
    estimated = [n - (n + 1) * share * of[n + 1] / of[n] for n in (1, 2, 3)]
    if not all(0 <= discount <= n for n, discount in enumerate(estimated, start=1)):
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    return np.array([0.0, *estimated])


def _unigram_prob(counts: Ints) -> Floats:
    """Probability of each token without context; what is discounted is shared evenly by all but <s>, <unk> included."""
    taken = _discounts(counts)[np.minimum(counts, 3)]
    total = counts.sum()
    prob: Floats = (counts - taken) / total + taken.sum() / total / (len(counts) - 1)
    prob[START] = 0
    return prob


def _interpolate(counts: Ints, context: Ints, contexts: int, lower: Floats) -> tuple[Floats, Floats]:
    """Probability of each n-gram's last token, and the backoff weight of each context, by row of the shorter table."""
    taken = _discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context, counts, contexts)
    free = np.bincount(context, taken, contexts)
    backoff = np.divide(free, total, out=np.ones(contexts), where=total > 0)
    prob: Floats = (counts - taken) / total[context] + backoff[context] * lower
    return prob, backoff


# ---- scoring ---------------------------------------------------------------------------------------------------------


def token_log_probs(model: NgramModel, stream: Ints) -> Floats:
    """Natural logarithm of the probability of each token of a stream after those before it in its sentence."""
    size = len(model.vocabulary)
    place = _place_in_sentence(stream)
    log_prob = model.tables[0].log_prob[stream]
    shorter = stream  # per position the row of the n-gram that ends there, one token shorter; -1 if it was never seen
    for length, (context_table, table) in enumerate(itertools.pairwise(model.tables), start=2):
        position = np.flatnonzero(place >= length - 1)
        context = shorter[position - 1]
        position, context = position[context >= 0], context[context >= 0]  # an unseen context has backoff weight 1
        key = shorter[position] * size + stream[position - length + 1]
        row = np.minimum(np.searchsorted(table.keys, key), len(table.keys) - 1)
        seen = (table.keys[row] == key) & (shorter[position] >= 0)
        log_prob[position[seen]] = table.log_prob[row[seen]]
        log_prob[position[~seen]] += context_table.log_backoff[context[~seen]]
        shorter = np.full(len(stream), -1, np.int64)
        shorter[position[seen]] = row[seen]
    return log_prob


def score_texts(model: NgramModel, texts: Iterable[str], max_tokens: int | None = None) -> list[Score]:
    """Score documents, the first `max_tokens` tokens of each (None: all)."""
    streams = (number_sentences(lm_sentences(text), model.numbers, max_tokens) for text in texts)
    return [score for chunk in _chunks(streams) for score in _score_chunk(model, chunk)]


def _chunks(streams: Iterable[Ints]) -> Iterator[list[Ints]]:
    """Some documents at a time."""
    chunk: list[Ints] = []
    tokens = 0
    for stream in streams:
        chunk.append(stream)
        tokens += len(stream)
        if tokens >= _CHUNK_TOKENS:
            yield chunk
            chunk, tokens = [], 0
    if chunk:
        yield chunk


def _score_chunk(model: NgramModel, streams: Sequence[Ints]) -> Iterator[Score]:
    stream = np.concatenate(streams)
    document = np.repeat(np.arange(len(streams)), [len(own) for own in streams])
    predicted = stream != START
    known = predicted & (stream != UNKNOWN)

    def total(which: npt.NDArray[np.bool_], values: Floats) -> Floats:
        return np.bincount(document[which], values[which], len(streams)).astype(np.float64)

    log_prob = token_log_probs(model, stream)
    of_each_kind = (total(predicted, np.ones(len(stream))), total(known, np.ones(len(stream))))
    log_probs = (total(predicted, log_prob), total(known, log_prob), total(known, model.unigram_log_prob[stream]))
    for tokens, of_vocabulary, all_log, known_log, unigram_log in zip(*of_each_kind, *log_probs, strict=True):
        yield Score(
            ppl=float(np.exp(-all_log / tokens)) if tokens else None,
            ppl_excl_oov=float(np.exp(-known_log / of_vocabulary)) if of_vocabulary else None,
            oov_rate=float(1 - of_vocabulary / tokens) if tokens else None,
            fluency_gain=float((known_log - unigram_log) / of_vocabulary) if of_vocabulary else None,
            lm_tokens=int(tokens),
        )


# ---- files -----------------------------------------------------------------------------------------------------------


def save(model: NgramModel, folder: Path, language: str, facts: Mapping[str, object]) -> None:
    """Write LANGUAGE.vocabulary.parquet, LANGUAGE.ngrams.parquet and, with further facts, LANGUAGE.json."""
    first, *longer = model.tables
    vocabulary = {
        "token": pa.array(model.vocabulary, pa.string()),
        "log_prob": first.log_prob,
        "log_backoff": first.log_backoff,
        "unigram_log_prob": model.unigram_log_prob,
    }
    ngrams = {
        "length": np.repeat(np.arange(2, len(longer) + 2, dtype=np.int8), [len(table.keys) for table in longer]),
        "key": np.concatenate([table.keys for table in longer]),
        "log_prob": np.concatenate([table.log_prob for table in longer]),
        "log_backoff": np.concatenate([table.log_backoff for table in longer]),
    }
    write_table(pa.table(vocabulary), folder / f"{language}.vocabulary.parquet")
    write_table(pa.table(ngrams), folder / f"{language}.ngrams.parquet")
    own = {"order": len(model.tables), "lm_view": LM_VIEW, "fingerprint": model.fingerprint}
    write_json(folder / f"{language}.json", {**facts, **own})


def describe_models(folder: Path) -> dict[str, dict[str, Any]]:
    """By language, what LANGUAGE.json says: order, fingerprint, quantiles of the held-out documents.

    Raises UserError where there is no model, or one whose tokens today's segmentation would not give.
    """
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
    models = {language: facts for language, facts in found.items() if "fingerprint" in facts}
    if not models:
        raise UserError(f"{folder} holds no language model: run `corpus reference` first")
    for language, facts in models.items():
        if facts["lm_view"] != LM_VIEW:
            raise UserError(
                f"{folder / language}.json was built with another segmentation: run `corpus reference` again"
            )
    return models


def load(folder: Path, language: str, fingerprint: str) -> NgramModel:
    """Read a model. Raises UserError where files are missing or are not those of the fingerprint."""
    columns = open_part(folder / f"{language}.vocabulary.parquet").read()
    ngrams = open_part(folder / f"{language}.ngrams.parquet").read()
    arrays = [column.to_numpy() for column in columns.columns[1:]]
    length, *rest = (column.to_numpy() for column in ngrams.columns)
    borders = np.flatnonzero(np.diff(length)) + 1
    longer = [Table(*own) for own in zip(*(np.split(array, borders) for array in rest), strict=True)]
    first = Table(np.arange(columns.num_rows, dtype=np.int64), *arrays[:2])
    model = NgramModel(columns["token"].to_pylist(), (first, *longer), arrays[2])
    if model.fingerprint != fingerprint:
        raise UserError(
            f"the model of {language} in {folder} is not the one it was built as: run `corpus reference` again"
        )
    return model
