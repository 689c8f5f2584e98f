"""Groups of documents that belong together, and the side of the split that each document is put on.

Imports are placed one after the other, and what is placed never moves: so the result is a function of the documents
and their batches alone, and a new batch changes nothing for the old ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse

Numbers = npt.NDArray[np.int64]
Pairs = tuple[Numbers, Numbers]

UNPLACED, BRIDGE = -1, -2  # in the place of a side
LARGE = 0.01  # of the documents: a larger group goes to the first side that has room, for a cut cannot fall inside it


@dataclasses.dataclass
class Placed:
    """What became of documents that are numbered in the order of their batches."""

    sides: Numbers  # the number of the side, or BRIDGE
    groups: Numbers  # the document that the group is named after: the first one of its first import
    bridged: dict[int, tuple[int, int]]  # of each bridge two documents that it resembles, on two sides


def place(names: Sequence[str], batches: Numbers, pairs: Pairs, ratios: Sequence[float], seed: int) -> Placed:
    """Put documents on sides, batch by batch in the order of their numbers.

    Of a batch, the documents that are connected by `pairs` make a group. One that is connected with documents of
    earlier batches on one side goes there, and into the group of the first of them. One that is connected with several
    sides is taken apart: side by side from the old documents on, each of its documents goes where those go that it
    resembles, and one that resembles documents on two sides is a bridge. All other groups are put in the order of a
    hash of seed and name, large ones before small ones, and cut where the shares of documents come nearest to `ratios`
    (which sum to 1).
    """
    placed = Placed(np.full(len(names), UNPLACED), np.arange(len(names)), {})
    left, right = pairs
    last = np.maximum(batches[left], batches[right])
    for batch in np.unique(batches):
        new = np.flatnonzero(batches == batch)
        own = last == batch
        _join_earlier(placed, new, batches, (left[own], right[own]))
        free = new[placed.sides[new] == UNPLACED]
        _cut_free(placed, free, (left[own], right[own]), names, ratios, seed)
    return placed


def _join_earlier(placed: Placed, new: Numbers, batches: Numbers, pairs: Pairs) -> None:
    """Place those of the new documents that are connected with earlier ones."""
    ends = np.concatenate([np.stack(pairs), np.stack(pairs[::-1])], axis=1)  # both ways
    batch = batches[new[0]]
    inner = (batches[ends[0]] == batch) & (batches[ends[1]] == batch)
    outer = ends[:, (batches[ends[0]] == batch) & (batches[ends[1]] < batch) & (placed.sides[ends[1]] >= 0)]
    if not outer.shape[1]:
        return
    group = components(new, (ends[0, inner], ends[1, inner]))
    sides = np.zeros(len(placed.sides), np.int64)  # by group: a bit a side
    np.bitwise_or.at(sides, group[outer[0]], 1 << placed.sides[outer[1]])
    first = np.full(len(placed.sides), len(placed.sides))
    np.minimum.at(first, group[outer[0]], placed.groups[outer[1]])
    sure = new[np.isin(sides[group[new]], 1 << np.arange(3))]
    placed.sides[sure] = np.log2(sides[group[sure]]).astype(np.int64)
    placed.groups[sure] = first[group[sure]]
    torn = new[np.bitwise_count(sides[group[new]]) > 1]
    if len(torn):
        _take_apart(placed, torn, np.concatenate([ends[:, inner], outer], axis=1))


def _take_apart(placed: Placed, torn: Numbers, ends: npt.NDArray[np.int64]) -> None:
    """Place the documents of groups that resemble several sides, from those nearest to the old documents on."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for one, other in ends[:, np.isin(ends[0], torn)].T.tolist():
        neighbours[one].append(other)
    waiting = sorted(one for one in neighbours if any(placed.sides[other] >= 0 for other in neighbours[one]))
    while waiting:
        reached: set[int] = set()
        for one in waiting:
            by_side = {placed.sides[other]: other for other in sorted(neighbours[one], reverse=True)}
            by_side = {side: other for side, other in by_side.items() if side >= 0}
            if len(by_side) > 1:
                placed.sides[one] = BRIDGE
                first, second, *_ = sorted(by_side.values())
                placed.bridged[one] = first, second
                continue
            (placed.sides[one],) = by_side
            placed.groups[one] = min(placed.groups[other] for other in neighbours[one] if placed.sides[other] >= 0)
            reached.update(other for other in neighbours[one] if placed.sides[other] == UNPLACED)
        waiting = sorted(one for one in reached if placed.sides[one] == UNPLACED)


