"""Figures of the interventions: chosen features beside their controls, doses, whose readout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .arms import EFFECT_ARMS, TITLES, effect_arm, in_order
from .look import THEME, axes_of, axis_label, dress, key_below, row_labels, styled
from .maps import heat_map
from .words import number, plural, probability, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAXIMA = " (times each latent’s maximum on held-out text)"
_DOSES = {
    "clamp": _MAXIMA,
    "min_clamp": _MAXIMA,
    "add": " (times the residual’s norm)",
    "scale": " (factor)",
}
_READOUT = "change of the emotion’s own readout (nats)"


@styled
def forest(
    table: pd.DataFrame, verdicts: pd.DataFrame, *, intervention: str, ax: Axes | None = None
) -> Axes:
    """Effect of the chosen features on each emotion's readout, with every control.

    Args:
        table: effects of one intervention at the reported dose (columns emotion, arm, effect and
            its bounds).
        verdicts: verdicts of it (columns emotion, direction, beats_random, n_items, n_random).
        intervention: its name.
        ax: axes to draw on; None makes a figure.
    """
    emotions = list(dict.fromkeys(verdicts.emotion.astype(str)))
    place = {emotion: i for i, emotion in enumerate(emotions)}
    table = table[table.emotion.isin(emotions) & (table.arm != "no_edit")]
    axes = axes_of(ax, (7.0, 2.2 + 0.32 * len(emotions)))
    higher = len(verdicts) > 0 and verdicts.direction.iloc[0] == "raise"
    n = int(verdicts.n_items.max()) if len(verdicts) else 0
    sets = int(verdicts.n_random.max()) if len(verdicts) else 0
    dress(
        axes,
        f"Effect on the emotional readout: {TITLES.get(intervention, intervention)}",
        f"n ≤ {n} texts, confirmation part; line: 95% interval over scene groups; band: "
        f"{plural(sets, 'random set')} of equal norm; predicted: "
        f"{'higher →' if higher else '← lower'}",
        x=_READOUT,
        grid="x",
    )
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    random = table[table.arm == "random"].groupby("emotion", sort=False).effect.agg(["min", "max"])
    axes.hlines(
        [place[str(e)] for e in random.index], random["min"], random["max"], color=THEME.faint,
        alpha=0.5, linewidth=8, label=f"random features, {sets} sets",
    )  # fmt: skip
    for name in in_order(table.arm, EFFECT_ARMS):
        if name in ("random", "chosen"):
            continue
        arm, own = effect_arm(name), table[table.arm == name]
        mean = own.groupby("emotion", sort=False).effect.mean()
        axes.plot(mean, [place[str(e)] for e in mean.index], arm.marker, color=arm.colour,
                  markersize=5, markeredgewidth=1.1, linestyle="none", label=arm.label,
                  markerfacecolor=arm.colour if arm.filled else "none")  # fmt: skip
    chosen = table[table.arm == "chosen"]
    beats = dict(zip(verdicts.emotion.astype(str), verdicts.beats_random, strict=True))
    rows = np.array([place[str(e)] for e in chosen.emotion])
    axes.hlines(rows, chosen.effect_low, chosen.effect_high, color=THEME.red, linewidth=1.6)
    passed = np.array([bool(beats[str(e)]) for e in chosen.emotion], dtype=bool)
    for state, said in ((True, "chosen, beats random"), (False, "chosen, does not")):
        axes.scatter(chosen.effect[passed == state], rows[passed == state], s=36, zorder=5,
                     edgecolors=THEME.red, linewidths=1.4, label=said,
                     facecolors=THEME.red if state else THEME.paper)  # fmt: skip
    row_labels(axes, emotions)
    key_below(axes, 3)
    return axes


@styled
def doses(table: pd.DataFrame, *, intervention: str, n_texts: int, ax: Axes | None = None) -> Axes:
    """Effect on each emotion's readout dose by dose, chosen features and random sets.

    Args:
        table: columns emotion, strength, effect, random_mean, reported of one intervention.
        intervention: its name.
        n_texts: the most texts behind a mark.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (6.8, 4.4))
    emotions = list(dict.fromkeys(table.emotion.astype(str)))
    steps = sorted(table.strength.unique())
    dress(
        axes,
        f"Dose and effect: {TITLES.get(intervention, intervention)}",
        f"n ≤ {n_texts} texts a mark, {plural(len(steps), 'dose')}, confirmation part; "
        "grey: mean of the random sets (control); filled: reported dose",
        x=f"dose{_DOSES.get(intervention, '')}",
        y=_READOUT,
    )
    axes.axhline(0, color=THEME.muted, linewidth=0.9)
    for emotion in emotions:
        own = table[table.emotion == emotion].sort_values("strength")
        axes.plot(own.strength, own.random_mean, color=THEME.faint, linewidth=1, marker="_")
        axes.plot(own.strength, own.effect, color=THEME.red, linewidth=1.2, alpha=0.85)
        for state in (True, False):
            part = own[own.reported.astype(bool) == state]
            axes.scatter(part.strength, part.effect, s=22, edgecolors=THEME.red, zorder=3,
                         facecolors=THEME.red if state else THEME.paper)  # fmt: skip
    _end_labels(axes, table, emotions)
    if steps:
        room = max(max(steps) - min(steps), 0.5)
        axes.set_xlim(min(steps) - 0.1 * room, max(steps) + 0.45 * room)
        axes.set_xticks(steps, [f"{s:g}" for s in steps])
    return axes


