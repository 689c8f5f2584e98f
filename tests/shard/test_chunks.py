import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.shard.chunks import count_tokens, cut

mixed = st.text(alphabet="aB. \n。中文！”", max_size=200)


@given(st.one_of(st.text(max_size=80), mixed), st.integers(1, 12))
def test_chunks_give_the_text_back_and_none_is_too_long(text: str, limit: int) -> None:
    chunks = cut(text, limit)
    assert "".join(chunks) == text
    assert all(count_tokens(chunk) <= limit for chunk in chunks)
    assert chunks == [text] or all(chunks)


@given(st.lists(st.sampled_from(["one", "two three", "四五", "six\n\n", "seven."]), max_size=40), st.integers(2, 9))
def test_chunks_but_the_last_are_more_than_half_full(words: list[str], limit: int) -> None:
    chunks = cut(" ".join(words), limit)
    assert all(count_tokens(chunk) > limit // 2 for chunk in chunks[:-1])


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
    assert cut(text, limit) == chunks
