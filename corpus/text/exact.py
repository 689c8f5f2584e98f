"""When two texts are the same text: everywhere in the project by the same key."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.text.buffers import Texts


def normalised(text: str) -> str:
    """NFC, each run of white space one space, none at the ends.

    >>> normalised(" cafe\\u0301\\n\\n 早上\\u3000好 ")
    'café 早上 好'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def exact_key(text: str) -> bytes | None:
    """The first 128 bits of SHA-256 of the normalised text; None where nothing is left: empty texts are not alike.

    >>> exact_key("a  b\\n") == exact_key("a b"), exact_key("a b") == exact_key("a, b"), exact_key(" \\n")
    (True, False, None)
    """
    text = normalised(text)
    return _digest(text.encode("utf-8", "surrogatepass")) if text else None


def exact_keys(texts: Texts) -> list[bytes | None]:
    """The `exact_key` of each of many texts that are in NFC."""
    data = np.empty(texts.size + 1, np.uint8)
    ends = np.zeros(len(texts) + 1, np.int64)
    _collapse_white_space(texts.data, texts.offsets, _KINDS, data, ends)
    view = data.data
    return [_digest(view[a:b]) if b > a else None for a, b in itertools.pairwise(ends.tolist())]


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()[:16]  # processors have instructions for it


def _kinds_of_bytes() -> npt.NDArray[np.uint8]:
    """By byte: 1 for white space, 2 for what may start some of two or three bytes."""
    kinds = np.zeros(256, np.uint8)
    kinds[[byte for byte in range(128) if chr(byte).isspace()]] = 1
    kinds[[0xC2, 0xE1, 0xE2, 0xE3]] = 2
    return kinds


_KINDS = _kinds_of_bytes()
_ONE = np.uint64(1)  # unsigned indices spare the test for negative ones


@njit(nogil=True, cache=True)
def _collapse_white_space(data, offsets, kinds, out, ends):
    """Copy the texts with each run of what `str.split` takes for white space as one space, none at the ends.

    Each byte is written, and counted if it is to stay, without a branch on what a processor cannot foresee.
    """
    count = np.uint64(0)
    for number in range(offsets.shape[0] - 1):
        at, end = np.uint64(offsets[number]), np.uint64(offsets[number + 1])
        first = count
        white_before = np.uint8(1)
        while at < end:
            byte = data[at]
            white = kinds[byte]
            at += _ONE
            if white == 2:
                width = _wide_white_space(data, np.int64(at) - 1, np.int64(end))
                white = np.uint8(width > 0)
                if width:
                    at += np.uint64(width - 1)
            out[count] = np.uint8(0x20) if white else byte
            count += np.uint64(1 - (white & white_before))
            white_before = white
        if white_before and count > first:
            count -= _ONE
        ends[number + 1] = count


@njit(nogil=True, cache=True)
def _wide_white_space(data, at, end):
    """The bytes of the white space beyond ASCII that starts here; 0 if none does."""
    if data[at] == 0xC2:
        return 2 if at + 1 < end and (data[at + 1] == 0x85 or data[at + 1] == 0xA0) else 0
    if at + 2 >= end or data[at + 1] & 0xC0 != 0x80 or data[at + 2] & 0xC0 != 0x80:
        return 0
    point = (data[at] & 0x0F) << 12 | (data[at + 1] & 0x3F) << 6 | data[at + 2] & 0x3F
    known = 0x2000 <= point <= 0x200A or point == 0x1680 or point == 0x2028 or point == 0x2029
    return 3 if known or point == 0x202F or point == 0x205F or point == 0x3000 else 0
