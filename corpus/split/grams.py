"""Which of many documents hold 13-grams of which others: one table of hashes, looked up for every text.

The table of a corpus is larger than memory may be. So the tasks of its parts write sorted runs, `merge` makes of these
the table, one range of hashes after another, and whoever looks something up maps its files: they are there once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Owners = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.uint8]

ENTRIES = 1 << 20  # of a table that are merged at a time
_SAMPLED = 1_024  # hashes of each run by which ranges of ENTRIES are found
_SLOTS = 16  # of the first test, an entry; more let fewer strangers through, and miss the cache
_MOST_BITS = 30


class GramTable(NamedTuple):
    """Owners by gram: `owners[i]` has the gram of `hashes[i]`. A mere set of grams has no owners."""

    hashes: Hashes  # sorted, each once an owner
    owners: Owners
    seen: Bits  # a bit for each value of a hash's first bits: whether the table has such a hash

    def find(self, hashes: Hashes) -> tuple[Numbers, Numbers]:
        """Where among `hashes` those of the table are, by hash, and the first place of each in the table."""
        likely = _likely(hashes, self.seen, _shift(self.seen))  # nearly all strangers fail this, and it fits the cache
        likely = likely[np.argsort(hashes[likely])]  # one is found near the one before: faster, sorting included
        places = np.searchsorted(self.hashes, hashes[likely])
        places[places == len(self.hashes)] = 0
        known = self.hashes[places] == hashes[likely] if len(self.hashes) else np.zeros(0, np.bool_)
        return likely[known], places[known]


def gram_table(
    hashes: Hashes, owners: npt.NDArray[Any], most: int | None = None, rank: npt.NDArray[Any] | None = None
) -> GramTable:
    """A table of pairs of gram and owner, each once.

    With `most` only so many owners a gram: the smallest numbers, or by owner the smallest `rank`, of equal ones those
    that come first.

    >>> table = gram_table(np.array([7, 5, 7, 7], np.uint64), np.array([3, 1, 2, 1]), most=2)
    >>> table.hashes.tolist(), table.owners.tolist()
    ([5, 7, 7], [1, 1, 2])
    """
    hashes, owners = _in_order(hashes, owners, owners if rank is None else rank[owners], most)
    seen = _no_bits(len(hashes))
    _mark(seen, hashes, _shift(seen))
    return GramTable(hashes, owners, seen)


def _in_order(
    hashes: Hashes, owners: npt.NDArray[Any], keys: npt.NDArray[Any], most: int | None
) -> tuple[Hashes, Owners]:
    """Pairs sorted by hash and key, of each hash the first `most`. Without owners: the hashes, each once."""
    if not len(owners):
        hashes = np.sort(hashes)  # and not np.unique, which without counts takes a hundred times as long
        return hashes[_among_first(hashes, 1)], np.zeros(0, np.uint32)
    order = np.lexsort((keys, hashes))
    hashes, owners = hashes[order], owners[order].astype(np.uint32)
    if most is not None:
        few = _among_first(hashes, most)
        hashes, owners = hashes[few], owners[few]
    return hashes, owners


def _among_first(hashes: Hashes, many: int) -> npt.NDArray[np.bool_]:
    """Of each of some sorted hashes whether it is among the first so many equal ones."""
    few = np.ones(len(hashes), np.bool_)
    few[many:] = hashes[many:] != hashes[:-many]
    return few


def expand(table: GramTable, places: Numbers) -> tuple[Numbers, Numbers]:
    """The owners of each of some grams: the index into `places`, and the owner, for each pair.

    >>> table = gram_table(np.array([7, 5, 7], np.uint64), np.array([3, 1, 2]))
    >>> [each.tolist() for each in expand(table, np.array([1, 0]))]
    [[0, 0, 1], [2, 3, 1]]
    """
    counts = _count_owners(table.hashes, places)
    index = np.repeat(np.arange(len(places)), counts)
    within = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    return index, table.owners[places[index] + within].astype(np.int64)


# ---- tables in files: a folder of `hashes`, `owners` and `seen` ------------------------------------------------------


def write_run(
    path: Path,
    hashes: Hashes,
    owners: npt.NDArray[Any] | None = None,
    keys: npt.NDArray[Any] | None = None,
    most: int | None = None,
) -> None:
    """Write pairs of gram and owner for `merge`, sorted; of each gram only `most`, those of the smallest `keys`."""
    owners = np.zeros(0, np.uint32) if owners is None else owners
    hashes, owners = _in_order(hashes, owners, owners if keys is None else keys, most)
    path.mkdir(parents=True, exist_ok=True)
    hashes.tofile(path / "hashes")
    owners.tofile(path / "owners")


def merge(
    runs: Sequence[Path],
    path: Path,
    most: int | None = None,
    rank: npt.NDArray[Any] | None = None,
    entries: int = ENTRIES,
) -> None:
    """Write the table of all pairs in some runs, as `gram_table` would make it.

    Memory holds about so many `entries` at a time; a run at least has a sampled part of it, so that the ranges of
    hashes come out even however hashes are distributed. Runs come in the order of their owners.
    """
    path.mkdir(parents=True, exist_ok=True)
    seen = _no_bits(sum((run / "hashes").stat().st_size for run in runs) // 8)
    with (path / "hashes").open("wb") as hash_file, (path / "owners").open("wb") as owner_file:
        for low, high in itertools.pairwise([None, *_bounds(runs, entries), None]):
            pieces = [_piece(run, low, high) for run in runs]
            hashes, owners = (np.concatenate(column) for column in zip(*pieces, strict=True))
            del pieces
            hashes, owners = _in_order(hashes, owners, owners if rank is None else rank[owners], most)
            _mark(seen, hashes, _shift(seen))
            hashes.tofile(hash_file)
            owners.tofile(owner_file)
    seen.tofile(path / "seen")


def _bounds(runs: Sequence[Path], entries: int) -> Hashes:
    """Hashes between which some runs have about so many entries together, ascending."""
    step = max(1, entries // _SAMPLED)
    sampled = np.concatenate([_mapped(run / "hashes", np.uint64)[::step].copy() for run in runs])
    sampled.sort()
    every = max(1, entries // step)
    bounds = sampled[every::every]
    return bounds[_among_first(bounds, 1)]


def _piece(run: Path, low: np.uint64 | None, high: np.uint64 | None) -> tuple[Hashes, Owners]:
    """The entries of a run from `low` up to `high`, copied: as many files as runs need not be open at a time."""
    hashes, owners = _mapped(run / "hashes", np.uint64), _mapped(run / "owners", np.uint32)
    start = 0 if low is None else int(np.searchsorted(hashes, low))
    end = len(hashes) if high is None else int(np.searchsorted(hashes, high))
    return hashes[start:end].copy(), owners[start:end].copy()


def save(table: GramTable, path: Path) -> None:
    """Write a table for other processes."""
    path.mkdir(parents=True, exist_ok=True)
    for name, array in table._asdict().items():
        array.tofile(path / name)


def load(path: Path) -> GramTable:
    """A table of `merge` or `save`, mapped and not read."""
    types = (np.uint64, np.uint32, np.uint8)
    return GramTable(*(_mapped(path / name, dtype) for name, dtype in zip(GramTable._fields, types, strict=True)))


def _mapped(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    if not path.stat().st_size:
        return np.zeros(0, dtype)  # nothing cannot be mapped
    return np.asarray(np.memmap(path, dtype, "r"))


# ---- the first test --------------------------------------------------------------------------------------------------


def _no_bits(entries: int) -> Bits:
    bits = min(_MOST_BITS, max(4, (_SLOTS * entries).bit_length()))
    return np.zeros(1 << (bits - 3), np.uint8)


def _shift(seen: Bits) -> np.uint64:
    """By how much a hash is shifted so that its first bits are left, which number one of the bits."""
    return np.uint64(65 - (8 * len(seen)).bit_length())


@njit(nogil=True, cache=True)
def _mark(seen, hashes, shift):
    for place in range(hashes.shape[0]):
        slot = hashes[place] >> shift
        seen[slot >> np.uint64(3)] |= np.uint8(1 << (slot & np.uint64(7)))


@njit(nogil=True, cache=True)
def _likely(hashes, seen, shift):
    """The places of hashes whose bit is set."""
    found = np.empty(hashes.shape[0], np.int64)
    count = np.int64(0)
    for place in range(hashes.shape[0]):
        slot = hashes[place] >> shift
        found[count] = place
        count += np.int64((seen[slot >> np.uint64(3)] >> (slot & np.uint64(7))) & np.uint64(1))
    return found[:count].copy()


@njit(nogil=True, cache=True)
def _count_owners(hashes, places):
    """How often the hash at each place comes from there on."""
    counts = np.ones(places.shape[0], np.int64)
    for number in range(places.shape[0]):
        place = places[number]
        while place + counts[number] < hashes.shape[0] and hashes[place + counts[number]] == hashes[place]:
            counts[number] += 1
    return counts
