"""Rows of JSONL, Parquet, CSV and plain text files and of datasets as documents or pages."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.documents import DROPPED_TEXT_CHARS, document_id, open_part, render_messages
from corpus.errors import UserError
from corpus.scrape.archives import read_archive
from corpus.scrape.fields import NamedFields
from corpus.scrape.files import (
    COMPRESSED,
    DAMAGE,
    MAX_LINE,
    FileEntry,
    has_suffix,
    list_files,
    open_bytes,
    open_raw,
    read_lines,
    unchanged,
)
from corpus.scrape.label_studio import ANNOTATED, joined_meta, read_task
from corpus.scrape.messages import Dialogue, dialogue_of
from corpus.scrape.urls import normalise_url
from corpus.sources import HfSource, HtmlSource, RowSource, WarcSource
from corpus.storage_errors import shown

_TAKEN_OVER = ("url", "title", "date", "licence", "lang", "label")
_DIALOGUES = ("messages", "conversations", "instruction", "input", "chosen")  # looked for beside a text as well
_PARQUET_ROWS = 200  # read at once
_NOT_CONVERTED = (pa.ArrowException, ValueError, OverflowError)
MAX_ARRAY = 1 << 30  # bytes of a JSON array; larger ones had better be lines
_BOM = b"\xef\xbb\xbf"
_NO_BLANK = re.compile(r"[^ \t\r\n]")
MAX_RECORD_LINES = 1_000  # of one record of CSV; one with more has a quote that is never closed
MAX_RECORD_CHARS = 4_000_000

FileRows = HtmlSource | WarcSource | RowSource
Row = dict[str, Any]


def document_of(row: Mapping[str, Any], text_field: str) -> Row:
    """A row of any shape as columns of a document (or of a page, where it holds HTML) without its id.

    A row that cannot be one has `reason` and `detail` instead.

    >>> document_of({"text": "Hi", "stars": 5}, "text")["meta"]
    '{"stars": 5}'
    >>> document_of({"text": 5}, "text")
    {'reason': 'scrape.error.text', 'detail': 'text is int, not a string'}
    """
    html = row.get("html")
    if html is None and (isinstance(row.get("body"), bytes) or isinstance(row.get("content_type"), str)):
        html = row.get("body")  # otherwise a body may well be that of a letter
    if html is not None and row.get(text_field) is None:
        if not isinstance(html, str | bytes):
            return _refused("scrape.error.text", f"html is {type(html).__name__}, not a string")
        url = row.get("url") if isinstance(row.get("url"), str) else None
        if url is not None and not _is_utf8(url):
            return _refused("scrape.error.encoding", "url holds half of a character (a lone surrogate)")
        body = html if isinstance(html, bytes) else html.encode("utf-8", "surrogatepass")
        content_type = row.get("content_type")
        # What is a string here was decoded already, whatever charset the page declares.
        declared = "text/html; charset=utf-8" if isinstance(html, str) else content_type
        return {"url": url, "content_type": declared if isinstance(declared, str) else "text/html", "body": body}
    text = row.get(text_field)
    dialogue: Dialogue | None = None
    try:
        if text is None or any(row.get(name) is not None for name in _DIALOGUES):
            dialogue = dialogue_of(row)
    except ValueError as error:
        return _refused("scrape.error.messages", str(error))
    if text is None and dialogue is not None:
        text = render_messages(dialogue.messages)
    if text is None:
        names = ", ".join(name for name, value in row.items() if isinstance(value, str)) or "none"
        return _refused("scrape.error.text", f"{text_field} is missing; text_field may name another of: {names}"[:500])
    if not isinstance(text, str):
        return _refused("scrape.error.text", f"{text_field} is {type(text).__name__}, not a string")
    if not _is_utf8(text) or not all(_is_utf8(said) for said in _said(dialogue)):
        return _refused("scrape.error.encoding", f"{text_field} holds half of a character (a lone surrogate)")
    taken = {name: row[name] for name in _TAKEN_OVER if isinstance(row.get(name), str) and _is_utf8(row[name])}
    used = {text_field, *taken, *(dialogue.used if dialogue else ())}
    rest = {name: value for name, value in row.items() if name not in used}
    meta = json.dumps(rest, sort_keys=True, ensure_ascii=True, default=str) if rest else None
    document = {"text": text, **taken, "messages": dialogue.messages if dialogue else None, "meta": meta}
    if dialogue and dialogue.preference:
        document["preference"] = dialogue.preference
    if dialogue and dialogue.label:
        document["label"] = dialogue.label
    return document


def _said(dialogue: Dialogue | None) -> Iterator[str]:
    if dialogue:
        for messages in (dialogue.messages, *(dialogue.preference or {}).values()):
            yield from (message["content"] for message in messages)


def files_of(source: FileRows) -> list[FileEntry]:
    """The files of a source in the order they are read in. Raises UserError where there is none."""
    if not isinstance(source, WarcSource) or not source.paths:
        return list_files(source.path, source.kind, source.storage)
    lines = read_lines(source.path, storage=source.storage)
    found = [(f"{source.base}{line}".removeprefix("file://"), shown(line)) for line in lines]
    if not found:
        raise UserError(f"sources: {source.name}: {shown(source.path)} names no archive: it should have one a line")
    return [entry for path, name in found for entry in _archives_of_line(path, name)]


def _archives_of_line(path: str, name: str) -> list[FileEntry]:
    """The archive that a line of a list names, or those of the folder that it names."""
    if "://" in path:
        return [FileEntry(path, name, 0, "")]
    entries = list_files(path, "warc")
    if Path(path).is_file():
        return [entries[0]._replace(name=name)]
    return [entry._replace(name=f"{name.rstrip('/')}/{entry.name}") for entry in entries]


def read_files(source: FileRows, entries: Iterable[FileEntry], records: Counter[str]) -> Iterator[Row]:
    """All records of a source's files, in order: documents, pages, or dropped rows with a reason.

    A row without an id field has `raw`: True; its id is that of its bytes, and repeats get ids of their own. What a
    clipped or broken file loses is one dropped row. `records` counts those of archives by type. Raises UserError for a
    file that cannot be opened, and for a broken Parquet file; StageError for one that changes meanwhile.
    """
    for entry in entries:
        with unchanged(entry, source.storage):
            yield from _rows_of_entry(source, entry, records)


def _rows_of_entry(source: FileRows, entry: FileEntry, records: Counter[str]) -> Iterator[Row]:
    if isinstance(source, WarcSource):
        yield from read_archive(source, entry, records, source.storage)
    elif isinstance(source, RowSource) and source.kind == "parquet":
        yield from _parquet_rows(source, entry)
    else:
        try:
            with open_bytes(entry, source.storage) as file:
                yield from _rows_of_file(source, entry, file)
        except DAMAGE as error:
            identity = document_id(f"{source.name}\0{entry.name}")
            detail = f"{entry.name}: damaged or clipped: {str(error)[:200]}"
            yield {"id": identity, "reason": "scrape.error.archive", "detail": detail, "text": None}


def _rows_of_file(source: HtmlSource | RowSource, entry: FileEntry, file: BinaryIO) -> Iterator[Row]:
    if isinstance(source, HtmlSource):
        yield _html_page(source, entry, file)
    elif source.kind in ("jsonl", "label_studio"):
        fields = NamedFields(source)
        yield from _jsonl_rows(source, entry.name, file, fields)
        fields.refuse_missing(entry.shown)
    elif source.kind == "csv":
        yield from _csv_rows(source, entry, file)
    else:
        yield _text_file(source, entry.name, file)


def _html_page(source: HtmlSource, entry: FileEntry, file: BinaryIO) -> Row:
    name = entry.name
    url = f"file://{source.name}/{name}"
    if source.public_base:
        # A file's name is no link: its `#`, `?`, `%` and `;` are quoted, so that no two names meet. One that is not
        # UTF-8 comes quoted.
        path = quote(name, safe="/:@!$&'()*+,=~") if _is_utf8(entry.path) else name
        url = f"{source.public_base.rstrip('/')}/{path}"
        url = normalise_url(url) or url
    row: Row = {"id": document_id(url), "url": url}
    body = file.read(source.max_bytes + 1)
    if len(body) > source.max_bytes:
        return row | {"reason": "scrape.too_large", "detail": f"{name}: over {source.max_bytes} bytes", "text": None}
    return row | {"content_type": "text/html", "body": body}


def _jsonl_rows(source: RowSource, name: str, file: BinaryIO, fields: NamedFields) -> Iterator[Row]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
        start = line.lstrip().removeprefix(_BOM) if number == 1 else b""
        if start.startswith(b"[") and (source.kind == "label_studio" or has_suffix(name, (".json",))):
            raw = start + file.read(MAX_ARRAY - len(start))  # often one endless line
            yield from _array_rows(source, name, raw, fields)
            return
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            yield _overlong_line(file, line, f"{name}:{number}")
            continue
        raw = line.strip().removeprefix(_BOM) if number == 1 else line.strip()
        if raw:
            yield _with_id(source, _jsonl_row(source, raw, fields), raw, f"{name}:{number}")


def _array_rows(source: RowSource, name: str, raw: bytes, fields: NamedFields) -> Iterator[Row]:
    """The objects of a JSON array, which is read whole. What follows a fault or its end is one dropped row."""
    text = raw.decode("utf-8", "surrogateescape")
    decoder, at, number = json.JSONDecoder(), 1, 0
    while True:
        at = _next_mark(text, at)
        if text.startswith("]", at):
            if rest := text[_next_mark(text, at + 1) :].encode("utf-8", "surrogateescape"):
                refused = _refused("scrape.error.json", "the array is closed before this")
                yield _with_id(source, refused, rest, f"{name}, after object {number}")
            return
        number += 1
        try:
            _, end = decoder.raw_decode(text, at)
            after = _next_mark(text, end)
            if text[after : after + 1] not in (",", "]"):
                raise ValueError(f"there is no comma after character {end}")
        except (ValueError, RecursionError) as error:
            rest = text[at:].encode("utf-8", "surrogateescape")
            refused = _refused("scrape.error.json", f"the array ends here: {str(error)[:200]}")
            yield _with_id(source, refused, rest, f"{name}, object {number}")
            return
        one = text[at:end].encode("utf-8", "surrogateescape")
        yield _with_id(source, _jsonl_row(source, one, fields), one, f"{name}, object {number}")
        at = after + text.startswith(",", after)


def _next_mark(text: str, at: int) -> int:
    """The place of the next character that is no white space; the end if there is none."""
    found = _NO_BLANK.search(text, at)
    return found.start() if found else len(text)


def _overlong_line(file: BinaryIO, start: bytes, where: str) -> Row:
    """The dropped row of a line that memory need not hold: the rest of it is passed over."""
    digest = hashlib.blake2b(start, digest_size=16)
    while (more := file.readline(MAX_LINE)) and not more.endswith(b"\n"):
        digest.update(more)
    digest.update(more)
    text = start[: 4 * DROPPED_TEXT_CHARS].decode("utf-8", "replace")[:DROPPED_TEXT_CHARS]
    refused = _refused("scrape.too_large", f"{where}: a line of more than {MAX_LINE} bytes")
    return refused | {"id": digest.hexdigest(), "text": text}


def _jsonl_row(source: RowSource, raw: bytes, fields: NamedFields) -> Row:
    try:
        row = json.loads(raw.decode("utf-8"))
        if not isinstance(row, dict):
            return _refused("scrape.error.json", f"{type(row).__name__}, not an object")
        if source.kind == "label_studio":
            return _annotated_row(source, row, fields)
        fields.see(row)
        # Writing what is nested may go deeper than reading it did.
        return document_of(row, source.text_field) | {"key": row.get(source.id_field) if source.id_field else None}
    except UnicodeDecodeError as error:
        return _refused("scrape.error.encoding", f"byte {error.start} is not UTF-8")
    except (ValueError, RecursionError) as error:
        return _refused("scrape.error.json", str(error)[:200])


def _annotated_row(source: RowSource, task: Row, fields: NamedFields) -> Row:
    """A task of Label Studio as its document, which keeps the id that it was exported with."""
    try:
        found = read_task(task, source.text_field)
    except ValueError as error:
        return _refused("scrape.error.text", str(error)[:500])
    if found.id is None:
        fields.see(found.row)
    document = document_of(found.row, source.text_field if found.id is None else "text")
    if "reason" not in document:
        if not all(map(_is_utf8, _strings(found.columns))):
            return _refused("scrape.error.encoding", "the task holds half of a character (a lone surrogate)")
        document |= found.columns | {"meta": joined_meta(found.columns.get("meta"), document.get("meta"))}
        if found.id is None and source.id_field:
            document["key"] = found.row.get(source.id_field)
    if found.dropped:
        document |= _refused(ANNOTATED, "an annotator chose drop")
    return document if found.id is None else document | {"id": found.id}


def _strings(value: Any) -> Iterator[str]:
    """All strings in what JSON holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _parquet_rows(source: RowSource, entry: FileEntry) -> Iterator[Row]:
    number = 0
    with open_raw(entry, source.storage) as opened:
        try:
            file = open_part(Path(entry.path)) if entry.is_local else pq.ParquetFile(opened)
            _refuse_missing(source, entry, file.schema_arrow.names)
            for batch in file.iter_batches(_PARQUET_ROWS):
                for row in _python_rows(batch):
                    number += 1
                    where = f"{entry.name}:{number}"
                    if isinstance(row, dict):
                        yield read_dataset_row(source, row, where)
                    else:
                        refused = _refused("scrape.error.encoding", " ".join(str(row).split())[:200])
                        yield _with_id(source, refused, where.encode(), where)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"{entry.shown} is damaged after row {number} ({said}): delete it and copy it again"
            ) from None


