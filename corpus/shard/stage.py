"""shard: what was kept, by split, mixed by hash, as Parquet and JSON lines.

Memory stays flat: a first pass keeps a hash and a length of each document and from them decides which rows make up
each file (a bucket); a second pass scatters the rows into a scratch file per bucket; each bucket is then sorted alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from corpus.documents import ROW_GROUP_ROWS, document_id, list_parts, open_part, part_writer, to_arrow
from corpus.errors import UserError
from corpus.executor import run_tasks
from corpus.params import Shard
from corpus.shard.card import dataset_card
from corpus.shard.rows import SHARD, chunk_rows, instruction_lines
from corpus.stage import Metrics, Part, Run, add_metrics, batches, side_by_side

READS = ("clean", "filter", "split")
VERSION = 3

SPLITS = ("train", "validation", "test")
PART_BYTES = 64_000_000  # text of a file
OPEN_BUCKETS = 256  # scratch files written at a time; more buckets take further passes over the documents
GENERATED = 1 << 63  # this bit of a rank puts generated documents after all originals

_DOCUMENT = {name: dtype for name, dtype in pl.DataFrame(SHARD.empty_table()).schema.items() if name != "chunk"}
_SCRATCH = pl.DataFrame(SHARD.empty_table()).drop("chunk").with_columns(rank=pl.lit(0, pl.UInt64)).schema
_DEFAULTS = {"kept": True, "split": "train", **{name: None for name in _DOCUMENT if name not in ("id", "text")}}


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


def run(run: Run) -> Metrics:
    """Write SPLIT/part-SPLIT-NNNNN.parquet (schema SHARD), SPLIT/text.jsonl, SPLIT/instruct.jsonl, and README.md.

    Metrics: `splits` (by split and language: documents, chunks, characters, bytes), `instruct` (pairs by split),
    `by_source`, `by_licence`, `by_method` (documents).
    """
    parts = [(part, False) for part in side_by_side(run)] + [(part, True) for part in generated_parts(run)]
    buckets = plan(parts, run.params.shard.seed)
    scratch = run.output / ".scratch"
    scratch.mkdir()
    for start in range(0, len(buckets), OPEN_BUCKETS):
        scatter(parts, run.params.shard.seed, buckets, buckets[start : start + OPEN_BUCKETS], scratch)
    for split in SPLITS:
        (run.output / split).mkdir()
    total: Metrics = {
        "rows": {"in": 0, "generated": 0, "kept": 0, "dropped": 0},
        "dropped_by_reason": {},
        "splits": {split: {} for split in SPLITS},
        "instruct": dict.fromkeys(SPLITS, 0),
        **{f"by_{name}": {} for name in ("source", "licence", "method")},
    }
    task = functools.partial(finish, run.params.shard, scratch, run.output)
    total = functools.reduce(add_metrics, (counted for _, counted in run_tasks(task, buckets, run.workers)), total)
    for split in SPLITS:
        own = [bucket for bucket in buckets if bucket.split == split]
        for kind in ("text", "instruct"):
            join((bucket.scratch(scratch, f"{kind}.jsonl") for bucket in own), run.output / split / f"{kind}.jsonl")
        if not own:
            part_writer(SHARD, run.output / split / Bucket(split, 0, 0).name).close()
    shutil.rmtree(scratch)
    card = dataset_card({**total, "columns": SHARD.names}, run.params.shard.chunk_tokens)
    (run.output / "README.md").write_text(card, "utf-8")
    return total


def generated_parts(run: Run) -> list[Part]:
    """The parts of augment, which belong to the graph's own documents: not to others given by hand, nor to a few."""
    folder = run.folder("augment")
    if run.limit is not None or run.inputs[0].resolve() != run.folder("clean").resolve() or not folder.is_dir():
        return []
    return [Part(path.name, (path,), open_part(path).metadata.num_rows) for path in list_parts(folder)]


