"""shard: what was kept, by split, mixed by hash, as Parquet and JSON lines.

Memory stays flat: a first pass keeps a hash and a length of each document, and what decides how often it is taken, and
from them plans which rows make up each file (a bucket); a second pass scatters the rows into a scratch file per bucket;
each bucket is then sorted and cut into chunks alone.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.documents import ROW_GROUP_ROWS, list_parts, open_part, part_writer, to_arrow, write_table
from corpus.executor import run_tasks
from corpus.params import Shard
from corpus.shard.balance import balance_metrics, copies, needed_columns
from corpus.shard.card import dataset_card
from corpus.shard.elsewhere import LEFT_OUT, copy_files, open_elsewhere
from corpus.shard.order import SPLITS, Bucket, Source, Taken, plan, read_bucket, scatter, survey
from corpus.shard.rows import SHARD, chunk_rows, instruction_lines
from corpus.shard.tokenizer import find_tokenizer, tokens_of
from corpus.stage import Metrics, Part, Run, add_metrics, side_by_side
from corpus.storage_options import options_for

READS = ("clean", "measure", "perplexity", "filter", "split")
VERSION = 4

PART_BYTES = 64_000_000  # text of a file
OPEN_BUCKETS = 256  # scratch files written at a time; more buckets take further passes over the documents
COUNTED = ("source", "licence", "method")


def run(run: Run) -> Metrics:
    """Write SPLIT/part-SPLIT-NNNNN.parquet (schema SHARD), SPLIT/text.jsonl, SPLIT/instruct.jsonl, and README.md.

    The documents that are taken no time stand in dropped-balance.parquet (`id`, `reason`). Metrics: `splits` (by split
    and language: documents, chunks, copies, characters, bytes, tokens where they were counted), `instruct` (pairs by
    split), `by_source`, `by_licence`, `by_method` (documents), `balance` (train documents, and how often they were
    taken, by value of what decided that), `fill` (0 to 1, of chunks that are not a document's last).
    """
    params = run.params.shard
    final = run.output.with_name(run.output.name.removeprefix(".").removesuffix(".partial"))
    options = options_for(params.copy_to or "", run.params.storage) | params.storage
    elsewhere = open_elsewhere(params.copy_to, options, final) if params.copy_to else None
    tokenizer = find_tokenizer(params.tokenizer) if params.tokenizer else None
    sources = [Source(part, False) for part in side_by_side(run)]
    sources += [Source(part, True) for part in generated_parts(run)]
    documents = survey(sources, params)
    taken, weighed = balance(documents, params)
    buckets = plan(documents, taken, PART_BYTES)
    del documents
    scratch, left_out = run.output / ".scratch", pl.Series("id", [], pl.String)
    scratch.mkdir()
    for start in range(0, len(buckets), OPEN_BUCKETS):
        left_out = scatter(sources, params.seed, taken, buckets, buckets[start : start + OPEN_BUCKETS], scratch)
    release()
    for split in SPLITS:
        (run.output / split).mkdir()
    if len(left_out):
        frame = left_out.to_frame().with_columns(reason=pl.lit("shard.balance"))
        write_table(to_arrow(frame), run.output / LEFT_OUT)
    total: Metrics = {
        "rows": {"in": len(left_out), "generated": 0, "kept": 0, "dropped": len(left_out)},
        "dropped_by_reason": {"shard.balance": len(left_out)} if len(left_out) else {},
        "splits": {split: {} for split in SPLITS},
        "instruct": dict.fromkeys(SPLITS, 0),
        **{f"by_{name}": {} for name in COUNTED},
        "full_chunks": {"chunks": 0, "tokens": 0},
    }
    task = functools.partial(finish, params, tokenizer, scratch, run.output)
    total = functools.reduce(
        add_metrics, (counted for _, counted in run_tasks(task, buckets, run.crew, "shard")), total
    )
    for split in SPLITS:
        own = [bucket for bucket in buckets if bucket.split == split]
        for kind in ("text", "instruct"):
            join((bucket.scratch(scratch, f"{kind}.jsonl") for bucket in own), run.output / split / f"{kind}.jsonl")
        if not own:
            part_writer(SHARD, run.output / split / Bucket(split, 0, 0).name).close()
    shutil.rmtree(scratch)
    total["notes"] = notes(weighed, total["full_chunks"], params.chunk_tokens)
    if weighed:
        total["balance"] = weighed
    (run.output / "README.md").write_text(dataset_card(total, run.params), "utf-8")
    if elsewhere:
        copy_files(run.output, elsewhere)
    return total


def generated_parts(run: Run) -> list[Part]:
    """The parts of augment, which belong to the graph's own documents: not to others given by hand, nor to a few."""
    folder = run.folder("augment")
    if run.limit is not None or run.inputs[0].resolve() != run.folder("clean").resolve() or not folder.is_dir():
        return []
    return [Part(path.name, (path,), open_part(path).metadata.num_rows) for path in list_parts(folder)]


def balance(documents: pl.DataFrame, params: Shard) -> tuple[Taken, Metrics]:
    """How often documents are taken, and for the metrics by column and value what came of that."""
    columns = needed_columns(params)
    if not columns:
        return Taken(np.zeros(0, np.uint64), np.zeros(0, np.uint32)), {}
    counted = documents.with_columns(copies=copies(documents, params))
    others = counted.filter(pl.col("copies") != 1).sort("rank")
    train = counted.filter(pl.col("split") == "train")
    weighed = {name: balance_metrics(train, name) for name in columns if name not in params.buckets}
    return Taken(others["rank"].to_numpy(), others["copies"].to_numpy()), weighed


def notes(weighed: Metrics, full_chunks: Mapping[str, int], limit: int | None) -> list[str]:
    """What balance made of each group, and how full chunks are."""
    said = [
        f"{column}: " + ", ".join(f"{value} {one['documents']:,} → {one['taken']:,}" for value, one in values.items())
        for column, values in weighed.items()
    ]
    if limit and full_chunks["chunks"]:
        fill = full_chunks["tokens"] / (full_chunks["chunks"] * limit)
        said.append(f"chunks that end within their document have {fill:.0%} of shard.chunk_tokens")
    return said


def finish(params: Shard, tokenizer: Path | None, scratch: Path, output: Path, bucket: Bucket) -> Metrics:
    """Sort one bucket and write its Parquet file and its JSON lines, these still apart. Returns its metrics."""
    release()
    documents = read_bucket(bucket, scratch)
    originals = documents.filter(pl.col("copy") == 0)
    total: Metrics = {
        "rows": {"in": originals.height, "generated": 0, "kept": originals.height, "dropped": 0},
        **{f"by_{name}": count_values(originals[name]) for name in COUNTED},
    }
    with (
        part_writer(SHARD, output / bucket.split / bucket.name) as parquet,
        bucket.scratch(scratch, "text.jsonl").open("wb") as text,
        bucket.scratch(scratch, "instruct.jsonl").open("w", encoding="utf-8") as instruct,
    ):
        for some in documents.iter_slices(ROW_GROUP_ROWS):
            pairs = instruction_lines(some)
            instruct.writelines(pairs)
            counted = write_rows(some, params, tokenizer, bucket.split, parquet, text)
            total = add_metrics(total, counted | {"instruct": {bucket.split: len(pairs)}})
    return total


def release() -> None:
    """Give memory back that nothing uses any more: allocators keep much of what batches of texts took."""
    pa.default_memory_pool().release_unused()


def write_rows(
    documents: pl.DataFrame,
    params: Shard,
    tokenizer: Path | None,
    split: str,
    parquet: pq.ParquetWriter,
    text: BinaryIO,
) -> Metrics:
    """Write the rows of some documents of a split, as Parquet and JSON lines. Returns their metrics."""
    rows = chunk_rows(documents, params.chunk_tokens, params.overlap_tokens, tokens_of(tokenizer))
    parquet.write_table(to_arrow(rows.select(SHARD.names)).cast(SHARD), row_group_size=ROW_GROUP_ROWS)
    rows.select("id", "chunk", "overlap", "copy", "lang", "source", "text").write_ndjson(text)
    return {"splits": {split: count_languages(rows)}, "full_chunks": count_full_chunks(rows)}


def count_languages(rows: pl.DataFrame) -> dict[str, dict[str, int]]:
    """By language (`und` where unknown): documents, further copies, chunks of all these, characters, bytes, tokens."""
    counted = rows.group_by(pl.col("lang").fill_null("und")).agg(
        documents=((pl.col("chunk") == 0) & (pl.col("copy") == 0)).sum(),
        copies=((pl.col("chunk") == 0) & (pl.col("copy") > 0)).sum(),
        chunks=pl.len(),
        characters=pl.col("text").str.len_chars().sum(),
        bytes=pl.col("text").str.len_bytes().sum(),
        tokens=pl.col("tokens").sum(),
    )
    return {row.pop("lang"): row for row in counted.sort("lang").to_dicts()}


def count_full_chunks(rows: pl.DataFrame) -> dict[str, int]:
    """The chunks that another one of their document follows, and their tokens."""
    full = rows.filter(pl.col("chunk").shift(-1) > 0)
    return {"chunks": full.height, "tokens": int(full["tokens"].sum())}


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
