"""Rows of JSONL, Parquet and plain text files as documents or pages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from corpus.documents import DROPPED_TEXT_CHARS, document_id, open_part, render_messages
from corpus.errors import UserError
from corpus.scrape.urls import normalise_url
from corpus.sources import HtmlSource, RowSource

SUFFIXES = {
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
    "text": (".txt", ".md"),
    "html": (".html", ".htm"),
}
_TAKEN_OVER = ("url", "title", "date", "licence", "lang", "label")
_PAGE_FIELDS = ("html", "body")
_OVERLONG_LINE = 256 * 1024 * 1024

Row = dict[str, Any]


def messages_of(row: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """The messages of a row in one of the usual shapes: messages, input/output, or Alpaca. None if it has none.

    Raises ValueError where it has some that are not right.

    >>> messages_of({"instruction": "Add", "input": "1 2", "output": "3"})
    [{'role': 'user', 'content': 'Add\\n1 2'}, {'role': 'assistant', 'content': '3'}]
    """
    given = row.get("messages")
    if given is not None:
        if not isinstance(given, list) or not given:
            raise ValueError("messages is not a list of {role, content}")
        for message in given:
            if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
                raise ValueError("a message is not {role, content} with two strings")
        return [{"role": message["role"], "content": message["content"]} for message in given]
    question = row.get("instruction", row.get("input"))
    if question is None or "output" not in row:
        return None
    parts = [question, row.get("input") or ""] if "instruction" in row else [question]
    if not all(isinstance(part, str) for part in [*parts, row["output"]]):
        raise ValueError("instruction, input and output are not all strings")
    asked = "\n".join(part for part in parts if part)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def document_of(row: Mapping[str, Any], text_field: str) -> Row:
    """A row of any shape as columns of a document (or of a page, where it holds HTML) without its id.

    A row that cannot be one has `reason` and `detail` instead.

    >>> document_of({"text": "Hi", "stars": 5}, "text")["meta"]
    '{"stars": 5}'
    >>> document_of({"text": 5}, "text")
    {'reason': 'scrape.error.text', 'detail': 'text is int, not a string'}
    """
    html = next((row[name] for name in _PAGE_FIELDS if row.get(name) is not None), None)
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
    try:
        messages = messages_of(row)
    except ValueError as error:
        return _refused("scrape.error.messages", str(error))
    text = row.get(text_field)
    if text is None and messages is not None:
        text = render_messages(messages)
    if text is None:
        return _refused("scrape.error.text", f"{text_field} is missing")
    if not isinstance(text, str):
        return _refused("scrape.error.text", f"{text_field} is {type(text).__name__}, not a string")
    if not _is_utf8(text) or not all(_is_utf8(m["content"] + m["role"]) for m in messages or ()):
        return _refused("scrape.error.encoding", f"{text_field} holds half of a character (a lone surrogate)")
    taken = {name: row[name] for name in _TAKEN_OVER if isinstance(row.get(name), str) and _is_utf8(row[name])}
    used = {text_field, *taken, *(("messages", "instruction", "input", "output") if messages else ())}
    rest = {name: value for name, value in row.items() if name not in used}
    meta = json.dumps(rest, sort_keys=True, ensure_ascii=True, default=str) if rest else None
    return {"text": text, **taken, "messages": messages, "meta": meta}


def read_rows(source: RowSource | HtmlSource) -> Iterator[Row]:
    """All records of a source, in the order of its files: documents, pages, or dropped rows with a reason.

    A row without an id field has `raw`: True; its id is that of its bytes, and repeats get ids of their own.
    Raises UserError for a path that is missing, a pattern that matches nothing, and a broken Parquet file.
    """
    for path, name in files_of(Path(source.path), source.kind):
        if isinstance(source, HtmlSource):
            yield _html_page(source, path, name)
        elif source.kind == "jsonl":
            yield from _jsonl_rows(source, path, name)
        elif source.kind == "parquet":
            yield from _parquet_rows(source, path, name)
        else:
            yield _text_file(path, name)


def files_of(path: Path, kind: str) -> list[tuple[Path, str]]:
    """The files under a path, or that a pattern matches, sorted, each with the name that details give it.

    Raises UserError where there is none.
    """
    if path.is_file():
        return [(path, _readable(path.name))]
    suffixes = SUFFIXES[kind]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in suffixes]
        root = path
    elif "*" in str(path):
        parts = path.parts
        first = next(i for i, part in enumerate(parts) if "*" in part)
        root = Path(*parts[:first])
        found = [p for p in root.glob(str(Path(*parts[first:]))) if p.is_file()] if root.is_dir() else []
    else:
        raise UserError(f"sources: {path} does not exist: name a file, a folder, or a pattern with *")
    if not found:
        raise UserError(f"sources: {path} matches no {' or '.join(suffixes)} file: there is nothing to read")
    return sorted((p, _readable(p.relative_to(root).as_posix())) for p in found)


def _readable(name: str) -> str:
    """A file name as it is, or with its bytes quoted where they are not UTF-8."""
    return name if _is_utf8(name) else quote(os.fsencode(name))


def _html_page(source: HtmlSource, path: Path, name: str) -> Row:
    base = source.public_base or f"file://{source.name}/"
    url = (normalise_url(name, base) if source.public_base else None) or base.rstrip("/") + "/" + name
    row: Row = {"id": document_id(url), "url": url}
    if path.stat().st_size > source.max_bytes:
        return row | {"reason": "scrape.too_large", "detail": f"{name}: over {source.max_bytes} bytes", "text": None}
    return row | {"content_type": "text/html", "body": path.read_bytes()}


def _jsonl_rows(source: RowSource, path: Path, name: str) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_OVERLONG_LINE), b""), 1):
            raw = line.strip()
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw:
                continue
            yield _with_id(source, _jsonl_row(source, raw), raw, f"{name}:{number}")


def _jsonl_row(source: RowSource, raw: bytes) -> Row:
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _refused("scrape.error.encoding", f"byte {error.start} is not UTF-8")
    except (ValueError, RecursionError) as error:
        return _refused("scrape.error.json", str(error)[:200])
    if not isinstance(row, dict):
        return _refused("scrape.error.json", f"{type(row).__name__}, not an object")
    return document_of(row, source.text_field) | {"key": row.get(source.id_field) if source.id_field else None}


def _parquet_rows(source: RowSource, path: Path, name: str) -> Iterator[Row]:
    file = open_part(path)
    names = file.schema_arrow.names
    needed = [field for field in (source.id_field,) if field and field not in names]
    if needed:
        raise UserError(f"{path} has no column `{needed[0]}`, which id_field names; it has {', '.join(names)}")
    number = 0
    try:
        for batch in file.iter_batches(1_000):
            for row in batch.to_pylist():
                number += 1
                raw = json.dumps(row, sort_keys=True, default=_bytes_as_text).encode("utf-8", "surrogatepass")
                columns = document_of(row, source.text_field)
                key = row.get(source.id_field) if source.id_field else None
                yield _with_id(source, columns | {"key": key}, raw, f"{name}:{number}")
    except OSError as error:
        raise UserError(f"{path} is damaged after row {number} ({error}): delete it and copy it again") from None


def _bytes_as_text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _text_file(path: Path, name: str) -> Row:
    raw = path.read_bytes()
    try:
        columns: Row = {"text": raw.decode("utf-8-sig"), "title": Path(name).stem}
    except UnicodeDecodeError as error:
        columns = _refused("scrape.error.encoding", f"byte {error.start} is not UTF-8")
        columns |= {
            "detail": f"{name}: {columns['detail']}",
            "text": raw[:DROPPED_TEXT_CHARS].decode("utf-8", "replace"),
        }
    return columns | {"id": document_id(raw), "raw": True}


def _with_id(source: RowSource, row: Row, raw: bytes, where: str) -> Row:
    key = row.pop("key", None)
    named = isinstance(key, str | int) and not isinstance(key, bool)
    if source.id_field and not named and "reason" not in row:
        row = _refused("scrape.error.text", f"id_field {source.id_field} is missing, or no string or integer")
    row["id"] = document_id(f"{source.name}\0{key}") if named and source.id_field else document_id(raw)
    if not (named and source.id_field):
        row["raw"] = True
    if "reason" in row:
        row["detail"] = f"{where}: {row['detail']}"
        row["text"] = raw[: 4 * DROPPED_TEXT_CHARS].decode("utf-8", "replace")[:DROPPED_TEXT_CHARS]
    return row


def _refused(reason: str, detail: str) -> Row:
    return {"reason": reason, "detail": detail}


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
