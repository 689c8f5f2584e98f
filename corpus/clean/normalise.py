"""One spelling for each text, without rewriting what its author meant."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from typing import Any, Literal, NamedTuple

import ftfy
import opencc
from ftfy.badness import is_bad

from corpus.text.scripts import HAN

Chinese = Literal["as_is", "simplified", "traditional"]

_CONTROL = bytes([*range(9), *range(14, 32), 127])
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
# Joiners of no width are left between letters: Persian and emoji need them. Beside white space they do nothing.
_STRAY_JOINER = re.compile(r"(?<!\S)[\u200c\u200d]+|(?<![\u200c\u200d])[\u200c\u200d]+(?!\S)")
_FULL_WIDTH = re.compile("[０-９Ａ-Ｚａ-ｚ]")
_TO_ASCII = {ord(wide): ord(wide) - 0xFEE0 for wide in map(chr, range(0xFF10, 0xFF5B)) if _FULL_WIDTH.match(wide)}
_LINES = re.compile(r"\n{3,}")
_HAN = re.compile(f"[{HAN}]")
# What UTF-8 looks like in encodings of one byte: a letter that is the first byte of several, and a sign that is a later
# one, of Latin, Greek, Cyrillic, or DOS. And the control characters that stand for punctuation of Windows.
_MOJIBAKE = re.compile(
    "[\x80-\x9f]|[\xc2-\u024f\u0370-\u045f\u2500-\u256c√∞≥≤¬]"
    "[\x80-\xbf\u0152-\u0178\u0192\u02c6-\u02dc\u0370-\u0386\u0402-\u040f\u0452-\u045f\u2013-\u20ac™┬├╨╤]"
)


class Normalised(NamedTuple):
    """A text and what was done to it.

    `changes` counts characters: `composed` (NFC's), `full_width`, `invisible` (removed), `replacement` (U+FFFD:
    lost before us and still there). Of `mojibake` it counts lines.
    """

    text: str
    changes: dict[str, int]


def normalise(text: str, repair: bool = True) -> Normalised:
    """NFC, ASCII for full-width letters and digits (never punctuation), no invisible characters, tidy line ends.

    `repair`: lines that were read in a wrong encoding are put right, where they show signs of it. Doing it all twice
    changes nothing more.

    >>> normalise("ＡＢＣ１２３，好！\\r\\n\\r\\n\\r\\n\\r\\nx\\u200b \\x07").text
    'ABC123，好！\\n\\nx'
    >>> normalise("La plus cÃ©lÃ¨bre").changes["mojibake"]
    1
    """
    changes = dict.fromkeys(("composed", "full_width", "invisible", "mojibake", "replacement"), 0)
    text = _tidy(text)
    if text.isascii():
        visible = text.encode().translate(None, _CONTROL).decode()
        changes["invisible"] = len(text) - len(visible)
        return Normalised(_tidy(visible) if changes["invisible"] else visible, changes)
    # What is put right may show further signs, what is removed may have kept others apart, and a composed letter may
    # be the first of one.
    before = ""
    while text != before:
        before = text
        repaired, lines = _repair(text) if repair and _MOJIBAKE.search(text) else (text, 0)
        visible = _without_invisible(repaired)
        composed = unicodedata.normalize("NFC", visible)
        changes["mojibake"] += lines
        changes["invisible"] += len(repaired) - len(visible)
        if composed != visible:
            changes["composed"] += (Counter(composed) - Counter(visible)).total()
        if _FULL_WIDTH.search(composed):
            changes["full_width"] += len(_FULL_WIDTH.findall(composed))
            composed = composed.translate(_TO_ASCII)
        text = _tidy(composed.replace("\xa0", " "))
    changes["replacement"] = text.count("\ufffd")
    return Normalised(text, changes)


def convert_chinese(text: str, chinese: Chinese) -> str:
    """Chinese in the other script, word by word where a character has several counterparts; other text as it is.

    >>> convert_chinese("頭髮和發展", "simplified"), convert_chinese("头发和发展", "traditional")
    ('头发和发展', '頭髮和發展')
    """
    return str(_converter(chinese).convert(text)) if chinese != "as_is" and _HAN.search(text) else text


@functools.cache
def _converter(chinese: Chinese) -> Any:
    return opencc.OpenCC("t2s" if chinese == "simplified" else "s2t")


def _without_invisible(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    return _STRAY_JOINER.sub("", text) if "\u200c" in text or "\u200d" in text else text


def _tidy(text: str) -> str:
    """Lines that end in one way, without blanks before, and at most one empty line between two."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\x0b", "\n").replace("\x0c", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    if " \n" in text or ("\t" in text and "\t\n" in text) or "\u3000\n" in text:
        text = "\n".join(line.rstrip(" \t\u3000") for line in text.split("\n"))
    if "\n\n\n" in text:
        text = _LINES.sub("\n\n", text)
    return text.strip("\n").rstrip()


def _repair(text: str) -> tuple[str, int]:
    """The text with each line put right that was decoded in a wrong encoding, and the number of such lines."""
    lines = text.split("\n")
    repaired = [ftfy.fix_encoding(line) if _MOJIBAKE.search(line) and is_bad(line) else line for line in lines]
    return "\n".join(repaired), sum(before != after for before, after in zip(lines, repaired, strict=True))
