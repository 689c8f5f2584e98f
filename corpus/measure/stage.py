"""measure: a typed column per signal. Signals decide nothing; `filter` does."""

from __future__ import annotations

import functools

import polars as pl

from corpus.histograms import histogram, with_quantiles
from corpus.measure import characters, lexical
from corpus.measure.noise import noise_ratio
from corpus.measure.stop_words import stop_words
from corpus.params import Measure
from corpus.stage import Metrics, Run, annotate, count_rows
from corpus.text.segment import words

READS = ("clean",)
VERSION = 1

SIGNALS = {
    "n_chars": pl.Int64,
    "n_words": pl.Int64,
    "n_lines": pl.Int64,
    "mean_word_length": pl.Float64,
    "symbol_ratio": pl.Float64,
    "digit_ratio": pl.Float64,
    "uppercase_ratio": pl.Float64,
    "punctuation_ratio": pl.Float64,
    "alpha_ratio": pl.Float64,
    "noise_ratio": pl.Float64,
    "han_ratio": pl.Float64,
    "ttr": pl.Float64,
    "mattr": pl.Float64,
    "duplicate_line_ratio": pl.Float64,
    "stop_word_ratio": pl.Float64,  # null for a language without a list
}


def run(run: Run) -> Metrics:
    """Measure all documents; a `lang` column is used where there is one."""
    function = functools.partial(measure, params=run.params.measure)
    metrics = annotate(
        run, function, VERSION, run.params.measure, metrics=_count, columns=["text"], defaults={"lang": None}
    )
    return with_quantiles(metrics)


def measure(documents: pl.DataFrame, params: Measure) -> pl.DataFrame:
    """The signals of a batch of documents (id, text, lang): `id` and the columns of SIGNALS."""
    text = pl.col("text").cast(pl.String).fill_null("")
    by_character = documents.select(
        "id",
        n_chars=characters.n_chars(text),
        n_lines=characters.n_lines(text),
        symbol_ratio=characters.symbol_ratio(text),
        digit_ratio=characters.digit_ratio(text),
        uppercase_ratio=characters.uppercase_ratio(text),
        punctuation_ratio=characters.punctuation_ratio(text),
        alpha_ratio=characters.alpha_ratio(text),
        noise_ratio=noise_ratio(text, params.noise_pattern),
        han_ratio=characters.han_ratio(text),
        duplicate_line_ratio=characters.duplicate_line_ratio(text),
    )
    rows = [
        _measure_words(value or "", language, params.mattr_window)
        for value, language in documents.select("text", "lang").iter_rows()
    ]
    by_word = pl.DataFrame(rows, _WORD_SIGNALS, orient="row")
    return pl.concat([by_character, by_word], how="horizontal").select("id", *SIGNALS)


_WORD_SIGNALS = {name: SIGNALS[name] for name in ("n_words", "mean_word_length", "ttr", "mattr", "stop_word_ratio")}


def _measure_words(text: str, language: str | None, window: int) -> tuple[int, float, float, float, float | None]:
    found = words(text.lower())
    known = stop_words(language)
    return (
        len(found),
        lexical.mean_word_length(found),
        lexical.ttr(found),
        lexical.mattr(found, window),
        None if known is None else lexical.stop_word_ratio(found, known),
    )


def _count(measured: pl.DataFrame) -> Metrics:
    """Rows, and per language (`und` where it is not known) documents and a histogram of each signal."""
    languages = measured.with_columns(pl.col("lang").cast(pl.String).fill_null("und")).partition_by(
        "lang", as_dict=True
    )
    counts = {
        str(language): {
            "documents": documents.height,
            "signals": {signal: histogram(documents[signal]) for signal in SIGNALS},
        }
        for (language,), documents in languages.items()
    }
    return count_rows(rows_in=measured.height, dropped={}) | {"languages": counts}
