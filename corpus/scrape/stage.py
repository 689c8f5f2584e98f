"""scrape: sources to parts of pages (sites, archives, HTML) and of documents (JSONL, Parquet, CSV, text, datasets)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.documents import (
    DOCUMENT,
    DROPPED,
    DROPPED_TEXT_CHARS,
    PAGE,
    ROW_GROUP_ROWS,
    document_id,
    part_name,
    part_writer,
    write_table,
)
from corpus.errors import StageError, UserError
from corpus.executor import Workers, run_tasks
from corpus.files import digest_of, link, own_partial, write_json
from corpus.params import Forget, Params, Scrape
from corpus.progress import progress
from corpus.scrape.buckets import (
    DroppedRows,
    SeenIds,
    Spill,
    Unreadable,
    kind_of,
    part_count,
    read_counts,
    remove_segments,
    repeat_id,
    rows_of_part,
    scrape_lock,
    spilled,
)
from corpus.scrape.fields import NamedFields
from corpus.scrape.files import SUFFIXES, FileEntry, Storage, files_in, has_suffix, is_of_kind
from corpus.scrape.forget import forgetter, forgotten, url_forgetter
from corpus.scrape.label_studio import ANNOTATED
from corpus.scrape.merge import BatchPart, merge_parts, refuse_unknown
from corpus.scrape.rows import FileRows, files_of, read_dataset_row, read_files
from corpus.sources import AnySource, FileSource, HfSource, HtmlSource, RowSource, SiteSource, UrlsSource, WarcSource
from corpus.stage import Metrics, Run, add_metrics, count_rows
from corpus.storage_options import options_for, refuse_memory
from corpus.store import become_entry, is_whole, new_partial, seal

READS = ()
VERSION = 4
SEGMENT_BYTES = 64_000_000  # of files as they are stored: what is read again after a kill
SEGMENT_ROWS = 20_000  # of a dataset
_APPLIED_LATER = {"batch", "licence", "lang", "rules"}  # of a source: they change nothing of what is read

Row = dict[str, Any]


def run(run: Run) -> Metrics:
    """Fetch all sources of params, or read the files and folders given as input, and write their parts.

    Metrics: rows and dropped_by_reason, and `sources`: per source and batch the rows, the bytes kept, and of archives
    the records by type.
    """
    if not run.inputs:
        refuse_unknown(run.params.scrape.merge, (source.name for source in run.params.sources))
    sources = sources_of_paths(run.inputs) if run.inputs else with_storage(run.params)
    if not sources:
        raise UserError("sources: there is none: name a site, a folder or a file in params.yaml, or use --input")
    scrape, forget = run.params.scrape, run.params.forget
    metrics = gather(sources, scrape, run.home, run.output, run.limit, forget, run.crew, run.used, run.work)
    if metrics["rows"]["in"] == 0:
        raise UserError(f"sources: no document in {', '.join(s.name for s in sources)}: name files or pages with text")
    return metrics


def with_storage(params: Params) -> list[AnySource]:
    """The sources, those that read files with the options of their storage: of `storage` and, above them, their own.

    Raises UserError for an address that no other process could read.
    """

    def options(source: FileSource) -> Storage:
        addresses = [source.path, source.base] if isinstance(source, WarcSource) else [source.path]
        for address in addresses:
            refuse_memory(f"sources: {source.name}: {address}", address)
        named = [options_for(address, params.storage) for address in addresses]
        return {name: value for one in [*named, source.storage] for name, value in one.items()}

    return [
        source.model_copy(update={"storage": options(source)}) if isinstance(source, FileSource) else source
        for source in params.sources
    ]


def gather(
    sources: Sequence[AnySource],
    scrape: Scrape,
    home: Path,
    output: Path,
    limit: int | None = None,
    forget: Forget | None = None,
    crew: Workers = 1,
    used: set[Path] | None = None,
    done: Counter[str] | None = None,
) -> Metrics:
    """Write the parts of all sources into a folder; an id that an earlier source or row brought is dropped.

    The parts of unchanged files come from the store, if the sources before them brought the same ids as then. What is
    read of other files and of datasets lies in `home`/scrape, segment by segment, until all parts are written: killed
    and run again, it goes on after the last whole segment. The order of segments, not who made them, decides the bytes.
    One run at a time uses that folder. `used` gets what is taken of the store, `done` the sources and documents worked
    on or stored. Raises UserError where another run does not let go of it.
    """
    forget = forget or Forget()
    must_go = forgetter(forget)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=output, prefix=".")))
        resumable = limit is None and any(isinstance(source, HfSource | FileRows) for source in sources)
        stored = stack.enter_context(scrape_lock(home)) if resumable else None
        seen = SeenIds(work / "seen")
        total: list[Metrics] = []
        to_merge: dict[str, list[BatchPart]] = defaultdict(list)  # by the source's name
        before = _digest(pa.__version__, scrape.part_mb, forget.model_dump_json())  # and of the ids so far
        for source in sources:
            refused = output / f"dropped-{_name(source)}.parquet"
            if refused.exists():
                raise UserError(
                    f"sources: {source.name} comes twice with batch {source.batch}: rename one or raise its batch"
                )
            # Listed once: what is read under these stamps is kept under them.
            listed = _files(source)
            entry = _entry(source, listed, home, before) if limit is None else None
            folder = entry or work / f"{_name(source)}-written"
            known = is_whole(folder, home)
            if not known:
                partial = new_partial(folder)
                try:
                    segments = _segments(source, listed, scrape, forget, home, work / _name(source), limit, crew)
                    metrics = _write_source(source, segments, scrape, work, partial, seen, must_go)
                    write_json(partial / "metrics.json", metrics)
                    seal(partial)
                    become_entry(partial, folder)
                except Unreadable:
                    if stored:  # the next run shall not find the same
                        remove_segments(stored)
                    raise
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(work / _name(source), ignore_errors=True)
            if entry and used is not None:
                used.add(entry)
            for ids in _ids_of(folder):
                seen.add(ids)
                before = _digest(before, *ids)
            link(folder / refused.name, refused)
            if merged := source.batch <= scrape.merge.get(source.name, -1):
                settings = source.model_dump_json(include={"rules", "licence", "lang"})
                to_merge[source.name] += [BatchPart(path, settings) for path in sorted(folder.glob("part-*"))]
            for path in [] if merged else folder.glob("part-*"):
                link(path, output / path.name)
            total.append(json.loads((folder / "metrics.json").read_text("utf-8")))
            if done is not None:
                kind = "stored_" if known else ""
                done.update({f"{kind}sources": 1, f"{kind}documents": total[-1]["rows"]["in"]})
        for parts in to_merge.values():
            merge_parts(parts, scrape.part_mb * 1e6, output)
        if stored:  # all of it: also what killed runs left of files or settings that have changed since
            remove_segments(stored)
        return functools.reduce(add_metrics, total)


def _files(source: AnySource) -> list[FileEntry]:
    """The files of a source; none of what comes from the web or a hub."""
    if isinstance(source, HfSource):
        return files_in(Path(source.dataset)) if Path(source.dataset).is_dir() else []
    return files_of(source) if isinstance(source, FileRows) else []


def _name(source: AnySource) -> str:
    return f"{source.name}-{source.batch}"


def _entry(source: AnySource, entries: Sequence[FileEntry], home: Path, before: str) -> Path | None:
    """Where the store keeps the parts of a source of files. None where it cannot be told whether a file has changed."""
    if not isinstance(source, FileRows) or not all(entry.stamp for entry in entries):
        return None
    settings = source.model_dump_json(exclude={"storage", "rules"})
    return home / "parts" / "scrape" / _digest(_key(source, entries), settings, before)


def _ids_of(folder: Path) -> Iterator[list[str]]:
    """The ids that a source brought, file by file, and those of documents that annotators ruled out: later sources must
    not bring them back."""
    for path in sorted(folder.glob("part-*.parquet")):
        yield pq.read_table(path, columns=["id"])["id"].to_pylist()
    for path in folder.glob("dropped-*.parquet"):
        dropped = pq.read_table(path, columns=["id", "reason"], filters=[("reason", "=", ANNOTATED)])
        yield dropped["id"].to_pylist()


def _digest(*values: object) -> str:
    return digest_of("\n".join(map(str, values)))


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Segment(NamedTuple):
    """Files that are read as one task, and the folder for what they hold."""

    source: FileRows
    entries: list[FileEntry]
    folder: Path
    shows: bool  # whether rows are counted on the terminal


def _segments(
    source: AnySource,
    entries: Sequence[FileEntry],
    scrape: Scrape,
    forget: Forget,
    home: Path,
    work: Path,
    limit: int | None,
    crew: Workers,
) -> list[Path]:
    """The folders of a source's records, in the order in which the source has them."""
    if limit is None and isinstance(source, HfSource):
        return _dataset_segments(source, entries, home / "scrape" / _key(source, entries))
    if limit is None and isinstance(source, FileRows):
        folder = home / "scrape" / _key(source, entries)
        groups = _by_size(entries)
        tasks = [
            _Segment(source, group, folder / f"{number:06d}", crew == 1 or len(groups) == 1)
            for number, group in enumerate(groups)
        ]
        todo = [task for task in tasks if not task.folder.exists()]
        with progress(total=len(tasks), initial=len(tasks) - len(todo), desc=source.name, unit="task") as bar:
            for _ in run_tasks(_read_segment, todo, crew):
                bar.update()
        return [task.folder for task in tasks]
    records: Counter[str] = Counter()
    spill = Spill(work)
    for row in islice(_records(source, entries, scrape, forget, home, records), limit):
        spill.add(row)
    spill.finish(records=records)
    return [work]