def ranked(part: Part, generated: bool, seed: int, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Batches of a part's kept documents with `split` and `rank`, the place in the order of rows (uint64).

    Raises UserError where a kept document is in no split.
    """
    defaults = {name: value for name, value in _DEFAULTS.items() if name in (*columns, "kept", "split")}
    for batch in batches(part, ["id", "text"], defaults):
        kept = batch.filter(pl.col("kept"))
        strays = kept.filter(~pl.col("split").is_in(SPLITS).fill_null(False))
        if strays.height:
            raise UserError(
                f"{part}: document {strays['id'][0]} is kept but its split is {strays['split'][0]!r}: "
                f"it should be {', '.join(SPLITS)}"
            )
        # 63 bits of the hash: documents of all sources mix, in an order that no other document changes.
        hashes = [int(document_id(f"{seed}\0{id}")[:16], 16) >> 1 for id in kept["id"]]
        rank = pl.Series("rank", [GENERATED * generated + number for number in hashes], dtype=pl.UInt64)
        yield kept.with_columns(rank, pl.col("split").cast(pl.String))


def plan(parts: Iterable[tuple[Part, bool]], seed: int) -> list[Bucket]:
    """Cut the order of each split into buckets of at most PART_BYTES of text (or one longer document)."""
    seen = [
        batch.select("split", "rank", bytes=pl.col("text").str.len_bytes())
        for part, generated in parts
        for batch in ranked(part, generated, seed, ["id", "text"])
    ]
    sizes = pl.concat(seen)
    return [
        Bucket(split, number, first)
        for split in SPLITS
        for number, first in enumerate(first_ranks(sizes.filter(pl.col("split") == split), PART_BYTES))
    ]


def first_ranks(sizes: pl.DataFrame, limit: int) -> list[int]:
    """The rank at which each bucket begins, given `rank` and `bytes` of each document of a split.

    >>> first_ranks(pl.DataFrame({"rank": [3, 1, 2], "bytes": [5, 6, 4]}), 10)
    [1, 3]
    """
    ordered = sizes.sort("rank")
    ends = ordered["bytes"].cast(pl.Int64).cum_sum().to_numpy()
    firsts, place, done = [], 0, 0
    while place < len(ends):
        firsts.append(ordered["rank"][place])
        place = max(place + 1, int(np.searchsorted(ends, done + limit, side="right")))
        done = int(ends[place - 1])
    return firsts


def scatter(
    parts: Iterable[tuple[Part, bool]], seed: int, buckets: Sequence[Bucket], wanted: Sequence[Bucket], scratch: Path
) -> None:
    """Write the rows of the wanted buckets into a scratch file each, in the order in which they are read."""
    firsts = {
        split: np.array([bucket.first for bucket in buckets if bucket.split == split], np.uint64) for split in SPLITS
    }
    schema = to_arrow(pl.DataFrame(schema=_SCRATCH)).schema
    with contextlib.ExitStack() as stack:
        files = {
            (bucket.split, bucket.number): stack.enter_context(
                pa.ipc.new_stream(str(bucket.scratch(scratch, "arrow")), schema)
            )
            for bucket in wanted
        }
        for part, generated in parts:
            for batch in ranked(part, generated, seed, list(_DOCUMENT)):
                for (split,), rows in batch.partition_by("split", as_dict=True).items():
                    numbers = np.searchsorted(firsts[split], rows["rank"].to_numpy(), side="right") - 1
                    by_bucket = rows.with_columns(bucket=pl.Series(numbers)).partition_by("bucket", as_dict=True)
                    for (number,), own in by_bucket.items():
                        if (split, number) in files:
                            files[split, number].write_table(to_arrow(own.select(_SCRATCH.names()).cast(_SCRATCH)))


def finish(params: Shard, scratch: Path, output: Path, bucket: Bucket) -> Metrics:
    """Sort one bucket and write its Parquet file and its JSON lines, these still apart. Returns its metrics."""
    with pa.ipc.open_stream(str(bucket.scratch(scratch, "arrow"))) as stream:
        documents = pl.DataFrame(stream.read_all()).sort("rank", "id").drop("rank")
    total: Metrics = {
        "rows": {"in": documents.height, "generated": 0, "kept": documents.height, "dropped": 0},
        **{f"by_{name}": count_values(documents[name]) for name in ("source", "licence", "method")},
    }
    with (
        part_writer(SHARD, output / bucket.split / bucket.name) as parquet,
        bucket.scratch(scratch, "text.jsonl").open("wb") as text,
        bucket.scratch(scratch, "instruct.jsonl").open("w", encoding="utf-8") as instruct,
    ):
        for some in documents.iter_slices(ROW_GROUP_ROWS):
            rows = chunk_rows(some, params.chunk_tokens)
            parquet.write_table(to_arrow(rows).cast(SHARD), row_group_size=ROW_GROUP_ROWS)
            rows.select("id", "chunk", "lang", "source", "text").write_ndjson(text)
            pairs = instruction_lines(some)
            instruct.writelines(pairs)
            counted = {"splits": {bucket.split: count_languages(rows)}, "instruct": {bucket.split: len(pairs)}}
            total = add_metrics(total, counted)
    return total


def count_languages(rows: pl.DataFrame) -> dict[str, dict[str, int]]:
    """By language (`und` where unknown): documents, chunks, characters, bytes."""
    counted = rows.group_by(pl.col("lang").fill_null("und")).agg(
        documents=(pl.col("chunk") == 0).sum(),
        chunks=pl.len(),
        characters=pl.col("text").str.len_chars().sum(),
        bytes=pl.col("text").str.len_bytes().sum(),
    )
    return {row.pop("lang"): row for row in counted.sort("lang").to_dicts()}


def count_values(values: pl.Series) -> dict[str, int]:
    """How often each value occurs; null is nothing to count, but for a licence that nobody named.

    >>> count_values(pl.Series("method", ["a", None, "a"]))
    {'a': 2}
    """
    named = values.fill_null("not named") if values.name in ("licence", "source") else values.drop_nulls()
    return dict(sorted(named.value_counts().iter_rows()))


def join(pieces: Iterable[Path], target: Path) -> None:
    """Write files one after another into one."""
    with target.open("wb") as whole:
        for path in pieces:
            with path.open("rb") as piece:
                shutil.copyfileobj(piece, whole)
