"""Which documents go: a greedy star over candidates from locality-sensitive hashing, on exact Jaccard similarities.

Plain clustering of similar documents deletes wrong ones: A is like B and B like C, but C is not like A, which is kept.
Here documents are visited in order of preference, and one is dropped only if its exact similarity to an already *kept*
document reaches the threshold. So each removal names the kept document that justifies it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.dedup.bands import least_agreement
from corpus.dedup.memory import Budget
from corpus.dedup.shingles import Signatures

EDGES_A_DOCUMENT = 100  # beyond these only pairs that join two groups of similar documents

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
    left: Indices  # edges, left < right: a kept and a later document whose similarity reaches the edge threshold
    right: Indices
    edge_similarity: npt.NDArray[np.float64]
    verified: int  # pairs of a kept and a later document that met in a band and were compared exactly
    candidates: int = 0  # those that met; not counted where groups are drawn one by one


def greedy_star(
    signatures: Signatures,
    bands: int,
    rows: int,
    threshold: float,
    edge_threshold: float,
    fetch: Callable[[Indices], ShingleSets],
    budget: Budget,
    known: ShingleSets | None = None,
    earlier: Star | None = None,
) -> Star:
    """Decide over all documents, given their signatures in order of preference.

    `fetch` gives the shingle sets of documents by number. Only those of pairs whose signatures do not rule out the
    edge threshold are needed, and which these are depends on what is kept. So the star is drawn with estimates first,
    which says what to fetch beyond the `known` ones (one chunk of all), and drawn again until no estimate was needed.
    Estimates are low, so that rather too many documents are kept and compared, and twice is nearly always enough. Of
    several kept documents the most similar one counts, of equally similar ones the preferred.

    `earlier` is the star over the first documents of this same order: these are not compared again, for nothing that
    comes after a document changes what becomes of it.
    """
    count, num_perm = signatures.shape
    links = _link_buckets(signatures, bands, rows, budget)
    previous = budget.array((count, bands), np.int32)
    _transpose(links, previous)
    nearest_kept = links.reshape(count, bands)  # its room serves again
    drop_least, edge_least = (
        math.ceil(least_agreement(one, num_perm) * num_perm) for one in (threshold, edge_threshold)
    )
    margin = threshold - least_agreement(threshold, num_perm)  # what an estimate is hardly ever off by
    if known:
        (sets,), starts, sizes = known
    else:
        sets, starts, sizes = budget.array((0,), np.uint64), np.zeros(count, np.int64), np.full(count, -1, np.int64)
    used = len(sets)
    if earlier is None:
        none = np.empty(0, np.int32)
        earlier = Star(none, np.empty(0, np.float64), none, none, np.empty(0, np.float64), 0)
    while True:
        *drawn, wanted = _draw(
            *earlier,
            signatures,
            previous,
            nearest_kept,
            drop_least,
            edge_least,
            threshold,
            edge_threshold,
            margin,
            sets,
            starts,
            sizes,
        )
        missing = np.flatnonzero(wanted & (sizes < 0)).astype(np.int32)
        if not len(missing):
            return Star(*drawn)
        fetched = fetch(missing)
        starts[missing], sizes[missing] = fetched.starts + used, fetched.sizes
        needed = used + sum(map(len, fetched.chunks))
        if needed > len(sets):
            sets, old = budget.array((needed * 9 // 8,), np.uint64), sets  # the next time brings a few more
            sets[:used] = old[:used]
        for chunk in fetched.chunks:
            sets[used : used + len(chunk)] = chunk
            used += len(chunk)


def _link_buckets(signatures: Signatures, bands: int, rows: int, budget: Budget) -> Indices:
    """For each band and document the last one before it that has the same values in the band, or -1."""
    count = len(signatures)
    links = budget.array((bands, count), np.int32)
    hash_bands(signatures, rows, links)
    slots = 1 << max(1, (2 * count - 1).bit_length())
    table = np.empty((2, slots), np.int32)
    for band in links:  # one at a time
        _link_bucket(band, *table)
    return links


@njit(nogil=True, cache=True)
def hash_bands(signatures, rows, keys):
    """A 32-bit hash of each band of each document; that some differing bands share one only adds candidates."""
    count = signatures.shape[0]
    for start in range(0, count, 64):
        for band in range(keys.shape[0]):
            for number in range(start, min(start + 64, count)):
                key = np.uint64(0)
                for column in range(band * rows, (band + 1) * rows):
                    key = (key ^ np.uint64(signatures[number, column])) * np.uint64(0x9E3779B97F4A7C15)
                    key ^= key >> np.uint64(32)
                keys[band, number] = np.int32(np.uint32(key))


@njit(nogil=True, cache=True)
def _link_bucket(band, keys, last):
    """Put links in the place of one band's hashes; a table with open addressing holds the last of each bucket."""
    last[:] = -1
    mask = np.uint64(last.shape[0] - 1)
    for number in range(band.shape[0]):
        key = band[number]
        slot = np.uint64(np.uint32(key)) & mask
        while last[slot] >= 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        band[number], keys[slot], last[slot] = last[slot], key, number


