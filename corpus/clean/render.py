"""Chosen blocks of a page as plain text or as Markdown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from corpus.clean.blocks import CODE_MARK, CODE_TAGS, PREFORMATTED_TAGS, Blocks, blocks_of, nearest
from corpus.clean.markup import TAGS, Markup, attribute_spans, parse

Format = Literal["text", "markdown"]

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_DEEPEST_INDENT = 8  # levels of lists or quotations that Markdown shows
_LONGEST_CELL = 200  # characters; a table with longer cells on the average serves the layout
_LONGEST_CLASS = 200  # bytes that are looked at for the name of a programming language
_LOOKS_LIKE_MARKUP = re.compile(r"^(?=#{1,6}(?:\s|$)|[-+*](?:\s|$)|>|```|~~~|(?:=+|-+|(?:[-*_] ?){3,})$)", re.MULTILINE)
_LANGUAGE = re.compile(rb"(?:^|\s)(?:lang(?:uage)?-|highlight-source-|brush: ?)([A-Za-z0-9+#_.-]+)")


def render(markup: Markup, blocks: Blocks, keep: Sequence[bool] | npt.NDArray[np.bool_], form: Format) -> str:
    """Some of a page's blocks as text, or as Markdown.

    As text: a block is one line, or several where it has line breaks; a list item's has `- ` or its number before it,
    a table's row is one line with ` | ` between its cells, and preformatted text has an empty line around it.
    As Markdown: headings, nested lists, fenced code, inline code, quotations and tables; links are their text. A table
    that serves the layout, having one column or long cells, counts as paragraphs. Only what would by accident begin a
    heading, quotation, bullet, rule or fence is escaped: a number with a full stop mostly is meant as a list.

    >>> page = "<h2>Steps</h2><ol><li>Open <code>x</code><ul><li>a</ul><li>Close</ol><pre>a\\n b</pre><p># no"
    >>> print(text_of_fragment(page, "markdown"))
    ## Steps
    <BLANKLINE>
    1. Open `x`
       - a
    2. Close
    <BLANKLINE>
    ```
    a
     b
    ```
    <BLANKLINE>
    \\# no
    >>> print(text_of_fragment("<p>A<br>b<ul><li>c</ul><table><tr><td>1<td>2<tr><td>3<td>4</table>", "text"))
    A
    b
    - c
    1 | 2
    3 | 4
    """
    kept = np.flatnonzero(np.asarray(keep, bool))
    if form == "text":
        return _joined(_text_pieces(markup, blocks, kept), "\n")
    texts = blocks.text
    if np.isin(markup.tag, [TAGS.index(tag) for tag in CODE_TAGS]).any():
        texts = [_code_spans(text) if CODE_MARK in text else text for text in blocks_of(markup, mark_code=True).text]
    return _joined(_markdown_pieces(markup, blocks._replace(text=texts), kept), "\n\n")


def text_of_fragment(page: str, form: Format) -> str:
    """All text of a piece of HTML, hidden elements' too, as `render` writes it."""
    markup = parse(page)
    blocks = blocks_of(markup)
    return render(markup, blocks, [True] * len(blocks.text), form)


class _Place(NamedTuple):
    """Where a block stands: the nearest element of each sort, -1 where it is in none."""

    item: int
    heading: int
    preformatted: int
    quotation: int
    cell: int
    row: int
    table: int


_SORTS = ({"li"}, set(_HEADINGS), PREFORMATTED_TAGS, {"blockquote"}, {"td", "th"}, {"tr"}, {"table"})


class _Piece(NamedTuple):
    """A rendered stretch: its lines, what it is, and what stands before each line: a quotation's marks, an indent."""

    text: str
    kind: Literal["item", "table", "code", "paragraph"]
    quoted: str = ""
    indent: str = ""


