"""Where each document lies: a sorted index over the folders of the graph, so that its life is found in milliseconds.

An entry says that a row of a file is about a key: the row of a document itself (`id`), by its address (`url`), a
document generated from it (`parent`), a document dropped as its copy (`copy`), a row of the shards that holds it or a
part of it (`shard`), or a packed row of tokens (`packed`). Keys are 64 bits: the first 16 digits of an id, or a hash.
Two keys may meet, so whoever asks looks at the rows as well, which also tells when the files are no longer those of the
index.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.documents import open_part, part_writer, table_batches, to_arrow
from corpus.errors import UserError
from corpus.stage import Run, write_json

BUCKETS = 16  # by the first hexadecimal digit of the key; one is sorted in memory at a time
ENTRY = pl.Schema({"key": pl.UInt64, "kind": pl.UInt8, "file": pl.UInt32, "row": pl.UInt32})
KINDS = ("id", "url", "parent", "copy", "shard", "packed")
BATCH_ROWS = 50_000
GROUP_ROWS = 10_000
_HEX = re.compile(r"[0-9a-f]{1,32}")


@dataclasses.dataclass(frozen=True)
class Place:
    """A row of a file of data/ that is about a document, and in what way: one of KINDS."""

    kind: str
    file: str  # relative to data/
    row: int


class Outdated(Exception):
    """The files are no longer those of the index."""


def key_of_id(identity: str) -> int:
    """The key of an id: its first 16 hexadecimal digits where it is one of ours, else a hash.

    >>> hex(key_of_id("970af13b2333fc5f66b77432638d7c6e"))
    '0x970af13b2333fc5f'
    """
    return int(identity[:16], 16) if len(identity) == 32 and _HEX.fullmatch(identity) else key_of_text(identity)


def key_of_text(text: str) -> int:
    """The key of a URL or of an id that is none of ours."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


# ---- built by the report ---------------------------------------------------------------------------------------------


