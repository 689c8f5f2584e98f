"""Fields that a source names by hand: one that no row of a file has is a slip of the pen, no reason to drop all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from corpus.errors import UserError
from corpus.scrape.messages import PAIRS
from corpus.sources import HfSource, RowSource

# What stands in for a text, so that `text_field: text`, which is what it is by default, need not be there.
_IN_PLACE_OF_TEXT = {
    *("messages", "conversations", "instruction", "prompt", "question", "chosen", "html", "body"),
    *(name for pair in PAIRS for name in pair),
}
_REMEMBERED = 1_000  # names of fields


class NamedFields:
    """The fields that a source names by hand, and which there are in the rows seen of one of its files."""

    def __init__(self, source: RowSource | HfSource) -> None:
        self.source = source
        self.named = {key: value for key in ("id_field", "text_field") if (value := _by_hand(source, key))}
        self.missing = set(self.named.values())
        self.seen: dict[str, None] = {}

    def see(self, names: Iterable[str]) -> None:
        """The fields of a row, or the columns of a table."""
        if self.missing:
            names = list(names)
            self.missing.difference_update(names)
            if len(self.seen) < _REMEMBERED:
                self.seen |= dict.fromkeys(names)

    def refuse_missing(self, where: str) -> None:
        """Raises UserError where a field that the source names was in none of what was seen, if that was anything."""
        for key, value in self.named.items():
            stands_in = key == "text_field" and value == "text" and not _IN_PLACE_OF_TEXT.isdisjoint(self.seen)
            if value not in self.missing or not self.seen or stands_in:
                continue
            near = difflib.get_close_matches(value, self.seen, n=1)
            hint = f" (did you mean {_as_line(near)}?)" if near else ""
            raise UserError(
                f"sources: {self.source.name}: {where} has no field `{value}`, which {key} names{hint}; "
                f"it has {_as_line(self.seen)}"
            )


def _by_hand(source: RowSource | HfSource, key: str) -> str | None:
    return getattr(source, key) if key in source.model_fields_set else None


def _as_line(names: Iterable[str]) -> str:
    """Names of fields as one line, whatever they hold."""
    return " ".join(", ".join(names).encode("utf-8", "replace").decode().split())[:500]
