"""Compiled twins of `_max_t.count_by_definition` for the permutation tests; private.

Data arrive as fixed-point integers, so sums are exact and do not depend on their order: any number
of threads and any chunk size gives the same counts, and the NumPy definition gives them too.
Kernels release the GIL and are run by a thread pool, which needs no threading layer and survives a
fork.

A chunk of permutations is a matrix of bits, 64 permutations a word, that stays in the first-level
cache. A feature is the sum of its few non-zero values where their bits are set: the cost is
non-zeros times permutations.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt

from affectlens.features._columns import Columns, Values
from affectlens.features._masked_sums import LANES, fill_sums, sweep_features, sweep_sums
from affectlens.features._max_t import Counts, Observed
from affectlens.features.permutation_draws import Draws, Rows

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
Sweep = Callable[[Rows, Ints, Ints], Values]
"""Given selected units [width, n_units], adds to both counts [n_groups, n_features], returns the
largest value of each permutation [width]."""

WIDTH = 512
"""Permutations in a chunk, a multiple of 64: the bits of 192 units take 12 KB."""
SHARED_FROM = 16
"""Non-zeros a feature from which groups share sums; below, adding again beats fetching them."""
SHARED_BYTES = 2**25
"""Sums that groups share, for one chunk and thread."""
CLUSTER_WIDTH = 256
"""The same where signs are numbers: those of 192 units take 0.4 MB."""


def n_threads() -> int:
    """Threads for the kernels: OMP_NUM_THREADS if set, else the cores this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_sums(
    columns: Columns,
    offsets: Ints,
    draws: Draws,
    observed: Observed,
    *,
    two_sided: bool,
    threads: int,
) -> Counts:
    """Count permutations by the sum over selected units less an offset.

    Args:
        columns: int32 fixed-point values.
        offsets: [n_features] taken off each sum.
        draws: the permutations.
        observed: int32 statistics and limits [n_groups, n_features].
        two_sided: take the absolute value.
        threads: worker threads.
    """
    orders = observed.orders()
    shared = len(orders) > 1 and len(columns.values) > SHARED_FROM * columns.n_features
    fitting = SHARED_BYTES // (4 * max(columns.n_features, 1)) // LANES * LANES
    width = max(LANES, min(WIDTH, fitting)) if shared else WIDTH

    def sweep(selected: Rows, alone: Ints, successive: Ints) -> Values:
        words, counted = _words(selected), _words(np.ones((len(selected), 1), dtype=bool))[0]
        entries = (columns.indptr, columns.units, columns.values, offsets, words)
        sums = np.empty((columns.n_features if shared else 0, len(counted) * LANES), dtype=np.int32)
        fill_sums(*entries, sums)
        for group, order in enumerate(orders):
            top = np.full(len(counted) * LANES, np.iinfo(np.int32).min, dtype=np.int32)
            target = (observed.limit[group], alone[group], successive[group], top)
            if shared:
                sweep_sums(sums, counted, order, two_sided, *target)
            else:
                sweep_features(*entries, counted, order, two_sided, *target)
        return top[: len(selected)]

    return _run(sweep, draws, observed, width, threads)


def count_cluster_ratios(
    columns: Columns,
    clusters: Ints,
    draws: Draws,
    observed: Observed,
    *,
    two_sided: bool,
    threads: int,
) -> Counts:
    """Count sign flips by T^2 / sum of s_c^2 over cluster sums s_c, with T's sign if one-sided.

    Args:
        columns: whole numbers as float64 whose sums are exact.
        clusters: [n_units] cluster numbers, ascending.
        draws: selected units have plus.
        observed: float64 statistics and limits [1, n_features].
        two_sided: leave the sign out.
        threads: worker threads.
    """
    (order,) = observed.orders()

    def sweep(selected: Rows, alone: Ints, successive: Ints) -> Values:
        signs = np.where(np.ascontiguousarray(selected.T), 1.0, -1.0)
        top = np.full(len(selected), -np.inf)
        _cluster_sweep(
            columns.indptr,
            columns.units,
            columns.values,
            clusters,
            signs,
            order,
            two_sided,
            observed.limit[0],
            alone[0],
            successive[0],
            top,
        )
        return top

    return _run(sweep, draws, observed, CLUSTER_WIDTH, threads)


def _run(sweep: Sweep, draws: Draws, observed: Observed, width: int, threads: int) -> Counts:
    """Every chunk of permutations, dealt out to the threads; counts are whole, so order is free."""
    starts = range(0, draws.n_permutations, width)
    workers = max(1, min(threads, len(starts)))
    shape = observed.statistic.shape

    def work(worker: int) -> tuple[Ints, Ints, list[Values]]:
        alone, successive = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        tops = []
        for start in starts[worker::workers]:
            selected = draws.rows(start, min(start + width, draws.n_permutations))
            tops.append(sweep(selected, alone, successive))
        return alone, successive, tops

    alone, successive = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    maxima: list[Values] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for part_alone, part_successive, tops in pool.map(work, range(workers)):
            alone += part_alone
            successive += part_successive
            maxima += tops
    return Counts(alone, successive, np.concatenate(maxima))


def _words(selected: Rows) -> Words:
    """Bits of the selected units, 64 permutations a word: [n_units, ceil(width / 64)]."""
    bits = np.zeros((selected.shape[1], -(-len(selected) // LANES) * LANES), dtype=bool)
    bits[:, : len(selected)] = selected.T
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


@numba.njit(nogil=True, cache=True)
def _cluster_sweep(
    indptr: Longs,
    units: Ints,
    values: Array,
    clusters: Ints,
    signs: Array,
    order: Longs,
    two_sided: bool,  # noqa: FBT001
    limits: Array,
    alone: Ints,
    successive: Ints,
    top: Array,
) -> None:  # pragma: no cover - compiled
    width = signs.shape[1]
    part, total, squares = np.empty(width), np.empty(width), np.empty(width)
    for j in order:
        total[:] = 0.0
        squares[:] = 0.0
        i, stop = indptr[j], indptr[j + 1]
        while i < stop:
            cluster = clusters[units[i]]
            part[:] = 0.0
            while i < stop and clusters[units[i]] == cluster:
                unit, value = units[i], values[i]
                for p in range(width):
                    part[p] += value * signs[unit, p]
                i += 1
            for p in range(width):
                total[p] += part[p]
                squares[p] += part[p] * part[p]
        for p in range(width):
            ratio = total[p] * total[p] / squares[p] if squares[p] > 0 else 0.0
            part[p] = -ratio if total[p] < 0 and not two_sided else ratio
        limit, one, two = limits[j], 0, 0
        for p in range(width):
            top[p] = max(top[p], part[p])
            one += part[p] >= limit
            two += top[p] >= limit
        alone[j] += one
        successive[j] += two