def _records(
    source: AnySource,
    entries: Sequence[FileEntry],
    scrape: Scrape,
    forget: Forget,
    home: Path,
    records: Counter[str],
) -> Iterator[Row]:
    if isinstance(source, SiteSource | UrlsSource):
        from corpus.scrape.crawl import crawl, fetch_urls

        forgotten_url = url_forgetter(forget)  # not even asked for
        if isinstance(source, SiteSource):
            return crawl(source, scrape, home, forgotten_url)
        return fetch_urls(source, scrape, home, forgotten_url)
    if isinstance(source, HfSource):
        return _dataset_rows(source, 0)
    rows = read_files(source, entries, records)
    return iter(progress(rows, desc=source.name, unit="row"))


def _key(source: AnySource, entries: Sequence[FileEntry]) -> str:
    """Hash of all that decides what is read."""
    settings = source.model_dump(mode="json", exclude=_APPLIED_LATER | {"storage"})
    stamps = [entry[1:] for entry in entries]
    said = json.dumps([VERSION, settings, stamps])
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _by_size(entries: Sequence[FileEntry]) -> list[list[FileEntry]]:
    """Consecutive files in groups of about SEGMENT_BYTES; a file whose size is not known is one."""
    groups: list[list[FileEntry]] = []
    size = SEGMENT_BYTES
    for entry in entries:
        if size >= SEGMENT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.size or SEGMENT_BYTES
    return groups


