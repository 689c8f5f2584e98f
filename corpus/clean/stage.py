"""clean: pages and documents to documents with normalised text, a language, and no personal data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import html
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from corpus.clean.decode import decode, scrub_surrogates
from corpus.clean.document import Settings, check
from corpus.clean.main_text import WEIGHTS
from corpus.clean.personal import mask_personal_data
from corpus.clean.worker import clean_rows
from corpus.documents import DOCUMENT, DROPPED, DROPPED_TEXT_CHARS, part_writer, to_arrow, write_table
from corpus.errors import UserError
from corpus.files import file_digest, link
from corpus.scrape.files import refuse_beside_parquet
from corpus.stage import Metrics, Part, Run, add_metrics, batches, count_rows, map_parts, side_by_side

READS = ("scrape",)
VERSION = 4
CHANGES = ("composed", "full_width", "invisible", "mojibake", "converted", "replacement")
MASKED = ("email", "phone", "id", "card", "ip")
CLEANED = pa.schema(  # a document, and what cleaning did to have it
    [
        *DOCUMENT,
        pa.field("encoding", pa.string()),  # that the page's bytes are in
        pa.field("decoded", pa.string()),  # what said so: bom, utf-8, declared, guessed
        pa.field("extractor", pa.string()),  # what found the main text; null where the source gave text
        pa.field("second_lang", pa.string()),  # the runner-up, and its score; null where the language was stated
        pa.field("second_score", pa.float32()),
        pa.field("changes", pa.struct([pa.field(name, pa.int32()) for name in CHANGES])),  # characters; see normalise
        pa.field("masked", pa.struct([pa.field(name, pa.int32()) for name in MASKED])),  # matches
        pa.field("flagged", pa.int32()),  # words of clean.flagged_words; null without a list for the language
    ]
)
_PART_NAME = re.compile(r"^part-(?P<source>[A-Za-z0-9_]+)-(?P<batch>\d+)-\d+\.parquet$")
_LIBRARIES = (
    *("beautifulsoup4", "charset-normalizer", "ftfy", "langdetect", "lxml", "lxml_html_clean", "opencc", "py3langid"),
    *("python-stdnum", "readability-lxml", "resiliparse", "soupsieve", "trafilatura"),
)
_DEFAULTS = {
    "source": "input",
    "batch": 0,
    **dict.fromkeys(("url", "title", "date", "licence", "lang", "label", "messages", "preference", "meta")),
    **dict.fromkeys(("parent_id", "method", "content_type", "lang_score")),
}
_COUNTERS = ("languages", "encodings", "extractors", "changes", "personal_data")


def run(run: Run) -> Metrics:
    """Clean all parts; files other than Parquet are read as scrape reads them.

    Metrics: rows and dropped_by_reason, and of the documents kept: `languages`, `encodings` and `extractors` (of
    pages), `changes` (characters by kind), `personal_data` (matches by type), `flagged` (words), `characters`.
    """
    total: list[Metrics] = [{name: {} for name in _COUNTERS} | {"flagged": 0, "characters": 0}]
    check(run.params.clean)
    with _as_parts(run) as (ready, unreadable):
        total.append(unreadable)
        lists = [file_digest(path) for path in ready.params.clean.flagged_words.values()]
        versions = [*(f"{name} {version(name)}" for name in _LIBRARIES), file_digest(WEIGHTS)]
        of_sources = {
            (source.name, source.batch): Settings(ready.params.clean, source.rules, source.licence, source.lang)
            for source in run.params.sources
        }
        for source, group in groupby(side_by_side(ready), key=lambda part: _source_of(part.name)):
            settings = of_sources.get(source, Settings(ready.params.clean))
            task = functools.partial(_clean_part, settings)
            total += map_parts(ready, list(group), task, VERSION, settings.to_json(), *lists, *versions)
    return functools.reduce(add_metrics, total)


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
        refuse_beside_parquet(run.inputs)
        yield run, nothing
        return
    missing = [path for path in run.inputs if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} does not exist: run the stage that writes it, or name another with --input")
    from corpus.scrape.stage import gather, sources_of_paths

    with tempfile.TemporaryDirectory(dir=run.output, prefix=".") as temporary:
        folder = Path(temporary)
        sources = sources_of_paths(run.inputs)
        gathered = gather(
            sources, run.params.scrape, run.home, folder, run.limit, run.params.forget, run.crew, run.used
        )
        reasons = gathered["dropped_by_reason"]
        if not gathered["rows"]["kept"]:
            said = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            raise UserError(f"{run.inputs[0]}: no row can be read ({said or 'it is empty'}): check the file's format")
        for path in sorted(folder.glob("dropped-*.parquet")):
            link(path, run.output / path.name)
        unreadable = count_rows(rows_in=gathered["rows"]["dropped"], dropped=reasons)
        yield dataclasses.replace(run, inputs=(folder,), limit=None), unreadable


def _as_documents(part: Part, batch: pl.DataFrame) -> pl.DataFrame:
    """The batch with the types of DOCUMENT: numbers and times become strings, nested `meta` JSON.

    Raises UserError naming the column that cannot be converted.
    """
    if batch.schema.get("body") == pl.String:
        batch = batch.with_columns(pl.col("body").cast(pl.Binary))
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


def _clean_part(settings: Settings, part: Part, folder: Path) -> Metrics:
    """Clean the rows of one part in order; write the documents and, beside them, the dropped rows."""
    dropped: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTERS}
    rows_in = characters = flagged = 0
    seen: set[str] = set()
    with part_writer(CLEANED, folder / part.name) as writer:
        for batch in batches(part, None, _DEFAULTS):
            if not {"text", "body"} & set(batch.columns):
                raise UserError(f"{part} has neither a column `text` nor `body`: clean needs one of them")
            rows = to_arrow(_as_documents(part, batch))
            _check_ids(part, rows["id"].to_pylist(), rows_in, seen)
            rows_in += rows.num_rows
            documents = []
            outcomes = clean_rows(rows, settings, settings.clean.timeout_s)
            for row, outcome in zip(_rows(rows), outcomes, strict=True):
                if "reason" in outcome:
                    dropped.append(_dropped_row(row, outcome, settings))
                    continue
                document: dict[str, Any] = {name: row.get(name) for name in DOCUMENT.names} | outcome
                documents.append(document)
                characters += len(document["text"])
                flagged += document["flagged"] or 0
                _count(counts, document)
            writer.write_table(pa.Table.from_pylist(documents, schema=CLEANED))
    write_table(pa.Table.from_pylist(dropped, schema=DROPPED), folder / f"dropped-{part.name.removeprefix('part-')}")
    reasons = Counter(row["reason"] for row in dropped)
    own = {name: dict(sorted(counter.items())) for name, counter in counts.items()}
    return count_rows(rows_in=rows_in, dropped=reasons) | own | {"flagged": flagged, "characters": characters}


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows one by one: their bodies and texts need not all be Python's at once."""
    for batch in table.to_batches(max_chunksize=16):
        yield from batch.to_pylist()


