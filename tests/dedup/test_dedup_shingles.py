import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from corpus.dedup.shingles import shingle_sets
from corpus.text.buffers import Texts
from corpus.text.tokens import tokenise

TOKENS = st.lists(st.sampled_from(["tree", "river", "stone", "增", "量", "備", "份", "42"]), max_size=30)


def sets_of(texts: list[str], ngram: int) -> list[set[int]]:
    sets = shingle_sets(tokenise(Texts.of(pa.array(texts, pa.string()))), ngram)
    members = np.split(sets.hashes, sets.offsets[1:-1])
    assert all((np.sort(one) == one).all() and len(set(one.tolist())) == len(one) for one in members)
    return [set(one.tolist()) for one in members]


@given(st.lists(TOKENS, min_size=1, max_size=5), st.integers(1, 5))
def test_hashed_shingles_are_as_many_and_as_shared_as_token_sequences(documents: list[list[str]], ngram: int) -> None:
    true = [{tuple(tokens[at : at + ngram]) for at in range(len(tokens) - ngram + 1)} for tokens in documents]
    hashed = sets_of([" ".join(tokens) for tokens in documents], ngram)
    for a, x in zip(true, hashed, strict=True):
        assert len(a) == len(x)
        for b, y in zip(true, hashed, strict=True):
            assert len(a & b) == len(x & y)


def test_a_chinese_character_in_an_english_text_changes_no_other_shingle() -> None:
    text = "The backup was restored from the second copy, and nobody noticed that the first was broken."
    plain, mixed = sets_of([text, text + " 完"], 3)
    assert plain < mixed
    assert len(mixed) == len(plain) + 1


def test_order_of_tokens_counts() -> None:
    forward, backward = sets_of(["a b c", "c b a"], 3)
    assert not forward & backward
