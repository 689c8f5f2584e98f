"""How many documents each stage had, and the conservation law over the whole graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from corpus.errors import StageError
from corpus.reasons import explain

Reports = Mapping[str, Mapping[str, Any]]  # stage -> what it wrote into reports/STAGE.json

# The stages that decide about documents, in order. The others look on and drop nothing, or count tokens.
DECIDING = ("scrape", "clean", "dedup", "filter", "split", "augment", "shard")


@dataclasses.dataclass(frozen=True)
class Step:
    """A stage in the funnel: documents still there after it, originals and generated ones together."""

    stage: str
    generated: int
    dropped: int
    left: int

    @property
    def survived(self) -> int:
        """Generated here and still there after it: the gates drop nothing but what was just generated."""
        return max(self.generated - self.dropped, 0)


@dataclasses.dataclass(frozen=True)
class Drop:
    """A reason, how many documents were dropped for it, and how many failed it, be it after another rule."""

    stage: str
    reason: str
    explanation: str
    documents: int
    failed: int


def funnel(reports: Reports) -> list[Step]:
    """The deciding stages that ran, from the first on.

    `left` is counted on from the documents that came in; `check_whole_graph` compares it with what the stages say.

    >>> rows = {"in": 5, "generated": 0, "kept": 3, "dropped": 2}
    >>> funnel({"scrape": {"rows": rows}})
    [Step(stage='scrape', generated=0, dropped=2, left=3)]
    """
    steps = []
    left = reports["scrape"]["rows"]["in"]
    for stage in DECIDING:
        if stage in reports:
            rows = reports[stage]["rows"]
            left += rows["generated"] - rows["dropped"]
            steps.append(Step(stage, rows["generated"], rows["dropped"], left))
    return steps


def check_whole_graph(reports: Reports) -> dict[str, int]:
    """The conservation law from the first stage to the last: scraped + generated == kept + dropped anywhere.

    Returns the counts as `in`, `generated`, `kept` and `dropped`. Each stage has to begin with what the one before it
    left. Raises StageError with a table where one did not.
    """
    steps = funnel(reports)
    before = reports["scrape"]["rows"]["in"]
    wrong = []
    for step in steps:
        rows = reports[step.stage]["rows"]
        if (rows["in"], rows["kept"]) != (before, step.left):
            wrong.append(step.stage)
        before = step.left
    if wrong:
        raise StageError(f"documents got lost or counted twice around {', '.join(wrong)}:\n{_table(reports, steps)}")
    return {
        "in": reports["scrape"]["rows"]["in"],
        "generated": sum(step.generated for step in steps),
        "kept": steps[-1].left,
        "dropped": sum(step.dropped for step in steps),
    }


def _table(reports: Reports, steps: list[Step]) -> str:
    lines = [f"{'stage':<10} {'in':>10} {'generated':>10} {'kept':>10} {'dropped':>10} {'expected':>10}"]
    for step in steps:
        rows = reports[step.stage]["rows"]
        figures = [rows["in"], rows["generated"], rows["kept"], rows["dropped"], step.left]
        lines.append(f"{step.stage:<10} " + " ".join(f"{figure:>10,}" for figure in figures))
    return "\n".join([*lines, "`expected` is what should have been kept. Were all stages run on the same documents?"])


def drops(reports: Reports) -> list[Drop]:
    """Every reason of every stage, in the order of the graph, the most frequent first."""
    found = []
    for stage in DECIDING:
        metrics = reports.get(stage, {})
        first = metrics.get("dropped_by_reason", {})
        failed = {reason: max(first.get(reason, 0), count) for reason, count in metrics.get("failed_rules", {}).items()}
        own = [
            Drop(stage, reason, explain(reason), first.get(reason, 0), failed.get(reason, first.get(reason, 0)))
            for reason in first.keys() | failed.keys()
        ]
        found += sorted((drop for drop in own if drop.failed), key=lambda d: (-d.documents, -d.failed, d.reason))
    return found
