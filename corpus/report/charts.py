"""The geometry of the page's charts. Pure numbers in, pure numbers out: the template draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two bounds, about `count` of them.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(3, 3)
    [3.0]
    """
    if not high > low:
        return [float(low)]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within positive bounds; with 2 and 5 between them where there would be fewer than three.

    >>> log_ticks(1, 5_000)
    [1.0, 10.0, 100.0, 1000.0]
    >>> log_ticks(30, 300)
    [50.0, 100.0, 200.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(decades) >= 3:
        return decades[:: math.ceil(len(decades) / 5)]
    return [f * 10.0**power for power in powers for f in (1.0, 2.0, 5.0) if low <= f * 10.0**power <= high]


def place(value: float, low: float, high: float, length: float) -> float:
    """Where a value lies on an axis of a length, rounded to a tenth of a pixel and kept on the axis.

    >>> place(0.25, 0, 1, 200)
    50.0
    """
    if not high > low:
        return length / 2
    return round(min(max((value - low) / (high - low), 0.0), 1.0) * length, 1)


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Points as SVG wants them.

    >>> polyline([(0, 1.5), (10, 2)])
    '0,1.5 10,2'
    """
    return " ".join(f"{x:g},{y:g}" for x, y in points)