@njit(nogil=True, cache=True)
def _transpose(bands, documents):
    """From a row a band to a row a document, block by block: the star then finds a document's links side by side."""
    count = documents.shape[0]
    for start in range(0, count, 64):
        for band in range(bands.shape[0]):
            for number in range(start, min(start + 64, count)):
                documents[number, band] = bands[band, number]


@njit(nogil=True, cache=True)
def _draw(
    earlier_kept_of,
    earlier_similarity,
    earlier_left,
    earlier_right,
    earlier_edge_similarity,
    verified,
    candidates,
    signatures,
    previous,
    nearest_kept,
    drop_least,
    edge_least,
    threshold,
    edge_threshold,
    margin,
    sets,
    starts,
    sizes,
):
    """One pass over the documents after the earlier ones. Pairs that lack a shingle set (size -1) are estimated and
    their documents wanted.

    `nearest_kept` holds for each document and band the last *kept* one before it in its bucket: a chain over the kept
    ones alone, so that thousands of copies of one document cost one comparison each. Many documents that share half
    of their text and are all kept are compared each with each; only their edges are bounded.
    """
    count, num_perm = signatures.shape
    kept_of = np.full(count, -1, np.int32)
    similarity = np.zeros(count, np.float64)
    wanted = np.zeros(count, np.bool_)
    met = np.full(count, -1, np.int32)
    groups = np.arange(count).astype(np.int32)
    first, edges = earlier_kept_of.shape[0], earlier_left.shape[0]
    kept_of[:first], similarity[:first] = earlier_kept_of, earlier_similarity
    left, right = np.empty(edges + 1024, np.int32), np.empty(edges + 1024, np.int32)
    edge_similarity = np.empty(edges + 1024, np.float64)
    left[:edges], right[:edges], edge_similarity[:edges] = earlier_left, earlier_right, earlier_edge_similarity
    for edge in range(edges):
        groups[_find(groups, left[edge])] = _find(groups, right[edge])
    for number in range(first):
        for band in range(previous.shape[1]):
            other = previous[number, band]
            if other >= 0 and kept_of[other] >= 0:
                other = nearest_kept[other, band]
            nearest_kept[number, band] = other
    for number in range(first, count):
        best, best_similarity, own_edges = -1, 0.0, 0
        for band in range(previous.shape[1]):
            other = previous[number, band]
            if other >= 0 and kept_of[other] >= 0:
                other = nearest_kept[other, band]
            nearest_kept[number, band] = other
            while other >= 0:
                if met[other] != number:
                    met[other] = number
                    candidates += 1
                    agreement = 0
                    for column in range(num_perm):
                        agreement += signatures[other, column] == signatures[number, column]
                    likely = agreement >= edge_least
                    may_join = own_edges < EDGES_A_DOCUMENT or _find(groups, other) != _find(groups, number)
                    if likely and (agreement >= drop_least or may_join):
                        if sizes[other] < 0 or sizes[number] < 0:
                            wanted[other] = wanted[number] = True
                            similar = agreement / num_perm - margin
                        else:
                            verified += 1
                            similar = _jaccard(sets, starts[other], sizes[other], starts[number], sizes[number])
                        if similar >= edge_threshold and may_join:
                            if edges == left.shape[0]:
                                left = np.append(left, np.empty(edges, np.int32))
                                right = np.append(right, np.empty(edges, np.int32))
                                edge_similarity = np.append(edge_similarity, np.empty(edges, np.float64))
                            left[edges], right[edges], edge_similarity[edges] = other, number, similar
                            edges += 1
                            own_edges += 1
                            groups[_find(groups, other)] = _find(groups, number)
                        if similar >= threshold and (
                            similar > best_similarity or (similar == best_similarity and other < best)
                        ):
                            best, best_similarity = other, similar
                other = nearest_kept[other, band]
        kept_of[number], similarity[number] = best, best_similarity
    return kept_of, similarity, left[:edges], right[:edges], edge_similarity[:edges], verified, candidates, wanted


@njit(nogil=True, cache=True)
def _find(groups, number):
    """The document that stands for a group; shortens the way to it."""
    while groups[number] != number:
        groups[number] = groups[groups[number]]
        number = groups[number]
    return number


@njit(nogil=True, cache=True)
def _jaccard(sets, first, first_size, second, second_size):
    """Shared shingles divided by all shingles of two sorted sets; merged without a branch."""
    shared = 0
    first_end, second_end = first + first_size, second + second_size
    while first < first_end and second < second_end:
        x, y = sets[first], sets[second]
        shared += x == y
        first += x <= y
        second += y <= x
    return shared / (first_size + second_size - shared)
