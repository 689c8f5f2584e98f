"""Noise: characters that no author wrote."""

from __future__ import annotations

import re

import polars as pl

CONTROL = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\u{FEFF}\p{Co}]"  # and private use
REPLACEMENT = r"\u{FFFD}"

# UTF-8 read as Windows-1252 or Latin-1: a leading byte's letter, then as many of the 64 continuation bytes' characters
# as it announces. What stands after accented letters in sound text is left out: quotes, dashes, no-break spaces.
_NEVER_AFTER_LETTER = r"\x{80}-\x{9F}¡-ª¬-º¼-¿€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™š›œžŸ"
_CONTINUATION = _NEVER_AFTER_LETTER + r"\x{A0}«»…‘’“”–—"
MOJIBAKE = "|".join(
    [
        f"[ÂÃ][{_NEVER_AFTER_LETTER}\\x{{A0}}]",  # Ã©
        f"(?:[ÎÏÐÑ][{_CONTINUATION}]){{2,}}",  # Greek, Cyrillic
        f"â(?:€[{_CONTINUATION}\"']?|[„†‚][{_CONTINUATION}])",  # â€™
        f"(?:[ã-ï][{_CONTINUATION}]{{2}}){{2,}}",  # æ–‡ä»¶
        f"[ã-é][{_NEVER_AFTER_LETTER}][{_CONTINUATION}]",  # ä¸­
        f"ðŸ[{_CONTINUATION}]{{2}}",  # emoji
        "ï»¿|ï¿½",
        "锟斤拷|[锛銆鈥]",  # UTF-8 read as GBK
    ]
)

_TAGS = (
    "a|abbr|article|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|font|footer|form|h[1-6]|head|header|hr|html|i"
    "|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|script|section|select|span|strong|style|sub|sup|svg"
    "|table|tbody|td|textarea|tfoot|th|thead|title|tr|u|ul|video"
)
MARKUP = rf"</?(?i:{_TAGS})(?:\s[^<>]{{0,500}})?/?>|<!--|&(?:[a-zA-Z]{{2,8}}[1-4]?|#\d{{2,6}}|#x[0-9a-fA-F]{{2,6}});"

NOISE = "|".join([CONTROL, REPLACEMENT, MOJIBAKE, MARKUP])


def noise_chars(text: pl.Expr, further: str | None = None) -> pl.Expr:
    """Number of characters but white space that are noise; from 0.

    Noise is: control and private-use characters, U+FFFD, text decoded with the wrong encoding, HTML tags
    and entities that the extraction left; and what the regular expression `further` (Python's syntax) matches in the
    rest. Own definition; the usual English-only one counts whatever is not ASCII.

    >>> pl.select(noise_chars(pl.lit("cafÃ© au <b>lait</b>")))[0, 0]
    9
    >>> pl.select(noise_chars(pl.lit("[1] and [23]"), r"\\[\\d+\\]"))[0, 0]
    7
    """
    found = text.str.extract_all(NOISE).list.join("").str.count_matches(r"\S").cast(pl.Int64)
    if further is None:
        return found
    find = re.compile(further).finditer
    rest = text.str.replace_all(NOISE, "")
    return found + rest.map_elements(
        lambda value: sum(not character.isspace() for match in find(value) for character in match[0]), pl.Int64
    )
