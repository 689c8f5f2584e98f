"""Each signal against its definition, written a second time without cleverness, with Python's strings."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.errors import UserError
from corpus.measure.lines import count_sentences
from corpus.measure.noise import noise_chars
from corpus.measure.own import refuse_taken_names
from corpus.measure.signals import ALL, columns, markdown
from corpus.measure.stage import SIGNALS, measure
from corpus.measure.stop_words import SHORT_LISTS, STOP_WORDS, stop_words
from corpus.params import Measure, OwnSignal
from corpus.text.segment import words

# Letters of scripts whose Unicode data have been the same for long, so that Python and Polars agree; and whole phrases.
PIECES = st.sampled_from(
    [
        *"aBÉßñЖ中文說说カ한0٣½9.,!?，。！“”\"'#*_-$€=+^|~😀→•·…{[]() 　\n\t\r",
        *("\n\n", "...", "\u0301", "\u2028", "\x0c", "\x1c", "\xa0", "\ufeff", "\x07", "\u200b"),
        *("the", " of the", " be that", "It is so.", " one two three", "javaScript", "Lorem Ipsum", "use cookies"),
        *(
            "privacy policy",
            "[12]",
            "[edit]",
            "[citation needed]",
            " and so on",
            "的",
            "是",
            "don't",
            "3.14",
            "e.g. this",
        ),
        *("龘", "- item", "a b c d e ", "a b c d e f g h i j k ", "x" * 1001, "LOUD WORDS"),
    ]
)
TEXT = st.lists(PIECES, max_size=40).map("".join)
SCHEMA = {"id": pl.String, "text": pl.String, "lang": pl.String}


def measured(text: str, language: str | None = "en", **params: object) -> dict[str, float]:
    documents = pl.DataFrame(
        {"id": ["a"], "text": [text], "lang": [language]}, {"id": pl.String, "text": pl.String, "lang": pl.String}
    )
    return measure(documents, Measure.model_validate(params)).row(0, named=True)


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def is_category(character: str, *categories: str) -> bool:
    return unicodedata.category(character).startswith(categories)


def is_marks(token: str) -> bool:
    """Whether datatrove would not count it as a word; the marks that occur in these tests."""
    return all(character in ".,!?，。！“”\"'#*_-$=+^|~…{[]()\x07" for character in token)


# ---- characters ------------------------------------------------------------------------------------------------------


@given(TEXT)
def test_kinds_of_characters(text: str) -> None:
    visible = [
        character for character in text if not re.match(r"[\s\x85]", character) or character in "\x1c\x1d\x1e\x1f"
    ]
    found = measured(text)

    def share(*categories: str) -> float:
        return ratio(sum(is_category(character, *categories) for character in visible), len(visible))

    assert found["n_chars"] == len(text)
    assert found["alpha_ratio"] == pytest.approx(share("L", "M"))
    assert found["digit_ratio"] == pytest.approx(share("N"))
    assert found["punctuation_ratio"] == pytest.approx(share("P"))
    assert found["symbol_ratio"] == pytest.approx(share("S"))
    letters = [character for character in text if is_category(character, "L")]
    assert found["uppercase_ratio"] == pytest.approx(ratio(sum(is_category(c, "Lu") for c in letters), len(letters)))
    for signal, script in (
        *(("han_ratio", "CJK"), ("latin_ratio", "LATIN"), ("kana_ratio", "KATAKANA"), ("hangul_ratio", "HANGUL")),
        ("cyrillic_ratio", "CYRILLIC"),
    ):
        of_script = sum(unicodedata.name(c, "").startswith(script) and c.isalpha() for c in text)
        assert found[signal] == pytest.approx(ratio(of_script, len(visible)))
    counts = Counter(visible)
    entropy = -sum(n / len(visible) * math.log(n / len(visible)) for n in counts.values())
    assert found["char_entropy"] == pytest.approx(entropy, abs=1e-12)
    either = [character for character in text if character in "說说"]
    expected = ratio(either.count("說"), len(either)) if either else None
    han = [character for character in text if character in "中文说說龘的是"]
    assert found["rare_han_ratio"] == ratio(text.count("龘"), len(han))
    assert found["traditional_ratio"] == (expected if expected is None else pytest.approx(expected))


# ---- Gopher ----------------------------------------------------------------------------------------------------------


@given(TEXT, st.sampled_from(["en", "zh-Hans"]))
def test_gopher_quality(text: str, language: str) -> None:
    found, tokens, lines = measured(text, language), words(text), text.splitlines()
    counted = [token for token in tokens if not is_marks(token)]
    assert found["n_words"] == len(counted)
    assert found["mean_word_length"] == pytest.approx(ratio(sum(map(len, counted)), len(counted)))
    assert found["hash_ratio"] == ratio(text.count("#"), len(tokens))
    assert found["ellipsis_ratio"] == ratio(text.count("...") + text.count("…"), len(tokens))
    assert found["bullet_line_ratio"] == ratio(sum(line.lstrip().startswith(("•", "-")) for line in lines), len(lines))
    endings = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    assert found["ellipsis_line_ratio"] == ratio(endings, len(lines))
    with_letter = [token for token in tokens if any(character.isalpha() for character in token)]
    assert found["alpha_token_ratio"] == ratio(len(with_letter), len(tokens))
    spaced = text.split()
    assert found["alpha_word_ratio"] == ratio(sum(any(c.isalpha() for c in word) for word in spaced), len(spaced))
    short = SHORT_LISTS[language[:2]]
    assert found["distinct_stop_words"] == len(short & set(tokens))
    plain = [token.lower() for token in tokens if any(is_category(c, "L", "N") for c in token)]
    listed = stop_words(language) or frozenset()
    assert found["stop_word_ratio"] == pytest.approx(ratio(sum(word in listed for word in plain), len(plain)))


def duplicates(elements: Sequence[str]) -> tuple[int, int]:
    repeated = [element for at, element in enumerate(elements) if element in elements[:at]]
    return len(repeated), sum(map(len, repeated))


@given(TEXT)
@example("")
@example("\n")
@example("\n\na\n\n")
@example("a b c d e a b c d e a b c d e")
@example(" \n\nparagraph\nof two\n\n\nparagraph\nof two \n\nparagraph\nof two")
def test_gopher_repetition(text: str) -> None:
    found, tokens = measured(text), words(text)
    lines, paragraphs = re.split(r"\n+", text), re.split(r"\n{2,}", text.strip())
    for signal, elements in (("line", lines), ("paragraph", paragraphs)):
        number, characters = duplicates(elements)
        assert found[f"duplicate_{signal}_ratio"] == number / len(elements)
        assert found[f"duplicate_{signal}_char_ratio"] == ratio(characters, len(text))
    for n in (2, 3, 4):
        grams = [" ".join(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]
        top, count = Counter(grams).most_common(1)[0] if grams else ("", 0)
        assert found[f"top_{n}_gram_ratio"] == ratio(len(top) * count, len(text))
    for n in range(5, 11):
        seen, repeated, at = set(), 0, 0
        while at <= len(tokens) - n:
            gram = tuple(tokens[at : at + n])
            repeated += sum(map(len, gram)) if gram in seen else 0
            at += n if gram in seen else 1
            seen.add(gram)
        assert found[f"duplicate_{n}_gram_ratio"] == ratio(repeated, len(text))


# ---- C4, FineWeb, RefinedWeb -----------------------------------------------------------------------------------------

POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


@given(TEXT)
@example(
    "One two three.[1] [edit]\nLorem ipsum is it.\nA set {of} three.\nWe use cookies now.\n‘One. Two! 三。四。’ is it?"
)
def test_c4(text: str) -> None:
    kept, lorem, curly, lines = [], 0, 0, text.splitlines()
    for line in lines:
        line = line.strip()
        parts = line.split()
        line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", line)
        if len(parts) < 3 or max(map(len, parts)) > 1000:
            continue
        if not line.endswith((".", "?", "!", '"', "'")) or line.endswith("..."):
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            lorem += 1
        elif "javascript" not in lower:
            if "{" in line:
                curly += 1
            elif not any(policy in lower for policy in POLICIES):
                kept.append(line)
    found = measured(text)
    assert (found["lorem_ipsum"], found["curly_brackets"]) == (lorem, curly)
    assert found["c4_line_ratio"] == ratio(len(kept), len(lines))
    assert found["c4_sentences"] == sum(map(count_sentences, kept))


@given(TEXT)
def test_fineweb(text: str) -> None:
    found, tokens = measured(text), words(text)
    lines = [line for line in text.split("\n") if line.strip()]
    assert found["n_lines"] == len(lines)
    assert found["terminal_line_ratio"] == ratio(
        sum(line.endswith((".", "!", "?", "。", "！")) for line in lines), len(lines)
    )
    assert found["short_line_ratio"] == ratio(sum(len(line) <= 30 for line in lines), len(lines))
    assert found["repeated_line_char_ratio"] == ratio(duplicates(lines)[1], len(text.replace("\n", "")))
    assert found["newline_ratio"] == ratio(text.count("\n"), len(tokens))
    assert found["mean_line_length"] == pytest.approx(ratio(len(text) - text.count("\n"), len(lines)))


@given(TEXT)
def test_refinedweb(text: str) -> None:
    removed = 0
    for line in text.splitlines():
        parts = line.split()
        loud = sum(character.isupper() for character in line) > 0.5 * len(line)
        removed += len(parts) if loud or all(c.isdecimal() for c in line) or len(parts) < 2 else 0
    assert measured(text)["refinedweb_removed_ratio"] == ratio(removed, len(text.split()))


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        *(("", 0), ("No end", 1), ("One. Two", 2), ("It costs 3.14, e.g. here", 1), ("“Why?” he said. No!", 2)),
        *(("好。很好！", 2), ("他说：“好。”然后走了", 2), ("What?! Yes...", 2), (". . .", 3), ("a. 1", 2)),
    ],
)
def test_sentences(line: str, sentences: int) -> None:
    assert count_sentences(line) == sentences
    padded = f'{line} one two "'
    assert measured(padded)["c4_sentences"] == count_sentences(padded)


# ---- lexical diversity -----------------------------------------------------------------------------------------------


def slow_mtld(tokens: Sequence[str]) -> float:
    factors, types, length = 0.0, set[str](), 0
    for token in tokens:
        types.add(token)
        length += 1
        if len(types) / length <= 0.72:
            factors, types, length = factors + 1, set(), 0
    if length:
        factors += (1 - len(types) / length) / (1 - 0.72)
    if factors == 0:
        share = len(set(tokens)) / len(tokens)
        factors = 1 if share == 1 else (1 - share) / (1 - 0.72)
    return len(tokens) / factors


@given(st.lists(st.sampled_from("abcdefgh中文"), max_size=80), st.integers(1, 60))
def test_lexical_diversity(tokens: list[str], window: int) -> None:
    found = measured(" ".join(tokens), mattr_window=window)
    windows = [len(set(tokens[i : i + window])) / window for i in range(len(tokens) - window + 1)]
    types = ratio(len(set(tokens)), len(tokens))
    assert found["ttr"] == types
    assert found["mattr"] == pytest.approx(sum(windows) / len(windows) if windows else types, abs=1e-12)
    expected = (slow_mtld(tokens) + slow_mtld(tokens[::-1])) / 2 if tokens else 0
    assert found["mtld"] == pytest.approx(expected, abs=1e-9)


def test_mattr_and_mtld_do_not_fall_with_length_as_ttr_does() -> None:
    text = "the cat sat on the mat and the dog lay by the door of a house that had no roof " * 3
    once, often = measured(text), measured(text * 20)
    assert often["mattr"] == pytest.approx(once["mattr"], abs=0.01)
    assert often["mtld"] == pytest.approx(once["mtld"], rel=0.1)
    assert often["ttr"] < once["ttr"] / 10


def test_case_and_marks_are_no_diversity() -> None:
    assert measured("The the THE, the; the! → the")["ttr"] == pytest.approx(1 / 6)


# ---- noise -----------------------------------------------------------------------------------------------------------


def noise(text: str, further: str | None = None) -> int:
    return int(pl.select(noise_chars(pl.lit(text), further)).item())


@pytest.mark.parametrize(
    "noisy",
    [
        *("Ã©", "Â©", "ä¸­", "æ–‡ä»¶", "â€™", "â€œ", "ðŸ˜€", "Привет".encode().decode("latin-1"), "锟斤拷"),
        *("\ufffd", "\x07", "\ue123", "<br/>", "</p>", '<a href="x">', "&nbsp;", "&#8217;"),
    ],
)
def test_noise_is_found(noisy: str) -> None:
    # A control character of Latin-1 may be white space to some and noise to others; there is none of these here.
    expected = sum(not character.isspace() for character in noisy)
    text = f"Sound text, {noisy} and more."
    assert noise(text) == expected
    assert measured(text)["noise_ratio"] == pytest.approx(expected / sum(not c.isspace() for c in text))


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
    assert noise(sound) == 0


def test_noise_can_be_extended() -> None:
    assert noise("广告：点击<br>这里", r"广告|\[编辑\]") == 6
    assert measured("[编辑]历史", noise_pattern=r"广告|\[编辑\]")["noise_ratio"] == pytest.approx(4 / 6)


# ---- stop words ------------------------------------------------------------------------------------------------------


def test_stop_words_are_words_of_the_segmentation_and_tell_text_from_lists() -> None:
    for listed in STOP_WORDS.values():
        assert all(words(word) == [word] and word == word.lower() for word in listed)
    text, menu = "it is one of the best that we have seen so far", "home products pricing login contact careers"
    assert measured(text, "en-GB")["stop_word_ratio"] > 0.5
    assert measured(menu, "en-GB")["stop_word_ratio"] == 0


def test_a_language_without_stop_words_has_none() -> None:
    found = measured("bonjour tout le monde", "fr")
    assert found["stop_word_ratio"] is None
    assert found["distinct_stop_words"] is None
    assert measured("of the 的", None)["distinct_stop_words"] == 3


# ---- all -------------------------------------------------------------------------------------------------------------

MAY_BE_NULL = ("traditional_ratio", "stop_word_ratio", "distinct_stop_words")


@given(st.lists(st.one_of(st.none(), st.text(), TEXT), max_size=5), st.sampled_from(["en", "zh-Hans", None]))
@example(["", "one", "。", None], "en")
def test_every_text_has_defined_values(texts: list[str | None], language: str | None) -> None:
    documents = pl.DataFrame(
        {"id": list(map(str, range(len(texts)))), "text": texts, "lang": [language] * len(texts)},
        SCHEMA,
    )
    found = measure(documents, Measure(mattr_window=3))
    assert found.schema == {"id": pl.String, **SIGNALS, "segmenter": pl.String}
    assert found.drop(MAY_BE_NULL).null_count().sum_horizontal().item() == 0
    for signal in SIGNALS:
        values = found[signal].drop_nulls().to_list()
        assert all(v >= 0 and math.isfinite(v) for v in values)
        if signal.endswith("ratio") and not signal.startswith(("top", "hash", "ellipsis_ratio", "newline")):
            assert all(v <= 1 for v in values), signal


@given(st.lists(TEXT, max_size=6))
def test_a_document_has_the_same_values_whatever_stands_beside_it(texts: list[str]) -> None:
    documents = pl.DataFrame(
        {"id": list(map(str, range(len(texts)))), "text": texts, "lang": ["zh-Hans"] * len(texts)},
        {"id": pl.String, "text": pl.String, "lang": pl.String},
    )
    together = measure(documents, Measure())
    assert together.drop("id").rows() == [tuple(measured(text, "zh-Hans").values())[1:] for text in texts]


def test_each_signal_says_what_it_is() -> None:
    assert len(columns()) == len(ALL) >= 40
    for signal in ALL:
        assert signal.__doc__ and len(signal.__doc__) > 30, signal.__name__


# ---- words of Chinese, signals of the user's own ---------------------------------------------------------------------


def test_jieba_joins_characters_to_words() -> None:
    pytest.importorskip("rjieba", reason="rjieba is optional")
    text = "我们在北京大学学习自然语言处理。We use Python 3."
    by_character, by_jieba = measured(text, "zh-Hans"), measured(text, "zh-Hans", segmenter="jieba")
    assert (by_character["segmenter"], by_jieba["segmenter"]) == ("characters", "jieba")
    assert by_jieba["n_words"] < by_character["n_words"]
    assert by_jieba["n_chars"] == by_character["n_chars"]
    assert measured(text, "en", segmenter="jieba") == measured(text, "en")


def test_signals_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouting.py").write_text(
        "import polars as pl\n\ndef marks(documents):\n    return documents['text'].str.count_matches('!')\n"
        "def broken(documents):\n    return documents['nothing']\ndef words(documents):\n    return documents['text']\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    signals = {"marks": {"python": "shouting:marks"}, "long": {"sql": "n_words > 2"}}
    found = measured("Stop it now!!", signals=signals)
    assert (found["marks"], found["long"]) == (2.0, 1.0)
    for wrong, said in (
        (
            {"sql": "LENGTH(nothing)"},
            r"measure\.signals\.mine\.sql: LENGTH\(nothing\): no column nothing: there are id, text",
        ),
        ({"python": "shouting:nothing"}, r"measure\.signals\.mine\.python: shouting:nothing: .*module:function"),
        ({"python": "shouting:broken"}, r"measure\.signals\.mine\.python: shouting:broken failed: ColumnNotFound"),
        ({"python": "shouting:pl"}, r"measure\.signals\.mine\.python: shouting:pl is no function"),
        (
            {"python": "broken:words"},
            r"measure\.signals\.mine\.python: broken:words: ZeroDivisionError: division by zero",
        ),
        ({"python": "shouting:words"}, r"measure\.signals\.mine gave String, not numbers"),
    ):
        with pytest.raises(UserError, match=said):
            measured("text", signals={"mine": wrong})


def test_what_is_not_finite_is_null() -> None:
    assert measured("text", signals={"mine": {"sql": "n_words / 0"}})["mine"] is None


def test_no_byte_is_read_beyond_the_text(tmp_path: Path) -> None:
    """The kernels once more, with numba's checks of every index, on texts where looking back or ahead leaves them."""
    script = """
import numpy as np, polars as pl
from corpus.measure.stage import measure
from corpus.params import Measure
from corpus.text.buffers import Texts
from corpus.measure.repetition import count_repeated_lines
texts = ["", "a", "ab", ".", "..", "…", "1\\n", "\\n", "\\r", "[", "[1", "-", "中", "a.", "'", "x'", "a_", "{", "k"]
for text in texts:
    measure(pl.DataFrame({"id": ["a"], "text": [text], "lang": ["en"]}), Measure())
measure(pl.DataFrame({"id": texts, "text": texts, "lang": ["en"] * len(texts)}), Measure())
raw = b"-\\n \\xe6\\x96\\x87\\r# ]'1\\n\\xf0B]\\n"
count_repeated_lines(Texts(np.frombuffer(raw, np.uint8), np.array([0, len(raw)], np.int64)))
"""
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script.replace("\\\\", "\\")], env=environment, check=True)


def test_a_signal_has_a_name_of_its_own() -> None:
    for taken in ("ttr", "id", "kept", "topic"):
        with pytest.raises(UserError, match=rf"measure\.signals\.{taken}: another column has this name"):
            refuse_taken_names([taken], [*SIGNALS, "topic"])


def test_a_signal_is_sql_or_python() -> None:
    for wrong in ({}, {"sql": "1", "python": "a:b"}):
        with pytest.raises(ValueError, match="name sql or python"):
            OwnSignal.model_validate(wrong)


def test_the_docs_name_every_signal() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert markdown() in (docs / "signals.md").read_text("utf-8"), (
        "write the table of docs/signals.md again: markdown()"
    )
    chinese = (docs / "signals.zh-CN.md").read_text("utf-8")
    assert [name for name in SIGNALS if f"| `{name}` |" not in chinese] == []
