"""The expression against the obvious loop."""

import math
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from corpus.filter.decide import Limit, decide, failures

SIGNALS = ["n_words", "ppl", "ttr"]
VALUES = st.one_of(
    st.none(), st.floats(-10, 10), st.just(math.nan), st.just(math.inf), st.sampled_from([0.0, 1.0, 5.0])
)
LIMITS = st.builds(
    Limit,
    st.sampled_from(SIGNALS),
    st.sampled_from(["min", "max"]),
    st.one_of(st.floats(-10, 10), st.sampled_from([0.0, 1.0, 5.0])),
    st.one_of(st.none(), st.floats(0.01, 10)),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "lang": st.sampled_from(["en", "zh-Hans", "zh-Hant"]),
            "kept": st.sampled_from([True, True, False, None]),
            **dict.fromkeys(SIGNALS, VALUES),
        }
    ),
    max_size=12,
)
SCHEMA = {"id": pl.String, "lang": pl.String, "kept": pl.Boolean, **dict.fromkeys(SIGNALS, pl.Float64)}


def judge(row: dict[str, Any], limits: list[Limit]) -> tuple[bool | None, list[str], list[float | None]]:
    if not row["kept"]:
        return None, [], []
    reasons, margins = [], []
    for limit in limits:
        value = row[limit.signal]
        if value is None or math.isnan(value):
            continue
        if value < limit.bound if limit.side == "min" else value > limit.bound:
            reasons.append(f"filter.{limit.signal}.{limit.side}")
            margins.append(None if limit.spread is None else (value - limit.bound) * (1.0 / limit.spread))
    return not reasons, reasons, margins


@given(ROWS, st.dictionaries(st.sampled_from(["en", "zh-Hans"]), st.lists(LIMITS, max_size=4)))
def test_decide_equals_a_loop_over_rows_and_rules(rows: list[dict[str, Any]], limits: dict[str, list[Limit]]) -> None:
    batch = pl.DataFrame([{"id": str(number), **row} for number, row in enumerate(rows)], schema=SCHEMA)
    expected = [(str(number), *judge(row, limits.get(row["lang"], []))) for number, row in enumerate(rows)]
    assert decide(batch, limits).rows() == expected


@given(ROWS, st.lists(LIMITS, min_size=1, max_size=4), st.floats(-10, 10))
def test_another_bound_changes_only_rows_between_the_two(
    rows: list[dict[str, Any]], own: list[Limit], bound: float
) -> None:
    batch = pl.DataFrame([{"id": str(number), **row} for number, row in enumerate(rows)], schema=SCHEMA)
    old, new = own[0], Limit(own[0].signal, own[0].side, bound, own[0].spread)
    before = decide(batch, {"en": own}).select("id", "kept").rows()
    after = decide(batch, {"en": [new, *own[1:]]}).select("id", "kept").rows()
    for row, was, now in zip(rows, before, after, strict=True):
        if was != now:
            assert row["lang"] == "en"
            assert min(old.bound, new.bound) <= row[old.signal] <= max(old.bound, new.bound)


@given(ROWS, st.dictionaries(st.sampled_from(["en", "zh-Hans"]), st.lists(LIMITS, max_size=4)))
def test_failures_are_the_decision_a_row_a_rule(rows: list[dict[str, Any]], limits: dict[str, list[Limit]]) -> None:
    batch = pl.DataFrame([{"id": str(number), **row} for number, row in enumerate(rows)], schema=SCHEMA)
    expected = []
    for number, row in enumerate(rows):
        own = limits.get(row["lang"], [])
        _, reasons, margins = judge(row, own)
        bounds = {limit.reason: limit for limit in own}
        for reason, margin in zip(reasons, margins, strict=True):
            expected.append((number, reason, row[bounds[reason].signal], margin))
    assert failures(batch, limits).drop("bound").rows() == expected


def test_the_types_do_not_depend_on_what_failed() -> None:
    batch = pl.DataFrame([("a", "en", True, 5, None, None)], schema=SCHEMA, orient="row")
    nothing, one = decide(batch, {}), decide(batch, {"en": [Limit("n_words", "max", 1, None)]})
    empty = decide(batch.head(0), {"en": [Limit("n_words", "max", 1, 2.0)]})
    assert nothing.schema == one.schema == empty.schema
    assert nothing.schema == {
        "id": pl.String,
        "kept": pl.Boolean,
        "reasons": pl.List(pl.String),
        "margins": pl.List(pl.Float64),
    }


def test_integer_signals_are_judged_like_others() -> None:
    batch = pl.DataFrame({"id": ["a"], "lang": ["en"], "kept": [True], "n_words": [7]})
    assert decide(batch, {"en": [Limit("n_words", "min", 7.5, 1.0)]}).row(0) == (
        "a",
        False,
        ["filter.n_words.min"],
        [-0.5],
    )
