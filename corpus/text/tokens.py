"""From texts to token hashes, in one pass over the bytes of an Arrow column.

What near-duplicates share are *tokens*: words, case folded; single characters of scripts that are written without
spaces (Han, kana, Thai, Lao, Khmer, Myanmar) and syllables of Hangul. Punctuation, symbols and white space only
separate tokens. Apostrophes and invisible characters (soft hyphens, joiners) are passed over, so that typography hides
no copy.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.text.buffers import Texts
from corpus.text.code_points import LETTERS_END, in_categories, in_class, may_have_case
from corpus.text.scripts import HANGUL, UNSPACED

SHINGLE_VIEW = 2  # raise it when the tokens of a text, or their hashes, change

Hashes = npt.NDArray[np.uint64]

# What a character does. A mark (accents, vowel signs) continues a word and starts none.
_SEPARATES, _IS_PASSED_OVER, _IS_MARK, _IN_WORD, _IS_TOKEN = range(5)
_ROLE = 0x07  # the bits that hold it
_FOLDS_TO_SEVERAL = 0x40  # bit: `fold` is a row of the table of expansions
_MAY_COMPOSE = 0x80  # bit: NFC may change this character, or its neighbours because of it

_PLANES = 0x40000  # no letters above

_SEED = np.uint64(0xCBF29CE484222325)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FINISHER = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_ONE, _TWO = np.uint64(1), np.uint64(2)  # unsigned indices spare the test for negative ones


class Tokens(NamedTuple):
    """The token hashes of some texts: those of text i are `hashes[offsets[i]:offsets[i + 1]]`."""

    hashes: Hashes
    offsets: npt.NDArray[np.int64]
    texts: Texts  # in NFC


class _Characters(NamedTuple):
    """Tables by code point: roles with their bits, case folding, and the foldings to several characters."""

    roles: npt.NDArray[np.uint8]
    folds: npt.NDArray[np.uint32]
    expansions: npt.NDArray[np.uint32]  # three code points a row, zeros at the end
    ascii: npt.NDArray[np.uint8]  # folded; 0 separates, 1 is passed over


def tokenise(texts: Texts) -> Tokens:
    """The hashes of all tokens of the texts in NFC, in order; 64 bits of the folded code points.

    The tokens of "Don’t panic: 增量 naïve_NAÏVE" are dont, panic, 增, 量, naïve, naïve. Texts that are not in NFC are
    brought into it first; bytes that are no UTF-8 make tokens of no meaning but no harm.

    >>> import pyarrow as pa
    >>> tokens = tokenise(Texts.of(pa.array(["Don’t PANIC: 增量", "dont panic 增 量", "增"])))
    >>> tokens.offsets.tolist(), bool((tokens.hashes[:4] == tokens.hashes[4:8]).all())
    ([0, 4, 8, 9], True)
    """
    tables = _characters()
    hashes = np.empty((texts.size + len(texts)) // 2 + 2, np.uint64)  # a token and what ends it take two bytes
    offsets = np.zeros(len(texts) + 1, np.int64)
    may_change = np.zeros(len(texts), np.bool_)
    count = _tokenise(texts.data, texts.offsets, *tables, hashes, offsets, may_change)
    if may_change.any():
        strings = {number: texts.text(number) for number in np.flatnonzero(may_change).tolist()}
        changed = {n: unicodedata.normalize("NFC", s) for n, s in strings.items() if not _is_nfc(s)}
        if changed:
            return tokenise(_with_texts(texts, changed))
    return Tokens(hashes[:count], offsets, texts)


def _is_nfc(text: str) -> bool:
    return unicodedata.is_normalized("NFC", text)


def _with_texts(texts: Texts, others: dict[int, str]) -> Texts:
    """The texts, some of them replaced."""
    encoded = [
        others[number].encode("utf-8", "surrogatepass") if number in others else texts.raw(number)
        for number in range(len(texts))
    ]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return Texts(np.frombuffer(b"".join(encoded), np.uint8), offsets)


@functools.cache
def _characters() -> _Characters:
    """The tables, from this Python's Unicode data."""
    roles = np.full(_PLANES, _SEPARATES, np.uint8)
    folds = np.arange(_PLANES, dtype=np.uint32)
    expansions: list[list[int]] = []
    for categories, role in ((("L", "N"), _IN_WORD), (("M",), _IS_MARK), (("Cf",), _IS_PASSED_OVER)):
        roles[in_categories(*categories)] = role
    for character in may_have_case():
        folded = character.casefold()
        if folded == character:
            continue
        roles[ord(character)] = roles[ord(folded[0])]
        if len(folded) > 1:
            roles[ord(character)] |= _FOLDS_TO_SEVERAL
            folds[ord(character)] = len(expansions)
            expansions.append([*map(ord, folded), 0, 0][:3])
        else:
            folds[ord(character)] = ord(folded)
    for block in in_class(UNSPACED + HANGUL):
        roles[block] = _IS_TOKEN
    roles[LETTERS_END:] = _IS_TOKEN
    for character in "'’＇":
        roles[ord(character)] = _IS_PASSED_OVER
    roles[_composing()] |= _MAY_COMPOSE
    word = roles[:128] & _ROLE == _IN_WORD
    ascii_table = np.where(word, folds[:128], roles[:128] & _ROLE == _IS_PASSED_OVER).astype(np.uint8)
    return _Characters(roles, folds, np.array(expansions, np.uint32), ascii_table)