def build_index(run: Run, data: Path) -> None:
    """Write the index of data/ into the folder `index` of the output: files.json and a Parquet file per bucket.

    Reads ids, URLs and references alone. Memory holds a bucket at a time: 16 bytes for each of the sixteenth part of
    all entries, of which a document that was trained on has about six.
    """
    folder = run.output / "index"
    folder.mkdir()
    files = sorted(_sizes(data))
    write_json(folder / "files.json", _sizes(data))
    partials = [folder / f".{bucket:x}.partial" for bucket in range(BUCKETS)]
    with contextlib.ExitStack() as stack:
        schema = to_arrow(pl.DataFrame(schema=ENTRY)).schema
        writers = [stack.enter_context(part_writer(schema, path)) for path in partials]
        for number, file in enumerate(files):
            for entries in entries_of(data / file, number):
                for (bucket,), own in entries.group_by((pl.col("key") // 2**60).alias("bucket")):
                    writers[int(str(bucket))].write_table(to_arrow(own.select(ENTRY.names())))
    for bucket, path in enumerate(partials):
        entries = pl.read_parquet(path).unique().sort(ENTRY.names())
        with part_writer(schema, folder / f"{bucket:x}.parquet") as writer:
            writer.write_table(to_arrow(entries), row_group_size=GROUP_ROWS)
        path.unlink()


def _sizes(data: Path) -> dict[str, int]:
    """The files by their names within data/, with their sizes in bytes."""
    return {str(path.relative_to(data)): path.stat().st_size for path in indexed_files(data)}


def indexed_files(data: Path) -> list[Path]:
    """The files that hold documents or refer to them, in the order of the graph, those of one stage by name."""
    found: list[Path] = []
    for stage in ("scrape", "clean"):
        found += sorted((data / stage).glob("*.parquet"))
    for stage in ("dedup", "augment"):
        found += sorted((data / stage).glob("*.parquet"))
    found += sorted((data / "shard").glob("*/*.parquet"))
    return found + sorted((data / "pack").glob("**/*.arrow"))


def entries_of(path: Path, number: int) -> Iterator[pl.DataFrame]:
    """Batches of the entries of a file, which is the `number`-th of the index."""
    first, holder = 0, "packed" if path.suffix == ".arrow" else "shard"
    for batch in _references(path):
        rows = batch.with_row_index("row", first).with_columns(pl.lit(number, pl.UInt32).alias("file"))
        first += batch.height
        for column, kind in (("id", "id"), ("url", "url"), ("parent_id", "parent"), ("duplicate_of", "copy")):
            if column in batch.columns:
                yield _keyed(rows, column, kind)
        if "document_ids" in batch.columns:
            yield _keyed(rows.explode("document_ids"), "document_ids", holder)


def _keyed(rows: pl.DataFrame, column: str, kind: str) -> pl.DataFrame:
    rows = rows.drop_nulls(column)
    key = key_of_text if kind == "url" else key_of_id
    keys = pl.Series("key", [key(value) for value in rows[column]], pl.UInt64)
    return rows.select("file", "row").with_columns(keys, pl.lit(KINDS.index(kind), pl.UInt8).alias("kind"))


def _references(path: Path) -> Iterator[pl.DataFrame]:
    """Batches of the columns of a file that name documents; of annotations only what they add to the documents."""
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield pl.DataFrame(pa.Table.from_batches([batch.select(["document_ids"])]))
        return
    opened = open_part(path)
    stage = path.parent.parent.name if path.parent.parent.name == "shard" else path.parent.name
    wanted = {"dedup": ("duplicate_of",), "shard": ("document_ids",)}.get(stage, ("id", "url", "parent_id"))
    names = [name for name in wanted if name in opened.schema_arrow.names]
    for table in table_batches(path, opened, names, BATCH_ROWS):
        yield pl.DataFrame(table)


# ---- and asked -------------------------------------------------------------------------------------------------------


def find_id(data: Path, identity: str, folder: Path | None = None) -> dict[int, list[Place]]:
    """The places of a document by its id, or of all whose ids begin with some hexadecimal digits, by their keys.

    `folder` is the index; data/report/index by default. Raises UserError where there is no index.
    """
    if 6 <= len(identity) < 32 and _HEX.fullmatch(identity):
        digits = identity[:16]
        low = int(digits.ljust(16, "0"), 16)
        high = int(digits.ljust(16, "f"), 16)
        return _places(data, low, high, folder)
    return _places(data, key_of_id(identity), key_of_id(identity), folder)


def find_url(data: Path, url: str) -> list[Place]:
    """The rows whose document has a URL. Raises UserError where there is no index."""
    key = key_of_text(url)
    return [place for place in _places(data, key, key).get(key, []) if place.kind == "url"]


def _places(data: Path, low: int, high: int, folder: Path | None = None) -> dict[int, list[Place]]:
    """The entries with keys of a range, in the order of files and rows.

    Raises UserError where there is no index, Outdated where files came, went or changed in size.
    """
    folder = folder or data / "report" / "index"
    try:
        known = json.loads((folder / "files.json").read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} does not exist: `dvc repro report` builds the index of documents") from None
    if known != _sizes(data):
        raise Outdated
    files = sorted(known)
    found: dict[int, list[Place]] = {}
    for bucket in range(low >> 60, (high >> 60) + 1):
        opened = open_part(folder / f"{bucket:x}.parquet")
        groups = [number for number in range(opened.num_row_groups) if _may_hold(opened, number, low, high)]
        if not groups:
            continue
        entries = pl.DataFrame(opened.read_row_groups(groups)).filter(pl.col("key").is_between(low, high))
        for key, kind, file, row in entries.sort(ENTRY.names()).iter_rows():
            found.setdefault(key, []).append(Place(KINDS[kind], files[file], row))
    return found


def _may_hold(file: pq.ParquetFile, group: int, low: int, high: int) -> bool:
    statistics = file.metadata.row_group(group).column(0).statistics
    return statistics is None or not statistics.has_min_max or (statistics.min <= high and statistics.max >= low)


def read_row(path: Path, row: int) -> dict[str, object]:
    """One row of a Parquet or Arrow file, of whose row groups only one is read; empty where it has no such row."""
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                if row < batch.num_rows:
                    return dict(batch.slice(row, 1).to_pylist()[0])
                row -= batch.num_rows
        return {}
    opened = open_part(path)
    for group in range(opened.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        if row < rows:
            return dict(opened.read_row_group(group).slice(row, 1).to_pylist()[0])
        row -= rows
    return {}
