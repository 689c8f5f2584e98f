"""Chinese support dialogues, several turns each: a model is adapted to them, and answers beside its base.

    python docs/recipes/support_dialogues_zh.py dialogues.jsonl

A line of the file is a dialogue in one of the usual shapes, such as {"messages": [{"role": "user", "content": …}, …]}
or {"input": …, "output": …}. Say it in an empty folder, which becomes a project. Every turn of the assistant is
learned, in the base's own chat template; every eighth dialogue is held out. Prints of such the question, the answer in
the file, and what base and adapted model answer. The base is a tiny one, which learns no more than the manner: name a
pretrained one as base.model in params.yaml, and say the commands again, for answers that are true.
"""

import json
import sys
from pathlib import Path

import yaml

from corpus.scrape.messages import dialogue_of
from train.cli import main as train

BASE = {"vocabulary": 1024, "hidden": 128, "heads": 2, "context": 512, "steps": 150, "texts": ["texts.txt"]}
PARAMS = {"base": BASE, "pack": {"length": 512}, "finetune": {"tokens": 200_000, "learning_rate": 0.002}}


def run(*command: str) -> None:
    print("train", *command, flush=True)
    if code := train([*command, "--workers", "1"]):
        sys.exit(code)


def main(file: str) -> None:
    lines = Path(file).read_text("utf-8").splitlines()
    dialogues = [dialogue_of(json.loads(line)).messages for line in lines if line.strip()]
    rows = [{"id": str(number), "lang": "zh-Hans", "messages": messages} for number, messages in enumerate(dialogues)]
    for row in rows:
        row["text"] = "\n".join(message["content"] for message in row["messages"])
    for name, chosen in {
        "dialogues/train": [row for number, row in enumerate(rows) if number % 8],
        "dialogues/validation": rows[::16],
        "evaluation/dialogues": rows[8::16],
    }.items():
        path = Path("data", f"{name}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen), "utf-8")
    texts = [row["text"] for number, row in enumerate(rows) if number % 8]
    Path("texts.txt").write_text("\n---\n".join(texts), "utf-8")
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    run("base", "--output", "data/base")
    run("pack", "--input", "data/dialogues", "--output", "data/pack")
    run("finetune", "--input", "data/pack", "--output", "data/finetune")
    run("evaluate", "--input", "data/finetune", "--output", "data/scores")
    for line in Path("data/scores/samples.jsonl").read_text("utf-8").splitlines():
        sample = json.loads(line)
        print(*(f"{name:>9}: {sample[name].strip()}" for name in ("prompt", "reference", "base", "adapted")), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
