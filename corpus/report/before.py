"""A document before and after cleaning, line by line: what was cut, what was added, what stayed."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from corpus.clean.decode import decode, scrub_surrogates
from corpus.clean.render import text_of_fragment
from corpus.documents import render_messages

MOST_LINES = 300  # of either text; comparing takes the product of both in the worst case
MOST_CHARS = 60_000  # of either text: one line may be a book
CONTEXT = 2  # lines that stayed to show around a change
MOST_BYTES = 2_000_000  # of a page that is parsed again for this
_BULLET = re.compile(r"^(?:[-*] |\d+\. )|\s+")


@dataclasses.dataclass(frozen=True)
class Change:
    """A stretch of lines: `same`, `cut` or `added` by cleaning; `skipped` are lines of it that are not shown."""

    kind: Literal["same", "cut", "added"]
    lines: list[str]
    skipped: int = 0


def text_before(row: Mapping[str, Any]) -> str | None:
    """All text of a row of data/scrape, hidden elements' too; None of a page that is no text or too large to show."""
    body = row.get("body")
    if body is None:
        return row.get("text") or (render_messages(row["messages"]) if row.get("messages") else None)
    decoded = decode(body, row.get("content_type")) if len(body) <= MOST_BYTES else None
    if decoded is None:
        return None
    if (row.get("content_type") or "").startswith("text/plain"):
        return decoded.text
    return scrub_surrogates(text_of_fragment(decoded.text, "text"))


def changes(before: str, after: str, most_shown: int = 12) -> list[Change]:
    """What cleaning did to a text, in order; of each stretch at most so many lines are shown, of those that stayed the
    ones beside a change. Lines are compared without white space and marks of lists; only those of `beginning` are.

    >>> changes("Home\\nLogin\\nIt rains.\\nIt pours.\\n(c) 2024", "It rains.\\nIt pours.")
    ... # doctest: +NORMALIZE_WHITESPACE
    [Change(kind='cut', lines=['Home', 'Login'], skipped=0),
     Change(kind='same', lines=['It rains.', 'It pours.'], skipped=0),
     Change(kind='cut', lines=['(c) 2024'], skipped=0)]
    """
    old, new = (_lines(text) for text in (before, after))
    keys = [[_BULLET.sub("", line) for line in lines] for lines in (old, new)]
    found: list[Change] = []
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for operation, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if operation == "equal":
            found.append(_shown("same", new[new_start:new_end], most_shown))
            continue
        if old_end > old_start:
            found.append(_shown("cut", old[old_start:old_end], most_shown))
        if new_end > new_start:
            found.append(_shown("added", new[new_start:new_end], most_shown))
    return found


def beginning(text: str) -> str:
    """As much of a text as is compared: its first MOST_LINES lines that are not empty, of its first MOST_CHARS."""
    return "\n".join(_lines(text))


def _lines(text: str) -> list[str]:
    return [line for line in text[:MOST_CHARS].splitlines() if line.strip()][:MOST_LINES]


def _shown(kind: Literal["same", "cut", "added"], lines: Sequence[str], most: int) -> Change:
    """A stretch with its middle left out where it is longer than `most` lines."""
    if len(lines) <= most:
        return Change(kind, list(lines))
    half = CONTEXT if kind == "same" else most // 2
    return Change(kind, [*lines[:half], *lines[-half:]], len(lines) - 2 * half)


def cut_lines(found: Sequence[Change]) -> tuple[int, int]:
    """How many lines were cut, and how many were added.

    >>> cut_lines([Change("cut", ["a", "b"], 3), Change("added", ["c"])])
    (5, 1)
    """
    counts = {"cut": 0, "added": 0, "same": 0}
    for change in found:
        counts[change.kind] += len(change.lines) + change.skipped
    return counts["cut"], counts["added"]
