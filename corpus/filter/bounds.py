"""From rules to numbers: percentiles of the corpus or the reference, outlier scores, and the spread of margins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from corpus.errors import UserError
from corpus.filter.decide import Limit
from corpus.filter.profile import SIDES, Rule, Side

# Language, signal: the values of the held-out reference documents at the percentiles 1 to 99.
Quantiles = Mapping[str, Mapping[str, list[float]]]

MAD_TO_DEVIATION = 1.4826  # the median absolute deviation of a normal distribution is its deviation / 1.4826


def resolve(
    language: str, rules: Mapping[str, Rule], values: pl.DataFrame, reference: Quantiles
) -> tuple[list[Limit], dict[str, dict[str, Any]]]:
    """The limits of a language in the order of its rules, and for the metrics where each comes from.

    `values` are the signals of all documents judged in this language.
    """
    limits: list[Limit] = []
    provenance: dict[str, dict[str, Any]] = {}
    for signal, rule in rules.items():
        own, facts = resolve_rule(language, signal, rule, values[signal], reference)
        limits += own
        provenance |= facts
    return limits, provenance


def resolve_rule(
    language: str, signal: str, rule: Rule, values: pl.Series, reference: Quantiles
) -> tuple[list[Limit], dict[str, dict[str, Any]]]:
    """The at most two limits of one rule, and by `<signal>.<side>` their bound, `from`, spread and why.

    A percentile of nothing, for a language without reference model or a signal that is always null, gives no limit;
    neither does a score of a signal whose spread is 0.
    """
    limits: list[Limit] = []
    provenance: dict[str, dict[str, Any]] = {}
    seen = _finite(values)
    spread = robust_spread(seen)
    for side in SIDES:
        bound, origin = _bound(language, signal, side, rule, seen, reference)
        if bound is not None:
            limits.append(Limit(signal, side, bound, spread))
            provenance[f"{signal}.{side}"] = {"bound": bound, "from": origin, "spread": spread, "why": rule.why}
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


def robust_scores(values: pl.Series, among: pl.Series | None = None) -> pl.Series:
    """How far each value lies from the median, in robust spreads: (log x - median) / (1.4826 MAD), log being log1p.

    The logarithm, because lengths, perplexities and most ratios are skewed; that of a negative value is -log1p(-x).
    0 is the median; with normal tails 1 in 2,000 lies beyond 3.5, which Iglewicz and Hoaglin (1993, How to Detect and
    Handle Outliers) propose as a bound. Unlike z-scores these are not moved by the outliers they are to find. Null for
    null and NaN, and everywhere where half of the values are equal, so that there is no spread. `among` are the values
    that give median and spread, by default `values` themselves.

    >>> robust_scores(pl.Series([99.0, 199.0, 99.0, 49.0, 24.0, None])).round(2).to_list()
    [0.0, 0.67, 0.0, -0.67, -1.35, None]
    >>> robust_scores(pl.Series([5, 5, 5, 900])).to_list()
    [None, None, None, None]
    """
    logs = _log(values.cast(pl.Float64).fill_nan(None))
    seen = _finite(logs if among is None else _log(among.cast(pl.Float64)))
    return _standardised(logs, seen.median(), robust_spread(seen))


def z_scores(values: pl.Series, among: pl.Series | None = None) -> pl.Series:
    """How far each value lies from the mean, in standard deviations of the sample: (x - mean) / s.

    Outliers widen s and so hide one another: of n values none can lie beyond (n - 1) / sqrt(n), which is below 3 up to
    ten values (Iglewicz and Hoaglin 1993); `robust_scores` are the better bound. Null for null and NaN, and everywhere
    where all values are equal or there is but one. `among` as in `robust_scores`.

    >>> z_scores(pl.Series([1, 2, 3, None])).to_list()
    [-1.0, 0.0, 1.0, None]
    """
    plain = values.cast(pl.Float64).fill_nan(None)
    seen = _finite(plain if among is None else among)
    return _standardised(plain, seen.mean(), _deviation(seen))


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


def percentile_rank(values: pl.Series, value: float) -> float | None:
    """The share of values below this one, and half of those equal to it, from 0 to 100; None of no values.

    >>> percentile_rank(pl.Series([1.0, 2.0, 2.0, 3.0]), 2.0)
    50.0
    """
    seen = _finite(values)
    if not len(seen):
        return None
    return 100 * (int((seen < value).sum()) + int((seen == value).sum()) / 2) / len(seen)


def _bound(
    language: str, signal: str, side: Side, rule: Rule, seen: pl.Series, reference: Quantiles
) -> tuple[float | None, str]:
    """The value of one side of a rule, None where it has none, and what it is."""
    absolute, percentile, score, z = (getattr(rule, f"{side}{kind}") for kind in ("", "_percentile", "_score", "_z"))
    if score is not None:
        return _value_at_score(seen, score), f"robust score {score:g} in the corpus"
    if z is not None:
        mean, deviation = seen.mean(), _deviation(seen)
        at_z = mean + z * deviation if isinstance(mean, float) and deviation is not None else None
        return at_z, f"z-score {z:g} in the corpus"
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


def _value_at_score(seen: pl.Series, score: float) -> float | None:
    """The inverse of `robust_scores`: scores rise with the value, so that a bound on one is a bound on the other."""
    logs = _log(seen)
    median, spread = logs.median(), robust_spread(logs)
    if not isinstance(median, float) or spread is None:
        return None
    log = median + score * spread
    return math.copysign(math.expm1(min(abs(log), 700.0)), log)  # e^709 is the largest number there is


def _finite(values: pl.Series) -> pl.Series:
    values = values.cast(pl.Float64)
    return values.filter(values.is_finite())


def _log(values: pl.Series) -> pl.Series:
    return values.abs().log1p() * values.sign()


def _deviation(seen: pl.Series) -> float | None:
    # Compared first: rounding gives equal values a deviation that is not quite 0.
    deviation = seen.std() if len(seen) and seen.min() != seen.max() else None
    return deviation if isinstance(deviation, float) and deviation > 0 else None


def _standardised(values: pl.Series, centre: Any, spread: float | None) -> pl.Series:
    return (
        (values - centre) / spread if spread is not None else pl.Series(values.name, [None] * len(values), pl.Float64)
    )
