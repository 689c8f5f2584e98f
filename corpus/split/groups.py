"""Groups of documents that belong together, and the side of the split that each document is put on.

Imports are placed one after the other, and what is placed never moves: so the result is a function of the documents
and their batches alone, and a new batch changes nothing for the old ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

Numbers = npt.NDArray[np.int64]
Pairs = tuple[Numbers, Numbers]

UNPLACED, BRIDGE = -1, -2  # in the place of a side
LARGE = 0.01  # of the documents: a larger group goes to the first side that has room, for a cut cannot fall inside it


class Members(NamedTuple):
    """Who shares what: `documents[i]` has the key `keys[i]`. Keys are numbered from 0."""

    documents: Numbers
    keys: Numbers


@dataclasses.dataclass
class Placed:
    """What became of documents that are numbered in the order of their batches."""

    sides: Numbers  # the number of the side, or BRIDGE
    groups: Numbers  # the document that the group is named after: the first one of its first import
    bridged: dict[int, tuple[int, int]]  # of each bridge two documents that it belongs to, on two sides
    holders: Numbers  # of each key a document that is placed and has it, or -1; all such are on one side


def place(
    names: Sequence[str], batches: Numbers, pairs: Pairs, members: Members, ratios: Sequence[float], seed: int
) -> Placed:
    """Put documents on sides, batch by batch in the order of their numbers.

    Of a batch, the documents that are connected by `pairs` or by a common key make a group. One that is connected with
    documents of earlier batches on one side goes there, and into the group of the first of them. One that is connected
    with several sides is taken apart: from the old documents on, each of its documents goes where those go that it
    belongs to, and one that belongs to documents on two sides is a bridge, which is dropped and connects nothing. All
    other groups are put in the order of a hash of seed and name, large ones before small ones, and cut where the shares
    of documents come nearest to `ratios` (which sum to 1).
    """
    keys = int(members.keys.max(initial=-1)) + 1
    placed = Placed(np.full(len(names), UNPLACED), np.arange(len(names)), {}, np.full(keys, -1))
    left, right = pairs
    last, of_members = np.maximum(batches[left], batches[right]), batches[members.documents]
    for batch in np.unique(batches):
        new = np.flatnonzero(batches == batch)
        own, own_members = last == batch, of_members == batch
        here = (left[own], right[own]), Members(members.documents[own_members], members.keys[own_members])
        _join_earlier(placed, new, *here)
        _cut_free(placed, new[placed.sides[new] == UNPLACED], *here, names, ratios, seed)
    return placed


def _join_earlier(placed: Placed, new: Numbers, pairs: Pairs, members: Members) -> None:
    """Place those of the new documents that are connected with earlier ones."""
    ends = np.concatenate([np.stack(pairs), np.stack(pairs[::-1])], axis=1)  # both ways
    is_new = np.zeros(len(placed.sides), np.bool_)
    is_new[new] = True
    inner = ends[:, is_new[ends[0]] & is_new[ends[1]]]
    outer = ends[:, is_new[ends[0]] & (placed.sides[ends[1]] >= 0)]
    held = placed.holders[members.keys]
    by_key = np.stack([members.documents[held >= 0], held[held >= 0]])
    outer = np.concatenate([outer, by_key], axis=1)
    if not outer.shape[1]:
        return
    group = components(new, (inner[0], inner[1]), members)
    sides = np.zeros(len(group), np.int64)  # by group: a bit a side
    np.bitwise_or.at(sides, group[outer[0]], 1 << placed.sides[outer[1]])
    first = np.full(len(group), len(placed.sides))
    np.minimum.at(first, group[outer[0]], placed.groups[outer[1]])
    sure = new[np.bitwise_count(sides[group[new]]) == 1]
    placed.sides[sure] = np.log2(sides[group[sure]]).astype(np.int64)
    placed.groups[sure] = first[group[sure]]
    _hold_keys(placed, members, sure)
    torn = new[np.bitwise_count(sides[group[new]]) > 1]
    if len(torn):
        _take_apart(placed, torn, np.concatenate([inner, outer], axis=1), members)


def _take_apart(placed: Placed, torn: Numbers, ends: npt.NDArray[np.int64], members: Members) -> None:
    """Place the documents of groups that belong to several sides, from those nearest to the old documents on."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    keys_of: dict[int, list[int]] = defaultdict(list)
    having: dict[int, list[int]] = defaultdict(list)
    for one, other in ends[:, np.isin(ends[0], torn)].T.tolist():
        neighbours[one].add(other)
    own = np.isin(members.documents, torn)
    for one, key in zip(members.documents[own].tolist(), members.keys[own].tolist(), strict=True):
        keys_of[one].append(key)
        having[key].append(one)

    def settled(one: int) -> list[int]:
        """The placed documents that it belongs to."""
        holders = {int(placed.holders[key]) for key in keys_of[one]} - {-1}
        return sorted(holders | {other for other in neighbours[one] if placed.sides[other] >= 0})

    waiting = [one for one in torn.tolist() if settled(one)]
    while waiting:
        reached: set[int] = set()
        for one in waiting:
            near = settled(one)
            by_side = {int(placed.sides[other]): other for other in reversed(near)}
            if len(by_side) > 1:
                placed.sides[one] = BRIDGE
                first, second, *_ = sorted(by_side.values())
                placed.bridged[one] = first, second
                continue
            (placed.sides[one],) = by_side
            placed.groups[one] = min(placed.groups[other] for other in near)
            for key in keys_of[one]:
                if placed.holders[key] < 0:
                    placed.holders[key] = one
                    reached.update(having[key])
            reached |= neighbours[one]
        waiting = sorted(one for one in reached if placed.sides[one] == UNPLACED)


