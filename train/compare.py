"""The scores of two experiments side by side, where their sets are the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus.errors import UserError

MODELS = ("base", "adapted", "control")
PER_TOKEN = ("perplexity", "token_accuracy")  # of other tokens they say something else


def compare(paths: Sequence[Path]) -> str:
    """A table of the scores in two evaluate.json with their differences; below, what is not compared, and why.

    Raises UserError where one cannot be read.
    """
    first, second = map(_sets, paths)
    lines, refused = [f"{'set':<24}{'model':<9}{'score':<18}{'A':>10}{'B':>10}{'B - A':>11}"], []
    for name in first | second:
        ours, theirs = first.get(name, {}), second.get(name, {})
        if ours.get("fingerprint") != theirs.get("fingerprint"):
            digests = " and ".join(scored.get("fingerprint", "none at all") for scored in (ours, theirs))
            refused.append(f"not compared: {name}, whose fingerprints differ: {digests}")
            continue
        left_out = PER_TOKEN if ours.get("tokens") != theirs.get("tokens") else ()
        refused += [f"not compared: {score} of {name}, whose tokens differ" for score in left_out]
        for model in MODELS:
            for score, old in ours.get(model, {}).items():
                new = theirs.get(model, {}).get(score)
                if old is not None and new is not None and score not in left_out:
                    lines.append(f"{name:<24}{model:<9}{score:<18}{old:>10.4g}{new:>10.4g}{new - old:>+11.4g}")
    return "\n".join([f"A {paths[0]}", f"B {paths[1]}", *lines, *refused])


def _sets(path: Path) -> dict[str, Any]:
    try:
        sets: dict[str, Any] = json.loads(path.read_text("utf-8"))["sets"]
        for scored in sets.values():
            scores = [score for model in MODELS for score in scored.get(model, {}).values()]
            if not isinstance(scored["fingerprint"], str) or any(not isinstance(s, int | float | None) for s in scores):
                raise TypeError("a score is no number, or a fingerprint no text")
        return sets
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as scores of `train evaluate` ({error!r})") from None
