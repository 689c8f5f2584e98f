"""The shell around stages: nothing lost, nothing half-written, nothing done twice, nobody's files replaced."""

from __future__ import annotations

import dataclasses
import fcntl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import digests

from corpus import locks
from corpus import stage as frame
from corpus.documents import write_table
from corpus.errors import StageError, UserError
from corpus.params import Params
from corpus.stage import Metrics, Run, annotate, count_rows, execute


def length(batch: pl.DataFrame) -> pl.DataFrame:
    return batch.select("id", n_chars=pl.col("text").str.len_chars().cast(pl.Int64))


def count(batch: pl.DataFrame) -> Metrics:
    return count_rows(rows_in=batch.height, dropped={}) | {"characters": int(batch["n_chars"].sum())}


class Lengths:
    """A row-wise stage in three lines."""

    READS = ("clean",)
    calls = 0

    def run(self, run: Run) -> Metrics:
        return annotate(run, length, 1, columns=["text"], metrics=count)


class Loser(Lengths):
    """A stage that loses a document."""

    def run(self, run: Run) -> Metrics:
        metrics = super().run(run)
        metrics["rows"]["kept"] -= 1
        return metrics


class Crasher(Lengths):
    """A stage that fails when all its files are written."""

    def run(self, run: Run) -> Metrics:
        super().run(run)
        raise RuntimeError("crash")


@pytest.fixture
def lengths(tmp_path: Path, write_documents: Callable[..., Path]) -> Run:
    for number in range(4):
        texts = [f"text {number} {n}" * n for n in range(10)]
        write_documents(tmp_path / "clean" / f"part-a-0-{number:05d}.parquet", texts)
    home, reports = tmp_path / ".corpusmill", tmp_path / "reports"
    return Run("lengths", Params(), (tmp_path / "clean",), tmp_path / "lengths", tmp_path, reports, home)


def test_a_row_wise_stage_annotates_every_document_in_order(lengths: Run) -> None:
    metrics = execute(Lengths(), lengths)
    assert metrics["rows"] == {"in": 40, "generated": 0, "kept": 40, "dropped": 0}
    for path in sorted(lengths.inputs[0].iterdir()):
        documents, annotation = pl.read_parquet(path), pl.read_parquet(lengths.output / path.name)
        assert annotation["id"].equals(documents["id"])
        assert annotation["n_chars"].to_list() == [len(text) for text in documents["text"]]


@pytest.mark.parametrize("workers", [1, 4])
def test_the_bytes_do_not_depend_on_the_workers(lengths: Run, workers: int) -> None:
    execute(Lengths(), lengths)
    again = dataclasses.replace(
        lengths, output=lengths.data / "again", home=lengths.data / "other-home", workers=workers
    )
    execute(Lengths(), again)
    assert digests(again.output) == digests(lengths.output)


def test_only_changed_parts_are_worked_on_again(lengths: Run, write_documents: Callable[..., Path]) -> None:
    execute(Lengths(), lengths)
    store = lengths.home / "parts" / "lengths"
    before = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    write_documents(lengths.inputs[0] / "part-a-0-00002.parquet", ["changed"])
    assert execute(Lengths(), lengths)["rows"]["in"] == 31
    after = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_a_lost_document_fails_the_stage_and_leaves_the_old_output(lengths: Run) -> None:
    execute(Lengths(), lengths)
    before = digests(lengths.output)
    with pytest.raises(StageError, match="lengths lost documents"):
        execute(Loser(), lengths)
    assert digests(lengths.output) == before


def test_a_crash_leaves_nothing_that_looks_whole(lengths: Run) -> None:
    with pytest.raises(RuntimeError):
        execute(Crasher(), lengths)
    assert not lengths.output.exists()
    assert not list(lengths.data.glob(".*.partial"))
    assert not (lengths.data / "reports").exists()