def _hold_keys(placed: Placed, members: Members, documents: Numbers) -> None:
    """Let documents that were just placed hold their keys, if nobody does."""
    is_one = np.zeros(len(placed.sides), np.bool_)
    is_one[documents] = True
    own = is_one[members.documents] & (placed.holders[members.keys] < 0)
    placed.holders[members.keys[own]] = members.documents[own]


def _cut_free(
    placed: Placed,
    free: Numbers,
    pairs: Pairs,
    members: Members,
    names: Sequence[str],
    ratios: Sequence[float],
    seed: int,
) -> None:
    """Place groups that belong to nothing older."""
    if not len(free):
        return
    is_free = np.zeros(len(names), np.bool_)
    is_free[free] = True
    inner, own = is_free[pairs[0]] & is_free[pairs[1]], is_free[members.documents]
    own_members = Members(members.documents[own], members.keys[own])
    group = components(free, (pairs[0][inner], pairs[1][inner]), own_members)
    firsts, sizes = np.unique(group[free], return_counts=True)
    positions = [position(names[first], seed) for first in firsts.tolist()]
    held = np.bincount(placed.sides[placed.sides >= 0], minlength=len(ratios))
    small = sizes <= max(1.0, LARGE * (sizes.sum() + held.sum()))
    order = np.lexsort((firsts, np.array(positions), small))
    side_of = np.zeros(len(names), np.int64)
    side_of[firsts[order]] = cut(sizes[order], held, ratios)
    placed.sides[free] = side_of[group[free]]
    placed.groups[free] = group[free]
    _hold_keys(placed, own_members, free)


def components(some: Numbers, pairs: Pairs, members: Members) -> Numbers:
    """The group of each of some documents, by its smallest number. Others have no group of meaning.

    >>> pairs = np.array([5, 4]), np.array([2, 4])
    >>> some, members = np.array([1, 2, 4, 5, 6]), Members(np.array([1, 6]), np.array([3, 3]))
    >>> components(some, pairs, members)[some].tolist()
    [1, 2, 4, 2, 1]
    """
    size = int(some.max(initial=-1)) + 1
    left, right = np.concatenate([pairs[0], members.documents]), np.concatenate([pairs[1], size + members.keys])
    nodes = size + int(members.keys.max(initial=-1)) + 1
    graph = scipy.sparse.coo_array((np.ones(len(left), np.int8), (left, right)), shape=(nodes, nodes))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    smallest = np.full(nodes, nodes)
    np.minimum.at(smallest, labels, np.arange(nodes))
    return np.asarray(smallest[labels][:size])


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
