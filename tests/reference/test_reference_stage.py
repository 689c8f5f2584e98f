"""Training on real text: what is written, what is held out, what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import digests

from corpus.cli import main
from corpus.errors import UserError
from corpus.params import Params, load
from corpus.reference import stage
from corpus.reference.texts import read_texts, set_aside
from corpus.stage import Run, execute
from corpus.text.buffers import Texts
from corpus.text.ngram_files import describe_models
from corpus.text.ngram_files import load as load_model
from corpus.text.ngram_lm import score_texts
from corpus.text.segment import lm_sentences

FOLDER = Path(__file__).parents[2] / "data" / "reference"


def reference(tmp_path: Path, settings: dict[str, object] | None = None, **texts: list[Path]) -> Run:
    params = Params.model_validate({"reference": {"texts": texts, **(settings or {})}})
    return Run("reference", params, (), tmp_path / "model", tmp_path, tmp_path / "reports", tmp_path / "home")


def write_texts(path: Path, number: int, sentence: str = "A document about the letter {0} and {0} again.") -> Path:
    path.write_text("\n---\n".join(sentence.format(chr(97 + n % 26) * (n // 26 + 1)) * 30 for n in range(number)))
    return path


def test_a_model_a_language_with_the_scores_of_what_it_has_not_seen(tmp_path: Path) -> None:
    run = reference(tmp_path, en=[FOLDER / "en.txt"], **{"zh-Hans": [FOLDER / "zh.txt"]})
    metrics = execute(stage, run)
    documents = {name: read_texts(FOLDER / f"{name}.txt") for name in ("en", "zh")}
    assert metrics["rows"]["in"] == metrics["rows"]["kept"] == sum(map(len, documents.values()))
    models = describe_models(run.output)
    assert list(models) == ["en", "zh-Hans"]
    assert [models[language]["order"] for language in models] == [3, 4]
    training, heldout = set_aside(documents["en"], 0.1)
    assert len(heldout) == models["en"]["heldout"] == 7
    model = load_model(run.output, "en", models["en"]["fingerprint"])
    words = {token for text in training for sentence in lm_sentences(text) for token in sentence}
    vocabulary = pl.read_parquet(run.output / "en.vocabulary.parquet")
    assert sorted([*words, "<s>", "</s>"]) == sorted(vocabulary["token"])
    assert metrics["languages"]["en"]["vocabulary"] == len(vocabulary)
    assert vocabulary["count"][2:].sum() == models["en"]["tokens"]
    scores = score_texts(model, Texts.of_strings(heldout))
    for column, quantiles in models["en"]["quantiles"].items():
        values = scores[column].to_list()
        assert len(quantiles) == 99
        assert quantiles[49] == pytest.approx(np.median(values), rel=1e-5)
        assert min(values) <= quantiles[0] <= quantiles[98] <= max(values)
    assert models["en"]["quantiles"]["oov_rate"][0] > 0
    assert metrics["languages"]["en"]["heldout_ppl"] == pytest.approx(models["en"]["quantiles"]["ppl"][49], rel=1e-5)


def test_pruned_and_as_arpa(tmp_path: Path) -> None:
    whole = execute(stage, reference(tmp_path, en=[FOLDER / "en.txt"]))["languages"]["en"]
    run = reference(tmp_path, {"prune": {"en": [0, 0, 1]}, "arpa": True}, en=[FOLDER / "en.txt"])
    pruned = execute(stage, run)["languages"]["en"]
    assert pruned["ngrams"] < 0.7 * whole["ngrams"]
    assert pruned["heldout_ppl"] == pytest.approx(whole["heldout_ppl"], rel=0.1)
    assert pruned["heldout_oov_rate"] == whole["heldout_oov_rate"]
    lines = (run.output / "en.arpa").read_text("utf-8").split("\n")
    assert sum("\t" in line for line in lines) == pruned["ngrams"] + 1  # <unk>


def test_counts_that_fall_cannot_prune() -> None:
    with pytest.raises(UserError, match=r"reference\.prune: the counts of en fall: .* as in \[0, 0, 1\]"):
        load(None, ["reference.prune={en: [1, 0]}"])


def test_the_same_bytes_again(tmp_path: Path) -> None:
    run = reference(tmp_path, en=[write_texts(tmp_path / "en.txt", 40)])
    execute(stage, run)
    again = dataclasses.replace(run, output=tmp_path / "again")
    execute(stage, again)
    assert digests(again.output) == digests(run.output)
    assert not {path for path in digests(run.output) if "part" in path}


def test_which_documents_are_held_out_depends_on_the_documents_alone() -> None:
    texts = [f"text {number}" for number in range(100)]
    training, heldout = set_aside(texts, 0.05)
    assert len(heldout) == 5
    assert set_aside(texts[::-1], 0.05) == (training[::-1], heldout[::-1])
    twice_training, twice_heldout = set_aside(texts * 2, 0.05)
    assert not set(twice_training) & set(twice_heldout)


def test_texts_are_parted_by_lines_of_dashes(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffone --- still one\r\n---\r\n\r\n---  \ncafe\u0301\n----\n".encode())
    assert read_texts(path) == ["one --- still one", "café\n----"]


def test_too_small_missing_and_unreadable_texts_are_refused(tmp_path: Path) -> None:
    few = write_texts(tmp_path / "few.txt", 9)
    short = write_texts(tmp_path / "short.txt", 12, "{0}")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"caf\xe9")
    for paths, complaint in [
        ([few], r"reference\.texts\.en: .*few\.txt holds 9 documents .* needs 10 documents"),
        ([short], r"short\.txt holds 12 documents and 10 tokens .* 2,000 tokens"),
        ([tmp_path / "none.txt"], r"none\.txt does not exist"),
        ([binary], r"binary\.txt is not a text file in UTF-8"),
        ([], r"reference\.texts\.en: no file holds 0 documents"),
    ]:
        run = reference(tmp_path, en=paths)
        with pytest.raises(UserError, match=complaint):
            execute(stage, run)
        assert not run.output.exists()
    with pytest.raises(UserError, match=r"reference\.texts is empty"):
        execute(stage, reference(tmp_path))


def test_a_language_that_cannot_be_a_file_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"reference\.texts\.\.\./en"):
        load(None, ["reference.texts={'../en': [en.txt]}"])


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "de.txt", 40)
    (tmp_path / "params.yaml").write_text("reference: {texts: {de: [de.txt]}, heldout: 0.2}")
    assert main(["reference"]) == 0
    assert capsys.readouterr().out.startswith("reference: 40 in, 40 kept, 0 dropped")
    facts = json.loads((tmp_path / "data" / "reference" / "model" / "de.json").read_text())
    assert (facts["documents"], facts["heldout"], facts["order"]) == (40, 8, stage.DEFAULT_ORDER)
    assert main(["reference", "--input", "de.txt", "--output", "out"]) == 2
    assert "reference.texts" in capsys.readouterr().err


def test_golden(tmp_path: Path) -> None:
    run = reference(tmp_path, en=[write_texts(tmp_path / "en.txt", 30)])
    execute(stage, run)
    facts = describe_models(run.output)["en"]
    table = load_model(run.output, "en", facts.pop("fingerprint")).table
    near = [int(slot) >> 36 for slot in table] + [int(slot) % 2**36 // 16 for slot in table]  # not their last digits
    digest = hashlib.blake2b(json.dumps([facts, near]).encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (2, "2655ab545212d02a"), (
        "reference's output changed: if on purpose, raise VERSION"
    )
