"""Histograms of the signals as bars, ticks and bounds, ready to draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from corpus.report.charts import log_ticks, place, ticks
from corpus.report.tally import Scale, scale_of

MIN_BARS, MAX_BARS = 12, 40
ENOUGH = 10  # documents of a language; a histogram of fewer says nothing
WIDTH, HEIGHT = 300.0, 96.0
GAP = 0.6
TAIL = 0.002  # share of the documents at either end that may lie outside, in the first or last bar


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar of kept documents with the dropped ones on top of it; pixels from the left and the top."""

    x: float
    draw_width: float
    kept_y: float
    dropped_y: float
    low: float
    high: float
    kept: int
    dropped: int


@dataclasses.dataclass(frozen=True)
class Histogram:
    """One signal of one language."""

    signal: str
    lang: str
    log: bool
    documents: int
    peak: int
    bars: list[Bar]
    ticks: list[tuple[float, float]]  # pixels, value
    bounds: list[tuple[float, str, float]]  # pixels, "min" or "max", value


def histograms(
    signals: pl.DataFrame,
    always: Sequence[str],
    bounds: Mapping[str, Mapping[str, Any]],
    scales: Mapping[str, Scale] | None = None,
) -> dict[str, list[Histogram]]:
    """Per language, a histogram of each signal: first of those `always` of interest, then of those that the filter
    bounded in it, then of the others. A language of fewer than ENOUGH documents has none.

    `signals` as in Tally; `bounds` as in reports/filter.json: language -> `<signal>.<min|max>` -> {bound, ...};
    `scales` are those in which the signals were counted.
    """
    found: dict[str, list[Histogram]] = {}
    everything = {(lang, signal): counts for (lang, signal), counts in signals.group_by("lang", "signal")}
    for lang in sorted({str(lang) for lang, _ in everything if lang is not None}):
        limits: dict[str, list[tuple[str, float]]] = {signal: [] for signal in always}
        for rule, facts in bounds.get(lang, {}).items():
            signal, _, side = rule.rpartition(".")
            if facts["bound"] is not None:
                limits.setdefault(signal, []).append((side, facts["bound"]))
        for signal in sorted(str(signal) for tag, signal in everything if tag == lang):
            limits.setdefault(signal, [])
        found[lang] = [
            _histogram(lang, signal, (scales or {}).get(signal) or scale_of(signal), everything[lang, signal], drawn)
            for signal, drawn in limits.items()
            if (lang, signal) in everything and everything[lang, signal]["documents"].sum() >= ENOUGH
        ]
    return found


def _histogram(
    lang: str, signal: str, scale: Scale, counts: pl.DataFrame, drawn: Sequence[tuple[str, float]]
) -> Histogram:
    kept, dropped = [0] * scale.bins, [0] * scale.bins
    for state, number, here in counts.select("state", "bin", "documents").iter_rows():
        (kept if state == "kept" else dropped)[number] += here
    first, last = _visible([a + b for a, b in zip(kept, dropped, strict=True)])
    for _, value in drawn:
        first, last = min(first, math.floor(scale.position(value))), max(last, math.ceil(scale.position(value)))
    first, last = max(first - 1, 0), min(last + 1, scale.bins - 1)
    documents = sum(kept) + sum(dropped)
    step = math.ceil((last - first + 1) / min(MAX_BARS, max(MIN_BARS, 2 * math.isqrt(documents))))
    count = math.ceil((last - first + 1) / step)
    sums = [
        (_inside(kept, first, number, step, count), _inside(dropped, first, number, step, count))
        for number in range(count)
    ]
    peak = max(a + b for a, b in sums)
    bars = []
    for number, (in_kept, in_dropped) in enumerate(sums):
        left, right = (place(n, 0, count, WIDTH) for n in (number, number + 1))
        kept_y = HEIGHT - place(in_kept, 0, peak, HEIGHT)
        dropped_y = HEIGHT - place(in_kept + in_dropped, 0, peak, HEIGHT)
        edges = scale.edge(first + number * step), scale.edge(min(first + (number + 1) * step, scale.bins))
        bars.append(Bar(left, round(right - left - GAP, 1), kept_y, dropped_y, *edges, in_kept, in_dropped))
    end = first + count * step
    low, high = scale.edge(first), scale.edge(min(end, scale.bins))
    marks = log_ticks(low, high) if scale.log else ticks(low, high, 4)
    return Histogram(
        signal,
        lang,
        scale.log,
        documents,
        peak,
        bars,
        [(place(scale.position(mark), first, end, WIDTH), mark) for mark in marks],
        [(place(scale.position(value), first, end, WIDTH), side, value) for side, value in drawn],
    )


def _visible(counts: list[int]) -> tuple[int, int]:
    """The first and last bin to show, but for a small tail at either end."""
    total, seen = sum(counts), 0
    first, last = None, 0
    for number, count in enumerate(counts):
        seen += count
        if first is None and seen > total * TAIL:
            first = number
        if count and seen - count < total * (1 - TAIL):
            last = number
    return first or 0, last


def _inside(counts: list[int], first: int, number: int, step: int, bars: int) -> int:
    """What a bar counts; the first and last one also hold the tails beyond them."""
    start = 0 if number == 0 else first + number * step
    stop = len(counts) if number == bars - 1 else first + (number + 1) * step
    return sum(counts[start:stop])
