"""Look of the figures: two colour-blind-safe themes, a canvas, bytes out; no pyplot state."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from affectlens.data.artifacts import atomic_path

from .svg import adaptive, smaller
from .text import contrast_label, shorten, visible

Line = npt.NDArray[np.float64]

WIDE_INCHES = 7.8
NARROW_INCHES = 3.9
_DPI = 200
_LABEL_LIMIT = 22


@dataclass(frozen=True)
class Theme:
    """Colours of one theme; blue and vermilion stay apart in every common colour blindness."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    faint: str
    blue: str
    red: str

    @property
    def diverging(self) -> LinearSegmentedColormap:
        """Blue for negative, paper for zero, vermilion for positive."""
        return LinearSegmentedColormap.from_list(
            f"affectlens-{self.name}", [self.blue, self.paper, self.red]
        )


LIGHT = Theme("light", "#ffffff", "#1b2330", "#5b6472", "#e4e7eb", "#aab2bd", "#0b5cad", "#c2470b")
DARK = Theme("dark", "#171c24", "#e8ebf0", "#a6afbc", "#2d3540", "#66717f", "#6fb3ff", "#ff9d6b")
_DARK_FOR = {
    getattr(LIGHT, part): getattr(DARK, part)
    for part in ("paper", "ink", "muted", "grid", "faint", "blue", "red")
}


class Draw(Protocol):
    """Draws a figure in a theme, for a wide page or for a phone."""

    def __call__(self, theme: Theme, *, narrow: bool) -> Figure:
        """Return the drawn figure."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure before it is drawn; `draw(theme, narrow=...)` draws it for a page or a phone."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Draw


@dataclass(frozen=True)
class FigureView:
    """A drawn figure as data URIs, for the page; `dark` is '' where `light` adapts itself."""

    name: str
    title: str
    caption: str
    alt: str
    light: str
    dark: str
    light_narrow: str
    dark_narrow: str


def render(spec: FigureSpec, folder: Path) -> FigureView:
    """Draw `spec` for a page and a phone; write the wide form to `folder` as PNG and SVG.

    Raises:
        MachineError: the disk is full.
    """
    with _style():
        wide = spec.draw(LIGHT, narrow=False)
        svg = to_bytes(wide, "svg")
        for suffix, payload in ((".svg", svg), (".png", to_bytes(wide, "png"))):
            with atomic_path(folder / f"{spec.name}{suffix}") as tmp:
                tmp.write_bytes(payload)
        light, dark = _themed(spec, svg, narrow=False)
        narrow = to_bytes(spec.draw(LIGHT, narrow=True), "svg")
        light_narrow, dark_narrow = _themed(spec, narrow, narrow=True)
    return FigureView(
        spec.name, spec.title, spec.caption, spec.alt, light, dark, light_narrow, dark_narrow
    )


def _themed(spec: FigureSpec, svg: bytes, *, narrow: bool) -> tuple[str, str]:
    """The light picture, or the one that is both, and the dark one or ''."""
    both = adaptive(svg, _DARK_FOR)
    if both is not None:
        return _data_uri(both), ""
    return _data_uri(svg), _data_uri(to_bytes(spec.draw(DARK, narrow=narrow), "svg"))


def canvas(theme: Theme, title: str, *, narrow: bool, height: float) -> Figure:
    """An empty figure with its title; `height` in inches."""
    width = NARROW_INCHES if narrow else WIDE_INCHES
    figure = Figure(
        figsize=(width, height),
        facecolor=theme.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06),
    )
    FigureCanvasAgg(figure)
    wrapped = textwrap.fill(drawable(title), 44 if narrow else 96)
    figure.suptitle(wrapped, x=0.012, ha="left", color=theme.ink, fontsize=11, fontweight="bold")
    return figure


def dress(axes: Axes, theme: Theme, *, subtitle: str = "", grid: str = "both") -> None:
    """Colour the frame, keep two spines, light grid behind the data, a left-aligned subtitle."""
    axes.set_facecolor(theme.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.faint)
    axes.tick_params(colors=theme.muted, labelsize=8.5, length=3)
    axes.xaxis.label.set_color(theme.muted)
    axes.yaxis.label.set_color(theme.muted)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, axis=grid, color=theme.grid, linewidth=0.7)  # type: ignore[arg-type]
    if subtitle:
        axes.set_title(drawable(subtitle), loc="left", fontsize=8.8, color=theme.muted)


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


def legend(figure: Figure, axes: Axes, theme: Theme, *, narrow: bool) -> None:
    """One legend below the figure, in one column on a phone."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=1 if narrow else min(3, len(labels)),
        frameon=False,
        fontsize=8.5,
        labelcolor=theme.ink,
        handletextpad=0.4,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def readable(theme: Theme, value: float) -> str:
    """Black or white, whichever stands out more on the diverging colour of `value` in [-1, 1]."""
    red, green, blue, _ = theme.diverging((value + 1) / 2)
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#101418" if luminance > 0.179 else "#ffffff"


def axis_label(name: str) -> str:
    """A contrast's or emotion's name as it stands at an axis: drawable, on one line, cut."""
    return shorten(drawable(contrast_label(name)).replace("\n", " "), _LABEL_LIMIT)


def drawable(text: str) -> str:
    """`text` with characters that the figure font lacks replaced by a box."""
    return "".join(c if c == "\n" or _has_glyph(ord(c)) else "□" for c in visible(text))


def to_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as PNG or SVG bytes, the same bytes for the same figure."""
    engine = figure.get_layout_engine()
    if engine is not None:
        # Lay out once: with an engine every format of the same figure repeats it and draws twice.
        engine.execute(figure)
        figure.set_layout_engine(None)
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return smaller(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


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


@lru_cache(maxsize=1)
def _font() -> FT2Font:
    return FT2Font(font_manager.findfont("DejaVu Sans"))


@lru_cache(maxsize=2048)
def _has_glyph(point: int) -> bool:
    return point != 0x09 and _font().get_char_index(point) != 0


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"
