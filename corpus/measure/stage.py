"""measure: a typed column per signal. Signals decide nothing; `filter` does."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from corpus.histograms import histogram, with_quantiles
from corpus.measure.characters import count_characters
from corpus.measure.chinese_words import joined_by_jieba
from corpus.measure.lexical import count_words
from corpus.measure.lines import count_lines
from corpus.measure.noise import noise_chars
from corpus.measure.own import own_signals, refuse_taken_names, source_digests
from corpus.measure.repetition import count_repeated_grams, count_repeated_lines
from corpus.measure.signals import ALL, columns, totals
from corpus.measure.stop_words import hashed_stop_words, list_number
from corpus.measure.topics import COLUMNS as TOPIC_COLUMNS
from corpus.measure.topics import TopicModel, fit_topics, model_key, topic_columns
from corpus.params import Measure, Topics
from corpus.stage import Metrics, Run, annotate, count_rows, side_by_side
from corpus.text.buffers import Texts
from corpus.text.segment import WORDS_VIEW, segment, words_view

READS = ("clean",)
VERSION = 3

SIGNALS = columns()
BATCH_BYTES = 4_000_000  # of text measured at once: bounds memory; a longer document takes up to 65 bytes a byte


def run(run: Run) -> Metrics:
    """Measure all documents; a `lang` column is used where there is one."""
    params = run.params.measure
    refuse_taken_names(params.signals, [*SIGNALS, *TOPIC_COLUMNS])
    models, topics = fit_topics(side_by_side(run), params.topics)
    metrics = annotate(
        run,
        functools.partial(measure, params=params, topics=models if params.topics.signal else {}),
        VERSION,
        params.model_copy(update={"topics": Topics()}),  # which decide nothing but what the model's key says
        source_digests(params.signals),
        model_key(models, params.topics) if params.topics.signal else "no topics",
        f"words view {WORDS_VIEW}, jieba {_jieba_version(params)}",
        metrics=functools.partial(_count, signals=[*SIGNALS, *params.signals]),
        columns=["text"],
        defaults={"lang": None},
    )
    metrics = with_quantiles(metrics)
    for language, facts in topics.items():
        metrics["languages"][language]["topics"] = facts
    return metrics


def measure(documents: pl.DataFrame, params: Measure, topics: Mapping[str, TopicModel] | None = None) -> pl.DataFrame:
    """The signals of a batch of documents (id, text, lang).

    Gives `id`, the columns of SIGNALS, `segmenter` (how words were cut: into words, for Chinese into characters or by
    jieba), those of `measure.signals` and, if `measure.topics.signal` says so, those of topics, null without a model.
    """
    languages = documents["lang"].cast(pl.String).to_list()
    segmenters = {language: _segmenter(language, params) for language in set(languages)}
    texts = Texts.of(documents["text"].to_arrow())
    counts, start = [], 0
    for run in texts.slices(len(texts), BATCH_BYTES):
        counts.append(_counts(run, languages[start : start + len(run)], params))
        start += len(run)
    text = pl.col("text").cast(pl.String).fill_null("")
    by_pattern = documents.select(noise=noise_chars(text, params.noise_pattern))
    counted = pl.concat([pl.concat(counts) if counts else _counts(texts, [], params), by_pattern], how="horizontal")
    measured = counted.with_columns(**totals()).select(
        *_expressions(),
        segmenter=pl.Series([segmenters[language] for language in languages], dtype=pl.String),
    )
    seen = pl.concat([documents.drop(measured.columns, strict=False), measured], how="horizontal")
    further = [own_signals(seen, params.signals)]
    if params.topics.signal:
        further.append(topic_columns(documents, topics or {}, params.topics))
    return pl.concat([documents.select("id"), measured, *further], how="horizontal")


def _counts(texts: Texts, languages: Sequence[str | None], params: Measure) -> pl.DataFrame:
    """What the kernels count."""
    of_language = {language: (_segmenter(language, params), list_number(language)) for language in set(languages)}
    by_jieba = [of_language[language][0] == "jieba" for language in languages]
    spans = segment(texts, words_view(), joined_by_jieba(texts, by_jieba) if any(by_jieba) else None, places=False)
    lists = np.array([of_language[language][1] for language in languages], np.int64)
    return pl.concat(
        [
            count_characters(texts),
            count_lines(texts),
            count_repeated_lines(texts),
            count_repeated_grams(spans),
            count_words(spans, params.mattr_window, hashed_stop_words(), lists),
            pl.DataFrame({"has_stop_words": lists >= 0}),
        ],
        how="horizontal",
    )


@functools.cache  # thousands of calls into Polars, otherwise for each batch
def _expressions() -> tuple[pl.Expr, ...]:
    """The columns of SIGNALS from the counts."""
    return tuple(signal().cast(SIGNALS[signal.__name__]).alias(signal.__name__) for signal in ALL)


def _jieba_version(params: Measure) -> str:
    """Of the segmenter, where it has a part in the result."""
    asked = params.segmenter == "jieba" or (params.topics.signal and params.topics.chinese == "jieba")
    installed = asked and importlib.util.find_spec("rjieba")
    return importlib.metadata.version("rjieba") if installed else "not asked"


def _segmenter(language: str | None, params: Measure) -> str:
    return params.segmenter if language is not None and language.split("-")[0] == "zh" else "words"


def _count(measured: pl.DataFrame, signals: Sequence[str]) -> Metrics:
    """Rows, and per language (`und` where it is not known) documents and a histogram of each signal."""
    languages = measured.with_columns(pl.col("lang").cast(pl.String).fill_null("und")).partition_by(
        "lang", as_dict=True
    )
    counts = {
        str(language): {
            "documents": documents.height,
            "signals": {signal: histogram(documents[signal]) for signal in signals},
        }
        for (language,), documents in languages.items()
    }
    return count_rows(rows_in=measured.height, dropped={}) | {"languages": counts}
