"""The greedy star drawn in parallel: documents that may be similar fall into one group, and groups know nothing of each
other.

A document's fate depends only on documents that share a band with it and whose signatures do not rule out the edge
threshold. So the groups that such pairs connect are found first, a task some bands, and then drawn, a task many small
groups. Which group a task draws decides no bit of the result. Arrays pass between tasks as files.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.dedup.bands import least_agreement
from corpus.dedup.memory import Budget, take_room
from corpus.dedup.shingles import Signatures
from corpus.dedup.star import Indices, ShingleSets, Star, greedy_star, hash_bands
from corpus.executor import Workers, run_tasks

TASKS = 32  # of each kind, at most: few, since each starts with what it needs of the signatures; more than most crews
LONG_BUCKET = 1_000  # documents; those of a longer one are taken for one group without comparing each with each
Numbers = npt.NDArray[np.int64]


class Thresholds(NamedTuple):
    """How documents are compared."""

    bands: int
    rows: int
    drop: float
    edge: float


def partitioned_star(
    signatures: Signatures,
    thresholds: Thresholds,
    fetch: Callable[[Indices], ShingleSets],
    folder: Path,
    crew: Workers,
    megabytes: int,
) -> Star:
    """What `greedy_star` decides, as tasks for a crew; arrays lie in the folder, which all of the crew must see.

    `fetch` is called once, for all documents that may be similar to another; its chunks are mapped files. A task keeps
    so many megabytes of arrays in memory.
    """
    count = len(signatures)
    np.save(folder / "signatures.npy", signatures)
    keys = np.lib.format.open_memmap(folder / "keys.npy", "w+", np.int32, (thresholds.bands, count))
    take_room(folder / "keys.npy", (folder / "keys.npy").stat().st_size)
    hash_bands(signatures, thresholds.rows, keys)
    keys.flush()
    leaders = _leaders(count, thresholds, folder, crew)
    groups = _groups(leaders)
    if not groups:
        return _merge(count, [])
    wanted = np.sort(np.concatenate(groups))
    sets = fetch(wanted)
    tasks = [_write_task(folder / f"group-{number}", group, wanted, sets) for number, group in enumerate(groups)]
    draw = functools.partial(_draw_groups, thresholds, megabytes)
    return _merge(count, (path for _, path in run_tasks(draw, tasks, crew, "dedup: groups")))


def _leaders(count: int, thresholds: Thresholds, folder: Path, crew: Workers) -> Indices:
    """For each document the first of its group, from what the bands say one by one."""
    bands = [range(start, thresholds.bands, TASKS) for start in range(min(TASKS, thresholds.bands))]
    likely = functools.partial(_join_bands, folder, thresholds.edge)
    leaders = np.arange(count, dtype=np.int32)
    for _, path in run_tasks(likely, bands, crew, "dedup: bands"):
        joined = np.load(path)
        _join_all(leaders, joined[0], joined[1])
    _settle(leaders)
    return leaders


def _groups(leaders: Indices) -> list[Indices]:
    """The members of all groups of two and more, as at most TASKS arrays of whole groups, about equally large."""
    order = np.argsort(leaders, kind="stable").astype(np.int32)
    starts = np.flatnonzero(np.diff(leaders[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    task_size = max(1, math.ceil(sizes[sizes > 1].sum() / TASKS))
    together: list[list[Indices]] = [[]]
    room = task_size
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        if room <= 0:
            together.append([])
            room = task_size
        together[-1].append(order[start : start + size])
        room -= size
    return [np.sort(np.concatenate(groups)) for groups in together if groups]


# ---- tasks -----------------------------------------------------------------------------------------------------------


def _join_bands(folder: Path, edge: float, bands: range) -> Path:
    """Join documents that share a bucket of some bands, if their signatures allow it. Two rows: document, leader."""
    signatures, keys = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("signatures", "keys"))
    least = math.ceil(least_agreement(edge, signatures.shape[1]) * signatures.shape[1])
    leaders = np.arange(len(signatures), dtype=np.int32)
    for band in bands:
        key = np.array(keys[band])
        _join_buckets(key, np.argsort(key, kind="stable").astype(np.int32), signatures, least, leaders, LONG_BUCKET)
    _settle(leaders)
    joined = np.flatnonzero(leaders != np.arange(len(leaders))).astype(np.int32)
    path = folder / f"bands-{bands.start}.npy"
    np.save(path, np.stack([joined, leaders[joined]]))
    return path


class _Task(NamedTuple):
    """Groups to draw: the file of their members, and the files that hold their shingle sets one after the other."""

    members: Path
    chunks: list[Path]


def _write_task(path: Path, members: Indices, wanted: Indices, sets: ShingleSets) -> _Task:
    """The members of groups, with where their shingle sets lie among those of all wanted documents."""
    at = np.searchsorted(wanted, members)
    np.savez(path, members=members, starts=sets.starts[at], sizes=sets.sizes[at])
    return _Task(path.with_suffix(".npz"), [Path(str(chunk.filename)) for chunk in sets.chunks])  # type: ignore[attr-defined]


def _draw_groups(thresholds: Thresholds, megabytes: int, task: _Task) -> Path:
    """Draw the star among the members of whole groups; its arrays, with the documents' own numbers."""
    with np.load(task.members) as known:
        members, starts, sizes = known["members"], known["starts"], known["sizes"]
    folder = task.members.parent
    signatures = np.load(folder / "signatures.npy", mmap_mode="r")[members]
    scratch = folder / f"{task.members.stem}-arrays"
    scratch.mkdir(exist_ok=True)
    budget = Budget(megabytes, scratch)
    sets = _own_sets(task.chunks, starts, sizes, budget)
    star = greedy_star(signatures, *thresholds, _all_are_known, budget, sets)
    path = folder / f"{task.members.stem}-star.npz"
    kept_of = np.where(star.kept_of < 0, -1, members[star.kept_of])
    edges = {"left": members[star.left], "right": members[star.right], "edge_similarity": star.edge_similarity}
    np.savez(path, members=members, kept_of=kept_of, similarity=star.similarity, verified=star.verified, **edges)
    shutil.rmtree(scratch)
    return path


