"""Permutation tests over many features at once: sign flips for pairs, label swaps for emotions.

Both statistics are studentised by what the permutation leaves unchanged. Flipping signs keeps the
sum of squares, so the one-sample t is a rising function of sum(x) / norm(x); exchanging labels
keeps the total and the sum of squares, so the pooled two-sample t is a rising function of the own
group's sum of centred, normalised values. Ranking by these sums is ranking by t, and the maximum
over features (max-T; Westfall and Young 1993) is taken on one scale.

Values are held as integers (fixed point, about 1e-8 of the norm). Sums are then exact: every tie of
equal values counts as a tie, and results do not depend on threads, chunks or backend. Random
permutations come from a counter-based generator (SplitMix64; Steele, Lea and Flood 2014).

p = (1 + hits) / (1 + n) for random permutations (Phipson and Smyth 2010), hits / n when all
arrangements are enumerated, the observed one included.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import AffectLensError

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Alternative = Literal["two-sided", "greater"]
Backend = Literal["numba", "numpy"]

_GROUP = 6
_CHUNK = 1024
_ZERO = 1e-14
"""Centred values below this share of the largest value are rounding error."""


class StatisticsError(AffectLensError):
    """The data do not allow the statistic: no rows, shapes that differ, values not finite."""


@dataclass(frozen=True, eq=False)
class SignFlip:
    """Result of `sign_flip`; arrays are [n_features].

    `statistic` is the one-sample t over units (0 where all are zero, infinite where all are equal).
    """

    statistic: Array
    p: Array
    p_fwer: Array
    n_units: int
    n_permutations: int
    exact: bool


@dataclass(frozen=True, eq=False)
class LabelPermutation:
    """Result of `label_permutation`; arrays are [n_groups, n_features].

    `statistic` is the pooled two-sample t of own units against all others. `p_fwer` is over the
    features within a group. `n_permutations` and `exact` hold one entry a group.
    """

    groups: tuple[str, ...]
    statistic: Array
    specificity: Array
    p: Array
    p_fwer: Array
    n_own: tuple[int, ...]
    n_units: int
    n_permutations: tuple[int, ...]
    exact: tuple[bool, ...]


def sign_flip(
    differences: npt.ArrayLike,
    n_permutations: int = 10_000,
    seed: int = 0,
    *,
    alternative: Alternative = "two-sided",
    backend: Backend = "numba",
    threads: int | None = None,
) -> SignFlip:
    """Test whether differences [n_units, n_features] are symmetric about zero.

    All 2**n_units sign patterns are enumerated when they are at most `n_permutations`.

    Raises:
        StatisticsError: no units, a value is not finite, or n_permutations below 1.
    """
    x = as_columns(np.asarray(differences, dtype=float), "differences")
    _check_count(n_permutations)
    n = len(x)
    norm = _norms(x)
    q, tolerance = _fixed_point(x, norm)
    exact = n < 63 and 2**n <= n_permutations
    codes = _all_codes(n) if exact else random_codes(n_permutations, n, seed)
    observed = q.sum(axis=0, dtype=np.int64)
    two_sided = alternative == "two-sided"
    limits = ((np.abs(observed) if two_sided else observed) - tolerance).astype(np.int32)
    counts, maxima = _count_signs(q, codes, limits, backend, threads, two_sided=two_sided)
    r = np.where(norm > 0, x.sum(axis=0) / np.where(norm > 0, norm, 1.0), 0.0)
    p, p_fwer = _p(counts, maxima, limits, exact=exact)
    return SignFlip(_one_sample_t(r, n), p, p_fwer, n, len(codes), exact)


def label_permutation(
    differences: npt.ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
    n_permutations: int = 10_000,
    seed: int = 0,
    *,
    backend: Backend = "numba",
    threads: int | None = None,
) -> LabelPermutation:
    """Test, for each group, whether its units differ from all others (two-sided).

    The null says that labels are exchangeable over the units. Groups of equal size share their
    permutations, since their null is the same. All C(n, n_own) choices are enumerated when they
    are at most `n_permutations`.

    Args:
        differences: [n_units, n_features].
        labels: [n_units] the group of each unit.
        groups: which groups to test, in this order; all, sorted, by default.
        n_permutations: random permutations.
        seed: their seed.
        backend: 'numba' or its definition in 'numpy'.
        threads: worker threads of the kernel.

    Raises:
        StatisticsError: as `sign_flip`, or a group that is empty or holds every unit.
    """
    x = as_columns(np.asarray(differences, dtype=float), "differences")
    _check_count(n_permutations)
    names = np.asarray(labels, dtype=object)
    if len(names) != len(x):
        raise StatisticsError(f"got {len(names)} labels for {len(x)} units")
    wanted = tuple(groups) if groups is not None else tuple(sorted(set(labels)))
    own = np.array([[label == g for label in names] for g in wanted], dtype=bool)
    own = own.reshape(len(wanted), len(x))
    _check_groups(wanted, own)
    centred = _centre(x)
    norm = _norms(centred)
    q, tolerance = _fixed_point(centred, norm)
    sizes = own.sum(axis=1)
    r = (own.astype(float) @ centred) / np.where(norm > 0, norm, 1.0)
    p, p_fwer = np.ones(r.shape), np.ones(r.shape)
    drawn, exact = [0] * len(wanted), [False] * len(wanted)
    for size in sorted(set(sizes.tolist())):
        rows = np.flatnonzero(sizes == size)
        members, is_exact = _members(len(x), size, n_permutations, seed)
        observed = np.stack([q[own[i]].sum(axis=0, dtype=np.int64) for i in rows])
        limits = (np.abs(observed) - tolerance).astype(np.int32)
        counts, maxima = _count_labels(q, members, limits, backend, threads)
        for place, i in enumerate(rows):
            p[i], p_fwer[i] = _p(counts[place], maxima, limits[place], exact=is_exact)
            drawn[i], exact[i] = len(members), is_exact
    others = len(x) - sizes[:, None]
    specificity = (own.astype(float) @ centred) * (1 / sizes[:, None] + 1 / others)
    return LabelPermutation(
        wanted,
        _two_sample_t(r, sizes[:, None], len(x)),
        specificity,
        p,
        p_fwer,
        tuple(int(s) for s in sizes),
        len(x),
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


def as_columns(x: Array, name: str) -> Array:
    """`x` as [n_rows, n_columns].

    Raises:
        StatisticsError: no rows, more than two dimensions, or a value that is not finite.
    """
    if x.ndim not in (1, 2) or x.shape[0] == 0:
        raise StatisticsError(
            f"{name} has shape {x.shape}; need [n_units] or [n_units, n_features] with a unit"
        )
    bad = int(x.size - np.isfinite(x).sum())
    if bad:
        raise StatisticsError(f"{name} holds {bad} values that are NaN or infinite")
    return x.reshape(len(x), -1)


def random_codes(n_permutations: int, n_units: int, seed: int) -> npt.NDArray[np.uint8]:
    """Random signs, six to a byte: [n_permutations, ceil(n_units / 6)].

    Row p depends on (seed, p) alone, so asking for more permutations keeps the first ones.
    """
    n_groups = -(-n_units // _GROUP)
    return (_words(n_permutations, n_groups, seed, stream=1) >> np.uint64(58)).astype(np.uint8)


def codes_to_signs(codes: npt.NDArray[np.uint8], n_units: int) -> Array:
    """Signs -1 and +1 [n_permutations, n_units] of `random_codes`."""
    bits = (codes[:, :, None] >> np.arange(_GROUP, dtype=np.uint8)) & 1
    return bits.reshape(len(codes), -1)[:, :n_units].astype(float) * 2 - 1


def random_members(n_permutations: int, n_units: int, n_own: int, seed: int) -> Ints:
    """Random subsets of `n_own` units [n_permutations, n_own]; row p depends on (seed, p) alone."""
    out = np.empty((n_permutations, n_own), dtype=np.int32)
    for start in range(0, n_permutations, _CHUNK):
        stop = min(start + _CHUNK, n_permutations)
        keys = _words(stop - start, n_units, seed, stream=2, first=start)
        out[start:stop] = np.argsort(keys, axis=1, kind="stable")[:, :n_own]
    return np.sort(out, axis=1)


def _words(
    n_rows: int, n_columns: int, seed: int, *, stream: int, first: int = 0
) -> npt.NDArray[np.uint64]:
    """Entry (p, i) of SplitMix64's sequence for this seed and stream, read at p * 2**24 + i."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed & (2**64 - 1)], dtype=np.uint64) + golden * np.uint64(stream))
        row = np.arange(first, first + n_rows, dtype=np.uint64)[:, None] << np.uint64(24)
        column = np.arange(1, n_columns + 1, dtype=np.uint64)[None, :]
        return _mix(key + golden * (row + column))


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _all_codes(n_units: int) -> npt.NDArray[np.uint8]:
    numbers = np.arange(2**n_units, dtype=np.uint64)[:, None]
    shifts = np.arange(0, max(n_units, 1), _GROUP, dtype=np.uint64)[None, :]
    return ((numbers >> shifts) & np.uint64(2**_GROUP - 1)).astype(np.uint8)


