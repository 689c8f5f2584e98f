"""Keep documents whose signals lie within the bounds of their language's profile.

Signals are not decisions: no text is read here, so that another threshold costs a second. Each dropped document lists
all rules that it failed and by how much.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from corpus.documents import open_part
from corpus.errors import UserError
from corpus.filter.bounds import Quantiles, resolve
from corpus.filter.decide import Limit, decide
from corpus.filter.profile import Rule, check_signals, load_profile, override
from corpus.params import Filter
from corpus.stage import Metrics, Part, Run, annotate, batches, count_rows, side_by_side

READS = ("clean", "measure", "perplexity", "dedup")
VERSION = 1


def run(run: Run) -> Metrics:
    """Annotate documents with kept, reasons and margins; those that dedup dropped are not judged.

    Memory: the signals that rules name, 8 bytes each a document, while percentiles and spreads are computed.
    """
    parts = side_by_side(run)
    rules = _rules(run.params.filter)
    needed, defaults = _needed_columns(rules)
    languages = _languages(parts, needed, defaults, rules)
    signals = _signals(parts, rules, languages, run.params.filter)
    columns = [*needed, *signals]
    values = _judged(parts, columns, defaults, signals)

    reference = _reference_quantiles(run, rules)
    limits: dict[str, list[Limit]] = {}
    bounds: dict[str, Any] = {}
    for language in languages:
        judged = values.filter(pl.col("lang") == language)
        limits[language], bounds[language] = resolve(language, rules[language], judged, reference)
    key = json.dumps({language: [vars(limit) for limit in own] for language, own in limits.items()})
    function = functools.partial(decide, limits=limits)
    metrics = annotate(run, function, VERSION, key, metrics=_count, columns=columns, defaults=defaults)
    return {**metrics, "bounds": bounds}


def _rules(params: Filter) -> dict[str, dict[str, Rule]]:
    """The rules of each language: its profile, with what params change. Raises UserError for an unknown profile."""
    rules = {language: load_profile(name, language).rules for language, name in params.profile.items()}
    for language in params.bounds:
        if language not in rules:
            raise UserError(
                f"filter.bounds.{language}: filter.profile has no profile for it, only for {', '.join(rules)}"
            )
    return {language: override(own, params.bounds.get(language, {})) for language, own in rules.items()}


def _signals_of(part: Part) -> set[str]:
    """The numeric columns of a part and its annotations."""
    fields = [field for path in part.files for field in open_part(path).schema_arrow]
    return {field.name for field in fields if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)} - {
        "batch",
        "lang_score",
        "similarity",
    }


def _needed_columns(rules: Mapping[str, object]) -> tuple[list[str], dict[str, Any]]:
    """What must be there besides signals, and what stands in: one language needs no column that names it."""
    return ([], {"kept": True, "lang": next(iter(rules))}) if len(rules) == 1 else (["lang"], {"kept": True})


def _languages(
    parts: Sequence[Part], columns: Sequence[str], defaults: Mapping[str, Any], rules: Mapping[str, object]
) -> list[str]:
    """The languages of the documents judged. Raises UserError for one that has no profile."""
    found = pl.concat(
        batch.filter(pl.col("kept").fill_null(False)).select(pl.col("lang").cast(pl.String).unique())
        for part in parts
        for batch in batches(part, columns, defaults)
    )
    languages = found["lang"].unique().sort().to_list()
    for language in languages:
        if language is None:
            raise UserError("the input has documents without `lang`: set lang in their source, or let clean detect it")
        if language not in rules:
            raise UserError(
                f"filter.profile.{language} is missing, and documents are in {language}: name a profile there"
                f" (filter.profile has {', '.join(rules)}; profiles are files in corpus/filter/profiles)"
            )
    return languages


def _signals(
    parts: Sequence[Part], rules: Mapping[str, Mapping[str, Rule]], languages: Sequence[str], params: Filter
) -> list[str]:
    """The signals that the rules of these languages need.

    Raises UserError for one that the input lacks; also where params name it for a language that no document has.
    """
    named = {language: [signal for signal, bound in own.items() if bound] for language, own in params.bounds.items()}
    wanted = named | {language: list(rules[language]) for language in languages}
    for part in parts:
        known = _signals_of(part)
        for language, own in wanted.items():
            check_signals(language, own, known)
    return list(dict.fromkeys(signal for language in languages for signal in rules[language]))


def _judged(
    parts: Sequence[Part], columns: Sequence[str], defaults: Mapping[str, Any], signals: Sequence[str]
) -> pl.DataFrame:
    """Language and signals of all documents that no stage before dropped."""
    exact = [pl.col("lang").cast(pl.String), *(pl.col(signal).cast(pl.Float64) for signal in signals)]
    return pl.concat(
        batch.filter(pl.col("kept").fill_null(False)).select(exact)
        for part in parts
        for batch in batches(part, columns, defaults)
    )


def _count(seen: pl.DataFrame) -> Metrics:
    """Counts of a batch: each dropped document once under its first failed rule, failed_rules all of them."""
    judged = seen.filter(pl.col("kept").is_not_null())
    failed = judged.filter(~pl.col("kept"))["reasons"]
    first = dict(failed.list.first().value_counts(sort=True).rows())
    languages = {
        str(language): {"in": own.height, "dropped": own.filter(~pl.col("kept")).height}
        for (language,), own in judged.group_by("lang", maintain_order=True)
    }
    return {
        **count_rows(rows_in=judged.height, dropped=first),
        "failed_rules": dict(failed.explode().value_counts(sort=True).rows()),
        "languages": languages,
    }


def _reference_quantiles(run: Run, rules: Mapping[str, Mapping[str, Rule]]) -> Quantiles:
    """What the reference stage says of its held-out documents, if a rule asks: language -> signal -> 99 percentiles.

    Raises UserError if a rule needs them and there is no reference.
    """
    needed = [
        f"filter.bounds.{language}.{signal}"
        for language, own in rules.items()
        for signal, rule in own.items()
        if rule.of == "reference" and (rule.min_percentile is not None or rule.max_percentile is not None)
    ]
    folder = run.folder("reference")
    if not needed:
        return {}
    if not folder.is_dir():
        raise UserError(f"{needed[0]} is a percentile of the reference, but {folder} does not exist: run reference")
    facts = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
    return {language: own["quantiles"] for language, own in facts.items() if "fingerprint" in own}
