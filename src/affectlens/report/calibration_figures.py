"""Figures of the calibration: error rates with limits, power curves."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.look import THEME, drawable
from affectlens.display.words import ALL, plural

from .calibration import CRITERIA, MEASURES, WHOLE, effect_in, null_words, sizes
from .loading import RunData
from .theme import FigureSpec, canvas, dress, legend, panels, strokes

POWER = 0.8
_STYLES = ("-", "--", ":", "-.")


def calibration_figures(data: RunData) -> list[FigureSpec]:
    """Every figure of the section that the run has data for."""
    specs = [error_rates(data), power_curves(data)]
    return [spec for spec in specs if spec is not None]


def error_rates(data: RunData) -> FigureSpec | None:
    """Every error rate with its binomial limits, one row a null."""
    rates = data.rows("calibration/rates")
    if rates is None:
        return None
    nulls = [str(n) for n in dict.fromkeys(rates.null)]
    measures = [m for m in MEASURES if (rates.measure == m).any()]
    bad = int((rates.verdict == "outside").sum())
    title = "False alarms where there is nothing to find"
    caption = (
        "Every dot is an error rate with its exact 95% limits, on data made from this run’s own "
        "activations so that no effect is left. Blue: the search for any emotion; grey: each "
        "single emotion; square: all searches together, which may err more often as each has an "
        "alpha of its own. Small upright line: the rate that is allowed. Crossed red: surely above "
        f"it, after correction ({bad} of {len(rates)})."
    )

    def draw(*, narrow: bool) -> Figure:
        columns = 1 if narrow else min(2, len(measures))
        lines = math.ceil(len(measures) / columns)
        height = 0.9 + lines * (0.7 + 0.42 * len(nulls))
        figure = canvas(title, narrow=narrow, height=height)
        grid = panels(figure, len(measures), (lines, columns), sharey=True)
        for axes, measure in zip(grid, measures):
            _rate_panel(axes, rates[rates.measure == measure], nulls)
            axes.set_title(MEASURES[measure], loc="left", fontsize=8.8, color=THEME.muted)
        wrapped = [drawable(null_words(n)).replace(", ", ",\n") for n in nulls]
        grid[0].set_yticks(range(len(nulls)), wrapped, fontsize=7.8)
        grid[0].set_ylim(len(nulls) - 0.4, -0.6)
        return figure

    alt = f"{plural(len(rates), 'error rate')} with limits, {bad} too high."
    return FigureSpec("calibration_rates", title, caption, alt, draw)


def _rate_panel(axes: Axes, rates: pd.DataFrame, nulls: list[str]) -> None:
    dress(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    table = rates.assign(at=_places(rates, nulls))
    bad, whole = table.verdict == "outside", table.contrast == WHOLE
    leading = table.contrast.isin([ALL, WHOLE])
    groups = (
        (table[~bad & ~leading], THEME.faint, "o", 3.4),
        (table[~bad & leading & ~whole], THEME.blue, "o", 3.4),
        (table[~bad & whole], THEME.blue, "s", 3.4),
        (table[bad], THEME.red, "X", 5.0),
    )
    for part, colour, marker, size in groups:
        axes.plot(*strokes(part.low, part.high, part["at"], part["at"]), color=colour, lw=1.0)
        axes.plot(part.rate, part["at"], marker, markersize=size, color=colour)
    ends = (table["at"] - 0.05, table["at"] + 0.05)
    axes.plot(*strokes(table.allowed, table.allowed, *ends), color=THEME.ink, lw=1.1)
    axes.set_xlim(-0.01, max(0.2, min(1.0, float(rates.high.max()) * 1.06)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f}%")


def _places(rates: pd.DataFrame, nulls: list[str]) -> pd.Series:
    """Height of each rate: its null's row, the rates of a null one below the other."""
    order = rates.groupby("null").cumcount()
    n = rates.groupby("null").null.transform("size")
    step = (0.68 / (n - 1).clip(lower=1)).clip(upper=0.2)
    return rates.null.map(nulls.index) + (order - (n - 1) / 2) * step


def power_curves(data: RunData) -> FigureSpec | None:
    """Share of planted effects that are found against their size."""
    power = data.rows("calibration/power")
    if power is None:
        return None
    chosen = [
        (str(contrast), name)
        for contrast in dict.fromkeys(power.contrast)
        for name in CRITERIA
        if ((power.contrast == contrast) & (power.measure == f"recall_{name}")).any()
    ]
    if not chosen:
        return None
    title = "Power: how many planted effects are found"
    caption = (
        "Effects of known size were added to data without any. Upright: the share of them that is "
        "found, with 95% limits over data sets; across: their size d_z. Each line is a size of the "
        "battery. Grey line: power .8."
    )

    def draw(*, narrow: bool) -> Figure:
        columns = min(2 if narrow else 3, len(chosen))
        lines = math.ceil(len(chosen) / columns)
        extra = 1.0 if narrow else 0.3
        figure = canvas(title, narrow=narrow, height=0.9 + 1.75 * lines + extra)
        grid = panels(figure, len(chosen), (lines, columns), sharex=True, sharey=True)
        most, names = grid[0], 0
        for axes, (contrast, name) in zip(grid, chosen):
            own = power[(power.contrast == contrast) & (power.measure == f"recall_{name}")]
            drawn = _power_panel(axes, own)
            what = f"{effect_in(contrast)}, {CRITERIA[name]}"
            axes.set_title(what, loc="left", fontsize=8.8, color=THEME.muted)
            most, names = (axes, drawn) if drawn > names else (most, names)
        for axes in grid[-columns:]:
            axes.set_xlabel("planted effect d_z", fontsize=8.8)
        legend(figure, most, narrow=narrow)
        return figure

    sets = int(power.n_sets.max())
    alt = f"Power curves in {len(chosen)} panels, {plural(sets, 'data set')} a point."
    return FigureSpec("calibration_power", title, caption, alt, draw)


def _power_panel(axes: Axes, own: pd.DataFrame) -> int:
    dress(axes)
    axes.axhline(POWER, color=THEME.faint, linewidth=1)
    names = 0
    for i, (name, part) in enumerate(sizes(own)):
        part = part.sort_values("d_z", kind="stable")
        colour = THEME.red if i == 0 else THEME.blue
        style = _STYLES[i % len(_STYLES)]
        if i == 0:
            axes.fill_between(part.d_z, part.low, part.high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(part.d_z, part.value, style, color=colour, marker="o", markersize=3, label=name)
        names += 1
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f}%")
    return names