def _read_segment(task: _Segment) -> None:
    records: Counter[str] = Counter()
    rows = read_files(task.source, task.entries, records)
    shown = progress(rows, desc=task.source.name, unit="row", leave=False, shown=task.shows)
    partial = own_partial(task.folder)
    spill = Spill(partial)
    for row in shown:
        spill.add(row)
    spill.finish(records=records)
    with contextlib.suppress(OSError):  # another run was faster: its segment has the same bytes
        partial.rename(task.folder)


def _dataset_segments(source: HfSource, entries: Sequence[FileEntry], folder: Path) -> list[Path]:
    """Read what is not there yet. Raises StageError where a file of the dataset is not what it was when listed."""
    done = sorted(folder.glob("[0-9]*"))
    if done and read_counts(done[-1])["rows_in"] < SEGMENT_ROWS:
        return done
    rows = _dataset_rows(source, len(done) * SEGMENT_ROWS)
    while True:
        segment = folder / f"{len(done):06d}"
        spill = Spill(own_partial(segment))
        try:
            for row in islice(rows, SEGMENT_ROWS):
                spill.add(row)
        finally:  # what looks like damage may be such a change
            if changed := set(entries) ^ set(_files(source)):
                raise StageError(f"{min(changed).path} changed while it was read: run again once it is complete")
        spill.finish(records={})
        spill.folder.rename(segment)
        done.append(segment)
        if spill.rows_in < SEGMENT_ROWS:
            return done


