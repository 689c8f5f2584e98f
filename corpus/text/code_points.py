"""What Unicode says of code points, in bulk: the tables of the kernels are made from it at each start."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

LETTERS_END = 0x20000  # above are ideographs, tags and private use

Points = npt.NDArray[np.int64]


@functools.cache
def _categories() -> npt.NDArray[np.str_]:
    """The general category of each code point below LETTERS_END, by this Python's data."""
    joined = "".join(map(unicodedata.category, map(chr, range(LETTERS_END))))
    return np.frombuffer(joined.encode("utf-32-le"), "<U2")


def in_categories(*names: str) -> Points:
    """The code points below LETTERS_END of some general categories, or of groups of them, as `L` or `Lu`.

    >>> in_categories("Zs", "Zl").tolist()[:3], len(in_categories("Nd")) < len(in_categories("N"))
    ([32, 160, 5760], True)
    """
    groups = _categories().view("<U1")[::2]
    found = [groups == name if len(name) == 1 else _categories() == name for name in names]
    return np.flatnonzero(np.logical_or.reduce(found))


def may_have_case() -> list[str]:
    """The characters below LETTERS_END among which are all that have an upper, a lower or a folded case."""
    return [chr(point) for point in in_categories("Lu", "Ll", "Lt", "Lm", "Mn", "Nl", "So").tolist()]


def white_space() -> Points:
    """The code points that Python's `str.isspace` names; the last is the ideographic space."""
    return np.array([point for point in range(0x3001) if chr(point).isspace()])


def in_class(inside: str) -> Iterator[slice]:
    """The ranges of code points that the inside of a character class names.

    >>> list(in_class("a-z_"))
    [slice(97, 123, None), slice(95, 96, None)]
    """
    for first, last in re.findall(r"(.)(?:-(.))?", inside):
        yield slice(ord(first), ord(last or first) + 1)


@functools.cache
def sentence_terminals() -> str:
    """The marks that end sentences: Unicode's property, by the data of Polars.

    >>> [mark in sentence_terminals() for mark in ".!?。,"]
    [True, True, True, True, False]
    """
    every = pl.Series([chr(point) for point in in_categories("P", "Cn").tolist()])  # Polars may know of more marks
    return "".join(every.filter(every.str.contains(r"^\p{Sentence_Terminal}$")))
