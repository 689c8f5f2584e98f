"""clean: pages and documents to documents with normalised text, a language, and no personal data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pydantic import BaseModel

from corpus.clean.decode import MAX_BYTES, decode, hostile, scrub_surrogates
from corpus.clean.extract import extract
from corpus.clean.language import detect_language, load_profiles, nearest_language
from corpus.clean.normalise import normalise
from corpus.clean.personal import mask_personal_data
from corpus.documents import DOCUMENT, DROPPED, DROPPED_TEXT_CHARS, part_writer, render_messages, write_table
from corpus.errors import UserError
from corpus.params import Clean
from corpus.scrape.rows import SUFFIXES
from corpus.sources import Rules
from corpus.stage import Metrics, Part, Run, add_metrics, batches, count_rows, link, map_parts, side_by_side

READS = ("scrape",)
VERSION = 3
_PART_NAME = re.compile(r"^part-(?P<source>[A-Za-z0-9_]+)-(?P<batch>\d+)-\d+\.parquet$")
_LIBRARIES = ("trafilatura", "beautifulsoup4", "lxml", "langdetect", "charset-normalizer")
_DEFAULTS = {
    "source": "input",
    "batch": 0,
    **dict.fromkeys(("url", "title", "date", "licence", "lang", "label", "messages", "preference", "meta")),
    **dict.fromkeys(("parent_id", "method", "content_type", "lang_score")),
}


class _TooSlow(BaseException):
    """The time of a page is up. No Exception, so that no library takes it for one of its own troubles."""


class _Refused(Exception):
    """A document is dropped: reason, detail and what text there was."""

    def __init__(self, reason: str, detail: str | None = None, text: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.text = reason, detail, text


def run(run: Run) -> Metrics:
    """Clean all parts; files other than Parquet are read as scrape reads them.

    Metrics: rows and dropped_by_reason, `languages` (documents kept), `personal_data` (matches by type, in documents
    kept), `extractors` (pages by what gave their text), `characters` (kept).
    """
    total: list[Metrics] = [{"languages": {}, "personal_data": {}, "extractors": {}, "characters": 0}]
    with _as_parts(run) as (ready, unreadable):
        total.append(unreadable)
        versions = [f"{name} {version(name)}" for name in _LIBRARIES]
        rules = _rules_by_source(ready)
        for source, group in groupby(side_by_side(ready), key=lambda part: _source_of(part.name)):
            own, licence, lang = rules.get(source, (None, None, None))
            task = functools.partial(_clean_part, ready.params.clean, own, licence, lang)
            given = own.model_dump_json() if own else ""
            settings: list[BaseModel | str] = [ready.params.clean, given, licence or "", lang or "", *versions]
            total += map_parts(ready, list(group), task, VERSION, *settings)
    return functools.reduce(add_metrics, total)


def _rules_by_source(run: Run) -> dict[tuple[str, int], tuple[Rules | None, str | None, str | None]]:
    return {(s.name, s.batch): (s.rules, s.licence, s.lang) for s in run.params.sources}


def _source_of(part: str) -> tuple[str, int]:
    """Source and batch in a part's name; ("", 0) for a file of another's.

    >>> _source_of("part-pydoc-1-00003.parquet"), _source_of("mine.parquet")
    (('pydoc', 1), ('', 0))
    """
    found = _PART_NAME.match(part)
    return (found["source"], int(found["batch"])) if found else ("", 0)


@contextlib.contextmanager
def _as_parts(run: Run) -> Iterator[tuple[Run, Metrics]]:
    """The run with Parquet as its input, and the counts of rows that could not be read.

    JSONL, HTML and plain text are made parts in a temporary folder, as scrape does; rows it drops stay dropped.
    """
    nothing = count_rows(rows_in=0, dropped={})
    if any(path.suffix == ".parquet" or any(path.glob("*.parquet")) for path in run.inputs):
        _refuse_other_files(run.inputs)
        yield run, nothing
        return
    missing = [path for path in run.inputs if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} does not exist: run the stage that writes it, or name another with --input")
    from corpus.scrape.stage import gather, sources_of_paths

    with tempfile.TemporaryDirectory(dir=run.output, prefix=".") as temporary:
        folder = Path(temporary)
        gathered = gather(sources_of_paths(run.inputs), run.params.scrape, run.home, folder, run.limit)
        reasons = gathered["dropped_by_reason"]
        if not gathered["rows"]["kept"]:
            said = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            raise UserError(f"{run.inputs[0]}: no row can be read ({said or 'it is empty'}): check the file's format")
        for path in sorted(folder.glob("dropped-*.parquet")):
            link(path, run.output / path.name)
        unreadable = count_rows(rows_in=gathered["rows"]["dropped"], dropped=reasons)
        yield dataclasses.replace(run, inputs=(folder,), limit=None), unreadable


def _refuse_other_files(inputs: Sequence[Path]) -> None:
    """Raise UserError where documents lie beside the Parquet, or in folders below it, that would not be read."""
    suffixes = [suffix for kind in SUFFIXES.values() for suffix in kind]
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            read = file.suffix == ".parquet" and file.parent in (path, path.parent)
            if file.suffix.lower() in suffixes and not read and file.is_file():
                raise UserError(f"{file} lies beside Parquet and would not be read: name one kind of file with --input")


def _as_documents(part: Part, batch: pl.DataFrame) -> pl.DataFrame:
    """The batch with the types of DOCUMENT: numbers and times become strings, nested `meta` JSON.

    Raises UserError naming the column that cannot be converted.
    """
    for field in DOCUMENT:
        if field.name not in batch.columns or field.name == "text":
            continue
        column = batch[field.name]
        is_text = field.type in (pa.string(), pa.large_string())
        try:
            if field.name == "meta" and column.dtype.is_nested():
                values = [
                    None if value is None else json.dumps(value, sort_keys=True, default=str)
                    for value in column.to_list()
                ]
                column = pl.Series(field.name, values, pl.String)
            elif field.name == "date" and isinstance(column.dtype, pl.Datetime):
                column = column.dt.date()
            if is_text:
                if column.dtype.is_nested():
                    raise TypeError(f"it holds {column.dtype}")
                column = column.cast(pl.String)
            else:
                pa.array(column.to_list(), field.type)
        except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError) as error:
            wanted, said = "text" if is_text else field.type, str(error).partition("\n")[0][:200]
            raise UserError(f"{part}: the column `{field.name}` should hold {wanted}: {said}") from None
        batch = batch.with_columns(column)
    return batch


def _clean_part(
    params: Clean, rules: Rules | None, licence: str | None, lang: str | None, part: Part, folder: Path
) -> Metrics:
    """Clean the rows of one part in order; write the documents and, beside them, the dropped rows."""
    load_profiles()
    dropped: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {"languages": Counter(), "personal_data": Counter(), "extractors": Counter()}
    rows_in = characters = 0
    seen: set[str] = set()
    with part_writer(DOCUMENT, folder / part.name) as writer:
        for batch in batches(part, None, _DEFAULTS):
            if not {"text", "body"} & set(batch.columns):
                raise UserError(f"{part} has neither a column `text` nor `body`: clean needs one of them")
            documents = []
            for row in _as_documents(part, batch).iter_rows(named=True):
                rows_in += 1
                if row["id"] is None or row["id"] in seen:
                    raise UserError(
                        f"{part}: row {rows_in}: the id {row['id']!r} is missing or came before: give each row its own"
                    )
                seen.add(row["id"])
                try:
                    document, extractor, found = _in_time(row, params, rules, licence, lang)
                except _Refused as refused:
                    dropped.append(_dropped_row(row, refused))
                    continue
                documents.append(document)
                characters += len(document["text"])
                counts["languages"][document["lang"]] += 1
                counts["personal_data"].update(found)
                counts["extractors"].update([extractor] if extractor else [])
            writer.write_table(pa.Table.from_pylist(documents, schema=DOCUMENT))
    write_table(pa.Table.from_pylist(dropped, schema=DROPPED), folder / f"dropped-{part.name.removeprefix('part-')}")
    reasons = Counter(row["reason"] for row in dropped)
    own = {name: dict(sorted(counter.items())) for name, counter in counts.items()}
    return count_rows(rows_in=rows_in, dropped=reasons) | own | {"characters": characters}


def _in_time(
    row: Mapping[str, Any], params: Clean, rules: Rules | None, licence: str | None, lang: str | None
) -> tuple[dict[str, Any], str | None, Counter[str]]:
    """`clean_row` under the time limit, and with every failure as a refusal."""
    try:
        with _time_limit(params.timeout_s):
            return clean_row(row, params, rules, licence, lang)
    except _Refused:
        raise
    except _TooSlow:
        raise _Refused("clean.error.timeout", f"over {params.timeout_s:g} s", _readable(row)) from None
    except (ImportError, MemoryError):
        raise  # not the page's fault
    except Exception as error:
        raise _Refused("clean.error.parse", f"{type(error).__name__}: {error}"[:500], _readable(row)) from None


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooSlow after so many seconds. Only in a main thread of a Unix system, and not inside one call of C code:
    the guards keep away what is known to hold the parser for long."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again, since a destructor swallows what it raises
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def clean_row(
    row: Mapping[str, Any], params: Clean, rules: Rules | None, licence: str | None = None, lang: str | None = None
) -> tuple[dict[str, Any], str | None, Counter[str]]:
    """A page or document as a clean document, what extracted its text, and the personal data masked by type.

    Raises _Refused with a reason where it is dropped. A language that the row or its source states is not guessed.
    """
    document = {name: row.get(name) for name in DOCUMENT.names}
    extractor = None
    if row.get("body") is not None:
        text, document["title"], document["date"], extractor = _page_text(row, params, rules)
    else:
        if not isinstance(row.get("text"), str):
            raise _Refused("clean.empty", "text is null")
        text = row["text"]
    raw = text
    text = normalise(scrub_surrogates(text))
    if not text.strip():
        raise _Refused("clean.empty.extractor" if extractor else "clean.empty", None, _readable(row))
    found: dict[str, int] = {}
    if params.pii != "off":
        masked, found = mask_personal_data(text)
        if found and params.pii == "drop":
            raise _Refused("clean.pii", ", ".join(sorted(found)))
        text = masked
    stated = row.get("lang") or lang
    language, score = (nearest_language(stated, text, params.languages), 1.0) if stated else detect_language(text)
    if language not in params.languages:
        raise _Refused("clean.language", f"{language} {score:.2f}", text)
    messages = _clean_messages(row.get("messages"), params.pii == "mask")
    if messages and raw == render_messages(row["messages"]):
        text = render_messages(messages)
    title = document["title"]
    document |= {
        "text": text,
        "messages": messages,
        "title": _masked(normalise(scrub_surrogates(title)), params) if title else None,
        "licence": document["licence"] or licence,
        "lang": language,
        "lang_score": score,
    }
    return document, extractor, Counter(found)


def _page_text(row: Mapping[str, Any], params: Clean, rules: Rules | None) -> tuple[str, str | None, str | None, str]:
    """Text, title, date and extractor of a page. Raises _Refused for what no parser should see."""
    body = row["body"]
    body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    if len(body) > MAX_BYTES:
        raise _Refused("clean.too_large", f"{len(body)} bytes", _readable(row))
    content_type = row.get("content_type") or ""
    html = decode(body, content_type)
    if html is None:
        raise _Refused("clean.error.decode", content_type or None, _readable(row))
    html = scrub_surrogates(html).replace("\x00", "")
    if content_type.split(";")[0].strip().lower() == "text/plain":
        return html, None, None, "plain"
    danger = hostile(html, params.max_depth)
    if danger == "too_deep":
        raise _Refused("clean.too_deep", f"over {params.max_depth} tags", _readable(row))
    if danger:
        raise _Refused("clean.error.parse", "a tag of over 64 KB", _readable(row))
    page = extract(html, rules, params.extractor)
    return page.text, page.title, page.date, page.method


def _masked(text: str, params: Clean) -> str:
    return mask_personal_data(text)[0] if params.pii == "mask" else text


def _clean_messages(messages: Sequence[Mapping[str, str]] | None, mask: bool) -> list[dict[str, str]] | None:
    if not messages:
        return None
    texts = [normalise(scrub_surrogates(message["content"])) for message in messages]
    return [
        {"role": message["role"], "content": mask_personal_data(text)[0] if mask else text}
        for message, text in zip(messages, texts, strict=True)
    ]


def _readable(row: Mapping[str, Any]) -> str | None:
    """What a dropped row shows of its content."""
    if isinstance(row.get("text"), str):
        return scrub_surrogates(row["text"][:DROPPED_TEXT_CHARS])
    body = row.get("body")
    return body[:DROPPED_TEXT_CHARS].decode("utf-8", "replace") if isinstance(body, bytes) else None


def _dropped_row(row: Mapping[str, Any], refused: _Refused) -> dict[str, Any]:
    text = refused.text[:DROPPED_TEXT_CHARS] if refused.text else None
    names = ("id", "source", "batch", "url")
    return {name: row[name] for name in names} | {"reason": refused.reason, "detail": refused.detail, "text": text}
