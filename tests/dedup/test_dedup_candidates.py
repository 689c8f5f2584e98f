import random

import numpy as np
import pytest
from datasketch import LeanMinHash, MinHash, MinHashLSH

from corpus.dedup.candidates import candidate_pairs, choose_bands, likely_pairs, recall, signatures


def make_sets(count: int, seed: int) -> list[np.ndarray]:
    """Sets of 64-bit hashes; every second one shares part of its members with the one before."""
    generator = random.Random(seed)
    sets: list[list[int]] = []
    for number in range(count):
        shared = generator.sample(sets[-1], generator.randrange(len(sets[-1]))) if number % 2 else []
        sets.append(shared + [generator.getrandbits(64) for _ in range(60 - len(shared))])
    return [np.unique(np.array(members, np.uint64)) for members in sets]


def test_signatures_are_those_of_datasketch() -> None:
    sets = make_sets(20, seed=1)
    for row, members in zip(signatures(sets, 64, seed=7), sets, strict=True):
        sketch = MinHash(64, 7, scheme="affine32", hashfunc=lambda member: int(member) >> 32)
        sketch.update_batch(members)
        assert (row == sketch.hashvalues).all()


@pytest.mark.parametrize(("bands", "rows"), [(42, 3), (16, 8), (128, 1)])
def test_candidates_are_those_of_minhash_lsh(bands: int, rows: int) -> None:
    matrix = signatures(make_sets(200, seed=2), 128, seed=1)
    index = MinHashLSH(num_perm=128, params=(bands, rows))
    sketches = [LeanMinHash(seed=1, hashvalues=row, scheme="affine32") for row in matrix]
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    expected = {(a, b) for a, sketch in enumerate(sketches) for b in index.query(sketch) if a < b}
    pairs = candidate_pairs(matrix, bands, rows)
    assert pairs.rows() == sorted(expected)
    assert len(expected) > 20


def test_likely_pairs_lose_no_pair_at_the_threshold() -> None:
    sets = make_sets(400, seed=3)
    matrix = signatures(sets, 128, seed=1)
    candidates = candidate_pairs(matrix, 128, 1)
    likely = set(likely_pairs(matrix, candidates, 0.5).rows())
    for left, right in candidates.rows():
        shared = np.intersect1d(sets[left], sets[right]).size
        if shared / (sets[left].size + sets[right].size - shared) >= 0.5:
            assert (left, right) in likely
    assert len(likely) < candidates.height


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("num_perm", [64, 128, 256])
def test_bands_fit_the_signature_and_find_what_they_should(threshold: float, num_perm: int) -> None:
    bands, rows = choose_bands(threshold, threshold, num_perm)
    assert 1 <= bands * rows <= num_perm
    assert recall(threshold, bands, rows) >= 0.98


def test_too_few_permutations_fall_back_to_one_row_a_band() -> None:
    assert choose_bands(0.1, 0.1, 4) == (4, 1)


def test_nothing_gives_no_pairs() -> None:
    assert candidate_pairs(signatures([], 128, 1), 42, 3).rows() == []
