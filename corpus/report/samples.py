"""A few dropped documents per reason, chosen by hash: the same ones on every run, and from all over the corpus."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from corpus.clean.personal import mask_personal_data
from corpus.documents import aligned_batches, list_parts
from corpus.report.tally import MEASURING

TEXT_CHARS = 600
MARGIN = 100  # read beyond that, so that no number is cut in two before it is masked
FOUND = {"reason": pl.String, "rank": pl.String, "id": pl.String, "stage": pl.String, "file": pl.String}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A rule that a document failed: the signal's value, and its distance to the bound in robust spreads."""

    reason: str
    value: float | None = None
    margin: float | None = None


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """The beginning of a text, and how many characters were left out after it."""

    title: str | None
    text: str
    cut: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """A dropped document as the page shows it; everything in it is untrusted."""

    id: str
    source: str | None
    url: str | None
    lang: str | None
    excerpt: Excerpt
    failures: list[Failure]
    detail: str | None = None
    similarity: float | None = None
    other: Excerpt | None = None  # the kept document that it duplicates, or the parent it was made from


def dropped_samples(
    data: Path, stages: Sequence[str], per_reason: int, seed: int, mask: bool = True
) -> dict[str, list[Sample]]:
    """Per reason, up to `per_reason` documents that the named stages dropped for it, with personal data masked.

    Three passes: ids and reasons of all, the texts of the chosen, and the texts of what these duplicate.
    """
    chosen = pl.DataFrame(schema=FOUND)
    for found in _dropped(data, stages, seed):
        chosen = pl.concat([chosen, found]).unique(["reason", "id"]).sort("rank", "id")
        chosen = chosen.group_by("reason", maintain_order=True).head(per_reason)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (stage, file), wanted in chosen.group_by(["stage", "file"]):
        for row in _rows(data, str(stage), Path(str(file)), wanted["id"]):
            rows[str(file), row["id"]] = row
    others = _excerpts(
        data, mask, {row[k] for row in rows.values() for k in ("duplicate_of", "parent_id") if row.get(k)}
    )
    samples: dict[str, list[Sample]] = {}
    for reason, file, document in chosen.sort("reason", "rank", "id").select("reason", "file", "id").iter_rows():
        samples.setdefault(reason, []).append(_sample(rows[file, document], mask, others))
    return samples


# ---- which -----------------------------------------------------------------------------------------------------------


def _dropped(data: Path, stages: Sequence[str], seed: int) -> Iterator[pl.DataFrame]:
    """Batches of dropped documents, a row for each of their reasons, as FOUND."""
    for stage in stages:
        for file in _files(data, stage):
            for batch in aligned_batches([file], ["kept", "reason", "reasons"]):
                if "reasons" in batch.columns:
                    batch = batch.filter(~pl.col("kept")).explode("reasons").rename({"reasons": "reason"})
                ranks = [_rank(seed, document) for document in batch["id"]]
                yield (
                    batch.with_columns(pl.Series("rank", ranks, pl.String), stage=pl.lit(stage), file=pl.lit(str(file)))
                    .select(pl.col(name).cast(kind) for name, kind in FOUND.items())
                    .drop_nulls("reason")
                )


def _files(data: Path, stage: str) -> list[Path]:
    """Where a stage names what it dropped: files of their own before there are documents, an annotation after."""
    if stage in ("scrape", "clean"):
        return sorted((data / stage).glob("dropped-*.parquet"))
    return [file for file in list_parts(data / stage) if {"kept", "reasons"} <= set(pl.read_parquet_schema(file))]


def _rank(seed: int, document: str) -> str:
    return hashlib.blake2b(f"{seed}\0{document}".encode(), digest_size=8).hexdigest()


# ---- what they say ---------------------------------------------------------------------------------------------------


def _rows(data: Path, stage: str, file: Path, ids: pl.Series) -> Iterator[dict[str, Any]]:
    """Everything about the chosen documents of a file: document, signals and the stage's own columns."""
    files = [file]
    if stage not in ("scrape", "clean", "augment"):
        annotations = [data / name / file.name for name in MEASURING]
        files = [data / "clean" / file.name, *(path for path in annotations if path.is_file()), file]
    for batch in aligned_batches(files):
        yield from _cut(batch.filter(pl.col("id").is_in(ids.implode()))).iter_rows(named=True)


def _excerpts(data: Path, mask: bool, ids: Iterable[str]) -> dict[str, Excerpt]:
    """The beginnings of the named documents, wherever they lie."""
    wanted, found = pl.Series(sorted(ids), dtype=pl.String), {}
    for part in list_parts(data / "clean") if len(wanted) else []:
        if any(batch["id"].is_in(wanted.implode()).any() for batch in aligned_batches([part], [])):
            for batch in aligned_batches([part], ["title", "text"]):
                for row in _cut(batch.filter(pl.col("id").is_in(wanted.implode()))).iter_rows(named=True):
                    found[row["id"]] = _excerpt(row, mask)
    return found


def _cut(rows: pl.DataFrame) -> pl.DataFrame:
    text = pl.col("text").fill_null("")
    return rows.with_columns(text.str.slice(0, TEXT_CHARS + MARGIN), text.str.len_chars().alias("text_length"))


def _excerpt(row: dict[str, Any], mask: bool) -> Excerpt:
    # What scrape and clean dropped has not been through clean's masking.
    title, text = ((mask_personal_data(words or "")[0] if mask else words) for words in (row.get("title"), row["text"]))
    return Excerpt(title or None, (text or "")[:TEXT_CHARS], max(row["text_length"] - TEXT_CHARS, 0))


def _sample(row: dict[str, Any], mask: bool, others: dict[str, Excerpt]) -> Sample:
    reasons = row["reasons"] if "reasons" in row else [row["reason"]]
    margins = row.get("margins") or [None] * len(reasons)
    failures = [Failure(reason, _value(row, reason), margin) for reason, margin in zip(reasons, margins, strict=True)]
    return Sample(
        row["id"],
        row.get("source"),
        row.get("url"),
        row.get("lang"),
        _excerpt(row, mask),
        failures,
        row.get("detail"),
        row.get("similarity"),
        others.get(row.get("duplicate_of") or row.get("parent_id") or ""),
    )


def _value(row: dict[str, Any], reason: str) -> float | None:
    """The value of the signal that a rule of the filter looked at: `filter.mattr.min` looks at `mattr`."""
    words = reason.split(".")
    return row.get(words[1]) if len(words) == 3 and words[0] == "filter" else None
