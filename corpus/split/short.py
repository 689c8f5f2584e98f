"""All pairs of similar short documents, exactly: MinHash says too little of a handful of shingles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Numbers = npt.NDArray[np.int64]

PAIRS = 100  # with earlier documents that are all written down


def similar_short(shingles: npt.NDArray[np.uint64], offsets: Numbers, threshold: float) -> tuple[Numbers, Numbers]:
    """Pairs of sets, the earlier one first, whose Jaccard similarity reaches the threshold (above 0).

    The set of document i is `shingles[offsets[i]:offsets[i + 1]]`. Of a set that resembles more than PAIRS earlier ones
    further pairs are left out where others already hold the two together. Prefix filtering (Bayardo et al. 2007): of
    two similar sets the rarest few shingles of each, by one order of all shingles, have one in common.

    >>> sets = np.array([1, 2, 3, 2, 3, 4, 9], np.uint64)
    >>> [each.tolist() for each in similar_short(sets, np.array([0, 3, 6, 7]), 0.5)]
    [[0], [1]]
    """
    distinct, ranks, counts = np.unique(shingles, return_inverse=True, return_counts=True)
    rarity = np.empty(len(distinct), np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(distinct))
    by_rarity = rarity[ranks]
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        by_rarity[start:end].sort()
    left, right = _join(by_rarity, offsets.astype(np.int64), len(distinct), threshold)
    return left, right


@njit(nogil=True, cache=True)
def _join(sets, offsets, shingles, threshold):
    """Visit the sets in order, each against those before it with a common shingle in both prefixes."""
    count = offsets.shape[0] - 1
    newest = np.full(shingles, -1, np.int64)  # the last place in `sets` where a shingle stood in a prefix
    older = np.full(sets.shape[0], -1, np.int64)  # the place before that
    owner = np.empty(sets.shape[0], np.int64)
    met = np.full(count, -1, np.int64)
    groups = np.arange(count)
    left, right = np.empty(1024, np.int64), np.empty(1024, np.int64)
    found = 0
    for number in range(count):
        own = 0
        start, end = offsets[number], offsets[number + 1]
        size = end - start
        prefix = size - np.int64(np.ceil(threshold * size)) + 1
        for place in range(start, min(start + prefix, end)):
            other_place = newest[sets[place]]
            while other_place >= 0:
                other = owner[other_place]
                if met[other] != number and (own < PAIRS or _find(groups, other) != _find(groups, number)):
                    met[other] = number
                    shared = _count_shared(sets, start, end, offsets[other], offsets[other + 1])
                    if shared >= threshold * (size + offsets[other + 1] - offsets[other] - shared):
                        if found == left.shape[0]:
                            left, right = np.append(left, np.empty_like(left)), np.append(right, np.empty_like(right))
                        left[found], right[found] = other, number
                        found += 1
                        own += 1
                        groups[_find(groups, number)] = _find(groups, other)
                other_place = older[other_place]
            owner[place] = number
            older[place] = newest[sets[place]]
            newest[sets[place]] = place
    return left[:found], right[:found]


@njit(nogil=True, cache=True)
def _find(groups, number):
    """The document that stands for a group; shortens the way to it."""
    while groups[number] != number:
        groups[number] = groups[groups[number]]
        number = groups[number]
    return number


@njit(nogil=True, cache=True)
def _count_shared(sets, first, first_end, second, second_end):
    shared = 0
    while first < first_end and second < second_end:
        x, y = sets[first], sets[second]
        shared += x == y
        first += x <= y
        second += y <= x
    return shared
