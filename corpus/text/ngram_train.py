"""Training of interpolated modified Kneser-Ney language models.

The recipe is Chen and Goodman's ("An Empirical Study of Smoothing Techniques for Language Modeling", 1998, section 3)
as KenLM's `lmplz` has it (Heafield et al., "Scalable Modified Kneser-Ney Language Model Estimation", 2013): the same
tokens give the same probabilities, pruned or not.

All tokens are numbered, then all pairs of them, then all n-grams of length 3, and so on: the row of an n-gram without
its first token and that token's number make the key of an n-gram, so that counting is exact and needs no strings. Where
an n-gram first occurred its shorter ones did too, which joins each to its context and to what it backs off to without a
search.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.errors import UserError
from corpus.text.buffers import Texts
from corpus.text.ngram_lm import END, LARGEST, LINE, START, Hashes, NgramModel, find_all, ngram_hashes, sentences
from corpus.text.segment import lm_spelling

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # KenLM's, where the text is too small or too odd to estimate them
LOAD = 0.65  # n-grams a slot: more of them, and more lines are full, so that what is not there is looked for in two

_START, _END = 0, 1  # the first numbers of every vocabulary
_CHUNK = 1 << 20  # bytes of text, or tokens, at a time
_MOST_TOKENS = 2**31 - 1  # a row has 32 bits
_LEAST_SLOTS = 1 << 12
_ATTEMPTS = 20
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ZERO, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)
_VALUE, _FINGERPRINT_BITS, _NOISE_BITS = np.uint64(18), np.uint64(2**28 - 1), np.uint64(2**20 - 1)
_LARGEST = 2**18 - 1


@dataclasses.dataclass(frozen=True)
class Ngrams:
    """The n-grams of one length that the text has, a row each; of length 1, the tokens by number."""

    lower: Rows  # row of the n-gram without its first token, among those one shorter
    context: Rows  # row of the n-gram without its last token
    first: Rows  # number of its first token
    counts: Rows
    hashes: Hashes
    kept: Mask  # not pruned


@dataclasses.dataclass(frozen=True)
class Numbered:
    """The text to train on as numbers of tokens."""

    stream: Rows  # all sentences in a row, each from <s> to </s>
    hashes: Hashes  # by number, of the tokens
    spellings: list[str]  # by number; <s> and </s> first

    @functools.cached_property
    def counts(self) -> Rows:
        """How often each token occurs, by number."""
        return _tally(self.stream, len(self.hashes))

    @property
    def tokens(self) -> int:
        """Tokens that stand in the text."""
        return len(self.stream) - 2 * int(self.counts[_START])


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model and the n-grams that it was built of."""

    model: NgramModel
    ngrams: list[Ngrams]  # of length 1, 2, ...
    spellings: list[str]  # of the n-grams of length 1


def number_tokens(texts: Iterable[Texts]) -> Numbered:
    """Read the text to train on. Raises UserError where it has more tokens than 31 bits can count.

    >>> import pyarrow as pa
    >>> numbered = number_tokens([Texts.of(pa.array(["the cat\\nthe dog", ""]))])
    >>> numbered.stream.tolist(), numbered.spellings, numbered.tokens
    ([0, 2, 3, 1, 0, 2, 4, 1], ['<s>', '</s>', 'the', 'cat', 'dog'], 4)
    """
    numbering = _Numbering()
    numbering.number(np.array([START, END]))
    streams = [np.empty(0, np.int32)]
    hashes = [np.array([START, END])]
    spellings = ["<s>", "</s>"]
    total = 0
    for some in (some for many in texts for some in many.slices(len(many), _CHUNK)):
        found = sentences(some)
        numbers, new = numbering.number(found.tokens)
        streams.append(_with_starts(numbers))
        total += len(streams[-1])
        if total > _MOST_TOKENS:
            raise UserError(f"more than {_MOST_TOKENS:,} tokens to train on: a part of them makes as good a model")
        hashes.append(found.tokens[new])
        source = found.sources[new]
        places = zip(found.spans.starts[source].tolist(), found.spans.ends[source].tolist(), strict=True)
        spellings += [lm_spelling(some.data[start:end].tobytes().decode("utf-8", "replace")) for start, end in places]
    return Numbered(np.concatenate(streams), np.concatenate(hashes), spellings)


