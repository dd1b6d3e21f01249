"""Effects of matched pairs, feature by feature: how large, how often, how consistent.

Units (pairs) are in the rows and features in the columns; a one-dimensional array is one feature.
p values given here (`presence`, `wilcoxon`) take the pairs as independent. Where pairs share a
cluster (a scenario, an author) these p are too small: use them to describe a feature, and
`features.permutation` over clusters to claim one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy import stats as scipy_stats

from affectlens.features.permutation import StatisticsError, as_columns

__all__ = [
    "Icc",
    "Magnitude",
    "Presence",
    "auroc",
    "auroc_paired",
    "cluster_codes",
    "cluster_means",
    "cluster_totals",
    "d_z",
    "design_effect",
    "hedges_factor",
    "hedges_g",
    "icc",
    "magnitude",
    "mean_diff",
    "paired_differences",
    "presence",
    "wins",
]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_FLAT = 1e-12
"""Spread below this share of the mean is rounding error of equal differences."""
_COLUMNS = 2048
"""Features ranked at once, so that ranks of many features do not fill the memory."""


@dataclass(frozen=True, eq=False)
class Presence:
    """Whether a feature fires, clinical against neutral; arrays are [n_features].

    Attributes:
        difference: share of pairs active in the clinical member minus share active in the neutral.
        p: exact two-sided sign test over the discordant pairs (McNemar 1947).
        n_clinical_only: pairs active in the clinical member alone.
        n_neutral_only: pairs active in the neutral member alone.
        n_both: pairs active in both.
        n_pairs: all pairs.
    """

    difference: Array
    p: Array
    n_clinical_only: Counts
    n_neutral_only: Counts
    n_both: Counts
    n_pairs: int


@dataclass(frozen=True, eq=False)
class Magnitude:
    """Paired difference where both members are active; arrays are [n_features].

    Attributes:
        mean: mean difference over those pairs, NaN where there are none.
        n: number of those pairs.
        n_pairs: all pairs.
    """

    mean: Array
    n: Counts
    n_pairs: int


@dataclass(frozen=True, eq=False)
class Icc:
    """Intraclass correlation of pair differences; `value` is [n_features].

    Attributes:
        value: ICC(1), NaN where it is not defined (see `icc`).
        sizes: pairs in each cluster, clusters in sorted order.
    """

    value: Array
    sizes: tuple[int, ...]


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
    # Scaling by a power of two is exact; squares then neither vanish nor overflow.
    d = np.ldexp(d, -np.frexp(np.abs(d).max(axis=0))[1])
    mean, sd = d.mean(axis=0), d.std(axis=0, ddof=1)
    flat = sd <= _FLAT * np.maximum(np.abs(mean), np.finfo(float).tiny)
    safe = np.where(flat, 1.0, sd)
    return np.asarray(np.where(flat, np.nan, hedges_factor(len(d) - 1) * mean / safe))


def hedges_g(first: npt.ArrayLike, second: npt.ArrayLike) -> Array:
    """Difference of two means over the pooled standard deviation, Hedges-corrected: [n_features].

    g = J(df) (mean first - mean second) / sqrt((SS1 + SS2) / df) with SS the sums of squares within
    the groups, df = n1 + n2 - 2 and J of `hedges_factor` (Hedges 1981).

    Args:
        first: [n_first, n_features].
        second: [n_second, n_features].

    Returns:
        NaN below df = 2, for an empty group, and where neither group varies.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    df = len(a) + len(b) - 2
    if df < 2 or not len(a) or not len(b):
        return np.full(a.shape[1:], np.nan)
    within = ((a - a.mean(axis=0)) ** 2).sum(axis=0) + ((b - b.mean(axis=0)) ** 2).sum(axis=0)
    sd = np.sqrt(within / df)
    varies = sd > _FLAT * np.maximum(np.abs(a).max(axis=0), np.abs(b).max(axis=0))
    safe = np.where(varies, sd, 1.0)
    return np.where(varies, hedges_factor(df) * (a.mean(axis=0) - b.mean(axis=0)) / safe, np.nan)


def wins(differences: npt.ArrayLike) -> Array:
    """1 for a difference above zero, one half for a tie, else 0; of the same shape."""
    d = np.asarray(differences, dtype=float)
    return np.asarray((d > 0) + 0.5 * (d == 0))


