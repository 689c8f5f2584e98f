"""What can be watched while it trains: dvclive's files, other trackers, and a profiler's trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from corpus.params import Finetune

KINDS = {"loss": "train/loss", "eval_loss": "validation/loss", "grad_norm": "train/grad_norm", "learning_rate": "rate"}
PROFILED = {"wait": 1, "warmup": 1, "active": 3}  # steps


def watchers(settings: Finetune, reports: Path, checkpoints: Path, name: str) -> list[TrainerCallback]:
    """Callbacks for dvclive and the profiler; the trackers that transformers knows itself write below the store."""
    folder = (checkpoints.parents[2] / "tracking").resolve()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard" / name)
    os.environ.setdefault("WANDB_DIR", str(folder))
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    if {*settings.report_to} - {"dvclive"}:
        folder.mkdir(parents=True, exist_ok=True)
    live = [LiveCallback(reports / "dvclive" / name)] if "dvclive" in settings.report_to else []
    profiled = settings.profile and name == "adapted"
    return [*live, EndOfRun(), *([ProfilerCallback(reports / "finetune.trace.json")] if profiled else [])]


def write_live(folder: Path, log: Iterable[Mapping[str, float]]) -> None:
    """Write a log's plots and metrics.json, without times: of the same log the same bytes.

    Nothing in a git repository without a commit, whose revision dvclive asks for.
    """
    from dvclive.live import Live
    from scmrepo.exceptions import SCMError

    try:
        live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
    except SCMError:
        return
    for event in log:
        live.step = int(event["step"])
        for key, name in KINDS.items():
            if key in event:
                live.log_metric(name, event[key])
        live.make_summary()


class LiveCallback(TrainerCallback):
    """Writes dvclive's files while it trains, all anew each time: after a kill, what was logged before is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        write_live(self.folder, state.log_history)


class EndOfRun(TrainerCallback):
    """Ends wandb's run with the training: transformers would log the control into the adapter's."""

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if wandb := sys.modules.get("wandb"):
            wandb.finish()


class ProfilerCallback(TrainerCallback):
    """Traces a few steps with torch's profiler into a file that chrome://tracing and Perfetto show."""

    def __init__(self, file: Path) -> None:
        schedule = torch.profiler.schedule(**PROFILED, repeat=1)
        self.profiler = torch.profiler.profile(
            schedule=schedule, on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(file))
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.profiler.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.profiler.step()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.profiler.stop()
