"""Emotion × emotion: do one emotion's features move its own readout more than the others'?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from affectlens.display.arms import TITLES
from affectlens.display.look import THEME, axis_label
from affectlens.display.maps import tint_cells
from affectlens.display.words import contrast_label, number, plural, probability

from .loading import ALPHA, RunData
from .theme import FigureSpec, canvas, dress

MATRIX = "effects/matrix"


def matrix_figure(data: RunData) -> FigureSpec | None:
    """One heat map for each intervention; None where no matrix was made."""
    table = data.rows(MATRIX)
    if table is None:
        return None
    names = list(dict.fromkeys(table.intervention.astype(str)))
    emotions = list(dict.fromkeys(table.edited.astype(str)))
    alpha = _alpha(data)
    title = "Whose readout do an emotion’s features move?"
    clusters = [f"{int(n)}" for n in (table.n_clusters.min(), table.n_clusters.max())]
    caption = (
        "Rows: the emotion whose features were edited. Columns: the emotion whose readout was "
        "measured. Number and colour: mean effect in nats (vermilion raises, blue lowers), colours "
        "scaled to each map’s largest. Framed: own emotion. Dot: p ≤ "
        f"{alpha:g} in the predicted direction after Holm over the map’s cells. Texts: emotional "
        "ones of the emotion read where effects lower, all neutral ones where they raise "
        f"({' to '.join(dict.fromkeys(clusters))} scene groups a cell). Control: the cells off the "
        "diagonal."
    )

    def draw(*, narrow: bool) -> Figure:
        lines = len(names) if narrow else (len(names) + 1) // 2
        columns = 1 if narrow else min(2, len(names))
        figure = canvas(title, narrow=narrow, height=0.9 + 3.3 * lines)
        axes = figure.subplots(lines, columns, squeeze=False).flat
        for place, name in zip(axes, names):
            _map(place, table[table.intervention == name], emotions, alpha)
        for empty in list(axes):
            empty.set_visible(False)
        return figure

    alt = " ".join(matrix_lines(data))
    return FigureSpec("effect_matrix", title, caption, alt, draw)


def matrix_lines(data: RunData) -> list[str]:
    """A sentence an intervention: diagonal dominance, its p, and what that shows."""
    table = data.rows(MATRIX)
    if table is None:
        return []
    return [
        _line(str(name), part, _alpha(data))
        for name, part in table.groupby("intervention", sort=False)
    ]


def _line(name: str, part: pd.DataFrame, alpha: float) -> str:
    value, p = float(part.diagonal_dominance.iloc[0]), float(part.p_diagonal.iloc[0])
    own = part[part.edited == part.read]
    passed = [contrast_label(str(e)) for e in own.loc[own.p_holm <= alpha, "edited"]]
    matched = p <= alpha and value > 0
    silent = " Features that fire on texts of their own emotion alone can give this by themselves."
    return (
        f"With {TITLES.get(name, name)}, features move their own emotion’s readout by "
        f"{number(value, sign=True)} nats more than the others’ in the predicted direction "
        f"(mean on the diagonal minus mean off it): edits and readouts are "
        f"{'matched better than' if matched else 'not shown to be matched better than'} by "
        f"exchanging them (p = {probability(p)}; about the assignment as a whole, neither about "
        f"other scenes nor about any one emotion).{silent * name.startswith('ablate')} "
        f"{plural(len(passed), 'cell')} of {len(own)} on the diagonal "
        f"{'passes' if len(passed) == 1 else 'pass'} after correction."
    )


def _alpha(data: RunData) -> float:
    return ALPHA if data.effects_summary is None else data.effects_summary.alpha


def _grid(part: pd.DataFrame, column: str, emotions: Sequence[str]) -> npt.NDArray[np.float64]:
    wide = part.pivot_table(index="edited", columns="read", values=column, sort=False)
    return np.asarray(wide.reindex(index=emotions, columns=emotions), dtype=float)


def _map(axes: Axes, part: pd.DataFrame, emotions: Sequence[str], alpha: float) -> None:
    name = str(part.intervention.iloc[0])
    value, p = float(part.diagonal_dominance.iloc[0]), float(part.p_diagonal.iloc[0])
    subtitle = f"{TITLES.get(name, name)}\nown minus others {number(value, sign=True)} nats"
    dress(axes, subtitle=f"{subtitle}, p = {probability(p)}", grid="")
    grid, p_holm = _grid(part, "effect", emotions), _grid(part, "p_holm", emotions)
    largest = float(np.nanmax(np.abs(grid))) if np.isfinite(grid).any() else 0.0
    scaled = grid / largest if largest else grid
    tint_cells(axes, scaled)
    digits = 1 if largest >= 0.95 else 2
    for (y, x), effect in np.ndenumerate(grid):
        if not np.isfinite(effect):
            continue
        shown = number(float(effect), digits)
        axes.text(x, y, shown, ha="center", va="center", fontsize=6.8, color=THEME.ink)
        if p_holm[y, x] <= alpha:
            axes.plot(x + 0.36, y - 0.3, "o", markersize=3, color=THEME.ink)
    for i in range(len(emotions)):
        frame = Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=THEME.ink, lw=1.3)
        axes.add_patch(frame)
    labels = [axis_label(e) for e in emotions]
    axes.set_xticks(range(len(emotions)), labels, rotation=90)
    axes.set_yticks(range(len(emotions)), labels)
    axes.set_xlabel("readout measured", fontsize=8.5)
    axes.set_ylabel("features edited", fontsize=8.5)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
