"""Which documents go: a greedy star over candidates from locality-sensitive hashing, on exact Jaccard similarities.

Plain clustering of similar documents deletes wrong ones: A is like B and B like C, but C is not like A, which is kept.
Here documents are visited in order of preference, and one is dropped only if its exact similarity to an already *kept*
document reaches the threshold. So each removal names the kept document that justifies it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.dedup.memory import Budget
from corpus.dedup.signatures import Signatures

Indices = npt.NDArray[np.int32]


class ShingleSets(NamedTuple):
    """Sorted sets of shingle hashes: that of document i is `hashes[starts[i]:starts[i] + sizes[i]]` of all chunks."""

    chunks: Sequence[npt.NDArray[np.uint64]]  # one after the other they are the hashes
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


class Star(NamedTuple):
    """What was decided over documents that are numbered in order of preference."""

    kept_of: Indices  # the kept document that each dropped one resembles most; -1: it is kept itself
    similarity: npt.NDArray[np.float64]  # to that one
    left: Indices  # edges, left < right: pairs of a kept and any later document that reach the edge threshold
    right: Indices
    edge_similarity: npt.NDArray[np.float64]
    candidates: int  # pairs of a kept and a later document that met in a band
    verified: int  # of these, compared exactly


def greedy_star(
    signatures: Signatures,
    bands: int,
    rows: int,
    threshold: float,
    edge_threshold: float,
    fetch: Callable[[Indices], ShingleSets],
    budget: Budget,
) -> Star:
    """Decide over all documents, given their signatures in order of preference.

    `fetch` gives the shingle sets of documents by number. Only those of pairs whose signatures do not rule out the
    edge threshold are needed, and which these are depends on what is kept. So a first pass decides by estimates, only
    to learn what to fetch; the second decides by exact similarities and stops for the few sets that the first did not
    foresee. Of several kept documents the most similar one counts, of equally similar ones the preferred.
    """
    count = len(signatures)
    links = _link_buckets(signatures, bands, rows, budget)
    previous = budget.array((count, bands), np.int32)
    _transpose(links, previous)
    nearest_kept = links.reshape(count, bands)  # its room serves again
    least = math.ceil(least_agreement(edge_threshold, signatures.shape[1]) * signatures.shape[1])
    fixed = (signatures, previous, nearest_kept, least, threshold, edge_threshold)

    sets = _Sets(count, budget)
    wanted = np.zeros(count, np.bool_)
    _draw(0, True, *fixed, sets.hashes, sets.starts, sets.sizes, wanted, *_blank(count))
    sets.add(fetch, wanted)
    number, *drawn = _draw(0, False, *fixed, sets.hashes, sets.starts, sets.sizes, wanted, *_blank(count))
    while number < count:
        sets.add(fetch, wanted)
        number, *drawn = _draw(number, False, *fixed, sets.hashes, sets.starts, sets.sizes, wanted, *drawn)
    kept_of, similarity, _, left, right, edge_similarity, (edges, candidates, verified, _) = drawn
    return Star(
        kept_of, similarity, left[:edges], right[:edges], edge_similarity[:edges], int(candidates), int(verified)
    )


class _Sets:
    """The shingle sets fetched so far, in one array that grows; a size of -1 where there is none."""

    def __init__(self, count: int, budget: Budget) -> None:
        self.budget = budget
        self.hashes = budget.array((0,), np.uint64)
        self.used = 0
        self.starts = np.zeros(count, np.int64)
        self.sizes = np.full(count, -1, np.int64)

    def add(self, fetch: Callable[[Indices], ShingleSets], wanted: npt.NDArray[np.bool_]) -> None:
        missing = np.flatnonzero(wanted & (self.sizes < 0)).astype(np.int32)
        if not len(missing):
            return
        fetched = fetch(missing)
        self.starts[missing], self.sizes[missing] = fetched.starts + self.used, fetched.sizes
        needed = self.used + sum(map(len, fetched.chunks))
        if needed > len(self.hashes):
            larger = self.budget.array((needed * 9 // 8,), np.uint64)  # a few more will come
            larger[: self.used] = self.hashes[: self.used]
            self.hashes = larger
        for chunk in fetched.chunks:
            self.hashes[self.used : self.used + len(chunk)] = chunk
            self.used += len(chunk)


def _blank(count: int) -> tuple[npt.NDArray[Any], ...]:
    """What `_draw` fills: kept_of, similarity, met, three columns of edges, and four counters."""
    edges = np.empty(1024, np.int32), np.empty(1024, np.int32), np.empty(1024, np.float64)
    return np.full(count, -1, np.int32), np.zeros(count), np.full(count, -1, np.int64), *edges, np.zeros(4, np.int64)


def least_agreement(similarity: float, num_perm: int) -> float:
    """The share of equal places below which two signatures rule out a similarity.

    A signature estimates it with a standard deviation of sqrt(J(1-J)/permutations); four of them lose one true pair in
    30,000.

    >>> round(least_agreement(0.4, 128), 3)
    0.227
    """
    return similarity - 4 * math.sqrt(similarity * (1 - similarity) / num_perm)


def _link_buckets(signatures: Signatures, bands: int, rows: int, budget: Budget) -> Indices:
    """For each band and document the last one before it that has the same values in the band, or -1; band by band."""
    count = len(signatures)
    previous = budget.array((bands, count), np.int32)
    keys = np.empty(count, np.uint64)
    slots = np.empty(1 << max(1, (2 * count - 1).bit_length()), np.int32)
    for band in range(bands):
        _link_bucket(signatures, band * rows, rows, keys, slots, previous[band])
    return previous


@njit(nogil=True, cache=True)
def _link_bucket(signatures, first, rows, keys, slots, previous):  # type: ignore[no-untyped-def]
    """One band: a hash table with open addressing holds the last document of each bucket."""
    slots[:] = -1
    mask = np.uint64(slots.shape[0] - 1)
    for number in range(keys.shape[0]):
        key = np.uint64(0)
        for column in range(first, first + rows):
            key = (key ^ np.uint64(signatures[number, column])) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(32)
        keys[number] = key
        slot = key & mask
        while slots[slot] >= 0 and keys[slots[slot]] != key:
            slot = (slot + np.uint64(1)) & mask
        previous[number] = slots[slot]
        slots[slot] = number


@njit(nogil=True, cache=True)
def _transpose(bands, documents):  # type: ignore[no-untyped-def]
    """From a row a band to a row a document, block by block: the star then finds a document's links side by side."""
    count = documents.shape[0]
    for start in range(0, count, 64):
        for band in range(bands.shape[0]):
            for number in range(start, min(start + 64, count)):
                documents[number, band] = bands[band, number]


