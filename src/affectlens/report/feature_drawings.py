"""Small drawings of a feature page as numbers; the template turns them into SVG.

Coordinates are whole units of a drawing's own box, relative path steps where that is shorter: a
page has several of these and a report a hundred pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from affectlens.display.words import number

from .feature_names import Density

HISTOGRAM = (260, 70)
"""Width and height of a histogram's plotting area."""
PANEL = 80
"""Width and height of a panel of the slope plot."""
OVERVIEW = 160
"""Width and height of its panel of means."""
STRIP = 220
"""Width of a strip of effects."""
_RATE_BINS = 4
"""Bins of the firing rates in one power of ten."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: int
    label: str


@dataclass(frozen=True)
class Histogram:
    """Bars as one path, ticks of the horizontal axis, and the largest count."""

    bars: str
    ticks: tuple[Tick, ...]
    top: int


@dataclass(frozen=True)
class RateStrip:
    """How often each of the SAE's features fires: a histogram that all pages share."""

    bars: str
    ticks: tuple[Tick, ...]
    low: float
    high: float

    def place(self, rate: float) -> int | None:
        """Where a firing rate lies; None for a feature that never fires."""
        return _along(math.log10(rate), self.low, self.high, HISTOGRAM[0]) if rate > 0 else None


@dataclass(frozen=True)
class Strip:
    """One effect beside its controls, all at their place on one axis that holds 0.

    Attributes:
        zero: where 0 lies.
        controls: one stroke a control, as one path.
        value: the effect.
        ends: its interval; None without one.
        low: number at the left end.
        high: number at the right end.
    """

    zero: int
    controls: str
    value: int
    ends: tuple[int, int] | None
    low: str
    high: str


def histogram(density: Density) -> Histogram | None:
    """Bars of the activations on a logarithmic axis; None for a feature that never fires."""
    if not density.counts:
        return None
    low, high = density.log10_edges[0], density.log10_edges[-1]
    if high <= low:
        return None
    return Histogram(
        _bars([_along(e, low, high, HISTOGRAM[0]) for e in density.log10_edges], density.counts),
        _log_ticks(low, high),
        max(density.counts),
    )


def rate_strip(rates: Iterable[float]) -> RateStrip | None:
    """Histogram of the firing rates above 0 on a logarithmic axis; None where none fires."""
    logs = np.log10(np.array([r for r in rates if r > 0], dtype=np.float64))
    if not len(logs):
        return None
    first = math.floor(logs.min() * _RATE_BINS)
    last = max(first + 1, math.ceil(logs.max() * _RATE_BINS))
    edges = np.arange(first, last + 1) / _RATE_BINS
    counts, _ = np.histogram(logs, edges)
    low, high = float(edges[0]), float(edges[-1])
    at = [_along(float(e), low, high, HISTOGRAM[0]) for e in edges]
    ticks = tuple(
        Tick(_along(power, low, high, HISTOGRAM[0]), _percent(power))
        for power in range(math.ceil(low), math.floor(high) + 1)
    )
    return RateStrip(_bars(at, counts.tolist()), ticks, low, high)


def slopes(
    neutral: Iterable[float], clinical: Iterable[float], top: float, box: int = PANEL
) -> str:
    """A line from left to right for each pair, as one path; equal lines are drawn once.

    Args:
        neutral: activation of each neutral member.
        clinical: of each emotional member.
        top: activation at the upper edge.
        box: width and height.
    """
    ends = zip(neutral, clinical, strict=True)
    lines = dict.fromkeys((height(a, top, box), height(b, top, box)) for a, b in ends)
    # A minus parts two numbers by itself.
    return "".join(f"M0 {a}l{box} {b - a}".replace(" -", "-") for a, b in lines)


def height(value: float, top: float, box: int = PANEL) -> int:
    """Height of one activation in a box, measured from its upper edge and kept inside."""
    scaled = min(1.0, max(0.0, value / top)) if top > 0 and math.isfinite(value) else 0.0
    return box - round(scaled * box)


def strip(
    value: float, controls: Sequence[float], ends: tuple[float, float] | None = None
) -> Strip | None:
    """An effect beside its controls; None where the effect is no number."""
    if not math.isfinite(value):
        return None
    bounds = ends if ends is not None and all(map(math.isfinite, ends)) else None
    beside = [c for c in controls if math.isfinite(c)]
    every = [0.0, value, *beside, *(bounds or ())]
    low, high = min(every), max(every)
    room = (high - low) * 0.04 or 0.01
    low, high = low - room, high + room
    places = sorted({_along(c, low, high, STRIP) for c in beside})
    return Strip(
        _along(0.0, low, high, STRIP),
        "".join(f"M{x} 4v10" for x in places),
        _along(value, low, high, STRIP),
        None if bounds is None else tuple(_along(b, low, high, STRIP) for b in bounds),  # type: ignore[arg-type]
        number(low, sign=True),
        number(high, sign=True),
    )


def _along(value: float, low: float, high: float, width: int) -> int:
    return round((value - low) / (high - low) * width)


def _bars(edges: Sequence[int], counts: Sequence[int]) -> str:
    """Bars that stand on the lower edge of the plotting area, empty ones left out."""
    top = max(max(counts), 1)
    parts = []
    for left, right, n in zip(edges[:-1], edges[1:], counts, strict=True):
        # A bar of a single token is still to be seen.
        tall = max(1, round(HISTOGRAM[1] * n / top)) if n else 0
        wide = max(1, right - left - 1)
        if tall:
            parts.append(f"M{left} {HISTOGRAM[1]}v-{tall}h{wide}v{tall}z")
    return "".join(parts)


def _log_ticks(low: float, high: float) -> tuple[Tick, ...]:
    """Ticks at 1, 2 and 5 times powers of ten, fewer on a wide axis, both ends on a narrow one."""
    steps = (1, 2, 5) if high - low < 2 else (1,)
    at = [
        (math.log10(step) + power, step * 10.0**power)
        for power in range(math.floor(low), math.ceil(high) + 1)
        for step in steps
    ]
    inside = [(log, value) for log, value in at if low - 1e-9 <= log <= high + 1e-9]
    if len(inside) < 2:
        inside = [(low, 10.0**low), (high, 10.0**high)]
    return tuple(
        Tick(_along(log, low, high, HISTOGRAM[0]), f"{value:.3g}") for log, value in inside
    )


def _percent(power: int) -> str:
    return f"{100 * 10.0**power:g}%"
