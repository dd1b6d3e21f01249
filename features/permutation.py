"""Permutation tests over many features at once: sign flips for pairs, label swaps for emotions.

Both statistics are studentised by what the permutation leaves unchanged. Flipping signs keeps the
sum of squares, so the one-sample t is a rising function of sum(x) / norm(x); exchanging labels
keeps the total and the sum of squares, so the pooled two-sample t is a rising function of the own
group's sum of centred, normalised values. Ranking by these sums is ranking by t, and the maxima
over features (step-down max-T; Westfall and Young 1993) are taken on one scale.

Values are held as integers (fixed point, about 1e-8 of the norm). Sums are then exact: every tie of
equal values counts as a tie, and results do not depend on threads, chunks, backend or the order of
the features. Features may be a dense array or a SciPy sparse matrix, with equal results; time goes
with the non-zero entries.

p = (1 + hits) / (1 + n) for random permutations (Phipson and Smyth 2010), hits / n when all
arrangements are enumerated, the observed one included. `backend="numpy"` is the definition: a
matrix product and `_max_t.count_by_definition`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectlens.features._columns import (
    Columns,
    Differences,
    StatisticsError,
    as_columns,
    centred,
    normalised,
    sparse_columns,
)
from affectlens.features._max_t import Counts, Observed, count_by_definition, p_values
from affectlens.features.permutation_draws import Draws, sign_draws, subset_draws

__all__ = [
    "LabelPermutation",
    "SignFlip",
    "StatisticsError",
    "as_columns",
    "label_permutation",
    "min_attainable_p",
    "sign_flip",
]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Alternative = Literal["two-sided", "greater"]
Backend = Literal["numba", "numpy"]

_CHUNK = 256
"""Permutations that the definition holds at once."""


@dataclass(frozen=True, eq=False)
class SignFlip:
    """Result of `sign_flip`; arrays are [n_features].

    Attributes:
        statistic: one-sample t over units (0 where all are zero, infinite where all are equal).
        p: of the feature alone.
        p_fwer: step-down max-T over the features.
        p_single_step: single-step max-T over the features; never below `p_fwer`.
        n_units: rows of the input.
        n_permutations: sign patterns used.
        exact: they are all that exist.
    """

    statistic: Array
    p: Array
    p_fwer: Array
    p_single_step: Array
    n_units: int
    n_permutations: int
    exact: bool


@dataclass(frozen=True, eq=False)
class LabelPermutation:
    """Result of `label_permutation`; arrays are [n_groups, n_features].

    Attributes:
        groups: the groups tested, in the order of the rows.
        statistic: pooled two-sample t of own units against all others.
        specificity: mean over own units less mean over all others.
        p: of the feature alone.
        p_fwer: step-down max-T over the features within a group.
        p_single_step: single-step max-T over the same; never below `p_fwer`.
        n_own: units of each group.
        n_units: rows of the input.
        n_permutations: choices of own units used, one entry a group.
        exact: whether they are all that exist, one entry a group.
    """

    groups: tuple[str, ...]
    statistic: Array
    specificity: Array
    p: Array
    p_fwer: Array
    p_single_step: Array
    n_own: tuple[int, ...]
    n_units: int
    n_permutations: tuple[int, ...]
    exact: tuple[bool, ...]


def sign_flip(
    differences: Differences,
    n_permutations: int = 10_000,
    seed: int = 0,
    *,
    alternative: Alternative = "two-sided",
    backend: Backend = "numba",
    threads: int | None = None,
) -> SignFlip:
    """Test whether differences are symmetric about zero.

    The null says that flipping the sign of any unit, in all its features at once, leaves the
    distribution as it is. The test is exact under it. All 2**n_units sign patterns are enumerated
    when they are at most `n_permutations`.

    Args:
        differences: [n_units, n_features] or [n_units], dense or SciPy-sparse.
        n_permutations: random sign patterns.
        seed: their seed.
        alternative: 'two-sided', or 'greater' for means above zero.
        backend: 'numba' or its definition in 'numpy'.
        threads: worker threads of the kernel.

    Raises:
        StatisticsError: no units, a value is not finite, or n_permutations below 1.
    """
    x = sparse_columns(differences, "differences")
    check_count(n_permutations)
    n, two_sided = x.n_units, alternative == "two-sided"
    scaled = normalised(x)
    q = scaled.fixed_point()
    total = _own_sums(q, np.ones((1, n), dtype=bool))
    statistic = np.abs(total) if two_sided else total
    observed = _observed(statistic, n)
    draws = sign_draws(n, n_permutations, seed)
    # The signed sum is twice the sum over plus units less the sum over all.
    doubled = q.replaced(2 * q.values)
    counts = _count(
        doubled, total[0], draws, observed, two_sided=two_sided, backend=backend, threads=threads
    )
    found = p_values(counts, observed, exact=draws.exact)
    r = scaled.columns.weighted_sums(np.ones((1, n)))[0]
    return SignFlip(
        one_sample_t(r, n),
        found.p[0],
        found.p_fwer[0],
        found.p_single_step[0],
        n,
        draws.n_permutations,
        draws.exact,
    )


def label_permutation(
    differences: Differences,
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
    n_permutations: int = 10_000,
    seed: int = 0,
    *,
    backend: Backend = "numba",
    threads: int | None = None,
) -> LabelPermutation:
    """Test, for each group, whether its units differ from all others (two-sided).

    The null says that labels are exchangeable over the units; the test is exact under it. Groups of
    equal size share their permutations, since their null is the same; the order of the features
    for step-down is each group's own. All C(n, n_own) choices are enumerated when they are at most
    `n_permutations`.

    Args:
        differences: [n_units, n_features] or [n_units], dense or SciPy-sparse.
        labels: [n_units] the group of each unit.
        groups: which groups to test, in this order; all, sorted, by default.
        n_permutations: random permutations.
        seed: their seed.
        backend: 'numba' or its definition in 'numpy'.
        threads: worker threads of the kernel.

    Raises:
        StatisticsError: as `sign_flip`, or a group that is empty or holds every unit.
    """
    x = sparse_columns(differences, "differences")
    check_count(n_permutations)
    n = x.n_units
    if len(labels) != n:
        raise StatisticsError(f"got {len(labels)} labels for {n} units")
    wanted = tuple(groups) if groups is not None else tuple(sorted(set(labels)))
    own = np.array([[label == g for label in labels] for g in wanted], dtype=bool)
    own = own.reshape(len(wanted), n)
    _check_groups(wanted, own)
    sizes = own.sum(axis=1)
    scaled = centred(x)
    q = scaled.fixed_point()
    r = scaled.columns.weighted_sums(own.astype(float)) - sizes[:, None] * scaled.centre
    p, p_fwer, single = (np.ones(r.shape) for _ in range(3))
    drawn, exact = [0] * len(wanted), [False] * len(wanted)
    for size in sorted(set(sizes.tolist())):
        rows = np.flatnonzero(sizes == size)
        draws = subset_draws(n, size, n_permutations, seed)
        offsets = scaled.fixed_point_centre(size)
        observed = _observed(np.abs(_own_sums(q, own[rows]) - offsets), n)
        counts = _count(
            q, offsets, draws, observed, two_sided=True, backend=backend, threads=threads
        )
        found = p_values(counts, observed, exact=draws.exact)
        p[rows], p_fwer[rows], single[rows] = found.p, found.p_fwer, found.p_single_step
        for i in rows:
            drawn[i], exact[i] = draws.n_permutations, draws.exact
    shares = 1 / sizes[:, None] + 1 / (n - sizes[:, None])
    return LabelPermutation(
        wanted,
        _two_sample_t(r, sizes[:, None], n),
        r * scaled.norm * shares,
        p,
        p_fwer,
        single,
        tuple(int(s) for s in sizes),
        n,
        tuple(drawn),
        tuple(exact),
    )


def min_attainable_p(n_units: int, n_permutations: int, n_own: int | None = None) -> float:
    """Smallest p that a two-sided test can give: over signs, or over labels if `n_own` is given.

    With so few units that this exceeds the corrected level, nothing can be found, whatever the
    effect.
    """
    if n_own is None:
        smallest = 2.0 ** (1 - n_units) if n_units > 0 else 1.0
        exact = n_units < 63 and 2**n_units <= n_permutations
    else:
        total = math.comb(n_units, n_own)
        # Of two equal halves each is as far from the mean as the other.
        smallest = (2.0 if 2 * n_own == n_units else 1.0) / total if total > 0 else 1.0
        exact = total <= n_permutations
    return float(min(1.0, smallest if exact else 1 / (1 + n_permutations)))


def one_sample_t(r: Array, n: int) -> Array:
    """Student's t of n values from r = sum / norm: 0 for r = 0, infinite where all are equal."""
    return _student(r, n - 1.0, float(n) - r**2)


