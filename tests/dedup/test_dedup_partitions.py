"""Groups drawn by themselves against one star over all."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import digests
from test_dedup_star import make_sets

from corpus.cluster import Cluster
from corpus.dedup import partitions, stage
from corpus.dedup.bands import choose_bands
from corpus.dedup.memory import Budget
from corpus.dedup.partitions import Thresholds, partitioned_star
from corpus.dedup.shingles import signatures
from corpus.dedup.star import ShingleSets, Star, greedy_star
from corpus.executor import Workers
from corpus.params import Params
from corpus.stage import Run, execute
from corpus.text.buffers import Texts
from corpus.text.tokens import Tokens


def both_stars(documents: list[list[int]], folder: Path, crew: Workers = 1) -> tuple[Star, Star]:
    """Over shingles of one token each: of all documents at once, and of groups. Shingle sets come in three files."""
    hashes = np.array([token for document in documents for token in document], np.uint64)
    offsets = np.cumsum([0, *map(len, documents)])
    matrix = signatures(Tokens(hashes, offsets, Texts(np.empty(0, np.uint8), offsets)), 1, 128, 1)
    thresholds = Thresholds(*choose_bands(0.6, 0.4, 128), 0.6, 0.4)

    def fetch(wanted: np.ndarray) -> ShingleSets:
        some = [np.unique(np.array(documents[number], np.uint64)) for number in wanted]
        files = [folder / f"shingles-{number}" for number in range(3) if some[number::3]]
        order = [number for start in range(len(files)) for number in range(start, len(some), 3)]
        for number, path in enumerate(files):
            np.concatenate(some[number::3]).tofile(path)
        sizes = np.array([one.size for one in some])
        starts = np.empty(len(some), np.int64)
        starts[order] = np.cumsum(sizes[order]) - sizes[order]
        return ShingleSets([np.memmap(path, np.uint64, "r") for path in files], starts, sizes)

    (folder / "all").mkdir()
    whole = greedy_star(matrix, *thresholds, fetch, Budget(100, folder / "all"))
    return whole, partitioned_star(matrix, thresholds, fetch, folder, crew, 10)


def assert_same(one: Star, other: Star) -> None:
    assert one.kept_of.tolist() == other.kept_of.tolist()
    assert one.similarity.tolist() == other.similarity.tolist()
    edges, others = (sorted(zip(*star[2:5], strict=True)) for star in (one, other))
    assert edges == others
    assert one.verified == other.verified


@pytest.mark.parametrize("seed", range(8))
def test_groups_decide_as_the_star_over_all(tmp_path: Path, seed: int) -> None:
    documents = make_sets(seed, 150, range(20, 120), [0.0, 0.02, 0.1, 0.2, 0.3, 0.4, 0.5])
    whole, grouped = both_stars(documents, tmp_path)
    assert (whole.kept_of >= 0).sum() > 50
    assert_same(whole, grouped)


def test_long_buckets_are_joined_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of each document are the same hundred tokens: buckets of all documents, few of them duplicates."""
    monkeypatch.setattr(partitions, "LONG_BUCKET", 20)
    generator = random.Random(3)
    common = [generator.getrandbits(64) for _ in range(30)]
    documents = [common + one for one in make_sets(5, 100, range(60, 100), [0.05, 0.3])]
    assert_same(*both_stars(documents, tmp_path))


def test_documents_without_any_likeness(tmp_path: Path) -> None:
    documents = make_sets(1, 30, range(50, 90), [1.0])
    whole, grouped = both_stars(documents, tmp_path)
    assert (grouped.kept_of == -1).all()
    assert_same(whole, grouped)


def test_the_stage_gives_the_same_bytes(
    tmp_path: Path, write_documents: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PARTITIONED_FROM", 0)
    generator = random.Random(7)
    vocabulary = [f"word{number}" for number in range(300)]
    for part in range(3):
        originals = [generator.choices(vocabulary, k=60) for _ in range(20)]
        copies = [[generator.choice(vocabulary) if generator.random() < 0.06 else w for w in o] for o in originals]
        texts = [" ".join(words) for words in [*originals, *copies, originals[0]]]
        write_documents(tmp_path / "documents" / f"part-{part}.parquet", texts)
    outputs = []
    for workers in (1, 2):
        output = tmp_path / f"by-{workers}"
        inputs = (tmp_path / "documents",)
        execute(stage, Run("dedup", Params(), inputs, output, reports=None, home=tmp_path / "home", workers=workers))
        outputs.append(digests(output))
    assert outputs[0] == outputs[1]
    assert json.loads((tmp_path / "by-1" / "metrics.json").read_text())["dropped_by_reason"]["dedup.near"] > 20


def test_by_processes_and_on_a_cluster(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'corpusmill[ray]'")
    documents = make_sets(11, 150, range(20, 120), [0.0, 0.1, 0.3, 0.5])
    for crew in (2, Cluster("local", 2)):
        folder = tmp_path / str(isinstance(crew, int))
        folder.mkdir()
        assert_same(*both_stars(documents, folder, crew))
    ray.shutdown()
