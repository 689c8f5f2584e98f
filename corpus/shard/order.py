"""Which rows make up which file: their order by hash, cut into buckets, and the documents scattered into these."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from corpus.documents import DOCUMENT, document_id, to_arrow
from corpus.errors import UserError
from corpus.params import Shard
from corpus.shard.balance import needed_columns
from corpus.shard.rows import SHARD
from corpus.stage import Part, batches

SPLITS = ("train", "validation", "test")
# Batches scattered at once: what a worker reads of a bucket comes in the fewer pieces, and each of these costs memory.
SCATTERED = 4
GENERATED = np.uint64(1 << 63)  # this bit of a rank puts generated documents after all originals

_OF_DOCUMENTS = [name for name in SHARD.names if name in DOCUMENT.names]
# No empty_table(): it has Arrow import Pandas, which every process would hold.
_SCRATCH = (
    pl.DataFrame(pa.Table.from_batches([], SHARD)).select(*_OF_DOCUMENTS, "copy", rank=pl.lit(0, pl.UInt64)).schema
)


class Source(NamedTuple):
    """A part of documents, and whether these were generated."""

    part: Part
    generated: bool


class Taken(NamedTuple):
    """How often documents are taken: those of these ranks so many times, all others once."""

    ranks: np.ndarray  # uint64, ascending
    times: np.ndarray  # uint32

    def of(self, ranks: np.ndarray) -> np.ndarray:
        """How often the documents of some ranks are taken (uint32)."""
        times = np.ones(len(ranks), np.uint32)
        if len(self.ranks):
            places = np.searchsorted(self.ranks, ranks).clip(max=len(self.ranks) - 1)
            found = self.ranks[places] == ranks
            times[found] = self.times[places[found]]
        return times


@dataclasses.dataclass(frozen=True)
class Bucket:
    """The rows of one file: a range of ranks within a split."""

    split: str
    number: int
    first: int  # rank of the first row

    def scratch(self, folder: Path, suffix: str) -> Path:
        return folder / f"{self.split}-{self.number:05d}.{suffix}"

    @property
    def name(self) -> str:
        # The name of the split lets `datasets` tell these files from the JSON lines beside them.
        return f"part-{self.split}-{self.number:05d}.parquet"


def survey(sources: Iterable[Source], params: Shard) -> pl.DataFrame:
    """Of each kept document `split`, `rank`, `bytes` of text, and what decides how often it is taken."""
    columns = list(dict.fromkeys([*needed_columns(params), *(["lang"] if params.buckets else [])]))
    seen = [
        batch.select(pl.col("split").cast(pl.Enum(SPLITS)), "rank", *columns, bytes=pl.col("text").str.len_bytes())
        for source in sources
        for batch in kept_rows(source, params.seed, columns)
    ]
    return pl.concat(seen, how="vertical_relaxed")


def kept_rows(source: Source, seed: int, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Batches of a part's kept documents with some columns, `split`, and `rank`, their place in the order of rows.

    Raises UserError where a kept document is in no split.
    """
    defaults = {"kept": True, "split": "train", **{name: None for name in columns if name not in ("id", "text")}}
    for batch in batches(source.part, ["id", "text"], defaults):
        kept = batch.filter(pl.col("kept"))
        strays = kept.filter(~pl.col("split").is_in(SPLITS).fill_null(False))
        if strays.height:
            raise UserError(
                f"{source.part}: document {strays['id'][0]} is kept but its split is {strays['split'][0]!r}: "
                f"it should be {', '.join(SPLITS)}"
            )
        # 63 bits of the hash: documents of all sources mix, in an order that no other document changes.
        hashes = np.array([int(document_id(f"{seed}\0{id}")[:16], 16) >> 1 for id in kept["id"]], np.uint64)
        rank = pl.Series("rank", hashes | GENERATED if source.generated else hashes)
        yield kept.with_columns(rank, pl.col("split").cast(pl.String))


