"""New documents joined against the star of an earlier run: what a star over all decides."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import digests
from test_dedup_partitions import assert_same
from test_dedup_star import make_sets

from corpus.dedup import stage
from corpus.dedup.bands import choose_bands
from corpus.dedup.earlier import longest_star, store_star
from corpus.dedup.memory import Budget
from corpus.dedup.shingles import signatures
from corpus.dedup.star import Indices, ShingleSets, Star, greedy_star
from corpus.params import Params
from corpus.stage import Metrics, Run, execute
from corpus.text.buffers import Texts
from corpus.text.tokens import Tokens


def star_of(documents: list[list[int]], folder: Path, fetched: list[int], earlier: Star | None = None) -> Star:
    """Over shingles of one token each; the documents whose shingles were asked for are added to a list."""
    hashes = np.array([token for document in documents for token in document], np.uint64)
    offsets = np.cumsum([0, *map(len, documents)])
    matrix = signatures(Tokens(hashes, offsets, Texts(np.empty(0, np.uint8), offsets)), 1, 128, 1)

    def fetch(wanted: Indices) -> ShingleSets:
        fetched.extend(wanted.tolist())
        some = [np.unique(np.array(documents[number], np.uint64)) for number in wanted]
        sizes = np.array([one.size for one in some])
        return ShingleSets(some, np.cumsum(sizes) - sizes, sizes)

    thresholds = (*choose_bands(0.6, 0.4, 128), 0.6, 0.4)
    return greedy_star(matrix, *thresholds, fetch, Budget(100, folder), earlier=earlier)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("known", [0.0, 0.5, 0.99, 1.0])
def test_the_star_goes_on_where_it_ended(tmp_path: Path, seed: int, known: float) -> None:
    documents = make_sets(seed, 120, range(20, 120), [0.0, 0.02, 0.1, 0.2, 0.3, 0.4, 0.5])
    first = int(known * len(documents))
    anew, again = [], []
    earlier = star_of(documents[:first], tmp_path, [])
    whole = star_of(documents, tmp_path, anew)
    continued = star_of(documents, tmp_path, again, earlier)
    assert_same(whole, continued)
    assert whole.candidates == continued.candidates
    assert len(again) <= len(anew) and (known < 0.9 or len(again) < len(anew) / 4)


def test_the_longest_of_the_stored_stars_is_found_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    keys = np.random.default_rng(1).integers(0, 256, (100, 16)).astype(np.uint8)
    stars = {}
    for count in (10, 60, 80):
        documents = make_sets(count, count, range(20, 30), [0.0])[:count]
        stars[count] = star_of(documents, tmp_path, [])
        store_star(tmp_path / "stars", "settings", keys[:count], stars[count])
    assert longest_star(tmp_path / "stars", "others", keys) is None
    found = longest_star(tmp_path / "stars", "settings", keys)
    assert found and len(found.kept_of) == 80
    assert_same(found, stars[80])
    changed = keys.copy()
    changed[70] ^= 1
    found = longest_star(tmp_path / "stars", "settings", changed)
    assert found and len(found.kept_of) == 60
    path = next((tmp_path / "stars").glob("*-60-*"))
    path.write_bytes(path.read_bytes()[:-40])
    found = longest_star(tmp_path / "stars", "settings", changed)
    assert found and len(found.kept_of) == 10
    assert longest_star(tmp_path / "stars", "settings", keys[:5]) is None


def test_a_new_batch_gives_the_bytes_of_a_full_run(tmp_path: Path, write_documents: Callable[..., Path]) -> None:
    def dedup(home: str) -> tuple[dict[str, str], Metrics]:
        output = tmp_path / f"output-{home}"
        run = Run("dedup", Params(), (tmp_path / "in",), output, reports=None, home=tmp_path / home)
        metrics = execute(stage, run)
        return digests(output), metrics

    texts = [" ".join(f"w{document}of{place}" for place in range(60)) for document in range(40)]
    write_documents(tmp_path / "in" / "part-a-0-0.parquet", [*texts[:20], texts[0] + " more"])
    dedup("home")
    new = [texts[3] + " and more", texts[25], texts[25] + " a b", texts[5]]
    write_documents(tmp_path / "in" / "part-a-1-0.parquet", new, batch=1)
    output, metrics = dedup("home")
    assert len(list((tmp_path / "home" / "stars").iterdir())) == 2
    assert (output, metrics) == dedup("fresh")
    assert metrics["dropped_by_reason"] == {"dedup.exact": 1, "dedup.near": 3}