def train(text: Numbered, order: int, prune: Sequence[int] = ()) -> Trained:
    """Train a model of an order, or of a lower one where all sentences are shorter. The text must hold a token.

    `prune` says, for lengths 1, 2, ... (its last number also for longer ones), up to which count n-grams are left out,
    like lmplz's `--prune`, and may not fall: what a longer n-gram is built on must be there. The probability of what is
    left out goes to shorter contexts, so that all still sums to 1.

    >>> import pyarrow as pa
    >>> trained = train(number_tokens([Texts.of(pa.array(["the cat\\nthe dog"]))]), order=2)
    >>> [len(ngrams.counts) for ngrams in trained.ngrams], trained.model.order
    ([5, 5], 2)
    """
    counts = text.counts
    numbers, none = np.arange(len(counts), dtype=np.int32), np.zeros(len(counts), np.int32)
    kept = counts > _threshold(prune, 1)
    kept[[_START, _END]] = True
    hashes = ngram_hashes(np.zeros(len(counts), np.uint64), text.hashes)
    ngrams = [Ngrams(none, none, numbers, counts, hashes, kept)]
    rows = text.stream
    for length in range(2, order + 1):
        longer, rows = _count(text, rows, length, ngrams[-1].hashes, _threshold(prune, length))
        if not len(longer.counts):
            break
        ngrams.append(longer)
    return Trained(_build(ngrams, *_probabilities(ngrams)), ngrams, text.spellings)


def _threshold(prune: Sequence[int], length: int) -> int:
    return prune[min(length, len(prune)) - 1] if prune else 0


# ---- counting --------------------------------------------------------------------------------------------------------


class _Numbering:
    """Numbers keys other than 0 in the order in which they first occur."""

    def __init__(self, expected: int = 0) -> None:
        self.count = 0
        self._slots = np.zeros(2 * max(2 * expected, _LEAST_SLOTS), np.uint64)  # of each key seen: the key, its number

    def number(self, keys: Hashes) -> tuple[Rows, npt.NDArray[np.int64]]:
        """The number of each key, -1 for a key of 0; and the places of the keys that are new."""
        rows, new = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
        known = self.count
        done = 0
        while True:
            done, self.count = _number(keys, done, self._slots, self.count, rows, new[: len(keys)], known)
            if done == len(keys):
                return rows, new[: self.count - known]
            wider = np.zeros(2 * len(self._slots), np.uint64)
            _refill(self._slots, wider)
            self._slots = wider


def _with_starts(numbers: Rows) -> Rows:
    """Whole sentences with <s> before each."""
    begins = np.ones(len(numbers), np.int64)
    begins[1:] = numbers[:-1] == _END
    starts = np.cumsum(begins)
    stream = np.full(len(numbers) + int(begins.sum()), _START, np.int32)
    stream[np.arange(len(numbers)) + starts] = numbers
    return stream


def _count(text: Numbered, shorter: Rows, length: int, hashes: Hashes, threshold: int) -> tuple[Ngrams, Rows]:
    """The n-grams of a length, and the row of the one that ends at each place of the stream (-1: none does).

    `shorter` are those rows for the n-grams that are one shorter, and `hashes` their hashes.
    """
    numbering = _Numbering(2 * len(hashes))
    stream = text.stream
    rows = np.empty(len(stream), np.int32)
    places = [np.empty(0, np.int64)]
    keys = np.empty(min(_CHUNK, len(stream)), np.uint64)
    for start in range(0, len(stream), _CHUNK):
        own = keys[: len(stream) - start]
        _fill_keys(stream, shorter, length, start, own)
        rows[start : start + _CHUNK], new = numbering.number(own)
        places.append(start + new)
    place = np.concatenate(places)
    counts = _tally(rows, len(place))
    lower, first = shorter[place], stream[place - length + 1]
    hashes = ngram_hashes(hashes[lower], text.hashes[first])
    return Ngrams(lower, shorter[place - 1], first, counts, hashes, counts > threshold), rows


def _tally(rows: Rows, size: int) -> Rows:
    """How often each row occurs; those below 0 do not count."""
    counts = np.zeros(size, np.int32)
    _add_up(rows, counts)
    return counts


# ---- smoothing -------------------------------------------------------------------------------------------------------


def _probabilities(ngrams: Sequence[Ngrams]) -> tuple[list[Floats], list[Floats], float, Floats]:
    """By length: each n-gram's probability, and its backoff weight as a context.

    Then the probability of a token that the vocabulary lacks, and of each token in a model of order 1.
    """
    tokens = ngrams[0]
    without_start = np.where(tokens.first == _START, 0, tokens.counts)
    alone, _ = _smoothed(tokens, without_start, 1, _evenly(tokens))
    lower = _evenly(tokens)
    probs: list[Floats] = []
    backoffs: list[Floats] = []
    contexts = 1
    for own, longer in zip(ngrams, [*ngrams[1:], None], strict=True):
        counts = own.counts if longer is None else _continuations(own, longer)
        if not probs:
            counts[_START] = 0  # never predicted
        prob, backoff = _smoothed(own, counts, contexts, lower)
        backoffs.append(backoff)
        probs.append(prob)
        if longer is not None:
            lower, contexts = prob[longer.lower], len(prob)
    unknown = float(backoffs.pop(0)[0] * _evenly(tokens)[0])
    backoffs.append(np.ones(len(probs[-1])))
    probs[0][_START] = alone[_START] = 0
    return probs, backoffs, unknown, alone