def check_count(n_permutations: int) -> None:
    """Raises StatisticsError below one permutation."""
    if n_permutations < 1:
        raise StatisticsError(f"n_permutations is {n_permutations}; need at least 1")


def _count(
    columns: Columns,
    offsets: Ints,
    draws: Draws,
    observed: Observed,
    *,
    two_sided: bool,
    backend: Backend,
    threads: int | None,
) -> Counts:
    """Count by the sum over selected units less the offset, absolute if two-sided."""
    if backend == "numba":
        from affectlens.features import _kernels

        return _kernels.count_sums(
            columns,
            offsets,
            draws,
            observed,
            two_sided=two_sided,
            threads=threads or _kernels.n_threads(),
        )
    # Whole numbers below 2**53: the floating-point product is exact in any order.
    values = columns.dense().astype(float)

    def permuted() -> Iterator[Array]:
        for start in range(0, draws.n_permutations, _CHUNK):
            selected = draws.rows(start, min(start + _CHUNK, draws.n_permutations))
            sums = selected.astype(float) @ values - offsets
            yield np.abs(sums) if two_sided else sums

    return count_by_definition(permuted(), observed)


def _own_sums(q: Columns, own: npt.NDArray[np.bool_]) -> Ints:
    return np.asarray(q.weighted_sums(own.astype(np.int32)), dtype=np.int32)


def _observed(statistic: Ints, n_units: int) -> Observed:
    # Rounding moves an observed and a permuted value by at most half a unit of the last place for
    # every unit of the test.
    return Observed(statistic, statistic - np.int32(n_units))


def _two_sample_t(r: Array, n_own: npt.NDArray[np.int64], n: int) -> Array:
    # Between-group share of the (unit) sum of squares.
    between = r * np.sqrt(1 / n_own + 1 / (n - n_own))
    return _student(between, n - 2.0, 1 - between**2)


def _student(r: Array, df: float, rest: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        t = r * np.sqrt(max(df, 0.0)) / np.sqrt(np.where(rest > 1e-12, rest, 0.0))
    return np.where(r == 0, 0.0, np.where(np.isnan(t), np.copysign(np.inf, r), t))


def _check_groups(groups: Sequence[str], own: npt.NDArray[np.bool_]) -> None:
    for name, row in zip(groups, own, strict=True):
        if not row.any():
            raise StatisticsError(f"no unit has the label {name!r}")
        if row.all():
            raise StatisticsError(f"every unit has the label {name!r}; there is nothing to compare")
