"""transformers' Trainer as guides use it: `padded` to the full length, `dynamic` padding, `grouped` by length."""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers
from datasets import Dataset
from peers.train_task import adapter, arguments, clock, read_task, write_result
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments


def main() -> None:
    """Train and save."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    task = read_task()
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    padded = task["variant"] == "padded"

    def tokenize(row: dict[str, Any]) -> dict[str, Any]:
        padding = "max_length" if padded else False
        encoded = tokenizer(row["text"], truncation=True, max_length=task["length"], padding=padding)
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": list(encoded["input_ids"]),
        }

    rows = Dataset.from_list([json.loads(line) for line in task["rows"].read_text("utf-8").splitlines()])
    rows = rows.map(tokenize, remove_columns=rows.column_names)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(task["base"]), adapter())
    sampling = {"train_sampling_strategy": "group_by_length"} if task["variant"] == "grouped" else {}
    ticking = clock()
    trainer = Trainer(
        model,
        TrainingArguments(**arguments(task), **sampling),
        train_dataset=rows,
        data_collator=None if padded else DataCollatorForSeq2Seq(tokenizer),
        callbacks=[ticking],
    )
    trainer.train()
    model.save_pretrained(task["output"])
    write_result(task, "transformers", ticking)


if __name__ == "__main__":
    main()
