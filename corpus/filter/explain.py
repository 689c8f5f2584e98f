"""`corpus filter --explain ID`: every rule of a document's profile beside its signals, from the annotations alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from corpus.documents import open_part
from corpus.errors import UserError
from corpus.filter.bounds import percentile_rank, resolve_rule, robust_scores
from corpus.filter.profile import Rule, Side, check_signals, profiles_of, rules_of, sides_of
from corpus.filter.signals import (
    Judged,
    Profiles,
    first_rows,
    read_ids,
    read_judged,
    reference_quantiles,
)
from corpus.filter.table import columns_of, cut, figure, printable, signed, table, wrap
from corpus.stage import Part, Run, side_by_side

FACTS = ("url", "source", "title", "duplicate_of", "similarity", "reasons")
EXCERPT = 200  # characters
_LINE = 110  # columns of the widest paragraph


@dataclasses.dataclass(frozen=True)
class Check:
    """One side of one rule against a document."""

    signal: str
    side: Side
    value: float | None
    bound: float | None  # None: there was nothing to take it from
    origin: str  # absolute, percentile 99 of the corpus, …
    why: str
    score: float | None  # robust spreads of log1p(value) from the median of the language
    margin: float | None  # (value - bound) in robust spreads of the value
    failed: bool


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What the filter thinks of one document, and what it had to go by."""

    id: str
    lang: str
    profile: str
    facts: Mapping[str, Any]  # those of FACTS that there are, and `text`: its beginning
    judged: bool  # False: a stage before dropped it
    checks: list[Check]  # in the order of the profile
    others: list[tuple[str, float, float | None]]  # signals without a rule: value, percentile in the language
    documents: int  # judged in that language, which percentiles and scores are among

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.failed]


def explain_documents(run: Run, wanted: Sequence[str], width: int = 120) -> str:
    """The explanations of some documents as text. Raises UserError for an id, or beginning of one, that none has."""
    return "\n\n".join(render(one, width) for one in explanations(run, wanted))


def explanations(run: Run, wanted: Sequence[str]) -> list[Explanation]:
    """Explain documents by id or its beginning, as `run` would decide about them; nothing is written."""
    parts = side_by_side(run)
    places = [_find(parts, run.inputs[0], one) for one in wanted]
    profiles = profiles_of(run.params.filter)
    judged = read_judged(parts, run.params.filter, everything=True)
    starts = first_rows(parts)
    return [
        _explain(run, judged, profiles, starts[part] + row, document, read_facts(part, row))
        for part, row, document in places
    ]


def _explain(
    run: Run, judged: Judged, profiles: Profiles, place: int, document: str, facts: Mapping[str, Any]
) -> Explanation:
    row = judged.values.row(place, named=True)
    lang = row.pop("lang")
    kept = row.pop("kept")
    if lang not in profiles:
        raise UserError(
            f"{document} is in {lang}: filter.profile has no profile for it, only for {', '.join(profiles)}"
        )
    rules = rules_of(profiles[lang])
    check_signals(lang, rules, row)
    reference = reference_quantiles(run, {lang: profiles[lang]})
    mine = judged.values["kept"] & (judged.values["lang"] == lang)
    checks, others = [], []
    for signal in dict.fromkeys([*rules, *row]):
        values = judged.values[signal].filter(mine).rechunk()
        if signal in rules:
            _, bounds = resolve_rule(lang, signal, rules[signal], values, reference)
            checks += check_rule(signal, rules[signal], row[signal], values, bounds)
        elif row[signal] is not None:
            others.append((signal, row[signal], percentile_rank(values, row[signal])))
    return Explanation(
        id=document,
        lang=lang,
        profile=run.params.filter.profile[lang],
        facts=facts,
        judged=kept,
        checks=checks,
        others=others,
        documents=int(mine.sum()),
    )


def check_rule(
    signal: str, rule: Rule, value: float | None, among: pl.Series, bounds: Mapping[str, Mapping[str, Any]]
) -> list[Check]:
    """What each side of a rule says of a value; `bounds` as `resolve_rule` gives them for the values `among`."""
    score = robust_scores(pl.Series([value], dtype=pl.Float64), among)[0]
    checks = []
    for side in sides_of(rule):
        facts = bounds.get(f"{signal}.{side}", {})
        bound, spread = facts.get("bound"), facts.get("spread")
        away = None if value is None or bound is None else value - bound
        failed = away is not None and (away < 0 if side == "min" else away > 0)
        margin = None if away is None or spread is None else away * (1.0 / spread)
        origin = facts.get("from", "nothing to take it from")
        checks.append(Check(signal, side, value, bound, origin, rule.why, score, margin, failed))
    return checks


# ---- where a document is ---------------------------------------------------------------------------------------------


