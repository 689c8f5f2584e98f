"""The decision on a batch: every failed rule of each document, as one Polars expression over its signals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

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


def decide(batch: pl.DataFrame, limits: Mapping[str, Sequence[Limit]]) -> pl.DataFrame:
    """The annotation of a batch with columns id, lang, kept (of the stages before) and the signals that limits name.

    Gives id, kept (null where it had been dropped before), reasons: all failed rules in the order of the limits, and
    margins: how far beyond the bound, (value - bound) / spread. A signal that is null or NaN passes.

    >>> batch = pl.DataFrame({"id": ["a", "b"], "lang": "en", "kept": True, "n_words": [7, 90]})
    >>> decide(batch, {"en": [Limit("n_words", "min", 50, 10.0)]}).row(0)
    ('a', False, ['filter.n_words.min'], [-4.3])
    """
    judged = pl.col("kept").fill_null(False)
    failures = [
        pl.when(judged & (pl.col("lang") == language) & _fails(limit)).then(
            pl.struct(pl.lit(limit.reason).alias("reason"), _margin(limit).alias("margin"))
        )
        for language, rules in limits.items()
        for limit in rules
    ]
    nothing = pl.lit(None, pl.Struct({"reason": pl.String, "margin": pl.Float64}))
    failed = pl.concat_list(nothing, *failures).list.drop_nulls()
    return batch.with_columns(failed=failed).select(
        "id",
        kept=pl.when(judged).then(pl.col("failed").list.len() == 0),
        reasons=pl.col("failed").list.eval(pl.element().struct.field("reason")),
        margins=pl.col("failed").list.eval(pl.element().struct.field("margin")),
    )


def _value(limit: Limit) -> pl.Expr:
    return pl.col(limit.signal).cast(pl.Float64)


def _fails(limit: Limit) -> pl.Expr:
    beyond = _value(limit) < limit.bound if limit.side == "min" else _value(limit) > limit.bound
    return beyond & ~_value(limit).is_nan()


def _margin(limit: Limit) -> pl.Expr:
    if limit.spread is None:
        return pl.lit(None, pl.Float64)
    # Polars turns a division by a number into this product, or not, as it sees fit: the bytes should not depend on it.
    return (_value(limit) - limit.bound) * (1.0 / limit.spread)
