"""Where each document lies: a sorted index over the folders of the graph, so that its life is found in milliseconds.

An entry says that a row of a file is about a key: the row of a document itself (`id`), by its address (`url`), a
document generated from it (`parent`), a document dropped as its copy (`copy`), a row of the shards that holds it or a
part of it (`shard`), a packed row of tokens (`packed`), or that shard or pack left it out (`left out`). Keys are 64
bits: the first 16 digits of an id, or a hash.
Two keys may meet, so whoever asks looks at the rows as well, which also tells when the files are no longer those of the
index.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.documents import open_part, part_writer, table_batches, to_arrow
from corpus.errors import UserError
from corpus.files import write_json
from corpus.stage import Run

BUCKETS = 16  # by the first hexadecimal digit of the key; one is sorted in memory at a time
ENTRY = pl.Schema({"key": pl.UInt64, "kind": pl.UInt8, "file": pl.UInt32, "row": pl.UInt32})
KINDS = ("id", "url", "parent", "copy", "shard", "packed", "left out")
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
    found += sorted((data / "shard").glob("dropped-*.parquet")) + sorted((data / "shard").glob("*/*.parquet"))
    found += sorted((data / "pack").glob("dropped.parquet"))
    return found + sorted((data / "pack").glob("**/*.arrow"))


def entries_of(path: Path, number: int) -> Iterator[pl.DataFrame]:
    """Batches of the entries of a file, which is the `number`-th of the index."""
    for first, batch in _references(path):
        for kind, rows in _by_kind(path, first, batch):
            key = key_of_text if kind == "url" else key_of_id
            yield rows.select(
                pl.lit(number, pl.UInt32).alias("file"),
                "row",
                pl.Series("key", [key(value) for value in rows["name"]], pl.UInt64),
                pl.lit(KINDS.index(kind), pl.UInt8).alias("kind"),
            )


def scan(data: Path, matches: Callable[[pl.Expr], pl.Expr]) -> dict[str, list[Place]]:
    """The places of all documents whose ids match, by their ids, from the files alone: what the index would say."""
    found: dict[str, list[Place]] = {}
    for path in indexed_files(data):
        for first, batch in _references(path):
            for kind, rows in _by_kind(path, first, batch):
                for row, name in rows.filter(matches(pl.col("name"))).iter_rows() if kind != "url" else ():
                    found.setdefault(name, []).append(Place(kind, str(path.relative_to(data)), row))
    return {name: sorted(set(places), key=_in_order) for name, places in found.items()}


def _in_order(place: Place) -> tuple[int, str, int]:
    return KINDS.index(place.kind), place.file, place.row


def _by_kind(path: Path, first: int, batch: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """What a batch, whose first row has a number, says of documents: kind, and row and name (an id, or a URL)."""
    rows = batch.with_row_index("row", first)
    own = "left out" if _names_the_left_out(path) else "id"
    holder = "packed" if path.suffix == ".arrow" else "shard"
    kinds = {"id": own, "url": "url", "parent_id": "parent", "duplicate_of": "copy", "document_ids": holder}
    for column in batch.columns:
        named = rows.explode(column) if column == "document_ids" else rows
        yield kinds[column], named.select("row", pl.col(column).cast(pl.String).alias("name")).drop_nulls()


def _names_the_left_out(path: Path) -> bool:
    return path.name.startswith("dropped") and path.parent.name in ("shard", "pack")


def _references(path: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """Batches of the columns of a file that name documents, each with the number of its first row; of annotations only
    what they add to the documents. Raises UserError where the file is not whole."""
    first = 0
    if path.suffix == ".arrow":
        for batch in _arrow_batches(path):
            yield first, pl.DataFrame(pa.Table.from_batches([batch.select(["document_ids"])]))
            first += batch.num_rows
        return
    opened = open_part(path)
    stage = path.parent.parent.name if path.parent.parent.name == "shard" else path.parent.name
    wanted = {"dedup": ("duplicate_of",), "shard": ("document_ids",)}.get(stage, ("id", "url", "parent_id"))
    wanted = ("id",) if _names_the_left_out(path) else wanted
    names = [name for name in wanted if name in opened.schema_arrow.names]
    for table in table_batches(path, opened, names, BATCH_ROWS):
        yield first, pl.DataFrame(table)
        first += table.num_rows


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            yield from stream
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no whole Arrow file ({error}): `dvc repro pack` writes it again") from None


# ---- and asked -------------------------------------------------------------------------------------------------------


def find_id(data: Path, identity: str, folder: Path | None = None) -> list[Place]:
    """The places that are about a document, or about another one whose id has the same key.

    `folder` is the index; data/report/index by default. Raises UserError where there is no index, Outdated where it is
    not that of the files.
    """
    key = key_of_id(identity)
    return _places(data, key, key, folder).get(key, [])


def find_beginning(data: Path, digits: str) -> dict[int, list[Place]]:
    """The places by key of all documents whose ids may begin with some hexadecimal digits. Raises as `find_id`."""
    low, high = (int(digits[:16].ljust(16, filling), 16) for filling in "0f")
    return _places(data, low, high)


def find_url(data: Path, url: str) -> list[Place]:
    """The rows whose document has a URL. Raises UserError where there is no index."""
    key = key_of_text(url)
    return [place for place in _places(data, key, key).get(key, []) if place.kind == "url"]


def _places(data: Path, low: int, high: int, folder: Path | None = None) -> dict[int, list[Place]]:
    """The entries with keys of a range, in the order of kinds, files and rows.

    Raises UserError where there is no index, Outdated where it is broken, or files came, went or changed in size.
    """
    folder = folder or data / "report" / "index"
    try:
        known = json.loads((folder / "files.json").read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} does not exist: `dvc repro report` builds the index of documents") from None
    except ValueError:
        raise Outdated from None
    if known != _sizes(data):
        raise Outdated
    files = sorted(known)
    found: dict[int, list[Place]] = {}
    for bucket in range(low >> 60, (high >> 60) + 1):
        opened = open_part(folder / f"{bucket:x}.parquet")
        groups = [number for number in range(opened.num_row_groups) if _may_hold(opened, number, low, high)]
        if not groups:
            continue
        tables = table_batches(folder / f"{bucket:x}.parquet", opened, ENTRY.names(), GROUP_ROWS, groups)
        near = [pl.DataFrame(table).filter(pl.col("key").is_between(low, high)) for table in tables]
        entries = pl.concat([pl.DataFrame(schema=ENTRY), *near])
        for key, kind, file, row in entries.sort(ENTRY.names()).iter_rows():
            found.setdefault(key, []).append(Place(KINDS[kind], files[file], row))
    return found


def _may_hold(file: pq.ParquetFile, group: int, low: int, high: int) -> bool:
    statistics = file.metadata.row_group(group).column(0).statistics
    return statistics is None or not statistics.has_min_max or (statistics.min <= high and statistics.max >= low)


def read_row(path: Path, row: int) -> dict[str, Any]:
    """One row of a Parquet or Arrow file, of whose row groups only one is read; empty where it has no such row.

    Raises UserError where the file is missing or not whole.
    """
    return read_rows(path, [row]).get(row, {})


def read_rows(path: Path, rows: Collection[int], columns: Sequence[str] | None = None) -> dict[int, dict[str, Any]]:
    """Rows of a Parquet or Arrow file by their numbers, those that it has; only the row groups that hold them are read.

    Raises UserError where the file is missing or not whole.
    """
    found: dict[int, dict[str, Any]] = {}
    for first, height, read in _groups(path, columns):
        here = [row - first for row in rows if first <= row < first + height]
        if here:
            taken = read().take(here).to_pylist()
            found |= {first + row: values for row, values in zip(here, taken, strict=True)}
    return found


def _groups(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, int, Callable[[], pa.Table]]]:
    """What a file is read by: the number of the first row, how many rows, and how to read them."""
    first = 0
    if path.suffix == ".arrow":
        for batch in _arrow_batches(path):
            table = pa.Table.from_batches([batch])
            yield first, batch.num_rows, functools.partial(table.select, columns or table.column_names)
            first += batch.num_rows
        return
    opened = open_part(path)
    for group in range(opened.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        names = opened.schema_arrow.names if columns is None else columns
        yield first, rows, functools.partial(_read_group, path, opened, group, rows, names)
        first += rows


def _read_group(path: Path, opened: pq.ParquetFile, group: int, rows: int, names: Sequence[str]) -> pa.Table:
    return pa.concat_tables(table_batches(path, opened, names, max(rows, 1), [group]))
