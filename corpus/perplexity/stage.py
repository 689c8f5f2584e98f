"""perplexity: each document's score under the reference models.

- `ppl` (float64, from 1): perplexity a token, sentence ends included. A token is a word in English and a character in
  Chinese, so values compare within one language and model only.
- `ppl_excl_oov` (float64, from 1): the same over the tokens that the model's vocabulary has.
- `oov_rate` (float64, 0 to 1): share of tokens that it lacks; high for OCR errors and foreign text.
- `fluency_gain` (float64): nats a token that the context saves against a unigram model, over the tokens of the
  vocabulary; near 0 or below where characters are shuffled, decoded wrongly, or lists.
- `word_gain` (float64): the same over words (in Chinese, characters) that follow a word; below 0 for shuffled words.
- `lm_tokens` (int64): tokens scored, sentence ends included, `perplexity.max_tokens` at most.

Null (and 0 tokens) where the language has no model or the text no token, and what one of `perplexity.model`, which can
stand for those of `reference`, cannot tell.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from corpus.documents import open_part
from corpus.errors import UserError
from corpus.histograms import histogram, with_quantiles
from corpus.params import Perplexity
from corpus.perplexity import other_models
from corpus.stage import Metrics, Part, Run, annotate, count_rows, side_by_side
from corpus.text.buffers import Texts
from corpus.text.ngram_files import describe_models, load
from corpus.text.ngram_lm import COLUMNS, NgramModel, score_texts

READS = ("clean",)
VERSION = 2


@dataclasses.dataclass(frozen=True)
class OwnModel:
    """A model of `reference`."""

    folder: Path
    language: str
    fingerprint: str


Models = Mapping[str, OwnModel | other_models.Located]  # by language


def run(run: Run) -> Metrics:
    """Score all documents; those without a `lang` column have the language of the only model."""
    models = find_models(run.folder("reference"), run.params.perplexity)
    fingerprints = {language: model.fingerprint for language, model in models.items()}
    assumed = _assumed_language(side_by_side(run), list(models))
    metrics = annotate(
        run,
        functools.partial(perplexity, models=models, max_tokens=run.params.perplexity.max_tokens),
        VERSION,
        str(run.params.perplexity.max_tokens),
        json.dumps([fingerprints, assumed], sort_keys=True),
        metrics=_count,
        columns=["text"],
        defaults={"lang": assumed},
    )
    return with_quantiles(metrics) | {"models": fingerprints}


def find_models(folder: Path, params: Perplexity) -> Models:
    """By language, in order: what `perplexity.model` names, and the models of `reference` for all others.

    Raises UserError where there is none at all.
    """
    others = {
        language: other_models.locate(settings, f"perplexity.model.{language}")
        for language, settings in params.model.items()
    }
    described = {} if others and not any(folder.glob("*.json")) else describe_models(folder)
    models: dict[str, OwnModel | other_models.Located] = {
        language: OwnModel(folder, language, facts["fingerprint"]) for language, facts in described.items()
    }
    return dict(sorted((models | others).items()))


def perplexity(documents: pl.DataFrame, models: Models, max_tokens: int) -> pl.DataFrame:
    """The scores of a batch of documents (id, text, lang) under the models of their languages: `id` and COLUMNS."""
    chosen = [model_language(language, models) for language in documents["lang"]]
    texts = documents["text"].cast(pl.String).fill_null("")
    scored = [pl.DataFrame(schema={"row": pl.Int64, **COLUMNS})]
    for language in sorted({own for own in chosen if own}):
        rows = pl.Series("row", [row for row, own in enumerate(chosen) if own == language], pl.Int64)
        scores = _scores(models[language], texts.gather(rows), max_tokens)
        scored.append(scores.select(rows, *COLUMNS))
    every = documents.select("id").with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    joined = every.join(pl.concat(scored), on="row", how="left", maintain_order="left")
    return joined.drop("row").with_columns(pl.col("lm_tokens").fill_null(0))


def _scores(model: OwnModel | other_models.Located, texts: pl.Series, max_tokens: int) -> pl.DataFrame:
    if isinstance(model, OwnModel):
        buffers = Texts.of(texts.to_arrow(compat_level=pl.CompatLevel.oldest()))
        return score_texts(_load_once(model), buffers, max_tokens)
    return other_models.score(model, texts.to_list(), max_tokens)


def model_language(language: str | None, models: Iterable[str]) -> str | None:
    """The model for a language: its own, or that of the tag with less and less said (RFC 4647, lookup).

    >>> model_language("en-GB", ["en", "zh-Hans"]), model_language("zh-Hant", ["en", "zh-Hans"])
    ('en', None)
    """
    while language and language not in models:
        language = language.rpartition("-")[0]
    return language or None


@functools.lru_cache(maxsize=8)  # once a process, not once a batch; the fingerprint is of the content
def _load_once(model: OwnModel) -> NgramModel:
    return load(model.folder, model.language, model.fingerprint)


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
