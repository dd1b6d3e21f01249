"""Statistics of matched pairs: effects, corrections, power, intervals.

Everything is NumPy and SciPy and serves as the definition. The permutation tests live in
`features.permutation` and are offered here too. Arrays put units (pairs or clusters) in the rows
and features in the columns; a one-dimensional array is one feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special
from scipy import stats as scipy_stats

from affectlens.features.permutation import (
    LabelPermutation,
    SignFlip,
    StatisticsError,
    as_columns,
    label_permutation,
    min_attainable_p,
    sign_flip,
)

__all__ = [
    "Interval",
    "LabelPermutation",
    "SignFlip",
    "StatisticsError",
    "auroc_paired",
    "bh",
    "cluster_bootstrap",
    "cluster_totals",
    "d_z",
    "hedges_factor",
    "holm",
    "label_permutation",
    "mean_diff",
    "min_attainable_p",
    "min_detectable_d_z",
    "paired_differences",
    "sign_flip",
]

Array = npt.NDArray[np.float64]

_FLAT = 1e-12
"""Spread below this share of the mean is rounding error of equal differences."""


@dataclass(frozen=True)
class Interval:
    """An estimate with a percentile interval; `low` and `high` are NaN below two clusters."""

    estimate: float
    low: float
    high: float
    level: float
    n_clusters: int


def paired_differences(clinical: npt.ArrayLike, neutral: npt.ArrayLike) -> Array:
    """Clinical minus neutral, row by row, in float64: [n_pairs, n_features] or [n_pairs].

    Raises:
        StatisticsError: shapes differ, no pairs, or a value is not finite.
    """
    a, b = np.asarray(clinical, dtype=float), np.asarray(neutral, dtype=float)
    if a.shape != b.shape:
        raise StatisticsError(
            f"clinical has shape {a.shape}, neutral {b.shape}; pairs need equal shapes"
        )
    as_columns(a, "clinical")
    as_columns(b, "neutral")
    return a - b


def mean_diff(differences: npt.ArrayLike) -> Array:
    """Mean over the rows: [n_features] (or a scalar array); NaN without rows."""
    d = np.asarray(differences, dtype=float)
    return np.full(d.shape[1:], np.nan) if len(d) == 0 else np.asarray(d.mean(axis=0))


def hedges_factor(df: int) -> float:
    """Exact small-sample correction of a standardised mean (Hedges 1981); NaN below df = 2.

    With one degree of freedom the factor is 0 by limit, and no unbiased estimate exists.
    """
    if df < 2:
        return float("nan")
    log = special.gammaln(df / 2) - special.gammaln((df - 1) / 2)
    return float(np.exp(log) / np.sqrt(df / 2))


def d_z(differences: npt.ArrayLike) -> Array:
    """Mean over standard deviation (n - 1) of differences, Hedges-corrected: [n_features].

    NaN for fewer than three rows (see `hedges_factor`) and where all differences are equal.
    """
    d = np.asarray(differences, dtype=float)
    if len(d) < 3:
        return np.full(d.shape[1:], np.nan)
    mean, sd = d.mean(axis=0), d.std(axis=0, ddof=1)
    flat = sd <= _FLAT * np.maximum(np.abs(mean), np.finfo(float).tiny)
    safe = np.where(flat, 1.0, sd)
    return np.asarray(np.where(flat, np.nan, hedges_factor(len(d) - 1) * mean / safe))


def auroc_paired(differences: npt.ArrayLike) -> Array:
    """Share of pairs with clinical above neutral, ties one half: [n_features]; NaN without rows."""
    d = np.asarray(differences, dtype=float)
    if len(d) == 0:
        return np.full(d.shape[1:], np.nan)
    return np.asarray((d > 0).mean(axis=0) + 0.5 * (d == 0).mean(axis=0))


def cluster_totals(differences: npt.ArrayLike, clusters: Sequence[str]) -> Array:
    """Sum the rows of each cluster: [n_clusters, n_features], clusters in sorted order.

    Sums rather than means, so that a test on them weighs pairs equally.

    Raises:
        StatisticsError: the number of labels is not the number of rows.
    """
    d = np.asarray(differences, dtype=float)
    codes, n = _codes(clusters, len(d))
    out = np.zeros((n, *d.shape[1:]))
    np.add.at(out, codes, d)
    return out


def bh(p: npt.ArrayLike) -> Array:
    """Benjamini-Hochberg adjusted p over all entries (Benjamini and Hochberg 1995).

    Raises:
        StatisticsError: an entry is not within 0..1 (NaN included).
    """
    values = _p_values(p)
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    ranks = np.arange(1, flat.size + 1)
    adjusted = np.minimum.accumulate((flat[order] * flat.size / ranks)[::-1])[::-1]
    out = np.empty_like(flat)
    out[order] = np.minimum(adjusted, 1.0)
    return out.reshape(values.shape)


def holm(p: npt.ArrayLike) -> Array:
    """Holm adjusted p over all entries (Holm 1979); controls the family-wise error.

    Raises:
        StatisticsError: an entry is not within 0..1 (NaN included).
    """
    values = _p_values(p)
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    adjusted = np.maximum.accumulate(flat[order] * (flat.size - np.arange(flat.size)))
    out = np.empty_like(flat)
    out[order] = np.minimum(adjusted, 1.0)
    return out.reshape(values.shape)


def min_detectable_d_z(n: int, m: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest d_z that a two-sided one-sample t test on `n` units finds with `power`.

    `m` tests are Bonferroni-corrected. Uses the noncentral t distribution. NaN for fewer than two
    units; infinite where no effect below 1000 reaches the power.

    Raises:
        StatisticsError: m below 1, or alpha or power outside (0, 1).
    """
    if m < 1 or not 0 < alpha < 1 or not 0 < power < 1:
        raise StatisticsError(
            f"got m={m}, alpha={alpha}, power={power}; need m >= 1 and alpha, power within (0, 1)"
        )
    if n < 2:
        return float("nan")
    critical = scipy_stats.t.isf(alpha / m / 2, n - 1)

    def lacking(d: float) -> float:
        # The tail against the effect is below alpha / 2m and does not matter at useful power.
        return float(scipy_stats.nct.sf(critical, n - 1, d * np.sqrt(n))) - power

    high = 0.5
    while not lacking(high) > 0:
        high *= 2
        if high > 1000:
            return float("inf")
    return float(optimize.brentq(lacking, 0.0, high, xtol=1e-6))


