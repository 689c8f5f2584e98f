"""What happens around every stage: locks, parts, the content-keyed store, whole outputs, and the conservation law.

A stage is a module with `READS`, the stages whose folders it reads side by side (documents first), and `run(run)`,
which writes files into `run.output` and returns its metrics; what of them changes from run to run, such as speeds, is
in its metrics under `timing`, and goes into the timing file. `execute` calls it. A row-wise stage hands a pure function
from batch to columns to `annotate` and is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import resource
import shutil
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from pydantic import BaseModel

from corpus.cluster import Cluster
from corpus.documents import aligned_batches, list_parts, open_part, part_writer, read_columns, to_arrow
from corpus.errors import StageError, UserError
from corpus.executor import Workers, run_tasks
from corpus.files import digest_of, link, write_beside, write_json
from corpus.locks import locked, locked_output
from corpus.params import Params
from corpus.progress import progress
from corpus.store import SEAL, become_entry, is_whole, known_digest, new_partial, remember_digests, seal

Metrics = dict[str, Any]
Stamp = tuple[str, int, int, int]  # of a file: path, inode, size, time of change
MARKER = ".stage"  # names the stage in each folder that one wrote; we replace no other folder
_COUNTED_AT_ONCE = 8_000  # documents
_LIBRARIES = (f"polars {pl.__version__}", f"numpy {np.__version__}", f"unicode {unicodedata.unidata_version}")


class Stage(Protocol):
    """What a stage's module offers."""

    READS: tuple[str, ...]

    def run(self, run: Run, /) -> Metrics: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a stage is told: what to read, where to write, its parameters, and how many workers it may use."""

    stage: str
    params: Params
    inputs: tuple[Path, ...]  # folders or files, documents first, annotations of them after
    output: Path
    data: Path = Path("data")  # where the graph's other folders are
    reports: Path | None = Path("reports")  # None: metrics.json goes into the output
    home: Path = Path(".corpusmill")
    workers: int = 1
    cluster: Cluster | None = None  # does the tasks in place of this machine's processes
    limit: int | None = None
    # What a run adds up as it goes: parts (or sources) and documents worked on, or stored; what it took of the store.
    work: Counter[str] = dataclasses.field(default_factory=Counter)
    used: set[Path] = dataclasses.field(default_factory=set)

    @property
    def crew(self) -> Workers:
        """Who does the stage's tasks."""
        return self.cluster or self.workers

    def folder(self, stage: str) -> Path:
        """The folder in which another stage left its output."""
        return stage_folder(self.data, stage)


def stage_folder(data: Path, stage: str) -> Path:
    """Where a stage's output lies; beside the trusted text for `reference`, whose folder git tracks."""
    return data / "reference" / "model" if stage == "reference" else data / stage


@dataclasses.dataclass(frozen=True)
class Part:
    """The files of one part side by side: documents first, annotations after. A task of a stage."""

    name: str
    files: tuple[Path, ...]
    rows: int  # only the first so many rows count (--limit)
    stamps: tuple[Stamp, ...] = ()  # of the files, as far as they are known: what they were when the run began

    def __str__(self) -> str:
        return str(self.files[0])


# ---- the shell around a stage ----------------------------------------------------------------------------------------


