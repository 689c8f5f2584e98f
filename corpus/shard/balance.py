"""How often each train document is taken: weights by what it is, buckets by a signal, balance between groups."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from corpus.errors import UserError
from corpus.params import Balance, Shard

_QUANTITIES = {"most": pl.Expr.max, "mean": pl.Expr.mean, "fewest": pl.Expr.min}


def needed_columns(params: Shard) -> dict[str, str]:
    """The columns beside `split` and `rank` that decide how often a document is taken, and which setting names each."""
    return (
        {name: f"shard.weights.{name}" for name in params.weights}
        | {name: f"shard.buckets.{name}" for name in params.buckets}
        | ({params.balance.by: "shard.balance.by"} if params.balance else {})
    )


def copies(documents: pl.DataFrame, params: Shard) -> pl.Series:
    """How often each document is taken, 0 or more, as uint32: those outside of train once.

    `documents` has `split`, `lang`, `rank` and `needed_columns`. Of the documents with equal values and buckets so many
    are taken as the sum of their weights says, to one, spread over the order of ranks: chance decides nothing. Raises
    UserError for a column that no train document has, and where nothing would be left of train.
    """
    for name in params.buckets:
        if not (documents[name].dtype.is_numeric() or documents[name].dtype == pl.Null):
            raise UserError(f"shard.buckets.{name}: it holds {documents[name].dtype}, no numbers: name a signal")
    train = documents.with_row_index("place").filter(pl.col("split") == "train").sort("rank")
    for column, setting in needed_columns(params).items():
        if train[column].null_count() == train.height:
            raise UserError(f"{setting}: no train document has {column}: name another column, or leave it out")
    buckets = {f"bucket {name}": _bucket(name, len(weights)) for name, weights in params.buckets.items()}
    weight = pl.lit(1.0)
    for name, by_value in params.weights.items():
        weight *= _looked_up(pl.col(name).cast(pl.String), by_value)
    for bucket, in_order in zip(buckets, params.buckets.values(), strict=True):
        weight *= _looked_up(pl.col(bucket), dict(enumerate(in_order)))
    train = train.with_columns(**buckets).with_columns(weight=weight)
    if params.balance:
        train = train.with_columns(weight=_balanced(train, params.balance))
    taken = _rounded(train, [*params.weights, *buckets, *([params.balance.by] if params.balance else [])])
    if train.height and taken.sum() == 0:
        raise UserError("shard: weights, buckets and balance leave nothing of train: raise one of the weights")
    everything = pl.Series("copies", [1], dtype=pl.UInt32).new_from_index(0, documents.height)
    return everything.scatter(train["place"], taken)


def _looked_up(values: pl.Expr, weights: dict[str, float] | dict[int, float]) -> pl.Expr:
    return values.replace_strict(list(weights), list(weights.values()), default=1.0, return_dtype=pl.Float64)


def _bucket(signal: str, number: int) -> pl.Expr:
    """The bucket of a document, 0 for the lowest values: each language has equally many in each."""
    place = pl.col(signal).rank("ordinal").over("lang") - 1
    return place * number // pl.col(signal).count().over("lang")


def _balanced(train: pl.DataFrame, balance: Balance) -> pl.Series:
    """The weights such that each group's sum to the same; documents of no group keep theirs."""
    by, total = pl.col(balance.by), pl.col("weight").sum()
    sums = train.filter(by.is_not_null()).group_by(balance.by).agg(total).filter(pl.col("weight") > 0)
    goal = balance.to if isinstance(balance.to, int) else sums.select(_QUANTITIES[balance.to](pl.col("weight"))).item()
    factor = pl.when(by.is_not_null()).then(goal / total.over(balance.by)).otherwise(1.0)
    weighted = pl.when(pl.col("weight") > 0).then((pl.col("weight") * factor).clip(0, balance.max_copies)).otherwise(0)
    return train.select(weighted).to_series()


def _rounded(train: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Whole numbers for weights, whose sum within each group of equal values is theirs, rounded."""
    so_far = (pl.col("weight").cum_sum() + 0.5).floor()
    taken = so_far - so_far.shift(1, fill_value=0)
    return train.select((taken.over(*columns) if columns else taken).cast(pl.UInt32)).to_series()


def balance_metrics(train: pl.DataFrame, by: str) -> dict[str, dict[str, int]]:
    """Of each value of a column (`none` for null) how many train documents there are, and how many rows of them.

    >>> balance_metrics(pl.DataFrame({"label": ["a", "a", None], "copies": [2, 1, 1]}), "label")
    {'a': {'documents': 2, 'taken': 3}, 'none': {'documents': 1, 'taken': 1}}
    """
    counted = train.group_by(pl.col(by).cast(pl.String).fill_null("none")).agg(
        documents=pl.len(), taken=pl.col("copies").sum()
    )
    return {row.pop(by): row for row in counted.sort(by).to_dicts()}
