"""Segmentation against a reader that goes character by character with Unicode's own data."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.text.buffers import Texts
from corpus.text.segment import (
    HAS_LETTER,
    HAS_NO_MARK,
    HAS_NUMBER,
    IS_LINE_END,
    IS_UNSPACED,
    lm_sentences,
    lm_spelling,
    lm_view,
    segment,
    words,
    words_view,
)

SCRIPTS = ["CJK UNIFIED", "CJK COMPATIBILITY IDEO", "HIRAGANA LETTER", "KATAKANA LETTER", "THAI CHARACTER"]
LETTERS = st.text(st.sampled_from("abzÉßñşЖяΩמअ한글中文𠮷ひカกข0٣９_'’.,;:!?，。 　\n\t-–“”…€😀\u0301\u093f\ufe0f"))
JOINS_LETTERS, JOINS_DIGITS = "'’._", ".,;_"


def kind(character: str, single: list[str]) -> str:
    category = unicodedata.category(character)[0]
    if any(unicodedata.name(character, "").startswith(script) for script in single) and category in "LM":
        return "single"
    if character.isspace():
        return "space"
    return {"L": "letter", "N": "digit", "M": "mark"}.get(category, "other")


def slow_words(text: str, single: list[str]) -> list[str]:
    """Tokens by asking of each character whether it goes on with the token before it."""
    found: list[str] = []
    last = ""  # kind of the last letter or digit of an open word
    for at, character in enumerate(text):
        own = kind(character, single)
        following = kind(text[at + 1], single) if at + 1 < len(text) else ""
        joins = (
            last
            and following in ("letter", "digit")
            and (
                (last == following == "letter" and character in JOINS_LETTERS)
                or (last == following == "digit" and character in JOINS_DIGITS)
                or character == "_"
            )
        )
        if own == "mark" or unicodedata.category(character) == "Cf":
            if last:
                found[-1] += character
        elif last and own in ("letter", "digit"):
            found[-1] += character
            last = own
        elif joins or (own == "other" and not last and at and text[at - 1] == character and found):
            found[-1] += character
        else:
            if own != "space":
                found.append(character)
            last = own if own in ("letter", "digit") else ""
    return found


@given(LETTERS)
@example("中文Word 2中")
@example("한글 글1")
@example("a.b.c 3.14.15 x_1_y 1,000;2 a,b it's 'it' ...!!! a.. _a_ 1.a")
@example("。。。 。。 -–-")
def test_words_are_those_of_the_slow_reader(text: str) -> None:
    assert words(text) == slow_words(text, SCRIPTS)


@given(st.text(), st.sampled_from([words_view(), lm_view()]))
def test_spans_are_the_text_but_for_what_separates(text: str, view: np.ndarray) -> None:
    texts = Texts.of_strings([text, "", text])
    spans = segment(texts, view)
    assert spans.offsets[2] == spans.offsets[1] == len(spans.hashes) / 2
    half = spans.offsets[1]
    raw, at = text.encode("utf-8", "surrogatepass"), 0
    for start, end, length in zip(spans.starts[:half], spans.ends[:half], spans.lengths[:half], strict=True):
        between, token = raw[at:start].decode("utf-8", "surrogatepass"), raw[start:end].decode("utf-8", "surrogatepass")
        assert all(c.isspace() or unicodedata.category(c)[0] == "M" or unicodedata.category(c) == "Cf" for c in between)
        assert len(token) == length > 0
        at = end
    for array in (spans.hashes, spans.folded, spans.lengths, spans.flags):
        assert (array[:half] == array[half:]).all()


@given(LETTERS, LETTERS)
def test_equal_tokens_and_only_they_have_equal_hashes(first: str, second: str) -> None:
    spans = segment(Texts.of_strings([first, second]), words_view())
    tokens = words(first) + words(second)
    assert [tokens.index(token) for token in tokens] == [spans.hashes.tolist().index(h) for h in spans.hashes]
    folded = ["".join(c.lower() for c in token) for token in tokens]
    assert [folded.index(token) for token in folded] == [spans.folded.tolist().index(h) for h in spans.folded]


def test_flags() -> None:
    view = words_view()
    for text, flags in {
        "word": HAS_LETTER | HAS_NO_MARK,
        "3rd": HAS_LETTER | HAS_NUMBER | HAS_NO_MARK,
        "3.14": HAS_NUMBER | HAS_NO_MARK,
        "中": HAS_LETTER | HAS_NO_MARK | IS_UNSPACED,
        "...": 0,
        "。": 0,
        "→": HAS_NO_MARK,  # Gopher's count of words, as datatrove has it, knows marks but not symbols
    }.items():
        assert segment(Texts.of_strings([text]), view).flags.tolist() == [flags], text
    assert segment(Texts.of_strings(["a\n"]), lm_view()).flags.tolist() == [HAS_LETTER | HAS_NO_MARK, IS_LINE_END]


def test_a_segmenter_can_join_characters() -> None:
    texts = Texts.of_strings(["中文字 ab中文"])
    joined = np.zeros(len(texts.data), np.uint8)
    joined[[3, 6, 15]] = 1  # at 文, at 字, and at the second 文
    spans = segment(texts, words_view(), joined)
    found = [texts.data[a:b].tobytes().decode() for a, b in zip(spans.starts, spans.ends, strict=True)]
    assert found == ["中文字", "ab", "中文"]
    assert spans.lengths.tolist() == [3, 2, 2]


@given(st.binary(max_size=40))
def test_broken_bytes_do_no_harm(raw: bytes) -> None:
    texts = Texts(np.frombuffer(raw, np.uint8), np.array([0, len(raw) // 2, len(raw)], np.int64))
    spans = segment(texts, words_view())
    assert (np.diff(spans.starts) > 0).all()
    assert (spans.ends <= len(raw)).all()


@given(LETTERS)
def test_the_language_model_reads_every_visible_character_once(text: str) -> None:
    sentences = list(lm_sentences(text))
    assert all(sentences)
    visible = "".join("0" if c.isdecimal() else c for c in text.lower() if not c.isspace())
    marks = [c for c in visible if kind(c, SCRIPTS) == "mark"]  # that stand alone are left out
    joined = "".join(token for sentence in sentences for token in map(lm_spelling, sentence))
    assert [c for c in joined if c not in marks] == [c for c in visible if c not in marks]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rock’n’roll isn't 'quoted'", ["rock’n’roll", "isn't", "'", "quoted", "'"]),
        ("I ❤️ it", ["I", "❤", "it"]),
        ("2023年5月", ["2023", "年", "5", "月"]),
        ("他说：“好。”", list("他说：“好。”")),
        ("สวัสดี", list("สวัสดี")),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("see www.example.com/a_b", ["see", "www.example.com", "/", "a_b"]),
        ("-----", ["-----"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
