"""Segmentation of text into tokens, and the views that stages take of it.

Scripts written with spaces give words; scripts written without them (Han, kana, Thai, Lao, Khmer, Myanmar) give one
token per character. Each view says which tokens it keeps and how it spells them, and has a version of its own for the
keys of the stages that use it: raise it when the view's tokens change.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from corpus.text.scripts import HANGUL, UNSPACED

WORDS_VIEW = 1
LM_VIEW = 1

# Above the basic plane whole blocks of letters: scripts, mathematical letters. `re` looks ranges there up one by one.
_HIGH_LETTERS = "\U00010000-\U0001cfff\U0001d400-\U0001d7ff\U0001e000-\U0001efff"


def _ranges(points: Iterable[int]) -> str:
    """Ascending code points as the inside of a character class.

    >>> _ranges([97, 98, 99, 120])
    'a-cx-x'
    """
    runs: list[list[int]] = []
    for point in points:
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)


def _characters(categories: str, without: str) -> str:
    """All characters of some Unicode categories but for some, as the inside of a character class.

    Spelled out because `\\w` of `re` knows no combining marks, and because `re` looks a plain set up in one step.
    """
    left_out = re.compile(f"[{without}]")
    basic = (chr(point) for point in range(0x10000))
    kept = _ranges(ord(c) for c in basic if unicodedata.category(c)[0] in categories and not left_out.match(c))
    return kept + _HIGH_LETTERS


def _tokens(single: str) -> str:
    """Pattern of one token: a character of `single`, or a word; an apostrophe within a word belongs to it (l’eau)."""
    run = f"[{_characters('LN', without=single)}][{_characters('LNM', without=single)}]*"
    return f"{run}(?:['’]{run})*|[{single}]"


_WORDS = _tokens(UNSPACED)
_SYLLABLES = _tokens(UNSPACED + HANGUL)
_find_words = re.compile(_WORDS).findall
_find_lm_tokens = re.compile(_SYLLABLES + r"|\S").findall
_digit = re.compile(r"\d")


def words(text: str) -> list[str]:
    """The words of a text and its numbers, as they are spelled; in scripts without spaces each character is a word.

    >>> words("Don't panic: 42 files, naïve_name.txt")
    ["Don't", 'panic', '42', 'files', 'naïve', 'name', 'txt']
    >>> words("用Python写的3个脚本。 파일 이름")
    ['用', 'Python', '写', '的', '3', '个', '脚', '本', '파일', '이름']
    """
    return _find_words(text)


def lm_sentences(text: str) -> Iterator[list[str]]:
    """What the language model reads: each line that holds a token is a sentence.

    Words in lower case, each digit as 0, one token per Han, kana, Thai character, Hangul syllable, punctuation mark or
    symbol.

    >>> list(lm_sentences("In 2023, we moved.\\n\\n我们搬家了！"))
    [['in', '0000', ',', 'we', 'moved', '.'], ['我', '们', '搬', '家', '了', '！']]
    """
    for line in _digit.sub("0", text.lower()).split("\n"):
        if tokens := _find_lm_tokens(line):
            yield tokens
