"""From rules to numbers: percentiles of the corpus or the reference, and the spread that margins are measured in."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from corpus.errors import UserError
from corpus.filter.decide import Limit
from corpus.filter.profile import Rule, Side

# Language, signal: the values of the held-out reference documents at the percentiles 1 to 99.
Quantiles = Mapping[str, Mapping[str, list[float]]]

MAD_TO_DEVIATION = 1.4826  # the median absolute deviation of a normal distribution is its deviation / 1.4826


def resolve(
    language: str, rules: Mapping[str, Rule], values: pl.DataFrame, reference: Quantiles
) -> tuple[list[Limit], dict[str, dict[str, object]]]:
    """The limits of a language in the order of its rules, and for the metrics where each comes from.

    `values` are the signals of all documents judged in this language. A percentile of nothing, for a language without
    reference model or a signal that is always null, gives no limit.
    """
    limits: list[Limit] = []
    provenance: dict[str, dict[str, object]] = {}
    for signal, rule in rules.items():
        column = values[signal].cast(pl.Float64)
        seen = column.filter(column.is_finite())
        spread = robust_spread(seen)
        sides: tuple[Side, Side] = ("min", "max")
        for side in sides:
            bound, origin = _bound(language, signal, side, rule, seen, reference)
            if bound is not None:
                limits.append(Limit(signal, side, bound, spread))
                facts = {"bound": bound, "from": origin, "spread": spread, "why": rule.why}
                provenance[f"{signal}.{side}"] = facts
    return limits, provenance


def robust_spread(values: pl.Series) -> float | None:
    """Median absolute deviation, scaled to a standard deviation; None where there is none.

    >>> robust_spread(pl.Series([1.0, 2.0, 3.0, 4.0, 1000.0]))
    1.4826
    >>> robust_spread(pl.Series([0.0, 0.0, 0.0, 5.0])) is None
    True
    """
    median = values.median()
    deviation = None if median is None else (values - median).abs().median()
    return MAD_TO_DEVIATION * deviation if isinstance(deviation, float) and deviation > 0 else None


def corpus_percentile(values: pl.Series, percentile: float, side: Side) -> float | None:
    """The observed value such that no more than the stated share of documents lies beyond it.

    So the 99th percentile as upper bound drops none of fifty documents, not always the topmost one.

    >>> hundred = pl.Series([float(n) for n in range(1, 1001)])
    >>> corpus_percentile(hundred, 99, "max"), corpus_percentile(hundred, 1, "min")
    (991.0, 10.0)
    >>> corpus_percentile(hundred.head(50), 99, "max")
    50.0
    """
    return values.quantile(percentile / 100, "higher" if side == "max" else "lower")


def reference_percentile(quantiles: list[float], percentile: float) -> float:
    """A percentile between 1 and 99 of the reference, interpolated between the whole ones that are stored.

    >>> reference_percentile([float(n) for n in range(1, 100)], 97.5)
    97.5
    """
    lower = min(int(percentile), len(quantiles) - 1)
    share = percentile - lower
    return quantiles[lower - 1] * (1 - share) + quantiles[lower] * share


def _bound(
    language: str, signal: str, side: Side, rule: Rule, seen: pl.Series, reference: Quantiles
) -> tuple[float | None, str]:
    """The value of one side of a rule, None where it has none, and what it is."""
    absolute, percentile = getattr(rule, side), getattr(rule, f"{side}_percentile")
    if percentile is None:
        return absolute, "absolute"
    if rule.of == "corpus":
        return corpus_percentile(seen, percentile, side), f"percentile {percentile:g} of the corpus"
    if not 1 <= percentile <= 99:
        key = f"filter.bounds.{language}.{signal}.{side}_percentile"
        raise UserError(f"{key}: percentiles of the reference go from 1 to 99, not {percentile:g}")
    quantiles = reference.get(language, {}).get(signal)
    value = reference_percentile(quantiles, percentile) if quantiles else None
    return value, f"percentile {percentile:g} of the reference"