def execute(stage: Stage, run: Run, finish: Callable[[], None] | None = None) -> Metrics:
    """Run a stage so that its output appears whole or not at all, check the conservation law, write the metrics.

    `finish` is called when the output is there, before any other run may replace it or `corpus gc` remove it.
    Raises UserError for what the user can mend and StageError where the law is broken; the output is then as before.
    """
    started = time.perf_counter()
    run.work.clear()  # and no new one: whoever called reads it afterwards
    run = dataclasses.replace(run, output=run.output.resolve(), used=set())
    if not run.output.name:
        raise UserError(f"--output {run.output} is the root of all files: name a folder in it")
    with locked(run.home / "locks" / "store.lock", run.home, shared=True), locked_output(run.output):
        _restore_outdated(run.output)
        _refuse_foreign_folder(run)
        partial = run.output.with_name(f".{run.output.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            before = _stamps_of_inputs(run)
            metrics = stage.run(dataclasses.replace(run, output=partial))
            if changed := before ^ _stamps_of_inputs(run):
                raise StageError(f"{min(changed)[0]} changed while {run.stage} was reading it: run again")
            timing = metrics.pop("timing", {})  # what a stage measured itself, and no other run will see again
            check_conservation(run, metrics)
            (partial / MARKER).write_text(run.stage + "\n")
            if run.reports is None:
                write_json(partial / "metrics.json", metrics)
                if timing:
                    write_json(partial / "timing.json", timing)
            report = None if run.reports is None else run.reports / f"{run.stage}.json"
            written = report and write_beside(report, metrics)  # before the output is there: it might fail
            _replace_folder(partial, run.output)
            if report and written:
                written.replace(report)
            entries = sorted(str(path.relative_to(run.home)) for path in run.used)
            use = run.home / "uses" / f"{digest_of(str(run.output))}.json"
            write_json(use, {"output": str(run.output), "entries": entries})
            if finish:
                finish()
            for entry in run.used:  # now that all links to its files are made, and removed
                remember_digests(run.home, entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if run.reports is not None:
            timing |= _timing(time.perf_counter() - started) | ({"work": dict(run.work)} if run.work else {})
            write_json(run.reports / f"{run.stage}.timing.json", timing)
    return metrics


def check_conservation(run: Run, metrics: Metrics) -> None:
    """in + generated == kept + dropped, and every dropped document has a reason. Raises StageError otherwise."""
    rows = metrics["rows"]
    if run.inputs and rows["in"] == 0:
        read = " and ".join(map(str, run.inputs))
        raise UserError(f"{read}: no document to work on; the stage before says in its report what it dropped and why")
    if rows["in"] + rows["generated"] != rows["kept"] + rows["dropped"]:
        raise StageError(f"{run.stage} lost documents: {rows}")
    reasons = sum(metrics.get("dropped_by_reason", {}).values())
    if reasons < rows["dropped"]:
        raise StageError(f"{run.stage} dropped {rows['dropped']} documents but gave {reasons} reasons")


def _refuse_foreign_folder(run: Run) -> None:
    """Raises UserError where the output is, holds or lies in an input, or is anything but this stage's own folder."""
    output = run.output
    for path in (path.resolve() for path in run.inputs):
        if output == path or output in path.parents or path in output.parents:
            raise UserError(f"{output} cannot be the output of {run.stage}, which reads {path}: name another --output")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file: --output names a folder")
    if output.is_dir() and any(output.iterdir()):
        writer = (output / MARKER).read_text().strip() if (output / MARKER).exists() else None
        if writer != run.stage:
            held = f"what {writer} wrote" if writer else "files that no stage wrote"
            raise UserError(f"{output} holds {held}: name a new or empty folder with --output")


def _replace_folder(new: Path, old: Path) -> None:
    if old.exists():
        outdated = _outdated(old)
        shutil.rmtree(outdated, ignore_errors=True)
        old.rename(outdated)
        new.rename(old)
        shutil.rmtree(outdated)
    else:
        new.rename(old)


def _restore_outdated(output: Path) -> None:
    """Bring back what a run had moved aside when it was killed just before its new output came in its place."""
    if _outdated(output).exists() and not output.exists():
        _outdated(output).rename(output)


def _outdated(output: Path) -> Path:
    return output.with_name(f".{output.name}.outdated")


def _timing(seconds: float) -> Metrics:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "seconds": seconds,
        "cpu_seconds": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "peak_mb": max(own.ru_maxrss, children.ru_maxrss) / 1024,
    }


# ---- parts and the store ---------------------------------------------------------------------------------------------


def side_by_side(run: Run) -> list[Part]:
    """The parts of the first input, each with the files of the same name in the others; cut to the limit.

    Raises UserError where an annotation is missing, or documents from outside the graph share an id.
    """
    parts: list[Part] = []
    left = run.limit
    documents = list_parts(run.inputs[0])
    if run.reports is None:  # within the graph scrape has seen to it
        refuse_repeated_ids(documents)
    for document_file in documents:
        files = [document_file]
        for folder in run.inputs[1:]:
            path = folder / document_file.name if folder.is_dir() or len(documents) > 1 else folder
            if not path.is_file():
                raise UserError(f"{path} does not exist: run the stage that writes {folder} on the same documents")
            files.append(path)
        rows = open_part(document_file).metadata.num_rows
        if left is not None:
            rows = min(rows, left)
            left -= rows
        if rows or left is None or not parts:
            parts.append(Part(document_file.name, tuple(files), rows, tuple(map(_stamp, files))))
    return parts


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


def _stamps_of_inputs(run: Run) -> set[Stamp]:
    folders = [path.glob("*.parquet") if path.is_dir() else [path] for path in run.inputs]
    return {_stamp(path) for paths in folders for path in paths if path.is_file()}


def refuse_repeated_ids(files: Sequence[Path]) -> None:
    """Raises UserError where two documents of some files share an id."""
    if not all("id" in open_part(path).schema_arrow.names for path in files):
        return  # whoever reads them says what is missing
    by_file = [pl.DataFrame(read_columns(path, ["id"]))["id"].cast(pl.String) for path in files]
    ids = pl.concat(by_file)
    repeated = ids.filter(ids.is_duplicated())
    if len(repeated):
        id = repeated[0]  # which may be null
        where = [path for path, own in zip(files, by_file, strict=True) for _ in range(own.eq_missing(id).sum())]
        places = f"in {where[0]} and in {where[1]}" if where[0] != where[1] else f"in {where[0]}"
        raise UserError(f"the id {id} occurs twice, {places}: give each document an id of its own")


def map_parts(
    run: Run,
    parts: Sequence[Part],
    function: Callable[[Part, Path], Metrics],
    version: int,
    *depends_on: BaseModel | str,
) -> list[Metrics]:
    """Apply `function(part, folder)` to each part and link the files it wrote there into the output.

    Finished parts come from the store and are not worked on again: their key is the content of the part's files, the
    stage's version, `depends_on` (its parameters and whatever else decides the result) and the versions of the
    libraries that all stages use. Returns the metrics by part.
    """
    extra = [*_LIBRARIES] + [item.model_dump_json() if isinstance(item, BaseModel) else item for item in depends_on]
    store = run.home / "parts" / run.stage
    entries = {
        part: store
        / digest_of(json.dumps([version, part.name, part.rows, extra, [known_digest(run.home, f) for f in part.files]]))
        for part in parts
    }
    todo = [(part, entry) for part, entry in entries.items() if not is_whole(entry, run.home)]
    anew, rows = sum(part.rows for part, _ in todo), sum(part.rows for part in parts)
    run.work.update(parts=len(todo), documents=anew)
    run.work.update(stored_parts=len(parts) - len(todo), stored_documents=rows - anew)
    work = functools.partial(_fill_entry, function)
    with progress(total=len(parts), initial=len(parts) - len(todo), desc=run.stage, unit="part") as bar:
        for _ in run_tasks(work, todo, run.crew):
            bar.update()
    run.used.update(entries.values())
    for entry in entries.values():
        for path in sorted(entry.iterdir()):
            if path.name not in ("metrics.json", SEAL):
                link(path, run.output / path.name)
    return [json.loads((entry / "metrics.json").read_text()) for entry in entries.values()]


def _fill_entry(function: Callable[[Part, Path], Metrics], task: tuple[Part, Path]) -> None:
    """Work on a part in a folder of this process's own, which becomes the entry of the store when it is whole."""
    part, entry = task
    partial = new_partial(entry)
    try:
        write_json(partial / "metrics.json", function(part, partial), indent=None)
        if changed := [stamp[0] for stamp in part.stamps[: len(part.files)] if stamp != _stamp(Path(stamp[0]))]:
            raise StageError(f"{changed[0]} changed while it was read: run again")  # its key is of what it was before
        seal(partial)
        become_entry(partial, entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def annotate(
    run: Run,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    version: int,
    *depends_on: BaseModel | str,
    metrics: Callable[[pl.DataFrame], Metrics],
    columns: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Metrics:
    """Run a row-wise stage: a pure, picklable function from a batch to its annotation, over all parts.

    `columns` are what it cannot do without (None: whatever there is), `defaults` stand in for columns that the input
    may lack. `metrics` counts some documents, without their texts, with their annotation; all counts are summed.
    """
    task = functools.partial(_annotate_part, function, metrics, columns, defaults)
    return functools.reduce(add_metrics, map_parts(run, side_by_side(run), task, version, *depends_on), {})


def _annotate_part(
    function: Callable[[pl.DataFrame], pl.DataFrame],
    metrics: Callable[[pl.DataFrame], Metrics],
    columns: Sequence[str] | None,
    defaults: Mapping[str, Any] | None,
    part: Part,
    folder: Path,
) -> Metrics:
    """Annotate one part, batch by batch: memory does not grow with the part."""
    total: Metrics = {}
    uncounted: list[pl.DataFrame] = []  # batches without their texts: to count some at once takes a third of the time
    with contextlib.ExitStack() as stack:
        writer = None
        for batch in batches(part, columns, defaults):
            annotation = function(batch)
            if not annotation["id"].equals(batch["id"]):
                raise StageError(f"{part}: the annotation's rows are not the documents' rows")
            table = to_arrow(annotation)
            if writer is None:
                writer = stack.enter_context(part_writer(table.schema, folder / part.name))
            writer.write_table(table)
            own = annotation.drop("id")
            uncounted.append(pl.concat([batch.drop("text", *own.columns, strict=False), own], how="horizontal"))
            if sum(frame.height for frame in uncounted) >= _COUNTED_AT_ONCE:
                total = add_metrics(total, metrics(pl.concat(uncounted, how="vertical_relaxed")))
                uncounted.clear()
        if uncounted:
            total = add_metrics(total, metrics(pl.concat(uncounted, how="vertical_relaxed")))
    return total


def batches(
    part: Part, columns: Sequence[str] | None = None, defaults: Mapping[str, Any] | None = None
) -> Iterator[pl.DataFrame]:
    """The batches of a part, its first `rows` rows. An empty part gives one empty batch, so that columns are known.

    Raises UserError where the files lack one of `columns` or `text` is no text; the columns of `defaults` are filled in
    where they lack those.
    """
    defaults = defaults or {}
    wanted = None if columns is None else [*columns, *defaults]
    left, first = part.rows, True
    for batch in aligned_batches(part.files, wanted):
        if left <= 0 and not first:
            return
        for column in columns or ():
            if column not in batch.columns:
                raise UserError(f"{part} has no column `{column}`: add the annotation that has it as a further --input")
        if batch.schema.get("text", pl.String) not in (pl.String, pl.Null):
            raise UserError(f"{part}: the column `text` holds {batch.schema['text']}, not text")
        batch = _with_usual_types(batch)
        missing = [pl.lit(value).alias(name) for name, value in defaults.items() if name not in batch.columns]
        yield batch.with_columns(missing).head(left)
        left, first = left - batch.height, False


def _with_usual_types(batch: pl.DataFrame) -> pl.DataFrame:
    """Ids as text and no null among texts, as our own documents have it; others' files may count their rows."""
    batch = batch.with_columns(pl.col("id").cast(pl.String))
    return batch.with_columns(pl.col("text").cast(pl.String).fill_null("")) if "text" in batch.columns else batch


# ---- small tools -----------------------------------------------------------------------------------------------------


def count_rows(*, rows_in: int, dropped: Mapping[str, int], generated: int = 0) -> Metrics:
    """Metrics of a stage that counts each dropped document under exactly one reason."""
    lost = sum(dropped.values())
    rows = {"in": rows_in, "generated": generated, "kept": rows_in + generated - lost, "dropped": lost}
    return {"rows": rows, "dropped_by_reason": dict(dropped)}


def write_plot(run: Run, name: str, rows: pl.DataFrame) -> None:
    """Write the data of one of the plots that dvc.yaml names: reports/plots/NAME.csv."""
    folder = (run.reports or run.output) / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.partial"
    rows.write_csv(partial, float_precision=6)
    partial.replace(folder / f"{name}.csv")


def add_metrics(left: Metrics, right: Metrics) -> Metrics:
    """Sum two nested dictionaries of numbers, or of lists of numbers (histograms).

    >>> add_metrics({"rows": {"in": 1}, "histogram": [1, 0]}, {"rows": {"in": 2}, "histogram": [0, 3]})
    {'rows': {'in': 3}, 'histogram': [1, 3]}
    """
    total = dict(left)
    for key, value in right.items():
        if key not in total:
            total[key] = value
        elif isinstance(value, dict):
            total[key] = add_metrics(total[key], value)
        elif isinstance(value, list):
            total[key] = [a + b for a, b in zip(total[key], value, strict=True)]
        else:
            total[key] += value
    return total