def _python_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Exception]:
    """The rows of a batch, and for each with a value that Python cannot hold (a year 3,000,000) why it cannot."""
    try:
        yield from batch.to_pylist()
    except _NOT_CONVERTED:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except _NOT_CONVERTED as error:
                yield error


def read_dataset_row(source: RowSource | HfSource, row: Mapping[str, Any], where: str) -> Row:
    """A row that already has columns. Its natural key, without an id field, is all of it as JSON."""
    try:
        raw = json.dumps(row, sort_keys=True, default=_bytes_as_text).encode("utf-8", "surrogatepass")
        columns = document_of(row, source.text_field)
    except RecursionError as error:
        return _with_id(source, _refused("scrape.error.json", str(error)), where.encode(), where)
    key = row.get(source.id_field) if source.id_field else None
    return _with_id(source, columns | {"key": key}, raw, where)


def _bytes_as_text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _csv_rows(source: RowSource, entry: FileEntry, file: BinaryIO) -> Iterator[Row]:
    """Rows of a table with a header; between fields commas, semicolons or tabs, whichever the header has most of."""
    name = entry.name
    csv.field_size_limit(MAX_LINE)
    # Bytes that are no UTF-8 become lone surrogates, so that they cost their own row only.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    before: list[str] = []  # empty lines before the header, which count as lines
    while (first := text.readline(MAX_LINE)) in ("\n", "\r\n", "\r"):
        before.append(first)
    header: list[str] = []
    lines = chain(before, [first], iter(lambda: text.readline(MAX_LINE), ""))
    for start, fields, problem in _csv_records(lines, max(",;\t", key=first.count)):
        if not header and fields:
            header = _csv_header(entry.shown, fields)
            _refuse_missing(source, entry, header)
            continue
        if not fields and problem is None:
            continue
        if problem is None and len(fields) != len(header):
            problem = f"{len(fields)} fields, where the header has {len(header)}"
        row = dict(zip(header, fields, strict=False))
        if problem is None and all(map(_is_utf8, fields)):
            yield read_dataset_row(source, row, f"{name}:{start}")
            continue
        raw = "\0".join(fields).encode("utf-8", "surrogateescape") or f"{name}:{start}".encode()
        refused = _refused("scrape.error.csv", problem) if problem else _refused("scrape.error.encoding", "no UTF-8")
        yield _with_id(source, refused, raw, f"{name}:{start}")


