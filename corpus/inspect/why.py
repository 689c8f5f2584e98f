"""`corpus why ID|URL|FRAGMENT`: the life of a document on the terminal, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from corpus.filter.table import cut, figure, printable, signed
from corpus.inspect.find import lives
from corpus.inspect.life import Life, Relative, Step, dropped_by
from corpus.inspect.terminal import plain, table, to_line, to_text
from corpus.reasons import explain
from corpus.report.before import cut_lines

MOST = 20  # documents told of
CUT_LINES = 8  # of what cleaning cut
EXCERPT = 600  # characters
STYLES = {
    "kept": "green",
    "generated": "green",
    "dropped": "red",
    "seen": "",
    "not judged": "dim",
    "outdated": "yellow",
}


def why(data: Path, wanted: str, as_json: bool, width: int, mask: bool = True) -> Iterator[str]:
    """What to print, a text for each document as soon as it is found: the first one whole, of the others a line.

    As JSON: an object on a line for each. At most MOST documents; the last text says if there are more. Raises
    UserError where there is none.
    """
    for number, life in enumerate(lives(data, wanted, mask)):
        if number == MOST:
            yield json.dumps({"more": True}) if as_json else f"… more than {MOST}: name more of it"
            return
        if as_json:
            yield to_line(dataclasses.asdict(life))
        elif number == 0:
            yield render_life(life, width)
        else:
            title = life.title or life.url or " ".join((life.text or "").split())
            yield ("\nAlso found:\n" if number == 1 else "") + cut(
                printable(f"  {life.id}  {life.verdict}  {title}"), width
            )


def render_life(life: Life, width: int) -> str:
    """A life as text for a terminal: the verdict, the steps, the signals beside their bounds, relatives, what cleaning
    cut, and the beginning of the text."""
    about = [life.url, life.title, life.source and f"source {life.source}", life.lang]
    dropped = dropped_by(life.steps) is not None
    parts: list[RenderableType] = [
        Text.assemble(("document ", "bold"), plain(life.id)),
        Text(printable(" · ".join(part for part in about if part))),
        Text(printable(life.verdict), style="bold red" if dropped else "bold green"),
        Text(),
        table(["stage", "outcome", "what it did", "where"], [_step_row(step) for step in life.steps]),
    ]
    if life.checks:
        rows = [
            [
                Text("FAIL", style="red") if check.failed else "–" if check.value is None else "ok",
                check.signal,
                figure(check.value),
                f"{check.side} {figure(check.bound)}",
                signed(check.margin),
                check.origin if not check.failed else f"{check.origin}: {check.why}",
            ]
            for check in life.checks
        ]
        titles = ["", "signal", "value", "bound", "margin", "the bound is"]
        parts += [Text(), table(titles, rows, right=(2, 4), title="Signals beside their bounds, the nearest first")]
        parts.append(Text("margin: (value - bound) in robust spreads of the signal in this language", style="dim"))
    if life.other_signals:
        said = "  ".join(f"{name} {_value(value)}" for name, value in sorted(life.other_signals.items()))
        parts += [Text(), Text("Signals without a bound", style="italic"), Text(printable(said))]
    if life.relatives:
        titles = ["relation", "id", "similarity", "became", "url or title"]
        parts += [Text(), table(titles, [_relative_row(one) for one in life.relatives], right=(2,), title="Relatives")]
    parts += [Text(printable(f"note: {note}"), style="yellow") for note in life.notes]
    parts += _cleaning(life)
    if life.text:
        parts += [Text(), Text("Text", style="italic"), Text(_excerpt(life.text))]
    return to_text(*parts, width=width)


def _step_row(step: Step) -> Sequence[Any]:
    said = [f"{reason} ({explain(reason)})" for reason in step.reasons]
    said += [f"{name} {_value(value)}" for name, value in step.facts.items()]
    return [step.stage, Text(step.outcome, style=STYLES[step.outcome]), "; ".join(said), Text(step.place, style="dim")]


def _relative_row(one: Relative) -> Sequence[Any]:
    became = "" if one.kept is None else "kept" if one.kept else ", ".join(one.reasons)
    return [one.relation, one.id, figure(one.similarity) if one.similarity else "", became, one.url or one.title or ""]


def _cleaning(life: Life) -> list[RenderableType]:
    """What cleaning cut and added, a few lines of each."""
    removed, added = cut_lines(life.cleaned)
    if not removed and not added:
        return []
    parts: list[RenderableType] = [Text(), Text(f"Cleaning cut {removed} lines and added {added}", style="italic")]
    for kind, mark, style in (("cut", "-", "red"), ("added", "+", "green")):
        lines = [line for change in life.cleaned if change.kind == kind for line in change.lines]
        parts += [Text(f"{mark} {cut(printable(line), 100)}", style=style) for line in lines[:CUT_LINES]]
        rest = {"cut": removed, "added": added}[kind] - min(len(lines), CUT_LINES)
        parts += [Text(f"{mark} … {rest} more", style=style)] if rest else []
    return parts


def _excerpt(text: str) -> str:
    lines = [printable(line) for line in text[:EXCERPT].splitlines()]
    rest = len(text) - EXCERPT
    return "\n".join(lines) + (f" … {rest:,} more characters" if rest > 0 else "")


def _value(value: Any) -> str:
    """A fact as people read it.

    >>> _value({"email": 2}), _value([3, 4]), _value(0.123456), _value(12345)
    ('email 2', '3, 4', '0.1235', '12,345')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:6]))
        return shown + (f" and {len(value) - 6} more" if len(value) > 6 else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return figure(value)
    return str(value)
