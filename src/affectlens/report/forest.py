"""Rows of a forest plot: a mark with its interval, or a band over several sets, never cut off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from affectlens.display.arms import Arm
from affectlens.display.look import THEME
from affectlens.display.words import number


@dataclass(frozen=True)
class Point:
    """One mark.

    Attributes:
        y: row.
        value: where it stands.
        low, high: its interval; NaN for none.
        arm: how it is drawn.
        band: smallest and largest of several sets, drawn as a grey band; `value` is their mean.
    """

    y: float
    value: float
    low: float
    high: float
    arm: Arm
    band: tuple[float, float] | None = None


def reach(points: Iterable[Point], *, most: float = 4.0) -> float:
    """Half width of the axis: the largest end, but at most `most` times the median end.

    Marks beyond it are drawn at the edge with their number (`draw_points`).
    """
    ends = []
    for p in points:
        known = [abs(v) for v in (p.value, p.low, p.high, *(p.band or ())) if np.isfinite(v)]
        ends.append(max(known, default=0.0))
    ends = [end for end in ends if end > 0]
    return 1.12 * min(max(ends), most * float(np.median(ends))) if ends else 1.0


def draw_points(axes: Axes, points: Iterable[Point], limits: tuple[float, float]) -> None:
    """Draw the rows within the two limits of the axis."""
    axes.set_xlim(*limits)
    points = list(points)
    sets = [(p.y, np.clip(p.band, *limits)) for p in points if p.band is not None]
    if sets:
        rows, bands = [y for y, _ in sets], np.array([band for _, band in sets])
        axes.hlines(
            rows,
            bands[:, 0],
            bands[:, 1],
            color=THEME.faint,
            alpha=0.45,
            linewidth=8,
            clip_on=False,
        )
    shown = [p for p in points if limits[0] <= p.value <= limits[1]]
    known = [p for p in shown if np.isfinite(p.low) and np.isfinite(p.high)]
    if known:
        lows, highs = np.clip([(p.low, p.high) for p in known], *limits).T
        rows, colours = [p.y for p in known], [p.arm.colour for p in known]
        axes.hlines(rows, lows, highs, colors=colours, linewidth=1.4, zorder=3, clip_on=False)
    for p in points:
        if p in shown:
            mark(axes, p.value, p.y, p.arm)
        elif np.isfinite(p.value):
            _beyond(axes, p, limits, p.arm.colour)


def mark(axes: Axes, x: float, y: float, arm: Arm, size: float = 5.2) -> None:
    """One mark in the sign of its arm."""
    colour = arm.colour
    axes.plot(
        [x], [y], arm.marker, markersize=size, color=colour, zorder=5, markeredgewidth=1.3,
        markerfacecolor=colour if arm.filled else THEME.paper, linestyle="none",
    )  # fmt: skip


def _beyond(axes: Axes, p: Point, limits: tuple[float, float], colour: str) -> None:
    """An arrow at the edge and the number, for a mark that would squeeze all others."""
    right = p.value > limits[1]
    edge = limits[right]
    axes.plot(
        [edge], [p.y], ">" if right else "<", color=colour, markersize=5, clip_on=False, zorder=5
    )
    axes.annotate(
        number(p.value, 1, sign=True),
        (edge, p.y),
        textcoords="offset points",
        xytext=(-6 if right else 6, 0),
        ha="right" if right else "left",
        va="center",
        fontsize=7.5,
        color=colour,
    )
