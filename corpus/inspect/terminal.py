"""Tables on the terminal by rich: plain text where nobody looks, and never a control character of a document."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from corpus.filter.table import printable


def plain(value: Any) -> Text:
    """A cell of untrusted text: no markup, no control characters, nothing that turns the writing around.

    >>> plain("a[red]\\x1b[31m").plain
    'a[red] [31m'
    """
    return Text(printable("" if value is None else str(value)))


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = (), title: str = "") -> Table:
    """A table of plain cells; `right` are the numbers of the columns that are aligned to the right."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(titles):
        made.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    return made


def to_text(*parts: RenderableType, width: int = 120) -> str:
    """What rich makes of some renderables, with colours only where standard output is a terminal."""
    colours = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colours, no_color=not colours, markup=False, highlight=False
    )
    console.print(Group(*parts))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.splitlines())


def to_json(value: Any) -> str:
    """JSON for other programs: sorted keys, every script as it is, null for what is no finite number."""
    return json.dumps(_finite(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)


def to_line(value: Any) -> str:
    """The same on one line, its keys in their own order.

    >>> to_line({"ppl": float("nan"), "lang": "en"})
    '{"ppl": null, "lang": "en"}'
    """
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
