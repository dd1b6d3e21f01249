"""Figures of the search: volcano, one feature pair by pair, emotion × feature map, SAE training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.look import THEME
from affectlens.display.words import ALL, plural
from affectlens.features.results import SAEMetrics, SearchSummary

from .heat import MapRow, heat_map, shares_of_largest
from .loading import RunData, best_first
from .passport import last_part
from .theme import FigureSpec, canvas, cloud, dress, legend

ROWS_PER_CONTRAST = 2
_STEPS = ("samples", "n_samples", "step")


def search_figures(data: RunData) -> list[FigureSpec]:
    """Every figure of the search that the run has data for."""
    specs = [volcano(data), best_feature(data), specificity(data), training(data)]
    return [spec for spec in specs if spec is not None]


def volcano(data: RunData) -> FigureSpec | None:
    """Effect size against p for every tested feature, emotional against neutral."""
    summary, features = data.summary, data.features
    if summary is None or features is None:
        return None
    table = features[(features.contrast == ALL) & np.isfinite(features.d_z) & (features.p > 0)]
    if table.empty:
        return None
    title = "Effect size and p of every feature tested: emotional texts against their neutral twins"
    n_pairs = int(table.n_pairs.max())
    flipped = (
        f"{plural(summary.n_clusters_discovery, 'scene group')} ({n_pairs} pairs)"
        if summary.unit == "cluster"
        else plural(n_pairs, "pair")
    )
    caption = (
        f"Each dot is one of {plural(len(table), 'feature')}. Right: more active on emotional "
        "texts than on their neutral twins; left: less. Higher: less likely under chance "
        f"(permutation that flips the sign of {flipped}, discovery part). The dotted line is "
        "the smallest p that this number of texts can give. Only features that hold on other "
        "scenes count as confirmed."
    )
    n_hits = int(table.confirmed.sum())
    alt = f"Volcano plot of {len(table)} features; {n_hits} confirmed."

    def draw(*, narrow: bool) -> Figure:
        figure = canvas(title, narrow=narrow, height=4.4 if narrow else 4.1)
        axes = figure.add_subplot()
        dress(axes, subtitle=f"n = {n_pairs} pairs, discovery part; control: the neutral twin")
        _volcano_points(axes, table, summary)
        axes.set_xlabel("effect size d_z (emotional − neutral)")
        axes.set_ylabel("−log₁₀ p")
        legend(figure, axes, narrow=narrow)
        return figure

    return FigureSpec("volcano", title, caption, alt, draw)


def _volcano_points(axes: Axes, table: pd.DataFrame, summary: SearchSummary) -> None:
    significant = table.p_fwer <= summary.alpha
    groups = (
        (table[~significant & ~table.confirmed], THEME.faint, "o", 9, "not significant"),
        (
            table[significant & ~table.confirmed],
            THEME.blue,
            "o",
            16,
            f"family-wise p ≤ {summary.alpha:g} in discovery only",
        ),
        (table[table.confirmed], THEME.red, "D", 34, "confirmed on other scenes"),
    )
    for part, colour, marker, size, label in groups:
        cloud(axes, part.d_z, -np.log10(part.p), label, s=size, c=colour, marker=marker, alpha=0.9)
    smallest = summary.min_p.get(ALL)
    if smallest:
        axes.axhline(-np.log10(smallest), color=THEME.muted, linestyle=":", linewidth=1)
    axes.axvline(0, color=THEME.faint, linewidth=0.8)
    for row in table[table.confirmed].nsmallest(1, "rank").itertuples():
        axes.annotate(
            f"feature {row.feature}",
            (row.d_z, -np.log10(row.p)),
            textcoords="offset points",
            xytext=(-5 if row.d_z < 0 else 5, 7),
            fontsize=8,
            color=THEME.ink,
            ha="left" if row.d_z < 0 else "right",
        )
        axes.set_ylim(top=1.1 * axes.get_ylim()[1])  # room for the label


def best_feature(data: RunData) -> FigureSpec | None:
    """Activation on each emotional text against its twin, for the leading feature."""
    if data.pooled is None or data.features is None or data.summary is None:
        return None
    known = data.features[
        (data.features.contrast == ALL) & data.features.feature.isin(data.pooled.feature)
    ]
    if known.empty:
        return None
    best = best_first(known).iloc[0]
    pairs = data.pooled[data.pooled.feature == best.feature]
    status = "confirmed" if best.confirmed else "the best candidate, not confirmed"
    title = f"Feature {int(best.feature)} ({status}), pair by pair"
    above = pairs[pairs.clinical > pairs.neutral]
    held = int((pairs.part == "confirmation").sum())
    held_above = int((above.part == "confirmation").sum())
    caption = (
        f"Each dot is one pair: how strongly the feature fires on the emotional text against its "
        f"neutral twin. "
        f"Dots above the line fire more on the emotional text: {len(above)} of {len(pairs)} pairs, "
        f"{held_above} of {held} among the scenes kept aside (filled)."
    )

    def draw(*, narrow: bool) -> Figure:
        figure = canvas(title, narrow=narrow, height=4.5 if narrow else 4.3)
        axes = figure.add_subplot()
        dress(axes, subtitle=f"n = {len(pairs)} pairs; control: the neutral twin")
        _pair_points(axes, pairs)
        legend(figure, axes, narrow=narrow)
        return figure

    return FigureSpec(
        "best_feature",
        title,
        caption,
        f"Scatter of {len(pairs)} pairs, {len(above)} above the diagonal.",
        draw,
    )


def _pair_points(axes: Axes, pairs: pd.DataFrame) -> None:
    for part, filled in (("discovery", False), ("confirmation", True)):
        rows = pairs[pairs.part == part]
        axes.scatter(
            rows.neutral,
            rows.clinical,
            s=34,
            facecolors=THEME.red if filled else "none",
            edgecolors=THEME.red if filled else THEME.blue,
            linewidths=1.1,
            label=f"{part} ({len(rows)})",
        )
    top = float(max(pairs.neutral.max(), pairs.clinical.max(), 1e-6)) * 1.07
    right = max(float(pairs.neutral.max()) * 1.1, 0.4 * top)
    axes.plot([0, top], [0, top], color=THEME.muted, linewidth=0.9, linestyle="--")
    axes.annotate(
        "same on both",
        (0.88 * right, 0.88 * right),
        textcoords="offset points",
        xytext=(0, -14),
        fontsize=8,
        color=THEME.muted,
        ha="center",
    )
    axes.set_xlim(-0.03 * right, right)
    axes.set_ylim(-0.03 * top, top)
    axes.set_xlabel("activation on the neutral twin (SAE units)")
    axes.set_ylabel("activation on the emotional text (SAE units)")


def specificity(data: RunData) -> FigureSpec | None:
    """Which emotions drive each chosen feature, as a map."""
    if (
        data.table("validity/matrix") is not None  # its figure shows the same, tested
        or data.specificity is None
        or data.features is None
        or data.summary is None
        or data.specificity.empty
    ):
        return None
    table = last_part(data.specificity)
    part = str(table.part.iloc[0])
    rows = _chosen_rows(data)
    emotions = data.summary.emotions
    grid = shares_of_largest(table, rows, emotions)
    if not rows or not np.isfinite(grid).any():
        return None
    span = " to ".join(str(n) for n in sorted({int(table.n_pairs.min()), int(table.n_pairs.max())}))
    n_text = f"n = {span} pairs a cell, {part} part; control: the neutral twin"
    title = "A feature of one emotion would light up in one column"
    caption = (
        f"Rows: the best {ROWS_PER_CONTRAST} features of each search (✓ confirmed). Colour: "
        f"emotional minus neutral "
        f"activation on that emotion’s pairs, as a share of the largest in the row; measured on "
        f"the {part} part. The "
        "framed cell is the emotion the feature was chosen for. Hatched: no pairs. Cells rest on "
        "few pairs each."
    )

    def draw(*, narrow: bool) -> Figure:
        figure = canvas(title, narrow=narrow, height=1.7 + 0.25 * len(rows))
        axes = figure.add_subplot()
        dress(axes, subtitle="" if narrow else n_text, grid="")
        heat_map(axes, grid, rows, emotions, narrow=narrow)
        return figure

    return FigureSpec(
        "specificity",
        title,
        caption,
        f"Heat map of {len(rows)} features by {len(emotions)} emotions.",
        draw,
    )


def _chosen_rows(data: RunData) -> list[MapRow]:
    assert data.features is not None and data.specificity is not None and data.summary is not None
    measured = set(zip(data.specificity.selected_for, data.specificity.feature))
    rows = []
    for contrast in [ALL, *data.summary.emotions]:
        table = data.features[data.features.contrast == contrast]
        table = table[[(contrast, f) in measured for f in table.feature]]
        best = best_first(table).head(ROWS_PER_CONTRAST)
        rows += [(contrast, int(r.feature), bool(r.confirmed)) for r in best.itertuples()]
    return rows


def training(data: RunData) -> FigureSpec | None:
    """Held-out FVU while the SAE was trained."""
    points = [] if data.metrics is None else _history(data.metrics)
    if len(points) < 2:
        return None
    title = "SAE training: variance left unexplained on held-out text"
    caption = "A curve that is still falling at the end means that more training would help."

    def draw(*, narrow: bool) -> Figure:
        figure = canvas(title, narrow=narrow, height=2.9)
        axes = figure.add_subplot()
        dress(
            axes,
            subtitle=f"n = "
            f"{plural(data.metrics.n_heldout_tokens, 'held-out token') if data.metrics else ''}",
        )
        axes.plot(*zip(*points), color=THEME.blue, linewidth=1.8)
        axes.set_ylim(0, max(1e-3, min(1.0, max(v for _, v in points) * 1.1)))
        axes.set_xlabel("activation vectors seen (millions)")
        axes.set_ylabel("FVU (share of variance)")
        return figure

    return FigureSpec(
        "sae_training",
        title,
        caption,
        f"FVU falls from {points[0][1]:.2f} to {points[-1][1]:.2f}.",
        draw,
    )


def _history(metrics: SAEMetrics) -> list[tuple[float, float]]:
    key = next((k for k in _STEPS if metrics.history and k in metrics.history[0]), None)
    if key is None:
        return []
    rows = [(h[key], h["fvu"]) for h in metrics.history if key in h and "fvu" in h]
    largest = max((x for x, _ in rows), default=0.0)
    # A history counted in steps ends far below the samples seen: scale it to them.
    scale = metrics.n_training_samples / largest if key == "step" and largest else 1.0
    return [(x * scale / 1e6, fvu) for x, fvu in rows]
