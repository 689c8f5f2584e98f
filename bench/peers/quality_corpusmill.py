"""corpusmill: its signals, its lexical diversity, its language model; each after a warm-up that loads the kernels.

Work that takes less than a second is done several times over.
"""

import functools
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from measurement import Result, Task, peak_mb, read_column, read_task, timed

from corpus.measure import stage
from corpus.measure.lexical import count_words
from corpus.measure.stop_words import hashed_stop_words
from corpus.params import Params
from corpus.stage import Run, execute
from corpus.text.buffers import Texts
from corpus.text.ngram_files import export_arpa
from corpus.text.ngram_lm import score_texts
from corpus.text.ngram_train import number_tokens, train
from corpus.text.segment import segment, words_view

BATCH = 1_000  # rows, as in the stage
SLICE = 1 << 20  # bytes of text whose tokens are held at once
ORDERS = {"en": 3, "zh": 4}


def timed_often(work: Callable[[], Result]) -> tuple[Result, float]:
    """What some work gives, and its processor time, the mean of so many times as take a second."""
    result, seconds = timed(work)
    times = 1
    while seconds < 1:
        _, more = timed(work)
        seconds += more
        times += 1
    return result, seconds / times


def measure(task: Task) -> dict[str, Any]:
    """All signals, in batches as the stage makes them."""
    documents = pl.read_parquet(task.input, columns=["id", "text", "lang"])
    params = Params().measure
    stage.measure(documents[:50], params)
    _, seconds = timed_often(lambda: [stage.measure(batch, params) for batch in documents.iter_slices(BATCH)])
    return {"seconds": seconds}


def command(task: Task, topics: bool = True) -> dict[str, Any]:
    """The stage from Parquet to Parquet, with histograms, quantiles and topics, nothing in its store."""
    few = task.scratch / "few.parquet"
    pl.read_parquet(task.input, n_rows=50).write_parquet(few)
    run_stage(few, task.scratch / "warm", topics)
    _, seconds = timed(lambda: run_stage(task.input, task.scratch / "all", topics))
    return {"seconds": seconds}


def run_stage(documents: Path, folder: Path, topics: bool) -> None:
    params = Params.model_validate({} if topics else {"measure": {"topics": {"count": 0}}})
    execute(stage, Run("measure", params, (documents,), folder / "output", reports=None, home=folder / "home"))


def lexical(task: Task) -> dict[str, Any]:
    """TTR, MATTR(50) and MTLD, from the text: segmentation is on the clock."""
    column = read_column(task)
    no_lists = hashed_stop_words()

    def diversity(texts: Texts) -> list[tuple[float, float, float]]:
        found: list[tuple[float, float, float]] = []
        for some in texts.slices(len(texts), SLICE):
            counted = count_words(segment(some, words_view()), 50, no_lists, np.full(len(some), -1))
            found += counted.select(pl.col("types") / pl.col("lexical_words"), "mattr", "mtld").rows()
        return found

    diversity(Texts.of(column.slice(0, 50)))
    values, seconds = timed_often(lambda: diversity(Texts.of(column)))
    return {"seconds": seconds, "values": values}


def perplexity(task: Task) -> dict[str, Any]:
    """Training and scoring, both from the text. Leaves the model beside the input, for others to read."""
    training = Texts.of(pq.read_table(task.input.with_name("training.parquet"))["text"].combine_chunks())
    order = ORDERS[task.language]
    train(number_tokens([training[:50]]), order)
    trained, train_seconds = timed(lambda: train(number_tokens([training]), order))
    export_arpa(trained, task.input.with_name("model.arpa"))
    column = read_column(task)
    score_texts(trained.model, Texts.of(column.slice(0, 50)))
    scores, seconds = timed_often(lambda: score_texts(trained.model, Texts.of(column)))
    log10 = scores.select(-pl.col("ppl").log10().fill_null(0) * pl.col("lm_tokens")).to_series()
    return {"seconds": seconds, "train_seconds": train_seconds, "log10": log10.to_list()}


VARIANTS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "measure": measure,
    "command": command,
    "command without topics": functools.partial(command, topics=False),
    "lexical": lexical,
    "perplexity": perplexity,
}


def main(task: Task) -> None:
    result = VARIANTS[task.variant](task)
    result |= {"version": importlib.metadata.version("corpusmill"), "peak_mb": peak_mb()}
    task.result.write_text(json.dumps(result))


if __name__ == "__main__":
    main(read_task())
