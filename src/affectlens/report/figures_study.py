"""Figures of the steering study: ranking of arms, and dose-response curves by emotion."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from affectlens.display.arms import STUDY_ARMS, in_order, study_arm
from affectlens.display.look import THEME, axis_label
from affectlens.display.words import number, plural

from .forest import mark
from .loading import RunData
from .theme import FigureSpec, canvas, dress, key, panels

RANKING, CURVES, CHOSEN = "steering/ranking", "steering/curves", "steering/chosen"
_CONTROL_WIDTH, _WIDTH = 0.9, 1.5


def study_figures(data: RunData) -> list[FigureSpec]:
    """Every figure of the section that the run has data for."""
    specs = (_ranking(data), _curves(data))
    return [spec for spec in specs if spec is not None]


def _ranking(data: RunData) -> FigureSpec | None:
    table = data.rows(RANKING)
    if table is None:
        return None
    table = table.sort_values("rank")
    n = int(table.n_scenarios.max())
    n_emotions = int(table.n_emotions.max())
    margin = data.study_summary.margin if data.study_summary else math.nan
    title = "Which way of steering works best?"
    caption = (
        f"Mean over {plural(n_emotions, 'emotion')} at the dose that each arm chose on other "
        f"scenarios; n = {plural(n, 'scenario')}. First: overall score, the harmonic mean of "
        "concept, coherence and staying on topic, with its 95% t interval over scenarios. "
        "Second: probability of the emotion, by a scorer that sees the text alone (mark of the "
        "arm), with the words that name an emotion taken out (tick), and the share of texts that "
        "name it (ring). Third: coherence minus that of the unedited model with its 90% interval; "
        f"dotted: the margin of equivalence (±{number(margin)}). Grey: controls. ‘Best random "
        "set’ is picked on these very scenarios, so it is too high."
    )

    def draw(*, narrow: bool) -> Figure:
        shape = (3, 1) if narrow else (1, 3)
        height = (1.5 if narrow else 1.1) + (0.24 * len(table) + 0.75) * (3 if narrow else 1)
        figure = canvas(title, narrow=narrow, height=height)
        grid = panels(figure, 3, shape, sharey=True)
        for axes, draw_one in zip(grid, (_overall, _concept, _coherence)):
            draw_one(axes, table)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(table) - 0.4, -0.6)
            axes.set_yticks(range(len(table)), [study_arm(a).label for a in table.arm])
        for edge in (-margin, margin):
            if math.isfinite(edge):
                grid[2].axvline(edge, color=THEME.muted, linestyle=":", linewidth=1)
        if not narrow:
            for axes in grid[1:]:
                axes.tick_params(axis="y", labelleft=False)
        grid[0].set_xlabel(f"0 to 1 (n = {plural(n, 'scenario')})", fontsize=8.5)
        _ranking_key(figure, narrow=narrow)
        return figure

    first = table.iloc[0]
    alt = f"{plural(len(table), 'arm')}; highest: {study_arm(str(first.arm)).label}."
    return FigureSpec("study_ranking", title, caption, alt, draw)


def _overall(axes: Axes, table: pd.DataFrame) -> None:
    dress(axes, subtitle="overall score", grid="x")
    for y, r in enumerate(table.itertuples()):
        arm = study_arm(str(r.arm))
        axes.hlines(y, r.overall_low, r.overall_high, color=arm.colour, linewidth=1.4)
        mark(axes, float(r.overall), y, arm)
    # Few scenes have no interval.
    largest = float(table[["overall", "overall_high"]].max(axis=None))
    axes.set_xlim(left=-0.04 * max(largest, 0.1))
    axes.set_xlabel("0 to 1", fontsize=8.5)


def _concept(axes: Axes, table: pd.DataFrame) -> None:
    dress(axes, subtitle="the emotion in the text", grid="x")
    for y, r in enumerate(table.itertuples()):
        arm = study_arm(str(r.arm))
        axes.plot([r.concept, r.concept_masked], [y, y], color=THEME.faint, linewidth=1.0, zorder=1)
        axes.plot([r.concept_masked], [y], "|", color=THEME.ink, markersize=8)
        axes.plot(
            [r.naming],
            [y],
            "o",
            color=THEME.muted,
            markersize=7.5,
            markerfacecolor="none",
            zorder=2,
        )
        mark(axes, float(r.concept), y, arm, size=4.4)
    axes.set_xlim(left=-0.02)
    axes.set_xlabel("probability or share", fontsize=8.5)


def _ranking_key(figure: Figure, *, narrow: bool) -> None:
    """What the marks of the second panel stand for, and the lines."""
    plain: dict[str, Any] = {"color": THEME.muted, "linestyle": "none"}
    ring = Line2D([], [], marker="o", markerfacecolor="none", markersize=7.5, **plain)
    tick = Line2D([], [], marker="|", markersize=8, **(plain | {"color": THEME.ink}))
    line = Line2D([], [], color=THEME.muted, linewidth=1.4)
    labels = ["probability without emotion words", "share that names the emotion", "interval"]
    key(figure, [tick, ring, line], labels, columns=1 if narrow else 3)


def _coherence(axes: Axes, table: pd.DataFrame) -> None:
    dress(axes, subtitle="coherence against unedited", grid="x")
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    for y, r in enumerate(table.itertuples()):
        arm = study_arm(str(r.arm))
        ends = (r.coherence_change_low, r.coherence_change_high)
        axes.hlines(y, *ends, color=arm.colour, linewidth=1.4)
        mark(axes, float(r.coherence_change), y, arm)
    axes.set_xlabel("change, 0 to 1 scale", fontsize=8.5)


def _curves(data: RunData) -> FigureSpec | None:
    table, chosen = data.rows(CURVES), data.rows(CHOSEN)
    if table is None or chosen is None:
        return None
    single = chosen[chosen.arm != "random"]
    doses = {(str(r.emotion), str(r.arm)): float(r.dose) for r in single.itertuples()}
    own = table[table.half == "report"]
    # Random sets stand for chance together: their mean at each dose.
    scores = ["concept", "coherence"]
    own = own.groupby(["emotion", "arm", "dose"], sort=False)[[*scores, "n_texts"]].mean()
    own = own.reset_index()
    emotions = list(dict.fromkeys(own.emotion.astype(str)))
    arms = in_order(own.arm, STUDY_ARMS)
    if not emotions:
        return None
    n = round(float(own.n_texts.max()))
    unit = _unit(data)
    title = "The emotion gained and the coherence lost, dose by dose"
    caption = (
        "Each line is one arm from the weakest dose (small dot) to the strongest (large mark), "
        f"{unit}; dot between: the dose it chose. Up: more of the emotion, by a scorer that sees "
        "the text alone. Right: as coherent as unedited text. The cross: the unedited model. The "
        "best arm goes up without going left. Grey and thin: controls (random latents are the mean "
        "of their sets). Prompts "
        f"have no dose and are single marks. n = {plural(n, 'scenario')} a mark, none of which "
        "chose a dose; intervals are in steering/curves.csv."
    )

    def draw(*, narrow: bool) -> Figure:
        columns = min(len(emotions), 2 if narrow else 4)
        lines = math.ceil(len(emotions) / columns)
        keys = math.ceil(len(arms) / (2 if narrow else 4))
        figure = canvas(title, narrow=narrow, height=1.0 + 1.9 * lines + 0.2 * keys)
        grid = panels(figure, len(emotions), (lines, columns), sharex=True, sharey=True)
        for axes, emotion in zip(grid, emotions):
            dress(axes, subtitle=f"{axis_label(emotion)} (n = {n})")
            for arm in reversed(arms):
                part = own[(own.emotion == emotion) & (own.arm == arm)]
                _path(axes, part, arm, doses.get((emotion, arm)))
        for i, axes in enumerate(grid):
            axes.tick_params(labelbottom=i + columns >= len(emotions), labelleft=not i % columns)
            if i + columns >= len(emotions):
                axes.set_xlabel("coherence", fontsize=8.5)
            if not i % columns:
                axes.set_ylabel("P(emotion)", fontsize=8.5)
        _key(figure, arms, narrow=narrow)
        return figure

    alt = f"Dose-response of {plural(len(arms), 'arm')} for {plural(len(emotions), 'emotion')}."
    return FigureSpec("study_curves", title, caption, alt, draw)


def _unit(data: RunData) -> str:
    settings = data.study_summary.settings if data.study_summary else {}
    doses = settings.get("doses")
    listed = ", ".join(f"{d:g}" for d in doses) if isinstance(doses, list | tuple) else ""
    return f"doses {listed} {dose_unit(data)}".strip() if listed else "doses as in the tables"


def dose_unit(data: RunData) -> str:
    """What a dose of 1 is, in words; '' where the study does not say."""
    settings = data.study_summary.settings if data.study_summary else {}
    return {
        "residual_norm": "times the residual’s norm",
        "max_activation": "times each latent’s maximum",
        "max_activation_floor": "times each latent’s maximum, as a floor",
    }.get(str(settings.get("dose_unit")), "")


def _path(axes: Axes, part: pd.DataFrame, name: str, chosen: float | None) -> None:
    if part.empty:
        return
    arm, part = study_arm(name), part.sort_values("dose")
    control = arm.family == "chance"
    colour = THEME.faint if control and name != "unedited" else arm.colour
    if len(part) > 1:
        width = _CONTROL_WIDTH if control else _WIDTH
        axes.plot(
            part.coherence, part.concept, color=colour, linewidth=width, zorder=1 if control else 2
        )
        first = part.iloc[0]
        axes.plot([first.coherence], [first.concept], "o", color=colour, markersize=2.6, zorder=3)
        at = part[part.dose == chosen]
        axes.plot(at.coherence, at.concept, "o", color=colour, markersize=4.2, zorder=4)
    last = part.iloc[-1]
    size = 7.0 if name == "unedited" else 5.4
    mark(axes, float(last.coherence), float(last.concept), arm, size=size)


def _key(figure: Figure, arms: list[str], *, narrow: bool) -> None:
    handles = []
    for name in arms:
        arm = study_arm(name)
        colour = arm.colour
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                marker=arm.marker,
                linestyle="none",
                markersize=5.4,
                markerfacecolor=colour if arm.filled else THEME.paper,
            )
        )
    key(figure, handles, [study_arm(a).label for a in arms], columns=2 if narrow else 4)