def _members(n: int, n_own: int, n_permutations: int, seed: int) -> tuple[Ints, bool]:
    if math.comb(n, n_own) <= n_permutations:
        return np.array(list(itertools.combinations(range(n), n_own)), dtype=np.int32), True
    return random_members(n_permutations, n, n_own, seed), False


def _norms(x: Array) -> Array:
    # Scaled first, so that very small or large activations neither vanish nor overflow.
    top = np.abs(x).max(axis=0)
    safe = np.where(top > 0, top, 1.0)
    return np.asarray(top * np.sqrt(((x / safe) ** 2).sum(axis=0)))


def _centre(x: Array) -> Array:
    centred = x - x.mean(axis=0)
    noise = np.abs(centred).max(axis=0) <= _ZERO * np.abs(x).max(axis=0) * len(x)
    return np.where(noise, 0.0, centred)


def _fixed_point(x: Array, norm: Array) -> tuple[Ints, int]:
    """Rows scaled to norm 1 and to integers whose sums fit 31 bits; and their rounding error."""
    n = len(x)
    scale = math.floor((2**31 - 2 - 2 * n) / math.sqrt(n))
    unit = x / np.where(norm > 0, norm, 1.0)
    return np.rint(unit * scale).astype(np.int32), n


def _one_sample_t(r: Array, n: int) -> Array:
    return _student(r, n - 1.0, float(n) - r**2)


