"""Compiled kernels that select latents: TopK, BatchTopK, and the dead ones of the auxiliary loss.

A key is a pre-activation times the norm of its decoder row. Bounds are found by bisection, because
counting is a vector operation and a heap is not. Rows must be finite: the caller refuses others.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]
_I32 = NDArray[np.int32]
_I64 = NDArray[np.int64]

LANES = 16
"""Latents j, j + w, j + 2w, ... share a slot in the first pass of the selection (w = d / LANES)."""

_BISECTIONS = 8
"""Leave a few per cent of candidates too many, for less than the heap would need to drop them."""
_EXACT = 200
"""More bisections than float32 has room for between its largest and smallest numbers."""
_FAST = {"nnan", "nsz", "reassoc", "contract"}


@numba.njit(parallel=True, cache=True, fastmath=_FAST)
def select_topk(hidden: _F32, norms: _F32, k: int, latents: _I32, values: _F32) -> None:
    """Write the k largest `hidden * norms` of each row: indices [n, k], relu(hidden) there [n, k].

    Latents j, j + w, j + 2w, ... share a slot. A bound that at least k slots' maxima reach is found
    by bisection; k entries reach it then, so all winners do. The few entries above the bound are
    gathered without branches, and a heap picks the k largest of them.
    """
    n, d = hidden.shape
    lanes = LANES if d >= 4 * LANES * k else 1
    width = (d + lanes - 1) // lanes
    for row in numba.prange(n):
        keys = np.empty(k, np.float32)
        heap = np.empty(k, np.int32)
        top = np.empty(width, np.float32)
        slots = np.empty(width + 1, np.int32)
        found = np.empty(d + 1, np.int32)
        scaled = np.empty(d + 1, np.float32)
        for j in range(width):
            top[j] = hidden[row, j] * norms[j]
        for lane in range(1, lanes):
            start = lane * width
            for j in range(min(width, d - start)):
                top[j] = max(top[j], hidden[row, start + j] * norms[start + j])
        bound = _bound(top, k)
        n_slots = 0
        for j in range(width):
            slots[n_slots] = j
            n_slots += top[j] >= bound
        count = 0
        for s in range(n_slots):
            for j in range(slots[s], d, width):
                key = hidden[row, j] * norms[j]
                found[count] = j
                scaled[count] = key
                count += key >= bound
        while count < k:  # only where rows are not finite: stay within the array
            scaled[count] = -np.inf
            found[count] = count
            count += 1
        for j in range(k):
            keys[j] = scaled[j]
            heap[j] = found[j]
        for j in range(k // 2 - 1, -1, -1):
            _sink(keys, heap, keys[j], heap[j], j)
        for c in range(k, count):
            if scaled[c] > keys[0]:
                _sink(keys, heap, scaled[c], found[c], 0)
        for j in range(k):
            latents[row, j] = heap[j]
            values[row, j] = max(hidden[row, heap[j]], np.float32(0))


@numba.njit(inline="always", fastmath=_FAST)
def _bound(top, k):  # type: ignore[no-untyped-def]
    """A value that at least k entries of `top` reach, and few more."""
    low = np.float32(np.inf)
    high = np.float32(-np.inf)
    for j in range(len(top)):
        low = min(low, top[j])
        high = max(high, top[j])
    for _ in range(_BISECTIONS):
        middle = np.float32(0.5) * (low + high)
        count = 0
        for j in range(len(top)):
            count += top[j] >= middle
        if count >= k:
            low = middle
        else:
            high = middle
    return low


@numba.njit(inline="always")
def _sink(keys, heap, key, index, place):  # type: ignore[no-untyped-def]
    """Put an entry at `place` of a heap whose smallest key is first, and let it sink."""
    size = len(keys)
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[place] = keys[child]
        heap[place] = heap[child]
        place = child
    keys[place] = key
    heap[place] = index


@numba.njit(parallel=True, cache=True, fastmath=_FAST)
def keep_topk(acts: _F32, norms: _F32, k: int) -> None:
    """Set all but the k largest `acts * norms` of each row [n, d] to zero; k < d.

    The bound is found by bisection; of entries equal to it the first ones stay.
    """
    d = acts.shape[1]
    for row in numba.prange(acts.shape[0]):
        keys = np.empty(d, np.float32)
        low = np.float32(np.inf)
        high = np.float32(-np.inf)
        for j in range(d):
            keys[j] = acts[row, j] * norms[j]
            low = min(low, keys[j])
            high = max(high, keys[j])
        n_high = 0
        for j in range(d):
            n_high += keys[j] >= high
        if n_high >= k:
            low, n_high = high, 0
        for _ in range(_EXACT):
            middle = np.float32(0.5) * low + np.float32(0.5) * high
            if n_high == k or middle <= low or middle >= high:
                break
            count = 0
            for j in range(d):
                count += keys[j] >= middle
            if count <= k:
                high, n_high = middle, count
            else:
                low = middle
        n_ties = k - n_high
        if n_ties == 0 and n_high > 0:  # the usual case, as one vector operation
            for j in range(d):
                acts[row, j] = acts[row, j] if keys[j] >= high else np.float32(0)
        else:
            for j in range(d):
                tie = n_ties > 0 and keys[j] >= low and (keys[j] < high or n_high == 0)
                if not tie and (keys[j] < high or n_high == 0):
                    acts[row, j] = 0
                n_ties -= tie


@numba.njit(parallel=True, cache=True, fastmath=_FAST)
def count_above(hidden: _F32, norms: _F32, bound: float, counts: _I64) -> None:
    """Write the number of `hidden * norms` above `bound` of each row to `counts` [n]."""
    limit = np.float32(bound)
    for row in numba.prange(hidden.shape[0]):
        found = 0
        for j in range(hidden.shape[1]):
            found += hidden[row, j] * norms[j] > limit
        counts[row] = found


@numba.njit(parallel=True, cache=True, fastmath=_FAST)
def gather_above(
    hidden: _F32, norms: _F32, bound: float, bounds: _I64, latents: _I32, keys: _F32
) -> None:
    """Write the entries above `bound` of row i at `bounds[i]`: latent and `hidden * norms`."""
    limit = np.float32(bound)
    d = hidden.shape[1]
    for row in numba.prange(hidden.shape[0]):
        at = bounds[row]
        stop = bounds[row + 1]
        for start in range(0, d, LANES):
            if at == stop:
                break
            end = min(start + LANES, d)
            top = np.float32(-np.inf)
            for j in range(start, end):
                top = max(top, hidden[row, j] * norms[j])
            if top > limit:
                for j in range(start, end):
                    key = hidden[row, j] * norms[j]
                    if key > limit:
                        latents[at] = j
                        keys[at] = key
                        at += 1


@numba.njit(cache=True)
def keep_largest(
    bounds: _I64, latents: _I32, keys: _F32, norms: _F32, threshold: float, n_ties: int
) -> tuple[_I64, int]:
    """Keep the entries above `threshold` and the first `n_ties` equal to it, in place.

    The keys become activations: the decoder norms are divided out.

    Returns:
        The new bounds [n + 1] and the number of entries kept.
    """
    limit = np.float32(threshold)
    kept = np.empty_like(bounds)
    kept[0] = 0
    at = 0
    for row in range(len(bounds) - 1):
        for entry in range(bounds[row], bounds[row + 1]):
            tie = keys[entry] == limit and n_ties > 0
            if keys[entry] > limit or tie:
                n_ties -= tie
                latents[at] = latents[entry]
                keys[at] = keys[entry] / norms[latents[entry]]
                at += 1
        kept[row + 1] = at
    return kept, at
