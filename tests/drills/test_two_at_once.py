"""Several runs at once: on one output, on one store, and stages that read what another one writes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import command, digests, environment
from drill_project import account, copy_before, output_of, result, undisturbed


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ends(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Exit codes and what was said on standard error; never a traceback."""
    said = [(process.communicate()[1], process.returncode) for process in processes]
    assert not any("Traceback" in text for text, _ in said), said
    return [(code, text) for text, code in said]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["scrape", "clean", "filter"])
def test_two_runs_on_one_output_wait_for_each_other(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    project = copy_before(undisturbed, tmp_path / "project", stage)
    runs = [start(project, "corpus", stage, "--workers", "2") for _ in range(3)]
    for code, said in ends(*runs):
        assert code == 0 or (code == 2 and "is being written by another run" in said), said
    assert result(project, stage) == result(undisturbed, stage)
    assert not list((project / "data").glob(".*"))


def test_runs_of_two_folders_on_one_output_see_each_other(undisturbed: Path, tmp_path: Path) -> None:
    """The second, of another setting, waits, and what is there at the end is of one of them."""
    projects = [copy_before(undisturbed, tmp_path / name, "perplexity") for name in ("one", "other")]
    words = ["corpus", "perplexity", "--input", "data/clean", "--output", str(tmp_path / "out"), "--workers", "1"]
    expected = []
    for number, project in enumerate(projects):
        (project / "own").mkdir()
        own = [*words[:5], "own/out", *words[6:], "--set", f"perplexity.max_tokens={100 + number}"]
        command(project, *own)
        expected.append(digests(project / "own" / "out"))
        shutil.rmtree(project / ".corpusmill" / "parts" / "perplexity")
    assert expected[0] != expected[1]
    runs = [
        start(project, *words, "--set", f"perplexity.max_tokens={100 + number}")
        for number, project in enumerate(projects)
    ]
    for code, said in ends(*runs):
        assert code == 0 or (code == 2 and "is being written by another run" in said), said
    assert digests(tmp_path / "out") in expected


def test_runs_on_two_outputs_share_the_store(undisturbed: Path, tmp_path: Path) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "perplexity")
    words = ("corpus", "perplexity", "--input", "data/clean", "--workers", "1", "--output")
    runs = [start(project, *words, f"out-{number}") for number in range(3)]
    assert [code for code, _ in ends(*runs)] == [0, 0, 0]
    expected = digests(output_of(undisturbed, "perplexity"))
    for number in range(3):
        found = digests(project / f"out-{number}")
        assert {name: found[name] for name in expected} == expected


@pytest.mark.slow
def test_different_stages_read_at_once(undisturbed: Path, tmp_path: Path) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "measure")
    shutil.copytree(output_of(undisturbed, "reference"), output_of(project, "reference"))
    runs = [start(project, "corpus", stage, "--workers", "1") for stage in ("measure", "perplexity")]
    assert [code for code, _ in ends(*runs)] == [0, 0]
    for stage in ("measure", "perplexity"):
        assert result(project, stage) == result(undisturbed, stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["perplexity", "dedup"])
def test_what_a_stage_reads_is_written_anew_meanwhile(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    """It fails in a sentence instead of mixing two versions, and keeps nothing under the key of the wrong one."""
    project = copy_before(undisturbed, tmp_path / "project", "measure")
    shutil.copytree(output_of(undisturbed, "reference"), output_of(project, "reference"))
    params = (project / "params.yaml").read_text()

    def clean(more: str) -> None:
        (project / "params.yaml").write_text(params + more)
        command(project, "corpus", "clean", "--workers", "2")

    def outcome() -> dict[str, str]:
        command(project, "corpus", stage, "--input", "data/clean", "--output", "out", "--workers", "1")
        return digests(project / "out")

    expected = outcome()
    clean("clean: {languages: [en]}\n")
    changed = outcome()
    assert changed != expected
    clean("")
    shutil.rmtree(project / ".corpusmill" / "parts" / stage)
    reader = start(project, "corpus", stage, "--input", "data/clean", "--output", "out", "--workers", "1")
    while not list((project / ".corpusmill" / "parts").glob(f"{stage}/*.partial")):
        assert reader.poll() is None
        time.sleep(0.002)
    os.kill(reader.pid, signal.SIGSTOP)
    clean("clean: {languages: [en]}\n")
    os.kill(reader.pid, signal.SIGCONT)
    ((code, said),) = ends(reader)
    assert code == 1, said
    assert "changed while" in said
    assert digests(project / "out") == changed
    assert outcome() == changed
    account(project, "clean")
    clean("")
    assert outcome() == expected
    account(project, "clean")