def _evenly(tokens: Ngrams) -> Floats:
    """What is free without context is shared evenly by all kept tokens but <s>, and the unknown one."""
    return np.full(len(tokens.counts), 1 / np.count_nonzero(tokens.kept))


def _continuations(own: Ngrams, longer: Ngrams) -> Rows:
    """How many different tokens stand before each n-gram; where it begins a sentence, so that none can, its count."""
    return np.where(own.first == _START, own.counts, _tally(longer.lower, len(own.counts)))


def _smoothed(ngrams: Ngrams, counts: Rows, contexts: int, lower: Floats) -> tuple[Floats, Floats]:
    """Probability of each kept n-gram's last token, and the backoff weight of each context by its row."""
    discounts = _discounts(counts)
    cut = np.where(ngrams.kept, counts, 0)
    left = cut - discounts[np.minimum(cut, 3)]
    total = np.bincount(ngrams.context, counts, contexts)
    free = total - np.bincount(ngrams.context, left, contexts)
    backoff = np.divide(free, total, out=np.ones(contexts), where=total > 0)
    left /= np.maximum(total, 1)[ngrams.context]
    left += backoff[ngrams.context] * lower
    return left, backoff


def _discounts(counts: Rows) -> Floats:
    """What is taken off a count of 0, 1, 2, and 3 or more (Chen and Goodman's equation 26).

    >>> _discounts(np.array([1] * 8 + [2] * 3 + [3] * 2 + [4], np.int32)).round(3).tolist()
    [0.0, 0.571, 0.857, 1.857]
    """
    of = np.bincount(np.minimum(counts, 5), minlength=5).tolist()
    if not all(of[1:5]):
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    share = of[1] / (of[1] + 2 * of[2])
    estimated = [n - (n + 1) * share * of[n + 1] / of[n] for n in (1, 2, 3)]
    if not all(1e-9 < discount <= n for n, discount in enumerate(estimated, start=1)):  # 0 leaves the unseen nothing
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    return np.array([0.0, *estimated])


# ---- the table -------------------------------------------------------------------------------------------------------


def _build(
    ngrams: Sequence[Ngrams], probs: Sequence[Floats], backoffs: Sequence[Floats], unknown: float, alone: Floats
) -> NgramModel:
    """The model's table from the kept n-grams. The step is the finest power of 2 with which all values fit."""
    own_probs = [prob[own.kept] for own, prob in zip(ngrams, probs, strict=True)]
    least = min(array.min(initial=unknown, where=array > 0) for array in (alone, *own_probs, *backoffs))
    steps = int(2.0 ** np.floor(np.log2(LARGEST / max(-np.log(least), 1e-3))))
    parts = [*zip(ngrams, own_probs, backoffs, strict=True), (ngrams[0], alone[ngrams[0].kept], np.ones(len(alone)))]
    regions: list[Hashes] = []
    lines: list[int] = []
    for own, prob, backoff in parts:
        hashes = own.hashes[own.kept]
        contents = np.empty(len(hashes), np.uint64)
        _pack(hashes, prob, backoff[own.kept], steps, contents)
        in_order = np.argsort(hashes)
        region, own_lines = _region(hashes[in_order], contents[in_order])
        regions.append(region)
        lines.append(own_lines)
    starts = np.cumsum([0, *map(len, regions[:-1])], dtype=np.uint64)
    unknown_steps = round(-math.log(unknown) * steps)
    return NgramModel(np.concatenate(regions), starts, np.array(lines, np.uint64), steps, unknown_steps)


