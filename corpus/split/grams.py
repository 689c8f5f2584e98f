"""Which of many documents hold 13-grams of which others: one table of hashes, looked up for every text."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

_FULL = 16  # slots of the first test an entry; more let fewer strangers through, and miss the cache
_MOST_BITS = 28


class GramTable(NamedTuple):
    """Owners by gram: those of `hashes[i]` are `owners[offsets[i]:offsets[i + 1]]`."""

    hashes: Hashes  # sorted, each once
    offsets: Numbers
    owners: Numbers


def gram_table(hashes: Hashes, owners: Numbers, most: int | None = None) -> GramTable:
    """A table of pairs of gram and owner, each once; with `most` only so many owners a gram, the smallest numbers.

    >>> table = gram_table(np.array([7, 5, 7, 7], np.uint64), np.array([3, 1, 2, 1]), most=2)
    >>> [each.tolist() for each in table]
    [[5, 7], [0, 1, 3], [1, 1, 2]]
    """
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    found, starts = np.unique(hashes, return_index=True)
    counts = np.diff(np.append(starts, len(hashes)))
    if most is not None:
        kept = np.arange(len(hashes)) - np.repeat(starts, counts) < most
        owners, counts = owners[kept], np.minimum(counts, most)
    return GramTable(found, np.concatenate([[0], np.cumsum(counts)]), owners)


class Finder:
    """Looks hashes up in a table: a test that fits the cache first, which nearly all strangers fail."""

    def __init__(self, table: GramTable) -> None:
        self.table = table
        bits = min(_MOST_BITS, max(4, (_FULL * len(table.hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._seen = np.zeros(1 << bits, np.bool_)
        self._seen[table.hashes >> self._shift] = True

    def find(self, hashes: Hashes) -> tuple[Numbers, Numbers]:
        """Where among `hashes` those of the table are, and the places of these in the table."""
        likely = np.flatnonzero(self._seen[hashes >> self._shift])
        places = np.searchsorted(self.table.hashes, hashes[likely])
        places[places == len(self.table.hashes)] = 0
        known = self.table.hashes[places] == hashes[likely] if len(self.table.hashes) else np.zeros(0, np.bool_)
        return likely[known], places[known]


def save(table: GramTable, folder: Path, name: str) -> None:
    """Write a table for other processes."""
    for field, array in table._asdict().items():
        np.save(folder / f"{name}.{field}.npy", array)


def load(folder: Path, name: str) -> GramTable:
    """A saved table, mapped and not read."""
    return GramTable(*(np.load(folder / f"{name}.{field}.npy", mmap_mode="r") for field in GramTable._fields))


def expand(table: GramTable, places: Numbers) -> tuple[Numbers, Numbers]:
    """The owners of each of some grams: the index into `places`, and the owner, for each pair.

    >>> table = gram_table(np.array([7, 5, 7], np.uint64), np.array([3, 1, 2]))
    >>> [each.tolist() for each in expand(table, np.array([1, 0]))]
    [[0, 0, 1], [2, 3, 1]]
    """
    starts = table.offsets[places]
    counts = table.offsets[places + 1] - starts
    index = np.repeat(np.arange(len(places)), counts)
    within = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    return index, np.asarray(table.owners[starts[index] + within])
