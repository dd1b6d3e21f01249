"""Bootstrap intervals that resample whole clusters, for one feature or for many at once.

Pairs of one cluster share a scenario and an author, so the cluster is what was sampled. The
parameter is the expectation over clusters like these; with few clusters (below about 20) every
bootstrap interval is too short, whatever the number of pairs (see `cluster_intervals`).

Draws come from the counter-based generator Philox (Salmon et al. 2011) with the key (seed, b), so
resample b depends on the seed, b and the number of clusters alone. All features share the
resamples. The result is the same bit for bit for any number of threads and order of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from affectlens.features.effect_sizes import (
    auroc_paired,
    cluster_codes,
    d_z,
    hedges_factor,
    mean_diff,
    wins,
)
from affectlens.features.permutation import StatisticsError, as_columns

__all__ = [
    "Interval",
    "Intervals",
    "Method",
    "Statistic",
    "cluster_bootstrap",
    "cluster_intervals",
    "resample_counts",
]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]
Statistic = Literal["mean", "d_z", "auroc_paired"]
Method = Literal["bca", "studentised", "percentile"]

_NIL = 1e-12
"""Differences below this, with values scaled to 1/2..1, are rounding error."""


@dataclass(frozen=True)
class Interval:
    """An estimate with a percentile interval; `low` and `high` are NaN below two clusters."""

    estimate: float
    low: float
    high: float
    level: float
    n_clusters: int


@dataclass(frozen=True, eq=False)
class Intervals:
    """Result of `cluster_intervals`; arrays are [n_features]; see there for NaN and infinity."""

    estimate: Array
    low: Array
    high: Array
    level: float
    n_clusters: int
    method: Method
    statistic: Statistic
    n_resamples: int


@dataclass(frozen=True, eq=False)
class _Resamples:
    """Counts of clusters [rows, n_clusters]: as observed, each cluster left out, and drawn."""

    sizes: Array
    observed: Counts
    jackknife: Counts
    drawn: Counts


@dataclass(frozen=True, eq=False)
class _Moments:
    """Rows [n_clusters], means and sums of squares within [n_clusters, BLOCK] of each cluster."""

    sizes: Array
    means: Array
    within: Array


def cluster_intervals(
    values: npt.ArrayLike,
    clusters: Sequence[str],
    statistic: Statistic = "mean",
    method: Method = "bca",
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    *,
    threads: int | None = None,
) -> Intervals:
    """Bootstrap intervals of a statistic of each feature, resampling whole clusters.

    Methods (Davison and Hinkley 1997, sections 3.8 for clusters, 5.2 and 5.3):

    - percentile: quantiles of the replicates.
    - bca: the same at levels corrected for bias (share of replicates below the estimate, ties one
      half) and acceleration, the latter from the jackknife over clusters (Efron 1987). A share of
      0 or 1 is kept half a replicate away from it.
    - studentised: estimate - t SE with t the quantiles of (replicate - estimate) / its SE. The SE
      is cluster-robust: sqrt(k / (k - 1) sum e_c^2) / N with e_c the sum over cluster c of the
      influence values (for the mean, of x - mean).

    d_z replicates carry the Hedges factor of the sample. Bounds of the paired AUROC are kept
    within 0..1.

    Coverage at a nominal 95%, in percent, 'bca' / 'studentised' (simulation in
    tests/features/test_intervals.py with 2,000 data sets a cell, so +-1; 4 pairs a cluster; normal
    values have an intraclass correlation of 0.3; a sparse feature fires in 60% of the pairs of the
    stated share of clusters, log-normal in size):

        values        clusters    mean        d_z         paired AUROC
        normal               8    89 / 95     91 / 94     92 / 96
        normal              24    93 / 95     94 / 95     96 / 97
        normal              48    93 / 95     94 / 95     95 / 95
        30% of clusters      8    82 / 94     91 / 93     88 / 94
        30% of clusters     24    91 / 98     94 / 94     95 / 99
        30% of clusters     48    92 / 95     93 / 92     95 / 97
        10% of clusters     24    83 / 91     88 / 88     85 / 91
        10% of clusters     48    90 / 98     94 / 96     95 / 98
        3% of clusters      48    71 / 75     72 / 73     74 / 74

    So 'bca' is too short with 8 clusters and slightly so with 48; 'studentised' holds its level
    for the mean, and pays for it on sparse features with infinite bounds (10% of clusters, 48
    clusters: in 30% of data sets). A feature that fires in none or one of the clusters drawn can
    be covered by no method: the sample does not hold its large values, and the interval of a
    feature that never fires is the point 0. Fewer than about 5 active clusters call for
    `presence`, not for an interval.

    Args:
        values: [n_pairs, n_features] differences (one dimension is one feature).
        clusters: [n_pairs] cluster of each pair.
        statistic: 'mean', 'd_z' or 'auroc_paired' (the value is above zero, ties one half).
        method: see above.
        n: resamples; 1,000 or more for 'bca' and 'studentised'.
        seed: of the draws, taken modulo 2**64.
        level: of the interval, two-sided with equal tails.
        threads: worker threads; all cores by default.

    Returns:
        Intervals. Bounds are NaN below two clusters and where the estimate is NaN (see `d_z`).
        They equal the estimate for a feature that is constant, or whose clusters all give the same
        value. A bound is infinite where too many resamples have no spread (a feature that fires in
        few clusters): then the data do not bound the statistic on that side.

    Raises:
        StatisticsError: no values, one is not finite, labels do not match, or a bad setting.
    """
    from affectlens.features import _bootstrap_kernels, _kernels

    _check_settings(statistic, method, n, level)
    x = as_columns(np.asarray(values, dtype=float), "values")
    codes, count = cluster_codes(clusters, len(x))
    width = _bootstrap_kernels.BLOCK
    out = np.full((3, x.shape[1]), np.nan)
    sizes = np.bincount(codes, minlength=count).astype(float)
    resamples = _resamples(sizes, n, seed) if count >= 2 else None

    def one(start: int) -> tuple[int, Array]:
        block = np.zeros((len(x), width))
        got = x[:, start : start + width]
        block[:, : got.shape[1]] = got
        bounds = _block(block, codes, resamples, statistic, method, level)
        return start, bounds[:, : got.shape[1]]

    starts = range(0, x.shape[1], width)
    workers = max(1, min(threads or _kernels.n_threads(), len(starts) or 1))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start, bounds in pool.map(one, starts):
            out[:, start : start + bounds.shape[1]] = bounds
    return Intervals(out[0], out[1], out[2], level, count, method, statistic, n)


def resample_counts(n: int, n_clusters: int, seed: int) -> Counts:
    """How often each resample holds each cluster: [n, n_clusters], rows summing to n_clusters.

    Row b depends on (seed, b, n_clusters) alone, so asking for more keeps the first ones. A draw
    maps 32 random bits to a cluster by multiplication; its bias is below n_clusters / 2**32.
    """
    out = np.empty((n, n_clusters), dtype=np.int32)
    for b in range(n):
        key = np.array([seed % 2**64, b], dtype=np.uint64)
        high = np.random.Philox(key=key).random_raw(n_clusters) >> np.uint64(32)
        drawn = (high * np.uint64(n_clusters)) >> np.uint64(32)
        out[b] = np.bincount(drawn.astype(np.int64), minlength=n_clusters)
    return out


def cluster_bootstrap(
    values: npt.ArrayLike,
    clusters: Sequence[str],
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of the mean of `values` [n_items], resampling whole clusters.

    The same as `cluster_intervals` with 'percentile' but for its draws, which are NumPy's
    multinomial: kept so that verdicts and effects of earlier runs come out again.

    Raises:
        StatisticsError: no values, one is not finite, labels do not match, or a bad setting.
    """
    x = as_columns(np.asarray(values, dtype=float), "values")
    if x.shape[1] != 1 or n < 1 or not 0 < level < 1:
        raise StatisticsError(
            f"got values of shape {np.shape(values)}, n={n}, level={level}; "
            "need one dimension, n >= 1 and a level within (0, 1)"
        )
    codes, count = cluster_codes(clusters, len(x))
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


