"""augment: variants of kept train documents, a part for each part of the documents."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from corpus.augment import swap, translation
from corpus.augment.gates import failed_gates, text_hash
from corpus.augment.translation import RoundTrip
from corpus.documents import DOCUMENT, document_id, generated_id, part_writer
from corpus.executor import run_tasks
from corpus.params import Augment
from corpus.stage import Metrics, Part, Run, add_metrics, batches, file_digest, map_parts, side_by_side

READS = ("clean", "split")
VERSION = 1

GENERATED = DOCUMENT.append(pa.field("kept", pa.bool_())).append(pa.field("reasons", pa.list_(pa.string())))
DEFAULTS = {"kept": True, "split": "train", **{name: None for name in DOCUMENT.names if name not in ("id", "text")}}


def run(run: Run) -> Metrics:
    """Write a part of generated documents for each part: schema DOCUMENT, `kept`, `reasons` (the gates that failed).

    Metrics: `in` counts the documents kept before this stage, which all stay; `by_method` what was generated and kept.
    """
    parts = side_by_side(run)
    corpus = write_text_hashes(run, parts)
    trips = translation.round_trips(run.params.augment.back_translation)
    task = functools.partial(_augment_part, run.params.augment, corpus, trips, run.home / "translations")
    engines = [f"{language} {trip.engine}" for language, trip in sorted(trips.items())]
    counted = map_parts(run, parts, task, VERSION, run.params.augment, corpus.stem, *engines)
    methods = [swap.METHOD, *([translation.METHOD] if trips else [])]
    nothing = {"by_method": {method: {"generated": 0, "kept": 0} for method in methods}}
    return functools.reduce(add_metrics, counted, nothing)


def write_text_hashes(run: Run, parts: list[Part]) -> Path:
    """The sorted hashes of all texts of the corpus, also the dropped ones, in a file named by its content."""
    found = [hashes for _, hashes in run_tasks(hash_texts, parts, run.workers)]
    folder = run.home / "augment"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{document_id(str(run.output.resolve()))}.partial"
    with partial.open("wb") as file:
        np.save(file, np.unique(np.concatenate([np.array([], np.uint64), *found])))
    return partial.replace(folder / f"{file_digest(partial)}.npy")


def hash_texts(part: Part) -> np.ndarray:
    """The hash of each text of a part (uint64)."""
    hashes = [
        text_hash(text)
        for batch in batches(Part(part.name, part.files[:1], part.rows), ["id", "text"])
        for text in batch["text"]
    ]
    return np.array(hashes, np.uint64)


def _augment_part(
    params: Augment, corpus: Path, trips: dict[str, RoundTrip], cache: Path, part: Part, folder: Path
) -> Metrics:
    """Generate from one part, batch by batch."""
    hashes = np.load(corpus, mmap_mode="r")
    total: Metrics = {"rows": {"in": 0, "generated": 0, "kept": 0, "dropped": 0}, "dropped_by_reason": {}}
    with part_writer(GENERATED, folder / part.name) as writer:
        for batch in batches(part, ["id", "text"], DEFAULTS):
            rows = list(generate(batch, params, hashes, trips, cache))
            writer.write_table(pa.Table.from_pylist(rows, GENERATED))
            total = add_metrics(total, count(int(batch["kept"].fill_null(False).sum()), rows))
    return total


def generate(
    batch: pl.DataFrame, params: Augment, corpus: np.ndarray, trips: dict[str, RoundTrip], cache: Path
) -> Iterator[dict[str, Any]]:
    """The documents generated from a batch: rows of GENERATED, each with the gates it failed."""
    for parent in chosen(batch, params.fraction, params.seed).iter_rows(named=True):
        own: set[int] = set()
        for method, text in variants(parent, params, trips, cache):
            reasons = failed_gates(parent["text"], text, corpus)
            if not reasons and text_hash(text) in own:
                reasons = ["augment.duplicate"]
            own.add(text_hash(text))
            yield {
                **{name: parent[name] for name in DOCUMENT.names},
                "id": generated_id(parent["id"], method, 0),
                "text": text,
                "parent_id": parent["id"],
                "method": method,
                "kept": not reasons,
                "reasons": reasons,
            }


def chosen(batch: pl.DataFrame, fraction: float, seed: int) -> pl.DataFrame:
    """The kept train documents that the hash of (seed, id) draws; no dialogues: their text renders their messages."""
    plain = batch.filter(
        pl.col("kept") & (pl.col("split") == "train"), pl.col("messages").is_null(), pl.col("preference").is_null()
    )
    drawn = [int(document_id(f"{seed}\0{id}")[:16], 16) < fraction * 2**64 for id in plain["id"]]
    return plain.filter(pl.Series(drawn, dtype=pl.Boolean))


def variants(
    parent: dict[str, Any], params: Augment, trips: dict[str, RoundTrip], cache: Path
) -> Iterator[tuple[str, str]]:
    """Method and text of each variant of a document."""
    yield swap.METHOD, swap.swap_sentences(parent["text"], params.swaps, f"{params.seed}\0{parent['id']}")
    if parent["lang"] in trips:
        yield translation.METHOD, translation.back_translate(parent["text"], trips[parent["lang"]], cache)


def count(looked_at: int, rows: list[dict[str, Any]]) -> Metrics:
    """Metrics of a batch: the documents kept before stay, the generated ones count as kept or dropped."""
    kept = sum(row["kept"] for row in rows)
    metrics: Metrics = {
        "rows": {"in": looked_at, "generated": len(rows), "kept": looked_at + kept, "dropped": len(rows) - kept},
        "dropped_by_reason": {},
        "by_method": {},
    }
    for row in rows:
        own = {"by_method": {row["method"]: {"generated": 1, "kept": int(row["kept"])}}}
        metrics = add_metrics(metrics, own | {"dropped_by_reason": dict.fromkeys(row["reasons"], 1)})
    return metrics
