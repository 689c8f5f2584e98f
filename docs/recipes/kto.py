"""Preference training (KTO) by TRL, from single answers that were wanted or not: the fine-tuned adapter learns on.

    pip install 'corpusmill[recipes]'
    python docs/recipes/kto.py [--data data] [--output data/kto] [--epochs 1] [--learning-rate 1e-4] [--beta 0.1]

Takes the dialogues of the shards whose `label` is "true" or "false", as sources with a `label` of true or false beside
their answers give them, and goes on training a copy of the adapter in data/finetune; the reference is that adapter as
it was. The result is an adapter of data/base again, for `train evaluate --input data/kto --output scores`. Prints the
mean reward of wanted and of unwanted answers of the validation shard, before and after.
"""

import argparse
from pathlib import Path

from datasets import Dataset, load_dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

LABELS = {"true": True, "false": False}


def read_answers(shard: Path) -> Dataset:
    """Rows of prompt and completion, each a list of messages, and label, whether the completion was wanted."""
    rows = load_dataset("parquet", data_files=str(shard / "*.parquet"), split="train")
    if not LABELS.keys() <= set(rows["label"]):
        raise SystemExit(f"{shard} has not both, dialogues labelled true and false: name a source that has")
    answers = [row for row in rows.select_columns(["messages", "label"]) if row["messages"] and row["label"] in LABELS]
    return Dataset.from_list(
        [
            {"prompt": row["messages"][:-1], "completion": row["messages"][-1:], "label": LABELS[row["label"]]}
            for row in answers
        ]
    )


def main(data: Path, output: Path, epochs: float, learning_rate: float, beta: float) -> None:
    tokenizer = AutoTokenizer.from_pretrained(data / "base")
    base = AutoModelForCausalLM.from_pretrained(data / "base")
    model = PeftModel.from_pretrained(base, data / "finetune", is_trainable=True)
    train, validation = (read_answers(data / "shard" / split) for split in ("train", "validation"))
    settings = {"num_train_epochs": epochs, "learning_rate": learning_rate, "beta": beta}
    small = {"bf16": False, "gradient_checkpointing": False}  # TRL's own are made for models that fill a GPU
    arguments = KTOConfig(str(output / "log"), report_to="none", save_strategy="no", **settings, **small)
    trainer = KTOTrainer(model, None, arguments, None, train, validation, tokenizer)
    before, _, after = trainer.evaluate(), trainer.train(), trainer.evaluate()
    for name in ("eval_rewards/chosen", "eval_rewards/rejected", "eval_rewards/margins"):
        print(f"{name} on {len(validation)} rows: {before[name]:.3f} → {after[name]:.3f}")
    model.save_pretrained(output, selected_adapters=["default"], save_embedding_layers=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, default=Path("data/kto"))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--beta", type=float, default=0.1, help="the larger, the nearer it stays to the reference")
    main(**vars(parser.parse_args()))
