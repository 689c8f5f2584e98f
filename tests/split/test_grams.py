"""Tables of 13-grams: found is what a dictionary finds, and merged range by range is as made at once."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.split import grams
from corpus.split.grams import GramTable, expand, gram_table, load, merge, save, write_run

SPREAD = 0x9E3779B97F4A7C15
HASHES = st.integers(0, 2**64 - 1) | st.integers(0, 40) | st.sampled_from([0, 2**63, 2**64 - 1])
DOCUMENT = st.tuples(st.integers(0, 3), st.sets(HASHES, max_size=6))  # its rank and its grams
PARTS = st.lists(st.lists(DOCUMENT, max_size=5), min_size=1, max_size=5)


def as_hashes(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.uint64)


def write_parts(folder: Path, parts: Sequence[Sequence[set[int]]], ranks: np.ndarray, most: int | None) -> list[Path]:
    """A run for each part, its documents numbered from those before on."""
    runs, first = [], 0
    for number, documents in enumerate(parts):
        sizes = [len(document) for document in documents]
        owners = first + np.repeat(np.arange(len(documents)), sizes)
        hashes = as_hashes([gram for document in documents for gram in sorted(document)])
        runs.append(folder / f"run-{number}")
        write_run(runs[-1], hashes, owners, ranks[owners], most)
        first += len(documents)
    return runs


def owners_of(table: GramTable) -> dict[int, list[int]]:
    """What a table holds, by gram."""
    owners: dict[int, list[int]] = {}
    for gram, owner in zip(table.hashes.tolist(), table.owners.tolist(), strict=True):
        owners.setdefault(gram, []).append(owner)
    return owners


@given(PARTS, st.none() | st.integers(1, 3), st.integers(1, 12))
def test_a_table_merged_in_tiny_ranges_is_the_table_made_at_once(
    parts: list[list[tuple[int, set[int]]]], most: int | None, entries: int
) -> None:
    documents = [document for part in parts for document in part]
    ranks = np.array([rank for rank, _ in documents], np.uint8)
    expected: dict[int, list[int]] = {}
    for number in sorted(range(len(documents)), key=lambda number: ranks[number]):
        for gram in documents[number][1]:
            expected.setdefault(gram, []).append(number)
    with TemporaryDirectory() as folder:
        runs = write_parts(Path(folder), [[own for _, own in part] for part in parts], ranks, most)
        merge(runs, Path(folder) / "merged", most, ranks, entries)
        merged = load(Path(folder) / "merged")
        assert merged.hashes.tolist() == sorted(merged.hashes.tolist())
        assert owners_of(merged) == {gram: owners[:most] for gram, owners in expected.items()}
        pairs = [(gram, number) for number, (_, own) in enumerate(documents) for gram in sorted(own)]
        at_once = gram_table(
            as_hashes([gram for gram, _ in pairs]), np.array([owner for _, owner in pairs], np.int64), most, ranks
        )
        assert (merged.hashes == at_once.hashes).all() and (merged.owners == at_once.owners).all()
        looked_for = as_hashes(sorted({*expected, *range(45), 2**64 - 1, 2**63 + 1}))
        at, places = merged.find(looked_for)
        index, owners = expand(merged, places)
        found: dict[int, list[int]] = {}
        for gram, owner in zip(looked_for[at[index]].tolist(), owners.tolist(), strict=True):
            found.setdefault(gram, []).append(owner)
        assert found == owners_of(merged)


@given(st.lists(st.lists(HASHES, max_size=12), min_size=1, max_size=5), st.integers(1, 12))
def test_sets_merged_in_tiny_ranges_are_the_set_of_all(parts: list[list[int]], entries: int) -> None:
    with TemporaryDirectory() as folder:
        runs = [Path(folder) / str(number) for number in range(len(parts))]
        for run, hashes in zip(runs, parts, strict=True):
            write_run(run, as_hashes(hashes))
        merge(runs, Path(folder) / "merged", entries=entries)
        merged = load(Path(folder) / "merged")
        assert merged.hashes.tolist() == sorted({gram for hashes in parts for gram in hashes})
        assert not len(merged.owners)
        at, _ = merged.find(as_hashes([7, *merged.hashes.tolist()]))
        assert set((at - 1).tolist()) >= set(range(len(merged.hashes)))


@given(st.sets(HASHES, max_size=60), st.lists(HASHES, max_size=60))
@example({0, 2**64 - 1}, [0, 1, 2**63, 2**64 - 1])
def test_the_first_test_lets_all_through_that_the_table_has(has: set[int], others: list[int]) -> None:
    table = gram_table(as_hashes(sorted(has)), np.zeros(len(has), np.int64))
    at, places = table.find(as_hashes([*has, *others]))
    looked_for = [*has, *others]
    assert sorted(at.tolist()) == [number for number, gram in enumerate(looked_for) if gram in has]
    assert table.hashes[places].tolist() == sorted(gram for gram in looked_for if gram in has)
    assert table.hashes[places].tolist() == [looked_for[number] for number in at.tolist()]


def test_the_first_test_stops_nearly_all_strangers() -> None:
    numbers = np.arange(20_000, dtype=np.uint64) * np.uint64(SPREAD)
    table = gram_table(numbers[:10_000], np.arange(10_000))
    likely = grams._likely(numbers, table.seen, grams._shift(table.seen))
    assert likely[:10_000].tolist() == list(range(10_000))
    assert len(likely) - 10_000 < 10_000 / grams._SLOTS


def test_a_table_of_more_grams_than_bits_finds_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grams, "_MOST_BITS", 5)
    numbers = np.arange(2_000, dtype=np.uint64) * np.uint64(SPREAD)
    table = gram_table(numbers[:1_000], np.arange(1_000))
    assert len(table.seen) == 4
    assert sorted(table.find(numbers)[0].tolist()) == list(range(1_000))


@pytest.mark.parametrize("power", [1, 6])
def test_ranges_come_out_even_however_hashes_are_distributed(tmp_path: Path, power: int) -> None:
    generator = np.random.default_rng(1)
    runs = [tmp_path / str(number) for number in range(10)]
    for run in runs:
        write_run(run, (generator.random(5_000) ** power * 2.0**63).astype(np.uint64))
    bounds = grams._bounds(runs, 8_192)
    whole = np.sort(np.concatenate([grams._piece(run, None, None)[0] for run in runs]))
    sizes = np.diff(np.concatenate([[0], np.searchsorted(whole, bounds), [len(whole)]]))
    assert len(sizes) == 7 and sizes.max() < 1.1 * 8_192


def test_memory_of_a_merge_is_that_of_its_ranges(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    runs = [tmp_path / str(number) for number in range(16)]
    for number, run in enumerate(runs):
        hashes = generator.integers(0, 2**64, 100_000, np.uint64)
        write_run(run, hashes, np.full(len(hashes), number))

    def peak(some: list[Path], entries: int) -> int:
        tracemalloc.start()
        try:
            merge(some, tmp_path / "merged", entries=entries)
            return tracemalloc.get_traced_memory()[1] - (tmp_path / "merged" / "seen").stat().st_size
        finally:
            tracemalloc.stop()

    merge(runs, tmp_path / "merged")  # numba has compiled what it calls
    entries = 1 << 17
    assert peak(runs, entries) < 1.2 * peak(runs[:4], entries) < peak(runs, 1 << 24) / 5


def test_an_empty_table_finds_nothing(tmp_path: Path) -> None:
    save(gram_table(as_hashes([]), np.zeros(0, np.int64)), tmp_path / "saved")
    write_run(tmp_path / "run", as_hashes([]))
    merge([tmp_path / "run"], tmp_path / "merged")
    for name in ("saved", "merged"):
        at, places = load(tmp_path / name).find(as_hashes([0, 1, 2**64 - 1]))
        assert not len(at) and not len(places)
