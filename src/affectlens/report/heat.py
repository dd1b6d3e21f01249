"""Feature x emotion maps: numbers away from zero, a frame for the own emotion, hatched gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from affectlens.display.look import THEME, axis_label
from affectlens.display.maps import tint_cells
from affectlens.display.words import number

MapRow = tuple[str, int, bool]
"""Contrast, feature, and whether it was confirmed."""

Dot = Literal["dot", "ring"]
_NO_DOTS: Mapping[tuple[int, int], Dot] = MappingProxyType({})


def heat_map(
    axes: Axes,
    grid: npt.NDArray[np.float64],
    rows: Sequence[MapRow],
    emotions: Sequence[str],
    *,
    narrow: bool,
    dots: Mapping[tuple[int, int], Dot] = _NO_DOTS,
) -> None:
    """Draw a map.

    Args:
        axes: to draw on.
        grid: [n_rows, n_emotions] values in -1 to 1; NaN where there is none.
        rows: one a row of the grid.
        emotions: one a column.
        narrow: for a phone: no numbers in the cells.
        dots: (row, column) of the cells that get a dot or a ring.
    """
    tint_cells(axes, grid)
    for y, (contrast, _, _) in enumerate(rows):
        for x, emotion in enumerate(emotions):
            _cell(axes, (x, y), grid[y, x], dot=dots.get((y, x)), digits=not narrow)
            if contrast == emotion:
                _box(axes, x, y, 0.04, fill=False, edgecolor=THEME.ink, lw=1.4, zorder=3)
    for y in range(1, len(rows)):
        if rows[y][0] != rows[y - 1][0]:
            axes.axhline(y - 0.5, color=THEME.paper, linewidth=3)
    names = [axis_label(e) for e in emotions]
    crowded = narrow or len(names) > 8 or max(map(len, names)) > 11
    axes.set_xticks(range(len(names)), names, rotation=90 if crowded else 0)
    labels = [f"{axis_label(c)} · {f}{' ✓' if ok else '   '}" for c, f, ok in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def shares_of_largest(
    table: pd.DataFrame, rows: Sequence[MapRow], emotions: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Mean difference over the row's largest, [n_rows, n_emotions]; NaN where unmeasured."""
    index = {
        (str(r.selected_for), int(r.feature), str(r.emotion)): float(r.mean_diff)
        for r in table.itertuples()
    }
    cells = [[index.get((c, f, e), np.nan) for e in emotions] for c, f, _ in rows]
    grid = np.array(cells, dtype=float).reshape(len(rows), len(emotions))
    largest = np.max(np.abs(np.nan_to_num(grid)), axis=1, keepdims=True, initial=0.0)
    return np.asarray(np.divide(grid, largest, out=grid * 0, where=largest > 0))


def _cell(axes: Axes, at: tuple[int, int], value: float, *, dot: Dot | None, digits: bool) -> None:
    x, y = at
    if not np.isfinite(value):
        _box(axes, x, y, 0.0, fill=False, hatch="////", edgecolor=THEME.faint, lw=0)
        return
    shown = number(value, 1)
    if digits and float(shown.replace("−", "-")):
        axes.text(x, y, shown, ha="center", va="center", fontsize=7.5, color=THEME.ink)
    if dot:
        filled = THEME.ink if dot == "dot" else "none"
        axes.plot(x + 0.36, y - 0.2, "o", markersize=3.2, color=THEME.ink, markerfacecolor=filled)


def _box(axes: Axes, x: int, y: int, inset: float, **style: object) -> None:
    corner, side = (x - 0.5 + inset, y - 0.5 + 1.5 * inset), (1 - 2 * inset, 1 - 3 * inset)
    axes.add_patch(Rectangle(corner, *side, **style))  # type: ignore[arg-type]
