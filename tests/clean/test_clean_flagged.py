"""Lists of flagged words: reading them, and counting what is on them."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.clean.flagged import count_flagged, flagged, flagged_share, load_flagged
from corpus.errors import UserError


def test_lists_are_read_by_language(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("# a comment\nDamn\n\n  holy   cow  \r\nnaïve\n", "utf-8-sig")
    (tmp_path / "zh.txt").write_text("混蛋\nSB\n王 八蛋\n", "utf-8")
    lists = load_flagged({"en": tmp_path / "en.txt", "zh-Hans": tmp_path / "zh.txt"})
    assert sorted(lists["en"].words) == ["damn", "holy cow", "naïve"]
    assert count_flagged("Holy cow, DAMN! A naïve condamned damn_it.", lists["en"]) == 3
    assert count_flagged("你这个混蛋SB，真是王八蛋！sbs", lists["zh-Hans"]) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"fine\n\xff\xfe\n", r"bad\.txt, line 2 is not UTF-8"),
        (b"fine\nfine too\n!!!\n", r"bad\.txt, line 3: '!!!' is no word"),
        (b"# nothing\n\n", r"bad\.txt has no words"),
        (None, r"bad\.txt cannot be read: No such file"),
    ],
)
def test_a_bad_list_is_named_with_its_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"clean\.flagged_words: .*{said}"):
        load_flagged({"en": tmp_path / "bad.txt"})


@pytest.mark.parametrize(
    ("text", "entries", "count"),
    [
        ("", ["damn"], 0),
        ("damn damn DAMN", ["damn"], 3),
        ("damned goddamn damn-it", ["damn"], 1),
        ("Straße, STRASSE", ["strasse"], 2),
        ("чёрт возьми, Чёрт!", ["чёрт"], 2),
        ("a b c a b", ["a b", "b c"], 2),
        ("a b c", ["a", "a b c"], 1),
        ("go to hell, hell no", ["go to hell", "hell"], 2),
        ("f-word, f word", ["f-word"], 2),
        ("什么鬼，鬼", ["鬼"], 2),
        ("傻瓜傻瓜蛋", ["傻瓜", "傻瓜蛋"], 2),
        ("傻傻瓜", ["傻瓜"], 1),
        ("ばかもの、バカ", ["ばか", "バカ"], 2),
        ("คนบ้าบอ", ["บ้า"], 1),
        ("这个fuck啊", ["fuck", "这个"], 2),
        ("한국 바보야 바보", ["바보"], 1),
    ],
)
def test_counts(text: str, entries: list[str], count: int) -> None:
    assert count_flagged(text, flagged(entries)) == count


@given(st.text("ab c-", max_size=40), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5))
def test_words_are_counted_as_a_plain_loop_does(text: str, entries: list[str]) -> None:
    assert count_flagged(text, flagged(entries)) == sum(word in entries for word in re.split("[ -]+", text) if word)


@given(st.text("甲乙丙 ，", max_size=40), st.lists(st.text("甲乙丙", min_size=2, max_size=3), min_size=1, max_size=5))
def test_characters_are_counted_as_a_pattern_does(text: str, entries: list[str]) -> None:
    pattern = "|".join(sorted(set(entries), key=len, reverse=True))
    assert count_flagged(text, flagged(entries)) == len(re.findall(pattern, text))


def test_shares() -> None:
    assert flagged_share(2, "one two three four", "en") == 0.5
    assert flagged_share(1, "你这个混蛋真是 bad!", "zh-Hant") == pytest.approx(1 / 7), "a character of Chinese"
    assert flagged_share(3, "", "en") == flagged_share(3, "!!!", "zh-Hans") == 0
    assert flagged_share(9, "only three words", "en") == 1


def test_large_lists_and_texts_take_no_time() -> None:
    choose = random.Random(0)
    words = {"".join(choose.choices("abcdefghijklmnop", k=6)) for _ in range(10_000)}
    parts = {"".join(map(chr, choose.choices(range(0x4E00, 0x5E00), k=3))) for _ in range(10_000)}
    large = flagged([*words, *parts])
    text = "plain words and a name " * 20_000 + "".join(map(chr, choose.choices(range(0x4E00, 0x5E00), k=300_000)))
    started = time.process_time()
    assert count_flagged(text, large) >= 0
    assert time.process_time() - started < 2
