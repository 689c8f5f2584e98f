"""The document table, its parts, and the row-aligned annotations beside it.

Text is written once, by `clean` and by `augment`. Every later stage writes an *annotation*: files of the same name with
the same rows in the same order, holding `id` and its own columns. `read` puts them side by side again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.errors import StageError, UserError

MESSAGE = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.large_string())])
PREFERENCE = pa.struct([pa.field("chosen", pa.list_(MESSAGE)), pa.field("rejected", pa.list_(MESSAGE))])

DOCUMENT = pa.schema(
    [
        pa.field("id", pa.string()),  # 128-bit BLAKE2b, hex
        pa.field("text", pa.large_string()),  # UTF-8, NFC
        pa.field("source", pa.string()),  # name in params
        pa.field("batch", pa.int32()),  # the import it came with; earlier batches win ties
        pa.field("url", pa.string()),
        pa.field("title", pa.string()),
        pa.field("date", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("lang", pa.string()),  # BCP 47: en, zh-Hans, zh-Hant
        pa.field("lang_score", pa.float32()),  # 0 to 1
        pa.field("label", pa.string()),  # for classification
        pa.field("messages", pa.list_(MESSAGE)),  # dialogue; text is then its rendering
        pa.field("preference", PREFERENCE),
        pa.field("parent_id", pa.string()),  # of generated documents
        pa.field("method", pa.string()),
        pa.field("meta", pa.large_string()),  # the rest, JSON: kept, never interpreted
    ]
)

PAGE = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("batch", pa.int32()),
        pa.field("url", pa.string()),
        pa.field("content_type", pa.string()),
        pa.field("body", pa.large_binary()),
    ]
)

DROPPED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("batch", pa.int32()),
        pa.field("url", pa.string()),
        pa.field("reason", pa.string()),  # see corpus/reasons.py
        pa.field("detail", pa.string()),  # file and line, status, exception: whatever helps to find it
        pa.field("text", pa.large_string()),  # what there was, cut to DROPPED_TEXT_CHARS
    ]
)
DROPPED_TEXT_CHARS = 2_000

ROW_GROUP_ROWS = 1_000
READ_BYTES = 1 << 18  # of a column at a time: other people's row groups may be as large as the file


def document_id(natural_key: str | bytes) -> str:
    """128-bit BLAKE2b of a source's natural key, in hex: a canonical URL, an id field, or the raw row's bytes.

    >>> document_id("http://pydoc.local/topic?key=for")
    '970af13b2333fc5f66b77432638d7c6e'
    """
    key = natural_key.encode("utf-8", "surrogatepass") if isinstance(natural_key, str) else natural_key
    return hashlib.blake2b(key, digest_size=16).hexdigest()


def generated_id(parent_id: str, method: str, number: int) -> str:
    """Id of the `number`-th document that `method` made from a parent."""
    return document_id(f"{parent_id}\0{method}\0{number}")


def render_messages(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of a dialogue: a line that starts with the role for each message.

    >>> print(render_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]))
    user: Hi
    assistant: Hello
    """
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def part_name(source: str, batch: int, number: int) -> str:
    """File name of a part.

    >>> part_name("pydoc", 0, 3)
    'part-pydoc-0-00003.parquet'
    """
    return f"part-{source}-{batch}-{number:05d}.parquet"


def list_parts(folder: Path) -> list[Path]:
    """The Parquet parts of a folder, by name, or the one file itself; never its `dropped-*` files.

    Raises UserError if the folder is missing or holds no part.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: run the stage that writes it, or name another folder with --input")
    found = sorted(p for p in folder.glob("*.parquet") if not p.name.startswith(("dropped-", ".")))
    if not found:
        raise UserError(f"{folder} holds no Parquet file: there is nothing to read")
    return found


def open_part(path: Path) -> pq.ParquetFile:
    """Open a Parquet file. Raises UserError if it is missing, truncated or no Parquet at all.

    What is read of it is held against the checksums of `part_writer`: without them two flipped bits in three go
    unnoticed.
    """
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES, page_checksum_verification=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it, or name another with --input") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet, at once and whole: readers see the finished file or none."""
    partial = path.with_name(f".{path.name}.partial")
    with part_writer(table.schema, partial) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    partial.replace(path)