def several(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Batches put together, SCATTERED of them at a time."""
    while some := list(itertools.islice(batches, SCATTERED)):
        yield pl.concat(some)


def rank_of_copy(ranks: np.ndarray, copy: int) -> np.ndarray:
    """Where a further copy of documents stands: elsewhere, so that equal rows are not neighbours (splitmix64)."""
    if copy == 0:
        return ranks
    mixed = ranks + np.uint64(copy * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed & ~GENERATED) | (ranks & GENERATED)


def plan(documents: pl.DataFrame, taken: Taken, limit: int) -> list[Bucket]:
    """Cut the order of each split into buckets of at most `limit` bytes of text (or one longer document)."""
    buckets = []
    for split in SPLITS:
        own = documents.filter(pl.col("split") == split)
        ranks, sizes = own["rank"].to_numpy(), own["bytes"].to_numpy()
        times = taken.of(ranks)
        copies = range(int(times.max(initial=1)))
        firsts = first_ranks(
            np.concatenate([rank_of_copy(ranks[times > copy], copy) for copy in copies]),
            np.concatenate([sizes[times > copy] for copy in copies]),
            limit,
        )
        buckets += [Bucket(split, number, first) for number, first in enumerate(firsts)]
    return buckets


def first_ranks(ranks: np.ndarray, sizes: np.ndarray, limit: int) -> list[int]:
    """The rank at which each bucket begins, given the rank and the bytes of each row of a split.

    >>> first_ranks(np.array([3, 1, 2]), np.array([5, 6, 4]), 10)
    [1, 3]
    """
    order = np.argsort(ranks)
    ends = np.cumsum(sizes[order], dtype=np.int64)
    firsts, place, done = [], 0, 0
    while place < len(ends):
        firsts.append(int(ranks[order[place]]))
        place = max(place + 1, int(np.searchsorted(ends, done + limit, side="right")))
        done = int(ends[place - 1])
    return firsts


def scatter(
    sources: Iterable[Source],
    seed: int,
    taken: Taken,
    buckets: Sequence[Bucket],
    wanted: Sequence[Bucket],
    scratch: Path,
) -> pl.Series:
    """Write the rows of the wanted buckets into a scratch file each, in the order in which they are read.

    Returns the ids of the documents that are taken no time.
    """
    firsts = {
        split: np.array([bucket.first for bucket in buckets if bucket.split == split], np.uint64) for split in SPLITS
    }
    schema, left_out = to_arrow(pl.DataFrame(schema=_SCRATCH)).schema, [pl.Series("id", [], pl.String)]
    with contextlib.ExitStack() as stack:
        files = {
            (bucket.split, bucket.number): stack.enter_context(
                pa.ipc.new_stream(str(bucket.scratch(scratch, "arrow")), schema)
            )
            for bucket in wanted
        }
        for batch in (batch for source in sources for batch in several(kept_rows(source, seed, _OF_DOCUMENTS))):
            times = taken.of(batch["rank"].to_numpy())
            left_out.append(batch.filter(times == 0)["id"])
            for copy in range(int(times.max(initial=0))):
                rows = batch.filter(times > copy)
                rows = rows.with_columns(copy=copy, rank=rank_of_copy(rows["rank"].to_numpy(), copy))
                for (split,), own in rows.partition_by("split", as_dict=True).items():
                    numbers = np.searchsorted(firsts[split], own["rank"].to_numpy(), side="right") - 1
                    by_bucket = own.with_columns(bucket=numbers).partition_by("bucket", as_dict=True)
                    for (number,), some in by_bucket.items():
                        if (split, number) in files:
                            files[split, number].write_table(to_arrow(some.select(_SCRATCH.names()).cast(_SCRATCH)))
    return pl.concat(left_out)


def read_bucket(bucket: Bucket, scratch: Path) -> pl.DataFrame:
    """The documents of a bucket in their order, with `copy`."""
    with pa.ipc.open_stream(str(bucket.scratch(scratch, "arrow"))) as stream:
        return pl.DataFrame(stream.read_all()).sort("rank", "id", "copy").drop("rank")
