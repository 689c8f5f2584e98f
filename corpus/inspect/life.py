"""The life of one document, put together from the rows that are about it in every stage's files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from corpus.clean.personal import mask_personal_data
from corpus.errors import UserError
from corpus.reasons import explain
from corpus.report.before import Change, changes, text_before
from corpus.report.index import Outdated, Place, find_id, key_of_id, read_row

ANNOTATIONS = ("measure", "perplexity", "dedup", "filter", "split")  # row by row beside data/clean
BORN = ("scrape", "clean", "augment")  # the stages whose files have rows of their own, in the order of the graph
_NOTED = ("id", "text", "source", "batch", "url", "title", "kept", "reasons", "margins")


@dataclasses.dataclass(frozen=True)
class Check:
    """A signal of the document beside a bound of its language; `margin` is (value - bound) in robust spreads."""

    signal: str
    value: float | None
    side: str  # min or max
    bound: float | None
    margin: float | None
    failed: bool
    origin: str
    why: str


@dataclasses.dataclass(frozen=True)
class Relative:
    """Another document: `relation` is duplicate of, copy, parent, generated."""

    relation: str
    id: str
    url: str | None
    title: str | None
    similarity: float | None
    kept: bool | None
    reasons: list[str]


@dataclasses.dataclass(frozen=True)
class Step:
    """What one stage did with the document: `outcome` is kept, dropped, seen or generated."""

    stage: str
    outcome: str
    reasons: list[str]
    facts: dict[str, Any]
    place: str  # file and row


@dataclasses.dataclass(frozen=True)
class Life:
    """All that is known of one document; everything in it is untrusted."""

    id: str
    url: str | None
    title: str | None
    source: str | None
    lang: str | None
    verdict: str
    steps: list[Step]
    checks: list[Check]  # failed ones first
    other_signals: dict[str, Any]  # those without a bound
    relatives: list[Relative]
    cleaned: list[Change]
    text: str | None


def life_of(data: Path, identity: str, places: Sequence[Place], mask: bool = True) -> Life:
    """The life of a document, from the places that are about it. Raises Outdated where they are about another."""
    own = [(place, _row(data, place, identity)) for place in places if place.kind == "id"]
    own = sorted(((place, row) for place, row in own if row), key=lambda pair: BORN.index(pair[0].file.split("/")[0]))
    steps: list[Step] = []
    document: dict[str, Any] = {}
    signals: dict[str, Any] = {}
    before: dict[str, Any] | None = None
    for place, row in own:
        stage = place.file.split("/")[0]
        document = {**document, **{name: value for name, value in row.items() if value is not None}}
        if stage == "scrape" and "reason" not in row:
            before = before or row
        steps.append(_own_step(stage, place, row))
        if stage == "clean" and "reason" not in row:
            for annotation in ANNOTATIONS:
                beside = data / annotation / Path(place.file).name
                if beside.is_file():
                    noted = _row(data, Place("id", str(beside.relative_to(data)), place.row), identity)
                    steps.append(_annotation_step(annotation, beside.name, place.row, noted))
                    signals |= noted if annotation in ("measure", "perplexity") else {}
                    document |= {k: v for k, v in noted.items() if annotation == "dedup" and k == "duplicate_of"}
    failed = [reason for step in steps for reason in step.reasons]
    checks, others = _checks(data.parent / "reports", document.get("lang"), signals, steps)
    relatives = _relatives(data, identity, places, document, steps)
    steps += _later_steps(data, places)
    after = document.get("text") if any(s.stage == "clean" and s.outcome == "kept" for s in steps) else None
    earlier = text_before(before) if before else None
    if mask and earlier:
        earlier = mask_personal_data(earlier)[0]
    text, title = after or earlier or document.get("text"), document.get("title")
    return Life(
        identity,
        document.get("url"),
        mask_personal_data(title)[0] if mask and title and not after else title,
        document.get("source"),
        document.get("lang"),
        _verdict(steps, failed),
        steps,
        checks,
        others,
        relatives,
        changes(earlier, after) if earlier and after else [],
        mask_personal_data(text)[0] if mask and text and not after else text,
    )


def _row(data: Path, place: Place, identity: str) -> dict[str, Any]:
    row = read_row(data / place.file, place.row)
    if not row or key_of_id(str(row["id"])) != key_of_id(identity):
        raise Outdated
    return row if row["id"] == identity else {}


def _at(name: str, row: int) -> str:
    return f"{name} row {row}"


def _own_step(stage: str, place: Place, row: Mapping[str, Any]) -> Step:
    """What scrape, clean or augment made of the document."""
    if "reason" in row:
        facts = {"detail": row["detail"]} if row.get("detail") else {}
        return Step(stage, "dropped", [row["reason"]], facts, _at(place.file, place.row))
    facts = {name: row[name] for name in ("batch", "content_type", "date", "licence", "label") if row.get(name)}
    if row.get("body") is not None:
        facts["bytes"] = len(row["body"])
    if row.get("text") is not None:
        facts["characters"] = len(row["text"])
    outcome, reasons = "kept", list(row.get("reasons") or [])
    if stage == "clean":
        names = ("lang", "lang_score", "second_lang", "second_score", "encoding", "decoded", "extractor", "flagged")
        facts |= {name: row[name] for name in names if row.get(name) is not None}
        for name in ("changes", "masked"):
            counts = {key: number for key, number in (row.get(name) or {}).items() if number}
            facts |= {name: counts} if counts else {}
    if stage == "augment":
        facts |= {"method": row["method"]}
        outcome = "generated" if row.get("kept") else "dropped"
    return Step(stage, outcome, reasons, facts, _at(place.file, place.row))


def _annotation_step(stage: str, name: str, number: int, row: Mapping[str, Any]) -> Step:
    if stage in ("measure", "perplexity"):
        return Step(stage, "seen", [], {}, _at(f"{stage}/{name}", number))
    kept = row.get("kept")
    outcome = "not judged" if kept is None else "kept" if kept else "dropped"
    facts = {key: value for key, value in row.items() if key not in _NOTED and value is not None}
    if facts.get("cluster") == row["id"]:
        del facts["cluster"]
    return Step(stage, outcome, list(row.get("reasons") or []), facts, _at(f"{stage}/{name}", number))


def _checks(
    reports: Path, lang: str | None, signals: Mapping[str, Any], steps: Sequence[Step]
) -> tuple[list[Check], dict[str, Any]]:
    """The signals beside the bounds that the filter used, and those that have none."""
    path = reports / "filter.json"
    bounds = json.loads(path.read_text("utf-8"))["bounds"].get(lang, {}) if path.is_file() else {}
    failed = {reason for step in steps if step.stage == "filter" for reason in step.reasons}
    found = []
    for rule, facts in bounds.items():
        signal, _, side = rule.rpartition(".")
        value = signals.get(signal)
        margin = None
        if value is not None and facts.get("spread") and facts["bound"] is not None:
            margin = (value - facts["bound"]) / facts["spread"]
        found.append(
            Check(signal, value, side, facts["bound"], margin, f"filter.{rule}" in failed, facts["from"], facts["why"])
        )
    found.sort(key=lambda check: (not check.failed, math.inf if check.margin is None else abs(check.margin)))
    bounded = {check.signal for check in found}
    others = {k: v for k, v in signals.items() if k not in bounded and k != "id" and v is not None}
    return found, others


def _relatives(
    data: Path, identity: str, places: Sequence[Place], document: Mapping[str, Any], steps: Sequence[Step]
) -> list[Relative]:
    """The document it duplicates, its copies, its parent, and what was generated from it."""
    found = []
    similarity = next((step.facts.get("similarity") for step in steps if step.stage == "dedup"), None)
    for name, relation in (("duplicate_of", "duplicate of"), ("parent_id", "parent")):
        if other := document.get(name):
            row = _find_row(data, str(other))
            found.append(_relative(relation, str(other), row, similarity if name == "duplicate_of" else None))
    for place in places:
        if place.kind == "parent":
            row = read_row(data / place.file, place.row)
            if row.get("parent_id") == identity:
                found.append(_relative("generated", str(row["id"]), row, None))
        if place.kind == "copy":
            noted = read_row(data / place.file, place.row)
            if noted.get("duplicate_of") == identity:
                row = read_row(data / "clean" / Path(place.file).name, place.row)
                merged = {**row, "kept": noted["kept"], "reasons": noted["reasons"]}
                found.append(_relative("copy", str(noted["id"]), merged, noted.get("similarity")))  # type: ignore[arg-type]
    return found


def _find_row(data: Path, identity: str) -> dict[str, Any]:
    """A document's row in data/clean, or nothing where it cannot be found at once."""
    try:
        for place in find_id(data, identity).get(key_of_id(identity), []):
            if place.kind == "id" and place.file.startswith("clean/"):
                return _row(data, place, identity)
    except (Outdated, UserError):
        pass
    return {}


