"""A document as its set of shingles, and the signature of that set.

A shingle is some tokens in a row. Its hash, 64 bits, is the sum of its tokens' hashes, each rotated by its position
times ROTATION bits; sets of these are what is compared exactly. MinHash takes the upper half of each.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.text.tokens import Hashes, Tokens

Signatures = npt.NDArray[np.uint32]  # one row a document, one column a permutation

ROTATION = 21
_BLOCK = 4_096  # shingles at a time: they stay in the nearest cache


class Shingles(NamedTuple):
    """Sets of shingle hashes: that of document i is `hashes[offsets[i]:offsets[i + 1]]`, sorted, each once."""

    hashes: Hashes
    offsets: npt.NDArray[np.int64]


class Permutations(NamedTuple):
    """The random functions of MinHash: h goes to factor * h + summand modulo 2^32."""

    factors: npt.NDArray[np.uint32]
    summands: npt.NDArray[np.uint32]


def shingle_sets(tokens: Tokens, ngram: int, short: bool = False) -> Shingles:
    """The distinct shingles of `ngram` tokens of each document; of one with fewer none, or if `short` all as one.

    >>> import pyarrow as pa
    >>> from corpus.text.tokens import Texts, tokenise
    >>> texts = Texts.of(pa.array(["One, TWO: three four", "one two three", "增量备份。", "one two"]))
    >>> shingle_sets(tokenise(texts), 3).offsets.tolist()
    [0, 2, 3, 5, 5]
    >>> shingle_sets(tokenise(texts), 3, short=True).offsets.tolist()
    [0, 2, 3, 5, 6]
    """
    lengths = np.minimum(np.diff(tokens.offsets), ngram) if short else np.full(len(tokens.offsets) - 1, ngram)
    counts = np.where(lengths > 0, np.maximum(np.diff(tokens.offsets) - lengths + 1, 0), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    hashes = np.empty(offsets[-1], np.uint64)
    places = (tokens.offsets[:-1], lengths, offsets[:-1], offsets[1:])
    for first, length, start, end in zip(*(each.tolist() for each in places), strict=True):
        _hash_shingles(tokens.hashes, first, length, hashes[start:end])
        hashes[start:end].sort()  # numpy's sort is vectorised, numba's is not
    return Shingles(hashes[: _drop_repeated(hashes, offsets)], offsets)


def count_distinct(tokens: Tokens, ngram: int, most: int) -> npt.NDArray[np.int64]:
    """How many distinct shingles each document has, counted up to `most` (a handful)."""
    counts = np.zeros(len(tokens.offsets) - 1, np.int64)
    _count_distinct(tokens.hashes, tokens.offsets, ngram, most, counts)
    return counts


@functools.cache
def permutations(num_perm: int, seed: int) -> Permutations:
    """Those of datasketch, in its scheme `affine32`: odd factors, any summands.

    Drawn here, as importing datasketch takes half a second and 25 MB in each process.

    >>> permutations(2, 1).factors % 2
    array([1, 1], dtype=uint32)
    """
    random = np.random.RandomState(seed)
    factors = 2 * random.randint(0, 1 << 31, num_perm, np.uint32) + np.uint32(1)
    return Permutations(factors, random.randint(0, 1 << 32, num_perm, np.uint32))


def signatures(tokens: Tokens, ngram: int, num_perm: int, seed: int) -> Signatures:
    """The MinHash signature of each document's shingles, bit-equal to datasketch 2 with its `affine32` scheme.

    A row can go into `LeanMinHash(seed=seed, hashvalues=row, scheme="affine32")` and any index of datasketch.
    """
    rows = np.empty((len(tokens.offsets) - 1, num_perm), np.uint32)
    _sign(tokens.hashes, tokens.offsets, ngram, *permutations(num_perm, seed), rows)
    return rows


@njit(nogil=True, cache=True)
def _hash_shingles(tokens, first, ngram, hashes):
    """The hashes of the shingles that start at tokens `first`, `first + 1`, …: as many as there is room for."""
    for index in range(hashes.shape[0]):
        hashes[index] = tokens[first + index]
    for position in range(1, ngram):
        left = np.uint64(ROTATION * position % 64)
        right = np.uint64(64) - left
        for index in range(hashes.shape[0]):
            token = tokens[first + position + index]
            hashes[index] += (token << left) | (token >> right)


@njit(nogil=True, cache=True)
def _drop_repeated(hashes, offsets):
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


@njit(nogil=True, cache=True)
def _count_distinct(tokens, offsets, ngram, most, counts):
    found, one = np.empty(most, np.uint64), np.empty(1, np.uint64)
    for number in range(counts.shape[0]):
        count = 0
        for start in range(offsets[number], offsets[number + 1] - ngram + 1):
            _hash_shingles(tokens, start, ngram, one)
            if not (found[:count] == one[0]).any():
                found[count] = one[0]
                count += 1
                if count == most:
                    break
        counts[number] = count


@njit(nogil=True, cache=True)
def _sign(tokens, offsets, ngram, factors, summands, rows):
    shingles = np.empty(_BLOCK, np.uint64)
    mixed = np.empty(_BLOCK, np.uint32)
    for number in range(offsets.shape[0] - 1):
        row = rows[number]
        row[:] = np.uint32(0xFFFFFFFF)
        last = offsets[number + 1] - ngram + 1
        for start in range(offsets[number], last, _BLOCK):
            count = min(_BLOCK, last - start)
            _hash_shingles(tokens, start, ngram, shingles[:count])
            for index in range(count):  # the finalizer of MurmurHash3; numba widens products, hence the casts
                hash_ = np.uint32(shingles[index] >> np.uint64(32))
                hash_ = np.uint32((hash_ ^ (hash_ >> np.uint32(16))) * np.uint32(0x85EBCA6B))
                hash_ = np.uint32((hash_ ^ (hash_ >> np.uint32(13))) * np.uint32(0xC2B2AE35))
                mixed[index] = hash_ ^ (hash_ >> np.uint32(16))
            for column in range(rows.shape[1]):
                factor, summand, least = factors[column], summands[column], row[column]
                for index in range(count):
                    least = min(least, np.uint32(np.uint32(factor * mixed[index]) + summand))
                row[column] = least
