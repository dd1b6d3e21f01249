"""How much of each confirmed effect the words carry: kept under shuffling, and predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.look import THEME, axis_label
from affectlens.display.words import ALL, count, plural

from .classes import CONTROLS, KINDS, named
from .loading import RunData
from .theme import FigureSpec, canvas, dress, legend

ROWS_SHOWN = 30
LOW, HIGH = -0.75, 1.75
_ROW_INCHES = 0.22
_MARKERS = {"contextual": "o", "mixed": "s", "lexical": "D"}


def lexical_figure(data: RunData) -> FigureSpec | None:
    """Share of the effect that words carry, two ways; None without a confirmed feature."""
    table = data.table(CONTROLS)
    if table is None:
        return None
    rows, n_hidden = _rows(named(table))
    if rows.empty or not np.isfinite(rows[["kept", "predicted"]].to_numpy(dtype=float)).any():
        return None
    title = "How much of each confirmed effect do the words carry?"
    n_pairs = int(table["n_pairs"].max())
    caption = (
        "Left: share of the effect that is left when the words of every text are shuffled. Right: "
        "share that a regression on words, fitted on other text, predicts. At 0 words carry "
        "nothing, at 1 everything; from the dotted line on, most. Lines: 95% intervals from "
        "resampling scene groups; a line that spans both sides says that the data cannot tell. "
        "A triangle at the edge: the value lies beyond."
        + (f" {plural(n_hidden, 'more feature')} in search/controls.csv." if n_hidden else "")
    )

    def draw(*, narrow: bool) -> Figure:
        height = 1.75 + _ROW_INCHES * len(rows)
        figure = canvas(title, narrow=narrow, height=2 * height - 0.6 if narrow else height)
        shape = (2, 1) if narrow else (1, 2)
        left, right = figure.subplots(*shape, sharey=True)
        end = "\n" if narrow else " "
        _panel(left, rows, "kept", f"kept when words are shuffled{end}(n ≤ {n_pairs} pairs)")
        _panel(right, rows, "predicted", "predicted from words")
        labels = [f"{axis_label(c)} · {f}" for c, f in zip(rows.contrast, rows.feature)]
        left.set_yticks(range(len(rows)), labels)
        left.set_ylim(len(rows) - 0.4, -0.6)
        for axes in (left, right):
            axes.set_xlabel("share of the effect", fontsize=8.8)
        legend(figure, left, narrow=narrow)
        return figure

    kinds = ", ".join(f"{count(int((rows.kind == k).sum()))} {k}" for k in _MARKERS)
    alt = f"Two panels of {len(rows)} features with intervals: {kinds}."
    return FigureSpec("lexical", title, caption, alt, draw)


def _rows(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Confirmed features, 'all' first, by class and share kept; how many are not shown."""
    rows = table[table["confirmed"]].copy()
    order = {kind: i for i, kind in enumerate(KINDS)}
    rows["group"] = rows["contrast"] != ALL
    rows["order"] = rows["kind"].map(order)
    rows = rows.sort_values(["group", "order", "kept", "feature"], kind="stable")
    return rows.head(ROWS_SHOWN).reset_index(drop=True), max(0, len(rows) - ROWS_SHOWN)


def _panel(axes: Axes, rows: pd.DataFrame, name: str, subtitle: str) -> None:
    dress(axes, subtitle=subtitle, grid="x")
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    axes.axvline(1, color=THEME.muted, linewidth=0.9, linestyle="--")
    axes.axvline(0.5, color=THEME.muted, linewidth=0.9, linestyle=":")
    axes.tick_params(axis="y", length=0)
    colours = {"contextual": THEME.blue, "mixed": THEME.muted, "lexical": THEME.red}
    for kind, marker in _MARKERS.items():
        part = rows[rows["kind"] == kind]
        if part.empty:
            continue
        colour = colours[kind]
        axes.hlines(
            part.index,
            part[f"{name}_low"].clip(LOW, HIGH),
            part[f"{name}_high"].clip(LOW, HIGH),
            color=colour,
            linewidth=1.3,
            alpha=0.75,
        )
        inside = part[part[name].between(LOW, HIGH)]
        axes.scatter(
            inside[name],
            inside.index,
            s=24,
            marker=marker,
            facecolors=THEME.paper if kind == "mixed" else colour,
            edgecolors=colour,
            linewidths=1.1,
            label=f"{kind} ({len(part)})",
            zorder=3,
        )
        for side, where, shape in (
            (part[part[name] > HIGH], HIGH, ">"),
            (part[part[name] < LOW], LOW, "<"),
        ):
            axes.scatter([where] * len(side), side.index, s=24, marker=shape, color=colour)
    missing = rows[rows[name].isna()]
    for y in missing.index:
        axes.text(
            0.05,
            y,
            "not testable",
            va="center",
            fontsize=7,
            color=THEME.muted,
            bbox={"facecolor": THEME.paper, "edgecolor": "none", "pad": 1},
        )
    axes.set_xlim(LOW - 0.06, HIGH + 0.06)
