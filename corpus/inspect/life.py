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
from corpus.report.before import Change, beginning, changes, text_before
from corpus.report.index import Outdated, Place, find_id, key_of_id, read_row, read_rows
from corpus.report.metrics import bounds_of, read_metrics

ANNOTATIONS = ("measure", "perplexity", "dedup", "filter", "split")  # row by row beside data/clean
BORN = ("scrape", "clean", "augment")  # the stages whose files have rows of their own, in the order of the graph
MOST_RELATIVES = 20  # of each kind; each costs reading a row group
LEARNED = ("train", "validation")  # packs that the corpus is learned from, or judged by
MOST_CHARS = 1_000_000  # of a text that clean did not keep: all of it is searched for personal data
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
    """What one stage did with the document: `outcome` is kept, dropped, not judged, seen, generated, or outdated where
    the stage was built from other documents."""

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
    notes: list[str]  # what could not be told


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
                beside = Place("id", f"{annotation}/{Path(place.file).name}", place.row)
                if (data / beside.file).is_file():
                    noted = _noted(data, beside, identity)
                    steps.append(_annotation_step(annotation, beside, noted))
                    signals |= noted if annotation in ("measure", "perplexity") else {}
                    document |= {k: v for k, v in noted.items() if annotation == "dedup" and k == "duplicate_of"}
    checks, others, notes = _checks(data.resolve().parent / "reports", document.get("lang"), signals, steps)
    relatives, more = _relatives(data, identity, places, document, steps)
    later, untold = _later_steps(data, identity, places)
    steps += later
    after = document.get("text") if any(s.stage == "clean" and s.outcome == "kept" for s in steps) else None
    earlier = text_before(before) if before else None
    compared = beginning(earlier) if earlier and after else None
    text, title = after or (earlier or document.get("text") or "")[:MOST_CHARS] or None, document.get("title")
    if mask:
        compared = compared and mask_personal_data(compared)[0]
        text, title = (text, title) if after else (said and mask_personal_data(said)[0] for said in (text, title))
    return Life(
        identity,
        document.get("url"),
        title,
        document.get("source"),
        document.get("lang"),
        _verdict(steps),
        steps,
        checks,
        others,
        relatives,
        changes(compared, after) if compared and after else [],
        text,
        [*notes, *more, *untold],
    )


def _row(data: Path, place: Place, identity: str) -> dict[str, Any]:
    row = read_row(data / place.file, place.row)
    if not row or key_of_id(str(row["id"])) != key_of_id(identity):
        raise Outdated
    return row if row["id"] == identity else {}


def _noted(data: Path, place: Place, identity: str) -> dict[str, Any]:
    """What an annotation says of a document; nothing where its row is of another one, or cannot be read."""
    try:
        row = read_row(data / place.file, place.row)
    except UserError:
        return {}
    return row if row.get("id") == identity else {}


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


def _annotation_step(stage: str, place: Place, row: Mapping[str, Any]) -> Step:
    at = _at(place.file, place.row)
    if not row:
        return Step(stage, "outdated", [], {"note": f"not of these documents: `dvc repro {stage}`"}, at)
    if stage in ("measure", "perplexity"):
        return Step(stage, "seen", [], {}, at)
    kept = row.get("kept")
    outcome = "not judged" if kept is None else "kept" if kept else "dropped"
    facts = {key: value for key, value in row.items() if key not in _NOTED and value is not None}
    if facts.get("cluster") == row["id"]:
        del facts["cluster"]
    return Step(stage, outcome, list(row.get("reasons") or []), facts, at)


