"""Each signal against its definition, written a second time without cleverness."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.measure import characters, lexical
from corpus.measure.noise import noise_ratio
from corpus.measure.stage import SIGNALS, measure
from corpus.measure.stop_words import STOP_WORDS, stop_words
from corpus.params import Measure
from corpus.text.segment import words

# Letters of scripts whose Unicode data have been the same for long, so that Python and Polars agree.
TEXT = st.text(st.sampled_from("aBÉßñЖ中文カ한0٣½9.,!?，。“”#*_-$€=+^|~😀→\u0301 　\n\t"), max_size=60)


def value(expression: pl.Expr) -> float:
    return pl.select(expression).item()


def share(text: str, categories: str) -> float:
    visible = [character for character in text if not character.isspace()]
    counted = [character for character in visible if unicodedata.category(character).startswith(tuple(categories))]
    return len(counted) / len(visible) if visible else 0.0


@given(TEXT)
def test_shares_of_kinds_of_characters(text: str) -> None:
    literal = pl.lit(text)
    assert value(characters.n_chars(literal)) == len(text)
    assert value(characters.alpha_ratio(literal)) == pytest.approx(share(text, "LM"))
    assert value(characters.digit_ratio(literal)) == pytest.approx(share(text, "N"))
    assert value(characters.punctuation_ratio(literal)) == pytest.approx(share(text, "P"))
    assert value(characters.symbol_ratio(literal)) == pytest.approx(share(text, "S"))
    letters = [character for character in text if character.isalpha()]
    upper = sum(unicodedata.category(letter) == "Lu" for letter in letters) / len(letters) if letters else 0.0
    assert value(characters.uppercase_ratio(literal)) == pytest.approx(upper)
    assert value(characters.han_ratio(literal)) == pytest.approx(
        sum(c in "中文" for c in text) / max(1, sum(not c.isspace() for c in text))
    )


@given(st.lists(st.sampled_from(["a", " a", "a\t", "b", "", "  ", "中"]), max_size=12))
def test_duplicate_lines(lines: list[str]) -> None:
    text = "\n".join(lines)
    present = [line.strip() for line in lines if line.strip()]
    assert value(characters.n_lines(pl.lit(text))) == len(present)
    expected = 1 - len(set(present)) / len(present) if present else 0
    assert value(characters.duplicate_line_ratio(pl.lit(text))) == pytest.approx(expected)


@given(st.lists(st.sampled_from("abcdefg"), max_size=40), st.integers(1, 12))
def test_mattr_is_the_mean_over_all_windows(tokens: list[str], window: int) -> None:
    windows = [tokens[i : i + window] for i in range(len(tokens) - window + 1)]
    naive = [len(set(own)) / window for own in windows]
    expected = sum(naive) / len(naive) if naive else lexical.ttr(tokens)
    assert lexical.mattr(tokens, window) == pytest.approx(expected)
    assert lexical.ttr(tokens) == (len(set(tokens)) / len(tokens) if tokens else 0)


def test_mattr_does_not_fall_with_length_as_ttr_does() -> None:
    text = words("the cat sat on the mat and the dog lay by the door of a house that had no roof " * 3)
    assert lexical.mattr(text * 20, 50) == pytest.approx(lexical.mattr(text, 50), abs=0.01)
    assert lexical.ttr(text * 20) < lexical.ttr(text) / 10


@pytest.mark.parametrize(
    "noise",
    [
        *("Ã©", "Â©", "ä¸­", "æ–‡ä»¶", "â€™", "â€œ", "ðŸ˜€", "Привет".encode().decode("latin-1"), "锟斤拷"),
        *("\ufffd", "\x07", "\ue123", "<br/>", "</p>", '<a href="x">', "&nbsp;", "&#8217;"),
    ],
)
def test_noise_is_found(noise: str) -> None:
    before, after = "Sound text, ", " and more."
    visible = sum(not character.isspace() for character in before + noise + after)
    # A control character of Latin-1 may be white space to some and noise to others; there is none of these here.
    expected = sum(not character.isspace() for character in noise) / visible
    assert value(noise_ratio(pl.lit(before + noise + after))) == pytest.approx(expected)


@pytest.mark.parametrize(
    "sound",
    [
        "« Voilà » — dit-il, “é” ; CAFÉ” naïve",
        "São Paulo, NÃO, IRMÃ. Ünlü, Ærø, smørrebrød",
        "if a < b and b > c: List[int] or List<String>, <module>, <EMAIL>, R&D; x --> y",
        "他说：“好……”——《文件》、《报告》（二〇二三年）·①％",
        "Привет, Ωμέγα, 한국어, नमस्ते, 😀 ❤️ ™ ® ½",
        "",
    ],
)
def test_sound_text_has_no_noise(sound: str) -> None:
    assert value(noise_ratio(pl.lit(sound))) == 0


def test_noise_can_be_extended() -> None:
    text = pl.DataFrame({"text": ["广告：点击<br>这里", "[编辑]历史"]})
    ratios = text.select(noise_ratio(pl.col("text"), r"广告|\[编辑\]"))["text"].to_list()
    assert ratios == [pytest.approx(6 / 11), pytest.approx(4 / 6)]


def test_stop_words_are_words_of_the_segmentation_and_tell_text_from_lists() -> None:
    for listed in STOP_WORDS.values():
        assert all(words(word) == [word] and word == word.lower() for word in listed)
    text, menu = "it is one of the best that we have seen so far", "home products pricing login contact careers"
    english = stop_words("en-GB")
    assert english is not None
    assert lexical.stop_word_ratio(words(text), english) > 0.5
    assert lexical.stop_word_ratio(words(menu), english) == 0


@given(st.lists(st.one_of(st.none(), st.text()), max_size=5), st.sampled_from(["en", "zh-Hans", None]))
def test_every_text_has_defined_values(texts: list[str | None], language: str | None) -> None:
    documents = pl.DataFrame(
        {"id": list(map(str, range(len(texts)))), "text": texts, "lang": [language] * len(texts)},
        {"id": pl.String, "text": pl.String, "lang": pl.String},
    )
    measured = measure(documents, Measure(mattr_window=3))
    assert measured.schema == {"id": pl.String, **SIGNALS}
    assert measured.null_count().sum_horizontal().item() == 0
    for signal in SIGNALS:
        values = measured[signal].to_list()
        assert all(v >= 0 for v in values)
        if signal.endswith(("ratio", "ttr")):
            assert all(v <= 1 for v in values)


def test_a_language_without_stop_words_has_none() -> None:
    documents = pl.DataFrame({"id": ["a"], "text": ["bonjour tout le monde"], "lang": ["fr"]})
    assert measure(documents, Measure())["stop_word_ratio"].to_list() == [None]
