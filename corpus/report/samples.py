"""A few documents of every kind, kept and dropped, as the page shows them: by chance, and nearest to a bound.

Chance is a hash of seed and id: the same documents on every run, from all over the corpus.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from corpus.clean.personal import mask_personal_data
from corpus.documents import aligned_batches, list_parts
from corpus.errors import UserError
from corpus.report.before import Change, beginning, changes, text_before
from corpus.report.index import Outdated, find_id, read_row
from corpus.report.tally import MEASURING

TEXT_CHARS = 1_500  # of a document at most, and fewer where many are shown:
TEXT_BYTES = 1_200_000  # of all texts, about; those of duplicates, and what cleaning changed, come to as much each
FACT_CHARS = (300, 200, 120, 80, 50)  # of a title, a URL or a detail: the first that all samples have room for in
FACT_BYTES = 600_000
MARGIN = 100  # characters read beyond that, so that no number is cut in two before it is masked
LINE_CHARS = 160  # of a line in what cleaning changed
STRETCHES = 24  # of such lines, each of so many at most:
STRETCH_LINES = 6
FINAL = ("clean", "dedup", "filter", "split")  # the last of these that ran says which documents are kept
NEAR = "\0near"  # after a stratum: those nearest to a bound
MOST_CLEANED = 200  # documents of which it is told what cleaning changed; each costs reading a row group
FOUND = {
    "stratum": pl.String,  # a reason, or what is alike in kept documents
    "rank": pl.Float64,  # the lowest are shown
    "id": pl.String,
    "stage": pl.String,
    "file": pl.String,
    "distance": pl.Float64,
    "nearest": pl.String,
}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A rule that a document failed: the signal's value, and its distance to the bound in robust spreads."""

    reason: str
    value: float | None = None
    margin: float | None = None


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """The beginning of a text, and how many characters were left out after it."""

    title: str | None
    text: str
    cut: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """A document as the page shows it; everything in it is untrusted.

    `distance` is in robust spreads: of a kept document to the bound that it is nearest to (`nearest`), of one that the
    filter dropped from being kept, which is its largest margin.
    """

    id: str
    source: str | None
    url: str | None
    lang: str | None
    stage: str  # that dropped it, or the last that kept it
    kept: bool
    excerpt: Excerpt
    failures: list[Failure]
    distance: float | None = None
    nearest: str | None = None
    detail: str | None = None
    similarity: float | None = None
    other: Excerpt | None = None  # the kept document that it duplicates, or the parent it was made from
    cleaning: list[Change] = dataclasses.field(default_factory=list)


