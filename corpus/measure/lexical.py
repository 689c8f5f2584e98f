"""Lexical diversity, and function words, counted in the words of a text: no punctuation, no symbols.

Case does not count. In scripts without spaces each character is a word, unless a segmenter put them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from corpus.text.segment import HAS_LETTER, HAS_NO_MARK, IS_WORD, Spans

MTLD_THRESHOLD = 0.72
COUNTS = (
    "words",  # tokens that are not all punctuation marks, as Gopher counts
    "word_chars",  # their characters
    "letter_tokens",  # tokens that hold a letter
    "lexical_words",  # tokens that hold a letter or a digit
    "types",  # different ones among them, case apart
    "stop_words",  # those of the text's list, case apart
    "different_stop_words",  # how many of the text's short list occur, as they are spelled
)
_WORDS, _WORD_CHARS, _LETTER_TOKENS, _LEXICAL_WORDS, _TYPES, _STOP_WORDS, _DIFFERENT_STOP_WORDS = range(len(COUNTS))
_ONE, _TWO = np.uint64(1), np.uint64(2)

Hashes = npt.NDArray[np.uint64]


class StopWords(NamedTuple):
    """Lists of hashes, a row each, as open-addressed tables: a hash is at its last bits or after, 0 is a free place."""

    folded: Hashes  # of the lists, in lower case
    spelled: Hashes  # of the short lists, as they are spelled


def hash_tables(lists: Sequence[Hashes]) -> Hashes:
    """Tables of the same size for some lists, at most a quarter full.

    >>> hash_tables([np.array([5, 21], np.uint64)]).nonzero()[1].tolist()
    [5, 6]
    """
    size = 16
    while size < 4 * max(map(len, lists)):
        size *= 2
    tables = np.zeros((len(lists), size), np.uint64)
    for table, hashes in zip(tables, lists, strict=True):
        for hash_ in hashes.tolist():
            place = hash_ % size
            while table[place]:
                place = (place + 1) % size
            table[place] = hash_
    return tables


def count_words(spans: Spans, window: int, stop_words: StopWords, lists: npt.NDArray[np.int64]) -> pl.DataFrame:
    """The COUNTS of each text, int64, and `mattr` and `mtld` (see `corpus.measure.signals`), 0 without words.

    `lists` says of each text which list of stop words is its own, -1 for none.
    """
    texts = len(spans.offsets) - 1
    counts, diversity = np.zeros((texts, len(COUNTS)), np.int64), np.zeros((texts, 2), np.float64)
    bits = np.array([HAS_NO_MARK, HAS_LETTER, IS_WORD], np.uint8)
    tokens = (spans.offsets, spans.hashes, spans.folded, spans.lengths, spans.flags)
    _count_words(*tokens, bits, window, *stop_words, lists, counts, diversity)
    return pl.DataFrame(counts, schema=list(COUNTS)).with_columns(mattr=diversity[:, 0], mtld=diversity[:, 1])


@njit(nogil=True, cache=True)
def _find(table, hash_):
    """The place of a hash in a table; -1 if it is not there."""
    mask = np.uint64(table.shape[0] - 1)
    place = hash_ & mask
    while table[place] != hash_:
        if table[place] == 0:
            return np.int64(-1)
        place = (place + _ONE) & mask
    return np.int64(place)


@njit(nogil=True, cache=True)
def _mtld_factors(words, first, step, count, seen, this_round):
    """How often the type-token ratio fell to the threshold, from `first` on, the rest in part; and rounds used."""
    factors, types, length, ratio = 0.0, 0, 0, 1.0
    at = first
    for _ in range(count):
        length += 1
        if seen[words[at]] != this_round:
            seen[words[at]] = this_round
            types += 1
        ratio = types / length
        if ratio <= MTLD_THRESHOLD:
            factors += 1
            types, length = 0, 0
            this_round += 1
        at += step
    if length:
        factors += (1 - ratio) / (1 - MTLD_THRESHOLD)
    return factors, this_round + 1


@njit(nogil=True, cache=True)
def _mtld(factors, count):
    """Words a factor; all of them where no word repeats, as in lexicalrichness."""
    return count / factors if factors else float(count)


@njit(nogil=True, cache=True)
def _count_words(
    offsets, hashes, folded, lengths, flags, bits, window,
    stop_words, short_stop_words, lists, counts, diversity,
):  # fmt: skip
    """Fill counts (text, COUNTS) and diversity (text, MATTR and MTLD)."""
    has_no_mark, has_letter, is_word = bits[0], bits[1], bits[2]
    most = np.int64(1)
    for number in range(offsets.shape[0] - 1):
        most = max(most, offsets[number + 1] - offsets[number])
    capacity = 16
    while capacity < 2 * most:
        capacity *= 2
    keys, numbers, owners = np.empty(capacity, np.uint64), np.empty(capacity, np.int32), np.full(capacity, -1, np.int64)
    words, in_window, seen = np.empty(most, np.int32), np.zeros(most, np.int32), np.zeros(most, np.int64)
    short_found = np.zeros(short_stop_words.shape[1], np.int64)
    this_round = np.int64(1)
    for number in range(offsets.shape[0] - 1):
        own, list_ = counts[number], lists[number]
        mask = np.uint64(15)
        while mask + _ONE < np.uint64(2 * (offsets[number + 1] - offsets[number])):
            mask = mask * _TWO + _ONE
        count, types = 0, np.int32(0)
        for at in range(offsets[number], offsets[number + 1]):
            flag = flags[at]
            own[_LETTER_TOKENS] += (flag & has_letter) != 0
            if flag & has_no_mark:
                own[_WORDS] += 1
                own[_WORD_CHARS] += lengths[at]
            if list_ >= 0:
                place = _find(short_stop_words[list_], hashes[at])
                if place >= 0 and short_found[place] != number + 1:
                    short_found[place] = number + 1
                    own[_DIFFERENT_STOP_WORDS] += 1
            if not flag & is_word:
                continue
            key = folded[at]
            slot = key & mask
            while owners[slot] == number and keys[slot] != key:
                slot = (slot + _ONE) & mask
            if owners[slot] != number:
                owners[slot], keys[slot], numbers[slot] = number, key, types
                in_window[types] = 0
                types += np.int32(1)
            words[count] = numbers[slot]
            count += 1
            if list_ >= 0:
                own[_STOP_WORDS] += _find(stop_words[list_], key) >= 0
        own[_LEXICAL_WORDS], own[_TYPES] = count, types
        if count == 0:
            continue
        in_this, sum_of_types, windows = 0, 0, 0
        for at in range(count):
            in_this += in_window[words[at]] == 0
            in_window[words[at]] += 1
            if at >= window:
                in_window[words[at - window]] -= 1
                in_this -= in_window[words[at - window]] == 0
            if at >= window - 1:
                sum_of_types += in_this
                windows += 1
        diversity[number, 0] = sum_of_types / windows / window if windows else types / count
        forward, this_round = _mtld_factors(words, 0, 1, count, seen, this_round)
        backward, this_round = _mtld_factors(words, count - 1, -1, count, seen, this_round)
        diversity[number, 1] = (_mtld(forward, count) + _mtld(backward, count)) / 2
