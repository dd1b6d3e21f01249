"""Figures of the steering study: emotion gained against coherence kept, and dose by dose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .arms import CHANCE, STUDY_ARMS, in_order, study_arm
from .look import THEME, axes_of, dress, key_below, styled
from .words import contrast_label, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def tradeoff(ranking: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Every arm at its chosen dose: probability of the emotion against coherence.

    Args:
        ranking: columns arm, concept, coherence, n_scenarios, n_emotions.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (6.4, 5.0))
    n = int(ranking.n_scenarios.max()) if len(ranking) else 0
    emotions = int(ranking.n_emotions.max()) if len(ranking) else 0
    dress(
        axes,
        "The emotion gained, the coherence kept",
        f"mean over {plural(emotions, 'emotion')}, n = {plural(n, 'scenario')} each, at the dose "
        "chosen on others; intervals: study.ranking; controls: grey",
        x="coherence, 0 to 1 (right: as fluent as unedited)",
        y="probability of the emotion, 0 to 1",
    )
    for name in in_order(ranking.arm, STUDY_ARMS):
        arm, own = study_arm(name), ranking[ranking.arm == name]
        _mark(
            axes, own.coherence, own.concept, arm.marker, arm.colour, arm.label, filled=arm.filled
        )
    key_below(axes, 3)
    return axes


def _mark(
    axes: Axes, x: pd.Series, y: pd.Series, marker: str, colour: str, name: str, *, filled: bool
) -> None:
    axes.plot(x, y, marker, color=colour, markersize=7, markeredgewidth=1.4, linestyle="none",
              markerfacecolor=colour if filled else "none", label=name, zorder=3)  # fmt: skip


@styled
def doses(
    curves: pd.DataFrame, *, emotion: str, score: str, unit: str, ax: Axes | None = None
) -> Axes:
    """A score dose by dose, every arm that has doses, with intervals where there is one set.

    Args:
        curves: rows of the report half, columns emotion, arm, dose, n_texts, `score` and, if
            known, its bounds.
        emotion: emotion steered to; 'all' for the mean over emotions.
        score: 'overall', 'concept', 'coherence', 'on_topic', ...
        unit: of a dose, in words.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (6.6, 4.6))
    own = curves if emotion == "all" else curves[curves.emotion == emotion]
    bounds = [c for c in (f"{score}_low", f"{score}_high") if c in own]
    sizes = own.groupby(["arm", "dose"]).size() if len(own) else pd.Series(dtype=int)
    means = own.groupby(["arm", "dose"])[[score, *bounds]].mean().reset_index()
    n = int(own.n_texts.max()) if len(own) else 0
    line = "line: 95% interval over scenarios; " if emotion != "all" and len(bounds) == 2 else ""
    who = (
        f"mean over {own.emotion.nunique()} emotions"
        if emotion == "all"
        else contrast_label(emotion)
    )
    dress(
        axes,
        f"Dose by dose: {score}, {who}",
        f"n = {plural(n, 'scenario')} a mark, none of which chose a dose; {line}grey: controls",
        x=f"dose {unit}".strip(),
        y=f"{score}, 0 to 1",
    )
    steps = sorted(d for d in means.dose.unique() if d > 0)
    for i, name in enumerate(in_order(means.arm, STUDY_ARMS)):
        arm, part = study_arm(name), means[means.arm == name]
        if part.dose.max() <= 0:
            style = "--" if arm.family == CHANCE else ":"
            axes.axhline(float(part[score].iloc[0]), color=arm.colour, linewidth=1,
                         linestyle=style, label=f"{arm.label} (no dose)")  # fmt: skip
            continue
        at = part.dose + (i - 4) * 0.004 * (steps[-1] if steps else 1)
        axes.plot(at, part[score], arm.marker, color=arm.colour, markersize=5.5, linestyle="-",
                  linewidth=0.9 if arm.family == CHANCE else 1.5, markeredgewidth=1.2,
                  label=arm.label,
                  markerfacecolor=arm.colour if arm.filled else THEME.paper)  # fmt: skip
        if line and int(sizes[name].max()) == 1:
            axes.vlines(at, part[bounds[0]], part[bounds[1]], color=arm.colour, linewidth=0.9)
    axes.set_xticks(steps, [f"{s:g}" for s in steps])
    axes.set_ylim(bottom=0)
    key_below(axes, 3)
    return axes
