"""`corpus export`: what a stage kept, and what it dropped, as plain files with text and that stage's columns."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.documents import DROPPED, aligned_batches, list_parts, part_writer, to_arrow
from corpus.errors import UserError
from corpus.scrape.label_studio import KINDS, MAX_LABELS, Kind, configuration, task_of

DECIDES = ("clean", "dedup", "filter", "split", "augment")  # the other stages drop nothing


def export_documents(stage: str, folder: Path, format: str, dropped: bool, data: Path) -> str:
    """Write kept.jsonl or kept.parquet, and with `dropped` dropped.* too, into a new or empty folder.

    As `label-studio` these are tasks for people to correct: texts.json and dialogues.json, dropped ones in
    dropped-*.json, each for a project of its own, with its labelling configuration beside it in *.xml.

    What a stage dropped comes with its `reasons`; rows of `clean` with `reason` and `detail`. Documents that an earlier
    stage dropped are in neither. Stages that only measure give all rows with their columns, `shard` its rows of all
    splits. Returns the line to print. Raises UserError for a folder in use, a stage not built, nothing to drop.
    """
    if dropped and stage not in DECIDES:
        raise UserError(f"{stage} drops no documents: leave out --dropped, or name one of {', '.join(DECIDES)}")
    if not (data / stage).is_dir():
        raise UserError(
            f"{data / stage} does not exist: build it with `dvc repro {stage}`, or name its parent by --data"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is in use: name a new or empty folder")
    if format == "label-studio" and (stage == "shard" or (stage == "clean" and dropped)):
        raise UserError(f"{stage} --format label-studio: these rows are no whole documents, export filter or split")
    wanted = {"kept": kept_rows(stage, data)} | ({"dropped": dropped_rows(stage, data)} if dropped else {})
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, frames in wanted.items():
        if format == "label-studio":
            lines.append(write_tasks(frames, folder, "dropped-" if name == "dropped" else ""))
            continue
        path = folder / f"{name}.{format}"
        lines.append(f"{write_frames(frames, path):,} {name} → {path}")
    return f"{stage}: " + ", ".join(lines)


def kept_rows(stage: str, data: Path) -> Iterator[pl.DataFrame]:
    """Batches of the documents that a stage kept, or of all where it decides nothing."""
    for batch in _rows(stage, data):
        yield batch.filter(pl.col("kept")).drop("kept") if "kept" in batch.columns else batch


def dropped_rows(stage: str, data: Path) -> Iterator[pl.DataFrame]:
    """Batches of the documents that a stage dropped, with its reasons."""
    if stage == "clean":
        empty = pl.DataFrame(DROPPED.empty_table())
        files = sorted((data / "clean").glob("dropped-*.parquet"))
        yield from (batch for path in files for batch in aligned_batches([path]))
        yield empty  # so that there is a schema
    else:
        yield from (batch.filter(~pl.col("kept")).drop("kept") for batch in _rows(stage, data))


def _rows(stage: str, data: Path) -> Iterator[pl.DataFrame]:
    """Batches of all rows of a stage: documents with the stage's annotation beside them."""
    if stage == "shard":
        for path in sorted((data / "shard").glob("*/*.parquet")):
            for batch in aligned_batches([path]):
                yield batch.with_columns(split=pl.lit(path.parent.name))
        return
    own_text = stage in ("clean", "augment")
    for path in list_parts(data / stage):
        yield from aligned_batches([path] if own_text else [data / "clean" / path.name, path])


def write_tasks(frames: Iterable[pl.DataFrame], folder: Path, prefix: str) -> str:
    """Write documents as tasks for Label Studio, and its configurations. Returns what to say of it."""
    labels: dict[Kind, set[str]] = {kind: set() for kind in KINDS}
    counts: Counter[Kind] = Counter()
    partials = {kind: folder / f".{prefix}{kind}.json.partial" for kind in KINDS}
    try:
        with contextlib.ExitStack() as stack:
            files = {kind: stack.enter_context(path.open("w", encoding="utf-8")) for kind, path in partials.items()}
            for document in (row for frame in frames for row in frame.iter_rows(named=True)):
                kind, task = task_of(document)
                files[kind].write((",\n" if counts[kind] else "[\n") + json.dumps(task, ensure_ascii=False))
                counts[kind] += 1
                if document.get("label") and len(labels[kind]) < MAX_LABELS:
                    labels[kind].add(document["label"])
            for kind in counts:
                files[kind].write("\n]\n")
        for kind in counts:
            described = configuration(kind, labels[kind], dropped=bool(prefix))
            (folder / f"{prefix}{kind}.xml").write_text(described, "utf-8")
            partials[kind].replace(folder / f"{prefix}{kind}.json")
    finally:
        for path in partials.values():
            path.unlink(missing_ok=True)
    said = [f"{counts[kind]:,} {prefix}{kind} → {folder}/{prefix}{kind}.json" for kind in KINDS if counts[kind]]
    return ", ".join(said) or f"0 {prefix}documents"


def write_frames(frames: Iterable[pl.DataFrame], path: Path) -> int:
    """Write batches of one schema as .jsonl or .parquet, whole or not at all. Returns the number of rows."""
    partial = path.with_name(f".{path.name}.partial")
    total = 0
    try:
        with contextlib.ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            lines: IO[bytes] | None = stack.enter_context(partial.open("wb")) if path.suffix == ".jsonl" else None
            schema: pa.Schema | None = None
            for frame in frames:
                total += frame.height
                if lines is not None:
                    frame.write_ndjson(lines)
                    continue
                table = to_arrow(frame)
                schema = schema or table.schema
                writer = writer or stack.enter_context(part_writer(schema, partial))
                writer.write_table(table.cast(schema))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return total
