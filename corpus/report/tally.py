"""One pass over the annotations in flat memory: documents by language, source, length, date, reason; and signals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from corpus.documents import aligned_batches, list_parts, open_part

MEASURING = ("measure", "perplexity")  # stages whose annotations are signals
DECIDING = ("dedup", "filter")  # stages whose annotations have `kept`, read here as `<stage>_kept`
GROUPS = ["lang", "source"]
SUMMED_ROWS = 100_000  # of counts, about 10 MB
LENGTHS = (100, 300, 1_000, 3_000, 10_000, 30_000)  # characters, upper ends but for the last group's

KEYS = {  # of the frames of a Tally: what they are counted by
    "groups": GROUPS,
    "signals": ["lang", "signal", "state", "bin"],
    "beyond": ["lang", "rule"],
    "lengths": ["group"],
    "years": ["group"],
    "reasons": ["source", "reason"],
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """The fixed fine bins in which a signal is counted, so that parts can be added up; logarithmic or linear."""

    log: bool
    low: float
    high: float
    bins: int

    def edge(self, number: int) -> float:
        """The lower edge of a bin, in the signal's unit.

        >>> Scale(False, 0, 1, 200).edge(50), Scale(True, 1, 1e8, 800).edge(200)
        (0.25, 100.0)
        """
        share = number / self.bins
        if self.log:
            return float(f"{10 ** (math.log10(self.low) + share * math.log10(self.high / self.low)):.6g}")
        return float(f"{self.low + share * (self.high - self.low):.6g}")

    def position(self, value: float) -> float:
        """Where a value lies, in bins from the left.

        >>> Scale(False, 0, 1, 200).position(0.25)
        50.0
        """
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log10(value / self.low) / math.log10(self.high / self.low) * self.bins
        return (value - self.low) / (self.high - self.low) * self.bins

    def bin(self, values: pl.Expr) -> pl.Expr:
        """`position` as an expression, rounded down to a bin's number."""
        values = values.cast(pl.Float64).clip(self.low, self.high)
        share = (
            (values / self.low).log10() / math.log10(self.high / self.low)
            if self.log
            else (values - self.low) / (self.high - self.low)
        )
        # The small addition keeps a value on a bin's edge in that bin on every processor.
        return (share * self.bins + 1e-9).floor().clip(0, self.bins - 1).cast(pl.Int32)


def scale_of(signal: str, low: float = -10, high: float = 10) -> Scale:
    """Counts and perplexities on a logarithmic scale, rates from 0 to 1, the rest from `low` to `high`."""
    if signal.startswith(("n_", "ppl")) or signal.endswith("tokens"):
        return Scale(True, 1, 1e8, 800)
    if signal.endswith(("_ratio", "_rate", "ttr")):
        return Scale(False, 0, 1, 1000)
    if signal == "mean_word_length":
        return Scale(False, 0, 50, 1000)
    return Scale(False, low, high if high > low else low + 1, 1000)


def measured_scales(
    data: Path, stages: Collection[str], bounds: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Scale]:
    """The scale of every signal that the named stages measured, from the statistics of their files alone, which holds
    all its values and `bounds`, as in reports/filter.json."""
    ranges: dict[str, tuple[float, float]] = {}
    for stage in MEASURING:
        for part in list_parts(data / stage) if stage in stages else []:
            metadata = open_part(part).metadata
            for group in range(metadata.num_row_groups):
                for column in map(metadata.row_group(group).column, range(metadata.num_columns)):
                    if column.physical_type not in ("INT32", "INT64", "FLOAT", "DOUBLE"):
                        continue
                    known = column.statistics
                    if known is None or not known.has_min_max:
                        # Of nulls alone: it is a signal, but says nothing of its range.
                        ranges.setdefault(column.path_in_schema, (math.inf, -math.inf))
                    elif isinstance(known.min, int | float) and math.isfinite(known.min) and math.isfinite(known.max):
                        old = ranges.get(column.path_in_schema, (known.min, known.max))
                        ranges[column.path_in_schema] = (min(old[0], known.min), max(old[1], known.max))
    ranges = {name: ends if ends[0] <= ends[1] else (-10, 10) for name, ends in ranges.items()}
    for rules in (bounds or {}).values():
        for rule, facts in rules.items():
            name, bound = rule.rpartition(".")[0], facts["bound"]
            if name in ranges and bound is not None and math.isfinite(bound):
                ranges[name] = (min(ranges[name][0], bound), max(ranges[name][1], bound))
    return {name: scale_of(name, *ends) for name, ends in ranges.items()}


