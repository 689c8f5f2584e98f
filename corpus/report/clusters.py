"""The largest clusters of duplicates, with a few of their documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from corpus.documents import aligned_batches, list_parts
from corpus.report.samples import shortened

CLUSTERS = 8
MEMBERS = 6  # of a cluster that are shown, the kept one first
EXCERPT = 160  # characters
TEXT_CHARS = 4_000  # of a text that are looked at for it
BATCH_ROWS = 50_000  # counted at a time; a batch has two short columns


@dataclasses.dataclass(frozen=True)
class Member:
    """A document of a cluster; everything in it is untrusted."""

    id: str
    title: str | None
    url: str | None
    excerpt: str
    kept: bool
    similarity: float | None  # to the document that it duplicates


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Documents that are alike: how many, and some of them."""

    documents: int
    members: list[Member]


def largest_clusters(data: Path, clusters: int = CLUSTERS, members: int = MEMBERS) -> list[Cluster]:
    """The clusters of most documents, of those with a dropped one; none where dedup did not run.

    Memory holds a count for each cluster with a dropped document.
    """
    total = pl.col("dropped").sum()
    counts, waiting = pl.DataFrame(schema={"cluster": pl.String, "dropped": pl.Int64}), list[pl.DataFrame]()
    for batch in _annotations(data):
        waiting.append(batch.filter(~pl.col("kept")).group_by("cluster").agg(dropped=pl.len().cast(pl.Int64)))
        # Not at each batch: with many clusters, that takes time by the square of their number.
        if sum(frame.height for frame in waiting) > max(counts.height, BATCH_ROWS):
            counts, waiting = pl.concat([counts, *waiting]).group_by("cluster").agg(total), []
    counts = pl.concat([counts, *waiting]).group_by("cluster").agg(total)
    largest = counts.drop_nulls().sort("dropped", "cluster", descending=[True, False]).head(clusters)["cluster"]
    found: dict[str, list[Member]] = {name: [] for name in largest}
    sizes = dict.fromkeys(largest, 0)
    for batch in _annotations(data, largest) if len(largest) else []:
        for row in batch.iter_rows(named=True):
            excerpt = " ".join((row["text"] or "")[:TEXT_CHARS].split())[:EXCERPT]
            title, url = shortened(row["title"]), shortened(row["url"])
            member = Member(row["id"], title, url, excerpt, bool(row["kept"]), row["similarity"])
            sizes[row["cluster"]] += 1
            found[row["cluster"]] = sorted([*found[row["cluster"]], member], key=_order)[:members]
    return [Cluster(sizes[name], found[name]) for name in largest]


def _order(member: Member) -> tuple[bool, float, str]:
    return not member.kept, -(member.similarity or 0), member.id


def _annotations(data: Path, clusters: pl.Series | None = None) -> Iterator[pl.DataFrame]:
    """Batches of dedup's columns; of some clusters alone with the documents beside them."""
    for part in list_parts(data / "clean") if (data / "dedup").is_dir() else []:
        file = data / "dedup" / part.name
        if "cluster" not in pl.read_parquet_schema(file):
            return
        ids = (batch["cluster"] for batch in aligned_batches([file], ["cluster"], BATCH_ROWS))
        if clusters is None:
            yield from aligned_batches([file], ["kept", "cluster"], BATCH_ROWS)
        elif any(own.is_in(clusters.implode()).any() for own in ids):
            columns = ["text", "title", "url", "kept", "cluster", "similarity"]
            for batch in aligned_batches([part, file], columns):
                yield batch.filter(pl.col("cluster").is_in(clusters.implode()))