def _two_sample_t(r: Array, n_own: npt.NDArray[np.int64], n: int) -> Array:
    # Between-group share of the (unit) sum of squares.
    between = r * np.sqrt(1 / n_own + 1 / (n - n_own))
    return _student(between, n - 2.0, 1 - between**2)


def _student(r: Array, df: float, rest: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        t = r * np.sqrt(max(df, 0.0)) / np.sqrt(np.where(rest > 1e-12, rest, 0.0))
    return np.where(r == 0, 0.0, np.where(np.isnan(t), np.copysign(np.inf, r), t))


def _p(
    counts: npt.NDArray[np.int64], maxima: Ints, limits: Ints, *, exact: bool
) -> tuple[Array, Array]:
    ordered = np.sort(maxima)
    above = len(ordered) - np.searchsorted(ordered, limits, side="left")
    n, extra = len(maxima), 0 if exact else 1
    return (counts + extra) / (n + extra), (above + extra) / (n + extra)


def _count_signs(
    q: Ints,
    codes: npt.NDArray[np.uint8],
    limits: Ints,
    backend: Backend,
    threads: int | None,
    *,
    two_sided: bool,
) -> tuple[npt.NDArray[np.int64], Ints]:
    if backend == "numba":
        from affectlens.features import _kernels

        return _kernels.count_signs(
            q, codes, limits, two_sided=two_sided, threads=threads or _kernels.n_threads()
        )
    counts, maxima = np.zeros(q.shape[1], dtype=np.int64), []
    values = q.astype(float)
    for start in range(0, len(codes), _CHUNK):
        # Integers below 2**53: the floating-point product is exact in any order.
        sums = codes_to_signs(codes[start : start + _CHUNK], len(q)) @ values
        sums = np.abs(sums) if two_sided else sums
        counts += (sums >= limits).sum(axis=0)
        maxima.append(sums.max(axis=1, initial=np.iinfo(np.int32).min))
    return counts, np.concatenate(maxima).astype(np.int32)


def _count_labels(
    q: Ints, members: Ints, limits: Ints, backend: Backend, threads: int | None
) -> tuple[npt.NDArray[np.int64], Ints]:
    if backend == "numba":
        from affectlens.features import _kernels

        return _kernels.count_labels(q, members, limits, threads=threads or _kernels.n_threads())
    counts, maxima = np.zeros(limits.shape, dtype=np.int64), []
    values = q.astype(float)
    for start in range(0, len(members), _CHUNK):
        part = members[start : start + _CHUNK]
        chosen = np.zeros((len(part), len(q)))
        chosen[np.arange(len(part))[:, None], part] = 1.0
        sums = np.abs(chosen @ values)
        counts += (sums[None] >= limits[:, None, :]).sum(axis=1)
        maxima.append(sums.max(axis=1, initial=0))
    return counts, np.concatenate(maxima).astype(np.int32)


def _check_count(n_permutations: int) -> None:
    if n_permutations < 1:
        raise StatisticsError(f"n_permutations is {n_permutations}; need at least 1")


def _check_groups(groups: Sequence[str], own: npt.NDArray[np.bool_]) -> None:
    for name, row in zip(groups, own, strict=True):
        if not row.any():
            raise StatisticsError(f"no unit has the label {name!r}")
        if row.all():
            raise StatisticsError(f"every unit has the label {name!r}; there is nothing to compare")