def _cut_free(
    placed: Placed, free: Numbers, pairs: Pairs, names: Sequence[str], ratios: Sequence[float], seed: int
) -> None:
    """Place groups that resemble nothing older."""
    if not len(free):
        return
    is_free = np.zeros(len(names), np.bool_)
    is_free[free] = True
    inner = is_free[pairs[0]] & is_free[pairs[1]]
    group = components(free, (pairs[0][inner], pairs[1][inner]))
    firsts, sizes = np.unique(group[free], return_counts=True)
    positions = [position(names[first], seed) for first in firsts.tolist()]
    held = np.bincount(placed.sides[placed.sides >= 0], minlength=len(ratios))
    small = sizes <= max(1.0, LARGE * (sizes.sum() + held.sum()))
    order = np.lexsort((firsts, np.array(positions), small))
    side_of = np.zeros(len(names), np.int64)
    side_of[firsts[order]] = cut(sizes[order], held, ratios)
    placed.sides[free] = side_of[group[free]]
    placed.groups[free] = group[free]


def components(some: Numbers, pairs: Pairs) -> Numbers:
    """The group of each of some documents, by its smallest number; pairs are of these. Others have no group of meaning.

    >>> components(np.array([1, 2, 4, 5]), (np.array([5, 4]), np.array([2, 4])))[[1, 2, 4, 5]].tolist()
    [1, 2, 4, 2]
    """
    size = int(some.max()) + 1 if len(some) else 0
    graph = scipy.sparse.coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(size, size))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    smallest = np.full(size, size)
    np.minimum.at(smallest, labels, np.arange(size))
    return np.asarray(smallest[labels])


def position(name: str, seed: int) -> float:
    """Where a group lies between 0 and 1: from its name and the seed alone, so that few move when others come.

    >>> round(position("970af13b2333fc5f66b77432638d7c6e", 0), 6)
    0.357528
    """
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def cut(sizes: npt.ArrayLike, held: npt.ArrayLike, ratios: Sequence[float]) -> Numbers:
    """The side of each group, given how many documents each has and how many each side already holds.

    Groups stay in order: the first ones go to the first side. A side with a ratio above 0 that holds nothing gets a
    group, while there are enough.

    >>> cut([1] * 10, [0, 0, 0], [0.7, 0.1, 0.2]).tolist()
    [0, 0, 0, 0, 0, 0, 0, 1, 2, 2]
    >>> cut([1] * 10, [7, 3, 0], [0.7, 0.1, 0.2]).tolist(), cut([8, 1, 1], [0, 0, 0], [0.7, 0.1, 0.2]).tolist()
    ([0, 0, 0, 0, 0, 0, 2, 2, 2, 2], [0, 1, 2])
    """
    sizes, held = np.asarray(sizes), np.asarray(held)
    lacking = np.maximum(np.array(ratios) * (sizes.sum() + held.sum()) - held, 0)
    wanted = np.cumsum(lacking / lacking.sum() * sizes.sum())
    ends = np.concatenate([[0], np.cumsum(sizes)])
    empty = [ratio > 0 and not count for ratio, count in zip(ratios, held, strict=True)]
    if len(sizes) < sum(empty):
        empty = [False] * len(ratios)
    sides, start = np.zeros(len(sizes), np.int64), 0
    for side in range(len(ratios)):
        lower, upper = start + empty[side], len(sizes) - sum(empty[side + 1 :])
        nearest = int(np.argmin(np.abs(ends - wanted[side]))) if side + 1 < len(ratios) else len(sizes)
        stop = min(max(nearest, lower), upper)
        sides[start:stop] = side
        start = stop
    return sides