def _check_settings(statistic: str, method: str, n: int, level: float) -> None:
    if statistic not in get_args(Statistic) or method not in get_args(Method):
        raise StatisticsError(
            f"got statistic={statistic!r}, method={method!r}; "
            f"statistics: {', '.join(get_args(Statistic))}; methods: {', '.join(get_args(Method))}"
        )
    if n < 1 or not 0 < level < 1:
        raise StatisticsError(f"got n={n}, level={level}; need n >= 1 and a level within (0, 1)")


def _resamples(sizes: Array, n: int, seed: int) -> _Resamples:
    count = len(sizes)
    ones = np.ones((1, count), dtype=np.int32)
    jackknife = ones - np.eye(count, dtype=np.int32)
    return _Resamples(sizes, ones, jackknife, _drawn(n, count, seed))


@lru_cache(maxsize=16)
def _drawn(n: int, n_clusters: int, seed: int) -> Counts:
    """Kept, because many small searches of one design draw the same."""
    return resample_counts(n, n_clusters, seed)


def _block(
    x: Array,
    codes: npt.NDArray[np.int64],
    resamples: _Resamples | None,
    statistic: Statistic,
    method: Method,
    level: float,
) -> Array:
    """Estimate, low and high [3, BLOCK] of one block of features."""
    define = {"mean": mean_diff, "d_z": d_z, "auroc_paired": auroc_paired}[statistic]
    estimate = define(x)
    if resamples is None:
        return np.stack([estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)])
    if statistic == "auroc_paired":
        x = wins(x)
    # Scaling by a power of two is exact; squares then neither vanish nor overflow.
    exponent = np.frexp(np.abs(x).max(axis=0))[1]
    moments = _moments(np.ldexp(x, -exponent), codes, resamples.sizes)
    low, high = _bounds(moments, resamples, statistic, method, level)
    if statistic != "d_z":
        low, high = np.ldexp(low, exponent), np.ldexp(high, exponent)
    if statistic == "auroc_paired":
        low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    # _bounds marks a feature without variation by NaN.
    low, high = np.where(np.isnan(low), estimate, low), np.where(np.isnan(high), estimate, high)
    undefined = np.isnan(estimate)
    return np.stack([estimate, np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)])