def _find(parts: Sequence[Part], documents: Path, wanted: str) -> tuple[Part, int, str]:
    """The part, row and id of a document by its id or the beginning of it. Raises UserError unless there is one."""
    found: list[tuple[Part, int, str]] = []
    near = ""
    for part in parts:
        ids = read_ids(part)
        if len(same := (ids == wanted).arg_true()):
            return part, same[0], wanted
        found += [(part, row, ids[row]) for row in ids.str.starts_with(wanted).arg_true()[:4]]
        near = max([near, *_neighbours(ids, wanted)], key=lambda one: (_shared(one, wanted), one))
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(one for *_, one in found[:3])
        raise UserError(f"--explain {printable(wanted)}: {some} and others begin so: say more of it")
    hint = f"the nearest is {near}; " if _shared(near, wanted) >= 3 else ""
    dropped = _dropped_by_clean(documents, wanted)
    raise UserError(
        f"--explain {printable(wanted)}: {dropped}"
        if dropped
        else f"--explain {printable(wanted)}: no document has this id: {hint}ids are the column `id` of {documents},"
        " and `corpus export filter DIR --dropped` writes them beside the texts"
    )


def _neighbours(ids: pl.Series, wanted: str) -> list[str]:
    """The ids just before and after it in alphabetical order: one of them shares its longest beginning."""
    around = [ids.filter(ids < wanted).max(), ids.filter(ids > wanted).min()]
    return [one for one in around if isinstance(one, str)]


def _shared(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _dropped_by_clean(documents: Path, wanted: str) -> str:
    """What to say of a document that has no text because clean dropped it; nothing where it did not."""
    for path in sorted(documents.glob("dropped-*.parquet")) if documents.is_dir() else []:
        rows = pl.read_parquet(path, columns=["id", "reason", "detail"]).filter(pl.col("id").str.starts_with(wanted))
        if rows.height:
            identity, reason, detail = rows.row(0)
            return f"{identity} was dropped before, as {reason}{f' ({detail})' if detail else ''}: it has no signals"
    return ""


def read_facts(part: Part, row: int) -> dict[str, Any]:
    """What there is of FACTS about one row of a part, and the beginning of its text; of a row group, not of all."""
    files = {name: path for path in part.files for name in open_part(path).schema_arrow.names}  # the last one counts
    facts: dict[str, Any] = {}
    wanted = [name for name in (*FACTS, "text") if name in files]
    for path in dict.fromkeys(files[name] for name in wanted):
        own = [name for name in wanted if files[name] == path]
        facts |= pl.scan_parquet(path, glob=False).select(own).slice(row, 1).collect().row(0, named=True)
    if isinstance(facts.get("text"), str):
        facts["text"] = printable(facts["text"][: 2 * EXCERPT])[:EXCERPT]
    return facts


# ---- on the terminal -------------------------------------------------------------------------------------------------


def render(one: Explanation, width: int) -> str:
    """An explanation as lines of at most so many columns: failed rules first, then the others, then other signals."""
    head = [["document", one.id], ["language", f"{one.lang}, profile {one.profile}"]]
    head += [[name, printable(str(one.facts[name]))] for name in ("source", "url", "title") if one.facts.get(name)]
    head += [["text", one.facts["text"]]] if one.facts.get("text") else []
    lines = [cut(line, width) for line in table(head, indent=0)] + ["", *wrap(verdict(one), min(width, _LINE)), ""]

    titles = ["", "rule", "value", "bound", "score", "margin"]
    checks = [*one.failed, *(check for check in one.checks if not check.failed)]
    cells = [
        [
            "FAIL" if check.failed else "ok" if check.value is not None and check.bound is not None else "–",
            check.signal,
            figure(check.value),
            f"{check.side} {figure(check.bound)}",
            signed(check.score),
            signed(check.margin),
        ]
        for check in checks
    ]
    first = table([titles, *cells], right="--r-rr", indent=0)
    start = max(columns_of(line) for line in first) + 2
    lines.append(first[0] + " " * (start - columns_of(first[0])) + "the bound is")
    for check, line in zip(checks, first[1:], strict=True):
        line += " " * (start - columns_of(line))
        if check.failed:  # says all; of the others a line is enough
            lines += [line + check.origin, *("      " + more for more in wrap(check.why, min(width, _LINE) - 6))]
        else:
            lines.append(line + cut(f"{check.origin}: {check.why}", max(width - start, 20)))
    lines += [
        "",
        "score: robust spreads of log(1 + value) from the language's median; margin: robust spreads beyond the bound",
    ]
    if one.others:
        lines += ["", f"Signals without a rule, and their percentile among {one.documents:,} documents in {one.lang}:"]
        rows = [[signal, figure(value), "–" if rank is None else f"p{rank:.0f}"] for signal, value, rank in one.others]
        lines += table(rows, right="-rr")
    return "\n".join(lines)


def verdict(one: Explanation) -> str:
    """One sentence: kept, dropped, or dropped before and by what."""
    failed, bounds = len(one.failed), len(one.checks)
    if one.judged:
        return (
            f"Dropped: it fails {failed} of {bounds} bounds." if failed else f"Kept: it is within all {bounds} bounds."
        )
    other = one.facts.get("duplicate_of")
    similarity = one.facts.get("similarity")
    said = ", ".join(one.facts.get("reasons") or []) or "no reason given"
    how = (
        f": a duplicate of {other}" + (f", similarity {similarity:.3g}" if similarity is not None else "")
        if other
        else ""
    )
    would = f"would have failed {failed} of {bounds} bounds" if failed else "would have kept it"
    return f"Dropped before the filter ({said}){how}. The filter did not judge it; it {would}."