def _stretches(
    markup: Markup, blocks: Blocks, kept: npt.NDArray[np.int64]
) -> Iterator[tuple[str, _Place, list[tuple[int, int]]]]:
    """Kept blocks, each with its cell: those of a data `table` or a preformatted element (`code`) together."""
    near = [nearest(markup, frozenset(sort)) for sort in _SORTS]
    holders = blocks.element[kept]
    places = [_Place(*place) for place in np.stack([found[holders] for found in near], axis=1).tolist()]
    data_tables = _data_tables(markup, blocks, kept.tolist(), places, near[-1])

    def group(member: tuple[int, _Place]) -> tuple[str, int]:
        block, place = member
        if place.table in data_tables and place.cell > place.table:
            return "table", place.table
        return ("code", place.preformatted) if place.preformatted >= 0 else ("", block)

    for (kind, _), members in itertools.groupby(zip(kept.tolist(), places, strict=True), group):
        stretch = list(members)
        yield kind, stretch[0][1], [(block, place.cell) for block, place in stretch]


def _data_tables(
    markup: Markup, blocks: Blocks, kept: list[int], places: list[_Place], table_of: npt.NDArray[np.int32]
) -> set[int]:
    """Tables that hold data: two rows or more with two cells, short ones, and in them neither tables nor code."""
    tables = np.flatnonzero(markup.tag == TAGS.index("table"))
    layout = set(table_of[markup.parent[tables]].tolist())
    cells: dict[int, dict[int, set[int]]] = {}
    chars: dict[int, int] = {}
    for block, place in zip(kept, places, strict=True):
        if place.preformatted > place.table:
            layout.add(place.table)
        if place.cell > place.table >= 0:
            cells.setdefault(place.table, {}).setdefault(max(place.row, place.table), set()).add(place.cell)
            chars[place.table] = chars.get(place.table, 0) + len(blocks.text[block])
    return {
        table
        for table, rows in cells.items()
        if table not in layout
        and sum(len(row) > 1 for row in rows.values()) > 1
        and chars[table] <= _LONGEST_CELL * sum(map(len, rows.values()))
    }


def _rows(markup: Markup, blocks: Blocks, stretch: list[tuple[int, int]], table: int) -> list[list[str]]:
    """The cells' texts of a table, row by row; rows without a kept block are left out."""
    inside = slice(table, int(markup.subtree_end[table]))
    cells = table + np.flatnonzero(np.isin(markup.tag[inside], [TAGS.index("td"), TAGS.index("th")]))
    texts: dict[int, list[str]] = {}
    for block, cell in stretch:
        texts.setdefault(cell, []).append(re.sub(" ?\n+ *", " ", blocks.text[block]))
    rows: dict[int, list[str]] = {}
    for cell, row in zip(cells.tolist(), markup.parent[cells].tolist(), strict=True):
        rows.setdefault(row, []).append(" ".join(texts.get(cell, ())))
    return [row for row in rows.values() if any(row)]


def _text_pieces(markup: Markup, blocks: Blocks, kept: npt.NDArray[np.int64]) -> Iterator[_Piece]:
    numbers = _numbers(markup)
    begun: set[int] = set()
    for kind, place, stretch in _stretches(markup, blocks, kept):
        text = "\n".join(blocks.text[block] for block, _ in stretch)
        if kind == "table":
            rows = _rows(markup, blocks, stretch, place.table)
            yield _Piece("\n".join(" | ".join(filter(None, row)) for row in rows), "table")
        elif kind == "code":
            yield _Piece(text, "code")
        else:
            marker = ""
            if place.item >= 0 and place.item not in begun:
                begun.add(place.item)
                marker = "" if place.heading > place.item else numbers.get(place.item, "- ")
            yield _Piece(marker + text.replace("\n\n", "\n"), "paragraph")