def _moments(x: Array, codes: npt.NDArray[np.int64], sizes: Array) -> _Moments:
    totals = np.zeros((len(sizes), x.shape[1]))
    np.add.at(totals, codes, x)
    means = totals / sizes[:, None]
    within = np.zeros_like(totals)
    np.add.at(within, codes, (x - means[codes]) ** 2)
    return _Moments(sizes, means, within)


def _replicates(
    moments: _Moments,
    counts: Counts,
    statistic: Statistic,
    *,
    errors: bool = False,
) -> tuple[Array, Array]:
    """Statistic and its standard error (zero unless asked for), each [len(counts), BLOCK]."""
    from affectlens.features import _bootstrap_kernels as kernels

    if statistic != "d_z":
        return kernels.mean_replicates(moments.sizes, moments.means, counts, errors)
    theta, error = kernels.ratio_replicates(
        moments.sizes, moments.means, moments.within, counts, errors
    )
    n_rows = (counts @ moments.sizes)[:, None]
    total = int(moments.sizes.sum())
    factor = np.sqrt((n_rows - 1) / n_rows) * (hedges_factor(total - 1) if total > 2 else 1.0)
    # One row has no standard deviation; 0 times infinity would be NaN.
    factor = np.where(n_rows > 1, factor, 1.0)
    return theta * factor, error * factor