def cluster_bootstrap(
    values: npt.ArrayLike,
    clusters: Sequence[str],
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of the mean of `values` [n_items], resampling whole clusters.

    Raises:
        StatisticsError: no values, one is not finite, labels do not match, or a bad setting.
    """
    x = as_columns(np.asarray(values, dtype=float), "values")
    if x.shape[1] != 1 or n < 1 or not 0 < level < 1:
        raise StatisticsError(
            f"got values of shape {np.shape(values)}, n={n}, level={level}; "
            "need one dimension, n >= 1 and a level within (0, 1)"
        )
    codes, count = _codes(clusters, len(x))
    estimate = float(x.mean())
    if count < 2:
        return Interval(estimate, float("nan"), float("nan"), level, count)
    totals = np.bincount(codes, weights=x[:, 0], minlength=count)
    sizes = np.bincount(codes, minlength=count)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=n).astype(float)
    means = (weights @ totals) / (weights @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, count)


def _codes(clusters: Sequence[str], n_rows: int) -> tuple[npt.NDArray[np.int64], int]:
    if len(clusters) != n_rows:
        raise StatisticsError(f"got {len(clusters)} cluster labels for {n_rows} rows")
    names, codes = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    return codes.astype(np.int64), len(names)


def _p_values(p: npt.ArrayLike) -> Array:
    values = np.asarray(p, dtype=float)
    if values.size and not bool(np.all((values >= 0) & (values <= 1))):
        raise StatisticsError("p values must lie within 0..1; leave out untested entries (NaN)")
    return values
