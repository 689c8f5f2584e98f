"""Normalising: one spelling, and no more than that."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.clean.decode import scrub_surrogates
from corpus.clean.normalise import convert_chinese, normalise

DATA = Path(os.environ.get("CORPUSMILL_TEST_DATA", "absent"))
NOTHING = dict.fromkeys(("composed", "full_width", "invisible", "mojibake", "replacement"), 0)

# Every kind of thing that is changed, so that they meet in all ways.
ODD = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("Ã©â‚¬Å\x93\x92 \t\n\r\x0c\u200b\u200c\u200dａ３РСЂ‡…Ä™\xad\u2028\xa0e\u0301ᄒ"),
    ),
    max_size=60,
)


@given(ODD, st.booleans())
@example("e\u0301\u201a\xac\xac", True)  # the composed letter is the first sign of mojibake
def test_twice_is_once(text: str, repair: bool) -> None:
    once = normalise(scrub_surrogates(text), repair).text
    assert normalise(once, repair).text == once


@given(ODD)
def test_what_comes_out(text: str) -> None:
    text = scrub_surrogates(text)
    found, changes = normalise(text)
    assert unicodedata.is_normalized("NFC", found)
    assert not [character for character in found if unicodedata.category(character) == "Cc" and character not in "\n\t"]
    assert not set(found) & set("\u200b\ufeff\xad\u2060\xa0０Ａｚ")
    assert "\n\n\n" not in found
    assert all(line == line.rstrip(" \t\u3000") for line in found.split("\n"))
    assert len(found) <= 3 * len(text)
    assert changes.keys() == NOTHING.keys()
    assert min(changes.values()) >= 0
    assert changes["replacement"] == found.count("\ufffd")


@given(st.text("abcdefgh,. \n", max_size=80))
def test_plain_text_only_loses_blanks(text: str) -> None:
    found, changes = normalise(text)
    assert found.split() == text.split()
    assert changes == NOTHING


@pytest.mark.parametrize(
    ("text", "expected", "change"),
    [
        ("a\r\nb\rc\x0cd\u2028e\u2029f", "a\nb\nc\nd\ne\n\nf", {}),
        ("a \t\n\u3000\nb\u3000\n\n\n\nc  ", "a\n\nb\n\nc", {}),
        ("a\x00b\x07c\x1b[0m", "abc[0m", {"invisible": 3}),
        ("soft\xadware \ufeffis\u200b here", "software is here", {"invisible": 3}),
        ("عربي\u200f English\u202c", "عربي English", {"invisible": 2}),
        ("１２３ＡＢＣａｂｃ，。！（）", "123ABCabc，。！（）", {"full_width": 9}),
        ("cafe\u0301 A\u030angstro\u0308m \u212b", "café Ångström Å", {"composed": 4}),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165", "한국어", {"composed": 3}),
        ("か\u3099き", "がき", {"composed": 1}),
        ("Tiếng Việt: ca\u0302\u0301u", "Tiếng Việt: cấu", {"composed": 1}),
        ("non\xa0breaking", "non breaking", {}),
        ("lost \ufffd here", "lost \ufffd here", {"replacement": 1}),
        ("cÃ©lÃ¨bre, dÃ©jÃ\xa0 vu", "célèbre, déjà vu", {"mojibake": 1}),
        ("fine\nItâ€™s broken\nfine", "fine\nIt's broken\nfine", {"mojibake": 1}),
        ("He said \x93yes\x94 \x96 twice", "He said “yes” – twice", {"mojibake": 1}),
        ("ä½\xa0å¥½ï¼Œä¸–ç•Œ", "你好，世界", {"mojibake": 1}),
        ("РџСЂРёРІРµС‚, РјРёСЂ", "Привет, мир", {"mojibake": 1}),
    ],
)
def test_each_change_is_made_and_counted(text: str, expected: str, change: dict[str, int]) -> None:
    expected = expected.replace("It's", "It’s")
    assert normalise(text) == (expected, NOTHING | change)


@pytest.mark.parametrize(
    "text",
    [
        "你好，世界！（好）“引”——《书》…「」、；：？",
        "می‌خواهم کتاب‌ها را بخوانم",
        "👩‍👩‍👧‍👦 👍🏽 ❤️ 🏳️‍🌈",
        "L’été, « cœur » et „Gänsefüßchen“ — naïve café…",
        "Zażółć gęślą jaźń; příliš žluťoučký kůň",
        "Ẹ̀kọ́ Yorùbá, Tiếng Việt đầy đủ dấu",
        "क्‍ष श्री हिन्दी",
        "한국어 문장, 日本語の文、ﾊﾝｶｸ",
        "x² ½ № ™ ℃ ﬁ ① Ⅳ",
        "Σ√∞ ≤ 3 µm ± 5 °C",
        "def f(x):\n\treturn x  # tab stays",
        "Ã is a letter of Portuguese: NÃO, SÃO, AVIÃO",
        "┌──┬──┐\n│ a│ b│\n└──┴──┘",
        "Это «кавычки», а это — тире… Ёж № 5",
    ],
)
def test_what_is_right_stays(text: str) -> None:
    assert normalise(text) == (text, NOTHING)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ｑ：怎么办？Ａ：打电话。", "Q：怎么办？A：打电话。"),
        ("标题：说明（１）；％＆＃＠［］＿，５０％", "标题：说明（1）；％＆＃＠［］＿，50％"),
    ],
)
def test_full_width_punctuation_stays_beside_letters_that_do_not(text: str, expected: str) -> None:
    assert normalise(text).text == expected


def test_without_repair_only_the_rest_is_done() -> None:
    assert normalise("cÃ©lÃ¨bre １", repair=False) == ("cÃ©lÃ¨bre 1", NOTHING | {"full_width": 1})


def test_joiners_beside_white_space_go() -> None:
    assert normalise("a\u200d b \u200cc\u200c\u200d").text == "a b c"


@pytest.mark.parametrize(
    ("traditional", "simplified"),
    [("頭髮和發展", "头发和发展"), ("這個軟體的說明書", "这个软体的说明书"), ("乾隆與著名著作", "乾隆与著名著作")],
)
def test_the_script_of_chinese_is_converted_on_request(traditional: str, simplified: str) -> None:
    assert convert_chinese(traditional, "simplified") == simplified
    assert convert_chinese(simplified, "traditional") == traditional
    assert convert_chinese(simplified, "as_is") == simplified
    assert convert_chinese(traditional + "，OK！", "simplified") == simplified + "，OK！"


def test_other_scripts_are_not_converted() -> None:
    for text in ("plain", "ひらがなだけ", "한국어"):
        assert convert_chinese(text, "traditional") == text


@pytest.mark.parametrize(
    "repeated", [" ", "\u3000 ", "\u200c", "\xa0", "\n", "\r", "\x00", "Ã©", "\x92", "Ã", "é", "e\u0301", "Ａ", "好"]
)
def test_no_text_takes_long(repeated: str) -> None:
    text = f"x{repeated * (200_000 // len(repeated))}y"
    started = time.process_time()
    convert_chinese(normalise(text).text, "simplified")
    assert time.process_time() - started < 3


@pytest.mark.skipif(not (DATA / "scale").is_dir(), reason="CORPUSMILL_TEST_DATA names no folder with scale/")
@pytest.mark.parametrize(
    ("name", "texts"), [("scale/zh.parquet", 1_000), ("parallel_en_zh/lctt_document_pairs.parquet", 300)]
)
def test_clean_real_text_is_not_repaired(name: str, texts: int) -> None:
    rows = pl.read_parquet(DATA / name).head(texts)
    for column in rows.select(pl.selectors.string()).columns:
        for text in rows[column].drop_nulls():
            assert normalise(text).changes["mojibake"] == 0
