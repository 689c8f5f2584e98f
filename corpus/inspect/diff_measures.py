"""What differs between two versions beside their documents: bounds, parameters, signals, scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from corpus.errors import UserError
from corpus.inspect.fates import COLUMNS_AT_ONCE, Documents, read_signals, signal_names, state
from corpus.inspect.versions import Version
from corpus.report.scores import MODELS

PER_TOKEN = ("perplexity", "token_accuracy")  # of other tokens they say something else
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def compare_bounds(before: Mapping[str, Any], after: Mapping[str, Any]) -> pl.DataFrame:
    """The bounds that differ, of two `bounds` in reports/filter.json.

    >>> compare_bounds({"en": {"mattr.min": {"bound": 0.4}}}, {"en": {"mattr.min": {"bound": 0.5}}}).rows()
    [('en', 'mattr.min', 0.4, 0.5)]
    """
    a, b = (
        {(lang, rule): one["bound"] for lang, own in x.items() for rule, one in own.items()} for x in (before, after)
    )
    rows = [(*key, a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return pl.DataFrame(
        rows, {"lang": pl.String, "rule": pl.String, "before": pl.Float64, "after": pl.Float64}, orient="row"
    )


def compare_parameters(before: Mapping[str, Any], after: Mapping[str, Any]) -> pl.DataFrame:
    """The parameters that differ, by dotted key; see `Difference`.

    >>> compare_parameters({"dedup.threshold": 0.6}, {"dedup.threshold": 0.7, "workers": 2}).rows()
    [('dedup.threshold', '0.6', '0.7'), ('workers', None, '2')]
    """
    a, b = ({key: _json(value) for key, value in _filled(*pair)} for pair in ((before, after), (after, before)))
    rows = [(key, a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return pl.DataFrame(rows, dict.fromkeys(("key", "before", "after"), pl.String), orient="row")


def _filled(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The parameters without empty sections that have keys in the other version: these say it all."""
    return [
        (key, value)
        for key, value in own.items()
        if value != {} or not any(there.startswith(f"{key}.") for there in other)
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


_FIGURES = ("documents", "low", "median", "high")
_SIGNALS = {"lang": pl.String, "signal": pl.String} | {
    f"{name}_{when}": pl.Int64 if name == "documents" else pl.Float64
    for when in ("before", "after")
    for name in _FIGURES
}


def compare_signals(
    versions: Sequence[Version], read: Sequence[Documents], stages: Sequence[str]
) -> tuple[pl.DataFrame, list[str]]:
    """The signals whose quantiles differ, in languages that both versions have, see `Difference`; and a note of those
    that only one has."""
    names = [signal_names(version, documents) for version, documents in zip(versions, read, strict=True)]
    common = sorted(names[0].keys() & names[1].keys())
    a, b = (
        _quantiles(version, documents, {name: own[name] for name in common}, stages)
        for version, documents, own in zip(versions, read, names, strict=True)
    )
    rows = []
    for key in a.keys() & b.keys():
        (count_a, low_a, first_a, median_a, third_a, high_a), (count_b, low_b, _, median_b, _, high_b) = a[key], b[key]
        if (low_a, median_a, high_a) != (low_b, median_b, high_b):
            spread = third_a - first_a or high_a - low_a
            shift = (median_b - median_a) / spread if spread else None if median_a != median_b else 0.0
            rows.append((*key, count_a, low_a, median_a, high_a, count_b, low_b, median_b, high_b, shift))
    frame = pl.DataFrame(rows, _SIGNALS | {"shift": pl.Float64}, orient="row")
    size = pl.col("shift").abs()
    frame = frame.sort(size, "signal", "lang", descending=[True, False, False], nulls_last=[False, True, True])
    alone = sorted(names[0].keys() ^ names[1].keys()) if "clean" in stages else []
    more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
    return frame, [f"signals that only one version has of its documents: {', '.join(alone[:5])}{more}"] if alone else []


def _quantiles(
    version: Version, documents: Documents, names: Mapping[str, str], stages: Sequence[str]
) -> dict[tuple[str | None, str], tuple[float, ...]]:
    """By language and signal, the number of kept documents that have it, and its QUANTILES among them."""
    facts = documents.frame[: documents.originals].select("lang", kept=state(stages) == "kept")
    languages = facts.filter("kept")["lang"].unique().to_list()
    kept = {lang: facts.select(pl.col("kept") & pl.col("lang").eq_missing(lang)).to_series() for lang in languages}
    found = {}
    for start in range(0, len(names), COLUMNS_AT_ONCE):
        some = dict(list(names.items())[start : start + COLUMNS_AT_ONCE])
        values = read_signals(version, some)
        for lang, mask in kept.items():
            for name, column in values.filter(mask).to_dict().items():
                own = column.filter(column.is_finite()).to_numpy()
                if len(own):
                    found[lang, name] = (len(own), *np.quantile(own, QUANTILES).tolist())
    return found


def compare_scores(before: dict[str, Any] | None, after: dict[str, Any] | None) -> tuple[pl.DataFrame, list[str]]:
    """The scores of the sets that are the same in two reports/evaluate.json, and why the others are not compared.

    Raises UserError where one is no such report.
    """
    rows, refused = [], []
    try:
        a, b = ((report or {}).get("sets", {}) for report in (before, after))
        for name in sorted(a.keys() | b.keys()):
            digests = [str(sets[name]["fingerprint"]) for sets in (a, b) if name in sets]
            if len(digests) == 1:
                refused.append(f"scores of {name}: only {'A' if name in a else 'B'} has this set")
            elif digests[0] != digests[1]:
                refused.append(
                    f"scores of {name}: not comparable, its documents differ: fingerprints {' and '.join(digests)}"
                )
            else:
                left_out = PER_TOKEN if a[name].get("tokens") != b[name].get("tokens") else ()
                refused += [f"scores of {name}: {score} is not comparable, the tokens differ" for score in left_out]
                rows += [
                    (name, model, score, value, b[name].get(model, {}).get(score))
                    for model in MODELS
                    for score, value in a[name].get(model, {}).items()
                    if score not in left_out and value is not None
                ]
        schema = dict.fromkeys(("set", "model", "score"), pl.String) | dict.fromkeys(("before", "after"), pl.Float64)
        return pl.DataFrame(rows, schema, orient="row").drop_nulls(), refused
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"reports/evaluate.json is not what `train evaluate` writes ({error!r}): run it again"
        ) from None
