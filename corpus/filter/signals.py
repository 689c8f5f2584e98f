"""What the filter judges by, read from the annotations: a column at a time, never a text."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from corpus.documents import open_part, read_columns
from corpus.errors import StageError, UserError
from corpus.filter.bounds import Quantiles, resolve_rule
from corpus.filter.decide import Limit
from corpus.filter.profile import LANGUAGE_MODEL_SIGNALS, Profile, check_signals, profiles_of, rules_of
from corpus.params import Filter
from corpus.stage import Part, Run

Profiles = Mapping[str, Profile]  # by language

NO_SIGNALS = {"batch", "lang_score", "similarity", "kept"}  # numbers and truths that do not describe a text


@dataclasses.dataclass(frozen=True)
class Judged:
    """All documents with what rules need: `lang`, `kept` (by the stages before, never null) and signals as Float64.

    Rows are those of the parts, one after the other: 8 bytes a signal and document.
    """

    values: pl.DataFrame
    languages: list[str]  # of the documents still kept, sorted


def read_judged(parts: Sequence[Part], *settings: Filter, everything: bool = False) -> Judged:
    """The signals that the rules of the documents' languages need under these settings, or all that all parts have.

    Raises UserError for a language without profile, a signal that the input lacks (also where params name it for a
    language that no document has), words cut otherwise than a profile wants them; StageError for parts that do not
    belong together.
    """
    layouts = [layout_of(part) for part in parts]
    every = [(profiles_of(params), params) for params in settings]
    facts = pl.concat([_read_facts(layout, every[0][0]) for layout in layouts])
    wanted: dict[str, None] = {}
    for profiles, params in every:
        languages = _languages(facts, profiles)
        check_segmenters(facts, {language: profiles[language] for language in languages}, params)
        named = {language: [signal for signal, b in own.items() if b] for language, own in params.bounds.items()}
        rules = {language: list(rules_of(profiles[language])) for language in languages}
        for layout in layouts:
            for language, own in (named | rules).items():
                check_signals(language, own, layout.signals)
        wanted |= dict.fromkeys(signal for own in rules.values() for signal in own)
    besides = [s for s in layouts[0].signals if all(s in other.signals for other in layouts)] if everything else []
    wanted |= dict.fromkeys(besides)
    values = facts.select("lang", "kept")
    if wanted:
        values = values.hstack(pl.concat([read_signals(layout, list(wanted)) for layout in layouts]))
    return Judged(values, languages)


def limits_of(
    judged: Judged, profiles: Profiles, reference: Quantiles, known: dict[Any, Any] | None = None
) -> tuple[dict[str, list[Limit]], dict[str, dict[str, Any]]]:
    """The limits of each language, and for the metrics by language and `<signal>.<side>` where each comes from.

    `known` remembers what was found for each rule, for a second call with other profiles on the same documents.
    """
    known = {} if known is None else known
    limits: dict[str, list[Limit]] = {}
    bounds: dict[str, dict[str, Any]] = {}
    for language in judged.languages:
        limits[language], bounds[language] = [], {}
        mine = judged.values["kept"] & (judged.values["lang"] == language)
        for signal, rule in rules_of(profiles[language]).items():
            key = (language, signal, rule)
            if key not in known:
                # One signal at a time: percentiles and spreads need a copy of what they are taken of.
                values = judged.values[signal].filter(mine).rechunk()
                known[key] = resolve_rule(language, signal, rule, values, reference)
            own, facts = known[key]
            limits[language] += own
            bounds[language] |= facts
    return limits, bounds


def check_segmenters(facts: pl.DataFrame, profiles: Profiles, params: Filter) -> None:
    """Raises UserError where a profile's values are for words cut in another way than the documents' words were."""
    for language, profile in profiles.items():
        if profile.segmenter is None:
            continue
        own = facts.filter(pl.col("kept") & (pl.col("lang") == language))["segmenter"].drop_nulls()
        for segmenter in own.unique().sort():
            if segmenter != profile.segmenter:
                raise UserError(
                    f"filter.profile.{language}: the values of {params.profile[language]} are for words cut by"
                    f" {profile.segmenter!r}, and documents in {language} were cut by {segmenter!r}: set"
                    f" measure.segmenter={profile.segmenter} and measure again, or name another profile"
                )


def reference_quantiles(run: Run, profiles: Profiles) -> Quantiles:
    """What the reference stage says of its held-out documents, if a rule asks: language -> signal -> 99 percentiles.

    Raises UserError if a rule needs them and there is no reference.
    """
    needed = [
        f"filter.bounds.{language}.{signal}"
        for language, profile in profiles.items()
        for signal, rule in rules_of(profile).items()
        if rule.of == "reference" and (rule.min_percentile is not None or rule.max_percentile is not None)
    ]
    for key in needed:
        if key.rpartition(".")[2] not in LANGUAGE_MODEL_SIGNALS:
            raise UserError(
                f"{key}: trusted text has percentiles of {', '.join(LANGUAGE_MODEL_SIGNALS)} alone;"
                " those of other signals are of the corpus"
            )
    folder = run.folder("reference")
    if not needed:
        return {}
    if not folder.is_dir():
        raise UserError(f"{needed[0]} is a percentile of the reference, but {folder} does not exist: run reference")
    facts = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
    models = {language: own["quantiles"] for language, own in facts.items() if "fingerprint" in own}
    return {
        language: {signal: values for signal, values in own.items() if None not in values}  # null: of no document
        for language, own in models.items()
    }


# ---- columns of parts ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which file of a part has which column, the last one where several do, and which columns are signals."""

    part: Part
    files: dict[str, Path]
    signals: list[str]  # numbers and truths, in the order of the files