@dataclasses.dataclass(frozen=True)
class Tally:
    """What one pass counted; both frames are sorted.

    `groups`: lang, source, documents, characters, and of the stages that ran `dedup_kept`, `filter_kept` and the same
    with `_characters`.
    `signals`: lang, signal, state (kept or dropped), bin, documents; of documents that the filter judged.
    `beyond`: lang, rule, documents: how many that the filter judged lie beyond each of its bounds.
    `lengths`, `years`: group (a place among LENGTHS; a year, null where no date is known), documents, kept.
    `reasons`: source, reason, documents: the first reason of each document that a stage up to split dropped.
    """

    groups: pl.DataFrame
    signals: pl.DataFrame
    beyond: pl.DataFrame
    lengths: pl.DataFrame
    years: pl.DataFrame
    reasons: pl.DataFrame


def tally(
    data: Path,
    stages: Collection[str],
    scales: Mapping[str, Scale],
    bounds: Mapping[str, Mapping[str, Any]] | None = None,
) -> Tally:
    """Count the documents of data/clean and what the named stages annotated them with.

    `scales` are those of the signals to count, `bounds` as in reports/filter.json. Signals that no stage measured are
    left out. Raises StageError where an
    annotation's rows are not those of the documents, UserError where a part is missing.
    """
    counts: dict[str, list[pl.DataFrame]] = {name: [] for name in KEYS}
    for part in list_parts(data / "clean"):
        for batch in _batches(data, part, stages, [*scales]):
            measured = {name: one for name, one in scales.items() if name in batch.columns}
            _add(counts, "groups", _count_groups(batch))
            _add(counts, "signals", _count_bins(batch, measured))
            _add(counts, "beyond", _count_beyond(batch, bounds or {}))
            _add(counts, "lengths", _count_kept(batch, _length_group(batch)))
            _add(counts, "years", _count_kept(batch, pl.col("date").str.slice(0, 4)))
    for reasons in _first_reasons(data, stages):
        _add(counts, "reasons", reasons)
    return Tally(**{name: _sum(counts[name], keys) for name, keys in KEYS.items()})


def _add(counts: Mapping[str, list[pl.DataFrame]], name: str, batch: pl.DataFrame) -> None:
    """Collect the counts of a batch after what they were summed to; summed again where they have become more than that,
    so that memory does not grow with the batches, and time no faster than they."""
    own = counts[name]
    own.append(batch)
    if sum(one.height for one in own[1:]) > max(own[0].height, SUMMED_ROWS):
        own[:] = [_sum(own, KEYS[name])]


