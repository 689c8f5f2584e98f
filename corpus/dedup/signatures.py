"""MinHash signatures, bit-equal to datasketch's, and how to cut them into bands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.dedup.shingles import ROTATION
from corpus.text.tokens import Tokens

Signatures = npt.NDArray[np.uint32]  # one row a document, one column a permutation

EDGE_RECALL = 0.90  # of the pairs at dedup.edge_threshold, which only decide what is split together
DROP_RECALL = 0.98  # of the pairs at dedup.threshold
_BLOCK = 4_096  # shingles permuted at a time: they stay in the nearest cache


class Permutations(NamedTuple):
    """The random functions of MinHash: h goes to factor * h + summand modulo 2^32."""

    factors: npt.NDArray[np.uint32]
    summands: npt.NDArray[np.uint32]


def permutations(num_perm: int, seed: int) -> Permutations:
    """Those of datasketch."""
    from datasketch import MinHash  # takes a second, and workers do without

    factors, summands = MinHash(num_perm, seed, scheme="affine32").permutations
    return Permutations(np.ascontiguousarray(factors, np.uint32), np.ascontiguousarray(summands, np.uint32))


def signatures(tokens: Tokens, ngram: int, permutations: Permutations) -> Signatures:
    """The MinHash signature of each document's shingles, bit-equal to datasketch 2 with its `affine32` scheme.

    The scheme takes the upper 32 bits of a shingle's hash. A row can go into
    `LeanMinHash(seed=seed, hashvalues=row, scheme="affine32")` and any index of datasketch.
    """
    rows = np.empty((len(tokens.offsets) - 1, len(permutations.factors)), np.uint32)
    _sign(tokens.hashes, tokens.offsets, ngram, *permutations, rows)
    return rows


@njit(nogil=True, cache=True)
def _sign(tokens, offsets, ngram, factors, summands, rows):  # type: ignore[no-untyped-def]
    shingles = np.empty(_BLOCK, np.uint64)
    mixed = np.empty(_BLOCK, np.uint32)
    for number in range(offsets.shape[0] - 1):
        row = rows[number]
        row[:] = np.uint32(0xFFFFFFFF)
        last = offsets[number + 1] - ngram + 1
        for start in range(offsets[number], last, _BLOCK):
            count = min(_BLOCK, last - start)
            for index in range(count):
                shingles[index] = tokens[start + index]
            for position in range(1, ngram):
                left = np.uint64(ROTATION * position % 64)
                right = np.uint64(64) - left
                for index in range(count):
                    token = tokens[start + index + position]
                    shingles[index] += (token << left) | (token >> right)
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


def recall(similarity: float, bands: int, rows: int) -> float:
    """The chance that a pair of this Jaccard similarity meets in at least one band of so many rows.

    >>> round(recall(0.6, 42, 3), 4), round(recall(0.4, 42, 3), 3), round(recall(0.02, 42, 3), 4)
    (1.0, 0.938, 0.0003)
    """
    return 1.0 - (1.0 - similarity**rows) ** bands


def choose_bands(threshold: float, edge_threshold: float, num_perm: int) -> tuple[int, int]:
    """Bands and rows a band: the longest bands that still find both kinds of pairs.

    Each row more in a band makes unrelated pairs, which grow with the square of the corpus, some 30 times rarer; since
    candidates are verified, missed pairs are all that too long bands can cost. datasketch's own optimiser, weighted
    for recall, takes 2 rows at 0.4 and with them every hundredth unrelated pair.

    >>> choose_bands(0.6, 0.4, 128), choose_bands(0.7, 0.7, 128)
    ((42, 3), (25, 5))
    """
    good = [
        (num_perm // rows, rows)
        for rows in range(1, num_perm + 1)
        if recall(edge_threshold, num_perm // rows, rows) >= EDGE_RECALL
        and recall(threshold, num_perm // rows, rows) >= DROP_RECALL
    ]
    return max(good, key=lambda pair: pair[1], default=(num_perm, 1))
