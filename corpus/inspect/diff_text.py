"""The difference between two versions as text for a terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import polars as pl
from rich.console import RenderableType

from corpus.filter.table import cut, figure, printable, signed
from corpus.inspect.diff import SHOWN, Difference, is_same, moved_decisions, other_scores
from corpus.inspect.terminal import plain, table, to_json, to_text

ID_CHARS = 12  # enough for `corpus why` and --explain
NONE = "–"


def as_json(difference: Difference) -> str:
    """All of it for other programs: tables as lists of rows, parameters as they are in params.yaml."""
    made = {
        field.name: value.to_dicts() if isinstance(value, pl.DataFrame) else value
        for field in dataclasses.fields(difference)
        for value in [getattr(difference, field.name)]
    }
    for row in made["parameters"]:
        row |= {side: json.loads(row[side]) for side in ("before", "after") if row[side] is not None}
    return to_json(made | {"same": is_same(difference)})


def summarise(difference: Difference) -> str:
    """What changed, in one sentence."""
    if is_same(difference):
        return f"{difference.before} and {difference.after} are the same, as far as they can be compared."
    came, went, stayed, changed = (difference.documents[name].sum() for name in ("came", "went", "stayed", "changed"))
    now, then = pl.col("after") == "kept", pl.col("before") == "kept"
    kept, dropped = (difference.decisions.filter(moved)["documents"].sum() for moved in (now & ~then, then & ~now))
    settings = [
        f"{frame.height:,} {name}{'' if frame.height == 1 else 's'}"
        for frame, name in ((difference.parameters, "parameter"), (difference.bounds, "bound"))
    ]
    return (
        f"From {difference.before} to {difference.after} {came:,} documents came, {went:,} went and {stayed:,} stayed, "
        f"{changed:,} of these with other text, {kept:,} newly kept and {dropped:,} newly dropped; "
        f"{' and '.join(settings)} differ."
    )


def render_difference(difference: Difference, width: int = 120) -> str:
    """All of it as text, the most important first; long tables are cut, `as_json` has them whole."""
    notes = [plain(f"Not compared: {note}") for note in difference.notes]
    if is_same(difference):
        return to_text(plain(summarise(difference)), *notes, width=width)
    a, b, cell = "A", "B", width // 4
    documents = [
        (lang, f"{source or NONE}{', generated' if made else ''}", *(f"{count:,}" for count in counts))
        for lang, source, made, *counts in difference.documents.iter_rows()
    ]
    decisions = [
        (old, new, f"{count if old != new else changed:,}", f"{changed:,}")
        for old, new, count, changed in moved_decisions(difference.decisions).iter_rows()
    ]
    examples = [
        (old, new, one[:ID_CHARS], cut(printable(title or url or start or ""), width // 5))
        for old, new, one, _, url, title, start in difference.examples.iter_rows()
    ]
    parameters = [(key, *(cut(value or NONE, cell) for value in sides)) for key, *sides in difference.parameters.rows()]
    bounds = [(lang, rule, *map(figure, sides)) for lang, rule, *sides in difference.bounds.iter_rows()]
    signals = [
        (
            f"{row['lang'] or NONE} {row['signal']}",
            *(figure(row[f"{name}_{when}"]) for when in ("before", "after") for name in ("low", "median", "high")),
            signed(row["shift"]),
        )
        for row in difference.signals.head(SHOWN).iter_rows(named=True)
    ]
    scores = [
        (name, model, score, figure(old), figure(new), f"{new - old:+.4g}")
        for name, model, score, old, new in other_scores(difference).iter_rows()
    ]
    spans = [f"{name} {side}" for side in (a, b) for name in ("5 %", "median", "95 %")]
    return to_text(
        plain(summarise(difference)),
        *_section("Documents", ("language", "source", "came", "went", "stayed", "other text"), documents, range(2, 6)),
        *_section(
            "Documents with another decision or text",
            ("decision in A", "in B", "documents", "other text"),
            decisions,
            (2, 3),
        ),
        *_section(
            "Some of them",
            ("decision in A", "in B", "id", "title, URL or start"),
            examples,
            shown=len(examples),
        ),
        *_section("Parameters", ("key", a, b), parameters),
        *_section("Bounds of the filter", ("language", "rule", a, b), bounds, (2, 3)),
        *_section(
            "Signals of kept documents", ("signal", *spans, "shift"), signals, range(1, 8), of=difference.signals
        ),
        *_section("Scores", ("set", "model", "score", a, b, "B - A"), scores, (3, 4, 5)),
        *([plain("")] if notes else []),
        *notes,
        width=width,
    )


def _section(
    title: str,
    titles: Sequence[str],
    rows: Sequence[Sequence[Any]],
    right: Sequence[int] = (),
    shown: int = SHOWN,
    of: pl.DataFrame | None = None,
) -> list[RenderableType]:
    """A table under its title, cut to so many rows; nothing where there are no rows."""
    if not rows:
        return []
    total = len(rows) if of is None else of.height
    cut_off = f": {shown} of {total:,}" if total > shown else ""
    filled = [[NONE if value is None else value for value in row] for row in rows[:shown]]
    return [plain(""), plain(f"{title}{cut_off}"), table(titles, filled, right)]
