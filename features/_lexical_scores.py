"""AUROC and paired accuracy of decision scores, and their bootstrap over clusters.

Rows are ordered clinical 0..n-1, then neutral 0..n-1, so that item i belongs to pair i % n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

_BLOCK = 256


@dataclass(frozen=True)
class Interval:
    """Bounds of the central 95 %."""

    low: float
    high: float


def pair_scores(scores: np.ndarray) -> tuple[float, float]:
    """AUROC and paired accuracy of decision scores [2n], ties counting one half."""
    half = len(scores) // 2
    ranks = rankdata(scores)
    auroc = (ranks[:half].sum() - half * (half + 1) / 2) / (half * half)
    return float(auroc), float(_wins(scores).mean())


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
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    k = len(names)
    if k < 2 or n_boot < 1:
        return None
    sizes = np.bincount(place, minlength=k).astype(float)
    right = np.mean([_wins(s) for s in repeats], axis=0)
    correct = np.bincount(place, weights=right, minlength=k)
    wins = np.mean([_cluster_wins(s, place, k) for s in repeats], axis=0)
    drawn = generator.multinomial(k, np.full(k, 1 / k), size=n_boot).astype(float)
    n = drawn @ sizes
    accuracy = (drawn @ correct) / n
    auroc = np.einsum("bi,bi->b", drawn @ wins, drawn) / n**2
    return _central(auroc), _central(accuracy)


def _wins(scores: np.ndarray) -> np.ndarray:
    """[n]: 1 where the clinical member is higher, 0.5 for a tie."""
    half = len(scores) // 2
    difference = scores[:half] - scores[half:]
    return (difference > 0) + 0.5 * (difference == 0)


def _cluster_wins(scores: np.ndarray, place: np.ndarray, k: int) -> np.ndarray:
    """[k, k]: sum over clinical items of a and neutrals of b of 1 (higher) or 0.5 (tie)."""
    half = len(scores) // 2
    clinical, neutral = scores[:half], scores[half:]
    order = np.argsort(neutral, kind="stable")
    below = np.searchsorted(neutral[order], clinical, side="left")
    upto = np.searchsorted(neutral[order], clinical, side="right")
    out = np.zeros((k, k))
    for start in range(0, k, _BLOCK):
        columns = range(start, min(start + _BLOCK, k))
        member = place[order][:, None] == np.array(columns)
        count = np.concatenate([np.zeros((1, len(columns))), np.cumsum(member, axis=0)])
        won = 0.5 * (count[below] + count[upto])
        np.add.at(out[:, columns.start : columns.stop], place, won)
    return out


def _central(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
