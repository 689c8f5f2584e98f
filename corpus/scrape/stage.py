"""scrape: sources to parts of pages (sites, folders of HTML) and of documents (JSONL, Parquet, plain text)."""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from corpus.documents import DOCUMENT, DROPPED, DROPPED_TEXT_CHARS, PAGE, document_id, part_name, write_table
from corpus.errors import UserError
from corpus.params import Scrape
from corpus.scrape.buckets import SeenIds, Spill, part_count, repeat_id
from corpus.scrape.crawl import crawl
from corpus.scrape.rows import SUFFIXES, read_rows
from corpus.sources import AnySource, HtmlSource, RowSource, SiteSource
from corpus.stage import Metrics, Run, add_metrics, count_rows

READS = ()
VERSION = 1


def run(run: Run) -> Metrics:
    """Fetch all sources of params, or read the files and folders given as input, and write their parts.

    Metrics: rows and dropped_by_reason, and `sources`: per source and batch the rows and the bytes kept.
    """
    sources = sources_of_paths(run.inputs) if run.inputs else list(run.params.sources)
    if not sources:
        raise UserError("sources: there is none: name a site, a folder or a file in params.yaml, or use --input")
    metrics = gather(sources, run.params.scrape, run.home, run.output, run.limit)
    if metrics["rows"]["in"] == 0:
        raise UserError(f"sources: no document in {', '.join(s.name for s in sources)}: name files or pages with text")
    return metrics


def gather(sources: Sequence[AnySource], scrape: Scrape, home: Path, output: Path, limit: int | None = None) -> Metrics:
    """Write the parts of all sources into a folder; an id that an earlier source or row brought is dropped."""
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as temporary:
        work = Path(temporary)
        seen = SeenIds(work / "seen")
        each = [
            _write_source(source, _records(source, scrape, home, limit), scrape, work, output, seen)
            for source in sources
        ]
        return functools.reduce(add_metrics, each)


def _records(source: AnySource, scrape: Scrape, home: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    if isinstance(source, SiteSource):
        return islice(crawl(source, scrape, home), limit)
    if not isinstance(source, RowSource | HtmlSource):
        raise UserError(f"sources: {source.name}: {source.kind} cannot be read yet")
    return islice(tqdm(read_rows(source), desc=source.name, unit="row", disable=None), limit)


def _write_source(
    source: AnySource, records: Iterable[dict[str, Any]], scrape: Scrape, work: Path, output: Path, seen: SeenIds
) -> Metrics:
    """Spill a source's records by id, then write part by part: rows sorted by id, each id once."""
    name = f"{source.name}-{source.batch}"
    refused = output / f"dropped-{name}.parquet"
    if refused.exists():
        raise UserError(f"sources: {source.name} comes twice with batch {source.batch}: rename one or raise its batch")
    folder = work / name
    spill = Spill(folder)
    dropped: list[dict[str, Any]] = []
    size = rows_in = 0
    for row in records:
        rows_in += 1
        if "reason" in row:
            dropped.append(row)
        else:
            size += len(row["body"]) if "body" in row else len(row["text"].encode())
            spill.add(row)
    spill.close()
    parts = part_count(size, scrape.part_mb * 1e6)
    own_ids = [
        _write_part(source, number, _in_order(spill.rows(number, parts), seen.of(number, parts), dropped), output)
        for number in range(parts)
    ]
    for ids in own_ids:
        seen.add(ids)
    shutil.rmtree(folder)
    counts = count_rows(rows_in=rows_in, dropped=_write_dropped(source, dropped, refused))
    return counts | {"sources": {name: counts["rows"] | {"bytes": size, "parts": parts}}}


def _in_order(rows: Iterable[dict[str, Any]], seen: set[str], dropped: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A part's rows by id. Repeats of a raw row get ids of their own; an id seen before goes to `dropped`."""
    repeats: Counter[str] = Counter()
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.pop("raw", False):
            number = repeats[row["id"]]
            repeats[row["id"]] += 1
            if number:
                row["id"] = repeat_id(row["id"], number)
        if row["id"] in seen or row["id"] in kept:
            where = "earlier source" if row["id"] in seen else "earlier row"
            dropped.append(row | {"reason": "scrape.duplicate_id", "detail": f"an {where} has it"})
        else:
            kept[row["id"]] = row
    return [kept[key] for key in sorted(kept)]


def _write_part(source: AnySource, number: int, rows: list[dict[str, Any]], output: Path) -> list[str]:
    """Write the rows of a part, pages and documents each with their schema; a part without rows is no file."""
    name = part_name(source.name, source.batch, number)
    common = {"source": source.name, "batch": source.batch}
    pages = [row | common for row in rows if "body" in row]
    documents = [row | common | _given(source, row) for row in rows if "body" not in row]
    if pages and documents:
        raise UserError(f"sources: {source.name} mixes rows of HTML and of text: make two sources of it")
    if rows:
        schema = PAGE if pages else DOCUMENT
        write_table(pa.Table.from_pylist(pages or documents, schema=schema), output / name)
    return [row["id"] for row in rows]


def _given(source: AnySource, row: dict[str, Any]) -> dict[str, Any]:
    """What the source says of all its rows, where a row does not say it itself."""
    return {"licence": row.get("licence") or source.licence, "lang": row.get("lang") or source.lang}


def _write_dropped(source: AnySource, dropped: list[dict[str, Any]], path: Path) -> dict[str, int]:
    for row in dropped:
        text = (
            row.get("text") if "text" in row else row.get("body", b"")[:DROPPED_TEXT_CHARS].decode("utf-8", "replace")
        )
        row |= {"source": source.name, "batch": source.batch, "text": text[:DROPPED_TEXT_CHARS] if text else None}
    dropped.sort(key=lambda row: (row["id"], row["reason"], row["detail"] or ""))
    write_table(pa.Table.from_pylist(dropped, schema=DROPPED), path)
    return dict(sorted(Counter(row["reason"] for row in dropped).items()))


def sources_of_paths(paths: Sequence[Path]) -> list[AnySource]:
    """Sources for files and folders named on the command line: one for each kind of file that they hold.

    Raises UserError for what is missing or of no known kind.
    """
    sources: list[AnySource] = []
    for path in paths:
        kinds = [kind for kind, suffixes in SUFFIXES.items() if _holds(path, suffixes)]
        if not kinds:
            known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
            raise UserError(f"{path} is missing or holds none of {known}: name a file or folder with --input")
        stem = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_") or document_id(path.stem)[:8]
        for kind in kinds:
            name = wanted = f"{stem}_{kind}" if len(kinds) > 1 else stem
            number = len(sources)
            while name in (source.name for source in sources):
                name, number = f"{wanted}_{number}", number + 1
            model = HtmlSource if kind == "html" else RowSource
            sources.append(model.model_validate({"name": name, "kind": kind, "path": str(path)}))
    return sources


def _holds(path: Path, suffixes: Sequence[str]) -> bool:
    if path.is_dir():
        return any(p.suffix.lower() in suffixes and p.is_file() for p in path.rglob("*"))
    return path.is_file() and path.suffix.lower() in suffixes
