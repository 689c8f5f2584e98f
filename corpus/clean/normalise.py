"""One spelling for each text, without rewriting what its author meant."""

from __future__ import annotations

import re
import unicodedata

# Zero-width joiners are left between letters: Persian and emoji need them. Here they only go beside white space.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]"
)
_STRAY_JOINER = re.compile(r"(?<!\S)[\u200c\u200d]+|(?<![\u200c\u200d])[\u200c\u200d]+(?!\S)")
_FULL_WIDTH = re.compile(r"[０-９Ａ-Ｚａ-ｚ]+")
_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF10, 0xFF5B)}


def normalise(text: str) -> str:
    """NFC, ASCII for full-width letters and digits (never punctuation), no invisible characters, tidy line ends.

    >>> normalise("ＡＢＣ１２３，好！\\r\\n\\r\\n\\r\\n\\r\\nx\\u200b \\x07")
    'ABC123，好！\\n\\nx'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = _STRAY_JOINER.sub("", _INVISIBLE.sub("", text))
    text = unicodedata.normalize("NFC", text).replace("\xa0", " ")
    text = _FULL_WIDTH.sub(lambda found: found[0].translate(_TO_ASCII), text)
    text = re.sub(r"(?<![ \t\u3000])[ \t\u3000]+$", "", text, flags=re.M)  # tried once a run, not at each blank
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").rstrip()
