"""`train finetune` on what `train pack` wrote, with a clock at its steps."""

from __future__ import annotations

import sys

from peers.train_task import ALPHA, LEARNING_RATE, RANK, clock, read_task, write_result
from transformers import trainer

from train.cli import main as command


def main() -> None:
    """Train and save."""
    task = read_task()
    ticking = clock()
    trainer.DEFAULT_CALLBACKS.append(ticking)
    settings = {
        "finetune.tokens": task["steps"] * task["batch"] * task["length"],
        "finetune.rows_per_step": task["batch"],
        "finetune.learning_rate": LEARNING_RATE,
        "finetune.rank": RANK,
        "finetune.alpha": ALPHA,
        "finetune.train_embeddings": "false",
        "finetune.evaluations": 1,
        "finetune.report_to": "[]",
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    code = command(["finetune", "--input", str(task["packs"]), "--output", "adapter", "--workers", "1", *options])
    if code:
        sys.exit(code)
    write_result(task, "corpusmill", ticking)


if __name__ == "__main__":
    main()
