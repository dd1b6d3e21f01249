"""Compiled twins of the permutation counts in `features.permutation`; private.

Data arrive as fixed-point integers, so sums are exact and do not depend on their order: any number
of threads and any block size gives the same counts, and the NumPy version gives them too. Kernels
release the GIL and are run by a thread pool, which needs no threading layer and survives a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt

BLOCK = 64
"""Features handled at once: their tables stay in the second-level cache."""
GROUP = 6
"""Units whose 2**6 signed sums are tabulated, so one addition serves six units."""
_CODES = 1 << GROUP

Ints = npt.NDArray[np.int32]


def n_threads() -> int:
    """Threads for the kernels: OMP_NUM_THREADS if set, else the cores this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_signs(
    q: Ints, codes: npt.NDArray[np.uint8], thresholds: Ints, *, two_sided: bool, threads: int
) -> tuple[npt.NDArray[np.int64], Ints]:
    """Count sign flips that reach the thresholds.

    Args:
        q: [n_units, n_features] fixed-point values.
        codes: [n_permutations, ceil(n_units / 6)] six sign bits each, lowest bit first, 1 is plus.
        thresholds: [n_features] smallest value that counts.
        two_sided: compare the absolute sum.
        threads: worker threads.

    Returns:
        counts [n_features] and the largest (absolute) sum of each permutation [n_permutations].
    """
    padded = _pad_units(q, codes.shape[1] * GROUP)

    def work(block: Ints, limit: Ints) -> tuple[Ints, Ints]:
        return _sign_block(block, codes, limit[0], two_sided)

    counts, maxima = _run(work, padded, thresholds[None, :], codes.shape[0], threads)
    return counts[0], maxima


def count_labels(
    q: Ints, members: Ints, thresholds: Ints, *, threads: int
) -> tuple[npt.NDArray[np.int64], Ints]:
    """Count label permutations whose absolute own-group sum reaches the thresholds.

    Args:
        q: [n_units, n_features] fixed-point centred values.
        members: [n_permutations, n_own] units of the own group.
        thresholds: [n_contrasts, n_features].
        threads: worker threads.

    Returns:
        counts [n_contrasts, n_features] and the largest absolute sum [n_permutations].
    """

    def work(block: Ints, limit: Ints) -> tuple[Ints, Ints]:
        return _label_block(block, members, limit)

    return _run(work, q, thresholds, members.shape[0], threads)


def _run(
    work: Callable[[Ints, Ints], tuple[Ints, Ints]],
    q: Ints,
    thresholds: Ints,
    n_permutations: int,
    threads: int,
) -> tuple[npt.NDArray[np.int64], Ints]:
    n_features = q.shape[1]
    counts = np.zeros((thresholds.shape[0], n_features), dtype=np.int64)
    maxima = np.full(n_permutations, np.iinfo(np.int32).min, dtype=np.int32)

    def one(start: int) -> tuple[int, Ints, Ints]:
        width = min(BLOCK, n_features - start)
        block = np.zeros((q.shape[0], BLOCK), dtype=np.int32)
        block[:, :width] = q[:, start : start + width]
        limit = np.full((thresholds.shape[0], BLOCK), np.iinfo(np.int32).max, dtype=np.int32)
        limit[:, :width] = thresholds[:, start : start + width]
        if width < BLOCK:
            # Padding repeats a real feature, so that it cannot add to the maximum.
            block[:, width:] = block[:, :1]
        got, top = work(block, limit)
        return start, got[:, :width], top

    starts = range(0, n_features, BLOCK)
    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(starts) or 1))) as pool:
        for start, got, top in pool.map(one, starts):
            counts[:, start : start + got.shape[1]] = got
            np.maximum(maxima, top, out=maxima)
    return counts, maxima


def _pad_units(q: Ints, n_rows: int) -> Ints:
    out = np.zeros((n_rows, q.shape[1]), dtype=np.int32)
    out[: len(q)] = q
    return out


@numba.njit(nogil=True, cache=True)
def _sign_table(block: Ints) -> npt.NDArray[np.int32]:  # pragma: no cover - compiled
    n_groups = block.shape[0] // GROUP
    table = np.zeros((n_groups, _CODES, BLOCK), dtype=np.int32)
    for g in range(n_groups):
        for i in range(GROUP):
            for j in range(BLOCK):
                table[g, 0, j] -= block[g * GROUP + i, j]
        for code in range(1, _CODES):
            bit = 0
            while not (code >> bit) & 1:
                bit += 1
            for j in range(BLOCK):
                # The code without its lowest bit is already there; that unit turns to plus.
                table[g, code, j] = table[g, code & (code - 1), j] + 2 * block[g * GROUP + bit, j]
    return table


@numba.njit(nogil=True, cache=True)
def _sign_block(
    block: Ints,
    codes: npt.NDArray[np.uint8],
    limit: Ints,
    two_sided: bool,  # noqa: FBT001 - numba takes positional arguments
) -> tuple[Ints, Ints]:  # pragma: no cover - compiled
    table = _sign_table(block)
    n_permutations, n_groups = codes.shape
    counts = np.zeros((1, BLOCK), dtype=np.int32)
    maxima = np.empty(n_permutations, dtype=np.int32)
    acc = np.empty(BLOCK, dtype=np.int32)
    for p in range(n_permutations):
        for j in range(BLOCK):
            acc[j] = 0
        g = 0
        while g + 4 <= n_groups:
            a, b = table[g, codes[p, g]], table[g + 1, codes[p, g + 1]]
            c, d = table[g + 2, codes[p, g + 2]], table[g + 3, codes[p, g + 3]]
            for j in range(BLOCK):
                acc[j] += (a[j] + b[j]) + (c[j] + d[j])
            g += 4
        while g < n_groups:
            a = table[g, codes[p, g]]
            for j in range(BLOCK):
                acc[j] += a[j]
            g += 1
        top = np.int32(-2147483648)
        for j in range(BLOCK):
            value = abs(acc[j]) if two_sided else acc[j]
            counts[0, j] += np.int32(value >= limit[j])
            top = max(top, value)
        maxima[p] = top
    return counts, maxima


@numba.njit(nogil=True, cache=True)
def _label_block(
    block: Ints, members: Ints, limits: Ints
) -> tuple[Ints, Ints]:  # pragma: no cover - compiled
    n_permutations, n_own = members.shape
    n_contrasts = limits.shape[0]
    counts = np.zeros((n_contrasts, BLOCK), dtype=np.int32)
    maxima = np.empty(n_permutations, dtype=np.int32)
    acc = np.empty(BLOCK, dtype=np.int32)
    for p in range(n_permutations):
        for j in range(BLOCK):
            acc[j] = 0
        k = 0
        while k + 4 <= n_own:
            a, b = block[members[p, k]], block[members[p, k + 1]]
            c, d = block[members[p, k + 2]], block[members[p, k + 3]]
            for j in range(BLOCK):
                acc[j] += (a[j] + b[j]) + (c[j] + d[j])
            k += 4
        while k < n_own:
            a = block[members[p, k]]
            for j in range(BLOCK):
                acc[j] += a[j]
            k += 1
        top = np.int32(0)
        for j in range(BLOCK):
            acc[j] = abs(acc[j])
            top = max(top, acc[j])
        for e in range(n_contrasts):
            for j in range(BLOCK):
                counts[e, j] += np.int32(acc[j] >= limits[e, j])
        maxima[p] = top
    return counts, maxima
