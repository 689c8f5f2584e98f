"""One shape of command line for all stages: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
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


def test_of_a_corpus_that_grew_the_line_says_what_was_worked_on(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    write_documents: Callable[..., Path],
) -> None:
    write_documents(here / "documents" / "part-a-0-00000.parquet", TEXTS[:4], lang="en")
    options = ["--input", "documents", "--output", "signals", "--workers", "1", "--set", "measure.topics.count=0"]
    assert main(["measure", *options]) == 0
    write_documents(here / "documents" / "part-a-1-00000.parquet", TEXTS[4:], lang="en")
    capsys.readouterr()
    assert main(["measure", *options]) == 0
    grown = r"measure: 7 in \(3 worked on\), 7 kept, 0 dropped → signals in [\d.]+ s, [\d,]+ rows/s\n"
    assert re.fullmatch(grown, capsys.readouterr().out)
    assert main(["measure", *options]) == 0
    assert re.fullmatch(r"measure: 7 in \(0 worked on\), .* in [\d.]+ s\n", capsys.readouterr().out)
    monkeypatch.setenv("CORPUSMILL_LOG", "json")
    assert main(["measure", *options]) == 0
    done = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert done["work"] == {"parts": 0, "documents": 0, "stored_parts": 2, "stored_documents": 7}


def test_the_store_may_be_a_link_to_another_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("elsewhere").mkdir()
    Path(".corpusmill").symlink_to("elsewhere")
    Path("note.txt").write_text("A note.")
    for _ in range(2):
        assert main(["scrape", "--input", "note.txt", "--output", "pages"]) == 0
        assert main(["gc"]) == 0
    assert "scrape: 1 in (0 worked on), 1 kept" in capsys.readouterr().out
    assert Path(".corpusmill").is_symlink() and any(Path("elsewhere/parts/scrape").iterdir())


def test_scrape_says_which_sources_it_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        Path(f"{name}.txt").write_text(f"A note, number {name}.")
        assert (
            main(["scrape", "--input", *(str(path) for path in sorted(here.glob("*.txt"))), "--output", "pages"]) == 0
        )
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("scrape: 1 in, 1 kept") and second.startswith("scrape: 2 in (1 worked on), 2 kept")


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
        (["--input", "x", "--output", "/"], "--output / is the root of all files"),
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


def test_some_stages_at_once_on_documents_of_ones_own(here: Path, write_documents: Callable[..., Path]) -> None:
    long = [text.replace("them.", "them. ") * 2 for text in TEXTS]
    texts = [*long, long[0], "short"]
    write_documents(here / "mine" / "one.parquet", texts[:4], lang="en")
    write_documents(here / "mine" / "two.parquet", texts[4:], lang="en")
    judge = ["--set", "filter.profile.en=c4", "--set", "measure.topics.count=0", "--workers", "1"]
    stages = ["--stages", "filter", "measure", "dedup"]  # run in the order of the graph
    done = command(here, "corpus", "run", *judge, "--input", "mine", *stages, "--export", "kept")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  note: filter")]
    assert [line.split(":")[0].strip() for line in lines] == ["clean", "note", "measure", "dedup", "filter", "filter"]
    assert lines[0].startswith("clean: 9 in, 9 kept, 0 dropped → try/data/clean")
    assert Path("try/data/clean/one.parquet").read_bytes() == Path("mine/one.parquet").read_bytes()

    # The same as the stages one after the other.
    inputs = ["--input", "mine"]
    for stage in ("measure", "dedup", "filter"):
        command(here, "corpus", stage, *judge, *inputs, "--output", f"alone/{stage}")
        inputs.append(f"alone/{stage}")
        for name in ("one.parquet", "two.parquet"):
            assert Path(f"try/data/{stage}/{name}").read_bytes() == Path(f"alone/{stage}/{name}").read_bytes()
    kept = [json.loads(line) for line in Path("kept/kept.jsonl").read_text().splitlines()]
    judged = pl.concat(pl.read_parquet(f"alone/filter/{name}.parquet") for name in ("one", "two"))
    assert [row["id"] for row in kept] == judged.filter("kept")["id"].to_list()
    assert 0 < len(kept) < 8


def test_a_stage_alone_reads_what_lies_in_the_folder_already(here: Path, write_documents: Callable[..., Path]) -> None:
    write_documents(here / "mine.parquet", TEXTS, lang="en")
    (here / "params.yaml").write_text("sources: [{name: mine, kind: parquet, path: mine.parquet}]\n")
    options = ["--set", "filter.profile.en=c4", "--set", "measure.topics.count=0"]
    command(here, "corpus", "run", *options, "--input", "mine.parquet", "--limit", "5", "--stages", "measure")
    assert pl.read_parquet("try/data/clean/mine.parquet").height == 5
    done = command(here, "corpus", "run", *options, "--stages", "filter")
    assert done.stdout.startswith("filter: 5 in")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--stages", "sift"], "sift is no stage: name scrape, clean, "),
        (["--stages", "clean", "--input", "mine.parquet"], "clean reads the sources in params.yaml, --input documents"),
        (["--stages", "report", "--export", "kept"], "--export: of report there are no documents to write"),
        (["--stages", "measure", "--export", "mine.parquet"], "--export mine.parquet is in use"),
        (["--stages", "measure", "--input", "mine.parquet"], "occurs twice"),
        (["--stages", "measure", "--input", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_run_at_once_is_said_before(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    pl.DataFrame({"id": ["a", "a"], "text": TEXTS[:2]}).write_parquet("mine.parquet")
    assert main(["run", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not [path for path in Path("try/data").glob("*") if not path.name.startswith(".")]


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


def test_the_version_is_that_of_the_package(here: Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    for program in ("corpus", "train"):
        assert command(here, program, "--version").stdout == f"corpusmill {project['version']}\n"


def test_the_verdict_needs_scores(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict"]) == 2
    assert "`dvc repro` builds it" in capsys.readouterr().err


def test_a_failure_is_an_event_where_json_is_asked_for(here: Path) -> None:
    done = command(here, "corpus", "clean", "--output", "x", "--input", "nowhere", "--log-json", check=False)
    failed = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, failed["event"], failed["code"]) == (2, "failed", 2)
    assert "nowhere" in failed["error"]
