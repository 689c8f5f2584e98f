"""Histograms of signals that add up over parts, and the quantiles that metrics show of them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

_EXPONENTS = 1024  # of ten, more than float64 has

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def histogram(values: pl.Series) -> dict[str, int]:
    """How often each value occurs, rounded to two significant digits; `add_metrics` adds them up.

    Nulls and infinities are left out.

    >>> histogram(pl.Series([0.8149, 0.811, 0.0, None]))
    {'0.0': 1, '0.81': 2}
    """
    numbers = values.cast(pl.Float64).to_numpy()  # null becomes NaN
    numbers = numbers[np.isfinite(numbers)]
    exponents = np.zeros(len(numbers), np.int64)
    present = np.abs(numbers) > 1e-300
    exponents[present] = np.floor(np.log10(np.abs(numbers[present]))).astype(np.int64) - 1
    digits = np.rint(np.where(present, numbers, 0) / 10.0**exponents).astype(np.int64)
    found, occurrences = np.unique(digits * _EXPONENTS + exponents, return_counts=True)
    counts: dict[float, int] = {}
    for key, count in zip(found.tolist(), occurrences.tolist(), strict=True):
        value = _rounded(key)
        counts[value] = counts.get(value, 0) + count
    return {repr(value): counts[value] for value in sorted(counts)}


@functools.cache  # a value occurs in many batches
def _rounded(key: int) -> float:
    exponent = (key + _EXPONENTS // 2) % _EXPONENTS - _EXPONENTS // 2
    return float(f"{(key - exponent) // _EXPONENTS}e{exponent}")


def quantiles(counts: Mapping[str, int]) -> list[float]:
    """The 5, 25, 50, 75 and 95 % quantiles of a histogram, each a value that occurs; nothing of nothing.

    >>> quantiles({"10.0": 50, "9.0": 49, "200.0": 1})
    [9.0, 9.0, 10.0, 10.0, 10.0]
    """
    ordered = sorted((float(value), count) for value, count in counts.items())
    reached = list(itertools.accumulate(count for _, count in ordered))
    return [
        next(value for (value, _), sum_to in zip(ordered, reached, strict=True) if sum_to >= share * reached[-1])
        for share in (QUANTILES if ordered else ())
    ]


def with_quantiles(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics whose `languages.LANGUAGE.signals.SIGNAL` are quantiles instead of histograms."""
    languages = {
        language: {**facts, "signals": {signal: quantiles(counts) for signal, counts in facts["signals"].items()}}
        for language, facts in metrics["languages"].items()
    }
    return {**metrics, "languages": languages, "quantiles": list(QUANTILES)}
