"""`kill -9` of the process that drives a stage, and of dvc, at any moment: one more run, and nothing had happened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import command, environment
from drill_project import account, copy_before, result, run_stage, undisturbed

SWEEP = Path(__file__).with_name("kill_sweep.py")
KILLED = 9  # wait status


def sweep(project: Path, stage: str, folder: Path, moments: int) -> dict[str, dict[str, str]]:
    """Kill a stage at some moments. Whatever is there then is whole: the old output, or the new one."""
    done = subprocess.run(
        [sys.executable, SWEEP, project, stage, folder, str(moments)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["ends"]) >= min(moments, 5)
    whole = [without_metrics(found[name]) for name in ("before", "undisturbed")]
    for what, killed, there, again, mended, beside in found["ends"]:
        assert killed == KILLED, what
        assert without_metrics(there) in (*whole, {}), what
        assert again == 0, (what, done.stderr)
        assert mended == found["undisturbed"], what
        assert beside == [], what
    return found


def without_metrics(left: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in left.items() if name != "metrics"}


STAGES = {"scrape": 16, "clean": 3, "measure": 3, "reference": 3, "perplexity": 3, "dedup": 4, "filter": 16, "split": 3}
STAGES |= {"augment": 3, "shard": 6}


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "moments"), STAGES.items())
def test_killed_at_many_moments_one_more_run_gives_the_same_bytes(
    undisturbed: Path,
    tmp_path: Path,
    stage: str,
    moments: int,
) -> None:
    project = copy_before(undisturbed, tmp_path / "project", stage)
    found = sweep(project, stage, tmp_path, moments)
    assert found["undisturbed"] == result(undisturbed, stage)


@pytest.mark.slow
def test_killed_over_an_older_output_leaves_the_old_or_the_new_one(undisturbed: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project)
    with (project / "params.yaml").open("a") as file:
        file.write("filter: {bounds: {en: {n_chars: {min: 700}}}}\n")
    found = sweep(project, "filter", tmp_path, 16)
    assert found["undisturbed"]["metrics"] != found["before"]["metrics"]


@pytest.mark.slow
def test_dvc_killed_at_several_moments(undisturbed: Path, tmp_path: Path) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "filter")
    outs = {"filter": ["clean", "measure", "perplexity", "dedup"], "split": ["clean", "filter", "dedup"]}
    stages = {
        stage: {
            "cmd": f"exec corpus {stage} --workers 1",
            "deps": [f"data/{name}" for name in reads],
            "outs": [f"data/{stage}", {f"reports/{stage}.json": {"cache": False}}],
        }
        for stage, reads in outs.items()
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    command(project, "dvc", "init", "--no-scm")
    command(project, "dvc", "config", "core.analytics", "false")
    started = time.monotonic()
    shutil.copytree(project, tmp_path / "whole")
    command(tmp_path / "whole", "dvc", "repro")
    seconds = time.monotonic() - started
    shares = (0.25, 0.45, 0.6, 0.75, 0.9)
    for share in shares:  # of one project, so that each finds what the one before has left
        with subprocess.Popen(
            ["dvc", "repro", "--force"], cwd=project, env=environment(), stdout=subprocess.DEVNULL
        ) as dvc:
            time.sleep(share * seconds)
            dvc.kill()
    command(project, "dvc", "repro")
    for stage in stages:
        assert result(project, stage) == result(undisturbed, stage), stage
    assert yaml.safe_load((project / "dvc.lock").read_text()) == yaml.safe_load(
        (tmp_path / "whole" / "dvc.lock").read_text()
    )
    assert not list((project / "data").glob(".*.partial")) and not list((project / "data").glob(".*.outdated"))
    for stage in ("augment", "shard"):
        assert run_stage(project, stage, "--workers", "1").returncode == 0
    account(project)
