"""Look of the figures: two colour-blind-safe themes, a canvas, bytes out; no pyplot state."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from affectlens.data.artifacts import atomic_path
from affectlens.display.look import THEME, Theme, drawable, frame

from .svg import adaptive, smaller

Line = npt.NDArray[np.float64]

WIDE_INCHES = 7.8
NARROW_INCHES = 3.9
_DPI = 150
_CSS_DPI = 96
_LABEL_LIMIT = 22


DARK = Theme("#171c24", "#e8ebf0", "#a6afbc", "#2d3540", "#66717f", "#6fb3ff", "#ff9d6b")
_DARK_FOR = {
    getattr(THEME, part): getattr(DARK, part)
    for part in ("paper", "ink", "muted", "grid", "faint", "blue", "red")
}


class Draw(Protocol):
    """Draws a figure in a theme, for a wide page or for a phone."""

    def __call__(self, *, narrow: bool) -> Figure:
        """Return the drawn figure."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure before it is drawn; `draw(narrow=...)` draws it for a page or a phone."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Draw


@dataclass(frozen=True)
class FigureView:
    """A drawn figure as data URIs for a page and a phone, with sizes in CSS pixels.

    Each is light or dark as the reader's page is.
    """

    name: str
    title: str
    caption: str
    alt: str
    wide: str
    narrow: str
    size: tuple[int, int]
    narrow_size: tuple[int, int]


def render(spec: FigureSpec, folder: Path) -> FigureView:
    """Draw `spec` for a page and a phone; write the wide form to `folder` as PNG and SVG.

    Raises:
        MachineError: the disk is full.
    """
    with _style():
        wide = spec.draw(narrow=False)
        svg = to_bytes(wide, "svg")
        for suffix, payload in ((".svg", svg), (".png", to_bytes(wide, "png"))):
            with atomic_path(folder / f"{spec.name}{suffix}") as tmp:
                tmp.write_bytes(payload)
        narrow = spec.draw(narrow=True)
        small = to_bytes(narrow, "svg")
    page, phone = (_data_uri(adaptive(drawn, _DARK_FOR)) for drawn in (svg, small))
    sizes = _size(wide), _size(narrow)
    return FigureView(spec.name, spec.title, spec.caption, spec.alt, page, phone, *sizes)


def _size(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches() * _CSS_DPI
    return round(width), round(height)


def canvas(title: str, *, narrow: bool, height: float) -> Figure:
    """An empty figure with its title; `height` in inches."""
    width = NARROW_INCHES if narrow else WIDE_INCHES
    figure = Figure(
        figsize=(width, height),
        facecolor=THEME.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06),
    )
    FigureCanvasAgg(figure)
    wrapped = textwrap.fill(drawable(title), 44 if narrow else 96)
    figure.suptitle(wrapped, x=0.012, ha="left", color=THEME.ink, fontsize=11, fontweight="bold")
    return figure


def dress(axes: Axes, *, subtitle: str = "", grid: str = "both") -> None:
    """Colour the frame, keep two spines, light grid behind the data, a left-aligned subtitle.

    Without a `grid` it is a map.
    """
    frame(axes, grid)
    axes.xaxis.label.set_color(THEME.muted)
    axes.yaxis.label.set_color(THEME.muted)
    if subtitle:
        # Only maps have names above them, over which a place must be looked for. It takes long.
        y = 1.0 if grid else None
        axes.set_title(drawable(subtitle), loc="left", fontsize=8.8, color=THEME.muted, y=y)


def panels(
    figure: Figure, n: int, shape: tuple[int, int], *, sharex: bool = False, sharey: bool = False
) -> list[Axes]:
    """`n` axes in a grid of (lines, columns); the places left over stay empty."""
    grid = list(figure.subplots(*shape, squeeze=False, sharex=sharex, sharey=sharey).flat)
    for axes in grid[n:]:
        axes.set_visible(False)
    return grid[:n]


def cloud(axes: Axes, x: pd.Series, y: pd.Series, label: str, **style: Any) -> None:
    """Dots, their number in the legend; many are drawn as one picture, to keep the SVG small."""
    named = f"{label} ({len(x):,})"
    axes.scatter(x, y, linewidths=0, label=named, rasterized=len(x) > 300, **style)


def strokes(x0: pd.Series, x1: pd.Series, y0: pd.Series, y1: pd.Series) -> tuple[Line, Line]:
    """Many strokes as one broken line: one path in the SVG instead of hundreds."""
    gap = np.full(len(x0), np.nan)
    x, y = np.column_stack([x0, x1, gap]), np.column_stack([y0, y1, gap])
    return x.astype(float).ravel(), y.astype(float).ravel()


def legend(figure: Figure, axes: Axes, *, narrow: bool) -> None:
    """One legend below the figure, in one column on a phone."""
    handles, labels = axes.get_legend_handles_labels()
    key(figure, handles, labels, columns=1 if narrow else min(3, len(labels)))


def key(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], *, columns: int) -> None:
    """What marks stand for, below the figure."""
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        labelcolor=THEME.ink,
        handletextpad=0.4,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def to_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as PNG or SVG bytes, the same bytes for the same figure."""
    engine = figure.get_layout_engine()
    if engine is not None:
        _lighten(figure)
        # Lay out once: with an engine every format of the same figure repeats it and draws twice.
        engine.execute(figure)
        figure.set_layout_engine(None)
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return smaller(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _lighten(figure: Figure) -> None:
    """Take away what layout measures again and again without need: a fifth of the time."""
    for axes in figure.axes:
        for spine in axes.spines.values():
            spine.set_in_layout(False)  # It ends where the axes end.
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_label_text():
                axis.set_label_coords(0.5, 0.5)  # No place is looked for beside the tick labels.


@contextmanager
def _style() -> Iterator[None]:
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.parse_math": False,
        "axes.unicode_minus": True,
        "svg.fonttype": "path",
        "svg.hashsalt": "affectlens",
        "hatch.linewidth": 0.5,
    }
    with mpl.rc_context(settings):
        yield


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"