def _csv_records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str], str | None]]:
    """The line at which each record begins, its fields, and what is wrong with it.

    A record that cannot be read costs its first line alone: reading goes on with the next, so that a quote that is
    never closed does not swallow the rest of the file. Nor does it cost much time: a record has MAX_RECORD_LINES and
    MAX_RECORD_CHARS at most, and 10 lines once so many were read in vain that the file's quotes say nothing.

    >>> list(_csv_records(iter(['a,"b\\n', "c,d\\n"]), ","))
    [(1, ['a,"b'], 'unexpected end of data'), (2, ['c', 'd'], None)]
    """
    waiting: deque[str] = deque()
    read: list[str] = []
    in_vain = 0  # roughly characters

    def remembered() -> Iterator[str]:
        most, size = MAX_RECORD_LINES if in_vain < MAX_LINE else 10, 0
        while line := waiting.popleft() if waiting else next(lines, ""):
            # A reader lives as long as its records are whole: `read` is emptied before each.
            size = size + len(line) if read else len(line)
            if len(read) >= most or (read and size > MAX_RECORD_CHARS):
                waiting.appendleft(line)
                raise csv.Error(f"a quote that is not closed in {len(read)} lines")
            read.append(line)
            yield line

    start, reader = 1, csv.reader(remembered(), delimiter=delimiter, strict=True)
    while True:
        read.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, [read[0].rstrip("\r\n")], str(error)
            in_vain += sum(len(line) + 100 for line in read[1:])
            waiting.extendleft(reversed(read[1:]))
            start, reader = start + 1, csv.reader(remembered(), delimiter=delimiter, strict=True)
            continue
        yield start, fields, None
        start += len(read)