def _all_are_known(wanted: Indices) -> ShingleSets:
    raise AssertionError(f"{len(wanted)} documents of a group were fetched without their shingles")


def _own_sets(chunks: Sequence[Path], starts: Numbers, sizes: Numbers, budget: Budget) -> ShingleSets:
    """The sets of some documents alone, out of the files that hold those of all."""
    ends = np.cumsum(sizes)
    own = budget.array((int(sizes.sum()),), np.uint64)
    first = 0
    for path in chunks:
        chunk = np.memmap(path, np.uint64, "r")
        here = np.flatnonzero((starts >= first) & (starts < first + len(chunk)) & (sizes > 0))
        _copy_sets(chunk, starts[here] - first, sizes[here], (ends - sizes)[here], own)
        first += len(chunk)
    return ShingleSets([own], ends - sizes, sizes)


def _merge(count: int, paths: Iterable[Path]) -> Star:
    """The stars of all groups as one; a document of no group is kept."""
    kept_of, similarity = np.full(count, -1, np.int32), np.zeros(count, np.float64)
    edges: list[tuple[Indices, Indices, npt.NDArray[np.float64]]] = []
    verified = 0
    for path in paths:
        with np.load(path) as star:
            kept_of[star["members"]], similarity[star["members"]] = star["kept_of"], star["similarity"]
            edges.append((star["left"], star["right"], star["edge_similarity"]))
            verified += int(star["verified"])
    none = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float64))
    left, right, edge_similarity = (np.concatenate(columns) for columns in zip(none, *edges, strict=True))
    return Star(kept_of, similarity, left, right, edge_similarity, verified)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _join_buckets(key, order, signatures, least, leaders, long_bucket):
    """Join documents of the same key (`order` sorts the keys) of whose places at least so many agree."""
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order) and key[order[end]] == key[order[start]]:
            continue
        for later in range(start + 1, end):
            if end - start > long_bucket:
                _join(leaders, order[start], order[later])
                continue
            for earlier in range(start, later):
                one, other = order[earlier], order[later]
                if _leader(leaders, one) != _leader(leaders, other):
                    agreement = 0
                    for column in range(signatures.shape[1]):
                        agreement += signatures[one, column] == signatures[other, column]
                    if agreement >= least:
                        _join(leaders, one, other)
        start = end


@njit(nogil=True, cache=True)
def _join_all(leaders, left, right):
    for number in range(len(left)):
        _join(leaders, left[number], right[number])


@njit(nogil=True, cache=True)
def _settle(leaders):
    """Have each document name the first of its group."""
    for number in range(len(leaders)):
        leaders[number] = _leader(leaders, number)


@njit(nogil=True, cache=True)
def _join(leaders, one, other):
    one, other = _leader(leaders, one), _leader(leaders, other)
    if one < other:
        leaders[other] = one
    else:
        leaders[one] = other


@njit(nogil=True, cache=True)
def _leader(leaders, number):
    """The first of a document's group; shortens the way to it."""
    while leaders[number] != number:
        leaders[number] = leaders[leaders[number]]
        number = leaders[number]
    return number


@njit(nogil=True, cache=True)
def _copy_sets(chunk, starts, sizes, targets, own):
    for number in range(len(starts)):
        start, target = starts[number], targets[number]
        for place in range(sizes[number]):
            own[target + place] = chunk[start + place]