def _bounds(
    moments: _Moments, resamples: _Resamples, statistic: Statistic, method: Method, level: float
) -> tuple[Array, Array]:
    """Low and high; NaN for a feature whose estimate is infinite or whose replicates all equal it.

    Values are scaled to 1/2..1.
    """
    errors = method == "studentised"
    observed, error = (
        part[0] for part in _replicates(moments, resamples.observed, statistic, errors=errors)
    )
    drawn, drawn_error = _replicates(moments, resamples.drawn, statistic, errors=errors)
    live = np.isfinite(observed)
    observed, drawn = np.where(live, observed, 0.0), np.where(live, drawn, 0.0)
    nil = _NIL * np.maximum(1.0, np.abs(observed))
    still = ~live | (np.abs(drawn - observed) <= nil).all(axis=0)
    tails = np.tile([[(1 - level) / 2], [(1 + level) / 2]], (1, len(observed)))
    if method == "studentised":
        t = np.sort(_student(drawn - observed, drawn_error, nil), axis=0)
        still |= error <= nil
        error = np.where(still, 1.0, error)
        low, high = (observed - _quantiles(t, tail) * error for tail in (tails[1], tails[0]))
    else:
        if method == "bca":
            jackknife = _replicates(moments, resamples.jackknife, statistic)[0]
            tails = _bca_tails(_bias(observed, drawn, nil), _acceleration(jackknife), tails)
        ordered = np.sort(drawn, axis=0)
        low, high = (_quantiles(ordered, tail) for tail in tails)
    return np.where(still, np.nan, low), np.where(still, np.nan, high)


def _student(away: Array, error: Array, nil: Array) -> Array:
    """`away` over its error; without error 0 where it is nil, else infinite with its sign."""
    flat = error <= nil
    t = away / np.where(flat, 1.0, error)
    return np.where(flat, np.where(np.abs(away) <= nil, 0.0, np.copysign(np.inf, away)), t)


def _bias(observed: Array, drawn: Array, nil: Array) -> Array:
    """z0: the normal quantile of the share of replicates below the estimate, ties one half."""
    below = (drawn < observed - nil).mean(axis=0)
    share = below + 0.5 * (np.abs(drawn - observed) <= nil).mean(axis=0)
    edge = 0.5 / len(drawn)
    return np.asarray(special.ndtri(np.clip(share, edge, 1 - edge)))


def _acceleration(jackknife: Array) -> Array:
    """Skewness of the jackknife over clusters, over 6 (Efron and Tibshirani 1993, equation 14.15).

    0 where leaving out a cluster leaves no spread or changes nothing.
    """
    usable = np.isfinite(jackknife).all(axis=0)
    values = np.where(usable, jackknife, 0.0)
    away = values.mean(axis=0) - values
    squares = (away**2).sum(axis=0)
    moved = squares > _NIL**2
    return np.where(moved, (away**3).sum(axis=0) / (6 * np.where(moved, squares, 1.0) ** 1.5), 0.0)


def _bca_tails(bias: Array, acceleration: Array, tails: Array) -> Array:
    u = bias + special.ndtri(tails)
    rest = 1 - acceleration * u
    # Past its pole the formula turns round; the limit on this side is the last replicate.
    passed = rest <= 0
    shifted = bias + u / np.where(passed, 1.0, rest)
    return np.asarray(special.ndtr(np.where(passed, np.copysign(np.inf, u), shifted)))


def _quantiles(ordered: Array, level: Array) -> Array:
    """Quantile [BLOCK] of each sorted column, linear between replicates; infinite ones allowed."""
    place = (len(ordered) - 1) * level
    index = np.floor(place).astype(np.int64)
    part = place - index
    low = np.take_along_axis(ordered, index[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(index + 1, len(ordered) - 1)[None], axis=0)[0]
    between = np.isfinite(low) & np.isfinite(high)
    step = np.subtract(high, low, out=np.zeros_like(low), where=between)
    return np.where(between | np.isinf(low) | (part == 0), low + part * step, high)
