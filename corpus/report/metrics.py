"""What a stage reported, as it stands in reports/STAGE.json: read, and of the shape that its readers count on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corpus.errors import UserError

COUNTS = ("in", "generated", "kept", "dropped")


def parse_metrics(text: str) -> dict[str, Any]:
    """What a stage reported: an object whose `rows` are COUNTS. Raises ValueError, which says what else it is.

    >>> parse_metrics('{"rows": {"in": 1, "generated": 0, "kept": 1, "dropped": 0}}')["rows"]["kept"]
    1
    >>> parse_metrics("[]")
    Traceback (most recent call last):
    ValueError: no report: an object with the whole numbers in, generated, kept and dropped in `rows`
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested without end") from None
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, dict) or any(type(rows.get(name)) is not int for name in COUNTS):
        raise ValueError("no report: an object with the whole numbers in, generated, kept and dropped in `rows`")
    for key in ("dropped_by_reason", "failed_rules", "bounds", "sets"):
        if not isinstance(found.get(key, {}), dict):
            raise ValueError(f"no report: `{key}` is no object")
    return dict(found)


def read_metrics(path: Path) -> dict[str, Any] | None:
    """What a stage reported, None where there is no such file. Raises UserError where it is broken."""
    try:
        return parse_metrics(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{path} is not JSON of a stage ({error}): `dvc repro {path.stem} --force` writes it") from None


def bounds_of(metrics: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The bounds that the filter reported, by language and rule: `bound` (a number or None), `spread`, `from`, `why`.

    What is no bound is left out.

    >>> bounds_of({"bounds": {"en": {"mattr.min": {"bound": 0.4}, "odd": 3}, "de": []}})
    {'en': {'mattr.min': {'bound': 0.4, 'spread': None}}}
    """
    return {
        lang: {
            rule: dict(facts) | {"spread": facts.get("spread") if _is_number(facts.get("spread")) else None}
            for rule, facts in rules.items()
            if isinstance(facts, Mapping)
            and "bound" in facts
            and (facts["bound"] is None or _is_number(facts["bound"]))
        }
        for lang, rules in metrics.get("bounds", {}).items()
        if isinstance(rules, Mapping)
    }


def _is_number(value: Any, or_none: bool = False) -> bool:
    return isinstance(value, int | float) or (or_none and value is None)
