"""Keep documents whose signals lie within the bounds of their language's profile.

Signals are not decisions: no text is read here, so that another threshold costs a second. Each dropped document lists
all rules that it failed and by how much.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from corpus.documents import part_writer, to_arrow
from corpus.filter.decide import Limits, decide
from corpus.filter.profile import profiles_of
from corpus.filter.signals import first_rows, limits_of, read_ids, read_judged, reference_quantiles
from corpus.stage import Metrics, Part, Run, add_metrics, count_rows, map_parts, side_by_side

READS = ("clean", "measure", "perplexity", "dedup")
VERSION = 2
ROWS_AT_ONCE = 65_536


def run(run: Run) -> Metrics:
    """Annotate documents with kept, reasons and margins; those that dedup dropped are not judged.

    Memory: the signals that rules name, 8 bytes each a document.
    """
    parts = side_by_side(run)
    profiles = profiles_of(run.params.filter)
    judged = read_judged(parts, run.params.filter)
    limits, bounds = limits_of(judged, profiles, reference_quantiles(run, profiles))

    key = json.dumps({language: [vars(limit) for limit in own] for language, own in limits.items()})
    work = functools.partial(_decide_part, judged.values, first_rows(parts), limits)
    # In this process: Polars uses all processors, and handing the signals to others takes longer than to judge them.
    by_part = map_parts(dataclasses.replace(run, workers=1, cluster=None), parts, work, VERSION, key)
    counts: Metrics = functools.reduce(add_metrics, by_part, {})
    return {**counts, "bounds": bounds}


def _decide_part(values: pl.DataFrame, starts: Mapping[Part, int], limits: Limits, part: Part, folder: Path) -> Metrics:
    """Write the annotation of one part, some rows at a time."""
    ids = read_ids(part)
    own = values.slice(starts[part], part.rows)
    total: Metrics = {}
    nothing = decide(pl.DataFrame({"id": ids.head(0)}).hstack(own.head(0)), limits)
    with part_writer(to_arrow(nothing).schema, folder / part.name) as writer:
        for start in range(0, max(part.rows, 1), ROWS_AT_ONCE):
            batch = own.slice(start, ROWS_AT_ONCE).with_columns(id=ids.slice(start, ROWS_AT_ONCE))
            annotation = decide(batch, limits)
            writer.write_table(to_arrow(annotation))
            total = add_metrics(total, _count(annotation.with_columns(batch["lang"])))
    return total


def _count(seen: pl.DataFrame) -> Metrics:
    """Counts of a batch: each dropped document once under its first failed rule, failed_rules all of them."""
    judged = seen.filter(pl.col("kept").is_not_null())
    failed = judged.filter(~pl.col("kept"))["reasons"]
    first = dict(failed.list.first().value_counts(sort=True).rows())
    languages = judged.group_by("lang").agg(pl.len().alias("in"), (~pl.col("kept")).sum().alias("dropped")).sort("lang")
    return {
        **count_rows(rows_in=judged.height, dropped=first),
        "failed_rules": dict(failed.explode().value_counts(sort=True).rows()),
        "languages": {row.pop("lang"): row for row in languages.to_dicts()},
    }
