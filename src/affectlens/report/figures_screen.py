"""Figures of the screen: estimates against measurements, and input rank against output effect."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from affectlens.display.look import THEME, axis_label
from affectlens.display.words import number, plural

from .loading import RunData
from .screening import AGREEMENT, KINDS, SCREEN, TOP, Overlap, overlaps
from .theme import FigureSpec, canvas, dress, key, legend, panels

_COLUMNS = {"ablate": "attribution_ablate", "clamp": "attribution_clamp"}


def screen_figures(data: RunData) -> list[FigureSpec]:
    """Every figure of the section that the run has data for."""
    table = data.rows(SCREEN)
    if table is None:
        return []
    specs = (_estimates(data, table), _two_sides(table))
    return [spec for spec in specs if spec is not None]


def _estimates(data: RunData, table: pd.DataFrame) -> FigureSpec | None:
    own = {kind: _measured(table, kind) for kind in KINDS}
    if not any(len(part) for part in own.values()):
        return None
    title = "Estimated effect of a latent against its measured effect"
    caption = (
        "Each mark is one latent under one contrast: the estimate by gradients against the "
        "measured change of the readout, on discovery texts. Squares: the largest estimates. Dots: "
        "a random sample of latents, the control. On the dotted line both are equal. n: marks. "
        f"{_correlations(data)}Both axes are linear within the marked tick and logarithmic beyond."
    )

    def draw(*, narrow: bool) -> Figure:
        shape = (2, 1) if narrow else (1, 2)
        figure = canvas(title, narrow=narrow, height=6.9 if narrow else 3.9)
        for axes, kind in zip(figure.subplots(*shape).flat, KINDS):
            _scatter(axes, own[kind], kind)
        legend(figure, figure.axes[0], narrow=narrow)
        return figure

    n = sum(len(part) for part in own.values())
    return FigureSpec("screen", title, caption, f"Scatter of {plural(n, 'measured effect')}.", draw)


def _measured(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    part = pd.DataFrame(
        {
            "estimate": table[_COLUMNS[kind]],
            "exact": table[f"exact_{kind}"],
            "sample": table[f"verified_{kind}"],
        }
    )
    part = part[part["sample"].isin(["top", "random", "both"])]
    return part[np.isfinite(part.estimate) & np.isfinite(part.exact)]


def _correlations(data: RunData) -> str:
    table = data.rows(AGREEMENT)
    if table is None:
        return ""
    parts = []
    for kind, words in KINDS.items():
        own = table[(table.estimator == "gradient") & (table.intervention == kind)]
        found = [
            f"{sample} {number(float(part.pearson.median()))}"
            for sample, part in own.groupby("sample")
            if part.pearson.notna().any()
        ]
        if found:
            parts.append(f"{words}: {', '.join(found)}")
    if not parts:
        return ""
    return f"Median correlation over contrasts, {'; '.join(parts)}; intervals in the table. "


def _scatter(axes: Axes, part: pd.DataFrame, kind: str) -> None:
    dress(axes, subtitle=f"latents {KINDS[kind]} (n = {len(part):,})")
    top = part["sample"] != "random"
    for own, label, marker, colour in (
        (part[~top], "random sample", "o", THEME.blue),
        (part[top], "largest estimates", "s", THEME.red),
    ):
        axes.scatter(
            own.estimate, own.exact, s=16, marker=marker, linewidths=1.0, edgecolors=colour,
            facecolors=colour if marker == "o" else "none", label=f"{label} ({len(own):,})",
            rasterized=len(own) > 2000, alpha=0.85,
        )  # fmt: skip
    values = np.abs(part[["estimate", "exact"]].to_numpy(dtype=float))
    most = float(values.max()) if values.size and values.max() > 0 else 1.0
    linear = 10.0 ** math.floor(math.log10(most / 10))
    ends = 1.35 * most
    axes.set_xscale("symlog", linthresh=linear)
    axes.set_yscale("symlog", linthresh=linear)
    axes.set_xlim(-ends, ends)
    axes.set_ylim(-ends, ends)
    line = np.concatenate(
        [-np.geomspace(ends, linear / 10, 40), np.geomspace(linear / 10, ends, 40)]
    )
    axes.plot(line, line, color=THEME.muted, linestyle=":", linewidth=1)
    ticks = [v for v in (linear, 10 * linear, 100 * linear) if v <= ends]
    places = [-v for v in reversed(ticks)] + [0.0, *ticks]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(places, [f"{v:g}".replace("-", "−") for v in places])
        axis.set_ticks([], minor=True)
    axes.set_xlabel("estimated change of the readout (nats)")
    axes.set_ylabel("measured change (nats)")


def _two_sides(table: pd.DataFrame) -> FigureSpec | None:
    found = [o for o in overlaps(table) if o.n_ranked]
    if not found:
        return None
    title = "What responds to an emotion against what moves it"
    caption = (
        "Rank of a latent by the search (left: responds most) against how far turning it up raises "
        "the readout for each unit of norm written (measured where it was, else estimated). Blue, "
        f"shaded: the {TOP} that respond most. Red, from the line up: the {TOP} that raise the "
        "readout most. Diamonds: in both; how many are shared stands in the title beside what "
        "unrelated rankings would share (control). Grey: range of all latents of about that rank. "
        "Discovery texts; n: latents."
    )

    def draw(*, narrow: bool) -> Figure:
        columns = 2 if narrow else 3
        lines = math.ceil(len(found) / columns)
        figure = canvas(title, narrow=narrow, height=1.3 + 1.75 * lines)
        grid = panels(figure, len(found), (lines, columns))
        for axes, one in zip(grid, found):
            _sides(axes, table[table.contrast == one.contrast], one, narrow=narrow)
        for axes in grid[-columns:]:
            axes.set_xlabel("rank by the search (log)", fontsize=8.5)
        figure.supylabel(
            "raises the readout, per norm (nats / 100)", fontsize=8.8, color=THEME.muted
        )
        _key(figure, narrow=narrow)
        return figure

    alt = f"Scatter of input rank against output effect for {plural(len(found), 'contrast')}."
    return FigureSpec("screen_sides", title, caption, alt, draw)


def _key(figure: Figure, *, narrow: bool) -> None:
    """What the marks and the grey area stand for."""
    dot: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linestyle": "none"}
    handles = [
        Line2D([], [], color=THEME.blue, **dot),
        Line2D([], [], color=THEME.red, **dot),
        Line2D([], [], marker="D", markerfacecolor="none", color=THEME.ink, linestyle="none"),
        Patch(color=THEME.grid),
    ]
    labels = [
        f"{TOP} that respond most",
        f"{TOP} that raise it most",
        "both",
        "range of all others",
    ]
    key(figure, handles, labels, columns=2 if narrow else 4)


def _sides(axes: Axes, own: pd.DataFrame, one: Overlap, *, narrow: bool) -> None:
    ranked = own[own.input_rank.notna() & own.clamp_per_norm.notna()]
    chance = number(one.expected, 1 if one.expected >= 0.1 else 2)
    lines = [axis_label(one.contrast), f"{len(one.both)} shared (chance {chance})"]
    lines.append(f"n = {one.n_ranked:,}")
    subtitle = "\n".join(lines) if narrow else f"{lines[0]}, {lines[2]}\n{lines[1]}"
    dress(axes, subtitle=subtitle, grid="y")
    x, y = ranked.input_rank, 100 * ranked.clamp_per_norm
    _ranges(axes, x, y)
    first = ranked[ranked.input_rank <= TOP]
    axes.scatter(first.input_rank, 100 * first.clamp_per_norm, s=9, color=THEME.blue, linewidths=0)
    axes.axvspan(0.9, TOP + 0.5, color=THEME.blue, alpha=0.16, linewidth=0)
    by_output = ranked[ranked.feature.isin(one.by_output)]
    if len(by_output):
        least = 100 * float(by_output.clamp_per_norm.min())
        axes.axhline(least, color=THEME.red, linewidth=0.9)
        axes.scatter(
            by_output.input_rank, 100 * by_output.clamp_per_norm, s=9, color=THEME.red, linewidths=0
        )
    both = ranked[ranked.feature.isin(one.both)]
    axes.scatter(
        both.input_rank, 100 * both.clamp_per_norm, s=34, marker="D", facecolors="none",
        edgecolors=THEME.ink, linewidths=1.3,
    )  # fmt: skip
    axes.axhline(0, color=THEME.muted, linewidth=0.8)
    most = float(x.max())
    axes.set_xscale("log")
    axes.set_xlim(0.8, 1.3 * most)
    ticks = [t for t in (1, 10, 100, 1000, 10_000, 100_000) if t <= most]
    axes.set_xticks(ticks, [f"{t:,}" if t < 1000 else f"{t // 1000}k" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.use_sticky_edges = False
    axes.margins(y=0.12)


def _ranges(axes: Axes, rank: pd.Series, value: pd.Series) -> None:
    """Smallest to largest value of latents of about the same rank, behind the leading ones."""
    own = rank > TOP
    if not own.any():
        return
    edges = np.unique(np.geomspace(TOP + 1, float(rank.max()) + 1, 30).round())
    groups = value[own].groupby(np.digitize(rank[own], edges) - 1).agg(["min", "max"])
    spans = groups.reindex(range(len(edges))).ffill()
    axes.fill_between(
        edges - 0.5, spans["min"], spans["max"], step="post", color=THEME.grid, linewidth=0
    )
