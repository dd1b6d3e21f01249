"""Power of the paired test: what effect a design can find, before anything is looked at.

Effects are d_z, the mean difference in standard deviations of single pair differences. All tests
are two-sided t tests, Bonferroni-corrected for `m` features. The permutation tests of
`features.permutation` have about the same power, except that with very few units their smallest
attainable p (`min_attainable_p`) may exceed the corrected level; then they find nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy import stats as scipy_stats

from affectlens.features.effect_sizes import design_effect
from affectlens.features.permutation import StatisticsError

__all__ = [
    "detectable_with_clusters",
    "lowest_icc",
    "min_detectable_between",
    "min_detectable_d_z",
    "power_t",
]

Array = npt.NDArray[np.float64]


def power_t(d_z: npt.ArrayLike, n: int, m: int = 1, alpha: float = 0.05) -> Array:
    """Power of the two-sided one-sample t test on `n` independent units at effect `d_z`.

    1 - power is the noncentral t distribution (n - 1 degrees of freedom, noncentrality
    d_z sqrt(n)) between the critical values of level alpha / m (Cohen 1988, chapter 2). Both tails
    count, so the power at d_z = 0 is alpha / m.

    Args:
        d_z: effects of any shape.
        n: units; the answer is NaN below two.
        m: tests that alpha is divided by.
        alpha: two-sided family-wise level.

    Returns:
        Power of the shape of `d_z`.

    Raises:
        StatisticsError: m below 1, alpha outside (0, 1), or an effect that is not finite.
    """
    _check(m, alpha, 0.5)
    effect = np.asarray(d_z, dtype=float)
    if not bool(np.isfinite(effect).all()):
        raise StatisticsError("d_z holds NaN or infinite effects; give finite ones")
    if n < 2:
        return np.full(effect.shape, np.nan)
    critical = scipy_stats.t.isf(alpha / m / 2, n - 1)
    shift = np.abs(effect) * np.sqrt(n)
    along = scipy_stats.nct.sf(critical, n - 1, shift)
    # The other tail mirrored: SciPy's nct.cdf(-critical, shift) is NaN for some large shifts.
    against = scipy_stats.nct.sf(critical, n - 1, -shift)
    return np.asarray(np.minimum(along + against, 1.0))


def min_detectable_d_z(n: int, m: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest d_z that a two-sided one-sample t test on `n` units finds with `power`.

    `m` tests are Bonferroni-corrected. Uses the noncentral t distribution. NaN for fewer than two
    units; infinite where no effect below 1000 reaches the power.

    Raises:
        StatisticsError: m below 1, or alpha or power outside (0, 1).
    """
    _check(m, alpha, power)
    if n < 2:
        return float("nan")
    return _smallest_effect(n - 1, float(np.sqrt(n)), alpha / m, power)


def min_detectable_between(
    n_own: int, n_other: int, m: int, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest standardised difference of two groups that a two-sided t test finds with `power`.

    Noncentral t with n_own + n_other - 2 degrees of freedom and noncentrality
    d sqrt(n_own n_other / (n_own + n_other)) (Cohen 1988, chapter 2), Bonferroni-corrected for `m`
    tests. NaN for an empty group or fewer than three units; infinite where no effect below 1000
    reaches the power.

    Raises:
        StatisticsError: m below 1, or alpha or power outside (0, 1).
    """
    _check(m, alpha, power)
    df = n_own + n_other - 2
    if min(n_own, n_other) < 1 or df < 1:
        return float("nan")
    root = float(np.sqrt(n_own * n_other / (n_own + n_other)))
    return _smallest_effect(df, root, alpha / m, power)


def lowest_icc(size: float) -> float:
    """The lowest intraclass correlation that clusters of `size` units can have.

    -1 / (size - 1), where the totals of the clusters do not vary; -inf for single units, which have
    no such correlation.
    """
    return -1 / (size - 1) if size > 1 else -np.inf


def detectable_with_clusters(
    n_pairs: int,
    n_clusters: int,
    icc: float,
    m: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Smallest d_z of single pairs that a test over cluster means finds with `power`.

    With k = n_pairs / n_clusters pairs a cluster, the mean of a cluster has the variance of a pair
    times (1 + (k - 1) icc) / k (`design_effect` over k; Donner and Klar 2000). So

        d_z(pairs) = min_detectable_d_z(n_clusters, m) * sqrt((1 + (k - 1) icc) / k).

    icc = 1 leaves as many units as clusters. icc = 0 leaves as many as pairs, tested with the
    degrees of freedom of the clusters. Clusters are taken as equal in size; with unequal ones the
    truth is somewhat larger.

    Args:
        n_pairs: pairs in all.
        n_clusters: clusters they lie in; NaN below two.
        icc: intraclass correlation of pair differences within a cluster (`effect_sizes.icc`).
        m: features that are tested.
        alpha: two-sided family-wise level.
        power: wanted power.

    Returns:
        d_z in standard deviations of single pair differences; infinite where
        `min_detectable_d_z` is.

    Raises:
        StatisticsError: as `min_detectable_d_z`; fewer pairs than clusters; icc is NaN or outside
            the values possible, -1 / (k - 1) to 1.
    """
    if n_clusters > n_pairs or n_pairs < 1 or n_clusters < 1:
        raise StatisticsError(
            f"got n_pairs={n_pairs} in n_clusters={n_clusters}; need at least a pair a cluster"
        )
    size = n_pairs / n_clusters
    lowest = lowest_icc(size)
    if not lowest <= icc <= 1:
        raise StatisticsError(
            f"icc is {icc}; with {size:g} pairs a cluster it lies within {lowest:.3g}..1"
        )
    effect = float(design_effect(icc, [size])) if size > 1 else 1.0
    units = min_detectable_d_z(n_clusters, m, alpha, power)
    # At the lowest icc the cluster means do not vary, and any effect is found.
    return float(units * np.sqrt(max(effect, 0.0) / size)) if np.isfinite(units) else units


def _smallest_effect(df: int, root: float, level: float, power: float) -> float:
    """Effect d at which a t of `df` degrees of freedom and noncentrality d * root has `power`."""
    critical = scipy_stats.t.isf(level / 2, df)

    def lacking(d: float) -> float:
        # The tail against the effect is below half the level; it does not matter at useful power.
        return float(scipy_stats.nct.sf(critical, df, d * root)) - power

    high = 0.5
    while not lacking(high) > 0:
        high *= 2
        if high > 1000:
            return float("inf")
    return float(optimize.brentq(lacking, 0.0, high, xtol=1e-6))


def _check(m: int, alpha: float, power: float) -> None:
    if m < 1 or not 0 < alpha < 1 or not 0 < power < 1:
        raise StatisticsError(
            f"got m={m}, alpha={alpha}, power={power}; need m >= 1 and alpha, power within (0, 1)"
        )
