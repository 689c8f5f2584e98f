"""What `make` prints last: where the report is and what the scores say."""

from __future__ import annotations

import json
from pathlib import Path

from corpus.errors import UserError
from corpus.report.scores import headline, set_scores


def verdict(reports: Path) -> str:
    """The scores of base, adapter and control on every evaluation set, and where to read more.

    Raises UserError where nothing was evaluated yet.
    """
    scores = reports / "evaluate.json"
    if not scores.exists():
        raise UserError(f"{scores} does not exist: `dvc repro` builds it")
    sets = json.loads(scores.read_text("utf-8"))["sets"]
    lines = [f"{'bits per byte, less is better':<30}{'base':>9}{'adapted':>9}{'control':>9}"]
    for name, by_model in sets.items():
        figures = [by_model[model]["bits_per_byte"] for model in ("base", "adapted", "control")]
        lines.append(f"{name:<30}" + "".join(f"{figure:>9.3f}" for figure in figures))
    lines.append("The adapter was trained on the curated corpus, the control on as much of the unfiltered one.")
    lines.append(headline(set_scores(sets)))
    lines.append(f"report: {reports / 'index.html'}    scores: {scores}")
    return "\n".join(lines)
