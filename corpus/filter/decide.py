"""The decision on a batch: every failed rule of each document, and how far beyond the bound it lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl


@dataclasses.dataclass(frozen=True)
class Limit:
    """A resolved bound of one signal in one language."""

    signal: str
    side: Literal["min", "max"]
    bound: float
    spread: float | None  # robust spread of the signal in this language; None where it has none

    @property
    def reason(self) -> str:
        """The name under which it drops a document."""
        return f"filter.{self.signal}.{self.side}"


Limits = Mapping[str, Sequence[Limit]]  # by language, in the order of its rules


def decide(batch: pl.DataFrame, limits: Limits) -> pl.DataFrame:
    """The annotation of a batch with columns id, lang, kept (of the stages before) and the signals that limits name.

    Gives id, kept (null where it had been dropped before), reasons: all failed rules in the order of the limits, and
    margins: how far beyond the bound, (value - bound) / spread. A signal that is null or NaN passes.

    >>> batch = pl.DataFrame({"id": ["a", "b"], "lang": "en", "kept": True, "n_words": [7, 90]})
    >>> decide(batch, {"en": [Limit("n_words", "min", 50, 10.0)]}).row(0)
    ('a', False, ['filter.n_words.min'], [-4.3])
    """
    by_row = failures(batch, limits).group_by("row", maintain_order=True).agg(reasons="reason", margins="margin")
    rows = batch.select("id", "kept").with_row_index("row")
    return rows.join(by_row, on="row", how="left", maintain_order="left").select(
        "id",
        kept=pl.when("kept").then(pl.col("reasons").is_null()),
        reasons=pl.col("reasons").fill_null(pl.lit([], pl.List(pl.String))),
        margins=pl.col("margins").fill_null(pl.lit([], pl.List(pl.Float64))),
    )


def failures(batch: pl.DataFrame, limits: Limits) -> pl.DataFrame:
    """A row for each rule that a document of the batch failed: its number there, reason, value, bound and margin.

    Ordered by document and then as the limits are. Documents that an earlier stage dropped fail nothing.

    >>> batch = pl.DataFrame({"lang": ["en", "en"], "kept": [True, True], "n_words": [90, 7]})
    >>> failures(batch, {"en": [Limit("n_words", "min", 50, 10.0)]}).row(0)
    (1, 'filter.n_words.min', 7.0, 50.0, -4.3)
    """
    every = [limit for own in limits.values() for limit in own]
    numbered = batch.lazy().with_row_index("row")
    rows, values = [np.empty(0, np.uint32)], [np.empty(0)]
    number = [np.empty(0, np.intp)]  # of the limit
    for language, own in limits.items():
        mine = pl.col("kept").fill_null(False) & (pl.col("lang") == language)
        signals = [pl.col(signal).cast(pl.Float64) for signal in {limit.signal for limit in own}]
        documents = numbered.filter(mine).select("row", *signals).collect()
        own_rows = documents["row"].to_numpy()
        for limit in own:
            value = documents[limit.signal].to_numpy()  # null becomes NaN, which is beyond nothing
            beyond = np.flatnonzero(value < limit.bound if limit.side == "min" else value > limit.bound)
            rows.append(own_rows[beyond])
            values.append(value[beyond])
            number.append(np.full(len(beyond), len(number) - 1))
    order = np.argsort(np.concatenate(rows), kind="stable")
    which, value = np.concatenate(number)[order], np.concatenate(values)[order]
    bound = np.array([limit.bound for limit in every], np.float64)[which]
    inverse = np.array([np.nan if limit.spread is None else 1.0 / limit.spread for limit in every], np.float64)[which]
    reasons = pl.Series([limit.reason for limit in every], dtype=pl.String)
    return pl.DataFrame(
        {
            "row": np.concatenate(rows)[order],
            "reason": reasons.gather(which),
            "value": value,
            "bound": bound,
            "margin": pl.Series((value - bound) * inverse).fill_nan(None),
        }
    )
