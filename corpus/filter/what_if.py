"""`corpus filter --what-if KEY=VALUE`: which documents a change would move, from the annotations alone."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import polars as pl

from corpus.errors import UserError
from corpus.filter.decide import Limits, failures
from corpus.filter.explain import read_facts
from corpus.filter.profile import profiles_of
from corpus.filter.signals import first_rows, limits_of, read_ids, read_judged, reference_quantiles
from corpus.filter.table import cut, figure, printable, signed, table
from corpus.params import Filter, Params
from corpus.stage import Part, Run, side_by_side

SAMPLE = 10  # documents to show each way
_ID = 12  # characters of one of our own ids, enough for --explain


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two sets of limits on the same documents.

    `languages`: lang, judged, kept_before, kept_after, dropped, kept: how many are newly dropped and newly kept.
    `rules` with a difference: lang, reason, bound_before, bound_after, failed_before, failed_after, dropped, kept.
    `moved`: row, lang, now (dropped or kept), reason, value, bound, margin: each document that moves once, the nearest
    to its bound first. The bound is the new one, of the rule that a document newly fails by the most, or newly passes
    by the least.
    """

    languages: pl.DataFrame
    rules: pl.DataFrame
    moved: pl.DataFrame


def compare(values: pl.DataFrame, before: Limits, after: Limits) -> Comparison:
    """What changes for documents (lang, kept by the stages before, signals) when `after` replaces `before`."""
    lang = values.select("lang").with_row_index("row")

    def failed(limits: Limits) -> pl.DataFrame:
        return failures(values, limits).join(lang, on="row", how="left", maintain_order="left")

    other = {language: own for language, own in after.items() if list(own) != list(before.get(language, []))}
    same = [language for language in after if language not in other]
    old = failed(before)
    new = pl.concat([old.filter(pl.col("lang").is_in(same)), failed(other)])
    dropped, kept = new.join(old, on="row", how="anti"), old.join(new, on="row", how="anti")
    return Comparison(
        _by_language(values, old, new), _by_rule(before, after, old, new, dropped, kept), _moved(after, dropped, kept)
    )


