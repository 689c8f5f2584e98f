"""Scoring documents by the model of their language, in the graph and on other people's files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import digests

from corpus.cli import main
from corpus.errors import UserError
from corpus.params import Params
from corpus.perplexity import stage
from corpus.reference.texts import read_texts, set_aside
from corpus.stage import Run, execute
from corpus.text.buffers import Texts
from corpus.text.ngram_files import save
from corpus.text.ngram_lm import NgramModel, score_texts
from corpus.text.ngram_train import number_tokens, train

FOLDER = Path(__file__).parents[2] / "data" / "reference"
ENGLISH, CHINESE = read_texts(FOLDER / "en.txt"), read_texts(FOLDER / "zh.txt")


def write_model(data: Path, language: str, texts: list[str], order: int = 3) -> NgramModel:
    folder = data / "reference" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    trained = train(number_tokens([Texts.of_strings(texts)]), order)
    save(trained, folder, language, {})
    return trained.model


def scores_of(model: NgramModel, texts: list[str]) -> list[dict[str, Any]]:
    return score_texts(model, Texts.of_strings(texts)).to_dicts()


@pytest.fixture
def corpus(tmp_path: Path, write_documents: Callable[..., Path]) -> Run:
    write_model(tmp_path, "en", ENGLISH[:30])
    write_model(tmp_path, "zh-Hans", CHINESE[:30], 4)
    write_documents(tmp_path / "clean" / "part-en-0-00000.parquet", ENGLISH[30:40], lang="en")
    texts = [*CHINESE[30:36], ENGLISH[40], "", CHINESE[36], "繁體中文的說明"]
    languages = [*["zh-Hans"] * 6, "en-GB", "zh-Hans", None, "zh-Hant"]
    write_documents(tmp_path / "clean" / "part-zh-0-00000.parquet", texts, lang=languages)
    home, reports = tmp_path / "home", tmp_path / "reports"
    return Run("perplexity", Params(), (tmp_path / "clean",), tmp_path / "perplexity", tmp_path, reports, home)


def scored(run: Run, name: str) -> list[dict[str, object]]:
    return pl.read_parquet(run.output / name).to_dicts()


def test_each_document_by_the_model_of_its_language(corpus: Run) -> None:
    metrics = execute(stage, corpus)
    assert metrics["rows"] == {"in": 20, "generated": 0, "kept": 20, "dropped": 0}
    model = write_model(corpus.data / "again", "en", ENGLISH[:30])
    expected = scores_of(model, [*ENGLISH[30:40], ENGLISH[40]])
    rows = [*scored(corpus, "part-en-0-00000.parquet"), *scored(corpus, "part-zh-0-00000.parquet")]
    ids = [row.pop("id") for row in rows]
    assert len(set(ids)) == 20
    assert rows[:10] == expected[:10]
    assert rows[16] == expected[10]  # en-GB
    nothing = {
        "ppl": None,
        "ppl_excl_oov": None,
        "oov_rate": None,
        "fluency_gain": None,
        "word_gain": None,
        "lm_tokens": 0,
    }
    assert rows[17:] == [nothing] * 3  # empty, no language, no model
    assert all(row["ppl"] > 1 and row["lm_tokens"] > 100 for row in rows[10:16])  # type: ignore[operator]
    facts = metrics["languages"]
    assert {language: (own["documents"], own["scored"]) for language, own in facts.items()} == {
        "en": (10, 10),
        "en-GB": (1, 1),
        "und": (1, 0),
        "zh-Hans": (7, 6),
        "zh-Hant": (1, 0),
    }
    assert facts["en"]["tokens"] == sum(score["lm_tokens"] for score in expected[:10])
    assert metrics["models"]["en"] == model.fingerprint


def test_schema(corpus: Run) -> None:
    execute(stage, corpus)
    for path in corpus.output.glob("part-*.parquet"):
        assert pl.read_parquet_schema(path) == {"id": pl.String, **stage.COLUMNS}


def test_the_bytes_do_not_depend_on_the_workers(corpus: Run) -> None:
    metrics = execute(stage, corpus)
    again = dataclasses.replace(corpus, output=corpus.data / "again", home=corpus.data / "home2", workers=2)
    assert execute(stage, again) == metrics
    assert digests(again.output) == digests(corpus.output)


def test_another_model_scores_again(corpus: Run) -> None:
    before = execute(stage, corpus)
    write_model(corpus.data, "en", ENGLISH[:40])  # which has seen them
    after = execute(stage, corpus)
    assert after["models"]["en"] != before["models"]["en"]
    assert max(after["languages"]["en"]["signals"]["ppl"]) < min(before["languages"]["en"]["signals"]["ppl"])
    assert after["languages"]["zh-Hans"] == before["languages"]["zh-Hans"]


def test_only_the_first_tokens_count(corpus: Run) -> None:
    params = Params.model_validate({"perplexity": {"max_tokens": 50}})
    execute(stage, dataclasses.replace(corpus, params=params))
    assert {row["lm_tokens"] for row in scored(corpus, "part-en-0-00000.parquet")} == {50}


def test_documents_without_a_language_take_the_only_model(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["a", "b"], "text": [ENGLISH[0], None]}).write_parquet(tmp_path / "docs.parquet")
    run = Run("perplexity", Params(), (tmp_path / "docs.parquet",), tmp_path / "out", tmp_path, None, tmp_path / "home")
    with pytest.raises(UserError, match="holds no language model: run `corpus reference` first"):
        execute(stage, run)
    write_model(tmp_path, "en", ENGLISH[:20])
    assert execute(stage, run)["languages"]["en"]["scored"] == 1
    assert [row["ppl"] is None for row in scored(run, "docs.parquet")] == [False, True]
    write_model(tmp_path, "de", ENGLISH[20:40])
    with pytest.raises(UserError, match=r"docs\.parquet has no column `lang` to choose between .* de, en"):
        execute(stage, run)


def test_scores_tell_sound_text_from_broken() -> None:
    training, heldout = set_aside(CHINESE, 0.2)
    model = train(number_tokens([Texts.of_strings(training)]), 4).model
    sound = scores_of(model, heldout)
    shuffled = scores_of(model, ["".join(sorted(text)) for text in heldout])
    foreign = scores_of(model, ENGLISH[: len(heldout)])
    assert max(score["ppl"] for score in sound) < min(score["ppl"] for score in shuffled)
    assert max(score["oov_rate"] for score in sound) < min(score["oov_rate"] for score in foreign)


def test_on_the_command_line(corpus: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(corpus.data)
    corpus.data.joinpath("data").mkdir()
    corpus.data.joinpath("reference").rename("data/reference")
    part = "clean/part-en-0-00000.parquet"
    assert main(["perplexity", "--input", part, "--output", "out", "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("perplexity: 10 in, 10 kept, 0 dropped")


def test_golden(tmp_path: Path) -> None:
    model = write_model(tmp_path, "en", ["the cat sat on the mat\nthe dog sat too", "a cat and a dog"])
    documents = pl.DataFrame({"id": ["a", "b"], "text": ["the dog sat on a mat\nthe end", "猫"], "lang": ["en", "en"]})
    models = {"en": stage.OwnModel(tmp_path / "reference" / "model", "en", model.fingerprint)}
    scores = stage.perplexity(documents, models, 100)
    rows = [[f"{v:.4g}" if isinstance(v, float) else v for v in row] for row in scores.rows()]
    digest = hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (2, "d81c06d4121ba92e"), (
        "perplexity's output changed: if on purpose, raise VERSION"
    )
