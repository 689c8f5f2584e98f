"""Counts of what repeats within a text: lines, paragraphs, and runs of words (Rae et al. 2021, table A1)."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from corpus.text.buffers import Texts
from corpus.text.code_points import sentence_terminals, white_space
from corpus.text.segment import Spans

TOP_GRAMS = (2, 3, 4)
DUPLICATE_GRAMS = (5, 6, 7, 8, 9, 10)
LINES = (
    "newlines",
    "lines",  # what runs of newlines separate, as many as there are runs, and one
    "duplicate_lines",  # of them, those that repeat an earlier one
    "duplicate_line_chars",  # characters of those
    "paragraphs",  # what two newlines or more separate in the text without white space at its ends
    "duplicate_paragraphs",
    "duplicate_paragraph_chars",
    "full_lines",  # lines that hold more than white space
    "terminal_lines",  # of them, those that end in a mark that ends sentences
    "short_lines",  # of at most 30 characters
    "repeated_line_chars",  # of those that repeat an earlier full line
)
_NEWLINES, _LINES, _DUPLICATE_LINES, _DUPLICATE_LINE_CHARS = range(4)
_PARAGRAPHS, _DUPLICATE_PARAGRAPHS, _DUPLICATE_PARAGRAPH_CHARS = range(4, 7)
_FULL_LINES, _TERMINAL_LINES, _SHORT_LINES, _REPEATED_LINE_CHARS = range(7, len(LINES))

_SHORT = 30  # characters; FineWeb's
_SPACE, _TERMINAL = 1, 2  # bits of the table of characters
_POINTS = 0x110000
_SEED = np.uint64(0xCBF29CE484222325)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FINISHER = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_ONE, _TWO, _THREE, _FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


def count_repeated_lines(texts: Texts) -> pl.DataFrame:
    """The counts of LINES of each text, int64.

    >>> import pyarrow as pa
    >>> counts = count_repeated_lines(Texts.of(pa.array(["Menu\\nIt is.\\n\\nMenu"])))
    >>> counts.select("lines", "duplicate_lines", "duplicate_line_chars", "paragraphs", "terminal_lines").row(0)
    (3, 1, 4, 2, 1)
    """
    counts = np.zeros((len(texts), len(LINES)), np.int64)
    _count_repeated_lines(texts.data, texts.offsets, _characters(), counts)
    return pl.DataFrame(counts, schema=list(LINES))


def count_repeated_grams(spans: Spans) -> pl.DataFrame:
    """Of each text, `tokens`, and characters within repeated runs of n tokens, int64.

    `top_{n}_gram_chars`, n from 2 to 4: length of the most frequent run, with a space between its tokens, times how
    often it occurs; of equally frequent ones the first. `duplicate_{n}_gram_chars`, n from 5 to 10: from left to right,
    a run that occurred before counts with all its characters, and the next one looked at begins after it.

    >>> import pyarrow as pa
    >>> from corpus.text.segment import segment, words_view
    >>> spans = segment(Texts.of(pa.array(["a b c d e a b c d e a b"])), words_view())
    >>> count_repeated_grams(spans).select("top_2_gram_chars", "duplicate_5_gram_chars").row(0)
    (9, 5)
    """
    counts = np.zeros((len(spans.offsets) - 1, 11), np.int64)
    _count_repeated_grams(spans.offsets, spans.hashes, spans.lengths, counts)
    names = [f"top_{n}_gram_chars" for n in TOP_GRAMS] + [f"duplicate_{n}_gram_chars" for n in DUPLICATE_GRAMS]
    return pl.DataFrame(counts[:, 2:], schema=names).with_columns(tokens=np.diff(spans.offsets))


@functools.cache
def _characters() -> npt.NDArray[np.uint8]:
    """White space as Python has it, and the marks that end sentences by Unicode's property."""
    table = np.zeros(_POINTS, np.uint8)
    table[[ord(mark) for mark in sentence_terminals()]] = _TERMINAL
    table[white_space()] |= _SPACE
    return table


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _character_at(data, at, end):
    """Code point and width in bytes of the character at a place; a broken one is its first byte."""
    byte = data[at]
    if byte < 0xC0:
        return np.uint64(byte), _ONE
    if 0xE0 <= byte < 0xF0 and at + _TWO < end:
        point = (byte & 0x0F) << 12 | (data[at + _ONE] & 0x3F) << 6 | data[at + _TWO] & 0x3F
        return np.uint64(point), _THREE
    if byte < 0xE0 and at + _ONE < end:
        return np.uint64((byte & 0x1F) << 6 | data[at + _ONE] & 0x3F), _TWO
    if 0xF0 <= byte < 0xF5 and at + _THREE < end:
        point = (byte & 0x07) << 18 | (data[at + _ONE] & 0x3F) << 12
        point |= (data[at + _TWO] & 0x3F) << 6 | data[at + _THREE] & 0x3F
        return np.uint64(min(point, _POINTS - 1)), _FOUR
    return np.uint64(byte), _ONE