def _checks(
    reports: Path, lang: str | None, signals: Mapping[str, Any], steps: Sequence[Step]
) -> tuple[list[Check], dict[str, Any], list[str]]:
    """The signals beside the bounds that the filter used, those that have none, and why there may be no bounds."""
    notes = []
    try:
        bounds = bounds_of(read_metrics(reports / "filter.json") or {}).get(str(lang), {})
    except UserError as error:
        bounds = {}
        notes.append(f"no bounds: {error}")
    failed = {reason for step in steps if step.stage == "filter" for reason in step.reasons}
    found = []
    for rule, facts in bounds.items():
        signal, _, side = rule.rpartition(".")
        value, bound = signals.get(signal), facts["bound"]
        margin = None
        if value is not None and facts.get("spread") and bound is not None:
            margin = (value - bound) / facts["spread"]
        origin, reason = (str(facts.get(name, "")) for name in ("from", "why"))
        found.append(Check(signal, value, side, bound, margin, f"filter.{rule}" in failed, origin, reason))
    found.sort(key=lambda check: (not check.failed, math.inf if check.margin is None else abs(check.margin)))
    bounded = {check.signal for check in found}
    others = {k: v for k, v in signals.items() if k not in bounded and k != "id" and v is not None}
    return found, others, notes


def _relatives(
    data: Path, identity: str, places: Sequence[Place], document: Mapping[str, Any], steps: Sequence[Step]
) -> tuple[list[Relative], list[str]]:
    """The document it duplicates, its parent, and the first of its copies and of what was generated from it; and how
    many more of these there are."""
    found, notes = [], []
    similarity = next((step.facts.get("similarity") for step in steps if step.stage == "dedup"), None)
    for name, relation in (("duplicate_of", "duplicate of"), ("parent_id", "parent")):
        if other := document.get(name):
            row = _find_row(data, str(other))
            found.append(_relative(relation, str(other), row, similarity if name == "duplicate_of" else None))
    for kind, relation in (("parent", "generated"), ("copy", "copy")):
        theirs = [place for place in places if place.kind == kind]
        for place in theirs[:MOST_RELATIVES]:
            row = read_row(data / place.file, place.row)
            if row.get("parent_id" if kind == "parent" else "duplicate_of") == identity:
                other = str(row["id"])
                if kind == "copy":
                    row = _noted(data, Place("id", f"clean/{Path(place.file).name}", place.row), other) | row
                found.append(_relative(relation, other, row, row.get("similarity")))
        if len(theirs) > MOST_RELATIVES:
            notes.append(f"{len(theirs) - MOST_RELATIVES:,} more relatives: {relation}")
    return found, notes


def _find_row(data: Path, identity: str) -> dict[str, Any]:
    """A document's row in data/clean, or nothing where it cannot be found at once."""
    try:
        for place in find_id(data, identity):
            if place.kind == "id" and place.file.startswith("clean/"):
                return _row(data, place, identity)
    except (Outdated, UserError):
        pass
    return {}


def _relative(relation: str, identity: str, row: Mapping[str, Any], similarity: float | None) -> Relative:
    reasons = list(row.get("reasons") or [])
    return Relative(relation, identity, row.get("url"), row.get("title"), similarity, row.get("kept"), reasons)


def _later_steps(data: Path, identity: str, places: Sequence[Place]) -> tuple[list[Step], list[str]]:
    """What shard and pack left out, where the corpus holds the document, and in which packed rows and steps of training
    it was; and why the latter may not be told. Raises Outdated where a row does not hold it."""
    steps, notes = [], []
    held = {kind: _rows_holding(data, identity, places, kind) for kind in ("left out", "shard", "packed")}
    for file, rows in held["left out"].items():
        for number, row in rows.items():
            facts = {name: row[name] for name in ("pack", "detail") if row.get(name)}
            steps.append(Step(file.split("/")[0], "dropped", [str(row["reason"])], facts, _at(file, number)))
    for file, rows in held["shard"].items():
        own = [number for number, row in rows.items() if row.get("id", identity) == identity]
        others = sorted(rows.keys() - set(own))
        facts = {"split": Path(file).parent.name}
        if own:
            steps.append(Step("shard", "kept", [], facts | {"rows": own}, _at(file, own[0])))
        if others:
            facts |= {"of": "documents generated from it"}
            steps.append(Step("shard", "seen", [], facts | {"rows": others}, _at(file, others[0])))
    for file, rows in held["packed"].items():
        pack = str(Path(file).parent.relative_to("pack"))
        steps.append(Step("pack", "kept", [], {"pack": pack, "rows": [*rows]}, _at(file, min(rows))))
        for model, folder in (("adapted", data / "finetune"), ("control", data / "finetune" / "control")):
            if (folder / "rows.parquet").is_file():
                step, note = _training(data, model, folder / "rows.parquet", pack, [*rows])
                steps += step
                notes += note
    steps.sort(key=lambda step: ("shard", "pack", "finetune").index(step.stage))
    return steps, notes


