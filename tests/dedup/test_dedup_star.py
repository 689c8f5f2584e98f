"""The star against a slow one over all pairs, with sets of plain Python."""

import random
from pathlib import Path

import numpy as np
import pytest
from datasketch import LeanMinHash, MinHashLSH

from corpus.dedup.bands import choose_bands
from corpus.dedup.memory import Budget
from corpus.dedup.shingles import signatures
from corpus.dedup.star import EDGES_A_DOCUMENT, ShingleSets, Star, greedy_star
from corpus.text.buffers import Texts
from corpus.text.tokens import Tokens


def make_sets(seed: int, families: int, sizes: range, shares: list[float]) -> list[list[int]]:
    """Documents as lists of token hashes: families of copies in which shares of the tokens are replaced."""
    generator = random.Random(seed)
    documents = []
    for _ in range(families):
        original = [generator.getrandbits(64) for _ in range(generator.choice(sizes))]
        copies = [0.0, *generator.choices(shares, k=generator.randrange(5))]
        documents += [
            [generator.getrandbits(64) if generator.random() < share else one for one in original] for share in copies
        ]
    generator.shuffle(documents)
    return documents


def draw(documents: list[list[int]], tmp_path: Path, threshold: float, edge: float, megabytes: int = 100) -> Star:
    """The star over shingles of one token each."""
    hashes = np.array([token for document in documents for token in document], np.uint64)
    offsets = np.cumsum([0, *map(len, documents)])
    tokens = Tokens(hashes, offsets, Texts(np.empty(0, np.uint8), offsets))

    def fetch(wanted: np.ndarray) -> ShingleSets:
        some = [np.unique(np.array(documents[number], np.uint64)) for number in wanted]
        sizes = np.array([one.size for one in some])
        return ShingleSets(some, np.cumsum(sizes) - sizes, sizes)

    matrix = signatures(tokens, 1, 128, 1)
    return greedy_star(matrix, *choose_bands(threshold, edge, 128), threshold, edge, fetch, Budget(megabytes, tmp_path))


def slow_star(documents: list[list[int]], threshold: float) -> dict[int, tuple[int, float]]:
    sets = [set(document) for document in documents]
    kept: list[int] = []
    dropped = {}
    for number, own in enumerate(sets):
        near = [(len(own & sets[k]) / len(own | sets[k]), -k) for k in kept]
        if near and max(near)[0] >= threshold:
            dropped[number] = (-max(near)[1], max(near)[0])
        else:
            kept.append(number)
    return dropped


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_star_is_the_slow_one(tmp_path: Path, threshold: float, seed: int) -> None:
    documents = make_sets(seed, 60, range(20, 200), [0.0, 0.02, 0.1, 0.2, 0.3, 0.4, 0.5])
    star = draw(documents, tmp_path, threshold, 0.4)
    dropped = {
        int(number): (int(star.kept_of[number]), float(star.similarity[number]))
        for number in np.flatnonzero(star.kept_of >= 0)
    }
    assert dropped == slow_star(documents, threshold)
    sets = [set(document) for document in documents]
    for left, right, similarity in zip(star.left, star.right, star.edge_similarity, strict=True):
        assert left < right
        assert star.kept_of[left] == -1
        assert similarity == len(sets[left] & sets[right]) / len(sets[left] | sets[right]) >= 0.4


def test_candidates_are_pairs_that_datasketch_would_find(tmp_path: Path) -> None:
    """With a threshold that nothing reaches nobody is dropped, so that all pairs of a bucket are met."""
    documents = make_sets(9, 60, range(20, 60), [0.3, 0.5, 0.7])
    star = draw(documents, tmp_path, 1.0, 0.4)
    bands, rows = choose_bands(1.0, 0.4, 128)
    index = MinHashLSH(num_perm=128, params=(bands, rows))
    tokens = Tokens(
        np.array([token for document in documents for token in document], np.uint64),
        np.cumsum([0, *map(len, documents)]),
        Texts(np.empty(0, np.uint8), np.zeros(1, np.int64)),
    )
    sketches = [LeanMinHash(seed=1, hashvalues=row, scheme="affine32") for row in signatures(tokens, 1, 128, 1)]
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    kept = {number for number in range(len(documents)) if star.kept_of[number] < 0}
    met = {(a, b) for b, sketch in enumerate(sketches) for a in index.query(sketch) if a < b and a in kept}
    assert star.candidates == len(met) > 50


def test_mapped_files_change_nothing(tmp_path: Path) -> None:
    documents = make_sets(3, 200, range(20, 100), [0.05, 0.2, 0.4])
    (tmp_path / "scratch").mkdir()
    in_memory, mapped = draw(documents, tmp_path, 0.6, 0.4), draw(documents, tmp_path / "scratch", 0.6, 0.4, 0)
    assert len(list((tmp_path / "scratch").iterdir())) >= 2
    for one, other in zip(in_memory, mapped, strict=True):
        assert np.array_equal(one, other)


def test_twenty_thousand_copies_cost_a_comparison_each(tmp_path: Path) -> None:
    generator = random.Random(1)
    original = [generator.getrandbits(64) for _ in range(100)]
    documents = [[*original[:number], 7, *original[number + 1 :]] for number in range(100)] * 200
    star = draw(documents, tmp_path, 0.6, 0.4)
    assert (star.kept_of[1:] == 0).all()
    assert star.candidates == star.verified == len(documents) - 1


def test_a_document_is_compared_with_the_kept_ones_only(tmp_path: Path) -> None:
    """a is like b, b like c, c not like a: c stays; and of two kept ones the nearer is named."""
    tokens = list(range(1_000, 1_100))
    a, b, c = tokens[:60], tokens[15:75], tokens[30:90]
    star = draw([a, b, c, tokens[28:88]], tmp_path, 0.55, 0.3)
    assert star.kept_of.tolist() == [-1, 0, -1, 2]


def test_of_equally_similar_ones_the_preferred_is_named(tmp_path: Path) -> None:
    """x shares 40 tokens with each of two kept documents; the bands may meet the later one first."""
    for seed in range(20):
        generator = random.Random(seed)
        shared = [generator.getrandbits(64) for _ in range(60)]
        own = [[generator.getrandbits(64) for _ in range(10)] for _ in range(3)]
        a, b = shared[:40] + own[0] + own[1], shared[20:] + own[0] + own[2]
        x = shared + own[0]
        star = draw([a, b, x], tmp_path, 0.55, 0.3)
        assert star.kept_of.tolist() == [-1, -1, 0]


def test_documents_that_all_share_half_have_bounded_edges_and_stay_one_group(tmp_path: Path) -> None:
    generator = random.Random(4)
    template = [generator.getrandbits(64) for _ in range(80)]
    documents = [template + [generator.getrandbits(64) for _ in range(50)] for _ in range(400)]
    star = draw(documents, tmp_path, 0.8, 0.4)
    assert (star.kept_of == -1).all()
    assert 10_000 < len(star.left) <= EDGES_A_DOCUMENT * len(documents)
    sets = [set(document) for document in documents]
    for left, right, similarity in zip(star.left, star.right, star.edge_similarity, strict=True):
        assert similarity == len(sets[left] & sets[right]) / len(sets[left] | sets[right]) >= 0.4
    group = list(range(len(documents)))
    for left, right in zip(star.left, star.right, strict=True):
        group = [group[left] if one == group[right] else one for one in group]
    assert len(set(group)) == 1


def test_no_documents(tmp_path: Path) -> None:
    star = draw([], tmp_path, 0.6, 0.4)
    assert len(star.kept_of) == star.candidates == 0
