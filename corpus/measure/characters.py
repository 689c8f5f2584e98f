"""Counts of characters by kind and script, in one pass over the bytes."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from corpus.text.buffers import Texts
from corpus.text.code_points import LETTERS_END, in_class
from corpus.text.scripts import HAN, HANGUL, KANA, chinese_forms, common_han

# What each character is counted as; the columns of the kernel's result.
KINDS = (
    *("space", "other", "digit", "punctuation", "symbol", "mark"),
    *("latin", "latin_upper", "cyrillic", "cyrillic_upper", "kana", "hangul"),
    *("han", "simplified", "traditional", "rare_han"),
    *("letter", "letter_upper"),  # of other scripts
)
_POINTS = 0x110000
_COUNTED = np.uint64(0x30000)  # code points told apart by the entropy; above are hardly any
_ONE, _TWO, _THREE, _FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


def count_characters(texts: Texts) -> pl.DataFrame:
    """Of each text: characters of each of KINDS, which sum to its length, and `entropy` in nats.

    `simplified` and `traditional` are the Han characters that only one of the two has, `rare_han` those that neither
    uses much (see `corpus.text.scripts.common_han`), `han` the rest. The entropy is that of the distribution of the
    characters but white space, 0 for none.

    >>> import pyarrow as pa
    >>> count_characters(Texts.of(pa.array(["说说 Ab"]))).select("simplified", "latin", "latin_upper", "space").row(0)
    (2, 1, 1, 1)
    """
    counts = np.zeros((len(texts), len(KINDS)), np.int64)
    entropies = np.zeros(len(texts), np.float64)
    _count(texts.data, texts.offsets, _kinds(), counts, entropies)
    return pl.DataFrame(counts, schema=list(KINDS)).with_columns(entropy=entropies)


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Kind of each code point, by Polars' Unicode data."""
    simplified, traditional = chinese_forms()
    kinds = np.full(_POINTS, KINDS.index("other"), np.uint8)
    for blocks, name in ((HAN, "rare_han"), (HANGUL, "hangul")):
        for block in in_class(blocks):
            kinds[block] = KINDS.index(name)
    for characters, name in (
        (["々", "〇", *common_han()], "han"),
        (traditional & common_han(), "traditional"),
        (simplified, "simplified"),
    ):
        kinds[[ord(character) for character in characters]] = KINDS.index(name)
    open_ones = kinds == KINDS.index("other")
    open_ones[0xD800:0xF900] = open_ones[LETTERS_END:] = False  # surrogates, private use, tags
    others = pl.DataFrame({"character": [chr(point) for point in np.flatnonzero(open_ones).tolist()]})
    others = others.remove(pl.col("character").str.contains(r"^\p{Cn}$"))
    character = pl.col("character")
    upper = character.str.contains(r"^\p{Lu}$")
    rules = [
        (character.str.contains(r"^\s$"), "space"),
        (character.str.contains(f"^[{KANA}]$"), "kana"),
        (character.str.contains(r"^\p{M}$"), "mark"),
        (character.str.contains(r"^\p{N}$"), "digit"),
        (character.str.contains(r"^\p{P}$"), "punctuation"),
        (character.str.contains(r"^\p{S}$"), "symbol"),
        (~character.str.contains(r"^\p{L}$"), "other"),
        *[(character.str.contains(rf"^\p{{{name}}}$") & upper, f"{name.lower()}_upper") for name in _WITH_CASE],
        *[(character.str.contains(rf"^\p{{{name}}}$"), name.lower()) for name in _WITH_CASE],
        (upper, "letter_upper"),
    ]
    kind = pl.lit(KINDS.index("letter"))
    for condition, name in reversed(rules):
        kind = pl.when(condition).then(KINDS.index(name)).otherwise(kind)
    points = [ord(character) for character in others["character"].to_list()]
    kinds[points] = others.select(kind).to_series().to_numpy()
    return kinds


_WITH_CASE = ("Latin", "Cyrillic")


@njit(nogil=True, cache=True)
def _count(data, offsets, kinds, counts, entropies):
    """Fill counts (text, kind) and entropies."""
    occurrences = np.zeros(_COUNTED, np.int32)
    seen = np.empty(_COUNTED, np.uint32)
    for number in range(offsets.shape[0] - 1):
        at, end = np.uint64(offsets[number]), np.uint64(offsets[number + 1])
        own = counts[number]
        different, visible = np.uint64(0), 0
        while at < end:
            byte = data[at]
            point, width = np.uint64(byte), _ONE
            if byte >= 0xC0:
                if 0xE0 <= byte < 0xF0 and at + _TWO < end:
                    three = (byte & 0x0F) << 12 | (data[at + _ONE] & 0x3F) << 6 | data[at + _TWO] & 0x3F
                    point, width = np.uint64(three), _THREE
                elif byte < 0xE0 and at + _ONE < end:
                    point, width = np.uint64((byte & 0x1F) << 6 | data[at + _ONE] & 0x3F), _TWO
                elif 0xF0 <= byte < 0xF5 and at + _THREE < end:
                    four = (byte & 0x07) << 18 | (data[at + _ONE] & 0x3F) << 12
                    four |= (data[at + _TWO] & 0x3F) << 6 | data[at + _THREE] & 0x3F
                    point, width = np.uint64(min(four, _POINTS - 1)), _FOUR
            at += width
            kind = np.uint64(kinds[point])
            own[kind] += 1
            if kind:
                visible += 1
                point = min(point, _COUNTED - _ONE)
                if occurrences[point] == 0:
                    seen[different] = point
                    different += _ONE
                occurrences[point] += 1
        entropy = 0.0
        for index in range(different):
            point = np.uint64(seen[index])
            share = occurrences[point] / visible
            entropy -= share * np.log(share)
            occurrences[point] = 0
        entropies[number] = max(0.0, entropy)
