"""Chinese reviews to 好评 or 差评: a tiny model trained on yours, its learning rate chosen, and scored, in two minutes.

    python ../docs/recipes/sentiment_zh.py reviews.parquet [rows to learn from, 4000] [rows to test on, 1000]

Say it in an empty folder, which becomes a project; each command is printed. The file (CSV, JSONL or Parquet) has `text`
and `label`: 1 for good and 0 for bad, or words, which are then the answers. The base learns from the same texts; a
tenth of the rows chooses the rate. Prints accuracy and macro F1 of what the model answers, and those of baselines.py.
"""

import json
import sys
from pathlib import Path

import baselines
import polars as pl
import yaml

from train.cli import main as train

BASE = {"vocabulary": 2048, "layers": 1, "hidden": 64, "heads": 1, "context": 256, "steps": 60, "texts": ["texts.txt"]}
TASK = {"prompt": "评论：{{ text }}\n评价：", "answers": {"0": "差评", "1": "好评"}, "answer": "{{ answers[label] }}"}


def run(*command: str) -> dict:
    print("train", *command, flush=True)
    train([*command, "--workers", "1"]) == 0 or sys.exit(1)
    return json.loads(Path(command[-1], "metrics.json").read_text())


def main(file, rows=4000, test=1000, task=TASK, lang="zh-Hans", rates=(0.002, 0.004, 0.008), tokens=500_000):
    read = {".csv": pl.read_csv, ".parquet": pl.read_parquet}.get(Path(file).suffix, pl.read_ndjson)
    data = read(file).select(pl.col("text", "label").cast(pl.String)).drop_nulls().unique("text", maintain_order=True)
    data = data.sample(rows + test, shuffle=True, seed=0).with_columns(id=pl.int_range(pl.len()), lang=pl.lit(lang))
    losses, learn, score = {}, data[: rows * 9 // 10].cast({"id": pl.String}), data[rows:].cast({"id": pl.String})
    Path("data/evaluation").mkdir(parents=True)
    Path("data/reviews").mkdir()
    learn.write_ndjson("data/reviews/train.jsonl")
    data[len(learn) : rows].write_ndjson("data/reviews/validation.jsonl")
    score.write_ndjson("data/evaluation/reviews.jsonl")
    Path("texts.txt").write_text("\n---\n".join(learn["text"]), "utf-8")
    answers = {label: task["answers"].get(label, label) for label in data["label"].unique().sort()}
    Path("task.yaml").write_text(yaml.safe_dump(task | {"answers": answers}), "utf-8")
    settings = {"base": BASE, "pack": {"templates": ["task.yaml"]}, "finetune": {"tokens": tokens, "rows_per_step": 4}}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    run("base", "--output", "data/base")
    run("pack", "--input", "data/reviews", "--output", "data/pack")
    for rate in rates:
        chosen = ("--set", f"finetune.learning_rate={rate}", "--output", f"data/rate-{rate}")
        losses[rate] = run("finetune", "--input", "data/pack", *chosen)["adapted"]["best_validation_loss"]
    best = min(losses, key=losses.get)
    print(f"learning rate {best}, by validation loss: {losses}")
    scores = run("evaluate", "--input", f"data/rate-{best}", "--output", "data/scores")["sets"]["pinned-reviews"]
    print("model: accuracy {accuracy:.3f}, macro F1 {macro_f1:.3f}".format_map(scores["adapted"]))
    unit = "char" if lang.startswith("zh") else "word"
    baselines.main("data/reviews/train.jsonl", "data/evaluation/reviews.jsonl", unit)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]))
