"""The largest clusters of duplicates, with a few of their documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from corpus.documents import aligned_batches, list_parts

CLUSTERS = 8
MEMBERS = 6  # of a cluster that are shown, the kept one first
EXCERPT = 160  # characters


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
    counts = pl.DataFrame(schema={"cluster": pl.String, "dropped": pl.Int64})
    for batch in _annotations(data):
        own = batch.filter(~pl.col("kept")).group_by("cluster").agg(dropped=pl.len().cast(pl.Int64))
        counts = pl.concat([counts, own]).group_by("cluster").agg(pl.col("dropped").sum())
    largest = counts.drop_nulls().sort("dropped", "cluster", descending=[True, False]).head(clusters)["cluster"]
    found: dict[str, list[Member]] = {name: [] for name in largest}
    sizes = dict.fromkeys(largest, 0)
    for batch in _annotations(data, largest) if len(largest) else []:
        for row in batch.iter_rows(named=True):
            excerpt = " ".join((row["text"] or "").split())[:EXCERPT]
            member = Member(row["id"], row["title"], row["url"], excerpt, bool(row["kept"]), row["similarity"])
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
        if clusters is None:
            yield from aligned_batches([file], ["kept", "cluster"])
        elif any(batch["cluster"].is_in(clusters.implode()).any() for batch in aligned_batches([file], ["cluster"])):
            columns = ["text", "title", "url", "kept", "cluster", "similarity"]
            for batch in aligned_batches([part, file], columns):
                yield batch.filter(pl.col("cluster").is_in(clusters.implode()))
