"""Disks that are full or read-only: a sentence that names the file, and nothing half-written; one more run mends it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BIN, command
from drill_project import (
    STAGES,
    account,
    assert_one_more_run_mends,
    copy_before,
    output_of,
    run_stage,
    sentence_of,
    undisturbed,
)

from corpus.answers import answers
from corpus.errors import UserError

MEGABYTES = 64


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Something mounted on a folder for a while; skips where the tests may not mount."""
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "drill") as disk:
        yield disk


def fill(disk: Path, left: int) -> Path:
    """Leave so many bytes free on a disk."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - left)
    return filler


FULL = [("scrape", 30_000), ("clean", 60_000), ("measure", 20_000), ("reference", 100_000), ("perplexity", 0)]
FULL += [("dedup", 40_000), ("dedup", 150_000), ("filter", 12_000), ("split", 60_000), ("augment", 20_000)]
FULL += [("shard", 100_000)]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "left"), FULL)
def test_a_full_disk_is_said_and_room_is_all_it_takes(undisturbed: Path, tmp_path: Path, stage: str, left: int) -> None:
    with small_disk(tmp_path / "disk") as disk:
        project = copy_before(undisturbed, disk / "project", stage)
        filler = fill(disk, left)
        done = run_stage(project, stage, "--workers", "2")
        assert re.search("No space left on device|is the disk full", sentence_of(done))
        assert not list(output_of(project, stage).glob("*"))
        filler.unlink()
        assert_one_more_run_mends(project, undisturbed, stage, workers=2)
        if stage != "reference":
            account(project, stage)


@pytest.mark.parametrize("stage", ["scrape", "perplexity", "filter"])
def test_a_limit_on_the_size_of_files_is_said(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    """What a quota does, also where nothing can be mounted."""
    project = copy_before(undisturbed, tmp_path / "project", stage)
    done = command(project, "prlimit", "--fsize=2000", "corpus", stage, "--workers", "1", check=False)
    sentence_of(done, "File too large")
    assert not output_of(project, stage).exists()
    assert_one_more_run_mends(project, undisturbed, stage)


@pytest.mark.parametrize("place", ["data", "reports", ".corpusmill"])
def test_a_folder_that_is_mounted_read_only_is_named(undisturbed: Path, tmp_path: Path, place: str) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "filter")
    folder = project / place
    with mounted(folder, "--bind", str(folder)):
        done = subprocess.run(["mount", "-o", "remount,bind,ro", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount read-only here: {done.stderr.strip()}")
        sentence_of(run_stage(project, "filter", "--workers", "1"), "Read-only file system", f"{place}/")
    assert not (project / "data" / "filter").exists()
    assert_one_more_run_mends(project, undisturbed, "filter")


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that every user can reach, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(("place", "mode"), [("data", 0o555), ("reports", 0o555), ("data/measure", 0o000)])
def test_without_permission_the_file_is_named(undisturbed: Path, anybodys: Path, place: str, mode: int) -> None:
    words = ["corpus", "filter", "--workers", "1"]
    project = copy_before(undisturbed, anybodys / "project", "filter")
    if os.geteuid() == 0:  # whom no mode keeps out
        words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *words]
        command(project, "chown", "-R", "65534:65534", ".")
        if command(
            project, *words[:-4], str(BIN / "python"), "-c", "import corpus.cli; open('rows.jsonl')", check=False
        ).returncode:
            pytest.skip("nobody may not read this project, or where it is installed")
    for path in [project / place, *((project / place).iterdir() if mode == 0 else ())]:
        path.chmod(mode)
    done = command(project, *words, check=False)
    sentence_of(done, "ermission denied", place)
    assert "delete it" not in done.stderr
    for path in [project / place, *(project / place).iterdir()]:
        path.chmod(0o755)
    assert not (project / "data" / "filter").exists()
    assert_one_more_run_mends(project, undisturbed, "filter")


def test_answers_of_models_say_that_there_is_no_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, answers(disk / "answers.sqlite") as known:
        known.put(b"1", "a", "kept")
        filler = fill(disk, 0)
        with pytest.raises(UserError, match=r"answers\.sqlite cannot be used: database or disk is full"):
            known.put(b"2", "a", "too long " * 10_000)
        filler.unlink()
        assert known.get(b"1") == "kept"


def test_all_stages_are_drilled() -> None:
    assert {stage for stage, _ in FULL} == set(STAGES)
