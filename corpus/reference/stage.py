"""reference: an n-gram language model per language, with the scores of documents it was not trained on.

Writes per language of `reference.texts` the model (see corpus.text.ngram_files) and in LANGUAGE.json `quantiles`: of
each column of `perplexity`, the values at the percentiles 1 to 99 of the held-out documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from corpus.errors import UserError
from corpus.params import Reference
from corpus.reference.texts import read_texts, set_aside
from corpus.stage import Metrics, Run, count_rows
from corpus.text.buffers import Texts
from corpus.text.ngram_files import export_arpa, save
from corpus.text.ngram_lm import NgramModel, score_texts
from corpus.text.ngram_train import Numbered, Trained, number_tokens, train

READS = ()
VERSION = 2

MIN_DOCUMENTS = 10
MIN_TOKENS = 2_000
DEFAULT_ORDER = 3
QUANTILES_OF = ("ppl", "ppl_excl_oov", "oov_rate", "fluency_gain", "word_gain")

_DOCUMENTS = 1_000  # encoded at a time


def run(run: Run) -> Metrics:
    """Train all models. Counts the documents of the trusted texts, held-out ones included.

    Raises UserError for texts that are missing or too small.
    """
    params = run.params.reference
    if run.inputs:
        raise UserError("--input: reference reads the files that reference.texts names, not documents")
    if not params.texts:
        raise UserError("reference.texts is empty: name trusted text, for example reference.texts.en=[trusted.txt]")
    languages: dict[str, Metrics] = {}
    for language, paths in sorted(params.texts.items()):
        texts = [text for path in paths for text in read_texts(path)][: run.limit]
        training, heldout = set_aside(texts, params.heldout)
        numbered = number_tokens(encoded(training))
        _refuse_small(language, ", ".join(map(str, paths)) or "no file", len(texts), numbered.tokens)
        trained = train_language(numbered, language, params)
        _refuse_pruned(language, params.prune.get(language, []), trained)
        quantiles = heldout_quantiles(trained.model, heldout)
        facts = {"documents": len(texts), "heldout": len(heldout), "tokens": numbered.tokens}
        save(trained, run.output, language, facts | {"quantiles": quantiles})
        if params.arpa:
            export_arpa(trained, run.output / f"{language}.arpa")
        languages[language] = facts | {
            "order": trained.model.order,
            "vocabulary": int(np.count_nonzero(trained.ngrams[0].kept)),
            "ngrams": sum(int(np.count_nonzero(ngrams.kept)) for ngrams in trained.ngrams),
            "heldout_ppl": quantiles["ppl"][49],
            "heldout_oov_rate": quantiles["oov_rate"][49],
            "fingerprint": trained.model.fingerprint,
        }
    documents = sum(facts["documents"] for facts in languages.values())
    return count_rows(rows_in=documents, dropped={}) | {"languages": languages}


def train_language(numbered: Numbered, language: str, params: Reference) -> Trained:
    """The model of a language, of the order and pruned as its parameters say."""
    return train(numbered, params.order.get(language, DEFAULT_ORDER), params.prune.get(language, ()))


def encoded(texts: Sequence[str]) -> Iterator[Texts]:
    """Strings as buffers, some at a time."""
    for start in range(0, len(texts), _DOCUMENTS):
        yield Texts.of_strings(texts[start : start + _DOCUMENTS])


def heldout_quantiles(model: NgramModel, texts: Sequence[str]) -> dict[str, list[float | None]]:
    """Of each column of `perplexity`, its values at the percentiles 1 to 99 of some documents."""
    scores = score_texts(model, Texts.of_strings(texts))
    percentiles = np.arange(1, 100)
    values = {column: scores[column].drop_nulls().to_numpy() for column in QUANTILES_OF}
    return {
        column: np.percentile(own, percentiles).tolist() if len(own) else [None] * len(percentiles)
        for column, own in values.items()
    }


def _refuse_pruned(language: str, prune: Sequence[int], trained: Trained) -> None:
    """A model of nothing knows nothing."""
    empty = [
        length for length, ngrams in enumerate(trained.ngrams, start=1) if not ngrams.kept[2 * (length == 1) :].any()
    ]
    if empty:
        raise UserError(
            f"reference.prune.{language}: {list(prune)} leaves no n-gram of length {empty[0]}: the most frequent one"
            f" occurs {trained.ngrams[empty[0] - 1].counts[2 * (empty[0] == 1) :].max()} times"
        )


def _refuse_small(language: str, paths: str, documents: int, tokens: int) -> None:
    """Too little text gives a model for which everything is a surprise."""
    if documents < MIN_DOCUMENTS or tokens < MIN_TOKENS:
        raise UserError(
            f"reference.texts.{language}: {paths} holds {documents} documents and {tokens:,} tokens to train on; "
            f"a model needs {MIN_DOCUMENTS} documents, with lines of --- between them, and {MIN_TOKENS:,} tokens "
            "(words, Chinese characters) or more"
        )
