"""Do the chosen features beat their matched random controls? One verdict an emotion and
intervention.

The unit of inference is the emotion x domain cluster. Per text the advantage is the effect of the
chosen set minus the mean effect of the random sets, signed so that positive is the side predicted
beforehand (ablation lowers the readout, a clamp raises it). The p is a one-sided sign flip over
clusters, enumerated exactly up to 2^16 flips, Holm-adjusted over the emotions within an
intervention (Holm 1979). A verdict also asks that the chosen set is stronger than every random set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.errors import ConfigError
from affectlens.features.results import VERDICT_COLUMNS

_EXACT_UNITS = 16
_CHUNK = 4096


@dataclass(frozen=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float


def cluster_sums(
    values: npt.NDArray[np.float64], clusters: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Sum of `values` [n] in each cluster: [n_clusters], clusters in sorted order."""
    names, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(inverse, weights=values, minlength=len(names))


def one_sided_sign_flip(
    values: npt.NDArray[np.float64],
    clusters: Sequence[str],
    n_permutations: int,
    rng: np.random.Generator,
) -> float:
    """P of a sum at least as large as observed when each cluster's sign is flipped at random.

    Exact (all flips, the identity among them) up to 16 clusters, else Monte Carlo with the +1 rule
    (Phipson and Smyth 2010).
    """
    if len(values) == 0:
        raise ConfigError("a sign-flip test needs at least one value")
    sums = cluster_sums(values, clusters)
    n = len(sums)
    tolerance = 1e-12 * max(1.0, float(np.abs(sums).sum()))
    observed = float(sums.sum())
    if n <= _EXACT_UNITS:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean((1 - 2 * bits) @ sums >= observed - tolerance))
    hits = 0
    edges = [*range(0, n_permutations, _CHUNK), n_permutations]
    for start, stop in pairwise(edges):
        signs = rng.integers(0, 2, size=(stop - start, n)) * 2 - 1
        hits += int(np.sum(signs @ sums >= observed - tolerance))
    return (1 + hits) / (1 + n_permutations)


def bootstrap_interval(
    values: npt.NDArray[np.float64],
    clusters: Sequence[str],
    n_bootstrap: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of the mean when whole clusters are resampled.

    With one cluster there is nothing to resample: both ends are NaN.
    """
    sums = cluster_sums(values, clusters)
    counts = cluster_sums(np.ones(len(values)), clusters)
    if len(sums) < 2:
        return Interval(float("nan"), float("nan"))
    draw = rng.integers(0, len(sums), size=(n_bootstrap, len(sums)))
    means = sums[draw].sum(1) / counts[draw].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def holm(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm step-down adjusted p values, in the order given."""
    order = np.argsort(p, kind="stable")
    n = len(p)
    scaled = np.maximum.accumulate((n - np.arange(n)) * p[order])
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """The chosen set's and the random sets' effects on the same texts.

    Attributes:
        emotion: readout measured.
        intervention: which.
        chosen: [n_texts] effect in nats.
        random: [n_sets, n_texts] effects of the matched random sets.
        clusters: cluster of each text.
    """

    emotion: str
    intervention: str
    chosen: npt.NDArray[np.float64]
    random: npt.NDArray[np.float64]
    clusters: tuple[str, ...]


def predicted_sign(intervention: str) -> int:
    """+1 where the intervention should raise the readout, -1 where it should lower it."""
    return -1 if intervention.startswith("ablate") else 1


def verdict_table(
    comparisons: Sequence[Comparison],
    *,
    alpha: float,
    n_permutations: int,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """One row a comparison with the columns `VERDICT_COLUMNS`."""
    rows = []
    for c in comparisons:
        sign = predicted_sign(c.intervention)
        advantage = sign * (c.chosen - c.random.mean(0))
        interval = bootstrap_interval(advantage, c.clusters, n_bootstrap, rng)
        sets = c.random.mean(1)
        effect = float(c.chosen.mean())
        stronger = int(np.sum(sign * sets >= sign * effect))
        rows.append(
            {
                "emotion": c.emotion,
                "intervention": c.intervention,
                "direction": "raise" if sign > 0 else "lower",
                "effect": effect,
                "random_mean": float(sets.mean()),
                "random_low": float(sets.min()),
                "random_high": float(sets.max()),
                "n_random": len(sets),
                "advantage": float(advantage.mean()),
                "advantage_low": interval.low,
                "advantage_high": interval.high,
                "rank_p": (1 + stronger) / (1 + len(sets)),
                "p": one_sided_sign_flip(advantage, c.clusters, n_permutations, rng),
                "p_holm": float("nan"),
                "beats_random": False,
                "n_items": len(advantage),
                "n_clusters": len(set(c.clusters)),
            }
        )
    table = pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
    for _, group in table.groupby("intervention"):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy())
    strongest = table["rank_p"] <= 1 / (1 + table["n_random"])
    table["beats_random"] = (table["p_holm"] <= alpha) & strongest
    return table
