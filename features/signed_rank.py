"""Wilcoxon's signed-rank test over many features at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy import stats as scipy_stats

from affectlens.features.permutation import StatisticsError, as_columns

__all__ = ["Wilcoxon", "wilcoxon"]

Array = npt.NDArray[np.float64]
Method = Literal["auto", "asymptotic"]

_EXACT = 50
"""SciPy's limit for the exact distribution too; above it the normal one is accurate."""
_COLUMNS = 2048
"""Features ranked at once, so that ranks of many features do not fill the memory."""


@dataclass(frozen=True, eq=False)
class Wilcoxon:
    """Result of `wilcoxon`; arrays are [n_features].

    Attributes:
        rank_sum: sum of the ranks of the positive differences, W+.
        z: standardised W+, ties corrected; positive where clinical lies above neutral.
        p: two-sided p, 1 where all differences are zero.
        n_nonzero: differences that are not zero; only these are ranked.
        exact: whether p is from the exact distribution.
    """

    rank_sum: Array
    z: Array
    p: Array
    n_nonzero: npt.NDArray[np.int64]
    exact: npt.NDArray[np.bool_]


def wilcoxon(differences: npt.ArrayLike, method: Method = "auto") -> Wilcoxon:
    """Test whether differences [n_pairs, n_features] are symmetric about zero, by ranks.

    Zero differences are left out (Wilcoxon 1945), the other n are ranked by size with mid-ranks r.
    Under the null W+ has mean n (n + 1) / 4 and variance sum(r^2) / 4, which is the usual tie
    correction written out (Hollander and Wolfe 1999, section 3.1). No continuity correction.
    Differences tie when they are equal as floating-point numbers.

    With 'auto', p is exact for a feature with at most 50 non-zero differences and no ties among
    their sizes, and asymptotic elsewhere; `exact` says which. Where all differences are zero there
    is no evidence, and z = 0 and p = 1 by definition. Pairs are taken as independent.

    Raises:
        StatisticsError: no pairs, a value is not finite, or an unknown method.
    """
    if method not in ("auto", "asymptotic"):
        raise StatisticsError(f"method is {method!r}; use 'auto' or 'asymptotic'")
    x = as_columns(np.asarray(differences, dtype=float), "differences")
    rank_sum, squares, n = _rank_sums(x)
    safe = np.where(n > 0, squares, 1.0)
    z = (rank_sum - n * (n + 1) / 4) / np.sqrt(safe / 4)
    p = np.asarray(2 * special.ndtr(-np.abs(z)))
    # Ties lower the sum of squared ranks; these are quarters of integers and compare exactly.
    untied = squares == n * (n + 1) * (2 * n + 1) / 6
    exact = untied & (n > 0) & (n <= _EXACT) & (method == "auto")
    for size in np.unique(n[exact]):
        rows = exact & (n == size)
        p[rows] = _exact_p(rank_sum[rows], int(size))
    return Wilcoxon(rank_sum, z, p, n, exact)


def _rank_sums(x: Array) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """W+, the sum of squared ranks and the number of non-zero differences: [n_features] each."""
    rank_sum, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    n = (x != 0).sum(axis=0).astype(np.int64)
    for start in range(0, x.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        d = x[:, part]
        # Zeros have the lowest ranks; taking their number off ranks the others alone.
        ranks = scipy_stats.rankdata(np.abs(d), axis=0) - (len(x) - n[part])
        rank_sum[part] = np.where(d > 0, ranks, 0.0).sum(axis=0)
        squares[part] = (np.where(d != 0, ranks, 0.0) ** 2).sum(axis=0)
    return rank_sum, squares, n


def _exact_p(rank_sum: Array, n: int) -> Array:
    # Ways in which signs give each W+; at most 2**50, so exact in float64.
    ways = np.ones(1)
    for rank in range(1, n + 1):
        shifted = np.concatenate([np.zeros(rank), ways])
        shifted[: len(ways)] += ways
        ways = shifted
    cdf = np.cumsum(ways) / 2.0**n
    smaller = np.minimum(rank_sum, n * (n + 1) / 2 - rank_sum).astype(np.int64)
    return np.asarray(np.minimum(1.0, 2 * cdf[smaller]))
