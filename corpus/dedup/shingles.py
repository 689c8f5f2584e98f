"""A document as its set of shingles: the definition of similarity that signatures and verification share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.text.tokens import Hashes, Tokens

ROTATION = (
    21  # bits: the hash of a shingle is the sum of its tokens' hashes, each rotated by so much times its position
)


class Shingles(NamedTuple):
    """Sets of shingle hashes: that of document i is `hashes[offsets[i]:offsets[i + 1]]`, sorted, each once."""

    hashes: Hashes
    offsets: npt.NDArray[np.int64]


def shingle_sets(tokens: Tokens, ngram: int) -> Shingles:
    """The distinct shingles of `ngram` tokens of each document, 64 bits each; none where it has fewer tokens.

    >>> import pyarrow as pa
    >>> from corpus.text.tokens import Texts, tokenise
    >>> texts = Texts.of(pa.array(["One, TWO: three four", "one two three", "增量备份。", "one two"]))
    >>> shingle_sets(tokenise(texts), 3).offsets.tolist()
    [0, 2, 3, 5, 5]
    """
    counts = np.maximum(np.diff(tokens.offsets) - ngram + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    hashes = np.empty(offsets[-1], np.uint64)
    _shingle(tokens.hashes, tokens.offsets, ngram, hashes, offsets)
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        hashes[start:end].sort()  # numpy's sort is vectorised, numba's is not
    return Shingles(hashes[: _drop_repeated(hashes, offsets)], offsets)


@njit(nogil=True, cache=True)
def _shingle(tokens, token_offsets, ngram, hashes, offsets):  # type: ignore[no-untyped-def]
    for number in range(offsets.shape[0] - 1):
        first, start, end = token_offsets[number], offsets[number], offsets[number + 1]
        for index in range(end - start):
            hashes[start + index] = tokens[first + index]
        for position in range(1, ngram):
            left = np.uint64(ROTATION * position % 64)
            right = np.uint64(64) - left
            for index in range(end - start):
                token = tokens[first + position + index]
                hashes[start + index] += (token << left) | (token >> right)


@njit(nogil=True, cache=True)
def _drop_repeated(hashes, offsets):  # type: ignore[no-untyped-def]
    """Move the distinct ones of each sorted set together, adjust the offsets; the number of those left."""
    kept, start = 0, 0
    for number in range(offsets.shape[0] - 1):
        end = offsets[number + 1]
        for index in range(start, end):
            if index == start or hashes[index] != hashes[index - 1]:
                hashes[kept] = hashes[index]
                kept += 1
        start = end
        offsets[number + 1] = kept
    return kept


def count_distinct(tokens: Tokens, ngram: int, most: int) -> npt.NDArray[np.int64]:
    """How many distinct shingles each document has, counted up to `most` (a handful)."""
    counts = np.zeros(len(tokens.offsets) - 1, np.int64)
    _count_distinct(tokens.hashes, tokens.offsets, ngram, most, counts)
    return counts


@njit(nogil=True, cache=True)
def _count_distinct(tokens, offsets, ngram, most, counts):  # type: ignore[no-untyped-def]
    found = np.empty(most, np.uint64)
    for number in range(counts.shape[0]):
        count = 0
        for start in range(offsets[number], offsets[number + 1] - ngram + 1):
            hash_ = tokens[start]
            for position in range(1, ngram):
                left = np.uint64(ROTATION * position % 64)
                hash_ += (tokens[start + position] << left) | (tokens[start + position] >> (np.uint64(64) - left))
            if not (found[:count] == hash_).any():
                found[count] = hash_
                count += 1
                if count == most:
                    break
        counts[number] = count
