"""N-gram language models with backoff: how likely is each token of a text after those before it.

All that a model knows lies in one array of 8-byte slots, a region for each length of n-gram:

    28 bits: fingerprint of the n-gram | 18 bits: log probability | 18 bits: log backoff weight     (0: empty)

Both logarithms are counts of a small step below 0, so a document's sum is a sum of integers. An n-gram is found by its
hash: the upper half says in which line of 8 slots it is, or in the next where that is full; the lower half has the
fingerprint. Such a line is what a processor fetches from memory at once. The hash of an n-gram grows to the left, from
that of its last tokens, at one multiplication a token. One lookup in 40 million takes an n-gram for another, which no
perplexity shows.

A model is built by corpus.text.ngram_train, kept and exported by corpus.text.ngram_files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from corpus.text.buffers import Texts
from corpus.text.segment import HAS_LETTER, IS_LINE_END, Spans, lm_view, segment

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

START = np.uint64(0x9E3779B97F4A7C15)  # stands before each sentence; its token hash, which no text has
END = np.uint64(0xC2B2AE3D27D4EB4F)  # ends each sentence and is predicted like a word

COLUMNS = {
    "ppl": pl.Float64,
    "ppl_excl_oov": pl.Float64,
    "oov_rate": pl.Float64,
    "fluency_gain": pl.Float64,
    "word_gain": pl.Float64,
    "lm_tokens": pl.Int64,
}

VALUE_BITS = 18  # of a log probability, and of a log backoff weight
LARGEST = 2**VALUE_BITS - 1

LINE = 8  # slots

_BATCH_BYTES = 1 << 18  # of text scored at once: bounds memory, and keeps the tokens in the processor's cache
_BLOCK = np.uint64(32)  # tokens whose slots are fetched together
_SEED = np.uint64(0x165667B19E3779F9)
_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)
_HALF = np.uint64(32)
_FINGERPRINT = np.uint64(2 * VALUE_BITS)  # where it begins in a slot
_FINGERPRINT_BITS = np.uint64(0x0FFFFFFF)
_LEAST_KEY = np.uint64(1 << 2 * VALUE_BITS)
_VALUE = np.uint64(VALUE_BITS)
_VALUE_BITS = np.uint64(LARGEST)
_LINE, _LAST_OF_LINE, _LINE_BITS = np.uint64(LINE), np.uint64(LINE - 1), np.uint64(3)
_ZERO, _ONE = np.uint64(0), np.uint64(1)  # unsigned indices spare the test for negative ones


@dataclasses.dataclass(frozen=True)
class NgramModel:
    """A language model: regions of its table for n-grams of length 1, 2, ... and, last, the tokens again.

    Region k begins at slot `starts[k]`, and `lines[k]` is how many of its lines hashes point to. The last one has each
    token's log probability in a model of order 1, which `fluency_gain` compares with. Arrays are read-only.
    """

    table: Hashes
    starts: Hashes
    lines: Hashes
    steps: int  # that make a nat
    unknown: int  # steps down to the log probability of a token that the vocabulary lacks

    def __post_init__(self) -> None:
        arrays = {"table": _aligned(self.table), "starts": self.starts.view(), "lines": self.lines.view()}
        for name, array in arrays.items():
            array.flags.writeable = False  # kernels are compiled for one kind of array
            object.__setattr__(self, name, array)

    @property
    def order(self) -> int:
        """Tokens of the longest n-gram."""
        return len(self.lines) - 1

    def facts(self) -> dict[str, Any]:
        """All but the table, as JSON has it."""
        shape = {"starts": self.starts.tolist(), "lines": self.lines.tolist()}
        return {**shape, "steps": self.steps, "unknown": self.unknown}

    @functools.cached_property
    def fingerprint(self) -> str:
        """128-bit BLAKE2b of all that decides a score, in hex."""
        digest = hashlib.blake2b(json.dumps(self.facts(), sort_keys=True).encode(), digest_size=16)
        digest.update(self.table.data)
        return digest.hexdigest()


def _aligned(table: Hashes) -> Hashes:
    """The table where each of its lines is one of the processor's."""
    if table.ctypes.data % (8 * LINE) == 0:
        return table.view()
    wider = np.empty(len(table) + LINE, np.uint64)
    skipped = -wider.ctypes.data // 8 % LINE
    wider[skipped : skipped + len(table)] = table
    return wider[skipped : skipped + len(table)]


class Sentences(NamedTuple):
    """The tokens that a language model reads: those of text i are `tokens[offsets[i]:offsets[i + 1]]`."""

    tokens: Hashes  # END after each line that holds a token
    offsets: Ints
    sources: Ints  # which of the spans each token is
    spans: Spans


class Scores(NamedTuple):
    """What a model says of each token of a text, in steps below 0."""

    log_probs: npt.NDArray[np.int32]
    alone: npt.NDArray[np.int32]  # of a model of order 1; -1 where the vocabulary lacks the token