def test_a_folder_of_the_users_is_not_replaced(lengths: Run) -> None:
    lengths.output.mkdir()
    (lengths.output / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds files that no stage wrote"):
        execute(Lengths(), lengths)
    assert (lengths.output / "thesis.txt").read_text() == "years of work"


def test_a_folder_of_another_stage_or_of_the_input_is_not_replaced(lengths: Run) -> None:
    execute(Lengths(), lengths)
    before = digests(lengths.data)
    with pytest.raises(UserError, match="holds what lengths wrote"):
        execute(Lengths(), dataclasses.replace(lengths, stage="other"))
    for output in (lengths.inputs[0], lengths.inputs[0] / "inside", lengths.data):
        with pytest.raises(UserError, match="cannot be the output of lengths"):
            execute(Lengths(), dataclasses.replace(lengths, output=output))
    after = {path: digest for path, digest in digests(lengths.data).items() if not path.startswith(".corpusmill/locks")}
    assert after.items() <= before.items()


def test_an_output_may_be_a_link_and_survives_a_kill_between_two_renames(lengths: Run) -> None:
    (lengths.data / "disk").mkdir()
    lengths.output.symlink_to(lengths.data / "disk")
    execute(Lengths(), lengths)
    assert execute(Lengths(), lengths)["rows"]["in"] == 40
    before = digests(lengths.output)
    (lengths.data / "disk").rename(lengths.data / ".disk.outdated")  # as the kill leaves it
    with pytest.raises(RuntimeError):
        execute(Crasher(), lengths)
    assert digests(lengths.output) == before


def test_others_documents_with_one_id_are_refused(lengths: Run, write_documents: Callable[..., Path]) -> None:
    path = write_documents(lengths.data / "mine.parquet", ["one", "two"], id=["a", "a"])
    with pytest.raises(UserError, match="the id a occurs twice"):
        execute(Lengths(), dataclasses.replace(lengths, inputs=(path,), reports=None))


def test_others_documents_may_count_their_rows_and_lack_texts(lengths: Run) -> None:
    path = lengths.data / "mine.parquet"
    pl.DataFrame({"id": [1, 2], "text": ["one", None]}).write_parquet(path)
    run = dataclasses.replace(lengths, inputs=(path,), reports=None)
    execute(Lengths(), run)
    assert pl.read_parquet(run.output / "mine.parquet").rows() == [("1", 3), ("2", 0)]


def test_a_second_run_waits_and_is_then_refused(lengths: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.2)
    execute(Lengths(), lengths)
    lock = lengths.output.with_name(".lengths.lock")
    assert not lock.exists()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is being written by another run"):
            execute(Lengths(), lengths)


def test_what_finishes_a_run_has_its_output_for_itself(lengths: Run) -> None:
    held = []

    def finish() -> None:
        for path in (lengths.home / "locks" / "store.lock", lengths.output.with_name(f".{lengths.output.name}.lock")):
            with path.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(path.name)
        assert list(lengths.output.glob("*.parquet"))

    execute(Lengths(), lengths, finish)
    assert len(held) == 2


def test_an_empty_corpus_is_refused(tmp_path: Path, write_documents: Callable[..., Path]) -> None:
    path = write_documents(tmp_path / "clean" / "part-a-0-00000.parquet", [])
    run = Run("lengths", Params(), (path,), tmp_path / "out", home=tmp_path / ".corpusmill", reports=None)
    with pytest.raises(UserError, match="no document to work on"):
        execute(Lengths(), run)
    assert not run.output.exists()


def test_the_limit_takes_the_first_documents(lengths: Run) -> None:
    run = dataclasses.replace(lengths, limit=13)
    assert execute(Lengths(), run)["rows"]["in"] == 13
    assert len(list(run.output.glob("*.parquet"))) == 2


def test_a_missing_column_is_named(lengths: Run) -> None:
    path = lengths.data / "other.parquet"
    write_table(pl.DataFrame({"id": ["a"], "body": ["b"]}).to_arrow(), path)
    with pytest.raises(UserError, match=r"other\.parquet has no column `text`"):
        execute(Lengths(), dataclasses.replace(lengths, inputs=(path,)))


def test_a_stage_started_by_dvc_dies_with_it(tmp_path: Path) -> None:
    stage = "import time, corpus.executor as e; e.die_with_parent(); open('ready', 'w').close(); time.sleep(60)"
    start = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {stage!r}])"
    parent = f"{start}; print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=tmp_path) as dvc:
        assert dvc.stdout is not None
        pid = int(dvc.stdout.readline())
        _wait_until(lambda: (tmp_path / "ready").exists())
        dvc.kill()
    _wait_until(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_metrics_are_sorted_and_rounded(tmp_path: Path) -> None:
    frame.write_json(tmp_path / "m.json", {"b": 1 / 3, "a": [float("nan"), 2], "c": {"z": 1, "y": 12345678.9}})
    expected = (
        '{\n  "a": [\n    null,\n    2\n  ],\n  "b": 0.333333,\n  "c": {\n    "y": 12345700.0,\n    "z": 1\n  }\n}\n'
    )
    assert (tmp_path / "m.json").read_text() == expected