def _markdown_pieces(markup: Markup, blocks: Blocks, kept: npt.NDArray[np.int64]) -> Iterator[_Piece]:
    numbers = _numbers(markup)
    item_of, quotation_of = nearest(markup, frozenset({"li"})), nearest(markup, frozenset({"blockquote"}))
    classes = attribute_spans(markup, ("class",))[:, 0]
    indents: dict[int, str] = {}  # of what follows in a list item that has begun
    for kind, place, stretch in _stretches(markup, blocks, kept):
        text = "\n".join(blocks.text[block] for block, _ in stretch)
        quoted = "> " * len(_ancestors(markup, quotation_of, place.quotation))
        items = _ancestors(markup, item_of, place.item)
        indent = next((indents[item] for item in items if item in indents), "")
        if kind == "table":
            yield _Piece(_markdown_table(_rows(markup, blocks, stretch, place.table)), "table", quoted, indent)
        elif kind == "code":
            yield _Piece(_fenced(text, _language(markup, classes, place.preformatted)), "code", quoted, indent)
        elif place.heading >= 0:
            indents[place.item] = ""
            level = _HEADINGS.index(TAGS[markup.tag[place.heading]]) + 1
            yield _Piece("#" * level + " " + re.sub(" ?\n+ *", " ", text), "paragraph", quoted)
        else:
            lines = _LOOKS_LIKE_MARKUP.sub(r"\\", re.sub("\n +", "\n", text) if "\n " in text else text)
            if place.item < 0 or place.item in indents:
                yield _Piece(lines, "paragraph", quoted, indent)
                continue
            marker = numbers.get(place.item, "- ")
            below = " " * len(marker)
            indents[place.item] = (indent + below)[: _DEEPEST_INDENT * len(below)]
            yield _Piece(marker + re.sub("\n+", "\n" + below, lines), "item", quoted, indent)


def _ancestors(markup: Markup, nearest_of: npt.NDArray[np.int32], element: int) -> list[int]:
    """An element and those of its sort around it, the nearest first, as many as Markdown shows."""
    found: list[int] = []
    while element >= 0 and len(found) < _DEEPEST_INDENT:
        found.append(element)
        element = int(nearest_of[markup.parent[element]])
    return found


def _joined(pieces: Iterator[_Piece], apart: str) -> str:
    """The pieces below one another: `apart` between two, but an empty line around code and none in lists."""
    written: list[str] = []
    last: _Piece | None = None
    for piece in pieces:
        if last is not None:
            is_list = last.kind == piece.kind == "item"
            separator = "\n" if is_list else "\n\n" if "code" in (last.kind, piece.kind) else apart
            written.append(separator.replace("\n\n", "\n" + min(last.quoted, piece.quoted).rstrip() + "\n"))
        prefix = piece.quoted + piece.indent
        written.append("\n".join((prefix + line if line else prefix.rstrip()) for line in piece.text.split("\n")))
        last = piece
    return "".join(written)


def _markdown_table(rows: list[list[str]]) -> str:
    width = max(map(len, rows))
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row + [""] * (width - len(row))) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _fenced(code: str, language: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def _code_spans(text: str) -> str:
    """Inline code between backticks, more of them where the code holds some.

    >>> _code_spans("a \x01b\x01 \x01c`d\x01")
    'a `b` ``c`d``'
    """

    def span(found: re.Match[str]) -> str:
        fence = "`" * (1 + max(map(len, re.findall("`+", found[1])), default=0))
        space = " " if found[1].startswith("`") or found[1].endswith("`") else ""
        return fence + space + found[1] + space + fence

    return re.sub(f"{CODE_MARK}([^{CODE_MARK}]+){CODE_MARK}", span, text)


def _language(markup: Markup, classes: npt.NDArray[np.int32], element: int) -> str:
    """The programming language that a class of preformatted text, its first child or the elements around it names."""
    parent = max(int(markup.parent[element]), 0)
    child = min(element + 1, int(markup.subtree_end[element]) - 1)
    for place in (child, element, parent, max(int(markup.parent[parent]), 0)):
        start, end = classes[place].tolist()
        written = markup.source[start : min(end, start + _LONGEST_CLASS)].tobytes() if start >= 0 else b""
        if found := _LANGUAGE.search(written):
            return found[1].decode().lower()
    return ""


def _numbers(markup: Markup) -> dict[int, str]:
    """What stands before the items of numbered lists."""
    is_list = markup.tag == TAGS.index("ol")
    items = np.flatnonzero((markup.tag == TAGS.index("li")) & is_list[markup.parent])
    lists = np.flatnonzero(is_list)
    following: dict[int, int] = {}
    for holder, (start, end) in zip(
        lists.tolist(), attribute_spans(markup, ("start",), lists)[:, 0].tolist(), strict=True
    ):
        stated = markup.source[start:end].tobytes().strip() if 0 < end - start < 9 else b""
        following[holder] = int(stated) if stated.isdigit() else 1
    numbers = {}
    for item, holder in zip(items.tolist(), markup.parent[items].tolist(), strict=True):
        numbers[item] = f"{following[holder]}. "
        following[holder] += 1
    return numbers
