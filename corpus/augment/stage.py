"""augment: variants of kept train documents, a part for each part of the documents, and dialogues about them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from corpus.answers import Answers, answers
from corpus.augment import swap, synonyms, synthesis, translation
from corpus.augment.dialogues import RULES, Made, Row, dialogue_rows, generated_row
from corpus.augment.endpoint import LOG
from corpus.augment.gates import Variant, failed_gates, join_reasons, normalised
from corpus.augment.instructions import instructions
from corpus.augment.surroundings import Surroundings, failed_outside, write_surroundings
from corpus.augment.translation import RoundTrip
from corpus.documents import DOCUMENT, DROPPED_TEXT_CHARS, document_id, part_writer
from corpus.errors import UserError
from corpus.params import Augment, Synthesis
from corpus.progress import progress
from corpus.scrape.label_studio import ANNOTATED
from corpus.stage import Metrics, Part, Run, add_metrics, batches, map_parts, side_by_side

READS = ("clean", "split")
VERSION = 2

GENERATED = DOCUMENT.append(pa.field("kept", pa.bool_())).append(pa.field("reasons", pa.list_(pa.string())))
DEFAULTS = {"kept": True, "split": "train", **{name: None for name in DOCUMENT.names if name not in ("id", "text")}}
# No empty_table(): it has Arrow import Pandas, which every process would hold.
_MESSAGES = pl.DataFrame(pa.Table.from_batches([], DOCUMENT)).schema["messages"]
SYNTHESIS_PART = f"part-{synthesis.METHOD}.parquet"
ASKED_AT_ONCE = 100  # answers that are judged together


class Makers(NamedTuple):
    """What variants are made with."""

    params: Augment
    corrected: frozenset[str]  # ids of generated documents that people corrected or chose to drop
    trips: dict[str, RoundTrip]
    words: dict[str, synonyms.Source]
    cache: Path


def run(run: Run) -> Metrics:
    """Write a part of generated documents for each part: schema DOCUMENT, `kept`, `reasons` (the gates that failed).

    What an endpoint wrote about documents is a part of its own. Metrics: `in` counts the documents kept before this
    stage, which all stay; `by_method` what was generated and kept; `synthesis` requests, refusals, answers that were no
    list of pairs, tokens.
    """
    parts, params = side_by_side(run), run.params.augment
    templates = synthesis.read_templates(params.synthesise.templates) if params.synthesise else []
    trips = translation.round_trips(params.backtranslate, run.home)
    words = synonyms.sources(params.synonyms)
    around = write_surroundings(run, parts)
    in_graph = run.inputs[0].resolve() == run.folder("clean").resolve()
    corrected = corrected_ids(parts, run.folder("scrape") if in_graph else None)
    makers = Makers(params, corrected, trips, words, run.home / "answers.sqlite")
    task = functools.partial(_augment_part, makers, around)
    engines = [f"{language} {trip.engine}" for language, trip in sorted(trips.items())]
    engines += [f"{language} {source.fingerprint}" for language, source in words.items()]
    # An endpoint is asked below, so that its settings change no part.
    settings = params.model_copy(update={"synthesise": None})
    engines += sorted(corrected)
    counted = map_parts(run, parts, task, VERSION, settings, around.fingerprint(), *engines)
    methods = [swap.METHOD, *([translation.METHOD] if trips else []), *([synonyms.METHOD] if words else [])]
    methods += [f"{RULES}.{rule}" for rule in params.instructions]
    nothing = {"by_method": {method: {"generated": 0, "kept": 0} for method in methods}}
    total = functools.reduce(add_metrics, counted, nothing)
    if params.synthesise:
        counts, note = _synthesise(run, parts, params.synthesise, templates, corrected, around)
        total = add_metrics(total, counts) | {"notes": [note]}
    return total


def corrected_ids(parts: Sequence[Part], scraped: Path | None) -> frozenset[str]:
    """The ids that people decided on: of documents with a parent, generated once, and of those they chose to drop."""
    files = sorted(scraped.glob("dropped-*.parquet")) if scraped else []
    dropped = [pl.read_parquet(path, columns=["id", "reason"]) for path in files]
    decided = [frame.filter(pl.col("reason") == ANNOTATED)["id"] for frame in dropped]
    decided += [
        batch.filter(pl.col("parent_id").is_not_null())["id"]
        for part in parts
        for batch in batches(part, ["id"], {"parent_id": None})
    ]
    return frozenset(id for ids in decided for id in ids)


def without_corrected(rows: Sequence[Row], corrected: frozenset[str]) -> list[Row]:
    """Rows of GENERATED of which those that people have decided on are dropped: what they said takes their place."""
    return [row | {"kept": False, "reasons": ["augment.corrected"]} if row["id"] in corrected else row for row in rows]


def _augment_part(makers: Makers, around: Surroundings, part: Part, folder: Path) -> Metrics:
    """Generate from one part, batch by batch."""
    total: Metrics = {"rows": {"in": 0, "generated": 0, "kept": 0, "dropped": 0}, "dropped_by_reason": {}}
    with part_writer(GENERATED, folder / part.name) as writer, answers(makers.cache) as cache:
        for batch in batches(part, ["id", "text"], DEFAULTS):
            rows = generate(batch, makers, cache, around)
            writer.write_table(pa.Table.from_pylist(rows, GENERATED))
            total = add_metrics(total, count(int(batch["kept"].fill_null(False).sum()), rows))
    return total


def generate(batch: pl.DataFrame, makers: Makers, cache: Answers, around: Surroundings) -> list[Row]:
    """The documents generated from a batch: rows of GENERATED, each with the gates it failed."""
    params = makers.params
    made = [
        (parent, variant)
        for parent in chosen(batch, params.fraction, params.seed).iter_rows(named=True)
        for variant in variants(parent, makers, cache)
    ]
    gates, languages = params.gates, [parent["lang"] for parent, _ in made]
    outside = failed_outside([variant for _, variant in made], languages, gates.perplexity, around)
    own: set[tuple[str, str]] = set()
    rows = []
    for (parent, variant), elsewhere in zip(made, outside, strict=True):
        said = parent["id"], normalised(variant.text)
        reasons = failed_gates(variant, gates)
        if reasons != ["augment.unchanged"]:
            reasons = join_reasons(reasons, elsewhere, ["augment.duplicate"] if said in own else [])
        own.add(said)
        rows.append(generated_row(parent, variant.text, variant.method, 0, reasons))
    found = [
        Made(parent, f"{RULES}.{rule}", number, dialogue.messages)
        for parent in (plain_train(batch).iter_rows(named=True) if params.instructions else ())
        for rule in params.instructions  # each alone, so that another rule changes no ids
        for number, dialogue in enumerate(instructions(parent["text"], parent["lang"], parent["title"], [rule]))
    ]
    return without_corrected(rows + dialogue_rows(found, gates, around, set()), makers.corrected)


def plain_train(batch: pl.DataFrame) -> pl.DataFrame:
    """The kept train documents that are no dialogues: the text of these renders their messages."""
    no_dialogue = pl.col("messages").cast(_MESSAGES).list.len().fill_null(0) == 0
    return batch.filter(pl.col("kept") & (pl.col("split") == "train"), no_dialogue, pl.col("preference").is_null())


def chosen(batch: pl.DataFrame, fraction: float, seed: int) -> pl.DataFrame:
    """The plain train documents that the hash of (seed, id) draws."""
    plain = plain_train(batch)
    drawn = [int(document_id(f"{seed}\0{id}")[:16], 16) < fraction * 2**64 for id in plain["id"]]
    return plain.filter(pl.Series(drawn, dtype=pl.Boolean))


def variants(parent: Row, makers: Makers, cache: Answers) -> Iterator[Variant]:
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


def count(looked_at: int, rows: Sequence[Row]) -> Metrics:
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


# ---- an endpoint that writes dialogues -------------------------------------------------------------------------------


def _synthesise(
    run: Run,
    parts: Sequence[Part],
    settings: Synthesis,
    templates: Sequence[synthesis.Template],
    corrected: frozenset[str],
    around: Surroundings,
) -> tuple[Metrics, str]:
    """Ask about the drawn documents in this process, which mostly waits, and judge what comes back; and what was spent.

    Raises UserError where the endpoint refuses every request.
    """
    augment = run.params.augment
    few = {name: DEFAULTS[name] for name in ("kept", "split", "lang", "messages", "preference")}

    def documents(columns: Sequence[str], defaults: Metrics) -> Iterator[pl.DataFrame]:
        for part in parts:
            for batch in batches(part, columns, defaults):
                yield chosen(batch, augment.fraction, augment.seed)

    names = pl.concat([batch.select("id", pl.col("lang").cast(pl.String)) for batch in documents(["id"], few)])
    wanted, planned = synthesis.drawn(names, templates, settings.max_requests, augment.seed)
    parents = (
        row
        for batch in documents(["id", "text"], DEFAULTS)
        for row in batch.iter_rows(named=True)
        if row["id"] in wanted
    )
    seen: set[tuple[str, str]] = set()
    total: Metrics = {
        **count(0, []),
        "by_method": {synthesis.METHOD: {"generated": 0, "kept": 0}},
        "synthesis": dict.fromkeys(("requests", "refused", "no_list", "tokens"), 0),
    }
    with (
        part_writer(GENERATED, run.output / SYNTHESIS_PART) as writer,
        answers(run.home / "answers.sqlite") as cache,
    ):
        asked = synthesis.synthesise(parents, templates, settings, cache, run.home / LOG)
        bar = progress(asked, total=planned, desc=synthesis.METHOD, unit="request")
        answered = iter(bar)
        while some := list(itertools.islice(answered, ASKED_AT_ONCE)):
            rows = without_corrected(_answer_rows(some, run, around, seen), corrected)
            writer.write_table(pa.Table.from_pylist(rows, GENERATED))
            total = add_metrics(total, count(0, rows) | {"synthesis": _count_answers(some)})
            if total["synthesis"]["refused"] == total["synthesis"]["requests"]:
                url, said = settings.endpoint.url, some[-1].answer.text
                raise UserError(f"{url} refuses each of the first {len(some)} requests; of the last it says: {said}")
    return total, _spent(total["synthesis"], planned, run.home / LOG)


def _answer_rows(
    asked: Sequence[synthesis.Asked], run: Run, around: Surroundings, seen: set[tuple[str, str]]
) -> list[Row]:
    """The dialogues in some answers, and a dropped row for each answer without any."""
    made = [
        Made(one.parent, synthesis.METHOD, one.number + place, pair.messages())
        for one in asked
        for place, pair in enumerate(one.pairs)
    ]
    failed = [
        generated_row(
            one.parent,
            one.answer.text[:DROPPED_TEXT_CHARS],
            synthesis.METHOD,
            one.number,
            ["augment.refused" if one.answer.refused else "augment.answer"],
        )
        for one in asked
        if not one.pairs
    ]
    return dialogue_rows(made, run.params.augment.gates, around, seen) + failed


def _count_answers(asked: Sequence[synthesis.Asked]) -> Metrics:
    return {
        "requests": len(asked),
        "refused": sum(one.answer.refused for one in asked),
        "no_list": sum(not one.pairs and not one.answer.refused for one in asked),
        "tokens": sum(one.answer.prompt_tokens + one.answer.completion_tokens for one in asked),
    }


def _spent(counts: Metrics, wanted: int, log: Path) -> str:
    said = f"{counts['requests']:,} of {wanted:,} requests, {counts['tokens']:,} tokens; each is a line in {log}"
    return said if counts["requests"] == wanted else f"{said}: augment.synthesise.max_total_tokens was reached"
