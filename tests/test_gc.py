"""What `corpus gc` removes and what it keeps, on a store that real stages filled."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import command, digests

from corpus.errors import UserError
from corpus.gc import collect_garbage
from corpus.locks import locked

ROWS = "".join(f'{{"text": "Document {n} says a little of the number {n * n}."}}\n' for n in range(30))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents, and signals of them by two settings; the second is the one that lies there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(ROWS, "utf-8")
    command(tmp_path, "corpus", "init", "rows.jsonl")
    for stage in ("scrape", "clean", "measure"):
        command(tmp_path, "corpus", stage)
    text = (tmp_path / "params.yaml").read_text("utf-8")
    assert "mattr_window: 50" in text
    (tmp_path / "params.yaml").write_text(text.replace("mattr_window: 50", "mattr_window: 60"), "utf-8")
    command(tmp_path, "corpus", "measure")
    return tmp_path


def entries(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.glob(".corpusmill/parts/*/*")}


def test_what_nothing_here_is_made_of_goes_and_the_rest_stays(project: Path) -> None:
    before, built = entries(project), digests(project / "data")
    assert len(before) == 4  # of scrape and clean, and two of measure
    said = command(project, "corpus", "gc", "--dry-run").stdout
    assert said.startswith("would remove 1 entries, ") and "measure 1 (" in said
    assert entries(project) == before
    assert command(project, "corpus", "gc").stdout.startswith("removed 1 entries")
    left = entries(project)
    assert left < before and len(left) == 3
    assert "holds nothing that can go" in command(project, "corpus", "gc").stdout
    assert digests(project / "data") == built
    command(project, "corpus", "measure")
    assert entries(project) == left  # it was the former setting's that went
    assert digests(project / "data") == built


def test_young_entries_stay_and_what_killed_runs_left_goes(project: Path) -> None:
    store = project / ".corpusmill"
    partial = store / "parts" / "measure" / ".abc.123.456.partial"
    partial.mkdir()
    (partial / "part.parquet").write_bytes(b"half" * 1_000)
    assert "nothing that can go" in collect_garbage(store, keep_days=1, dry_run=False)
    os.utime(partial, (time.time() - 3 * 86_400,) * 2)
    assert "half-written 1 (0.0 MB)" in collect_garbage(store, keep_days=1, dry_run=False)
    assert len(entries(project)) == 4


def test_mirrors_of_object_storage_go(project: Path) -> None:
    store = project / ".corpusmill"
    for path in ("remote/0123/clean/part.parquet", "remote/objects/4567"):
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(b"fetched" * 1_000)
    assert "mirrors 2 (" in collect_garbage(store, 0, dry_run=False)
    assert [path.name for path in (store / "remote").iterdir()] == ["objects"]


def test_an_output_that_is_gone_keeps_nothing(project: Path) -> None:
    home = project / ".corpusmill"
    before = {folder: len(list((home / folder).iterdir())) for folder in ("uses", "digests")}
    shutil.rmtree(project / "data" / "measure")
    assert "measure 2 (" in collect_garbage(home, 0, dry_run=False)
    left = {folder: len(list((home / folder).iterdir())) for folder in ("uses", "digests")}
    assert left["uses"] == before["uses"] - 1 == 2 and 0 < left["digests"] < before["digests"]
    assert "all of it is used by clean, scrape" in collect_garbage(home, 0, dry_run=False)


def test_not_while_a_stage_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.locks.LOCK_SECONDS", 0.2)
    home = project / ".corpusmill"
    hold = "import sys, pathlib, time; from corpus.locks import locked\nwith locked(pathlib.Path(sys.argv[1]), "
    hold += "pathlib.Path('x'), shared=True):\n print('held', flush=True); time.sleep(60)"
    lock = str(home / "locks" / "store.lock")
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="is being written by another run"):
            collect_garbage(home, 0, dry_run=False)
        with locked(Path(lock), home, shared=True):  # as a second stage does
            pass
        other.kill()


def test_without_a_store_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert "nothing is stored here" in collect_garbage(tmp_path / "none", 0, dry_run=False)
