"""The picture of a sweep: what each SAE leaves unexplained at its sparsity, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from affectlens.display.look import THEME
from affectlens.display.words import plural

from .theme import FigureSpec, canvas, dress, render

MEASURES = {
    "fvu": "FVU",
    "ce_recovered_mean": "CE loss recovered",
}
_MARKERS = "os^DvPX"
_LINES = ("-", "--", ":", "-.")

Row = Mapping[str, Any]


def sweep_figure(rows: Sequence[Row]) -> FigureSpec | None:
    """L0 against FVU and against the loss recovered: a row of panels for each place in the model.

    Architectures differ in marker and line, widths in shade; equal settings with other seeds share
    a curve. None if no SAE of the sweep was measured.

    Args:
        rows: of `sweep.json`: `hook_name`, `arch`, `d_sae`, `l0`, `fvu`, `ce_recovered_mean`.
    """
    measured = [row for row in rows if row.get("l0") and row.get("fvu") is not None]
    if not measured:
        return None
    places = list(dict.fromkeys(str(row["hook_name"]) for row in measured))
    shown = [m for m in MEASURES if any(row.get(m) is not None for row in measured)]
    title = "Quality of the SAEs against their sparsity"
    caption = (
        f"{plural(len(measured), 'SAE')}, measured on held-out documents, masked tokens left out. "
        "L0 is the mean number of active latents per token. FVU is better when lower, the loss "
        "recovered when higher. The loss recovered has mean ablation "
        "as its zero."
    )
    best = min(measured, key=lambda row: row["fvu"])
    alt = (
        f"L0 against {' and '.join(MEASURES[m] for m in shown)} for {len(measured)} SAEs; lowest "
        f"FVU {best['fvu']:.3f} at L0 {best['l0']:.0f}."
    )

    def draw(*, narrow: bool) -> Figure:
        columns = 1 if narrow else len(shown)
        n_rows = len(places) * len(shown) // columns
        figure = canvas(title, narrow=narrow, height=1.3 + 2.3 * n_rows)
        panels = [(place, measure) for place in places for measure in shown]
        for number, (place, measure) in enumerate(panels, start=1):
            axes = figure.add_subplot(n_rows, columns, number)
            dress(axes, subtitle=place)
            axes.set_ylabel(MEASURES[measure])
            _curves(axes, [r for r in measured if r["hook_name"] == place], measure)
        _legend(figure, measured, narrow=narrow)
        return figure

    return FigureSpec("sweep", title, caption, alt, draw)


def write_sweep_figure(rows: Sequence[Row], folder: Path) -> Path | None:
    """Write `sweep.png` and `sweep.svg` into `folder`; the former's path, None without measures.

    Raises:
        MachineError: the disk is full.
    """
    spec = sweep_figure(rows)
    if spec is None:
        return None
    render(spec, Path(folder))
    return Path(folder) / "sweep.png"


def _curves(axes: Axes, rows: Sequence[Row], measure: str) -> None:
    for arch, d_sae in _series(rows):
        own = [r for r in rows if (r["arch"], r["d_sae"]) == (arch, d_sae)]
        points = sorted((r["l0"], r[measure]) for r in own if r.get(measure) is not None)
        if points:
            style = _style(rows, arch, d_sae)
            axes.plot(*zip(*points, strict=True), markersize=4.5, linewidth=1.2, **style)
    axes.set_xscale("log")
    low, high = min(r["l0"] for r in rows), max(r["l0"] for r in rows)
    axes.xaxis.set_major_locator(FixedLocator([2**e for e in range(20)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlim(low / 1.2, high * 1.2)
    axes.set_xlabel("L0")


def _series(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return sorted({(str(row["arch"]), int(row["d_sae"])) for row in rows})


def _style(rows: Sequence[Row], arch: str, d_sae: int) -> dict[str, Any]:
    archs = sorted({a for a, _ in _series(rows)})
    widths = sorted({w for _, w in _series(rows)})
    at = archs.index(arch)
    shade = 0.35 + 0.65 * (widths.index(d_sae) + 1) / len(widths)
    return {
        "color": (THEME.blue, THEME.red, THEME.ink, THEME.muted)[at % 4],
        "marker": _MARKERS[at % len(_MARKERS)],
        "linestyle": _LINES[at % len(_LINES)],
        "alpha": shade,
    }


def _legend(figure: Figure, rows: Sequence[Row], *, narrow: bool) -> None:
    handles = [
        Line2D([], [], label=f"{arch}, d_sae {d_sae:,}", **_style(rows, arch, d_sae))
        for arch, d_sae in _series(rows)
    ]
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=1 if narrow else 3,
        frameon=False,
        fontsize=8.5,
        labelcolor=THEME.ink,
    )
