"""The stage on real files: columns, metrics, the same bytes, and a digest of its output."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import digests

from corpus.errors import UserError
from corpus.measure import stage
from corpus.params import Measure, Params
from corpus.stage import Run, execute

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
TEXTS = ["The cat sat on the mat.\nThe cat sat on the mat.", "文件在哪里？在2023年的文件夹里。", "cafÃ© <b>$5</b>", ""]


@pytest.fixture
def corpus(tmp_path: Path, write_documents: Callable[..., Path]) -> Run:
    for name, language in (("en", "en"), ("zh", "zh-Hans")):
        texts = (REFERENCE / f"{name}.txt").read_text("utf-8").split("\n---\n")[:12]
        write_documents(tmp_path / "clean" / f"part-{name}-0-00000.parquet", texts, lang=language)
    home = tmp_path / "home"
    return Run("measure", Params(), (tmp_path / "clean",), tmp_path / "measure", tmp_path, tmp_path / "reports", home)


def test_a_column_a_signal_and_quantiles_a_language(corpus: Run) -> None:
    metrics = execute(stage, corpus)
    assert metrics["rows"] == {"in": 24, "generated": 0, "kept": 24, "dropped": 0}
    measured = pl.read_parquet(corpus.output / "part-en-0-00000.parquet")
    assert measured.schema == {"id": pl.String, **stage.SIGNALS, "segmenter": pl.String}
    assert set(metrics["languages"]) == {"en", "zh-Hans"}
    english, chinese = (metrics["languages"][language]["signals"] for language in ("en", "zh-Hans"))
    assert set(english) == set(stage.SIGNALS)
    assert english.pop("traditional_ratio") == []  # null in English
    assert all(len(quantiles) == len(metrics["quantiles"]) for quantiles in english.values())
    low, _, median, _, high = english["n_chars"]
    assert low <= median <= high
    assert low <= measured["n_chars"].median() * 1.05
    assert high >= measured["n_chars"].median() * 0.95
    assert min(chinese["han_ratio"]) > 0.7
    assert max(english["han_ratio"]) == 0
    assert max(chinese["mean_word_length"]) < 1.5 < min(english["mean_word_length"])


def test_the_bytes_do_not_depend_on_the_workers(corpus: Run) -> None:
    metrics = execute(stage, corpus)
    again = dataclasses.replace(corpus, output=corpus.data / "again", home=corpus.data / "home2", workers=2)
    assert execute(stage, again) == metrics
    assert digests(again.output) == digests(corpus.output)


def test_documents_of_others_need_only_id_and_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"id": ["a", "b"], "text": ["of the people", None]}).write_parquet(path)
    run = Run("measure", Params(), (path,), tmp_path / "out", reports=None, home=tmp_path / "home")
    assert list(execute(stage, run)["languages"]) == ["und"]
    rows = pl.read_parquet(tmp_path / "out" / "rows.parquet").to_dicts()
    assert [(row["n_words"], row["stop_word_ratio"]) for row in rows] == [(3, 2 / 3), (0, 0.0)]
    pl.DataFrame({"id": ["a"], "body": ["x"]}).write_parquet(path)
    with pytest.raises(UserError, match="no column `text`"):
        execute(stage, run)
    pl.DataFrame({"id": ["a"], "text": [7]}).write_parquet(path)
    with pytest.raises(UserError, match=r"rows\.parquet: the column `text` holds Int64, not text"):
        execute(stage, run)


def test_golden() -> None:
    documents = pl.DataFrame({"id": list("abcd"), "text": TEXTS, "lang": ["en", "zh-Hans", None, "en"]})
    measured = stage.measure(documents, Measure(mattr_window=5))
    rows = [[f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in measured.rows()]
    assert measured.height == len(TEXTS)
    digest = hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (3, "723871390ac2e853"), "measure's output changed: if on purpose, raise VERSION"
