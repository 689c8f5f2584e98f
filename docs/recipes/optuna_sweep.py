"""A sweep that learns from what it tried: Optuna proposes settings, DVC runs them as experiments, side by side.

    pip install optuna
    python docs/recipes/optuna_sweep.py [rounds, 3] [experiments a round, 4] [at once, 2]

Say it in a project under git. Each trial is `dvc exp run --queue -S …`, so that it can be seen, compared and taken over
afterwards: `dvc exp show`, `dvc exp apply trial-7`. The score is the best validation loss in reports/finetune.json;
trials that fail count as failed. Prints the best trial. Change SPACE for other settings.
"""

import json
import subprocess
import sys

import optuna

SPACE = {
    "finetune.learning_rate": lambda trial, name: trial.suggest_float(name, 1e-4, 1e-2, log=True),
    "finetune.rank": lambda trial, name: trial.suggest_categorical(name, [8, 16, 32]),
}


def dvc(*command: str) -> str:
    return subprocess.run(["dvc", *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def losses() -> dict[str, float]:
    """The best validation loss of each experiment that has one, by its name."""
    found = {}
    for commit in json.loads(dvc("exp", "show", "--json")):
        for experiment in commit["experiments"] or []:
            metrics = ((experiment["revs"][0]["data"] or {}).get("metrics") or {}).get("reports/finetune.json") or {}
            loss = (metrics.get("data") or {}).get("adapted", {}).get("best_validation_loss")
            if loss is not None:
                found[experiment["name"]] = loss
    return found


def main(rounds: int = 3, width: int = 4, jobs: int = 2) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    for _ in range(rounds):
        trials = [study.ask() for _ in range(width)]
        for trial in trials:
            settings = [f"{name}={suggest(trial, name)}" for name, suggest in SPACE.items()]
            chosen = [part for setting in settings for part in ("-S", setting)]
            dvc("exp", "run", "--queue", "--name", f"trial-{trial.number}", *chosen)
        subprocess.run(["dvc", "exp", "run", "--run-all", "--jobs", str(jobs)])  # goes on where one fails
        found = losses()
        for trial in trials:
            loss = found.get(f"trial-{trial.number}")
            study.tell(trial, loss, state=None if loss is not None else optuna.trial.TrialState.FAIL)
    print(f"trial-{study.best_trial.number}: loss {study.best_value}, {study.best_params}")
    return study


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
