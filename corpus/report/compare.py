"""Two runs side by side: what their parameters, documents, drops and scores have different."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corpus.report.funnel import DECIDING, drops, funnel
from corpus.report.metrics import parse_metrics
from corpus.report.scores import LESS_IS_BETTER, MODELS
from corpus.yaml_files import parse_yaml

Read = Callable[[str], str | None]  # the text of a file by its path in the project, None where there is none
SHOWN = ("bits_per_byte", "perplexity", "accuracy", "macro_f1")  # scores that are compared


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure before and now; None where a run has none."""

    name: str
    before: float | None
    now: float | None


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of a model on a set that both runs have; `better` tells whether it is now, None where it is the same."""

    set: str
    model: str
    metric: str
    before: float
    now: float
    better: bool | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two runs have different. `refused` are sets of other documents: name, fingerprint before, and now."""

    name: str
    revision: str | None
    params: list[tuple[str, str, str]]  # key, before, now
    left: list[Figure]  # documents after each stage, all stages
    drops: list[Figure]  # by reason, those that differ
    scores: list[Score]
    refused: list[tuple[str, str, str]]
    one_sided: list[str]  # sets that only one run has

    @property
    def empty(self) -> bool:
        """Whether the runs are the same in all that is compared."""
        moved = any(figure.before != figure.now for figure in [*self.left, *self.drops])
        scores = any(score.before != score.now for score in self.scores)
        return not (moved or scores or self.params or self.refused or self.one_sided)


def in_folder(folder: Path) -> Read:
    """Reads the files of a project's folder."""

    def read(path: str) -> str | None:
        try:
            return (folder / path).read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None

    return read


def in_git(folder: Path, revision: str) -> Read:
    """Reads the files of a project as they were in a revision that git knows."""

    def read(path: str) -> str | None:
        return git(folder, "show", f"{revision}:./{path}")

    return read


def git(folder: Path, *words: str) -> str | None:
    """What git prints; None where it fails, or there is no git or repository."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def compare(name: str, revision: str | None, before: Read, now: Read) -> Comparison | None:
    """What changed from a run to another; None where the first has no reports of scrape."""
    old, new = _reports(before), _reports(now)
    if "scrape" not in old or "scrape" not in new:
        return None
    scores, refused, one_sided = _scores(old.get("evaluate", {}), new.get("evaluate", {}))
    return Comparison(
        name,
        revision,
        _params(before("params.yaml"), now("params.yaml")),
        _figures({s.stage: s.left for s in funnel(old)}, {s.stage: s.left for s in funnel(new)}),
        [figure for figure in _figures(_dropped(old), _dropped(new), 0) if figure.before != figure.now],
        scores,
        refused,
        one_sided,
    )


def _reports(read: Read) -> dict[str, Any]:
    """The reports that can be read: of a commit some may be missing, of another shape, or hold marks of a merge."""
    found = {}
    for stage in (*DECIDING, "evaluate"):
        with contextlib.suppress(ValueError):
            if text := read(f"reports/{stage}.json"):
                found[stage] = parse_metrics(text)
    return found


def _dropped(reports: Mapping[str, Any]) -> dict[str, int]:
    return {drop.reason: drop.documents for drop in drops(reports)}


def _figures(before: Mapping[str, float], now: Mapping[str, float], absent: float | None = None) -> list[Figure]:
    """Figures by name, in the order of now; `absent` where one has none of a name."""
    return [Figure(name, before.get(name, absent), now.get(name, absent)) for name in dict.fromkeys([*now, *before])]


def _params(before: str | None, now: str | None) -> list[tuple[str, str, str]]:
    try:
        old, new = (flattened(parse_yaml(text) or {}) if text else {} for text in (before, now))
    except ValueError:
        return []
    keys = [key for key in dict.fromkeys([*new, *old]) if old.get(key) != new.get(key)]
    return [(key, old.get(key, "–"), new.get(key, "–")) for key in keys if key != "workers"]


def flattened(tree: Any, prefix: str = "") -> dict[str, str]:
    """Nested parameters by their dotted keys; items of a list by their names, or numbers.

    >>> flattened({"filter": {"bounds": {"en": {"mattr.min": 0.5}}}, "sources": [{"name": "a", "kind": "html"}]})
    {'filter.bounds.en.mattr.min': '0.5', 'sources.a.kind': 'html'}
    """
    if isinstance(tree, Mapping) and tree:
        items = [(str(key), value) for key, value in tree.items() if not (prefix and key == "name")]
    elif isinstance(tree, list) and tree and all(isinstance(item, Mapping) for item in tree):
        items = [(str(item.get("name", number)), item) for number, item in enumerate(tree)]
    elif isinstance(tree, Mapping):
        return {}
    else:
        return {prefix: json.dumps(tree, ensure_ascii=False) if isinstance(tree, list) else str(tree)}
    found: dict[str, str] = {}
    for key, value in items:
        found |= flattened(value, f"{prefix}.{key}" if prefix else key)
    return found


def _scores(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[Score], list[tuple[str, str, str]], list[str]]:
    """The scores that compare, the sets that are of other documents now, and those that only one run has."""
    old, new = (
        {name: own for name, own in one.get("sets", {}).items() if isinstance(own, dict) and "fingerprint" in own}
        for one in (before, now)
    )
    scores, refused = [], []
    for name in new:
        if name not in old:
            continue
        if old[name]["fingerprint"] != new[name]["fingerprint"]:
            refused.append((name, old[name]["fingerprint"], new[name]["fingerprint"]))
            continue
        for model in MODELS:
            for metric in SHOWN:
                was, is_now = (one[name].get(model, {}).get(metric) for one in (old, new))
                if was is not None and is_now is not None:
                    better = None if was == is_now else (is_now < was) == (metric in LESS_IS_BETTER)
                    scores.append(Score(name, model, metric, was, is_now, better))
    return scores, refused, sorted(old.keys() ^ new.keys())