def _relative(relation: str, identity: str, row: Mapping[str, Any], similarity: float | None) -> Relative:
    reasons = list(row.get("reasons") or [])
    return Relative(relation, identity, row.get("url"), row.get("title"), similarity, row.get("kept"), reasons)


def _later_steps(data: Path, places: Sequence[Place]) -> list[Step]:
    """Where the corpus holds the document, and in which packed rows and steps of training it was."""
    shards = [place for place in places if place.kind == "shard"]
    packed = [place for place in places if place.kind == "packed"]
    steps = []
    for file in dict.fromkeys(place.file for place in shards):
        rows = [place.row for place in shards if place.file == file]
        facts = {"split": Path(file).parent.name, "rows": rows}
        steps.append(Step("shard", "kept", [], facts, _at(file, rows[0])))
    for file in dict.fromkeys(place.file for place in packed):
        rows = sorted({place.row for place in packed if place.file == file})
        pack = str(Path(file).parent.relative_to("pack"))
        steps.append(Step("pack", "kept", [], {"pack": pack, "rows": rows}, _at(file, rows[0])))
        for model, folder in (("adapted", data / "finetune"), ("control", data / "finetune" / "control")):
            trained = folder / "rows.parquet"
            if trained.is_file():
                own = pl.read_parquet(trained).filter((pl.col("pack") == pack) & pl.col("row").is_in(rows))
                if own.height:
                    facts = {"model": model, "rows": own["row"].to_list(), "steps": own["step"].to_list()}
                    steps.append(Step("finetune", "seen", [], facts, str(trained.relative_to(data))))
    return steps