def auroc_paired(differences: npt.ArrayLike) -> Array:
    """Share of pairs with clinical above neutral, ties one half: [n_features]; NaN without rows."""
    d = np.asarray(differences, dtype=float)
    if len(d) == 0:
        return np.full(d.shape[1:], np.nan)
    return np.asarray((d > 0).mean(axis=0) + 0.5 * (d == 0).mean(axis=0))


def auroc(clinical: npt.ArrayLike, neutral: npt.ArrayLike) -> Array:
    """Chance that a random clinical item lies above a random neutral one, ties one half.

    The pairing is ignored: AUROC = U / (n_c n_n) with the Mann-Whitney U from mid-ranks over both
    groups (Hanley and McNeil 1982). Ranks are halves of integers, so their sums are exact.

    Args:
        clinical: [n_clinical, n_features].
        neutral: [n_neutral, n_features]; the two numbers of rows may differ.

    Returns:
        [n_features], or a scalar array for one-dimensional input; 0.5 for a constant feature.

    Raises:
        StatisticsError: a group has no rows, the numbers of features differ, or a value is not
            finite.
    """
    a, b = np.asarray(clinical, dtype=float), np.asarray(neutral, dtype=float)
    if a.ndim != b.ndim or a.shape[1:] != b.shape[1:]:
        raise StatisticsError(
            f"clinical has shape {a.shape}, neutral {b.shape}; need the same features"
        )
    x, y = as_columns(a, "clinical"), as_columns(b, "neutral")
    out = np.empty(x.shape[1])
    for start in range(0, x.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        ranks = scipy_stats.rankdata(np.concatenate([x[:, part], y[:, part]]), axis=0)
        out[part] = ranks[: len(x)].sum(axis=0) - len(x) * (len(x) + 1) / 2
    return (out / (len(x) * len(y))).reshape(a.shape[1:])


def presence(clinical: npt.ArrayLike, neutral: npt.ArrayLike) -> Presence:
    """Contrast of firing (activation above zero) over pairs, with the exact sign test.

    Of the discordant pairs (one member active), the number with the clinical member active is
    binomial with one half under the null. p = min(1, 2 P(X <= min(b, c))) with b and c the two
    counts (McNemar 1947 in its exact form); 1 without discordant pairs.

    Args:
        clinical: [n_pairs, n_features] activations.
        neutral: the same shape, row by row the partner.

    Raises:
        StatisticsError: shapes differ, no pairs, or a value is not finite.
    """
    a, b = _members(clinical, neutral)
    only_a, only_b = (a & ~b).sum(axis=0), (b & ~a).sum(axis=0)
    lower = scipy_stats.binom.cdf(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    return Presence(
        (only_a - only_b) / len(a),
        np.asarray(np.minimum(1.0, 2 * lower)),
        only_a,
        only_b,
        (a & b).sum(axis=0),
        len(a),
    )


def magnitude(clinical: npt.ArrayLike, neutral: npt.ArrayLike) -> Magnitude:
    """Mean paired difference over the pairs in which both members are active (above zero).

    Together with `presence` this splits a difference of a sparse feature into whether it fires and
    how strongly. It conditions on an outcome (firing), so it describes; it is no causal contrast.

    Args:
        clinical: [n_pairs, n_features] activations.
        neutral: the same shape, row by row the partner.

    Raises:
        StatisticsError: shapes differ, no pairs, or a value is not finite.
    """
    d = as_columns(paired_differences(clinical, neutral), "differences")
    a, b = _members(clinical, neutral)
    n = (a & b).sum(axis=0)
    total = np.where(a & b, d, 0.0).sum(axis=0)
    return Magnitude(np.where(n > 0, total / np.maximum(n, 1), np.nan), n, len(d))


def cluster_codes(clusters: Sequence[str], n_rows: int) -> tuple[Counts, int]:
    """Cluster number of each row (clusters in sorted order) and the number of clusters.

    Raises:
        StatisticsError: the number of labels is not the number of rows.
    """
    if len(clusters) != n_rows:
        raise StatisticsError(f"got {len(clusters)} cluster labels for {n_rows} rows")
    names, codes = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    return codes.astype(np.int64), len(names)


def cluster_totals(differences: npt.ArrayLike, clusters: Sequence[str]) -> Array:
    """Sum the rows of each cluster: [n_clusters, n_features], clusters in sorted order.

    Sums rather than means, so that a test on them weighs pairs equally.

    Raises:
        StatisticsError: the number of labels is not the number of rows.
    """
    d = np.asarray(differences, dtype=float)
    codes, n = cluster_codes(clusters, len(d))
    out = np.zeros((n, *d.shape[1:]))
    np.add.at(out, codes, d)
    return out


def cluster_means(differences: npt.ArrayLike, clusters: Sequence[str]) -> Array:
    """Mean over the rows of each cluster: [n_clusters, n_features], clusters in sorted order.

    Raises:
        StatisticsError: the number of labels is not the number of rows.
    """
    totals = cluster_totals(differences, clusters)
    codes, n = cluster_codes(clusters, len(clusters))
    sizes = np.bincount(codes, minlength=n)
    return np.asarray(totals / sizes.reshape(n, *[1] * (totals.ndim - 1)))


def icc(differences: npt.ArrayLike, clusters: Sequence[str]) -> Icc:
    """One-way intraclass correlation ICC(1) of pair differences within clusters.

    The ANOVA estimator (Fisher 1925; for unequal sizes Donner and Koval 1980, Biometrics 36:19):

        icc = (MSB - MSW) / (MSB + (k0 - 1) MSW),   k0 = (N - sum k_c^2 / N) / (n_clusters - 1)

    with the mean squares between and within clusters of k_c pairs. It can be negative, down to
    -1 / (k0 - 1), and is not cut at zero: cutting would bias a mean over features upwards.

    Args:
        differences: [n_pairs, n_features].
        clusters: [n_pairs] cluster of each pair.

    Returns:
        Icc; NaN with one cluster, with clusters of one pair each, and for a constant feature.

    Raises:
        StatisticsError: no pairs, a value is not finite, or labels do not match the rows.
    """
    x = as_columns(np.asarray(differences, dtype=float), "differences")
    codes, k = cluster_codes(clusters, len(x))
    n, sizes = len(x), np.bincount(codes, minlength=k)
    tuple_sizes = tuple(int(s) for s in sizes)
    if k < 2 or n == k:
        return Icc(np.full(x.shape[1], np.nan), tuple_sizes)
    # Scaled, so that squares of very small or large activations neither vanish nor overflow.
    top = np.abs(x).max(axis=0)
    x = x / np.where(top > 0, top, 1.0)
    means = cluster_means(x, clusters)
    between = (sizes[:, None] * (means - x.mean(axis=0)) ** 2).sum(axis=0) / (k - 1)
    within = ((x - means[codes]) ** 2).sum(axis=0) / (n - k)
    k0 = (n - float((sizes**2).sum()) / n) / (k - 1)
    spread = between + (k0 - 1) * within
    defined = spread > _FLAT**2
    value = np.where(defined, (between - within) / np.where(defined, spread, 1.0), np.nan)
    return Icc(value, tuple_sizes)


def design_effect(icc_value: npt.ArrayLike, sizes: Sequence[float]) -> Array:
    """Variance of the mean over pairs, relative to the same number of independent pairs.

    1 + (sum k_c^2 / N - 1) icc for clusters of k_c pairs, N in all (Kish 1965; for
    unequal sizes Donner, Birkett and Buck 1981). N / design effect is the effective number of
    pairs.

    Args:
        icc_value: intraclass correlations of any shape; NaN stays NaN.
        sizes: pairs in each cluster; a single number for clusters of that (mean) size.

    Raises:
        StatisticsError: no clusters, or one with fewer than one pair.
    """
    k = np.asarray(sizes, dtype=float)
    if k.size == 0 or bool((k < 1).any()):
        raise StatisticsError(f"got cluster sizes {list(sizes)}; each cluster needs a pair")
    return 1 + (float((k**2).sum() / k.sum()) - 1) * np.asarray(icc_value, dtype=float)


def _members(
    clinical: npt.ArrayLike, neutral: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    paired_differences(clinical, neutral)  # only for its checks of shapes and values
    a = as_columns(np.asarray(clinical, dtype=float), "clinical")
    b = as_columns(np.asarray(neutral, dtype=float), "neutral")
    return a > 0, b > 0
