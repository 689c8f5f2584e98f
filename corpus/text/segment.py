"""Segmentation of text into tokens, in one pass over the bytes of a column, and the views that stages take of it.

Scripts written with spaces give words; scripts written without them (Han, kana, Thai, Lao, Khmer, Myanmar) give one
token per character. A run of one and the same punctuation mark or symbol is a token. Words follow the word boundaries
of Unicode (UAX #29) in what holds them together: an apostrophe or a full stop between letters, a full stop or a comma
between digits, an underscore. Each view says which tokens it keeps and how it spells them, and has a version of its own
for the keys of the stages that use it: raise it when the view's tokens change.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.text.buffers import Texts
from corpus.text.code_points import LETTERS_END, in_categories, in_class, may_have_case, sentence_terminals, white_space
from corpus.text.scripts import HANGUL, UNSPACED

WORDS_VIEW = 2
LM_VIEW = 2

# What a token holds; bits of `Spans.flags`.
HAS_LETTER = 1
HAS_NO_MARK = 2  # a character that is no punctuation mark, as Gopher's rules count words
IS_UNSPACED = 4  # one character, or a word that `joined` put together, of a script without spaces
IS_LINE_END = 8  # only in the view of the language model
HAS_NUMBER = 16
IS_WORD = HAS_LETTER | HAS_NUMBER | IS_UNSPACED  # any of them: neither punctuation nor symbols

# A view is a table of what each code point does, 32 bits: its role, how it joins, flags, its lower case.
_SPACE, _LINE_END, _EXTENDS, _SINGLE, _PUNCTUATION, _LETTER, _DIGIT = range(7)
_ROLE = np.uint32(0x07)
_JOINS_LETTERS, _JOINS_DIGITS, _JOINS_ALL = (
    np.uint32(0x08),
    np.uint32(0x10),
    np.uint32(0x38),
)  # the last also a letter to a digit
_FLAGS, _FOLD = np.uint32(6), np.uint32(11)  # where they begin; five bits and 21

_POINTS = 0x110000
_SEED = np.uint64(0xCBF29CE484222325)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FINISHER = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_ONE, _TWO, _THREE, _FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


class Spans(NamedTuple):
    """The tokens of some texts; those of text i are at `offsets[i]:offsets[i + 1]` of each array."""

    offsets: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]  # of the characters as they are spelled
    folded: npt.NDArray[np.uint64]  # in lower case; in the view of the language model with all digits as 0
    lengths: npt.NDArray[np.int32]  # in characters
    flags: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]  # where a token begins and ends in the bytes of the texts
    ends: npt.NDArray[np.int64]


_Table = npt.NDArray[np.uint32]
View = _Table  # by code point, what a character does


def segment(texts: Texts, view: View, joined: npt.NDArray[np.uint8] | None = None, places: bool = True) -> Spans:
    """The tokens of all texts, in order. Bytes that are no UTF-8 make tokens of no meaning but no harm.

    `joined`, of the length of `texts.data`, is 1 where a character of a script without spaces goes on with the word
    before it: how a word segmenter of Chinese tells what it found. Without `places`, starts and ends stay empty.

    >>> import pyarrow as pa
    >>> texts = Texts.of(pa.array(["Don't panic!!! 3.14 中文", "don't"]))
    >>> spans = segment(texts, words_view())
    >>> [texts.data[a:b].tobytes().decode() for a, b in zip(spans.starts, spans.ends)]
    ["Don't", 'panic', '!!!', '3.14', '中', '文', "don't"]
    >>> spans.offsets.tolist(), spans.lengths.tolist(), bool(spans.folded[0] == spans.folded[6])
    ([0, 6, 7], [5, 5, 3, 4, 1, 1, 5], True)
    """
    most = texts.size + 1  # pages that no token is written to take no memory
    offsets = np.zeros(len(texts) + 1, np.int64)
    hashes, folded = np.empty(most, np.uint64), np.empty(most, np.uint64)
    lengths, flags = np.empty(most, np.int32), np.empty(most, np.uint8)
    starts, ends = np.empty(most * places, np.int64), np.empty(most * places, np.int64)
    joins = np.empty(0, np.uint8) if joined is None else joined
    count = _segment(texts.data, texts.offsets, view, joins, offsets, hashes, folded, lengths, flags, starts, ends)
    used = slice(0, count)
    return Spans(offsets, hashes[used], folded[used], lengths[used], flags[used], starts[used], ends[used])


def words(text: str) -> list[str]:
    """The tokens that rules about words count, as they are spelled: words, numbers, marks, single ideographs.

    >>> words("Don't panic: 42 files, naïve_name.txt")
    ["Don't", 'panic', ':', '42', 'files', ',', 'naïve_name.txt']
    >>> words("用Python写的3个脚本…… 파일 이름")
    ['用', 'Python', '写', '的', '3', '个', '脚', '本', '……', '파일', '이름']
    """
    return _strings(text, words_view())


def lm_sentences(text: str) -> Iterator[list[str]]:
    """What the language model reads: each line that holds a token is a sentence.

    Words in lower case, each digit as 0, one token per Han, kana, Thai character, Hangul syllable, run of a
    punctuation mark or symbol.

    >>> list(lm_sentences("In 2023, we moved.\\n\\n我们搬家了！"))
    [['in', '0000', ',', 'we', 'moved', '.'], ['我', '们', '搬', '家', '了', '！']]
    """
    for line in text.split("\n"):
        if tokens := [lm_spelling(token) for token in _strings(line, lm_view())]:
            yield tokens


def lm_spelling(token: str) -> str:
    """How the vocabulary of a language model spells a token.

    >>> lm_spelling("Win11")
    'win00'
    """
    return re.sub(r"\d", "0", "".join(_lower(character) for character in token))


def _strings(text: str, view: View) -> list[str]:
    texts = Texts.of_strings([text])
    spans = segment(texts, view)
    raw = texts.data.tobytes()
    return [
        raw[start:end].decode("utf-8", "surrogatepass") for start, end in zip(spans.starts, spans.ends, strict=True)
    ]


# ---- tables ----------------------------------------------------------------------------------------------------------


@functools.cache
def words_view() -> View:
    """What rules about words read: `WORDS_VIEW`."""
    roles, flags, folds = _characters()
    joins = np.zeros(_POINTS, np.uint32)
    for marks, bits in (
        ("'’", _JOINS_LETTERS),
        (".", _JOINS_LETTERS | _JOINS_DIGITS),
        (",;", _JOINS_DIGITS),
        ("_", _JOINS_ALL),
    ):
        joins[[ord(mark) for mark in marks]] = bits
    return _packed(roles, joins, flags, folds)


@functools.cache
def lm_view() -> View:
    """What the language model reads: `LM_VIEW`. Line ends are tokens, numbers and names fall into their pieces."""
    roles, flags, folds = _characters()
    joins = np.zeros(_POINTS, np.uint32)
    joins[[ord("'"), ord("’")]] = _JOINS_LETTERS
    for block in in_class(HANGUL):
        roles[block] = _SINGLE
    roles[ord("\n")], flags[ord("\n")] = _LINE_END, IS_LINE_END
    folds[in_categories("Nd")] = ord("0")
    return _packed(roles, joins, flags, folds)


def _packed(roles: _Table, joins: _Table, flags: _Table, folds: _Table) -> View:
    flags <<= _FLAGS
    folds <<= _FOLD
    view: View = roles | joins | flags | folds
    view.flags.writeable = False
    return view


def _characters() -> tuple[_Table, _Table, _Table]:
    """Role, flags and lower case of each code point, from this Python's Unicode data."""
    roles = np.full(_POINTS, _PUNCTUATION, np.uint32)
    flags = np.full(_POINTS, HAS_NO_MARK, np.uint32)
    folds = np.arange(_POINTS, dtype=np.uint32)
    for category, role in (("L", _LETTER), ("N", _DIGIT), ("M", _EXTENDS), ("Cf", _EXTENDS)):  # soft hyphens, joiners
        roles[in_categories(category)] = role
    roles[white_space()] = _SPACE
    roles[LETTERS_END:0x40000] = _LETTER
    flags[roles == _LETTER] |= HAS_LETTER
    flags[roles == _DIGIT] |= HAS_NUMBER
    flags[_marks()] &= np.uint32(~HAS_NO_MARK & 0xFF)
    for character in may_have_case():
        folds[ord(character)] = ord(_lower(character))
    for block in in_class(UNSPACED):
        roles[block] = _SINGLE
    flags[roles == _SINGLE] |= IS_UNSPACED
    return roles, flags, folds


