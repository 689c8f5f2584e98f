"""One shape of command line for all stages: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import PROJECT, command

from corpus.cli import STAGES, main

TEXTS = [f"Line {n} of a text about files, folders and the programs that read them." * 3 for n in range(7)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without params.yaml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stage_works_on_any_parquet_with_id_and_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"id": list("abcdefg"), "text": TEXTS}).write_parquet("mine.parquet")
    assert main(["measure", "--input", "mine.parquet", "--output", "signals", "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("measure: 7 in, 7 kept, 0 dropped → signals in ")
    assert pl.read_parquet("signals/mine.parquet")["n_chars"].to_list() == [len(text) for text in TEXTS]
    assert json.loads(Path("signals/metrics.json").read_text())["rows"]["in"] == 7
    assert not Path("reports").exists()


def test_the_limit_and_an_override(here: Path, write_documents: Callable[..., Path]) -> None:
    write_documents(here / "documents.parquet", TEXTS, lang="en")
    options = ["--input", "documents.parquet", "--output", "out", "--limit", "3", "--set", "measure.mattr_window=5"]
    assert main(["measure", *options]) == 0
    assert pl.read_parquet("out/documents.parquet").height == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--limit", "0", "--input", "x", "--output", "y"], "--limit 0: name at least one document"),
        (["--workers", "0", "--input", "x", "--output", "y"], "--workers 0: at least one is needed"),
        (["--input", "x"], "--input needs --output"),
        (["--input", "x", "--output", "y"], "x does not exist"),
        ([], "params.yaml does not exist: `corpus init` writes one"),
    ],
)
def test_mistakes_are_one_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert main(["measure", *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert sentence in said
    assert not [path for path in here.iterdir() if path.name != ".corpusmill"]


def test_a_dry_pass_over_ones_own_rows(here: Path) -> None:
    shutil.copy(PROJECT / "data" / "sample" / "dialogues.jsonl", "rows.jsonl")
    command(here, "corpus", "init", "rows.jsonl")
    done = command(here, "corpus", "run", "--limit", "40", "--output", "try")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  note")]
    assert [line.split(":")[0] for line in lines] == list(STAGES)
    assert re.match(r"scrape: 40 in, 40 kept, 0 dropped → try/data/scrape in \d+\.\d s, [\d,]+ rows/s\n", done.stdout)
    assert re.search(r"\nclean: .* rows/s, [\d.e-]+ MB/s\n", done.stdout)
    for stage in STAGES:
        rows_of = json.loads(Path(f"try/reports/{stage}.json").read_text())["rows"]
        assert rows_of["in"] + rows_of["generated"] == rows_of["kept"] + rows_of["dropped"]
    assert Path("try/reports/index.html").exists()


def test_for_machines_progress_and_outcome_are_lines_of_json(here: Path) -> None:
    shutil.copy(PROJECT / "data" / "sample" / "dialogues.jsonl", "rows.jsonl")
    command(here, "corpus", "init", "rows.jsonl")
    done = command(here, "corpus", "scrape", "--output", "pages", "--log-json")
    assert done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["event"] for event in events} == {"progress", "done"}
    assert events[-1]["rows"] == {"in": 60, "generated": 0, "kept": 60, "dropped": 0}
    assert events[-1]["output"].endswith("pages")
    assert all(event["seconds"] >= 0 for event in events)
    told = [(event["stage"], event["done"], event["unit"]) for event in events if event["event"] == "progress"]
    assert ("rows", 60, "row") in told


def test_the_verdict_needs_scores(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict"]) == 2
    assert "`dvc repro` builds it" in capsys.readouterr().err


def test_a_failure_is_an_event_where_json_is_asked_for(here: Path) -> None:
    done = command(here, "corpus", "clean", "--output", "x", "--input", "nowhere", "--log-json", check=False)
    failed = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, failed["event"], failed["code"]) == (2, "failed", 2)
    assert "nowhere" in failed["error"]