def layout_of(part: Part) -> Layout:
    """The columns of a part. Raises StageError where its files differ in rows or ids, as built from different parts."""
    files: dict[str, Path] = {}
    signals: dict[str, None] = {}
    first, ids, rows = part.files[0], None, None
    for path in part.files:
        opened = open_part(path)
        if "id" not in opened.schema_arrow.names:
            raise UserError(f"{path} has no column `id`: it has {', '.join(opened.schema_arrow.names)}")
        own = read_file(path, ["id"], part.rows)["id"].cast(pl.String)
        ids, rows = (own, opened.metadata.num_rows) if ids is None else (ids, rows)
        if opened.metadata.num_rows != rows:
            raise StageError(
                f"{path} has {opened.metadata.num_rows} rows, {first} has {rows}: build it again; "
                "more documents, unlike annotations, go as further files into one folder"
            )
        if not own.equals(ids):
            raise StageError(f"the ids of {path} are not those of {first}, row by row: build it again")
        files |= dict.fromkeys(opened.schema_arrow.names, path)
        signals |= dict.fromkeys(field.name for field in opened.schema_arrow if _is_signal(field))
    return Layout(part, files, list(signals))


def read_signals(layout: Layout, names: Sequence[str]) -> pl.DataFrame:
    """Signals of a part as Float64, a Boolean as 0 or 1."""
    frames = [
        read_file(path, [name for name in names if layout.files[name] == path], layout.part.rows)
        for path in dict.fromkeys(layout.files[name] for name in names)
    ]
    # Each row group came as a piece of its own, and medians of a thousand pieces are slow.
    return pl.concat(frames, how="horizontal").select(pl.col(name).cast(pl.Float64) for name in names).rechunk()


def first_rows(parts: Sequence[Part]) -> dict[Part, int]:
    """The row of `Judged.values` at which each part begins."""
    return dict(zip(parts, itertools.accumulate((part.rows for part in parts), initial=0), strict=False))


def read_ids(part: Part) -> pl.Series:
    """The ids of a part's documents, as text."""
    return read_file(part.files[0], ["id"], part.rows)["id"].cast(pl.String)


def read_file(path: Path, columns: Sequence[str], rows: int) -> pl.DataFrame:
    """The first rows of some columns of a Parquet file. Raises UserError where it is damaged."""
    return pl.DataFrame(read_columns(path, columns)).head(rows)


def _is_signal(field: pa.Field) -> bool:
    kind = field.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return numeric and field.name not in NO_SIGNALS


def _read_facts(layout: Layout, profiles: Profiles) -> pl.DataFrame:
    """Language, whether the stages before kept it, and what cut its words, of each document of a part."""
    if len(profiles) > 1 and "lang" not in layout.files:
        raise UserError(f"{layout.part} has no column `lang`: add the annotation that has it as a further --input")
    # One profile needs no column that names the language.
    defaults = {"lang": next(iter(profiles), None), "kept": True, "segmenter": None}
    here = [read_file(layout.files[name], [name], layout.part.rows) for name in defaults if name in layout.files]
    frame = pl.concat(here or [read_file(layout.part.files[0], ["id"], layout.part.rows)], how="horizontal")
    missing = [pl.lit(value).alias(name) for name, value in defaults.items() if name not in layout.files]
    return (
        frame.with_columns(missing)
        .select(
            pl.col("lang").cast(pl.String),
            pl.col("kept").cast(pl.Boolean).fill_null(False),
            pl.col("segmenter").cast(pl.String),
        )
        .rechunk()
    )


def _languages(facts: pl.DataFrame, profiles: Profiles) -> list[str]:
    """The languages of the documents judged. Raises UserError for one that has no profile."""
    languages = facts.filter("kept")["lang"].unique().sort().to_list()
    for language in languages:
        if language is None:
            raise UserError("the input has documents without `lang`: set lang in their source, or let clean detect it")
        if language not in profiles:
            raise UserError(
                f"filter.profile.{language} is missing, and documents are in {language}: name a profile there"
                f" (filter.profile has {', '.join(profiles)}; profiles are files in corpus/filter/profiles)"
            )
    return languages
