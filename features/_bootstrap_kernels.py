"""Compiled replicates of the cluster bootstrap in `features.intervals`; private.

A kernel takes one block of BLOCK features and walks through clusters in a fixed order, so a number
depends neither on the block it lies in nor on the thread. Clusters enter as size, mean and sum of
squares within: variances are then sums of squares of deviations, without cancellation. Kernels
release the GIL and are run by a thread pool (see `features._kernels`).
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

BLOCK = 64
"""Features handled at once: their cluster moments stay in the second-level cache."""

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]


@numba.njit(nogil=True, cache=True)
def mean_replicates(
    sizes: Array,
    means: Array,
    counts: Counts,
    errors: bool,  # noqa: FBT001 - numba takes positional arguments
) -> tuple[Array, Array]:  # pragma: no cover - compiled
    """Mean over rows and its cluster-robust standard error, for each resample.

    Args:
        sizes: [n_clusters] rows in each cluster.
        means: [n_clusters, BLOCK] mean of each cluster.
        counts: [n_resamples, n_clusters] how often a resample holds each cluster.
        errors: compute standard errors; else they are zero.

    Returns:
        Replicates and standard errors, each [n_resamples, BLOCK].
    """
    n_resamples, n_clusters = counts.shape
    theta = np.zeros((n_resamples, BLOCK))
    error = np.zeros((n_resamples, BLOCK))
    for b in range(n_resamples):
        n_rows = _mean(sizes, means, counts[b], theta[b])
        if not errors:
            continue
        drawn = 0
        for c in range(n_clusters):
            drawn += counts[b, c]
            if counts[b, c] == 0:
                continue
            for j in range(BLOCK):
                rest = sizes[c] * (means[c, j] - theta[b, j])
                error[b, j] += counts[b, c] * rest * rest
        for j in range(BLOCK):
            error[b, j] = np.sqrt(error[b, j] * drawn / max(drawn - 1, 1)) / n_rows
    return theta, error


@numba.njit(nogil=True, cache=True)
def ratio_replicates(
    sizes: Array,
    means: Array,
    within: Array,
    counts: Counts,
    errors: bool,  # noqa: FBT001 - numba takes positional arguments
) -> tuple[Array, Array]:  # pragma: no cover - compiled
    """Mean over standard deviation (divisor n), and its standard error, for each resample.

    The error is the cluster sum of the influence function of mean / sd,
    u - theta (u^2 - 1) / 2 with u = (x - mean) / sd (delta method).
    Without spread the ratio is 0 for a mean of 0 and infinite with the sign of the mean else.

    Args:
        sizes: [n_clusters] rows in each cluster.
        means: [n_clusters, BLOCK] mean of each cluster.
        within: [n_clusters, BLOCK] sum of squared deviations from the cluster's mean.
        counts: [n_resamples, n_clusters] how often a resample holds each cluster.
        errors: compute standard errors; else they are zero.

    Returns:
        Replicates and standard errors, each [n_resamples, BLOCK].
    """
    n_resamples, n_clusters = counts.shape
    theta = np.zeros((n_resamples, BLOCK))
    error = np.zeros((n_resamples, BLOCK))
    mean, sd = np.zeros(BLOCK), np.zeros(BLOCK)
    # Zero where there is no spread, so that the loops need no branches.
    inverse, slope = np.zeros(BLOCK), np.zeros(BLOCK)
    for b in range(n_resamples):
        mean[:] = 0.0
        n_rows = _mean(sizes, means, counts[b], mean)
        sd[:] = 0.0
        drawn = 0
        for c in range(n_clusters):
            drawn += counts[b, c]
            if counts[b, c] == 0:
                continue
            for j in range(BLOCK):
                away = means[c, j] - mean[j]
                sd[j] += counts[b, c] * (within[c, j] + sizes[c] * away * away)
        for j in range(BLOCK):
            sd[j] = np.sqrt(sd[j] / n_rows)
            inverse[j], slope[j] = 0.0, 0.0
            if sd[j] > 1e-12 * abs(mean[j]):
                theta[b, j] = mean[j] / sd[j]
                inverse[j], slope[j] = 1 / sd[j], theta[b, j] / 2
            elif mean[j] != 0:
                theta[b, j] = np.copysign(np.inf, mean[j])
        if not errors:
            continue
        for c in range(n_clusters):
            if counts[b, c] == 0:
                continue
            for j in range(BLOCK):
                away = (means[c, j] - mean[j]) * inverse[j]
                square = within[c, j] * inverse[j] * inverse[j] + sizes[c] * (away * away - 1)
                rest = sizes[c] * away - slope[j] * square
                error[b, j] += counts[b, c] * rest * rest
        for j in range(BLOCK):
            if inverse[j] == 0:
                error[b, j] = 0.0
            error[b, j] = np.sqrt(error[b, j] * drawn / max(drawn - 1, 1)) / n_rows
    return theta, error


@numba.njit(nogil=True, cache=True)
def _mean(
    sizes: Array, means: Array, count: Counts, out: Array
) -> float:  # pragma: no cover - compiled
    n_rows = 0.0
    for c in range(len(sizes)):
        if count[c] == 0:
            continue
        weight = count[c] * sizes[c]
        n_rows += weight
        for j in range(BLOCK):
            out[j] += weight * means[c, j]
    for j in range(BLOCK):
        out[j] /= n_rows
    return n_rows