def document_samples(
    data: Path,
    stages: Sequence[str],
    bounds: Mapping[str, Mapping[str, Any]],
    number: int,
    seed: int,
    mask: bool = True,
    index: Path | None = None,
) -> list[Sample]:
    """Documents that the named stages dropped, `number` by chance for each reason, and as many nearest to their bounds;
    and as many kept ones of each language and source, and nearest to a bound in each language.

    With personal data masked. `bounds` as in reports/filter.json. Where `index` names an index of data/, what cleaning
    changed is told too. Passes: ids and reasons of all, the texts of the chosen, the texts of what these duplicate.
    """
    chosen = pl.DataFrame(schema=FOUND)
    for found in _candidates(data, stages, bounds, seed):
        chosen = pl.concat([chosen, found]).unique(["stratum", "id"]).sort("rank", "id")
        chosen = chosen.group_by("stratum", maintain_order=True).head(number)
    # The same id twice is two documents where another stage refused the second one, as scrape does with a repeated id.
    chosen = chosen.sort("stratum", "rank", "id").unique(["id", "stage"], keep="first", maintain_order=True)
    characters = min(TEXT_CHARS, TEXT_BYTES // max(4 * chosen.height, 1))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (stage, file), wanted in chosen.group_by(["stage", "file"]):
        for row in _rows(data, str(stage), Path(str(file)), wanted["id"], characters):
            rows[row["id"], str(stage)] = row
    related = {row[key] for row in rows.values() for key in ("duplicate_of", "parent_id") if row.get(key)}
    others = _excerpts(data, mask, related, characters)
    told = {*sorted(chosen["id"].unique(), key=lambda document: chance_of(seed, document))[:MOST_CLEANED]}
    samples = []
    for row in chosen.iter_rows(named=True):
        sample = _sample(rows[row["id"], row["stage"]] | row, mask, others, characters)
        if (
            index
            and row["id"] in told
            and row["file"].rpartition("/")[2].startswith("part-")
            and row["stage"] != "augment"
        ):
            cleaning = _cleaning(data, index, row["id"], mask, characters)
            sample = dataclasses.replace(sample, cleaning=cleaning)
        samples.append(sample)
    return _with_short_facts(samples)


# ---- which -----------------------------------------------------------------------------------------------------------


def _candidates(
    data: Path, stages: Sequence[str], bounds: Mapping[str, Mapping[str, Any]], seed: int
) -> Iterator[pl.DataFrame]:
    """Batches as FOUND: of dropped documents a row for each reason, once by chance and once by distance; kept ones."""
    for stage in stages:
        for file in _files(data, stage):
            for batch in aligned_batches([file], ["kept", "reason", "reasons", "margins"]):
                yield from _dropped(batch, stage, file, seed)
    built = [stage for stage in FINAL if (data / stage).is_dir()]
    for part in list_parts(data / "clean"):
        measured = [path for path in (data / name / part.name for name in MEASURING) if path.is_file()]
        decided = [data / built[-1] / part.name] if built[-1] != "clean" else []
        for batch in aligned_batches([part, *measured, *decided], ["lang", "source", "kept", *_signals(bounds)]):
            kept = batch.filter(pl.col("kept")) if "kept" in batch.columns else batch
            yield from _kept(kept, built[-1], data / built[-1] / part.name, bounds, seed)


def _dropped(batch: pl.DataFrame, stage: str, file: Path, seed: int) -> Iterator[pl.DataFrame]:
    """Of each reason the documents by chance, and by their margin to the bound of this reason, not to those of others
    that they failed as well."""
    nothing = pl.lit(None, pl.Float64)
    distance, own = nothing.alias("distance"), nothing.alias("own")
    if "reasons" in batch.columns:
        place = pl.int_ranges(pl.col("reasons").list.len()).alias("place")
        if "margins" in batch.columns:
            distance = pl.col("margins").list.eval(pl.element().abs()).list.max().alias("distance")
            own = pl.col("margins").list.get(pl.col("place"), null_on_oob=True).cast(pl.Float64).abs().alias("own")
        batch = batch.filter(~pl.col("kept")).with_columns(distance, place).explode("reasons", "place")
        batch = batch.with_columns(own).rename({"reasons": "reason"})
    else:
        batch = batch.with_columns(distance, own)
    batch = batch.drop_nulls("reason").with_columns(nearest=pl.lit(None, pl.String))
    yield _found(batch, pl.col("reason"), _chance(batch, seed), stage, file)
    near = batch.drop_nulls("own")
    yield _found(near, pl.col("reason") + NEAR, near["own"], stage, file)


def _kept(
    batch: pl.DataFrame, stage: str, file: Path, bounds: Mapping[str, Mapping[str, Any]], seed: int
) -> Iterator[pl.DataFrame]:
    for (lang,), own in batch.group_by("lang", maintain_order=True):
        rules = [
            (rule, ((pl.col(rule.rpartition(".")[0]).cast(pl.Float64) - facts["bound"]) / facts["spread"]).abs())
            for rule, facts in bounds.get(str(lang), {}).items()
            if facts.get("spread") and facts["bound"] is not None and rule.rpartition(".")[0] in own.columns
        ]
        if rules:
            distances = pl.concat_list([away.fill_nan(None) for _, away in rules])
            names = pl.lit(pl.Series([rule for rule, _ in rules]))
            own = own.with_columns(distance=distances.list.min(), nearest=names.gather(distances.list.arg_min()))
        else:
            own = own.with_columns(distance=pl.lit(None, pl.Float64), nearest=pl.lit(None, pl.String))
        yield _found(own, pl.format("kept {} {}", pl.lit(str(lang)), "source"), _chance(own, seed), stage, file)
        near = own.drop_nulls("distance")
        yield _found(near, pl.lit(f"kept {lang}{NEAR}"), near["distance"], stage, file)


def _found(batch: pl.DataFrame, stratum: pl.Expr, rank: pl.Series, stage: str, file: Path) -> pl.DataFrame:
    named = batch.with_columns(stratum=stratum, rank=rank.cast(pl.Float64), stage=pl.lit(stage), file=pl.lit(str(file)))
    return named.select(pl.col(name).cast(kind) for name, kind in FOUND.items())


def _signals(bounds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted({rule.rpartition(".")[0] for rules in bounds.values() for rule in rules})


def _files(data: Path, stage: str) -> list[Path]:
    """Where a stage names what it dropped: files of their own before there are documents, an annotation after."""
    if stage in ("scrape", "clean", "shard"):
        return sorted((data / stage).glob("dropped-*.parquet"))
    return [file for file in list_parts(data / stage) if {"kept", "reasons"} <= set(pl.read_parquet_schema(file))]


def _chance(batch: pl.DataFrame, seed: int) -> pl.Series:
    return pl.Series([chance_of(seed, document) for document in batch["id"]], dtype=pl.Float64)


def chance_of(seed: int, document: str) -> float:
    """A number from 0 to 1 that depends on seed and id alone."""
    digest = hashlib.blake2b(f"{seed}\0{document}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


# ---- what they say ---------------------------------------------------------------------------------------------------


def _rows(data: Path, stage: str, file: Path, ids: pl.Series, characters: int) -> Iterator[dict[str, Any]]:
    """Everything about the chosen documents of a file: document, signals and the stage's own columns."""
    files = [file]
    if file.name.startswith("part-") and stage != "augment":
        annotations = [data / name / file.name for name in MEASURING]
        own = [file] if stage != "clean" else []
        files = [data / "clean" / file.name, *(path for path in annotations if path.is_file()), *own]
    for batch in aligned_batches(files):
        if "text" not in batch.columns:  # shard names ids and reasons alone
            batch = batch.with_columns(text=pl.lit(None, pl.String))
        chosen = batch.filter(pl.col("id").is_in(ids.implode()))
        yield from _cut(chosen, characters).iter_rows(named=True)


def _excerpts(data: Path, mask: bool, ids: Iterable[str], characters: int) -> dict[str, Excerpt]:
    """The beginnings of the named documents, wherever they lie."""
    wanted, found = pl.Series(sorted(ids), dtype=pl.String), {}
    for part in list_parts(data / "clean") if len(wanted) else []:
        if any(batch["id"].is_in(wanted.implode()).any() for batch in aligned_batches([part], [])):
            for batch in aligned_batches([part], ["title", "text"]):
                chosen = batch.filter(pl.col("id").is_in(wanted.implode()))
                for row in _cut(chosen, characters).iter_rows(named=True):
                    found[row["id"]] = _excerpt(row, mask, characters)
    return found


def _cut(rows: pl.DataFrame, characters: int) -> pl.DataFrame:
    text = pl.col("text").fill_null("")
    return rows.with_columns(text.str.slice(0, characters + MARGIN), text.str.len_chars().alias("text_length"))


def _excerpt(row: Mapping[str, Any], mask: bool, characters: int) -> Excerpt:
    # What scrape and clean dropped has not been through clean's masking.
    title = shortened(row.get("title"), FACT_CHARS[0] + MARGIN)
    title, text = ((mask_personal_data(words or "")[0] if mask else words) for words in (title, row["text"]))
    return Excerpt(shortened(title or None), (text or "")[:characters], max(row["text_length"] - characters, 0))


def shortened(words: str | None, characters: int = FACT_CHARS[0]) -> str | None:
    """A title, a URL or a detail with an ellipsis where it was cut: a hostile one may be as long as a book.

    >>> shortened("back up now", 7), shortened(None)
    ('back u…', None)
    """
    return words if words is None or len(words) <= characters else words[: characters - 1] + "…"


def _with_short_facts(samples: list[Sample]) -> list[Sample]:
    """The samples with titles, URLs and details cut so that they come to FACT_BYTES at most, if at all possible."""
    for characters in FACT_CHARS:
        cut = functools.partial(shortened, characters=characters)
        short = [
            dataclasses.replace(
                one,
                url=cut(one.url),
                detail=cut(one.detail),
                excerpt=dataclasses.replace(one.excerpt, title=cut(one.excerpt.title)),
                other=one.other and dataclasses.replace(one.other, title=cut(one.other.title)),
            )
            for one in samples
        ]
        facts = (
            fact
            for one in short
            for fact in (one.url, one.detail, one.excerpt.title, one.other and one.other.title)
            if fact
        )
        if sum(len(fact.encode("utf-8", "surrogatepass")) for fact in facts) <= FACT_BYTES:
            break
    return short


def _cleaning(data: Path, index: Path, identity: str, mask: bool, characters: int) -> list[Change]:
    """What cleaning changed in a document, a few lines of each stretch."""
    try:
        rows = {
            stage: read_row(data / place.file, place.row)
            for place in find_id(data, identity, index)
            for stage in ("scrape", "clean")
            if place.kind == "id" and place.file.startswith(f"{stage}/part-")
        }
    except (Outdated, UserError):
        return []
    before = text_before(rows["scrape"]) if "scrape" in rows else None
    if before is None or "clean" not in rows:
        return []
    before = mask_personal_data(beginning(before))[0] if mask else before
    found = changes(before, str(rows["clean"]["text"]), STRETCH_LINES)
    if all(change.kind == "same" for change in found):
        return []
    short: list[Change] = []
    for change in found[:STRETCHES]:
        lines = [line[:LINE_CHARS] for line in change.lines]
        characters -= sum(map(len, lines))
        if characters < 0 and short:
            break
        short.append(dataclasses.replace(change, lines=lines))
    left = sum(len(change.lines) + change.skipped for change in found[len(short) :])
    return [*short, Change("same", [], left)] if left else short


def _sample(row: Mapping[str, Any], mask: bool, others: Mapping[str, Excerpt], characters: int) -> Sample:
    kept = row["stratum"].startswith("kept ")
    reasons = [] if kept else row["reasons"] if row.get("reasons") else [row["reason"]]
    margins = row.get("margins") or [None] * len(reasons)
    failures = [Failure(reason, _value(row, reason), margin) for reason, margin in zip(reasons, margins, strict=False)]
    return Sample(
        row["id"],
        row.get("source"),
        shortened(row.get("url")),
        row.get("lang"),
        row["stage"],
        kept,
        _excerpt(row, mask, characters),
        failures,
        row["distance"],
        row["nearest"],
        shortened(row.get("detail")),
        row.get("similarity"),
        others.get(row.get("duplicate_of") or row.get("parent_id") or ""),
    )


def _value(row: Mapping[str, Any], reason: str) -> float | None:
    """The value of the signal that a rule of the filter looked at: `filter.mattr.min` looks at `mattr`."""
    words = reason.split(".")
    value = row.get(words[1]) if len(words) == 3 and words[0] == "filter" else None
    return float(value) if isinstance(value, int | float) else None