def sentences(texts: Texts) -> Sentences:
    """The tokens of texts; each line that holds a token is a sentence.

    >>> import pyarrow as pa
    >>> found = sentences(Texts.of(pa.array(["One line\\n\\nand 2", "\\n"])))
    >>> found.offsets.tolist(), (found.tokens == END).tolist()
    ([0, 6, 6], [False, False, True, False, False, True])
    """
    spans = segment(texts, lm_view())
    most = len(spans.folded) + len(texts)
    tokens, sources, offsets = np.empty(most, np.uint64), np.empty(most, np.int64), np.zeros(len(texts) + 1, np.int64)
    count = _sentences(spans.folded, spans.flags, spans.offsets, np.uint8(IS_LINE_END), tokens, sources, offsets)
    return Sentences(tokens[:count], offsets, sources[:count], spans)


def score_tokens(model: NgramModel, tokens: Hashes) -> Scores:
    """Score the tokens of whole sentences, each after those before it."""
    log_probs, alone = np.empty(len(tokens), np.int32), np.empty(len(tokens), np.int32)
    _score(tokens, model.table, model.starts, model.lines, model.unknown, log_probs, alone)
    return Scores(log_probs, alone)


def score_texts(model: NgramModel, texts: Texts, max_tokens: int | None = None) -> pl.DataFrame:
    """COLUMNS for each text, over its first `max_tokens` tokens (None: all). Ends of sentences count as tokens.

    - `ppl`: perplexity a token, from 1
    - `ppl_excl_oov`: the same over the tokens that the vocabulary has
    - `oov_rate`: share of tokens that it lacks, 0 to 1
    - `fluency_gain`: nats a token that the context saves against a model of order 1, over the tokens of the vocabulary
    - `word_gain`: the same over those that are words after a word; in Chinese, characters. Marks are easily foreseen:
      among many of them shuffled text looks fluent
    - `lm_tokens`: tokens scored

    Null where there is no token to take them of.
    """
    limit = np.iinfo(np.int64).max if max_tokens is None else max_tokens
    sums = [np.zeros((0, 8), np.int64)]
    for some in texts.slices(len(texts), _BATCH_BYTES):
        found = sentences(some)
        scores = score_tokens(model, found.tokens)
        is_word = found.spans.flags[found.sources] & HAS_LETTER != 0
        own = np.zeros((len(some), 8), np.int64)
        _sum(found.tokens, is_word, scores.log_probs, scores.alone, found.offsets, limit, own)
        sums.append(own)
    tokens, known, all_steps, known_steps, known_alone, words, word_steps, word_alone = np.concatenate(sums).T
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 becomes null
        columns = {
            "ppl": np.exp(all_steps / (tokens * model.steps)),
            "ppl_excl_oov": np.exp(known_steps / (known * model.steps)),
            "oov_rate": (tokens - known) / tokens,
            "fluency_gain": (known_alone - known_steps) / (known * model.steps),
            "word_gain": (word_alone - word_steps) / (words * model.steps),
        }
    return pl.DataFrame(
        [pl.Series(name, values, nan_to_null=True) for name, values in columns.items()]
        + [pl.Series("lm_tokens", tokens)]
    )


def ngram_hashes(shorter: Hashes, first: Hashes) -> Hashes:
    """The hashes of n-grams, from those of the n-grams without their first token (0 of none) and that token's hash."""
    hashes = np.empty(len(first), np.uint64)
    _extend_all(shorter, first, hashes)
    return hashes


def find_all(table: Hashes, start: int, lines: int, hashes: Hashes) -> Hashes:
    """What the slots of n-grams hold, in the region that begins at a slot; 0 of those that are not there."""
    slots = np.empty(len(hashes), np.uint64)
    _find_all(hashes, table, np.uint64(start), np.uint64(lines), slots)
    return slots


def look_up(model: NgramModel, length: int, hashes: Hashes) -> tuple[Floats, Floats]:
    """Natural logarithms of the probability and the backoff weight of n-grams of a length that the model has."""
    slots = find_all(model.table, int(model.starts[length - 1]), int(model.lines[length - 1]), hashes)
    log_probs = (slots >> _VALUE & _VALUE_BITS).astype(np.float64) / -model.steps
    return log_probs, (slots & _VALUE_BITS).astype(np.float64) / -model.steps


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _extended(hash_, token):
    """The hash of an n-gram with one more token on its left."""
    hash_ = (hash_ ^ token) * _MULTIPLIER + _SEED
    return hash_ ^ (hash_ >> _HALF)


@njit(nogil=True, cache=True)
def _extend_all(shorter, first, hashes):
    for row in range(len(first)):
        hashes[row] = _extended(shorter[row], first[row])


@njit(nogil=True, cache=True)
def _sentences(folded, flags, span_offsets, line_end, tokens, sources, offsets):
    """Fill the arrays; the number of tokens. Line ends become END after a token and vanish after none."""
    count = 0
    for number in range(len(span_offsets) - 1):
        is_open = False
        for span in range(span_offsets[number], span_offsets[number + 1]):
            at_end = flags[span] == line_end
            if at_end and not is_open:
                continue
            is_open = not at_end
            tokens[count] = END if at_end else folded[span]
            sources[count] = span
            count += 1
        if is_open:
            tokens[count] = END
            sources[count] = span_offsets[number + 1] - 1
            count += 1
        offsets[number + 1] = count
    return count


