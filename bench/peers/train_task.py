"""What the trainers' scripts share: their settings, a clock for the steps, the result."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from measurement import cpu_seconds, peak_mb

WARM = 5  # steps before the steady clock starts
RANK, ALPHA, LEARNING_RATE = 16, 32, 1e-3


def read_task() -> dict[str, Any]:
    """The task, JSON on the command line: base, rows, packs, output, result (paths), variant, length, batch, steps."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    return task | {name: Path(task[name]) for name in ("base", "rows", "packs", "output", "result")}


def adapter() -> Any:
    """The same adapter for all."""
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def arguments(task: dict[str, Any]) -> dict[str, Any]:
    """The TrainingArguments that all have."""
    return {
        "output_dir": str(task["output"]),
        "per_device_train_batch_size": task["batch"],
        "max_steps": task["steps"],
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "cosine",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def clock() -> Any:
    """A callback that notes the processor time from the process's start at each step's end in `.ends`."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(cpu_seconds())

    return Clock()


def write_result(task: dict[str, Any], package: str, ticking: Any) -> None:
    """Leave the result for the caller: seconds are of the processor, `first` from the process's start."""
    ends = ticking.ends
    result = {
        "version": importlib.metadata.version(package),
        "steady_seconds": (ends[-1] - ends[WARM - 1]) * len(ends) / (len(ends) - WARM),  # as if all steps were so
        "startup_seconds": ends[0],
        "seconds": cpu_seconds(),
        "peak_mb": peak_mb(),
        "steps": len(ends),
    }
    task["result"].write_text(json.dumps(result))
