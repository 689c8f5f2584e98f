"""Clocks that jump and times of files that lie: the same bytes, and nothing stale from what is remembered by them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import command
from drill_project import (
    account,
    assert_one_more_run_mends,
    copy_before,
    injected,
    make_project,
    result,
    run_stage,
    undisturbed,
)

DAY = 86_400.0


@pytest.mark.slow
def test_a_clock_that_jumps_by_days_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for stage in ("scrape", "clean", "measure", "dedup"):
        done = run_stage(project, stage, "--workers", "2", **injected(DRILL_CLOCK=str(3 * DAY)))
        assert done.returncode == 0, done.stderr
        assert result(project, stage) == result(undisturbed, stage)
    account(project, "measure")


@pytest.mark.parametrize("when", [0.0, 10 * 365 * DAY], ids=["1970", "in ten years"])
def test_times_of_files_far_off_change_nothing(undisturbed: Path, tmp_path: Path, when: float) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "filter")
    for path in project.rglob("*"):
        os.utime(path, (when, when))
    assert_one_more_run_mends(project, undisturbed, "filter")


def in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def in_its_place(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)  # on many file systems with the number of the one just removed


@pytest.mark.parametrize("write", [in_place, in_its_place])
def test_a_file_of_other_content_and_the_same_time_is_read_again(
    undisturbed: Path, tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    """As archives with fixed times leave it, or `rsync --inplace --times`."""
    project = copy_before(undisturbed, tmp_path / "project", "filter")
    shutil.rmtree(project / ".corpusmill")
    parts = sorted((project / "data" / "measure").glob("*.parquet"))
    command(project, "corpus", "filter", "--workers", "1")
    names = ("mattr", "ttr")
    for part in parts:
        before, whole = part.stat(), part.read_bytes()
        changed = whole.replace(names[0].encode(), b"xxxxx")
        assert len(changed) == len(whole)
        assert changed != whole
        write(part, changed)
        os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = run_stage(project, "filter", "--workers", "1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "mattr" in done.stderr
    for part in parts:
        shutil.copy2(undisturbed / part.relative_to(project), part)
    assert_one_more_run_mends(project, undisturbed, "filter")


def test_a_source_of_other_content_and_the_same_time_is_read_again_after_a_kill(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    rows = project / "rows.jsonl"
    before = rows.stat()
    kill = injected(DRILL_KILL=r"parts/scrape/.*partial/.*dropped", DRILL_ANYWHERE="1")
    assert run_stage(project, "scrape", "--workers", "1", **kill).returncode == -signal.SIGKILL
    changed = rows.read_bytes().replace(b'"d17"', b'"e17"')
    rows.write_bytes(changed)
    os.utime(rows, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (rows.stat().st_size, rows.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    command(project, "corpus", "scrape", "--workers", "1")
    assert "e17" in [json.loads(line)["id"] for line in changed.decode().splitlines()]
    account(project, "scrape")