def _composing() -> list[int]:
    """Code points whose presence means that a text may not be in NFC.

    They are combining marks, whose order may be wrong; what NFC replaces; and second halves of what it composes.
    """
    jamo = range(0x1100, 0x1200)  # they are composed by a rule
    marks = [point for point in in_categories("M").tolist() if unicodedata.combining(chr(point))]
    characters = [chr(point) for point in (*range(0xA0, LETTERS_END), *range(0x2F800, 0x2FA20))]
    decomposed = {
        character: decomposition.split()
        for character, decomposition in zip(characters, map(unicodedata.decomposition, characters), strict=True)
        if decomposition and not decomposition.startswith("<")
    }
    replaced = [ord(character) for character in decomposed if not _is_nfc(character)]
    second = [int(half, 16) for halves in decomposed.values() for half in halves[1:]]
    return sorted({*jamo, *marks, *replaced, *second})


@njit(nogil=True, cache=True)
def _tokenise(data, offsets, roles, folds, expansions, ascii_table, hashes, ends, may_change):
    """Fill hashes, ends (from 1) and may_change; the number of tokens. Reads no byte beyond a text's end.

    A hash is FNV-like over the folded code points of a token. The loop has no branch at the end of a word, which a
    processor cannot foresee: the hash so far is stored at every separator and counted only if there was a word.
    """
    count = np.uint64(0)
    for number in range(offsets.shape[0] - 1):
        at, end = np.uint64(offsets[number]), np.uint64(offsets[number + 1])
        hash_, in_word = _SEED, np.uint8(0)
        while at < end:
            byte = data[at]
            if byte < 0x80:
                at += _ONE
                folded = ascii_table[byte]
                hashes[count] = hash_
                count += np.uint64((folded == 0) & in_word)
                longer = (hash_ ^ np.uint64(folded)) * _MULTIPLIER
                hash_ = longer if folded > 1 else (_SEED if folded == 0 else hash_)
                in_word = np.uint8((folded > 1) | (in_word & (folded != 0)))
                continue
            width = np.uint64(3) if 0xE0 <= byte < 0xF0 else np.uint64(2) if byte < 0xE0 else np.uint64(4)
            if at + width > end:
                break
            if width == 3:
                point = (byte & 0x0F) << 12 | (data[at + _ONE] & 0x3F) << 6 | data[at + _TWO] & 0x3F
            elif width == 2:
                point = (byte & 0x1F) << 6 | data[at + _ONE] & 0x3F
            else:
                point = (byte & 0x07) << 18 | (data[at + _ONE] & 0x3F) << 12
                point |= (data[at + _TWO] & 0x3F) << 6 | data[at + _ONE + _TWO] & 0x3F
            at += width
            point = np.uint64(point)
            role = roles[point] if point < _PLANES else np.uint8(_SEPARATES)
            if role & _MAY_COMPOSE:
                may_change[number] = True
                role &= np.uint8(~_MAY_COMPOSE & 0xFF)
            if role == _IS_TOKEN:
                hashes[count] = hash_
                count += np.uint64(in_word)
                hashes[count] = (_SEED ^ point) * _MULTIPLIER
                count += _ONE
                hash_, in_word = _SEED, np.uint8(0)
            elif role == _SEPARATES:
                hashes[count] = hash_
                count += np.uint64(in_word)
                hash_, in_word = _SEED, np.uint8(0)
            elif role == _IN_WORD or (role == _IS_MARK and in_word):
                hash_ = (hash_ ^ np.uint64(folds[point])) * _MULTIPLIER
                in_word = np.uint8(1)
            elif role & _FOLDS_TO_SEVERAL:
                for folded_point in expansions[folds[point]]:
                    if folded_point:
                        hash_ = (hash_ ^ np.uint64(folded_point)) * _MULTIPLIER
                in_word = np.uint8(1)
        hashes[count] = hash_
        count += np.uint64(in_word)
        ends[number + 1] = count
    for index in range(count):  # spread the entropy of the last code points over all bits
        hash_ = hashes[index]
        hash_ = (hash_ ^ (hash_ >> _HALF)) * _FINISHER
        hashes[index] = hash_ ^ (hash_ >> _HALF)
    return count
