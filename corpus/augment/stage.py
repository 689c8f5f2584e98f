"""augment: variants of kept train documents, a part for each part of the documents."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from corpus.answers import Answers, answers
from corpus.augment import swap, synonyms, translation
from corpus.augment.gates import Variant, failed_gates, join_reasons, normalised
from corpus.augment.surroundings import Surroundings, failed_outside, write_surroundings
from corpus.augment.translation import RoundTrip
from corpus.documents import DOCUMENT, document_id, generated_id, part_writer
from corpus.params import Augment
from corpus.stage import Metrics, Part, Run, add_metrics, batches, map_parts, side_by_side

READS = ("clean", "split")
VERSION = 2

GENERATED = DOCUMENT.append(pa.field("kept", pa.bool_())).append(pa.field("reasons", pa.list_(pa.string())))
DEFAULTS = {"kept": True, "split": "train", **{name: None for name in DOCUMENT.names if name not in ("id", "text")}}


class Makers(NamedTuple):
    """What variants are made with."""

    params: Augment
    trips: dict[str, RoundTrip]
    words: dict[str, synonyms.Source]
    cache: Path


def run(run: Run) -> Metrics:
    """Write a part of generated documents for each part: schema DOCUMENT, `kept`, `reasons` (the gates that failed).

    Metrics: `in` counts the documents kept before this stage, which all stay; `by_method` what was generated and kept.
    """
    parts = side_by_side(run)
    trips = translation.round_trips(run.params.augment.backtranslate, run.home)
    words = synonyms.sources(run.params.augment.synonyms)
    around = write_surroundings(run, parts)
    makers = Makers(run.params.augment, trips, words, run.home / "answers.sqlite")
    task = functools.partial(_augment_part, makers, around)
    engines = [f"{language} {trip.engine}" for language, trip in sorted(trips.items())]
    engines += [f"{language} {source.fingerprint}" for language, source in words.items()]
    counted = map_parts(run, parts, task, VERSION, run.params.augment, around.fingerprint(), *engines)
    methods = [swap.METHOD, *([translation.METHOD] if trips else []), *([synonyms.METHOD] if words else [])]
    nothing = {"by_method": {method: {"generated": 0, "kept": 0} for method in methods}}
    return functools.reduce(add_metrics, counted, nothing)


def _augment_part(makers: Makers, around: Surroundings, part: Part, folder: Path) -> Metrics:
    """Generate from one part, batch by batch."""
    total: Metrics = {"rows": {"in": 0, "generated": 0, "kept": 0, "dropped": 0}, "dropped_by_reason": {}}
    with part_writer(GENERATED, folder / part.name) as writer, answers(makers.cache) as cache:
        for batch in batches(part, ["id", "text"], DEFAULTS):
            rows = generate(batch, makers, cache, around)
            writer.write_table(pa.Table.from_pylist(rows, GENERATED))
            total = add_metrics(total, count(int(batch["kept"].fill_null(False).sum()), rows))
    return total


def generate(batch: pl.DataFrame, makers: Makers, cache: Answers, around: Surroundings) -> list[dict[str, Any]]:
    """The documents generated from a batch: rows of GENERATED, each with the gates it failed."""
    made = [
        (parent, variant)
        for parent in chosen(batch, makers.params.fraction, makers.params.seed).iter_rows(named=True)
        for variant in variants(parent, makers, cache)
    ]
    gates, languages = makers.params.gates, [parent["lang"] for parent, _ in made]
    outside = failed_outside([variant for _, variant in made], languages, gates.perplexity, around)
    own: set[tuple[str, str]] = set()
    rows = []
    for (parent, variant), elsewhere in zip(made, outside, strict=True):
        said = parent["id"], normalised(variant.text)
        reasons = failed_gates(variant, gates)
        if reasons != ["augment.unchanged"]:
            reasons = join_reasons(reasons, elsewhere, ["augment.duplicate"] if said in own else [])
        own.add(said)
        rows.append(
            {
                **{name: parent[name] for name in DOCUMENT.names},
                "id": generated_id(parent["id"], variant.method, 0),
                "text": variant.text,
                "parent_id": parent["id"],
                "method": variant.method,
                "kept": not reasons,
                "reasons": reasons,
            }
        )
    return rows


def chosen(batch: pl.DataFrame, fraction: float, seed: int) -> pl.DataFrame:
    """The kept train documents that the hash of (seed, id) draws; no dialogues: their text renders their messages."""
    plain = batch.filter(
        pl.col("kept") & (pl.col("split") == "train"), pl.col("messages").is_null(), pl.col("preference").is_null()
    )
    drawn = [int(document_id(f"{seed}\0{id}")[:16], 16) < fraction * 2**64 for id in plain["id"]]
    return plain.filter(pl.Series(drawn, dtype=pl.Boolean))


def variants(parent: dict[str, Any], makers: Makers, cache: Answers) -> Iterator[Variant]:
    """The variants of a document, by each method."""
    text, params = parent["text"], makers.params
    if params.swaps:
        swapped = swap.swap_sentences(text, params.swaps, f"{params.seed}\0{parent['id']}")
        yield Variant(text, swapped, swap.METHOD, rewords=False)
    if parent["lang"] in makers.trips:
        back = translation.back_translate(parent["id"], text, makers.trips[parent["lang"]], cache)
        yield Variant(text, back, translation.METHOD)
    if parent["lang"] in makers.words:
        source, key = makers.words[parent["lang"]], f"{params.seed}\0{parent['id']}"
        other = synonyms.replace_words(parent["id"], text, source, params.synonyms.rate, key, cache)
        yield Variant(text, other, synonyms.METHOD)


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
