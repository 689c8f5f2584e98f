"""Blocks of characters by how their scripts are written, and the two forms of Chinese."""

from __future__ import annotations

import functools

# The insides of character classes. Marks, digits and punctuation of these blocks are left out.
HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"
THAI_LAO = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"
MYANMAR_KHMER = "\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uffa1-\uffdc"
UNSPACED = HAN + KANA + THAI_LAO + MYANMAR_KHMER


@functools.cache
def chinese_forms() -> tuple[frozenset[str], frozenset[str]]:
    """The characters that only Simplified Chinese has, and those that only Traditional has.

    By the national character sets of the two: GB 2312 without Big5, and Big5 without GB 2312. Rare characters that both
    use but GB 2312 lacks count as traditional.

    >>> simplified, traditional = chinese_forms()
    >>> "说" in simplified, "說" in traditional, "中" in simplified | traditional
    (True, True, False)
    """
    mainland, taiwan = _of_charset("gb2312"), _of_charset("big5")
    return frozenset(mainland.keys() - taiwan.keys()), frozenset(taiwan.keys() - mainland.keys())


@functools.cache
def common_han() -> frozenset[str]:
    """The Han characters that modern Chinese is written with: all of GB 2312, and the frequently used half of Big5.

    >>> len(common_han()), "说" in common_han(), "說" in common_han(), "龘" in common_han()
    (8846, True, True, False)
    """
    frequent = {character for character, code in _of_charset("big5").items() if code < b"\xc9\x40"}
    return frozenset({*_of_charset("gb2312"), *frequent})


@functools.cache
def _of_charset(name: str) -> dict[str, bytes]:
    """The Han characters of a national character set, and their codes."""
    han = [chr(point) for point in range(0x4E00, 0xA000)]
    return {character: code for character in han if (code := character.encode(name, "ignore"))}