def _by_language(values: pl.DataFrame, old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    counts = values.filter("kept").group_by("lang").agg(judged=pl.len().cast(pl.Int64))
    failed = {"before": old, "after": new, "dropped": new.join(old, on="row", how="anti")}
    failed["kept"] = old.join(new, on="row", how="anti")
    for name, frame in failed.items():
        own = frame.group_by("lang").agg(pl.col("row").n_unique().cast(pl.Int64).alias(name))
        counts = counts.join(own, on="lang", how="left")
    return (
        counts.with_columns(pl.col(list(failed)).fill_null(0))
        .select(
            "lang",
            "judged",
            kept_before=pl.col("judged") - pl.col("before"),
            kept_after=pl.col("judged") - pl.col("after"),
            dropped="dropped",
            kept="kept",
        )
        .sort("lang")
    )


def _bounds(limits: Limits, name: str) -> pl.DataFrame:
    rows = [(language, limit.reason, limit.bound) for language, own in limits.items() for limit in own]
    return pl.DataFrame(rows, {"lang": pl.String, "reason": pl.String, name: pl.Float64}, orient="row")


def _by_rule(before: Limits, after: Limits, *frames: pl.DataFrame) -> pl.DataFrame:
    """The rules whose bound or count differs, in the order of the new limits; those that are gone last."""
    keys = ["lang", "reason"]
    old, new = _bounds(before, "bound_before"), _bounds(after, "bound_after")
    rules = pl.concat([new.select(keys), old.select(keys)]).unique(keep="first", maintain_order=True)
    rules = rules.join(old, on=keys, how="left", maintain_order="left")
    rules = rules.join(new, on=keys, how="left", maintain_order="left")
    names = ["failed_before", "failed_after", "dropped", "kept"]
    for name, frame in zip(names, frames, strict=True):
        counts = frame.group_by(keys).agg(pl.len().cast(pl.Int64).alias(name))
        rules = rules.join(counts, on=keys, how="left", maintain_order="left")
    rules = rules.with_columns(pl.col(names).fill_null(0))
    other_bound = pl.col("bound_before").ne_missing(pl.col("bound_after"))
    return rules.filter(other_bound | (pl.col("failed_before") != pl.col("failed_after")))


def _moved(after: Limits, dropped: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Each moved document once. A bound that is gone stays the measure of those that failed it."""
    spreads = [(language, limit.reason, limit.spread) for language, own in after.items() for limit in own]
    schema = {"lang": pl.String, "reason": pl.String, "spread": pl.Float64}
    new = _bounds(after, "new").join(pl.DataFrame(spreads, schema, orient="row"), on=["lang", "reason"])
    kept = kept.join(new, on=["lang", "reason"], how="left", maintain_order="left").with_columns(
        bound=pl.coalesce("new", "bound"),
        margin=pl.when(pl.col("new").is_null())
        .then("margin")
        .otherwise((pl.col("value") - pl.col("new")) * (1.0 / pl.col("spread"))),
    )
    far = [pl.col("margin").abs().fill_null(float("inf")), (pl.col("value") - pl.col("bound")).abs()]
    order = ["row", "lang", "now", "reason", "value", "bound", "margin"]
    hardest = dropped.with_columns(now=pl.lit("dropped")).select(order).sort(far, descending=True, maintain_order=True)
    tightest = kept.with_columns(now=pl.lit("kept")).select(order).sort(far, maintain_order=True)
    return pl.concat([frame.unique("row", keep="first", maintain_order=True) for frame in (hardest, tightest)]).sort(
        ["now", *far, "row"]
    )


# ---- on the terminal -------------------------------------------------------------------------------------------------


def check_changes(changes: Sequence[str]) -> None:
    """Raises UserError for a change that is not `filter.KEY=VALUE`."""
    for change in changes:
        key, equals, _ = change.partition("=")
        if not equals:
            raise UserError(f"--what-if {change}: write it as key=value, for example filter.bounds.en.ppl.max=800")
        section = key.split(".")[0]
        if section != "filter":
            sections = list(Params.model_fields)
            near = difflib.get_close_matches(section, ["filter", *Filter.model_fields], n=1)
            hint = "only filter's parameters can be judged by annotations; for others run their stage with --set"
            if section not in sections and near:
                whole = key.replace(section, "filter" if near[0] == "filter" else f"filter.{near[0]}", 1)
                hint = f"did you mean {whole}?"
            raise UserError(f"--what-if {change}: {hint}")


def what_if(run: Run, changed: Params, changes: Sequence[str], everything: bool = False, width: int = 120) -> str:
    """What would move if `changed` took the place of the run's parameters: a page of text, or with `everything` a line
    with tabs for each document: dropped or kept, id, language, reason, value, bound. Nothing is written.
    """
    parts = side_by_side(run)
    old, new = (profiles_of(params.filter) for params in (run.params, changed))
    judged = read_judged(parts, run.params.filter, changed.filter)
    known: dict[Any, Any] = {}
    before, after = (limits_of(judged, own, reference_quantiles(run, own), known)[0] for own in (old, new))
    found = compare(judged.values, before, after)
    if everything:
        ids = _ids(parts, found.moved["row"])
        columns = ("now", "lang", "reason", "value", "bound")
        lines = []
        for row, now, lang, reason, value, bound in found.moved.select("row", *columns).iter_rows():
            lines.append("\t".join([now, ids[row], lang, reason, repr(value), repr(bound)]))
        return "\n".join(lines)
    lines = [*changes, "", *_language_lines(found.languages), ""]
    if not found.rules.height:
        return "\n".join([*lines, "No bound changes."])
    lines += _rule_lines(found.rules)
    for now in ("dropped", "kept"):
        moved = found.moved.filter(pl.col("now") == now)
        if moved.height:
            shown = moved.head(SAMPLE)
            count = f"{shown.height} of {moved.height:,}" if moved.height > shown.height else f"{moved.height:,}"
            lines += ["", f"Newly {now}, the nearest to the bound first: {count}"]
            lines += _document_lines(parts, shown, width)
    return "\n".join(lines)


def _language_lines(languages: pl.DataFrame) -> list[str]:
    rows = [list(row) for row in languages.iter_rows()]
    if len(rows) > 1:
        rows.append(["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])])
    titles = ["language", "judged", "kept before", "kept after", "newly dropped", "newly kept"]
    return table([titles, *([row[0], *(f"{count:,}" for count in row[1:])] for row in rows)], right="-rrrrr")


def _rule_lines(rules: pl.DataFrame) -> list[str]:
    titles = ["language", "rule", "bound", "becomes", "fail before", "fail after", "newly dropped", "newly kept"]
    rows = [
        [lang, reason.removeprefix("filter."), figure(old), figure(new), *(f"{count:,}" for count in counts)]
        for lang, reason, old, new, *counts in rules.iter_rows()
    ]
    return table([titles, *rows], right="--rrrrrr")


def _document_lines(parts: Sequence[Part], moved: pl.DataFrame, width: int) -> list[str]:
    starts = first_rows(parts)
    ids = _ids(parts, moved["row"])
    titles = ["id", "language", "rule", "value", "bound", "margin", "url, or how the text begins"]
    rows = [titles]
    for number, lang, reason, value, bound, margin in moved.drop("now").iter_rows():
        part = next(part for part in parts if starts[part] <= number < starts[part] + part.rows)
        facts = read_facts(part, number - starts[part])
        about = facts.get("url") or facts.get("text") or ""
        named = reason.removeprefix("filter.")
        rows.append([_short(ids[number]), lang, named, figure(value), figure(bound), signed(margin), printable(about)])
    return [cut(line, width) for line in table(rows, right="---rrr")]


def _ids(parts: Sequence[Part], rows: pl.Series) -> dict[int, str]:
    """The ids of some documents by their number."""
    found: dict[int, str] = {}
    for part, start in first_rows(parts).items():
        own = rows.filter((rows >= start) & (rows < start + part.rows))
        if len(own):
            found |= zip(own, read_ids(part).gather(own - start), strict=True)
    return found


def _short(identity: str) -> str:
    ours = len(identity) == 32 and all(char in "0123456789abcdef" for char in identity)
    return identity[:_ID] if ours else printable(identity)
