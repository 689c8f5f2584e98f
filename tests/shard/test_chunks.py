from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.shard.chunks import Chunk, Tokens, count_words, cut_all

mixed = st.text(alphabet="aB. \n。中文！”", max_size=200)


def count_words_of(text: str) -> int:
    return count_words([text])[0]


def count_bytes(texts: Sequence[str]) -> list[int]:
    """A tokenizer of bytes: the most tokens that a text can have."""
    return [len(text.encode("utf-8", "surrogatepass")) for text in texts]


def byte_starts(texts: Sequence[str]) -> list[list[int]]:
    return [[at for at, sign in enumerate(text) for _ in sign.encode("utf-8", "surrogatepass")] for text in texts]


BYTES = Tokens(count_bytes, byte_starts)


def without_overlaps(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text[chunk.overlap :] for chunk in chunks)


@given(st.one_of(st.text(max_size=80), mixed), st.integers(1, 12), st.integers(0, 6))
def test_chunks_give_the_text_back_and_none_is_too_long(text: str, limit: int, overlap: int) -> None:
    [chunks] = cut_all([text], limit, overlap)
    assert without_overlaps(chunks) == text
    for before, chunk in pairwise(chunks):
        repeated = chunk.text[: chunk.overlap]
        assert before.text.endswith(repeated) and count_words_of(repeated) <= overlap and repeated != chunk.text
    assert all(count_words_of(chunk.text) <= limit for chunk in chunks)
    assert chunks == [Chunk(text, count_words_of(text), 0)] or all(chunk.text for chunk in chunks)


@given(st.one_of(st.text(max_size=80), mixed), st.integers(4, 40), st.integers(0, 20))
def test_with_any_tokenizer_only_a_lone_character_is_too_long(text: str, limit: int, overlap: int) -> None:
    [chunks] = cut_all([text], limit, overlap, BYTES)
    assert without_overlaps(chunks) == text
    for chunk in chunks:
        assert chunk.tokens == count_bytes([chunk.text])[0] <= limit


@given(st.lists(st.sampled_from(["one", "two three", "四五", "six\n\n", "seven."]), max_size=40), st.integers(2, 9))
def test_chunks_but_the_last_are_more_than_half_full(words: list[str], limit: int) -> None:
    [chunks] = cut_all([" ".join(words)], limit)
    assert all(2 * chunk.tokens > limit for chunk in chunks[:-1])


@given(st.lists(mixed, max_size=5), st.integers(1, 12))
def test_texts_are_cut_alone(texts: list[str], limit: int) -> None:
    assert cut_all(texts, limit) == [cut_all([text], limit)[0] for text in texts]


@pytest.mark.parametrize(
    ("text", "limit", "chunks"),
    [
        ("One two three. Four five.\n\nSix seven.", 6, ["One two three. Four five.\n\n", "Six seven."]),
        ("One two three. Four five six seven.", 5, ["One two three. ", "Four five six seven."]),
        ("one two three four five", 2, ["one two ", "three four ", "five"]),
        ("今天天气很好。我们去公园玩。", 9, ["今天天气很好。", "我们去公园玩。"]),
        ("一二三四五", 2, ["一二", "三四", "五"]),
        ("short", 512, ["short"]),
        ("  \n", 1, ["  \n"]),
        ("", 1, [""]),
    ],
)
def test_cuts_fall_where_a_reader_would_pause(text: str, limit: int, chunks: list[str]) -> None:
    assert [chunk.text for chunk in cut_all([text], limit)[0]] == chunks


def test_overlaps_are_whole_sentences() -> None:
    text = "One two. Three four. Five six seven eight. Nine. Ten eleven."
    chunks = cut_all([text], 6, 3)[0]
    assert [(chunk.text, chunk.overlap) for chunk in chunks] == [
        ("One two. Three four. ", 0),
        ("Three four. Five six seven eight. ", 12),
        ("Nine. Ten eleven.", 0),
    ]


def test_a_word_longer_than_a_chunk_is_cut_into_characters() -> None:
    chunks = cut_all(["a abcdefgh b"], 4, 0, BYTES)[0]
    assert [chunk.text for chunk in chunks] == ["a ab", "cdef", "gh b"]
