"""TRL's SFTTrainer with packing: `generous`, in fp32 without gradient checkpointing, or `defaults`."""

from __future__ import annotations

import json

import torch
import transformers
from datasets import Dataset
from peers.train_task import adapter, arguments, clock, read_task, write_result
from trl import SFTConfig, SFTTrainer


def main() -> None:
    """Train and save."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    task = read_task()
    rows = Dataset.from_list([json.loads(line) for line in task["rows"].read_text("utf-8").splitlines()])
    generous = {"bf16": False, "gradient_checkpointing": False} if task["variant"] == "generous" else {}
    ticking = clock()
    trainer = SFTTrainer(
        str(task["base"]),
        SFTConfig(**arguments(task), **generous, packing=True, max_length=task["length"], dataset_text_field="text"),
        train_dataset=rows,
        peft_config=adapter(),
        callbacks=[ticking],
    )
    trainer.train()
    trainer.save_model()
    write_result(task, "trl", ticking)


if __name__ == "__main__":
    main()