def _end_labels(axes: Axes, table: pd.DataFrame, emotions: list[str]) -> None:
    """Each line's name at its end, moved apart where ends lie close."""
    ends = [table[table.emotion == e].sort_values("strength").iloc[-1] for e in emotions]
    order = sorted(range(len(ends)), key=lambda i: float(ends[i].effect))
    values = table[["effect", "random_mean"]].to_numpy(dtype=float)
    least = 0.052 * float(np.nanmax(values, initial=0) - np.nanmin(values, initial=0))
    height = -np.inf
    for i in order:
        height = max(float(ends[i].effect), height + least)
        name = f"   {axis_label(emotions[i])}"
        axes.text(float(ends[i].strength), height, name, va="center", fontsize=8, color=THEME.ink)


@styled
def matrix(table: pd.DataFrame, *, intervention: str, alpha: float, ax: Axes | None = None) -> Axes:
    """Edited against read emotions: do features move their own emotion's readout most?

    Args:
        table: rows of one intervention, columns edited, read, effect, p_holm, n_clusters,
            diagonal_dominance, p_diagonal.
        intervention: its name.
        alpha: level of the dots.
        ax: axes to draw on; None makes a figure.
    """
    emotions = list(dict.fromkeys(table.edited.astype(str)))
    axes = axes_of(ax, (6.6, 2.4 + 0.38 * len(emotions)))
    wide = table.pivot_table(
        index="edited", columns="read", values=["effect", "p_holm"], sort=False
    )
    grid, p = (
        wide[c].reindex(index=emotions, columns=emotions).to_numpy(dtype=float)
        for c in ("effect", "p_holm")
    )
    largest = float(np.nanmax(np.abs(grid), initial=0.0))
    own, p_own = float(table.diagonal_dominance.iloc[0]), float(table.p_diagonal.iloc[0])
    dress(
        axes,
        f"Whose readout moves? {TITLES.get(intervention, intervention)}",
        f"mean effect (nats); n = {span(table.n_clusters.min(), table.n_clusters.max())} "
        f"scene groups a cell; own minus others {number(own, sign=True)} nats, "
        f"p = {probability(p_own)}; framed: own; dot: p ≤ {alpha:g} (Holm); control: the rest",
        x="readout measured",
        y="features edited",
        grid="",
    )
    heat_map(
        axes,
        grid / largest if largest else grid,
        emotions,
        emotions,
        values=grid,
        digits=1 if largest >= 0.95 else 2,
        framed={(i, i) for i in range(len(emotions))},
        dotted={(int(y), int(x)) for y, x in np.argwhere(p <= alpha)},
    )
    return axes
