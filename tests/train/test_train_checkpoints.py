"""Checkpoints: whole or not there, and a training killed at any moment ends as if nothing had been."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_project import built

import corpus.locks
from corpus.errors import UserError
from train.checkpoints import (
    WHOLE,
    best_of,
    discard,
    held,
    is_whole,
    keep_last_and_best,
    last_good,
    publish,
    stopped_at,
)


def write(folder: Path, step: int, best: int | None = None, stopped: str | None = None) -> Path:
    partial = folder / "partial" / f"checkpoint-{step}"
    partial.mkdir(parents=True)
    (partial / "weights").write_text("0123456789")
    (partial / "training_args.bin").write_text("pickled")
    (partial / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    publish(partial, folder / partial.name, stopped)
    return folder / partial.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "key" / "adapted"


def test_what_is_published_is_whole(folder: Path):
    checkpoint = write(folder, 5, stopped="patience")
    assert is_whole(checkpoint) and stopped_at(checkpoint) == "patience" and last_good(folder) == checkpoint
    assert {path.name for path in checkpoint.iterdir()} == {"weights", "trainer_state.json", WHOLE}


@pytest.mark.parametrize("harm", ["cut", "lost", "unmarked", "half a mark", "mark of no sense"])
def test_a_damaged_one_is_deleted_and_the_one_before_taken(folder: Path, harm: str):
    earlier, last = write(folder, 5), write(folder, 10)
    if harm == "cut":
        (last / "weights").write_text("01234")
    elif harm == "lost":
        (last / "weights").unlink()
    elif harm == "unmarked":
        (last / WHOLE).unlink()
    else:
        (last / WHOLE).write_text('{"files": {"we' if harm == "half a mark" else "[1]")
    assert last_good(folder) == earlier and not last.exists()


def test_one_whose_best_is_lost_does_not_count(folder: Path):
    first = write(folder, 5, best=5)
    second, third = write(folder, 10, best=10), write(folder, 15, best=10)
    (second / "weights").unlink()
    assert last_good(folder) == first and not third.exists()
    assert last_good(folder.with_name("nothing")) is None


def test_one_from_elsewhere_is_refused(folder: Path):
    checkpoint = write(folder, 5)
    elsewhere = folder.parents[1] / "other" / "adapted"
    elsewhere.mkdir(parents=True)
    checkpoint.rename(elsewhere / checkpoint.name)
    with pytest.raises(UserError, match="checkpoint-5 belongs to another model, other packs or other parameters"):
        last_good(elsewhere)


def test_the_last_and_the_best_stay(folder: Path):
    for step in (5, 10, 15, 100):
        write(folder, step, best=min(step, 10))
    keep_last_and_best(folder)
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-10", "checkpoint-100"}
    assert best_of(folder / "checkpoint-100") == folder / "checkpoint-10"


def test_discarded_twice(folder: Path):
    key, rest = folder.parent, folder.parent.with_suffix(".partial")
    for _ in range(2):
        (folder / "finished").mkdir(parents=True)
        discard(key)
        assert not key.exists() and not rest.exists()
        (rest / "left").mkdir(parents=True)  # as if killed in between
    discard(rest)
    assert not rest.exists()


def test_of_other_keys_those_that_no_run_has_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus.locks, "LOCK_SECONDS", 0)
    store, locks = tmp_path / "checkpoints", tmp_path / "locks"
    for name in ("ours", "theirs", "old", "older.partial"):
        (store / name / "adapted").mkdir(parents=True)
    with held(store / "theirs", locks):
        (store / "old" / "adapted").mkdir(parents=True)
        (store / "ours" / "adapted").mkdir(parents=True)
        with held(store / "ours", locks):
            assert {path.name for path in store.iterdir()} == {"ours", "theirs"}
            with pytest.raises(UserError, match="ours is being written by another run"), held(store / "ours", locks):
                raise AssertionError("two runs have it")
    with held(store / "ours", locks):
        assert [path.name for path in store.iterdir()] == ["ours"]


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    project = built(tmp_path_factory.getbasetemp())
    pack = tmp_path / "pack"
    pack.mkdir()
    for name in ("train", "validation"):
        (pack / name).symlink_to(project / "data" / "pack" / name)
    overrides = ["finetune.tokens=768", "finetune.evaluations=3", "finetune.dropout=0.1"]
    script = Path(__file__).with_name("kill_everywhere.py")
    command = [sys.executable, str(script), str(tmp_path), str(project), str(pack), "4", *overrides]
    done = subprocess.run(command, cwd=script.parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout)
    names = {"adapter_model.safetensors", "adapter_config.json", "plots/loss.csv", "metrics.json"}
    assert names <= outcome["undisturbed"].keys()
    for moment, killed, resumed, files in outcome["killed"]:
        assert killed == signal.SIGKILL and resumed == 0, moment
        assert files == outcome["undisturbed"], moment
