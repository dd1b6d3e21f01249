"""Maps of values from -1 to 1: colour, number, a frame for the own cell, hatched gaps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .look import THEME, axis_label, row_labels
from .words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place = tuple[int, int]
STRONGEST_TINT = 0.5
"""Opacity of the cell of the largest value: text in the theme's ink keeps a contrast of 4.5."""

Grid = npt.NDArray[np.float64]


def heat_map(
    axes: Axes,
    scaled: Grid,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    values: Grid | None = None,
    digits: int,
    framed: Collection[Place] = (),
    dotted: Collection[Place] = (),
) -> None:
    """Draw a map on dressed axes.

    Args:
        axes: to draw on.
        scaled: [n_rows, n_columns] colours, -1 to 1; NaN where nothing was measured.
        rows: a name a row.
        columns: a name a column.
        values: numbers to print, by default `scaled`.
        digits: of the numbers.
        framed: (row, column) of cells with a frame.
        dotted: cells with a dot.
    """
    from matplotlib.patches import Rectangle

    shown = scaled if values is None else values
    tint_cells(axes, scaled)
    for (y, x), colour in np.ndenumerate(scaled):
        corner = (x - 0.5, y - 0.5)
        if not np.isfinite(colour):
            hatch = Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor=THEME.faint, lw=0)
            axes.add_patch(hatch)
            continue
        said = number(float(shown[y, x]), digits)
        if any(c in "123456789" for c in said):
            axes.text(x, y, said, ha="center", va="center", fontsize=7.5, color=THEME.ink)
        if (y, x) in dotted:
            axes.plot(x + 0.37, y - 0.27, "o", markersize=3, color=THEME.ink)
    for y, x in framed:
        frame = Rectangle(
            (x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor=THEME.ink, lw=1.4, zorder=3
        )
        axes.add_patch(frame)
    row_labels(axes, rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    names = [axis_label(name) for name in columns]
    crowded = len(names) * max(map(len, names), default=0) > 60
    axes.set_xticks(range(len(names)), names, rotation=40 if crowded else 0,
                    ha="right" if crowded else "center", rotation_mode="anchor")  # fmt: skip
    axes.tick_params(axis="x", length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def tint_cells(axes: Axes, grid: npt.NDArray[np.float64]) -> None:
    """Colour cell (row, column) at (column, row): blue below 0, vermilion above, NaN left out.

    Flat colours over the paper, no pixels, so that the picture can follow a dark page.

    Args:
        axes: to draw on; its first row is at the top.
        grid: [n_rows, n_columns] values in -1 to 1.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    cells = [(y, x, v) for (y, x), v in np.ndenumerate(grid) if np.isfinite(v)]
    corners = [
        [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5)]
        for y, x, _ in cells
    ]
    colours = [
        to_rgba(THEME.blue if v < 0 else THEME.red, round(STRONGEST_TINT * min(1, abs(v)), 2))
        for *_, v in cells
    ]
    axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0), autolim=False)
    axes.set_xlim(-0.5, grid.shape[1] - 0.5)
    axes.set_ylim(grid.shape[0] - 0.5, -0.5)
