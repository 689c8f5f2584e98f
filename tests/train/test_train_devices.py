"""Two processes train what one trains, over gloo on the CPU, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from safetensors.torch import load_file
from tiny_project import built, params

SETTINGS = ["finetune.rows_per_step=4", "finetune.tokens=2560", "finetune.batch=1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp())


def train(project: Path, folder: Path, processes: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`train finetune` in a folder with the project's data, alone or under torchrun."""
    if not folder.exists():
        folder.mkdir()
        (folder / "data").symlink_to(project / "data")
        (folder / "params.yaml").write_text(yaml.safe_dump(params().model_dump(mode="json")))
    command = [str(Path(sys.executable).with_name("train")), "finetune", "--output", "out", "--workers", "1"]
    command += [part for override in (*SETTINGS, *overrides) for part in ("--set", override)]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command = [*launcher, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def result(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    log = pl.read_csv(folder / "out" / "plots" / "loss.csv").to_dicts()
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    return metrics, log, load_file(folder / "out" / "adapter_model.safetensors")


def test_two_processes_train_as_one_does(project: Path, tmp_path: Path):
    for processes in (1, 2):
        done = train(project, tmp_path / str(processes), processes)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("finetune: ") == 1  # one of them speaks
    (one, log, weights), (two, other_log, other_weights) = (result(tmp_path / str(n)) for n in (1, 2))
    assert one["adapted"]["steps"] == two["adapted"]["steps"] and one.keys() == two.keys()
    assert len(log) == len(other_log)
    for event, other in zip(log, other_log, strict=True):
        for key, value in event.items():
            assert other[key] == pytest.approx(value, abs=1e-4), (key, event)
    for name, weight in weights.items():
        assert (weight - other_weights[name]).abs().max() < 1e-3, name