def _rows_holding(
    data: Path, identity: str, places: Sequence[Place], kind: str
) -> dict[str, dict[int, dict[str, Any]]]:
    """By file and number, the rows of a kind that are said to hold a document. Raises Outdated where one does not."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in dict.fromkeys(place.file for place in places if place.kind == kind):
        wanted = {place.row for place in places if place.kind == kind and place.file == file}
        names = {"packed": ["document_ids"], "shard": ["id", "document_ids"]}.get(kind)
        rows = read_rows(data / file, wanted, names)
        if any(
            identity not in (rows.get(row, {}).get("document_ids") or [rows.get(row, {}).get("id")]) for row in wanted
        ):
            raise Outdated
        found[file] = dict(sorted(rows.items()))
    return found


def _training(data: Path, model: str, path: Path, pack: str, rows: Sequence[int]) -> tuple[list[Step], list[str]]:
    """The steps in which a model was trained on rows of a pack; a note in their place where it was another pack."""
    at = str(path.relative_to(data))
    try:
        own = read_trained(path).filter(pl.col("pack") == pack)
        now = json.loads((data / "pack" / pack / "state.json").read_text("utf-8")).get("_fingerprint")
    except (pl.exceptions.PolarsError, OSError, ValueError, AttributeError):
        own, now = pl.DataFrame(), None
    if own.is_empty() and now is not None:
        return [], []
    if now is None or own["fingerprint"][0] != now:
        return [], [f"{at} is not of the pack {pack} as it is now, steps are left out: `dvc repro finetune`"]
    own = own.filter(pl.col("row").is_in(rows))
    if own.is_empty():
        return [], []
    best = own["best_step"][0]
    steps, later = (own.filter(which)["step"].to_list() for which in (pl.col("step") <= best, pl.col("step") > best))
    facts = {"model": model, "rows": own["row"].to_list(), "steps": steps, "best_step": best}
    return [Step("finetune", "seen", [], facts | ({"later_steps": later} if later else {}), at)], []


def read_trained(path: Path) -> pl.DataFrame:
    """What a model was trained on: pack, row, step, best_step, and the fingerprint of the pack."""
    return pl.read_parquet(path, columns=["pack", "row", "step", "best_step", "fingerprint"])


def dropped_by(steps: Sequence[Step]) -> Step | None:
    """The step that dropped a document for good, if any did."""
    packed = any(step.stage == "pack" and step.outcome == "kept" and step.facts["pack"] in LEARNED for step in steps)
    for step in steps:
        # Another row with the id was refused: this one went on.
        refused = step.reasons == ["scrape.duplicate_id"] and len(steps) > 1
        # The control and general collections are no part of the corpus.
        elsewhere = step.stage == "pack" and (packed or step.facts.get("pack") not in LEARNED)
        if step.outcome == "dropped" and not refused and not elsewhere:
            return step
    return None


def _verdict(steps: Sequence[Step]) -> str:
    """One sentence: where the document is, or what dropped it."""
    shard = next((step for step in steps if step.stage == "shard" and step.outcome == "kept"), None)
    if step := dropped_by(steps):
        also = f", and {len(step.reasons) - 1} other rules" if len(step.reasons) > 1 else ""
        held = f"; it is in the {shard.facts['split']} split of the corpus" if step.stage == "pack" and shard else ""
        first = step.reasons[0] if step.reasons else "?"
        return f"Dropped by {step.stage}: {first}{also} ({explain(first)}){held}."
    trained = [step for step in steps if step.stage == "finetune" and step.facts["model"] == "adapted"]
    for step in trained:
        if step.facts["steps"]:
            return f"Kept, and trained on in steps {_some(step.facts['steps'])}."
    for step in trained:
        return (
            f"Kept, and trained on in steps {_some(step.facts['later_steps'])}, but the adapter is that of step "
            f"{step.facts['best_step']}, the best one."
        )
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
