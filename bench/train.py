"""Fine-tuning side by side with other trainers: useful tokens by processor time, of steps and end to end.

    python bench/train.py --data SFT_FOLDER --environments ENVIRONMENTS [--length 1024]

The same instructions (`alpaca_en_demo.jsonl.zst`: instruction, input, output), the same small base with random weights,
the same adapter. Each trainer is a script in `peers/`, run in a process of its own with one thread; they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from dedup import BENCH, environment, machine

TIME_LIMIT = 1_200  # seconds for one run
BATCH = 8  # examples a step; packed rows a step are as many as hold the same tokens
COLUMNS = ("trainer", "tokens/s", "×", "from start to saved", "×", "CPU s to the first step's end", "peak MB")


class Trainer(NamedTuple):
    """A row of the table."""

    script: str
    variant: str
    name: str
    packed: bool = False


TRAINERS = (
    Trainer("train_corpusmill", "", "**corpusmill**", True),
    Trainer("train_transformers", "padded", "guides' script: all padded, pads in the loss"),
    Trainer("train_transformers", "dynamic", "Trainer, padded to the longest of a batch"),
    Trainer("train_transformers", "grouped", "Trainer, grouped by length"),
    Trainer("train_trl", "generous", "TRL packed, fp32, no checkpointing", True),
    Trainer("train_trl", "defaults", "TRL packed, its defaults", True),
)


def make_base(folder: Path, length: int, env: dict[str, str]) -> None:
    """Two layers of 192, a vocabulary of 4,096 learned from the reference texts, a few steps of training."""
    settings = {"vocabulary": 4096, "layers": 2, "hidden": 192, "heads": 3, "context": length, "steps": 2}
    options = [part for key, value in settings.items() for part in ("--set", f"base.{key}={value}")]
    texts = BENCH.parent / "data" / "reference"
    run([*own("base"), "--input", texts / "en.txt", texts / "zh.txt", "--output", folder, *options], folder.parent, env)


def own(stage: str) -> list[Any]:
    """The command of a stage."""
    return [Path(sys.executable).with_name("train"), stage, "--workers", "1"]


def run(command: list[Any], folder: Path, env: dict[str, str]) -> float:
    """Run a command; its processor time. Raises RuntimeError with what it said last."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, timeout=TIME_LIMIT
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_rows(source: Path, count: int, folder: Path) -> None:
    """The first instructions as ours reads them (rows.jsonl) and as text in the base's template (texts.jsonl)."""
    from transformers import AutoTokenizer

    lines = subprocess.run(["zstd", "-dc", source], check=True, capture_output=True, text=True).stdout.splitlines()
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    with (folder / "rows.jsonl").open("w") as rows, (folder / "texts.jsonl").open("w") as texts:
        for number, line in enumerate(lines[:count]):
            row = json.loads(line)
            asked = "\n".join(filter(None, (row["instruction"], row["input"])))
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            rows.write(json.dumps({"id": str(number), "messages": messages}) + "\n")
            texts.write(json.dumps({"text": text, "tokens": len(tokenizer(text)["input_ids"])}) + "\n")


def run_trainer(trainer: Trainer, folder: Path, task: dict[str, Any], env: dict[str, str], python: Path) -> Any:
    """What a trainer's script found, with the time of `train pack` for ours."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output, result = Path(scratch) / "output", Path(scratch) / "result.json"
        output.mkdir()
        packing = 0.0
        if trainer.script == "train_corpusmill":
            (output / "data").mkdir()
            (output / "data" / "base").symlink_to(folder / "base")
            options = ["--input", folder / "rows.jsonl", "--output", task["packs"]]
            options += ["--set", f"pack.length={task['length']}"]
            packing = run([*own("pack"), *options], output, env)
        told = task | {"variant": trainer.variant, "output": str(output), "result": str(result)}
        run([python, "-P", BENCH / "peers" / f"{trainer.script}.py", json.dumps(told)], output, env)
        found = json.loads(result.read_text())
        return found | {"seconds": found["seconds"] + packing, "packing_seconds": packing}


def table(found: dict[Trainer, list[dict[str, Any]]], tokens: float) -> str:
    """The medians as a Markdown table; × are medians of the rounds' ratios to the guides' script."""
    reference = next(results for trainer, results in found.items() if trainer.variant == "padded")
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for trainer, results in found.items():
        cells = [trainer.name]
        for key in ("steady_seconds", "seconds"):
            cells.append(f"{statistics.median(tokens / result[key] for result in results):,.0f}")
            ratios = [other[key] / result[key] for result, other in zip(results, reference, strict=True)]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
        cells += [
            f"{statistics.median(r[key] for r in results):.{d}f}" for key, d in (("startup_seconds", 1), ("peak_mb", 0))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run all in turns, print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with alpaca_en_demo.jsonl.zst")
    parser.add_argument("--environments", type=Path, required=True, help="folder with a virtual environment `trl`")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--length", type=int, default=512, help="tokens of a padded or packed row")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="variants, for a quick look; ours and `padded` always run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The package `train` must be found before this file of the same name.
        env = environment(folder) | {"PYTHONPATH": os.pathsep.join([str(BENCH.parent), str(BENCH)])}
        make_base(folder / "base", options.length, env)
        write_rows(options.data / "alpaca_en_demo.jsonl.zst", options.rows, folder)
        lengths = [json.loads(line)["tokens"] for line in (folder / "texts.jsonl").read_text().splitlines()]
        useful = sum(min(length, options.length) for length in lengths)
        fill = useful / len(lengths) / options.length
        print(f"{len(lengths)} rows, {useful:,} tokens, {fill:.0%} of {options.length}; {machine()}", file=sys.stderr)
        chosen = [t for t in TRAINERS if options.only is None or t.variant in ("", "padded", *options.only)]
        found: dict[Trainer, list[dict[str, Any]]] = {trainer: [] for trainer in chosen}
        for number in range(options.rounds):
            for trainer in chosen:
                batch = max(1, round(BATCH * fill)) if trainer.packed else BATCH
                rows = useful / options.length if trainer.packed else len(lengths)
                task = {"base": str(folder / "base"), "rows": str(folder / "texts.jsonl"), "batch": batch}
                task |= {"packs": str(folder / f"packs{number}"), "length": options.length}
                task |= {"steps": round(options.epochs * rows / batch)}
                peer = options.environments.absolute() / "trl" / "bin" / "python"
                python = peer if trainer.script == "train_trl" else Path(sys.executable)
                result = run_trainer(trainer, folder, task, env, python)
                found[trainer].append(result)
                print(f"{number + 1}/{options.rounds} {trainer.name}: {result}", file=sys.stderr)
        versions = {result["version"] for results in found.values() for result in results}
        print(f"{fill:.0%} of {options.length} filled, {options.epochs} epochs, versions {sorted(versions)}\n")
        print(table(found, options.epochs * useful))


if __name__ == "__main__":
    main()
