"""What `make` prints last: where the report is and what the scores say."""

from __future__ import annotations

import json
from pathlib import Path

from corpus.errors import UserError
from corpus.report.scores import MODELS, forgetting_sentence, headline, set_scores

SHOWN = {
    "bits_per_byte": "bits per byte, less is better",
    "accuracy": "accuracy of labels",
    "majority_accuracy": "of the most frequent label",
    "macro_f1": "macro F1 of labels",
}


def verdict(reports: Path) -> str:
    """The scores of base, adapter and control on every evaluation set, and where to read more.

    Raises UserError where nothing was evaluated yet.
    """
    scores = reports / "evaluate.json"
    if not scores.exists():
        raise UserError(f"{scores} does not exist: `dvc repro` builds it")
    lines: list[str] = []
    metrics = json.loads(scores.read_text("utf-8"))
    sets = metrics["sets"]
    models = [model for model in MODELS if all(model in by_model for by_model in sets.values())]
    for score, meaning in SHOWN.items():
        rows = {name: [by_model[model].get(score) for model in models] for name, by_model in sets.items()}
        rows = {name: figures for name, figures in rows.items() if None not in figures}
        if rows:
            lines.append(f"{meaning:<30}" + "".join(f"{model:>9}" for model in models))
            lines += [f"{name:<30}" + "".join(f"{figure:>9.3f}" for figure in rows[name]) for name in rows]
    if "control" in models:
        lines.append("The adapter was trained on the curated corpus, the control on as much of the unfiltered one.")
    lines.append(headline(set_scores(sets)).en)
    if forgotten := forgetting_sentence(metrics.get("forgetting", {})):
        lines.append(forgotten.en)
    lines.append(f"report: {reports / 'index.html'}    scores: {scores}")
    return "\n".join(lines)
