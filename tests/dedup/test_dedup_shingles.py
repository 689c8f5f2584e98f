import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpus.dedup.shingles import jaccard, shingle_hashes

TOKENS = st.lists(st.sampled_from(["tree", "river", "stone", "增", "量", "備", "份", "42"]), max_size=30)


@given(TOKENS, TOKENS, st.integers(1, 5))
def test_jaccard_of_hashes_is_jaccard_of_token_sequences(left: list[str], right: list[str], ngram: int) -> None:
    def shingles(tokens: list[str]) -> set[tuple[str, ...]]:
        return {tuple(tokens[start : start + ngram]) for start in range(len(tokens) - ngram + 1)}

    a, b = shingles(left), shingles(right)
    hashed = jaccard(shingle_hashes(" ".join(left), ngram), shingle_hashes(" ".join(right), ngram))
    assert hashed == (len(a & b) / len(a | b) if a & b else 0.0)


def test_a_chinese_character_in_an_english_text_changes_no_other_shingle() -> None:
    text = "The backup was restored from the second copy, and nobody noticed that the first was broken."
    plain, mixed = shingle_hashes(text, 3), shingle_hashes(text + " 完", 3)
    assert np.isin(plain, mixed).all()
    assert mixed.size == plain.size + 1


def test_order_of_tokens_counts() -> None:
    assert jaccard(shingle_hashes("a b c", 3), shingle_hashes("c b a", 3)) == 0.0