def _dataset_rows(source: HfSource, skip: int) -> Iterator[Row]:
    from corpus.scrape.hub import stream

    shown = progress(stream(source, skip), desc=source.name, unit="row", initial=skip)
    fields = NamedFields(source)
    number = skip
    for number, row in enumerate(shown, skip + 1):
        if number <= SEGMENT_ROWS:
            fields.see(row)
        if number == SEGMENT_ROWS:
            fields.refuse_missing(f"dataset {source.dataset}")
        yield read_dataset_row(source, row, f"{source.split}:{number}")
    if number < SEGMENT_ROWS:
        fields.refuse_missing(f"dataset {source.dataset}")


# ---- writing ---------------------------------------------------------------------------------------------------------


def _write_source(
    source: AnySource,
    segments: Sequence[Path],
    scrape: Scrape,
    work: Path,
    output: Path,
    seen: SeenIds,
    must_go: Callable[[Row], bool],
) -> Metrics:
    """Write a source's records part by part: rows sorted by id, each id once."""
    found = [read_counts(segment) for segment in segments]
    first = next((counts["first"] for counts in found if counts["first"]), None)
    counts = functools.reduce(add_metrics, ({key: c[key] for key in ("rows_in", "size", "records")} for c in found))
    parts = part_count(counts["size"], scrape.part_mb * 1e6)
    folder = work / f"dropped-{_name(source)}"
    dropped = DroppedRows(folder)
    ruled_out: set[str] = set()  # by annotators: the source itself must not bring these documents either
    for row in (row for segment in segments for row in spilled(segment / "dropped")):
        dropped.add(_dropped_row(source, forgotten(row) if must_go(row) else row))
        ruled_out |= {row["id"]} if row["reason"] == ANNOTATED else set()
    written = 0
    for number in range(parts):
        known = seen.of(number, parts) | ruled_out
        kept, refused = _in_order(rows_of_part(segments, number, parts), known, must_go, first)
        for row in refused:
            dropped.add(_dropped_row(source, row))
        _write_part(source, number, kept, output)
        written += len(kept)
    if written + dropped.reasons.total() != counts["rows_in"]:
        raise Unreadable(f"sources: {source.name}: of {counts['rows_in']} rows read some are gone: run again")
    _write_dropped(dropped, output / f"dropped-{_name(source)}.parquet")
    shutil.rmtree(folder)
    metrics = count_rows(rows_in=counts["rows_in"], dropped=dict(sorted(dropped.reasons.items())))
    own = metrics["rows"] | {"bytes": counts["size"], "parts": parts}
    if isinstance(source, WarcSource):
        own["records"] = counts["records"]
    return metrics | {"sources": {_name(source): own}}


