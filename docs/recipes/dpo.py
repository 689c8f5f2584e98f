"""Preference training (DPO) by TRL: the fine-tuned adapter learns to prefer what people chose over what they rejected.

    pip install 'corpusmill[recipes]'
    python docs/recipes/dpo.py [--data data] [--output data/dpo] [--epochs 1] [--learning-rate 1e-4] [--beta 0.1]

Takes the rows of the shards that have a `preference`, as sources with `chosen` and `rejected` give them, and goes on
training a copy of the adapter in data/finetune; the reference is that adapter as it was. The result is an adapter of
data/base again, for `train evaluate --input data/dpo --output scores` and the other recipes. Prints how often, and by
how much reward, the chosen answers of the validation shard are preferred, before and after.
"""

import argparse
from pathlib import Path

from datasets import Dataset, load_dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def read_preferences(shard: Path) -> Dataset:
    """Rows of prompt, chosen and rejected, each a list of messages; `messages` are the prompt and the chosen answer."""
    rows = load_dataset("parquet", data_files=str(shard / "*.parquet"), split="train")
    if "preference" not in rows.column_names or not any(rows["preference"]):
        raise SystemExit(f"{shard} has no preferences: name a source with `chosen` and `rejected` in params.yaml")
    pairs = [row for row in rows.select_columns(["messages", "preference"]) if row["preference"]]
    return Dataset.from_list(
        [{"prompt": row["messages"][: -len(row["preference"]["chosen"])]} | row["preference"] for row in pairs]
    )


def main(data: Path, output: Path, epochs: float, learning_rate: float, beta: float) -> None:
    tokenizer = AutoTokenizer.from_pretrained(data / "base")
    base = AutoModelForCausalLM.from_pretrained(data / "base")
    model = PeftModel.from_pretrained(base, data / "finetune", is_trainable=True)
    train, validation = (read_preferences(data / "shard" / split) for split in ("train", "validation"))
    settings = {"num_train_epochs": epochs, "learning_rate": learning_rate, "beta": beta}
    small = {"bf16": False, "gradient_checkpointing": False}  # TRL's own are made for models that fill a GPU
    arguments = DPOConfig(str(output / "log"), report_to="none", save_strategy="no", **settings, **small)
    trainer = DPOTrainer(model, None, arguments, None, train, validation, tokenizer)
    before, _, after = trainer.evaluate(), trainer.train(), trainer.evaluate()
    for name in ("eval_rewards/accuracies", "eval_rewards/margins"):
        print(f"{name} on {len(validation)} rows: {before[name]:.3f} → {after[name]:.3f}")
    model.save_pretrained(output, selected_adapters=["default"], save_embedding_layers=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, default=Path("data/dpo"))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--beta", type=float, default=0.1, help="the larger, the nearer it stays to the reference")
    main(**vars(parser.parse_args()))