def _batches(data: Path, part: Path, stages: Collection[str], signals: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The columns of interest of a part side by side."""
    file = {stage: data / stage / part.name for stage in [*MEASURING, *DECIDING] if stage in stages}
    streams = [
        aligned_batches([part], [*GROUPS, "date"]),
        *(aligned_batches([part, file[stage]], [*signals, "n_chars"]) for stage in MEASURING if stage in file),
        *(_decisions(part, file[stage], f"{stage}_kept") for stage in DECIDING if stage in file),
    ]
    for frames in zip(*streams, strict=True):
        yield pl.concat([frames[0], *(frame.drop("id") for frame in frames[1:])], how="horizontal")


def _decisions(part: Path, file: Path, name: str) -> Iterator[pl.DataFrame]:
    # Read beside the documents' ids, so that rows which do not belong together are noticed.
    for batch in aligned_batches([part, file], ["kept"]):
        yield batch.select("id", pl.col("kept").alias(name))


def _count_groups(batch: pl.DataFrame) -> pl.DataFrame:
    kept = [n for n in batch.columns if n.endswith("_kept")]
    counts = [pl.col(n).fill_null(False).sum().cast(pl.Int64) for n in kept]
    if "n_chars" in batch.columns:
        counts += [
            pl.col("n_chars").filter(pl.col(n)).sum().cast(pl.Int64).alias(n.replace("_kept", "_characters"))
            for n in kept
        ]
    characters = pl.col("n_chars").sum() if "n_chars" in batch.columns else pl.lit(None)
    return batch.group_by(GROUPS).agg(
        pl.len().cast(pl.Int64).alias("documents"), characters.cast(pl.Int64).alias("characters"), *counts
    )


def _length_group(batch: pl.DataFrame) -> pl.Expr:
    """The place among LENGTHS of a document's length; null where it was not measured."""
    if "n_chars" not in batch.columns:
        return pl.lit(None, pl.String)
    above = pl.sum_horizontal([(pl.col("n_chars") > bound).cast(pl.Int32) for bound in LENGTHS])
    return above.cast(pl.String)


def _count_kept(batch: pl.DataFrame, group: pl.Expr) -> pl.DataFrame:
    """Documents by a group, and how many the last stage that decided kept."""
    decided = [name for name in batch.columns if name.endswith("_kept")]
    kept = pl.col(decided[-1]).fill_null(False) if decided else pl.lit(True)
    return (
        batch.select(group.alias("group"), kept.cast(pl.Int64).alias("kept"))
        .group_by("group")
        .agg(pl.len().cast(pl.Int64).alias("documents"), pl.col("kept").sum())
    )


def _count_beyond(batch: pl.DataFrame, bounds: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Of the documents that the filter judged, how many lie beyond each bound of their language."""
    rows = []
    for lang, rules in bounds.items():
        judged = batch.filter(pl.col("lang") == lang)
        if "filter_kept" in batch.columns:
            judged = judged.filter(pl.col("filter_kept").is_not_null())
        for rule, facts in rules.items():
            signal, _, side = rule.rpartition(".")
            if signal in batch.columns and facts["bound"] is not None:
                values = judged[signal].cast(pl.Float64)
                beyond = values < facts["bound"] if side == "min" else values > facts["bound"]
                rows.append((lang, rule, int(beyond.sum())))
    return pl.DataFrame(rows, {"lang": pl.String, "rule": pl.String, "documents": pl.Int64}, orient="row")


def _first_reasons(data: Path, stages: Collection[str]) -> Iterator[pl.DataFrame]:
    """Batches of source, reason, documents, of all stages that drop documents from outside."""
    schema = {"source": pl.String, "reason": pl.String, "documents": pl.Int64}
    yield pl.DataFrame(schema=schema)
    for stage in ("scrape", "clean"):
        for file in sorted((data / stage).glob("dropped-*.parquet")):
            for batch in aligned_batches([file], ["source", "reason"]):
                yield _count_reasons(batch, pl.col("reason"))
    for stage in (*DECIDING, "split"):
        for part in list_parts(data / "clean") if stage in stages else []:
            file = data / stage / part.name
            if "reasons" in pl.read_parquet_schema(file):
                for batch in aligned_batches([part, file], ["source", "kept", "reasons"]):
                    yield _count_reasons(batch.filter(~pl.col("kept")), pl.col("reasons").list.first())


def _count_reasons(batch: pl.DataFrame, reason: pl.Expr) -> pl.DataFrame:
    counted = batch.select(pl.col("source").cast(pl.String), reason.cast(pl.String).alias("reason"))
    return counted.group_by("source", "reason").agg(pl.len().cast(pl.Int64).alias("documents"))


def _count_bins(batch: pl.DataFrame, scales: Mapping[str, Scale]) -> pl.DataFrame:
    if "filter_kept" in batch.columns:
        batch = batch.filter(pl.col("filter_kept").is_not_null())
        state = pl.when("filter_kept").then(pl.lit("kept")).otherwise(pl.lit("dropped"))
    else:
        state = pl.lit("kept")
    return (
        batch.select("lang", state.alias("state"), *(one.bin(pl.col(name)).alias(name) for name, one in scales.items()))
        .unpivot(index=["lang", "state"], variable_name="signal", value_name="bin")
        .cast({"bin": pl.Int32})
        .drop_nulls("bin")
        .group_by("lang", "signal", "state", "bin")
        .agg(pl.len().cast(pl.Int64).alias("documents"))
    )


def _sum(counts: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    return pl.concat(counts).group_by(keys).agg(pl.exclude(keys).sum()).sort(keys, nulls_last=True)