def _region(hashes: Hashes, contents: Hashes) -> tuple[Hashes, int]:
    """Slots in lines by ascending hashes, and how many lines: such that each n-gram finds its own slot.

    Two with the same fingerprint in the same line, which one in a hundred million is, are parted by some lines more.
    Only where their hashes hardly differ this fails, which no text will show; one then has the other's values.
    """
    fewest = int(len(hashes) / (LOAD * LINE)) + 1
    for lines in range(fewest, fewest + _ATTEMPTS):
        slots = _spread(hashes, lines)
        region = np.zeros(
            (max(int(slots.max(initial=0)) // LINE + 1, lines) + 1) * LINE, np.uint64
        )  # the last line: empty
        region[slots] = contents
        if np.array_equal(find_all(region, 0, lines, hashes), contents):
            break
    return region, lines


def _spread(hashes: Hashes, lines: int) -> npt.NDArray[np.int64]:
    """Slots for ascending hashes: each the next free one of its line, or of those behind it.

    >>> _spread(np.array([0, 1, 2**63, 2**64 - 1], np.uint64), 2).tolist()
    [0, 1, 8, 9]
    """
    home = ((hashes >> _HALF) * np.uint64(lines) >> _HALF).astype(np.int64) * LINE
    rank = np.arange(len(hashes))
    slots: npt.NDArray[np.int64] = np.maximum.accumulate(home - rank) + rank
    return slots


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _slot_of(key, pairs):
    """Where the slot of a key is, or that of others before it; slots are pairs.

    With more slots keys stay in the same order, so that they are put into them from front to back.
    """
    return (((key * _MULTIPLIER) >> _HALF) * pairs >> _HALF) * _TWO


@njit(nogil=True, cache=True)
def _number(keys, done, slots, count, rows, new, known):
    """Number keys from `done` on, as far as slots suffice; how far that was, and the count of different keys."""
    size = np.uint64(len(slots))
    pairs = size // _TWO
    most = len(slots) * 5 // 16
    fetched = _ZERO
    for at in range(done, len(keys)):
        if at % 32 == 0:  # all slots of a block are asked for before any is waited for
            for ahead in range(at, min(at + 32, len(keys))):
                fetched ^= slots[_slot_of(keys[ahead], pairs)]
        key = keys[at]
        if key == _ZERO:
            rows[at] = -1
            continue
        slot = _slot_of(key, pairs)
        while slots[slot] != key:
            if slots[slot] == _ZERO:
                if count >= most:
                    return at, count
                slots[slot] = key
                slots[slot + _ONE] = count
                new[count - known] = at
                count += 1
                break
            slot = slot + _TWO if slot + _TWO < size else _ZERO
        rows[at] = slots[slot + _ONE]
    return len(keys) + np.int64(fetched & _ZERO), count


@njit(nogil=True, cache=True)
def _refill(slots, wider):
    """Put the keys of slots and their numbers into more slots."""
    size = np.uint64(len(wider))
    for old in range(_ZERO, np.uint64(len(slots)), _TWO):
        if slots[old] != _ZERO:
            slot = _slot_of(slots[old], size // _TWO)
            while wider[slot] != _ZERO:
                slot = slot + _TWO if slot + _TWO < size else _ZERO
            wider[slot] = slots[old]
            wider[slot + _ONE] = slots[old + _ONE]


@njit(nogil=True, cache=True)
def _fill_keys(stream, shorter, length, start, keys):
    """The key of the n-gram that ends at each place from `start` on; 0 where it would begin before its sentence."""
    for index in range(len(keys)):
        at = start + index
        if at < length - 1 or stream[at] == _START or shorter[at] < 0 or shorter[at - 1] < 0:
            keys[index] = _ZERO
        else:
            keys[index] = np.uint64(shorter[at] + 1) << _HALF | np.uint64(stream[at - length + 1])


@njit(nogil=True, cache=True)
def _pack(hashes, probs, backoffs, steps, slots):
    """The slots of n-grams: fingerprint, and in steps below 0 the logarithms of probability and backoff weight."""
    for row in range(len(hashes)):
        hash_ = hashes[row]
        fingerprint = max(hash_ & _FINGERPRINT_BITS, _ONE)
        values = _in_steps(probs[row], steps, hash_ >> _HALF) << _VALUE | _in_steps(backoffs[row], steps, hash_)
        slots[row] = fingerprint << (_VALUE * _TWO) | values


@njit(nogil=True, cache=True)
def _in_steps(prob, steps, noise):
    """A logarithm in whole steps below 0, that of 0 the lowest there is.

    It is rounded up as often as it is near to, decided by 20 bits of noise: many n-grams have the same weight, whose
    rounding to the next step would sum up.
    """
    if prob >= 1:
        return _ZERO
    down = -math.log(prob) * steps if prob > 0 else float(_LARGEST)
    return np.uint64(min(math.floor(down + (noise & _NOISE_BITS) / (_NOISE_BITS + 1.0)), _LARGEST))


@njit(nogil=True, cache=True)
def _add_up(rows, counts):
    for row in rows:
        if row >= 0:
            counts[row] += 1
