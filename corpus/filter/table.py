"""Plain text for a terminal: columns that line up, also where characters are two columns wide."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

_WORDS = re.compile(r"\s+|[⺀-鿿가-힣豈-﫿︰-﹏＀-￯]|[^\s⺀-鿿가-힣豈-﫿︰-﹏＀-￯]+")


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: two for each Chinese character, none for a combining mark.

    >>> columns_of("备份 ok")
    7
    """
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def printable(text: str) -> str:
    """One line without control characters: what a page says must not move the cursor.

    >>> printable("a\\tb\\n\\x1b[31mc")
    'a b [31mc'
    """
    return " ".join("".join(" " if unicodedata.category(char)[0] == "C" else char for char in text).split())


def cut(text: str, columns: int) -> str:
    """A text that takes no more than so many columns, with an ellipsis where something is left out.

    >>> cut("增量备份", 6), cut("backup", 6)
    ('增量…', 'backup')
    """
    if columns_of(text) <= columns:
        return text
    left, kept = columns - 1, []
    for char in text:
        left -= columns_of(char)
        if left < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" if columns > 0 else ""


def wrap(text: str, columns: int) -> list[str]:
    """A text as lines of no more than so many columns, broken at spaces and between Chinese characters.

    >>> wrap("set below statutes", 9)
    ['set below', 'statutes']
    """
    lines, line = [], ""
    for word in _WORDS.findall(text):
        if line and columns_of(line + word.rstrip()) > columns:
            lines.append(line.rstrip())
            line = ""
        line += word if line or not word.isspace() else ""
    return [cut(line, columns) for line in [*lines, line.rstrip()] if line]


def table(rows: Sequence[Sequence[str]], right: str = "", indent: int = 2, gap: int = 2) -> list[str]:
    """Rows as lines with columns of equal width, those that `right` marks with `r` aligned to the right.

    >>> table([["lang", "kept"], ["en", "5"]], right="-r")
    ['  lang  kept', '  en       5']
    """
    widths = [max(columns_of(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - columns_of(cell))
            cells.append(space + cell if right[number : number + 1] == "r" else cell + space)
        lines.append((" " * indent + (" " * gap).join(cells)).rstrip())
    return lines


def figure(value: float | None) -> str:
    """A number for reading: four digits, thousands with commas; `–` for none.

    >>> figure(0.041236), figure(1954.38), figure(20.0), figure(None)
    ('0.04124', '1,954', '20', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def signed(value: float | None) -> str:
    """A score or margin with its sign, to two digits after the point, large ones to none.

    >>> signed(3.456), signed(-1234.5), signed(None)
    ('+3.46', '-1,234', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{value:+,.2f}" if abs(value) < 100 else f"{value:+,.0f}"