def _verdict(steps: Sequence[Step], failed: Sequence[str]) -> str:
    """One sentence: where the document is, or what dropped it."""
    for step in steps:
        # Another row with the id was refused: this one went on.
        if step.outcome == "dropped" and not (step.reasons == ["scrape.duplicate_id"] and len(steps) > 1):
            also = f", and {len(step.reasons) - 1} other rules" if len(step.reasons) > 1 else ""
            return f"Dropped by {step.stage}: {step.reasons[0]}{also} ({explain(step.reasons[0])})."
    trained = [step for step in steps if step.stage == "finetune" and step.facts["model"] == "adapted"]
    shard = next((step for step in steps if step.stage == "shard"), None)
    if trained:
        return f"Kept, and trained on in steps {_some(trained[0].facts['steps'])}."
    if shard:
        return f"Kept: it is in the {shard.facts['split']} split of the corpus."
    last = next((step.stage for step in reversed(steps) if step.outcome == "kept"), "scrape")
    return f"Kept as far as it came: {last} is the last stage that decided about it."


def _some(numbers: Sequence[int]) -> str:
    """A few numbers, and how many more there are.

    >>> _some([3, 1, 2, 7, 9, 8, 4])
    '1, 2, 3, 4, 7 and 2 more'
    """
    ordered = sorted(set(numbers))
    shown = ", ".join(map(str, ordered[:5]))
    return shown + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")
