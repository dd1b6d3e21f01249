"""Overview of the interventions: the chosen features beside random ones and a simpler method."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.arms import TITLES
from affectlens.display.look import THEME, axis_label
from affectlens.display.words import plural

from .loading import RunData
from .readout_check import doubtful_readouts
from .theme import FigureSpec, canvas, dress, legend, panels, strokes

_ROW_INCHES = 0.27


def forest(data: RunData) -> FigureSpec | None:
    """Effect on each emotion's readout, one panel per intervention."""
    effects, verdicts = data.effects, data.verdicts
    if effects is None or verdicts is None or effects.empty or verdicts.empty:
        return None
    table = at_reported_strength(data)
    names = list(dict.fromkeys(verdicts.intervention))
    emotions = list(dict.fromkeys(verdicts.emotion))
    n_random, n_items = int(verdicts.n_random.max()), int(verdicts.n_items.max())
    doubtful = set(doubtful_readouts(data))
    title = "What editing the features does to the model’s emotional output"
    caption = (
        "Dot and line: effect of the chosen features with its 95% interval over groups of scenes "
        "(none below five groups); filled if it passes "
        f"the test against random sets. Grey band: range of {plural(n_random, 'random set')} of "
        f"features with the "
        "same firing rate and the same size of change. A chosen dot inside the grey band shows "
        "nothing. The arrow gives the "
        "side predicted before the test. 0.7 nats is a doubling or halving of the words’ "
        "relative probability."
        + (
            " † the readout check failed for this emotion: do not read its effects."
            if doubtful & set(emotions)
            else ""
        )
    )

    def draw(*, narrow: bool) -> Figure:
        columns = 1 if narrow else (2 if len(names) in (2, 4) else min(3, len(names)))
        lines = math.ceil(len(names) / columns)
        height = 1.6 + lines * (0.75 + _ROW_INCHES * len(emotions)) + (0.8 if narrow else 0)
        figure = canvas(title, narrow=narrow, height=height)
        grid = panels(figure, len(names), (lines, columns), sharey=True)
        for axes, name in zip(grid, names):
            _panel(
                axes,
                table[table.intervention == name],
                verdicts[verdicts.intervention == name],
                emotions,
            )
        labels = [axis_label(e) + (" †" if e in doubtful else "") for e in emotions]
        grid[0].set_yticks(range(len(emotions)), labels)
        grid[0].set_ylim(len(emotions) - 0.4, -0.6)
        for axes in grid[-columns:]:
            axes.set_xlabel("change of the readout (nats)", fontsize=8.8)
        legend(figure, grid[0], narrow=narrow)
        return figure

    alt = f"Forest plot, {len(names)} interventions, {len(emotions)} emotions, n = {n_items} texts."
    return FigureSpec("effects", title, caption, alt, draw)


def at_reported_strength(data: RunData) -> pd.DataFrame:
    """Effects of edits at the doses that the verdicts speak of."""
    assert data.effects is not None  # the caller checked
    return data.effects[data.effects.reported.astype(bool) & (data.effects.arm != "no_edit")]


def _panel(axes: Axes, table: pd.DataFrame, verdicts: pd.DataFrame, emotions: list[str]) -> None:
    direction = str(verdicts.direction.iloc[0])
    arrow = "← predicted: lower" if direction == "lower" else "predicted: higher →"
    name = str(verdicts.intervention.iloc[0])
    n_items = int(verdicts.n_items.max())
    dress(axes, subtitle=f"{TITLES.get(name, name)} (n = {n_items})\n{arrow}", grid="x")
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    axes.tick_params(axis="y", length=0)
    rank = {emotion: i for i, emotion in enumerate(emotions)}
    _random_band(axes, table[table.arm == "random"], rank)
    for arm, marker, colour, label in (
        ("random_direction", "x", THEME.muted, "random direction"),
        ("diff_of_means", "s", THEME.blue, "difference of means (simpler method)"),
    ):
        part = table[table.arm == arm]
        if not part.empty:
            axes.scatter(
                part.effect,
                [rank[e] for e in part.emotion],
                s=22,
                marker=marker,
                facecolors=colour if marker == "x" else "none",
                edgecolors=None if marker == "x" else colour,
                linewidths=1.1,
                label=label,
                zorder=3,
            )
    _chosen(axes, table[table.arm == "chosen"], verdicts, rank)


def _random_band(axes: Axes, part: pd.DataFrame, rank: dict[str, int]) -> None:
    if part.empty:
        return
    spans = part.groupby("emotion", sort=False).effect.agg(["min", "max"])
    ys = [rank[str(e)] for e in spans.index]
    axes.hlines(
        ys,
        spans["min"],
        spans["max"],
        color=THEME.grid,
        linewidth=9,
        zorder=1,
        label="random features",
    )
    x, y = part.effect, part.emotion.map(rank)
    axes.plot(
        *strokes(x, x, y - 0.16, y + 0.16),
        color=THEME.faint,
        linewidth=0.8,
        zorder=2,
    )


def _chosen(axes: Axes, part: pd.DataFrame, verdicts: pd.DataFrame, rank: dict[str, int]) -> None:
    passed = dict(zip(verdicts.emotion, verdicts.beats_random))
    ys = [rank[e] for e in part.emotion]
    axes.hlines(ys, part.effect_low, part.effect_high, color=THEME.red, linewidth=1.6, zorder=4)
    for state, label in ((True, "chosen, passes"), (False, "chosen, does not pass")):
        rows = part[[bool(passed.get(e)) is state for e in part.emotion]]
        axes.scatter(
            rows.effect,
            [rank[e] for e in rows.emotion],
            s=36,
            zorder=5,
            linewidths=1.4,
            edgecolors=THEME.red,
            facecolors=THEME.red if state else THEME.paper,
            label=label,
        )