def _in_order(
    rows: Iterable[Row], seen: set[str], must_go: Callable[[Row], bool], kind: str | None
) -> tuple[list[Row], list[Row]]:
    """A part's rows by id, and those dropped: forgotten, not of the kind, or with an id seen before.

    Of one id the first row counts. Repeats of a raw row get ids of their own, but are forgotten with the first: they
    say the same.
    """
    repeats: Counter[str] = Counter()
    kept: dict[str, Row] = {}
    dropped: list[Row] = []
    for row in rows:
        goes = must_go(row)
        if row.pop("raw", False):
            number = repeats[row["id"]]
            repeats[row["id"]] += 1
            if number:
                row["id"] = repeat_id(row["id"], number)
        if goes or must_go(row):
            dropped.append(forgotten(row))
        elif kind_of(row) != kind:
            detail = f"a {kind_of(row)}, where the source began with a {kind}: make two sources of it"
            dropped.append(row | {"reason": "scrape.error.text", "detail": detail})
        elif row["id"] in seen or row["id"] in kept:
            where = "earlier source" if row["id"] in seen else "earlier row"
            dropped.append(row | {"reason": "scrape.duplicate_id", "detail": f"an {where} has it"})
        else:
            kept[row["id"]] = row
    return [kept[key] for key in sorted(kept)], dropped


def _write_part(source: AnySource, number: int, rows: list[dict[str, Any]], output: Path) -> None:
    """Write the rows of a part, all of them pages or all documents; a part without rows is no file."""
    name = part_name(source.name, source.batch, number)
    common = {"source": source.name, "batch": source.batch}
    if rows:
        schema = PAGE if kind_of(rows[0]) == "page" else DOCUMENT
        columns = [row | common | ({} if schema is PAGE else _given(source, row)) for row in rows]
        write_table(pa.Table.from_pylist(columns, schema=schema), output / name)


def _given(source: AnySource, row: dict[str, Any]) -> dict[str, Any]:
    """What the source says of all its rows, where a row does not say it itself."""
    return {"licence": row.get("licence") or source.licence, "lang": row.get("lang") or source.lang}


def _dropped_row(source: AnySource, row: Row) -> Row:
    """A row of DROPPED: what there was is cut, and halves of characters in it become question marks."""
    text = row.get("text") if "text" in row else row.get("body", b"")[:DROPPED_TEXT_CHARS].decode("utf-8", "replace")
    given = {"source": source.name, "batch": source.batch, "text": text[:DROPPED_TEXT_CHARS] if text else None}
    columns = {name: row.get(name) for name in DROPPED.names} | given
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in columns.items()
    }


def _write_dropped(dropped: DroppedRows, path: Path) -> None:
    rows = dropped.in_order()
    partial = path.with_name(f".{path.name}.partial")
    with part_writer(DROPPED, partial) as writer:
        first = True
        while (batch := list(islice(rows, ROW_GROUP_ROWS))) or first:
            writer.write_table(pa.Table.from_pylist(batch, schema=DROPPED))
            first = False
    partial.replace(path)


def sources_of_paths(paths: Sequence[Path]) -> list[AnySource]:
    """Sources for files and folders named on the command line: one for each kind of file that they hold.

    Raises UserError for what is missing or of no known kind.
    """
    sources: list[AnySource] = []
    for path in paths:
        kinds = [kind for kind in SUFFIXES if _holds(path, kind)]
        if not kinds:
            known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
            raise UserError(f"{path} is missing or holds none of {known}: name a file or folder with --input")
        stem = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_") or document_id(path.stem)[:8]
        for kind in kinds:
            name = wanted = f"{stem}_{kind}" if len(kinds) > 1 else stem
            number = len(sources)
            while name in (source.name for source in sources):
                name, number = f"{wanted}_{number}", number + 1
            model = HtmlSource if kind == "html" else WarcSource if kind == "warc" else RowSource
            sources.append(model.model_validate({"name": name, "kind": kind, "path": str(path)}))
    return sources


def _holds(path: Path, kind: str) -> bool:
    if path.is_file():
        return is_of_kind(path.name, kind)
    return any(has_suffix(p.name, SUFFIXES[kind], kind != "parquet") and p.is_file() for p in path.rglob("*"))
