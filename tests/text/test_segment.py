"""Segmentation against a reader that goes character by character with Unicode's own data."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.text.segment import lm_sentences, words

SCRIPTS = ["CJK UNIFIED", "CJK COMPATIBILITY IDEO", "HIRAGANA LETTER", "KATAKANA LETTER", "THAI CHARACTER"]
LETTERS = st.sampled_from("abzÉßñşЖяΩמअ한글中文𠮷ひカกข0٣９_'’.,;:!?，。 　\n\t-–“”…€😀\u0301\u093f\ufe0f")


def slow_words(text: str, single: list[str]) -> list[str]:
    """Words by a state machine; text without apostrophes."""
    found: list[str] = []
    open_word = False
    for character in text:
        name = unicodedata.name(character, "")
        category = unicodedata.category(character)[0]
        if any(name.startswith(script) for script in single) and category in "LM":
            found.append(character)
            open_word = False
        elif category in "LN" or (category == "M" and open_word):
            if open_word:
                found[-1] += character
            else:
                found.append(character)
            open_word = True
        else:
            open_word = False
    return found


@given(st.text(LETTERS))
@example("中文Word 2中")
@example("한글 글1")
def test_words_are_those_of_the_slow_reader(text: str) -> None:
    text = text.replace("'", " ").replace("’", " ")
    assert words(text) == slow_words(text, SCRIPTS)


@given(st.text())
def test_the_language_model_reads_every_visible_character_once(text: str) -> None:
    sentences = list(lm_sentences(text))
    assert all(sentences)
    visible = "".join("0" if c.isdecimal() else c for c in text.lower() if not c.isspace())
    assert "".join(token for sentence in sentences for token in sentence) == visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rock’n’roll isn't 'quoted'", ["rock’n’roll", "isn't", "quoted"]),
        ("I ❤️ it", ["I", "it"]),
        ("2023年5月", ["2023", "年", "5", "月"]),
        ("他说：“好。”", ["他", "说", "好"]),
        ("สวัสดี", list("สวัสดี")),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
