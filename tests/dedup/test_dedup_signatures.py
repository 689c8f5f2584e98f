import random

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from corpus.dedup.bands import choose_bands, recall
from corpus.dedup.shingles import count_distinct, shingle_sets, signatures
from corpus.text.buffers import Texts
from corpus.text.tokens import Tokens, tokenise

WORDS = ["river", "stone", "naïve", "42", "增", "量", "备", "份", "x"]


def make_tokens(seed: int, lengths: list[int]) -> Tokens:
    generator = random.Random(seed)
    return tokenise(Texts.of(pa.array([" ".join(generator.choices(WORDS, k=length)) for length in lengths])))


@pytest.mark.parametrize("ngram", [1, 3, 5])
@pytest.mark.parametrize("num_perm", [16, 128, 130])
def test_signatures_are_those_of_datasketch(ngram: int, num_perm: int) -> None:
    tokens = make_tokens(1, [0, 1, 2, 3, 4, 50, 700, 9_000])  # the last fills several blocks
    sets = shingle_sets(tokens, ngram)
    for number, row in enumerate(signatures(tokens, ngram, num_perm, seed=7)):
        sketch = MinHash(num_perm, 7, scheme="affine32", hashfunc=lambda member: int(member) >> 32)
        sketch.update_batch(sets.hashes[sets.offsets[number] : sets.offsets[number + 1]])
        assert (row == sketch.hashvalues).all()


def test_distinct_shingles_are_counted_up_to_a_limit() -> None:
    tokens = tokenise(Texts.of(pa.array(["a b a b a b a b", "a b c d e f g h", "a b", ""])))
    assert count_distinct(tokens, 3, 5).tolist() == [2, 5, 0, 0]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("num_perm", [64, 128, 256])
def test_bands_fit_the_signature_and_find_what_they_should(threshold: float, num_perm: int) -> None:
    bands, rows = choose_bands(threshold, threshold, num_perm)
    assert 1 <= bands * rows <= num_perm
    assert recall(threshold, bands, rows) >= 0.98


def test_too_few_permutations_fall_back_to_one_row_a_band() -> None:
    assert choose_bands(0.1, 0.1, 4) == (4, 1)


def test_a_signature_estimates_the_similarity() -> None:
    generator = random.Random(3)
    words = [f"w{number}" for number in range(400)]
    other = [word if generator.random() < 0.9 else "changed" + word for word in words]
    tokens = tokenise(Texts.of(pa.array([" ".join(words), " ".join(other)])))
    sets, rows = shingle_sets(tokens, 3), signatures(tokens, 3, 1024, 1)
    left, right = sets.hashes[: sets.offsets[1]], sets.hashes[sets.offsets[1] :]
    exact = len(np.intersect1d(left, right)) / len(np.union1d(left, right))
    assert (rows[0] == rows[1]).mean() == pytest.approx(exact, abs=0.06)
