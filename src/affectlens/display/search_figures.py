"""Figures of a search: every latent tested, the best, one pair by pair, its emotions, firing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .look import THEME, axes_of, drawable, dress, key, key_below, row_labels, styled
from .maps import heat_map
from .words import contrast_label, plural, probability, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STUDENTISED = "line: 95% interval, cluster bootstrap"


@styled
def volcano(
    table: pd.DataFrame, *, contrast: str, alpha: float, min_p: float, ax: Axes | None = None
) -> Axes:
    """Effect size against p of every latent tested in a contrast.

    Args:
        table: rows of one contrast, columns d_z, p, p_fwer, confirmed, rank, feature, n_pairs.
        contrast: its name.
        alpha: family-wise level.
        min_p: the smallest p that the design can give.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax)
    known = table[np.isfinite(table.d_z) & (table.p > 0)]
    n_pairs = int(known.n_pairs.max()) if len(known) else 0
    dress(
        axes,
        f"Every latent tested: {contrast_label(contrast)}",
        f"n = {n_pairs} pairs, discovery part; control: the neutral twin",
        x="effect size d_z (emotional − neutral)",
        y="−log₁₀ p",
    )
    passed = known.p_fwer <= alpha
    for part, colour, marker, size, name in (
        (known[~passed & ~known.confirmed], THEME.faint, "o", 9, "not significant"),
        (known[passed & ~known.confirmed], THEME.blue, "o", 16, f"family-wise p ≤ {alpha:g}"),
        (known[known.confirmed], THEME.red, "D", 30, "confirmed on other scenes"),
    ):
        axes.scatter(
            part.d_z, -np.log10(part.p), s=size, c=colour, marker=marker, alpha=0.9, linewidths=0,
            label=f"{name} ({len(part):,})", rasterized=len(part) > 300,
        )  # fmt: skip
    if min_p > 0:
        said = f"smallest p possible ({probability(min_p)})"
        axes.axhline(-np.log10(min_p), color=THEME.muted, linestyle=":", linewidth=1, label=said)
    axes.axvline(0, color=THEME.faint, linewidth=0.8)
    axes.margins(y=0.1)
    key_below(axes, 2)
    return axes


@styled
def ranked(table: pd.DataFrame, *, contrast: str, n: int, ax: Axes | None = None) -> Axes:
    """The `n` best latents: effect size where they were found, and on scenes kept aside.

    Args:
        table: rows of one contrast, columns rank, feature, d_z, confirm_d_z, its bounds,
            confirmed, confirm_n_pairs.
        contrast: its name.
        n: latents.
        ax: axes to draw on; None makes a figure.
    """
    rows = table.sort_values("rank").head(n).reset_index(drop=True)
    axes = axes_of(ax, (6.4, 1.7 + 0.24 * len(rows)))
    held = rows.confirm_n_pairs.max() if len(rows) else 0
    dress(
        axes,
        f"Best latents: {contrast_label(contrast)}",
        f"confirmation n = {int(held) if np.isfinite(held) else 0} pairs; control: the neutral "
        f"twin; {_STUDENTISED}",
        x="effect size d_z (emotional − neutral)",
        grid="x",
    )
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    axes.scatter(
        rows.d_z, rows.index, s=30, marker="|", color=THEME.muted,
        label="discovery (chosen there, so too large)",
    )  # fmt: skip
    own = rows[np.isfinite(rows.confirm_d_z)]
    bounded = own[np.isfinite(own.confirm_d_z_low) & np.isfinite(own.confirm_d_z_high)]
    axes.hlines(
        bounded.index, bounded.confirm_d_z_low, bounded.confirm_d_z_high, color=THEME.red,
        linewidth=1.4,
    )  # fmt: skip
    for state, name in ((True, "confirmation, confirmed"), (False, "confirmation, not confirmed")):
        part = own[own.confirmed == state]
        axes.scatter(
            part.confirm_d_z, part.index, s=30, edgecolors=THEME.red, linewidths=1.2, zorder=3,
            facecolors=THEME.red if state else THEME.paper, label=f"{name} ({len(part)})",
        )  # fmt: skip
    row_labels(axes, [f"latent {f}" for f in rows.feature])
    key_below(axes, 2)
    return axes


