"""Sign flips of pairs with a statistic studentised by clusters: the hierarchical unit.

Flipping whole clusters is safe where pairs of a cluster correlate, but 24 clusters allow few
arrangements. Flipping pairs allows 2**n_pairs, but its t takes pairs for independent. Here pairs
are flipped (their exchangeability blocks may be nested in clusters; Winkler et al. 2015, NeuroImage
123) and the statistic is the t over cluster totals,

    t = sqrt((C - 1) / C) T / sqrt(SS - T^2 / C),   T = sum_c s_c,   SS = sum_c s_c^2,

with s_c the sum of cluster c and C clusters. Its variance estimate is right under any correlation
within clusters. A permutation test with such a statistic keeps its level in the limit even where
its permutations do not leave the null unchanged (Janssen 1997; Chung and Romano 2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from affectlens.features._columns import (
    WIDE_SUM_LIMIT,
    Columns,
    Differences,
    fixed_point_scale,
    normalised,
    sparse_columns,
)
from affectlens.features._max_t import Counts, Observed, count_by_definition, p_values
from affectlens.features.effect_sizes import cluster_codes
from affectlens.features.permutation import (
    Alternative,
    Backend,
    check_count,
    one_sample_t,
)
from affectlens.features.permutation_draws import Draws, Rows, sign_draws

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]

_CHUNK = 256
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
"""Ratios this close count as tied; fixed-point rounding moves them by less."""


@dataclass(frozen=True, eq=False)
class ClusterFlip:
    """Result of `cluster_flip`; arrays are [n_features].

    Attributes:
        statistic: one-sample t over cluster totals (0 where their sum is zero, infinite where all
            totals are equal, one cluster included).
        p: of the feature alone.
        p_fwer: step-down max-T over the features.
        p_single_step: single-step max-T over the features; never below `p_fwer`.
        n_units: pairs.
        n_clusters: clusters.
        n_permutations: sign patterns used.
        exact: they are all that exist. Says nothing about the level; see `cluster_flip`.
    """

    statistic: Array
    p: Array
    p_fwer: Array
    p_single_step: Array
    n_units: int
    n_clusters: int
    n_permutations: int
    exact: bool


def cluster_flip(
    differences: Differences,
    clusters: Sequence[str],
    n_permutations: int = 10_000,
    seed: int = 0,
    *,
    alternative: Alternative = "two-sided",
    backend: Backend = "numba",
    threads: int | None = None,
) -> ClusterFlip:
    """Test whether differences have mean zero, flipping pairs, studentised by clusters.

    The level is exact, for any number of pairs and clusters, where every pair may change its sign
    without changing the joint distribution: pairs that are independent and symmetric about zero.
    Where pairs of a cluster correlate, the level is right only in the limit of many independent
    clusters with none dominating; then the mean, not symmetry, is tested. With fewer than about 20
    clusters, or clusters of very unequal size, prefer `sign_flip` on cluster totals as the reported
    test. The family-wise p rests on the same limit, jointly over the features.

    The number of arrangements is 2**n_pairs, but features compete by t with C - 1 degrees of
    freedom: few clusters still mean a heavy tail and little power. With one cluster every
    arrangement is as extreme as any other and p is 1.

    Args:
        differences: [n_pairs, n_features] or [n_pairs], dense or SciPy-sparse.
        clusters: [n_pairs] the cluster of each pair.
        n_permutations: random sign patterns; all 2**n_pairs if that is not more.
        seed: their seed.
        alternative: 'two-sided', or 'greater' for means above zero.
        backend: 'numba' or its definition in 'numpy'.
        threads: worker threads of the kernel.

    Raises:
        StatisticsError: as `sign_flip`, or the number of labels is not the number of rows.
    """
    x = sparse_columns(differences, "differences")
    check_count(n_permutations)
    codes, n_clusters = cluster_codes(clusters, x.n_units)
    units = np.argsort(codes, kind="stable")
    q = _fixed_point(x.reordered_units(units))
    ranked_codes = codes[units].astype(np.int32)
    ratio = _signed_ratio(q, ranked_codes, n_clusters)
    statistic = np.abs(ratio) if alternative == "two-sided" else ratio
    limit = statistic - _RELATIVE * np.abs(statistic) - _ABSOLUTE
    observed = Observed(statistic[None], limit[None])
    draws = _reordered(sign_draws(x.n_units, n_permutations, seed), units)
    counts = _count(q, ranked_codes, draws, observed, alternative, backend, threads)
    found = p_values(counts, observed, exact=draws.exact)
    root = np.copysign(np.sqrt(np.abs(ratio)), ratio)
    return ClusterFlip(
        one_sample_t(root, n_clusters),
        found.p[0],
        found.p_fwer[0],
        found.p_single_step[0],
        x.n_units,
        n_clusters,
        draws.n_permutations,
        draws.exact,
    )


def _fixed_point(x: Columns) -> Columns:
    """Whole numbers as float64: cluster sums are exact in any order.

    Columns are scaled by powers of two only. Values that cancel within a cluster, as whole numbers
    do, then still cancel; rounded after a division by the norm they would leave a one, and a
    cluster total of one alone has the same ratio as any other.
    """
    _, exponent = np.frexp(normalised(x).norm)
    _, wide = np.frexp(fixed_point_scale(x.n_units, WIDE_SUM_LIMIT))
    return x.replaced(np.rint(np.ldexp(x.values, x.spread(wide - 1 - exponent))))


def _reordered(draws: Draws, units: npt.NDArray[np.intp]) -> Draws:
    def rows(start: int, stop: int) -> Rows:
        return draws.rows(start, stop)[:, units]

    return Draws(draws.n_units, draws.n_permutations, draws.exact, rows)


def _signed_ratio(q: Columns, codes: Codes, n_clusters: int) -> Array:
    """T |T| / SS of the data as they are; t rises with it."""
    members = sparse.csr_array(
        (np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n_clusters, len(codes))
    )
    values = sparse.csc_array((q.values, q.units, q.indptr), shape=(q.n_units, q.n_features))
    sums = sparse.csc_array(members @ values)
    # In ascending order of the clusters, as the kernel and the definition add them.
    sums.sort_indices()
    owner = np.repeat(np.arange(q.n_features), np.diff(sums.indptr))
    total, squares = (
        np.asarray(np.bincount(owner, weights=weights, minlength=q.n_features), dtype=float)
        for weights in (sums.data, sums.data**2)
    )
    return _ratio(total, squares, two_sided=False)


def _ratio(total: Array, squares: Array, *, two_sided: bool) -> Array:
    ratio = np.where(squares > 0, total * total / np.where(squares > 0, squares, 1.0), 0.0)
    return ratio if two_sided else np.where(total < 0, -ratio, ratio)


def _count(
    q: Columns,
    codes: Codes,
    draws: Draws,
    observed: Observed,
    alternative: Alternative,
    backend: Backend,
    threads: int | None,
) -> Counts:
    two_sided = alternative == "two-sided"
    if backend == "numba":
        from affectlens.features import _kernels

        return _kernels.count_cluster_ratios(
            q,
            codes,
            draws,
            observed,
            two_sided=two_sided,
            threads=threads or _kernels.n_threads(),
        )
    values = q.dense()

    def permuted() -> Iterator[Array]:
        for start in range(0, draws.n_permutations, _CHUNK):
            selected = draws.rows(start, min(start + _CHUNK, draws.n_permutations))
            signs = np.where(selected, 1.0, -1.0)
            total = np.zeros((len(signs), q.n_features))
            squares = np.zeros_like(total)
            for code in range(codes[-1] + 1):
                own = codes == code
                sums = signs[:, own] @ values[own]
                total += sums
                squares += sums**2
            yield _ratio(total, squares, two_sided=two_sided)

    return count_by_definition(permuted(), observed)
