"""A project of annotations as the stages before the filter write them, and a run of the filter on it."""

from __future__ import annotations

import functools
import hashlib
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from corpus.filter import stage
from corpus.filter.profile import FOLDER, load_profile, rules_of
from corpus.measure.signals import columns
from corpus.params import Params
from corpus.stage import Metrics, Run, execute
from corpus.text.ngram_lm import COLUMNS

LANGUAGES = ["en", "zh-Hans", "zh-Hant"]
ROWS = 240


@functools.cache
def good_range(signal: str) -> tuple[float, float]:
    """Values of a signal that pass every built-in profile: what its absolute bounds leave, of 0 to 1 or above 1."""
    rules = [rules_of(load_profile(path.stem, "en")).get(signal) for path in FOLDER.glob("*.yaml")]
    lower = max([0.0, *(rule.min for rule in rules if rule and rule.min is not None)])
    upper = min([max(1.0, 2 * lower), *(rule.max for rule in rules if rule and rule.max is not None)])
    assert lower <= upper, f"no value of {signal} passes every profile"
    return lower, upper


def good_values(signal: str, rows: int, generator: random.Random) -> list[float]:
    """Values from the middle of those that pass, so that rounding to whole numbers leaves them there."""
    lower, upper = good_range(signal)
    return [lower + (upper - lower) * generator.uniform(0.4, 0.6) for _ in range(rows)]


def write_project(data: Path, **changes: list[Any]) -> tuple[Path, ...]:
    """clean, measure, perplexity and dedup in two parts; every eighth document dropped by dedup, none else at fault.

    All signals there are lie within the bounds of all built-in profiles, whatever these are. `changes` are columns in
    place of those, or besides them. Documents in zh-Hant have no language model.
    """
    generator = random.Random(4)
    ids = [hashlib.md5(str(number).encode()).hexdigest() for number in range(ROWS)]
    lang = changes.pop("lang", [LANGUAGES[number % 3] for number in range(ROWS)])
    signals = {
        name: pl.Series(good_values(name, ROWS, generator)).cast(kind, strict=False) for name, kind in columns().items()
    }
    scores = {name: good_values(name, ROWS, generator) for name in COLUMNS}
    # Skewed like real ones, but none beyond three robust spreads from the median: no outlier bound drops any.
    scores["ppl"] = [math.exp(generator.triangular(2, 6)) for _ in ids]
    tables: dict[str, dict[str, Any]] = {
        "clean": {
            "text": ["没有人会读这段文字" if one and one.startswith("zh") else "nobody reads\x1b this" for one in lang],
            "lang": lang,
            "batch": [0] * ROWS,
            "source": ["made"] * ROWS,
            "url": [f"http://made.local/{number}" if number % 2 else None for number in range(ROWS)],
        },
        "measure": signals | {name: values for name, values in changes.items() if name not in COLUMNS},
        "perplexity": {
            name: changes.get(name, [None if one == "zh-Hant" else value for one, value in zip(lang, own, strict=True)])
            for name, own in scores.items()
        },
        "dedup": {
            "kept": [number % 8 != 7 for number in range(ROWS)],
            "similarity": [0.5 if number % 8 == 7 else None for number in range(ROWS)],
            "duplicate_of": [ids[number - 7] if number % 8 == 7 else None for number in range(ROWS)],
            "reasons": [["dedup.near"] if number % 8 == 7 else [] for number in range(ROWS)],
        },
    }
    for folder, table in tables.items():
        (data / folder).mkdir(parents=True)
        frame = pl.DataFrame({"id": ids, **table}, strict=False)
        for number in range(2):
            frame.slice(number * 150, 150).write_parquet(data / folder / f"part-made-0-{number:05d}.parquet")
    return tuple(data / folder for folder in tables)


def write_profile(path: Path, rules: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A profile of a test's own, for what must not change with the built-in ones; gives `filter.profile` naming it."""
    reasoned = {signal: {"why": "as the test has it", **rule} for signal, rule in rules.items()}
    path.write_text(yaml.safe_dump({"about": "a test's", "rules": reasoned}, sort_keys=False))
    return dict.fromkeys(LANGUAGES, str(path))


def run_filter(data: Path, *inputs: Path, workers: int = 1, **params: Any) -> tuple[pl.DataFrame, Metrics]:
    settings = Params.model_validate({"filter": params})
    run = Run("filter", settings, inputs, data / "out", data=data, reports=None, home=data / "home", workers=workers)
    metrics = execute(stage, run)
    return pl.read_parquet(data / "out" / "*.parquet"), metrics
