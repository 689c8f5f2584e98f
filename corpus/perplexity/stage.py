"""perplexity: each document's score under the reference model of its language.

- `ppl` (float64, from 1): perplexity a token, sentence ends included. A token is a word in English and a character in
  Chinese, so values compare within one language and model only.
- `ppl_excl_oov` (float64, from 1): the same over the tokens that the model's vocabulary has.
- `oov_rate` (float64, 0 to 1): share of tokens that it lacks; high for OCR errors and foreign text.
- `fluency_gain` (float64): nats a token that the context saves against a unigram model, over the tokens of the
  vocabulary; near 0 or below for shuffled words.
- `lm_tokens` (int64): tokens scored, sentence ends included, `perplexity.max_tokens` at most.

Null (and 0 tokens) where the language has no model or the text no token.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from corpus.documents import open_part
from corpus.errors import UserError
from corpus.histograms import histogram, with_quantiles
from corpus.stage import Metrics, Part, Run, annotate, count_rows, side_by_side
from corpus.text.ngram_lm import NgramModel, describe_models, load, score_texts

READS = ("clean",)
VERSION = 1

COLUMNS = {
    "ppl": pl.Float64,
    "ppl_excl_oov": pl.Float64,
    "oov_rate": pl.Float64,
    "fluency_gain": pl.Float64,
    "lm_tokens": pl.Int64,
}


def run(run: Run) -> Metrics:
    """Score all documents; those without a `lang` column have the language of the only model."""
    folder = run.folder("reference")
    fingerprints = {language: facts["fingerprint"] for language, facts in describe_models(folder).items()}
    assumed = _assumed_language(side_by_side(run), list(fingerprints))
    function = functools.partial(
        perplexity, folder=folder, fingerprints=fingerprints, max_tokens=run.params.perplexity.max_tokens
    )
    metrics = annotate(
        run,
        function,
        VERSION,
        run.params.perplexity,
        json.dumps([fingerprints, assumed], sort_keys=True),
        metrics=_count,
        columns=["text"],
        defaults={"lang": assumed},
    )
    return with_quantiles(metrics) | {"models": fingerprints}


def perplexity(documents: pl.DataFrame, folder: Path, fingerprints: Mapping[str, str], max_tokens: int) -> pl.DataFrame:
    """The scores of a batch of documents (id, text, lang) under the models in a folder: `id` and COLUMNS."""
    rows: list[dict[str, Any]] = [dict.fromkeys(COLUMNS) | {"lm_tokens": 0}] * documents.height
    texts = documents["text"].cast(pl.String).fill_null("")
    languages = [model_language(language, fingerprints) for language in documents["lang"]]
    for language in sorted({own for own in languages if own}):
        mine = [row for row, own in enumerate(languages) if own == language]
        model = _load_once(folder, language, fingerprints[language])
        for row, score in zip(mine, score_texts(model, texts[mine], max_tokens), strict=True):
            rows[row] = dataclasses.asdict(score)
    return pl.concat([documents.select("id"), pl.DataFrame(rows, COLUMNS)], how="horizontal")


def model_language(language: str | None, models: Iterable[str]) -> str | None:
    """The model for a language: its own, or that of the tag with less and less said (RFC 4647, lookup).

    >>> model_language("en-GB", ["en", "zh-Hans"]), model_language("zh-Hant", ["en", "zh-Hans"])
    ('en', None)
    """
    while language and language not in models:
        language = language.rpartition("-")[0]
    return language or None


@functools.lru_cache(maxsize=8)  # once a process, not once a batch; the fingerprint is of the content
def _load_once(folder: Path, language: str, fingerprint: str) -> NgramModel:
    return load(folder, language, fingerprint)


def _assumed_language(parts: Iterable[Part], models: list[str]) -> str | None:
    """The language of documents without a column `lang`. Raises UserError if there are such and several models."""
    for part in parts:
        if not any("lang" in open_part(path).schema_arrow.names for path in part.files):
            if len(models) > 1:
                raise UserError(
                    f"{part} has no column `lang` to choose between the models of {', '.join(models)}: add one, with "
                    "values like these"
                )
            return models[0]
    return None


def _count(scored: pl.DataFrame) -> Metrics:
    """Rows, and per language (`und` where it is not known) the documents that have a score, tokens, histograms."""
    languages = scored.with_columns(pl.col("lang").cast(pl.String).fill_null("und")).partition_by("lang", as_dict=True)
    counts = {
        str(language): {
            "documents": documents.height,
            "scored": documents["ppl"].count(),
            "tokens": documents["lm_tokens"].sum(),
            "signals": {column: histogram(documents[column]) for column in COLUMNS},
        }
        for (language,), documents in languages.items()
    }
    return count_rows(rows_in=scored.height, dropped={}) | {"languages": counts}
