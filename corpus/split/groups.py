"""Groups of similar documents, and the split that each group falls into."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping


def group_by_edges(ids: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each id: the smallest id of those connected with it.

    Raises KeyError for an edge to an id that is not among `ids`.

    >>> group_by_edges("abcde", [("d", "b"), ("e", "d")])
    {'a': 'a', 'b': 'b', 'c': 'c', 'd': 'b', 'e': 'b'}
    """
    parent = {one: one for one in ids}

    def root(one: str) -> str:
        while parent[one] != one:
            parent[one] = parent[parent[one]]  # halve the path for the next caller
            one = parent[one]
        return one

    for left, right in edges:
        smaller, larger = sorted((root(left), root(right)))
        parent[larger] = smaller
    return {one: root(one) for one in parent}


def position(group: str, seed: int) -> float:
    """Where a group lies between 0 and 1: from its name and the seed alone, so that new groups move no old one.

    >>> round(position("970af13b2333fc5f66b77432638d7c6e", 0), 6)
    0.357528
    """
    digest = hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def assign(groups: Iterable[str], ratios: Mapping[str, float], seed: int) -> tuple[dict[str, str], int]:
    """The split of each group by its position among the cumulative ratios, and how many groups had to be moved.

    Only where a split with a ratio above 0 gets no group, although there are enough groups for all, is one moved: out
    of the split with the most groups, the one whose position is nearest to the empty split's range.

    >>> assign("abc", {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=0)
    ({'a': 'validation', 'b': 'train', 'c': 'test'}, 2)
    """
    ranges = _ranges(ratios)
    last = list(ranges)[-1]
    positions = {group: position(group, seed) for group in sorted(groups)}
    splits = {
        group: next((name for name, (_, end) in ranges.items() if place < end), last)
        for group, place in positions.items()
    }
    moved = 0
    if len(positions) >= len(ranges):
        for name, (start, end) in ranges.items():
            counts = Counter(splits.values())
            if counts[name]:
                continue
            donor = max(ranges, key=lambda other: counts[other])
            candidates = [group for group, split in splits.items() if split == donor]
            nearest = min(candidates, key=lambda group: min(abs(positions[group] - start), abs(positions[group] - end)))
            splits[nearest] = name
            moved += 1
    return splits, moved


def _ranges(ratios: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Start and end of each split with a ratio above 0.

    >>> _ranges({"train": 0.75, "validation": 0.0, "test": 0.25})
    {'train': (0.0, 0.75), 'test': (0.75, 1.0)}
    """
    ranges, start = {}, 0.0
    for name, ratio in ratios.items():
        if ratio > 0:
            ranges[name] = (start, start + ratio)
            start += ratio
    return ranges