def _csv_header(path: str, fields: Sequence[str]) -> list[str]:
    """The names of the columns. Several without one are called by their place: column_2, column_3."""
    if fields.count("") > 1:
        fields = [field or f"column_{number}" for number, field in enumerate(fields, 1)]
    if len(set(fields)) < len(fields) or not all(map(_is_utf8, fields)):
        raise UserError(
            f"{path}: the header {', '.join(map(repr, fields))[:200]} does not name each column once in UTF-8"
        )
    return list(fields)


def _refuse_missing(source: RowSource, entry: FileEntry, columns: Sequence[str]) -> None:
    fields = NamedFields(source)
    fields.see(columns)
    fields.refuse_missing(entry.shown)


def _text_file(source: RowSource, name: str, file: BinaryIO) -> Row:
    """A file as a document. One that is not UTF-8 is decoded as clean decodes pages; `meta` says from what."""
    raw = file.read(MAX_LINE + 1)
    if len(raw) > MAX_LINE:
        refused = _refused("scrape.too_large", f"{name}: over {MAX_LINE} bytes")
        return refused | {"id": document_id(f"{source.name}\0{name}"), "text": None}
    columns: Row = {"id": document_id(raw), "raw": True, "title": Path(_uncompressed(name)).stem}
    try:
        return columns | {"text": raw.decode("utf-8-sig")}
    except UnicodeDecodeError as error:
        from corpus.clean.decode import decode

        decoded = decode(raw, "text/plain")
        if decoded and _is_utf8(decoded.text):
            return columns | {"text": decoded.text, "meta": json.dumps({"encoding": decoded.encoding})}
        refused = _refused("scrape.error.encoding", f"{name}: byte {error.start} is not UTF-8")
        return columns | refused | {"text": raw[:DROPPED_TEXT_CHARS].decode("utf-8", "replace")}


def _uncompressed(name: str) -> str:
    return name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in COMPRESSED else name


def _with_id(source: RowSource | HfSource, row: Row, raw: bytes, where: str) -> Row:
    key = row.pop("key", None)
    named = isinstance(key, str | int) and not isinstance(key, bool)
    if source.id_field and not named and "reason" not in row and "id" not in row:
        said = "is missing" if key is None else f"is {type(key).__name__}, no string or integer"
        row = _refused("scrape.error.text", f"id_field {source.id_field} {said}")
    if "id" not in row:  # what people annotated keeps the id that it had
        row["id"] = document_id(f"{source.name}\0{key}") if named and source.id_field else document_id(raw)
        if not (named and source.id_field):
            row["raw"] = True
    if "reason" in row:
        row["detail"] = f"{where}: {row['detail']}"
        row.setdefault("text", raw[: 4 * DROPPED_TEXT_CHARS].decode("utf-8", "replace")[:DROPPED_TEXT_CHARS])
    return row


def _refused(reason: str, detail: str) -> Row:
    return {"reason": reason, "detail": detail}


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
