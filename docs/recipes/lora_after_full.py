"""Two steps: all weights are trained on one corpus, and an adapter for a task on top of the model that this gives.

    python docs/recipes/lora_after_full.py general.jsonl task.jsonl [params.yaml]

Each file, or folder with train and validation, is what `train pack --input` takes: texts or dialogues. Makes two
projects in the folder where it is said: `full`, whose data/finetune is a whole model, and `lora`, whose base that is.
What params.yaml says holds for both, but for the method. Prints how many parameters each trained, and its loss.
"""

import contextlib
import json
import sys
from pathlib import Path

import yaml

from train.cli import main as train


def step(name: str, documents: Path, params: dict) -> dict:
    """Base, pack and finetune in a project of its own; what finetune says of the model."""
    Path(name).mkdir()
    with contextlib.chdir(name):
        Path("params.yaml").write_text(yaml.safe_dump(params), "utf-8")
        for command in (
            ["base", "--output", "data/base"],
            ["pack", "--input", str(documents), "--output", "data/pack"],
            ["finetune", "--input", "data/pack", "--output", "data/finetune"],
        ):
            if code := train(command):
                sys.exit(code)
        return json.loads(Path("data/finetune/metrics.json").read_text())["adapted"]


def main(general: Path, task: Path, params: dict) -> None:
    # The rate of all weights is a tenth of an adapter's, as a rule.
    settings = {"learning_rate": 0.0003} | params.get("finetune", {}) | {"method": "full"}
    full = step("full", general.resolve(), params | {"finetune": settings})
    base = {**params.get("base", {}), "model": "../full/data/finetune"}
    lora = step("lora", task.resolve(), params | {"base": base})
    for name, found in (("full", full), ("lora", lora)):
        loss = found["best_validation_loss"]
        print(f"{name}: {found['trainable_parameters']:,} parameters, {found['steps']} steps, validation loss {loss}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    chosen = yaml.safe_load(Path(sys.argv[3]).read_text("utf-8")) if len(sys.argv) > 3 else {}
    main(Path(sys.argv[1]), Path(sys.argv[2]), chosen)
