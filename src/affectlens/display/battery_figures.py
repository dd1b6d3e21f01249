"""Figures of a battery: lengths within pairs, what words alone tell, words of one side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .look import THEME, axes_of, dress, key_below, row_labels, styled
from .words import on_one_line, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def lengths(pairs: pd.DataFrame, *, battery: str, ax: Axes | None = None) -> Axes:
    """Words of each emotional text against its neutral twin.

    Args:
        pairs: columns words_clinical, words_neutral.
        battery: its name.
        ax: axes to draw on; None makes a figure.
    """
    axes = axes_of(ax, (5.0, 4.8))
    difference = (pairs.words_clinical - pairs.words_neutral).to_numpy(dtype=float)
    mean = f"{difference.mean():+.1f}".replace("-", "−") if len(pairs) else "–"
    dress(
        axes,
        f"Lengths within pairs: {on_one_line(battery)}",
        f"n = {plural(len(pairs), 'pair')}; mean difference {mean} words; on the line both "
        "members are equally long",
        x="neutral twin (words)",
        y="emotional text (words)",
    )
    axes.scatter(pairs.words_neutral, pairs.words_clinical, s=22, color=THEME.blue, alpha=0.5,
                 linewidths=0)  # fmt: skip
    both = pairs[["words_clinical", "words_neutral"]].to_numpy(dtype=float)
    ends = [float(both.min()) - 1, float(both.max()) + 1] if len(pairs) else [0.0, 1.0]
    axes.plot(ends, ends, color=THEME.muted, linestyle=":", linewidth=1)
    return axes


@styled
def controls(
    scores: pd.DataFrame, *, battery: str, threshold: float, n_pairs: int, ax: Axes | None = None
) -> Axes:
    """What words alone tell of a pair: AUROC of each control with its interval.

    Args:
        scores: rows of one grouping, columns meaning, auroc, auroc_low, auroc_high,
            paired_accuracy.
        battery: its name.
        threshold: above it a control is warned of.
        n_pairs: pairs of the battery.
        ax: axes to draw on; None makes a figure.
    """
    rows = scores.sort_values("auroc", ascending=False).reset_index(drop=True)
    axes = axes_of(ax, (8.2, 1.9 + 0.27 * len(rows)))
    dress(
        axes,
        f"What words alone tell: {on_one_line(battery)}",
        f"n = {plural(n_pairs, 'pair')}, clusters left out as a whole; line: 95% interval, cluster "
        f"bootstrap; chance 0.5; warned of above {threshold:g}",
        x="emotional against neutral, 0.5 is chance",
        grid="x",
        room=0.58,
    )
    axes.axvline(0.5, color=THEME.muted, linewidth=0.9)
    axes.axvline(threshold, color=THEME.red, linewidth=1, linestyle=":", label="threshold")
    low, high = (rows[c].astype(float) for c in ("auroc_low", "auroc_high"))
    axes.hlines(rows.index, low, high, color=THEME.blue, linewidth=1.4)
    axes.scatter(rows.auroc, rows.index, s=28, color=THEME.blue, label="AUROC", zorder=3)
    axes.scatter(rows.paired_accuracy, rows.index, s=28, facecolors=THEME.paper,
                 edgecolors=THEME.red, marker="D", label="paired accuracy", zorder=2)  # fmt: skip
    row_labels(axes, [str(m) for m in rows.meaning], limit=48)
    key_below(axes, 3)
    return axes


@styled
def words(
    counts: pd.DataFrame, *, battery: str, n: int, n_pairs: int, ax: Axes | None = None
) -> Axes:
    """Words that stand on one side of pairs only, the most one-sided first.

    Args:
        counts: columns word, clinical_only, neutral_only, p_holm.
        battery: its name.
        n: words.
        n_pairs: pairs of the battery.
        ax: axes to draw on; None makes a figure.
    """
    rows = counts.head(n).reset_index(drop=True)
    axes = axes_of(ax, (6.4, 1.8 + 0.23 * len(rows)))
    dress(
        axes,
        f"Words of one side: {on_one_line(battery)}",
        f"n = {plural(n_pairs, 'pair')}; * p ≤ .05, sign test over pairs, Holm over all one-sided "
        "words; control: a balanced word reaches equally far to both sides",
        x="pairs in which only one member has the word",
        grid="x",
    )
    axes.barh(rows.index, rows.clinical_only, color=THEME.red, label="emotional text only")
    axes.barh(rows.index, -rows.neutral_only, color=THEME.blue, label="neutral twin only")
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    shown = zip(rows.word, rows.p_holm <= 0.05, strict=True)
    row_labels(axes, [f"{word} *" if passed else str(word) for word, passed in shown])
    ticks = [t for t in axes.get_xticks() if float(t).is_integer()]
    axes.set_xticks(ticks, [f"{abs(t):g}" for t in ticks])
    key_below(axes, 2)
    return axes
