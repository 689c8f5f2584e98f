"""A project of annotations as the stages before the filter write them, and a run of the filter on it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import polars as pl

from corpus.filter import stage
from corpus.params import Params
from corpus.stage import Metrics, Run, execute

LANGUAGES = ["en", "zh-Hans", "zh-Hant"]
GOOD = {  # within all bounds of all profiles
    "n_words": 100,
    "mean_word_length": 4.5,
    "alpha_ratio": 0.85,
    "han_ratio": 0.8,
    "digit_ratio": 0.02,
    "symbol_ratio": 0.01,
    "uppercase_ratio": 0.02,
    "punctuation_ratio": 0.1,
    "noise_ratio": 0.0,
    "mattr": 0.8,
    "duplicate_line_ratio": 0.0,
    "stop_word_ratio": 0.4,
    "hash_ratio": 0.0,
    "ellipsis_ratio": 0.0,
    "bullet_line_ratio": 0.1,
    "ellipsis_line_ratio": 0.0,
    "duplicate_line_char_ratio": 0.0,
    "duplicate_paragraph_char_ratio": 0.0,
    "duplicate_5_gram_ratio": 0.02,
    "duplicate_10_gram_ratio": 0.01,
    "lorem_ipsum": 0,
}
ROWS = 240


def write_project(data: Path, **changes: list[Any]) -> tuple[Path, ...]:
    """clean, measure, perplexity and dedup in two parts; every eighth document dropped by dedup, none else at fault."""
    generator = random.Random(4)
    ids = [hashlib.md5(str(number).encode()).hexdigest() for number in range(ROWS)]
    lang = changes.pop("lang", [LANGUAGES[number % 3] for number in range(ROWS)])
    signals = {name: [type(value)(value * (1 + generator.random() / 10)) for _ in ids] for name, value in GOOD.items()}
    ppl = [None if one == "zh-Hant" else generator.lognormvariate(4, 1) for one in lang]
    tables = {
        "clean": {
            "text": ["没有人会读这段文字" if one and one.startswith("zh") else "nobody reads\x1b this" for one in lang],
            "lang": lang,
            "batch": [0] * ROWS,
            "source": ["made"] * ROWS,
            "url": [f"http://made.local/{number}" if number % 2 else None for number in range(ROWS)],
        },
        "measure": {**signals, **changes},
        "perplexity": {"ppl": changes.get("ppl", ppl), "oov_rate": [None if one is None else 0.01 for one in ppl]},
        "dedup": {
            "kept": [number % 8 != 7 for number in range(ROWS)],
            "similarity": [0.5 if number % 8 == 7 else None for number in range(ROWS)],
            "duplicate_of": [ids[number - 7] if number % 8 == 7 else None for number in range(ROWS)],
            "reasons": [["dedup.near"] if number % 8 == 7 else [] for number in range(ROWS)],
        },
    }
    for folder, columns in tables.items():
        (data / folder).mkdir(parents=True)
        frame = pl.DataFrame({"id": ids, **columns}, strict=False)
        for number in range(2):
            frame.slice(number * 150, 150).write_parquet(data / folder / f"part-made-0-{number:05d}.parquet")
    return tuple(data / folder for folder in tables)


def run_filter(data: Path, *inputs: Path, workers: int = 1, **params: Any) -> tuple[pl.DataFrame, Metrics]:
    settings = Params.model_validate({"filter": params})
    run = Run("filter", settings, inputs, data / "out", data=data, reports=None, home=data / "home", workers=workers)
    metrics = execute(stage, run)
    return pl.read_parquet(data / "out" / "*.parquet"), metrics