@njit(nogil=True, cache=True)
def _line_of(hash_, start, lines):
    """Where the line begins that an n-gram's hash points to."""
    return start + (((hash_ >> _HALF) * lines) >> _HALF << _LINE_BITS)


@njit(nogil=True, cache=True)
def _key(hash_):
    """The fingerprint of an n-gram where slots have it."""
    return max(hash_ & _FINGERPRINT_BITS, _ONE) << _FINGERPRINT


@njit(nogil=True, cache=True)
def _find(table, line, key):
    """What the slot of an n-gram holds; 0 if the model does not have it.

    Looks at all slots of a line without a branch, which a processor could not foresee: of all slots with the key taken
    off, only the one that has it is smaller than any key.
    """
    while True:
        least = table[line] ^ key
        for index in range(_ONE, _LINE):
            least = min(least, table[line + index] ^ key)
        if least < _LEAST_KEY:
            return least ^ key
        if table[line + _LAST_OF_LINE] == _ZERO:
            return _ZERO
        line += _LINE


@njit(nogil=True, cache=True)
def _score(tokens, table, starts, lines, unknown, log_probs, alone):
    """Fill log_probs and alone for the tokens of whole sentences.

    The longest n-gram that ends at a token and was found gives the probability. Each n-gram that was found one token
    earlier, and would be the context of a longer one, adds its backoff weight; of one that was not, that is 0 steps.
    """
    regions, count, unknown = np.uint64(len(lines)), np.uint64(len(tokens)), np.uint64(unknown)
    order = regions - _ONE
    start_hash = _extended(_ZERO, START)
    start_slot = _find(table, _line_of(start_hash, starts[0], lines[0]), _key(start_hash))
    before = np.zeros(order, np.uint64)  # by length, the slot of the n-gram that ends one token earlier
    before[0] = start_slot
    keys, places = np.empty(_BLOCK * regions, np.uint64), np.empty(_BLOCK * regions, np.uint64)
    sentence = _ZERO  # where it begins
    fetched = _ZERO
    for block in range(_ZERO, count, _BLOCK):
        end = min(block + _BLOCK, count)
        index = _ZERO
        for at in range(block, end):
            own_hash = hash_ = _extended(_ZERO, tokens[at])
            for left in range(order):
                keys[index] = _key(hash_)
                places[index] = _line_of(hash_, starts[left], lines[left])
                index += _ONE
                hash_ = _extended(hash_, tokens[at - left - _ONE] if left < at - sentence else START)
            keys[index] = _key(own_hash)
            places[index] = _line_of(own_hash, starts[order], lines[order])
            index += _ONE
            sentence = at + _ONE if tokens[at] == END else sentence
        for each in range(index):  # all lines of a block are asked for before any is waited for
            fetched ^= table[places[each]]
        index = _ZERO
        for at in range(block, end):
            found = _find(table, places[index], keys[index])
            steps = (found >> _VALUE) & _VALUE_BITS if found != _ZERO else unknown
            context = before[0]
            before[0] = found
            for left in range(_ONE, order):
                longer = _find(table, places[index + left], keys[index + left])
                found = longer if found != _ZERO else _ZERO
                steps = (found >> _VALUE) & _VALUE_BITS if found != _ZERO else steps + (context & _VALUE_BITS)
                context = before[left]
                before[left] = found
            log_probs[at] = np.int32(steps)
            own = _find(table, places[index + order], keys[index + order])
            alone[at] = np.int32((own >> _VALUE) & _VALUE_BITS) if own != _ZERO else np.int32(-1)
            index += regions
            if tokens[at] == END:
                before[:] = _ZERO
                before[0] = start_slot
    return fetched  # so that no compiler leaves the fetching out


@njit(nogil=True, cache=True)
def _find_all(hashes, table, start, lines, slots):
    for row in range(len(hashes)):
        slots[row] = _find(table, _line_of(hashes[row], start, lines), _key(hashes[row]))


@njit(nogil=True, cache=True)
def _sum(tokens, is_word, log_probs, alone, offsets, limit, sums):
    """Per text: tokens, known ones, steps of all, of the known, these alone; words after words, their steps, alone."""
    for number in range(len(offsets) - 1):
        for at in range(offsets[number], offsets[number] + min(limit, offsets[number + 1] - offsets[number])):
            sums[number, 0] += 1
            sums[number, 2] += log_probs[at]
            if alone[at] >= 0:
                sums[number, 1] += 1
                sums[number, 3] += log_probs[at]
                sums[number, 4] += alone[at]
                after_word = at > offsets[number] and is_word[at - 1] and tokens[at - 1] != END
                if after_word and is_word[at] and tokens[at] != END:
                    sums[number, 5] += 1
                    sums[number, 6] += log_probs[at]
                    sums[number, 7] += alone[at]
