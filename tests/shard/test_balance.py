"""How often train documents are taken, against counts made by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import UserError
from corpus.params import Shard
from corpus.shard.balance import copies


def documents(
    *rows: tuple[str, str | None], split: str = "train", ppl: list[float | None] | None = None
) -> pl.DataFrame:
    """Documents of a source and a label, ranked as they stand."""
    return pl.DataFrame(
        {
            "split": [split] * len(rows),
            "rank": range(len(rows)),
            "lang": ["en"] * len(rows),
            "source": [source for source, _ in rows],
            "label": pl.Series([label for _, label in rows], dtype=pl.String),
            "ppl": pl.Series(ppl or [None] * len(rows), dtype=pl.Float64),
        },
        schema_overrides={"rank": pl.UInt64},
    )


def taken(frame: pl.DataFrame, by: str, **settings: Any) -> dict[str | None, int]:
    """How many rows there are of each value."""
    times = copies(frame, Shard(**settings))
    total: Counter[str | None] = Counter()
    for value, number in zip(frame[by], times, strict=True):
        total[value] += number
    return dict(total)


REVIEWS = documents(*[("web", "good")] * 12, *[("web", "bad")] * 4, *[("book", None)] * 3)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("mean", {"good": 8, "bad": 8, None: 3}),
        ("most", {"good": 12, "bad": 12, None: 3}),
        ("fewest", {"good": 4, "bad": 4, None: 3}),
        (5, {"good": 5, "bad": 5, None: 3}),
    ],
)
def test_labels_are_balanced_and_what_has_none_is_left_alone(to: str | int, expected: dict[str | None, int]) -> None:
    assert taken(REVIEWS, "label", balance={"by": "label", "to": to}) == expected


def test_no_document_is_taken_more_often_than_allowed() -> None:
    assert taken(REVIEWS, "label", balance={"by": "label", "to": 100, "max_copies": 3})["bad"] == 12


def test_weights_multiply_and_balance_comes_after_them() -> None:
    assert taken(REVIEWS, "source", weights={"source": {"web": 0.5, "book": 2}}) == {"web": 8, "book": 6}
    both = {"source": {"web": 0.5}, "label": {"bad": 3}}
    assert taken(REVIEWS, "label", weights=both) == {"good": 6, "bad": 6, None: 3}
    balanced = taken(REVIEWS, "label", weights={"label": {"good": 0.5}}, balance={"by": "label", "to": "most"})
    assert balanced == {"good": 6, "bad": 6, None: 3}
    assert taken(REVIEWS, "source", weights={"source": {"web": 0}}) == {"web": 0, "book": 3}


def test_buckets_follow_a_signal_within_each_language() -> None:
    frame = documents(*[("web", None)] * 7, ppl=[50, 10, 40, 20, 60, 30, None])
    frame = frame.with_columns(lang=pl.Series(["en"] * 6 + ["zh-Hans"]))
    assert list(copies(frame, Shard(buckets={"ppl": [2, 1, 0]}))) == [0, 2, 1, 2, 0, 1, 1]


def test_only_train_is_balanced() -> None:
    frame = pl.concat([REVIEWS, documents(*[("web", "bad")] * 5, split="test")])
    times = copies(frame, Shard(balance={"by": "label", "to": "most"}, weights={"source": {"web": 0.5}}))
    assert list(times.filter(frame["split"] == "test")) == [1] * 5


def test_a_column_that_nobody_has_and_an_empty_train_are_refused() -> None:
    frame = documents(("web", None))
    with pytest.raises(UserError, match=r"shard\.balance\.by: no train document has label"):
        copies(frame, Shard(balance={"by": "label"}))
    with pytest.raises(UserError, match=r"shard\.buckets\.ppl: no train document has ppl"):
        copies(frame, Shard(buckets={"ppl": [1, 0]}))
    with pytest.raises(UserError, match="leave nothing of train"):
        copies(frame, Shard(weights={"source": {"web": 0}}))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", None])), min_size=1, max_size=60),
    st.dictionaries(st.sampled_from("ab"), st.floats(0.1, 5), max_size=2),
)
def test_each_cell_has_the_sum_of_its_weights(rows: list[tuple[str, str | None]], weights: dict[str, float]) -> None:
    frame = documents(*rows)
    try:
        got = taken(frame, "source", weights={"source": weights})
    except UserError:
        assert sum(weights.get(source, 1) for source, _ in rows) < 1
        return
    for source in "ab":
        wanted = sum(weights.get(source, 1) for one, _ in rows if one == source)
        assert abs(got.get(source, 0) - wanted) <= 0.5 + 1e-9