def _lower(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _marks() -> list[int]:
    """The code points that do not make a token a word, as datatrove has them: ends of sentences, ASCII's marks, others.

    Not Unicode's category: `·`, `•` and `§` are none of them, `=`, `～` and control characters are.
    """
    marks = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "«´»–—“”„’…∶━►、。〈〉《》「」【】％（），．１：；？！～"
    controls = [*range(0x20), *range(0x7F, 0xA0)]
    return [ord(mark) for mark in marks + sentence_terminals()] + controls


# ---- kernel ----------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _character_at(data, at, end):
    """Code point and width in bytes of the character at a place; a broken one is its first byte."""
    byte = data[at]
    if byte < 0x80:
        return np.uint64(byte), _ONE
    if 0xE0 <= byte < 0xF0 and at + _TWO < end:
        point = (byte & 0x0F) << 12 | (data[at + _ONE] & 0x3F) << 6 | data[at + _TWO] & 0x3F
        return np.uint64(point), _THREE
    if 0xC0 <= byte < 0xE0 and at + _ONE < end:
        return np.uint64((byte & 0x1F) << 6 | data[at + _ONE] & 0x3F), _TWO
    if 0xF0 <= byte < 0xF5 and at + _THREE < end:
        point = (byte & 0x07) << 18 | (data[at + _ONE] & 0x3F) << 12
        point |= (data[at + _TWO] & 0x3F) << 6 | data[at + _THREE] & 0x3F
        return np.uint64(min(point, _POINTS - 1)), _FOUR
    return np.uint64(byte), _ONE


@njit(nogil=True, cache=True)
def _finished(hash_):
    """Spread the entropy of the last characters over all bits."""
    hash_ = (hash_ ^ (hash_ >> _HALF)) * _FINISHER
    return hash_ ^ (hash_ >> _HALF)


@njit(nogil=True, cache=True)
def _joins(data, at, end, properties, before, mark):
    """Whether a mark that stands after a word's character of role `before` joins it to the character at a place."""
    if at >= end:
        return False
    point, _ = _character_at(data, at, end)
    after = properties[point] & _ROLE
    if after != _LETTER and after != _DIGIT:
        return False
    if mark & _JOINS_ALL == _JOINS_ALL:
        return True
    return after == before and (mark & (_JOINS_LETTERS if after == _LETTER else _JOINS_DIGITS)) != 0


@njit(nogil=True, cache=True)
def _segment(
    data, offsets, properties, joined, token_offsets, hashes, folded_hashes, lengths, token_flags, starts, ends
):
    """Fill the arrays from `token_offsets` on; the number of tokens. Reads no byte beyond a text's end."""
    count = np.uint64(0)
    joining, with_places = joined.shape[0] > 0, starts.shape[0] > 0
    for number in range(offsets.shape[0] - 1):
        at, end = np.uint64(offsets[number]), np.uint64(offsets[number + 1])
        while at < end:
            point, width = np.uint64(data[at]), _ONE
            if point >= 0x80:
                point, width = _character_at(data, at, end)
            its = properties[point]
            role = its & _ROLE
            if role <= _EXTENDS and role != _LINE_END:
                at += width
                continue
            start = at
            seen = its
            hash_ = (_SEED ^ point) * _MULTIPLIER
            folded = (_SEED ^ np.uint64(its >> _FOLD)) * _MULTIPLIER
            length = np.int32(1)
            at += width
            if role >= _LETTER:
                while at < end:
                    point, width = np.uint64(data[at]), _ONE
                    if point >= 0x80:
                        point, width = _character_at(data, at, end)
                    its = properties[point]
                    next_role = its & _ROLE
                    if next_role >= _LETTER:
                        role = next_role
                    elif next_role != _EXTENDS and not (
                        its & _JOINS_ALL and _joins(data, at + width, end, properties, role, its)
                    ):
                        break
                    hash_ = (hash_ ^ point) * _MULTIPLIER
                    folded = (folded ^ np.uint64(its >> _FOLD)) * _MULTIPLIER
                    seen |= its
                    length += np.int32(1)
                    at += width
            elif role == _PUNCTUATION or (role == _SINGLE and joining):
                first = point
                while at < end:
                    point, width = _character_at(data, at, end)
                    if role == _PUNCTUATION:
                        if point != first:
                            break
                    elif not joined[at] or properties[point] & _ROLE != _SINGLE:
                        break
                    its = properties[point]
                    hash_ = (hash_ ^ point) * _MULTIPLIER
                    folded = (folded ^ np.uint64(its >> _FOLD)) * _MULTIPLIER
                    seen |= its
                    length += np.int32(1)
                    at += width
            hashes[count] = _finished(hash_)
            folded_hashes[count] = _finished(folded)
            lengths[count] = length
            token_flags[count] = (seen >> _FLAGS) & np.uint32(0x1F)
            if with_places:
                starts[count] = start
                ends[count] = at
            count += _ONE
        token_offsets[number + 1] = count
    return count