@styled
def pairs(pooled: pd.DataFrame, *, feature: int, ax: Axes | None = None) -> Axes:
    """Activation of one latent on each emotional text against its neutral twin.

    Args:
        pooled: rows of the latent, columns clinical, neutral, part.
        feature: its index.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (5.2, 4.8))
    above = int((pooled.clinical > pooled.neutral).sum())
    dress(
        axes,
        f"Latent {feature}, pair by pair",
        f"n = {plural(len(pooled), 'pair')}, {above} above the line; control: the neutral twin",
        x="activation on the neutral twin",
        y="activation on the emotional text",
    )
    for part, colour, filled in (
        ("discovery", THEME.blue, False),
        ("confirmation", THEME.red, True),
    ):
        rows = pooled[pooled.part == part]
        axes.scatter(
            rows.neutral, rows.clinical, s=28, edgecolors=colour, linewidths=1.1,
            facecolors=colour if filled else "none", label=f"{part} ({len(rows)})",
        )  # fmt: skip
    most = float(np.nanmax(pooled[["clinical", "neutral"]].to_numpy(), initial=0.0))
    most = most * 1.05 or 1.0
    axes.plot([0, most], [0, most], color=THEME.muted, linestyle=":", linewidth=1)
    axes.set_xlim(-0.03 * most, most)
    axes.set_ylim(-0.03 * most, most)
    key(axes)
    return axes


@styled
def specificity(
    table: pd.DataFrame, *, emotions: list[str], part: str, n_rows: int, ax: Axes | None = None
) -> Axes:
    """Leading latents against every emotion, each row scaled to its largest.

    Args:
        table: columns selected_for, feature, emotion, mean_diff, n_pairs; leading ones first.
        emotions: columns of the map, in order.
        part: the part that was measured.
        n_rows: latents of each contrast.
        ax: axes to draw on; None makes a figure.
    """
    chosen = table[["selected_for", "feature"]].drop_duplicates()
    chosen = chosen.groupby("selected_for", sort=False).head(n_rows)
    own = table.set_index(["selected_for", "feature", "emotion"]).mean_diff
    grid = np.array(
        [[own.get((c, f, e), np.nan) for e in emotions] for c, f in chosen.to_numpy()], dtype=float
    ).reshape(len(chosen), len(emotions))
    largest = np.nanmax(np.abs(grid), axis=1, keepdims=True, initial=0.0)
    scaled = np.divide(grid, largest, out=grid * 0, where=largest > 0)
    axes = axes_of(ax, (7.4, 2.0 + 0.27 * len(chosen)))
    n = span(table.n_pairs.min(), table.n_pairs.max()) if len(table) else "0"
    dress(
        axes,
        "Which emotions does a latent answer to?",
        f"mean activation, emotional − neutral, over the row's largest; {part} part, n = {n} pairs "
        "a cell; framed: the emotion it was chosen for; control: the other columns",
        grid="",
    )
    framed = {
        (y, x)
        for y, contrast in enumerate(chosen.selected_for)
        for x, emotion in enumerate(emotions)
        if contrast == emotion
    }
    rows = [f"{contrast_label(str(c))} · {f}" for c, f in chosen.to_numpy()]
    heat_map(axes, scaled, rows, emotions, digits=1, framed=framed)
    return axes


@styled
def density(rates: pd.Series, *, of: str, ax: Axes | None = None) -> Axes:
    """How often latents fire: a histogram over latents of their firing rate, on a log axis.

    Args:
        rates: share of tokens on which each latent is active, 0 to 1.
        of: what text it was measured on.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (6.4, 3.4))
    live = rates[rates > 0]
    silent = len(rates) - len(live)
    dress(
        axes,
        "How often latents fire",
        f"n = {plural(len(rates), 'latent')}, {silent:,} silent and not drawn; {of}",
        x="share of tokens on which a latent is active (log scale)",
        y="latents",
        grid="y",
    )
    logs = np.log10(live.to_numpy(dtype=float))
    low = np.floor(logs.min()) if len(logs) else -4.0
    axes.hist(logs, bins=np.linspace(low, 0, 10 * int(-low) + 1 if low < 0 else 2).tolist(),
              color=THEME.blue, edgecolor=THEME.paper, linewidth=0.4)  # fmt: skip
    if len(logs):
        middle = float(np.median(logs))
        said = f"median {100 * 10**middle:.2g}%"
        axes.axvline(middle, color=THEME.red, linewidth=1.2, linestyle="--", label=said)
        key(axes)
    ticks = np.arange(low, 1)
    axes.set_xticks(ticks, [drawable(f"{100 * 10**t:g}%") for t in ticks])
    return axes