@njit(nogil=True, cache=True)
def _is_new(hash_, keys, rounds, mask, this_round):
    """Whether a hash was not yet put into the set of this round; it is afterwards."""
    hash_ = (hash_ ^ (hash_ >> _HALF)) * _FINISHER
    slot = (hash_ ^ (hash_ >> _HALF)) & mask
    while rounds[slot] == this_round:
        if keys[slot] == hash_:
            return False
        slot = (slot + _ONE) & mask
    rounds[slot] = this_round
    keys[slot] = hash_
    return True


@njit(nogil=True, cache=True)
def _count_repeated_lines(data, offsets, characters, counts):
    """Fill counts (text, LINES)."""
    most = np.int64(0)
    for number in range(offsets.shape[0] - 1):
        newlines = np.int64(0)
        for place in range(offsets[number], offsets[number + 1]):
            newlines += data[place] == 0x0A
        counts[number, _NEWLINES] = newlines
        most = max(most, newlines)
    capacity = 16
    while capacity < 2 * (most + 1):
        capacity *= 2
    keys, rounds = np.empty(capacity, np.uint64), np.zeros(capacity, np.int64)
    for number in range(offsets.shape[0] - 1):
        own = counts[number]
        mask = np.uint64(15)
        while mask + _ONE < np.uint64(2 * (own[_NEWLINES] + 1)):
            mask = mask * _TWO + _ONE
        start, end = np.uint64(offsets[number]), np.uint64(offsets[number + 1])
        first, last = end, start  # of the text without white space at its ends
        at = start
        while at < end:
            hash_, length, point, full = _SEED, 0, np.uint64(0), False
            while at < end and data[at] != 0x0A:
                point, width = np.uint64(data[at]), _ONE
                if point >= 0x80:
                    point, width = _character_at(data, at, end)
                hash_ = (hash_ ^ point) * _MULTIPLIER
                length += 1
                at += width
                if not characters[point] & _SPACE:
                    full = True
                    first, last = min(first, at - width), at
            at += _ONE
            if length == 0:
                continue
            own[_LINES] += 1
            if full:
                own[_FULL_LINES] += 1
                own[_TERMINAL_LINES] += (characters[point] & _TERMINAL) != 0
                own[_SHORT_LINES] += length <= _SHORT
            if not _is_new(hash_, keys, rounds, mask, 2 * number + 1):
                own[_DUPLICATE_LINES] += 1
                own[_DUPLICATE_LINE_CHARS] += length
                if full:
                    own[_REPEATED_LINE_CHARS] += length
        # Splitting at newlines gives an empty line where the text begins with some, and one where it ends with some.
        empty_first = start == end or data[start] == 0x0A
        empty_last = start < end and data[end - _ONE] == 0x0A
        own[_LINES] += np.int64(empty_first) + np.int64(empty_last)
        own[_DUPLICATE_LINES] += np.int64(empty_first and empty_last)
        _count_paragraphs(data, first, last, keys, rounds, mask, 2 * number + 2, own)


@njit(nogil=True, cache=True)
def _count_paragraphs(data, start, end, keys, rounds, mask, this_round, own):
    """Fill the counts of paragraphs of a text without white space at its ends."""
    at = start
    if start >= end:
        own[_PARAGRAPHS] = 1  # the empty one
    while at < end:
        hash_, length = _SEED, 0
        while at < end and not (data[at] == 0x0A and (at + _ONE == end or data[at + _ONE] == 0x0A)):
            hash_ = (hash_ ^ np.uint64(data[at])) * _MULTIPLIER
            length += data[at] < 0x80 or data[at] >= 0xC0
            at += _ONE
        own[_PARAGRAPHS] += 1
        if not _is_new(hash_, keys, rounds, mask, this_round):
            own[_DUPLICATE_PARAGRAPHS] += 1
            own[_DUPLICATE_PARAGRAPH_CHARS] += length
        while at < end and data[at] == 0x0A:
            at += _ONE