def _check_ids(part: Part, ids: Sequence[str | None], before: int, seen: set[str]) -> None:
    for number, document in enumerate(ids, before + 1):
        if document is None or document in seen:
            raise UserError(
                f"{part}: row {number}: the id {document!r} is missing or came before: give each row its own"
            )
        seen.add(document)


def _count(counts: Mapping[str, Counter[str]], document: Mapping[str, Any]) -> None:
    """Count what was done to a document that is kept."""
    counts["languages"][document["lang"]] += 1
    if document["extractor"]:
        counts["extractors"][document["extractor"]] += 1
        counts["encodings"][f"{document['encoding']} {document['decoded']}"] += 1
    counts["changes"].update({name: count for name, count in document["changes"].items() if count})
    counts["personal_data"].update(document["masked"])


def _dropped_row(row: Mapping[str, Any], outcome: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A row of DROPPED. Its text, what was read or else the beginning of the page, has personal data masked as well."""
    text = None if outcome["reason"] == "clean.pii" else outcome.get("text") or _readable(row)
    shown = [_shown(given, settings) if given else None for given in (outcome.get("detail"), text)]
    names = ("id", "source", "batch", "url")
    return {name: row[name] for name in names} | {"reason": outcome["reason"], "detail": shown[0], "text": shown[1]}


def _shown(text: str, settings: Settings) -> str:
    """The beginning of a text, masked: entities as what they stand for, and no word cut before it could be masked."""
    start = scrub_surrogates(text[: 2 * DROPPED_TEXT_CHARS])
    if settings.clean.pii == "off":
        return start[:DROPPED_TEXT_CHARS]
    if len(text) > len(start):
        start = start.rpartition(" ")[0] or start[:DROPPED_TEXT_CHARS]
    return mask_personal_data(html.unescape(start))[0][:DROPPED_TEXT_CHARS]


def _readable(row: Mapping[str, Any]) -> str | None:
    """The beginning of a row's content, if it can be read."""
    if isinstance(row.get("text"), str):
        return str(row["text"])
    decoded = decode(row["body"][: 4 * DROPPED_TEXT_CHARS], row.get("content_type")) if row.get("body") else None
    return decoded.text if decoded else None
