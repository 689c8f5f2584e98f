"""Outlier scores and the bounds made of them, against the formulas written out with the statistics module."""

from __future__ import annotations

import math
import statistics

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.filter.bounds import percentile_rank, resolve_rule, robust_scores, z_scores
from corpus.filter.profile import Rule

# On a grid: of values that differ by the last bit, spread and score are noise.
NUMBERS = st.one_of(
    st.integers(0, 10**6).map(lambda n: n / 64), st.sampled_from([0.0, 1.0, 2.0]), st.integers(-99, 99).map(float)
)
COLUMNS = st.lists(st.one_of(st.none(), NUMBERS), max_size=30)


def log(value: float) -> float:
    return math.log1p(value) if value >= 0 else -math.log1p(-value)


def slow_robust_scores(values: list[float | None]) -> list[float | None]:
    logs = [log(value) for value in values if value is not None]
    median = statistics.median(logs) if logs else 0.0
    spread = 1.4826 * statistics.median(abs(value - median) for value in logs) if logs else 0.0
    return [None if value is None or not spread else (log(value) - median) / spread for value in values]


def slow_z_scores(values: list[float | None]) -> list[float | None]:
    seen = [value for value in values if value is not None]
    if len(set(seen)) < 2:
        return [None] * len(values)
    mean, deviation = statistics.fmean(seen), statistics.stdev(seen)
    return [None if value is None or not deviation else (value - mean) / deviation for value in values]


@given(COLUMNS)
def test_scores_equal_their_formulas(values: list[float | None]) -> None:
    column = pl.Series("signal", values, pl.Float64)
    for fast, slow in ((robust_scores, slow_robust_scores), (z_scores, slow_z_scores)):
        found, expected = fast(column), slow(values)
        assert found.name == "signal" and found.dtype == pl.Float64
        assert found.is_null().to_list() == [one is None for one in expected]
        assert found.drop_nulls().to_list() == pytest.approx(
            [one for one in expected if one is not None], rel=1e-6, abs=1e-6
        )


@pytest.mark.parametrize("scores", [robust_scores, z_scores])
def test_what_has_no_spread_has_no_scores(scores: object) -> None:
    assert callable(scores)
    for values in ([], [None, None], [3], [0.1] * 7, [0.1, 0.1, 0.1, None]):
        assert scores(pl.Series(values, dtype=pl.Float64)).to_list() == [None] * len(values)


def test_nan_and_infinity_do_not_move_the_others() -> None:
    plain = robust_scores(pl.Series([1.0, 2.0, 3.0, 4.0])).to_list()
    odd = robust_scores(pl.Series([1.0, 2.0, 3.0, 4.0, math.nan, math.inf])).to_list()
    assert odd == [*plain, None, math.inf]


def test_integers_and_truths_have_scores() -> None:
    assert robust_scores(pl.Series([0, 9, 99], dtype=pl.Int8)).to_list()[1] == 0
    assert z_scores(pl.Series([True, False, True, False])).to_list() == pytest.approx([0.866, -0.866] * 2, abs=1e-3)


@given(st.lists(NUMBERS, min_size=1, max_size=30), st.floats(-4, 4), st.sampled_from(["score", "z"]))
def test_a_bound_on_the_score_is_one_on_the_value(values: list[float], bound: float, kind: str) -> None:
    column = pl.Series(values, dtype=pl.Float64)
    scores = (robust_scores if kind == "score" else z_scores)(column).to_list()
    for side in ("min", "max"):
        rule = Rule.model_validate({f"{side}_{kind}": bound, "why": "outliers"})
        limits, facts = resolve_rule("en", "ttr", rule, column, {})
        if scores[0] is None:
            assert not limits and not facts
            continue
        assert facts[f"ttr.{side}"]["from"].endswith(f"score {bound:g} in the corpus")
        for value, score in zip(values, scores, strict=True):
            assert score is not None
            if abs(score - bound) > 1e-6 * max(1, abs(score)):
                beyond = value < limits[0].bound if side == "min" else value > limits[0].bound
                assert beyond == (score < bound if side == "min" else score > bound)


@given(st.lists(st.floats(-9, 9), max_size=20), st.floats(-9, 9))
def test_percentile_rank_counts_half_of_the_equal_ones(values: list[float], value: float) -> None:
    found = percentile_rank(pl.Series(values, dtype=pl.Float64), value)
    if not values:
        assert found is None
    else:
        below = sum(one < value for one in values) + sum(one == value for one in values) / 2
        assert found == pytest.approx(100 * below / len(values))