@njit(nogil=True, cache=True)
def _number(key, keys, numbers, rounds, mask, this_round, new):
    """The number of a key in this round, `new` where it has none yet; it has that afterwards."""
    hash_ = key * _FINISHER
    slot = (hash_ ^ (hash_ >> _HALF)) & mask
    while rounds[slot] == this_round:
        if keys[slot] == key:
            return numbers[slot]
        slot = (slot + _ONE) & mask
    rounds[slot] = this_round
    keys[slot] = key
    numbers[slot] = new
    return new


@njit(nogil=True, cache=True)
def _count_repeated_grams(offsets, hashes, lengths, counts):
    """Fill counts (text, order of the runs).

    A run of n tokens can repeat only if the runs of n - 1 at its beginning and its end do. So each order looks only at
    the places that the one before left, and a run is known by the numbers of its beginning and its last token: only
    tokens are compared by hash.
    """
    most = np.int64(1)
    for number in range(offsets.shape[0] - 1):
        most = max(most, offsets[number + 1] - offsets[number])
    capacity = 16
    while capacity < 2 * most:
        capacity *= 2
    keys, numbers, rounds = np.empty(capacity, np.uint64), np.empty(capacity, np.int32), np.zeros(capacity, np.int32)
    tokens, occurrences = np.empty(most, np.int32), np.empty(most, np.int32)
    places, grams = np.empty(most, np.int32), np.empty(most, np.int32)  # where runs are that repeat, and which
    firsts, seen = np.empty(most, np.int32), np.empty(most, np.bool_)
    chars = np.zeros(most + 1, np.int64)  # before each token
    this_round = np.int32(0)
    for number in range(offsets.shape[0] - 1):
        start, count = np.uint64(offsets[number]), np.uint64(offsets[number + 1] - offsets[number])
        mask = np.uint64(15)
        while mask + _ONE < _TWO * count:
            mask = mask * _TWO + _ONE
        this_round += np.int32(1)
        different = np.int32(0)
        for at in range(count):
            token = _number(hashes[start + at], keys, numbers, rounds, mask, this_round, different)
            if token == different:
                occurrences[token] = 0
                different += np.int32(1)
            occurrences[token] += np.int32(1)
            tokens[at] = token
            chars[at + _ONE] = chars[at] + lengths[start + at]
        left = np.uint64(0)
        for at in range(count):
            places[left], grams[left] = at, tokens[at]
            left += np.uint64(occurrences[tokens[at]] > 1)
        for order in range(2, 11):
            if count < order:
                break
            this_round += np.int32(1)
            different, candidates = np.int32(0), np.uint64(0)
            for index in range(np.int64(left) - 1):
                at = places[index]
                if places[index + 1] != at + 1:
                    continue
                key = np.uint64(grams[index]) << _HALF | np.uint64(tokens[at + order - 1])
                gram = _number(key, keys, numbers, rounds, mask, this_round, different)
                if gram == different:
                    occurrences[gram], firsts[gram], seen[gram] = 0, at, False
                    different += np.int32(1)
                occurrences[gram] += np.int32(1)
                places[candidates], grams[candidates] = at, gram
                candidates += _ONE
            if order <= 4:
                best, first = np.int32(1), np.int32(0)
                for gram in range(different):
                    if occurrences[gram] > best:
                        best, first = occurrences[gram], firsts[gram]
                counts[number, order] = best * (chars[first + order] - chars[first] + order - 1)
            left = np.uint64(0)
            resume = np.int32(0)  # where the next run may begin, behind one that counted
            for index in range(candidates):
                at, gram = places[index], grams[index]
                if occurrences[gram] == 1:
                    continue
                places[left], grams[left] = at, gram
                left += _ONE
                if order >= 5 and at >= resume:
                    if seen[gram]:
                        counts[number, order] += chars[at + order] - chars[at]
                        resume = at + np.int32(order)
                    seen[gram] = True