@njit(nogil=True, cache=True)
def _draw(  # type: ignore[no-untyped-def]
    first, estimate, signatures, previous, nearest_kept, least, threshold, edge_threshold, sets, starts, sizes, wanted,
    kept_of, similarity, met, left, right, edge_similarity, counters,
):  # fmt: skip
    """Visit the documents from `first` on; the number of the first one not decided, and what was filled.

    `nearest_kept` holds for each document and band the last *kept* one before it in its bucket: a chain over the kept
    ones alone, so that thousands of copies of one document cost one comparison each. Pairs that lack a shingle set
    make their documents wanted; they are estimated from the signatures, or the document is left for the next call.
    The counters are edges, candidates, verified and visits.
    """
    count, num_perm = signatures.shape
    for number in range(first, count):
        edges, candidates, verified, visit = counters
        best, best_similarity, lacking = -1, 0.0, False
        for band in range(previous.shape[1]):
            other = previous[number, band]
            if other >= 0 and kept_of[other] >= 0:
                other = nearest_kept[other, band]
            nearest_kept[number, band] = other
            while other >= 0:
                if met[other] != visit:
                    met[other] = visit
                    candidates += 1
                    agreement = 0
                    for column in range(num_perm):
                        agreement += signatures[other, column] == signatures[number, column]
                    if agreement >= least:
                        if sizes[other] < 0 or sizes[number] < 0:
                            wanted[other] = wanted[number] = lacking = True
                            similar = agreement / num_perm
                        else:
                            similar = _jaccard(sets, starts[other], sizes[other], starts[number], sizes[number])
                            verified += 1
                            if similar >= edge_threshold:
                                if edges == left.shape[0]:
                                    left = np.append(left, np.empty(edges, np.int32))
                                    right = np.append(right, np.empty(edges, np.int32))
                                    edge_similarity = np.append(edge_similarity, np.empty(edges, np.float64))
                                left[edges], right[edges], edge_similarity[edges] = other, number, similar
                                edges += 1
                        if similar >= threshold and (
                            similar > best_similarity or (similar == best_similarity and other < best)
                        ):
                            best, best_similarity = other, similar
                other = nearest_kept[other, band]
        counters[3] = visit + 1
        if lacking and not estimate:
            return number, kept_of, similarity, met, left, right, edge_similarity, counters
        kept_of[number], similarity[number] = best, best_similarity
        counters[0], counters[1], counters[2] = edges, candidates, verified
    return count, kept_of, similarity, met, left, right, edge_similarity, counters


@njit(nogil=True, cache=True)
def _jaccard(sets, first, first_size, second, second_size):  # type: ignore[no-untyped-def]
    """Shared shingles divided by all shingles of two sorted sets; merged without a branch."""
    shared = 0
    first_end, second_end = first + first_size, second + second_size
    while first < first_end and second < second_end:
        x, y = sets[first], sets[second]
        shared += x == y
        first += x <= y
        second += y <= x
    return shared / (first_size + second_size - shared)
