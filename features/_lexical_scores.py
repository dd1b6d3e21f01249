"""AUROC and paired accuracy of decision scores, and their bootstrap over clusters.

Rows are ordered clinical 0..n-1, then neutral 0..n-1, so that item i belongs to pair i % n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectlens.features.effect_sizes import auroc, auroc_paired, cluster_codes, wins
from affectlens.features.heldout_scores import central, cluster_wins, resampled_auroc


@dataclass(frozen=True)
class Interval:
    """Bounds of the central 95 %."""

    low: float
    high: float


def pair_scores(scores: np.ndarray) -> tuple[float, float]:
    """AUROC and paired accuracy of decision scores [2n], ties counting one half."""
    clinical, neutral = np.split(scores, 2)
    return float(auroc(clinical, neutral)), float(auroc_paired(clinical - neutral))


def cluster_bootstrap(
    repeats: Sequence[np.ndarray],
    clusters: Sequence[str],
    n_boot: int,
    generator: np.random.Generator,
) -> tuple[Interval, Interval] | None:
    """95 % percentile intervals of AUROC and paired accuracy, clusters drawn with replacement.

    Both numbers of a resample follow from sums within (paired accuracy) and between (AUROC: how
    many neutrals of cluster b does each clinical item of cluster a exceed) clusters, so a resample
    costs a product with a matrix [n_clusters, n_clusters] whatever the number of items.

    Args:
        repeats: decision scores [2n] of each repeat; the statistic is the mean over them.
        clusters: [n] cluster of each pair.
        n_boot: resamples.
        generator: source of the draws.

    Returns:
        The intervals of AUROC and of paired accuracy; None with fewer than two clusters.
    """
    place, k = cluster_codes(clusters, len(clusters))
    if k < 2 or n_boot < 1:
        return None
    sizes = np.bincount(place, minlength=k).astype(float)
    members = [np.split(s, 2) for s in repeats]
    right = np.mean([wins(clinical - neutral) for clinical, neutral in members], axis=0)
    correct = np.bincount(place, weights=right, minlength=k)
    won = np.mean([cluster_wins(c, n, place, place, k) for c, n in members], axis=0)
    # Not `intervals.resample_counts`: the intervals of published cards stay as they are.
    drawn = generator.multinomial(k, np.full(k, 1 / k), size=n_boot).astype(float)
    accuracy = (drawn @ correct) / (drawn @ sizes)
    areas = resampled_auroc(drawn, won, np.outer(sizes, sizes))
    return Interval(*central(areas)), Interval(*central(accuracy))
