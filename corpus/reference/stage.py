"""reference: an n-gram language model per language, with the scores of documents it was not trained on.

Writes per language of `reference.texts` the model (see corpus.text.ngram_lm) and LANGUAGE.json with `quantiles`: of
each column of `perplexity`, the values at the percentiles 1 to 99 of the held-out documents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corpus.errors import UserError
from corpus.reference.texts import read_texts, set_aside
from corpus.stage import Metrics, Run, count_rows
from corpus.text import ngram_lm
from corpus.text.segment import lm_sentences

READS = ()
VERSION = 1

MIN_DOCUMENTS = 10
MIN_TOKENS = 2_000
DEFAULT_ORDER = 3
QUANTILES_OF = ("ppl", "ppl_excl_oov", "oov_rate", "fluency_gain")


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
        sentences = [sentence for text in training for sentence in lm_sentences(text)]
        tokens = sum(map(len, sentences))
        _refuse_small(language, ", ".join(map(str, paths)) or "no file", len(texts), tokens)
        model = ngram_lm.train(sentences, params.order.get(language, DEFAULT_ORDER))
        quantiles = heldout_quantiles(model, heldout)
        facts = {"documents": len(texts), "heldout": len(heldout), "tokens": tokens}
        ngram_lm.save(model, run.output, language, facts | {"quantiles": quantiles})
        languages[language] = facts | {
            "order": len(model.tables),
            "vocabulary": len(model.vocabulary),
            "ngrams": sum(len(table.keys) for table in model.tables),
            "heldout_ppl": quantiles["ppl"][49],
            "heldout_oov_rate": quantiles["oov_rate"][49],
            "fingerprint": model.fingerprint,
        }
    documents = sum(facts["documents"] for facts in languages.values())
    return count_rows(rows_in=documents, dropped={}) | {"languages": languages}


def heldout_quantiles(model: ngram_lm.NgramModel, texts: Sequence[str]) -> dict[str, list[float]]:
    """Of each column of `perplexity`, its values at the percentiles 1 to 99 of some documents."""
    scores = ngram_lm.score_texts(model, texts)
    values = {column: np.array([getattr(score, column) for score in scores], np.float64) for column in QUANTILES_OF}
    return {column: np.percentile(own, np.arange(1, 100)).tolist() for column, own in values.items()}


def _refuse_small(language: str, paths: str, documents: int, tokens: int) -> None:
    """Too little text gives a model for which everything is a surprise."""
    if documents < MIN_DOCUMENTS or tokens < MIN_TOKENS:
        raise UserError(
            f"reference.texts.{language}: {paths} holds {documents} documents and {tokens:,} tokens to train on; "
            f"a model needs {MIN_DOCUMENTS} documents, with lines of --- between them, and {MIN_TOKENS:,} tokens "
            "(words, Chinese characters) or more"
        )
