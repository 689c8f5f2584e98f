"""Topics within the stage: in the metrics, as columns on request, and without remaking parts that they do not touch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from corpus.measure import stage
from corpus.params import Measure, Params
from corpus.stage import Run, execute

HARBOUR = "The ship left the harbour at dawn and the sailors set their sails against the tide number {}."
KITCHEN = "Boil the noodles in salted water, chop the onion and stir the sauce with butter for {} minutes."


@pytest.fixture
def corpus(tmp_path: Path, write_documents: Callable[..., Path]) -> Run:
    texts = [text.format(number) for number in range(12) for text in (HARBOUR, KITCHEN)]
    write_documents(tmp_path / "clean" / "part-en-0-00000.parquet", texts, lang="en")
    params = Params(measure=Measure.model_validate({"topics": {"count": 2}}))
    return Run(
        "measure", params, (tmp_path / "clean",), tmp_path / "out", tmp_path, tmp_path / "reports", tmp_path / "home"
    )


def with_topics(run: Run, **values: object) -> Run:
    measure = Measure.model_validate({"topics": {"count": 2, **values}})
    return dataclasses.replace(run, params=run.params.model_copy(update={"measure": measure}))


def test_topics_are_in_the_metrics_and_columns_on_request(corpus: Run) -> None:
    facts = execute(stage, corpus)["languages"]["en"]["topics"]
    tops = [set(topic["words"]) for topic in facts["topics"]]
    assert any({"ship", "harbour"} <= words for words in tops)
    assert any({"noodles", "sauce"} <= words for words in tops)
    file = corpus.output / "part-en-0-00000.parquet"
    assert "topic" not in pl.read_parquet(file).columns
    execute(stage, with_topics(corpus, signal=True))
    measured = pl.read_parquet(file)
    assert measured["topic"][::2].n_unique() == measured["topic"][1::2].n_unique() == 1
    assert measured["topic_share"].min() > 0.5  # type: ignore[operator]
    execute(stage, with_topics(corpus, signal=True, count=0))
    assert pl.read_parquet(file)["topic"].null_count() == 24  # no model, and columns all the same


def test_another_number_of_topics_measures_nothing_again(corpus: Run) -> None:
    execute(stage, corpus)
    entries = sorted((corpus.home / "parts" / "measure").iterdir())
    execute(stage, with_topics(corpus, count=1))
    assert sorted((corpus.home / "parts" / "measure").iterdir()) == entries
    without = execute(stage, with_topics(corpus, count=0))
    assert "topics" not in without["languages"]["en"]
