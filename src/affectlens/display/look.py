"""One look for every figure, without a trace in matplotlib's settings.

A drawing function takes axes, or None for a new figure, and returns the axes; it shows and saves
nothing. `styled` holds our settings only while a function draws. Only a new figure goes through
pyplot, since that is how notebooks and `plt.show()` find it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from .words import contrast_label, on_one_line, shorten, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place = Literal["best", "upper left"]
P = ParamSpec("P")
T = TypeVar("T")

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.unicode_minus": True,
}
_FAMILY = "DejaVu Sans"
_LABEL_LIMIT = 22


@dataclass(frozen=True)
class Theme:
    """Colours; blue and vermilion stay apart in every common colour blindness."""

    paper: str = "#ffffff"
    ink: str = "#1b2330"
    muted: str = "#5b6472"
    grid: str = "#e4e7eb"
    faint: str = "#aab2bd"
    blue: str = "#0b5cad"
    red: str = "#c2470b"


THEME = Theme()


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """`draw` under our settings; the caller's are back when it returns or raises."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib as mpl

        with mpl.rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return drawn


def axes_of(ax: Axes | None, size: tuple[float, float] = (6.4, 4.2)) -> Axes:
    """`ax`, or the axes of a new figure of `size` inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    _, made = plt.subplots(figsize=size, layout="constrained", facecolor=THEME.paper)
    return made


def frame(axes: Axes, grid: str = "both") -> None:
    """Colour the frame, keep two spines, a light grid along `grid` ('' for none)."""
    axes.set_facecolor(THEME.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(THEME.faint)
    axes.tick_params(colors=THEME.muted, labelsize=8.5, length=3)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, axis=grid, color=THEME.grid, linewidth=0.7)  # type: ignore[arg-type]
    else:
        axes.grid(visible=False)


def dress(
    axes: Axes,
    title: str,
    subtitle: str = "",
    *,
    x: str = "",
    y: str = "",
    grid: str = "both",
    room: float = 0.8,
) -> None:
    """Title, a line of n and control below it, axis labels, two spines, a light grid behind.

    `room` is the share of the figure's width that is left beside the row labels; both lines of
    text are broken to it.
    """
    frame(axes, grid)
    inches = axes.get_figure(root=True).get_size_inches()[0] * _share(axes)  # type: ignore[union-attr]
    # 13 characters of the subtitle's size take an inch.
    width = max(30, int(inches * 13 * (1 if grid in ("both", "y") else room)))
    heading = textwrap.fill(drawable(title), width)
    # Numbers stay on one line with what they count.
    kept = drawable(subtitle).replace("n = ", "n\xa0=\xa0").replace("n ≤ ", "n\xa0≤\xa0")
    below = textwrap.fill(kept, int(width * 1.12)) if subtitle else ""
    lines = below.count("\n") + 1 if below else 0
    axes.set_title(
        heading, loc="left", fontsize=10.5, fontweight="bold", color=THEME.ink, pad=6 + 12 * lines
    )
    if below:
        axes.annotate(
            below, (0, 1), xycoords="axes fraction", xytext=(0, 5), textcoords="offset points",
            fontsize=8.5, color=THEME.muted, va="bottom", ha="left", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlabel(drawable(x), color=THEME.muted)
    axes.set_ylabel(drawable(y), color=THEME.muted)


def _share(axes: Axes) -> float:
    """Share of the figure's width that the axes' place in its grid takes."""
    spec = axes.get_subplotspec()
    return 1.0 if spec is None else len(spec.colspan) / spec.get_gridspec().ncols


def key(axes: Axes, *, columns: int = 1, place: Place = "best") -> None:
    """A legend without a frame, if anything is labelled."""
    handles, names = axes.get_legend_handles_labels()
    if handles:
        shown = axes.legend(
            handles, [drawable(n) for n in names], loc=place, ncols=columns, fontsize=8,
            frameon=True, framealpha=0.85, edgecolor="none", labelcolor=THEME.ink,
        )  # fmt: skip
        shown.get_frame().set_facecolor(THEME.paper)


def key_below(axes: Axes, columns: int) -> None:
    """A legend below the axes, for figures whose marks fill them."""
    from matplotlib.transforms import offset_copy

    handles, names = axes.get_legend_handles_labels()
    if handles:
        lower = offset_copy(axes.transAxes, axes.get_figure(root=True), y=-34, units="points")
        axes.legend(
            handles, [drawable(n) for n in names], loc="upper left", ncols=columns, fontsize=8,
            bbox_to_anchor=(0, 0), bbox_transform=lower, borderaxespad=0, frameon=False,
            labelcolor=THEME.ink,
        )  # fmt: skip


def row_labels(axes: Axes, names: Sequence[str], limit: int = _LABEL_LIMIT) -> None:
    """Names of rows 0, 1, ... from the top, cut to `limit` characters."""
    axes.set_yticks(range(len(names)), [axis_label(name, limit) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def axis_label(name: str, limit: int = _LABEL_LIMIT) -> str:
    """A name as it stands at an axis: drawable, on one line, cut to `limit` characters."""
    return shorten(drawable(on_one_line(contrast_label(name))), limit)


def drawable(text: str) -> str:
    """`text` made visible, characters that the figure font lacks replaced by a box."""
    return "".join(c if c == "\n" or _has_glyph(ord(c)) else "□" for c in visible(text))


@lru_cache(maxsize=2048)
def _has_glyph(point: int) -> bool:
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    return FT2Font(font_manager.findfont(_FAMILY)).get_char_index(point) != 0
