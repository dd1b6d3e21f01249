"""Forest plots of every arm: one figure an intervention, one panel an emotion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.arms import EFFECT_ARMS, TITLES, effect_arm, in_order
from affectlens.display.look import THEME, axis_label
from affectlens.display.words import plural

from .forest import Point, draw_points, reach
from .loading import RunData
from .readout_check import doubtful_readouts
from .theme import FigureSpec, canvas, dress, panels

_ROW_INCHES = 0.185
_ERROR = ("splice", "chosen_no_error", "error_only", "chosen_error_only")
_EDITS = ("SAE", "chance", "without the SAE")
"""Families of equal norm, which set the width of the axis."""
_SETS = 3
"""Sets from which on an arm is drawn as a band."""


def arm_figures(data: RunData) -> list[FigureSpec]:
    """One figure for each intervention, in the order of the run."""
    table = data.rows("effects/effects")
    if table is None:
        return []
    own = table[table.reported.astype(bool)]
    names = list(dict.fromkeys(own.intervention.astype(str)))
    return [_figure(data, name, own[own.intervention == name]) for name in names]


def figure_name(intervention: str) -> str:
    """Name of an intervention's figure."""
    return f"arms_{intervention}"


def _figure(data: RunData, name: str, table: pd.DataFrame) -> FigureSpec:
    emotions = list(dict.fromkeys(table.emotion.astype(str)))
    arms = in_order(table.arm, EFFECT_ARMS)
    points = {e: _points(table[table.emotion == e], arms) for e in emotions}
    doubtful = set(doubtful_readouts(data))
    sign = _predicted(data, name)
    what = TITLES.get(name, name)
    title = f"Every arm: {what}"
    caption = _caption(table, arms) + (
        " † the readout check failed for this emotion." if doubtful & set(emotions) else ""
    )

    def draw(*, narrow: bool) -> Figure:
        columns = min(len(emotions), 2 if narrow else 4)
        lines = math.ceil(len(emotions) / columns)
        height = 1.25 + lines * (0.5 + _ROW_INCHES * len(arms))
        figure = canvas(title, narrow=narrow, height=height)
        limit = reach([p for own in points.values() for p in own if p.arm.family in _EDITS])
        grid = panels(figure, len(emotions), (lines, columns), sharey=True)
        for axes, emotion in zip(grid, emotions):
            n = int(table.loc[table.emotion == emotion, "n_items"].max())
            label = axis_label(emotion) + (" †" if emotion in doubtful else "")
            _panel(axes, points[emotion], limit, f"{label} (n = {n})")
        grid[0].set_yticks(range(len(arms)), [effect_arm(a).label for a in arms])
        grid[0].set_ylim(len(arms) - 0.4, -0.7)
        side = {1: ", predicted: right", -1: ", predicted: left"}.get(sign, "")
        key = "line: 95% interval; grey band: range of the sets"
        if doubtful & set(emotions):
            key += ("\n" if narrow else "; ") + "†: the readout check failed"
        figure.supxlabel(
            f"change of the emotion’s own readout (nats{side})\n{key}",
            fontsize=8.8,
            color=THEME.muted,
        )
        return figure

    alt = f"Effects of {plural(len(arms), 'arm')} for {plural(len(emotions), 'emotion')}."
    return FigureSpec(figure_name(name), title, caption, alt, draw)


def _caption(table: pd.DataFrame, arms: Sequence[str]) -> str:
    counts = table.groupby(["emotion", "arm"]).size().groupby("arm").max()
    bands = [f"{effect_arm(a).label} ({int(counts[a])} sets)" for a in arms if counts[a] >= _SETS]
    said = "n: texts of the scenes kept aside. Line: 95% t interval over scene groups. "
    if bands:
        said += f"Grey band: smallest to largest of {', '.join(bands)}; its mark is their mean. "
    said += "‘No edit’ is 0 by definition. An arrow with a number lies outside the axis. "
    if set(arms) & set(_ERROR):
        said += (
            "‘SAE in place’: the SAE’s reconstruction replaces the stream, without and with the "
            "edit. ‘SAE error’: all features are gone and only what the SAE misses is left. "
        )
    if "prompt" in arms:
        said += "Prompts put a sentence before the text and write nothing into the model. "
    return said + "All other arms write the same total norm as the chosen features."


def _predicted(data: RunData, name: str) -> int:
    """+1 where the readout was predicted to rise, -1 to fall, 0 where the run does not say."""
    if data.verdicts is None:
        return 0
    own = data.verdicts[data.verdicts.intervention == name]
    return 0 if own.empty else 1 if str(own.direction.iloc[0]) == "raise" else -1


def _points(table: pd.DataFrame, arms: Sequence[str]) -> list[Point]:
    out = []
    for y, name in enumerate(arms):
        own = table[table.arm == name]
        if own.empty:
            continue
        style, mean = effect_arm(name), float(own.effect.mean())
        if len(own) >= _SETS:
            band = (float(own.effect.min()), float(own.effect.max()))
            out.append(Point(y, mean, math.nan, math.nan, style, band))
        else:
            out += [
                Point(y, float(r.effect), float(r.effect_low), float(r.effect_high), style)
                for r in own.itertuples()
            ]
    return out


def _panel(axes: Axes, points: Sequence[Point], limit: float, subtitle: str) -> None:
    dress(axes, subtitle=subtitle, grid="x")
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    axes.tick_params(axis="y", length=0)
    draw_points(axes, points, (-limit, limit))