def part_writer(schema: pa.Schema, path: Path) -> pq.ParquetWriter:
    """A Parquet writer with the settings of every part: the same rows always give the same bytes."""
    options = {"compression": "zstd", "write_statistics": True, "write_page_checksum": True}
    return pq.ParquetWriter(path, schema.remove_metadata(), **options)


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """A Polars frame as an Arrow table whose types every other engine reads (no string_view)."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def aligned_batches(
    files: Sequence[Path], columns: Sequence[str] | None = None, rows: int = ROW_GROUP_ROWS
) -> Iterator[pl.DataFrame]:
    """Batches of a part and its annotations side by side; of columns with one name the last file's counts.

    Raises StageError where the files differ in rows or ids: they were not built from one another.
    """
    opened = [open_part(path) for path in files]
    wanted = [_columns_to_read(opened, position, columns) for position in range(len(opened))]
    total = opened[0].metadata.num_rows
    for path, file in zip(files, opened, strict=True):
        if file.metadata.num_rows != total:
            raise StageError(
                f"{path} has {file.metadata.num_rows} rows, {files[0]} has {total}: build it again; "
                "more documents, unlike annotations, go as further files into one folder"
            )
    if total == 0:
        empty = [
            pl.DataFrame(pa.Table.from_batches([], file.schema_arrow)).select(names)
            for file, names in zip(opened, wanted, strict=True)
        ]
        yield pl.concat([empty[0], *(frame.drop("id") for frame in empty[1:])], how="horizontal")
        return
    streams = [table_batches(*named, rows) for named in zip(files, opened, wanted, strict=True)]
    for batches in zip(*streams, strict=True):
        frames = [pl.DataFrame(batch) for batch in batches]
        ids = frames[0]["id"]
        for path, frame in zip(files[1:], frames[1:], strict=True):
            if not frame["id"].equals(ids):
                raise StageError(f"the ids of {path} are not those of {files[0]}, row by row: build it again")
        yield pl.concat([frames[0], *(frame.drop("id") for frame in frames[1:])], how="horizontal")


def table_batches(
    path: Path, file: pq.ParquetFile, names: Sequence[str], rows: int, groups: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Tables of some columns of a file. Raises UserError where its middle is damaged, though its end is whole."""
    try:
        for batch in file.iter_batches(rows, row_groups=groups, columns=names):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Some columns of a file, at once. Raises UserError where it is damaged."""
    try:
        return open_part(path).read(columns=list(names))
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno:  # the file may be whole: it cannot be had just now
        return error
    if path.suffix in (".jsonl", ".json", ".csv", ".txt"):
        return UserError(f"{path} is no Parquet: other files come in through `sources` in params.yaml (corpus init)")
    said = " ".join(str(error).split())
    return UserError(f"{path} is not a whole Parquet file ({said}): delete it and build or copy it again")


def _columns_to_read(files: Sequence[pq.ParquetFile], position: int, wanted: Sequence[str] | None) -> list[str]:
    """`id`, and of the wanted columns those that no later file has."""
    later = {name for file in files[position + 1 :] for name in file.schema_arrow.names}
    own = files[position].schema_arrow.names
    if "id" not in own:
        raise UserError(f"a Parquet file without a column `id` cannot be read; it has {', '.join(own)}")
    return [name for name in own if name == "id" or (name not in later and (wanted is None or name in wanted))]


def read(
    stage: str, kept: bool | None = None, data: Path = Path("data"), columns: Iterable[str] | None = None
) -> pl.DataFrame:
    """The documents with the annotation of one stage beside them, in memory: for notebooks and the report.

    `kept=True` gives those the stage kept, `False` those it dropped, `None` all rows.
    """
    folders = [data / "clean"] if stage == "clean" else [data / "clean", data / stage]
    wanted = None if columns is None else ["id", "kept", *columns]
    batches = [
        batch.filter(pl.col("kept") == kept) if kept is not None and "kept" in batch.columns else batch
        for name in (path.name for path in list_parts(folders[0]))
        for batch in aligned_batches([folder / name for folder in folders], wanted)
    ]
    return pl.concat(batches)
