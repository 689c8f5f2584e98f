"""What kernels should find, by plain Python that goes character by character with Unicode's own data."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from corpus.text.scripts import HANGUL, UNSPACED

_SINGLE = re.compile(f"[{UNSPACED}{HANGUL}\U00020000-\U0003ffff]")
_MOST = 2**64 - 1


def slow_tokens(text: str) -> list[str]:
    """The tokens of a text that near-duplicates share: folded first, then character by character."""
    found: list[str] = []
    open_word = False
    for character in unicodedata.normalize("NFC", text):
        folded = character.casefold()
        category = "Cn" if character > "\U0003ffff" else unicodedata.category(folded[0])
        if category == "Cf" or character in "'’＇":
            continue
        if _SINGLE.match(character):
            found.append(character)
            open_word = False
        elif category[0] in "LN" or (category[0] == "M" and open_word):
            found.append(found.pop() + folded if open_word else folded)
            open_word = True
        elif category[0] != "M":
            open_word = False
    return found


def slow_hash(token: str) -> int:
    """The hash of a folded token."""
    value = 0xCBF29CE484222325
    for character in token:
        value = ((value ^ ord(character)) * 0x9E3779B97F4A7C15) & _MOST
    value = ((value ^ (value >> 32)) * 0xD6E8FEB86659FD93) & _MOST
    return value ^ (value >> 32)


def slow_shingles(hashes: Sequence[int], ngram: int, rotation: int) -> set[int]:
    """The shingles of a text by its tokens' hashes: each the sum of `ngram` of them, rotated by their places."""
    return {
        sum(_rotated(hashes[at + place], rotation * place % 64) for place in range(ngram)) & _MOST
        for at in range(len(hashes) - ngram + 1)
    }


def _rotated(value: int, left: int) -> int:
    return ((value << left) | (value >> (64 - left))) & _MOST


def slow_signature(shingles: set[int], factors: Sequence[int], summands: Sequence[int]) -> list[int]:
    """The MinHash signature of a set of shingles; all ones of an empty one."""
    mixed = [_mixed(shingle >> 32) for shingle in shingles]
    return [
        min(((factor * value + summand) & 0xFFFFFFFF for value in mixed), default=0xFFFFFFFF)
        for factor, summand in zip(factors, summands, strict=True)
    ]


def _mixed(value: int) -> int:
    """The finalizer of MurmurHash3."""
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return value ^ (value >> 16)
