"""Workers that are killed or find no memory: the run goes on without them, or says in a sentence what died of what."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import command, environment
from drill_project import (
    account,
    assert_one_more_run_mends,
    copy_before,
    injected,
    result,
    run_stage,
    sentence_of,
    undisturbed,
)


@contextlib.contextmanager
def running(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        words, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process


def kill_who_writes(process: subprocess.Popen[str], folder: Path, pattern: str, most: int) -> int:
    """Kill workers, which are named by what they write into: `NAME.PID.RANDOM.partial`. How many were killed."""
    killed: set[int] = set()
    while process.poll() is None and len(killed) < most:
        for path in folder.glob(pattern):
            worker = int(path.name.split(".")[-3])
            if worker not in {process.pid, *killed}:
                time.sleep(0.05)  # into its work
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                killed.add(worker)
        time.sleep(0.002)
    return len(killed)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["clean", "measure", "dedup"])
def test_workers_killed_in_the_middle_of_a_part_cost_nothing(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    project = copy_before(undisturbed, tmp_path / "project", stage)
    store = project / ".corpusmill" / "parts" / stage
    with running(project, "corpus", stage, "--workers", "2") as process:
        assert kill_who_writes(process, store, "*.partial", 2) == 2
        assert process.wait() == 0, process.stderr and process.stderr.read()
    assert result(project, stage) == result(undisturbed, stage)


def test_a_worker_killed_while_documents_are_compared_costs_nothing(undisturbed: Path, tmp_path: Path) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "dedup")
    shutil.rmtree(project / ".corpusmill" / "stars")  # or nothing would be compared again
    once = tmp_path / "once"
    fault = injected(DRILL_KILL=r"/shingles-\d+$", DRILL_ONCE=str(once))
    done = run_stage(project, "dedup", "--workers", "2", **fault)
    assert done.returncode == 0, done.stderr
    assert once.exists()
    assert result(project, "dedup") == result(undisturbed, "dedup")


def test_a_worker_killed_while_it_reads_a_source_costs_nothing(tmp_path: Path) -> None:
    for number in range(2):  # of more than a segment each, so that each is a worker's
        rows = [json.dumps({"id": f"{number}-{row}", "text": f"{row} " + "word " * 220_000}) for row in range(60)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "params.yaml").write_text("sources: [{name: rows, kind: jsonl, path: '*.jsonl', id_field: id}]")
    command(tmp_path, "corpus", "scrape", "--workers", "1")
    expected = result(tmp_path, "scrape")
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / ".corpusmill")
    with running(tmp_path, "corpus", "scrape", "--workers", "2") as process:
        assert kill_who_writes(process, tmp_path / ".corpusmill" / "scrape", "*/*.partial", 1) == 1
        assert process.wait() == 0, process.stderr and process.stderr.read()
    assert result(tmp_path, "scrape") == expected


def test_a_part_that_always_kills_its_worker_is_named(undisturbed: Path, tmp_path: Path) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "perplexity")
    done = run_stage(project, "perplexity", "--workers", "2", **injected(DRILL_KILL=r"/parts/perplexity/"))
    sentence_of(done, "a worker died 3 times", "data/clean/part-rows-0-0000", "memory")
    assert done.returncode == 1
    assert not (project / "data" / "perplexity").exists()
    assert_one_more_run_mends(project, undisturbed, "perplexity", workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["measure", "dedup"])
def test_workers_without_memory_fail_in_a_sentence(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    """Wherever the limit strikes, in Python, in Arrow or in a library that then aborts."""
    project = copy_before(undisturbed, tmp_path / "project", stage)
    failed = 0
    for megabytes in (150, 1_300):  # between them lies what imports need, where OpenBLAS waits for memory without end
        done = run_stage(project, stage, "--workers", "2", **injected(DRILL_MEMORY=str(megabytes)))
        if done.returncode:
            assert done.returncode == 1, done.stderr
            last = done.stderr.strip().splitlines()[-1]
            assert last.startswith("failed: "), done.stderr
            assert "memory" in last
            assert not (project / "data" / stage).exists()
            failed += 1
    assert failed
    assert_one_more_run_mends(project, undisturbed, stage, workers=2)


@pytest.mark.parametrize("stage", ["filter", "dedup"])
def test_a_stage_without_memory_fails_in_a_sentence(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    project = copy_before(undisturbed, tmp_path / "project", stage)
    for megabytes in (1000, 1400):
        done = command(project, "prlimit", f"--as={megabytes << 20}", "corpus", stage, "--workers", "1", check=False)
        assert "Traceback" not in done.stderr, (megabytes, done.stderr)
        assert done.returncode == 0 or not (project / "data" / stage).exists()
    assert_one_more_run_mends(project, undisturbed, stage)
    account(project, stage)
