"""Which units a permutation selects: signs for pairs, subsets for emotions; all or drawn.

Random rows come from a counter-based generator (SplitMix64; Steele, Lea and Flood 2014): row p
depends on (seed, p) alone. Asking for more permutations keeps the first ones, and rows can be made
where they are needed, in any order and by any thread.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

_BITS = 64
_ROW_BITS = 24
"""Words reserved for a row: no row may need more than 2**24."""


@dataclass(frozen=True, eq=False)
class Draws:
    """The permutations of one test.

    Attributes:
        n_units: units of the test.
        n_permutations: how many there are.
        exact: they are all that exist, the observed one included.
        rows: (start, stop) to bool [stop - start, n_units], the units that a permutation selects:
            those whose sign is plus, or those that form the own group.
    """

    n_units: int
    n_permutations: int
    exact: bool
    rows: Callable[[int, int], Rows]


def sign_draws(n_units: int, n_permutations: int, seed: int) -> Draws:
    """Signs of every unit; all 2**n_units patterns if they are at most `n_permutations`."""
    if n_units < 63 and 2**n_units <= n_permutations:
        return Draws(
            n_units,
            2**n_units,
            exact=True,
            rows=lambda start, stop: _numbered_signs(start, stop, n_units),
        )
    return Draws(
        n_units,
        n_permutations,
        exact=False,
        rows=lambda start, stop: random_signs(start, stop, n_units, seed),
    )


def subset_draws(n_units: int, n_own: int, n_permutations: int, seed: int) -> Draws:
    """Subsets of `n_own` units; all of them if they are at most `n_permutations`."""
    total = math.comb(n_units, n_own)
    if total <= n_permutations:
        every = np.zeros((total, n_units), dtype=bool)
        for row, members in zip(every, itertools.combinations(range(n_units), n_own), strict=True):
            row[list(members)] = True
        return Draws(n_units, total, exact=True, rows=lambda start, stop: every[start:stop])
    return Draws(
        n_units,
        n_permutations,
        exact=False,
        rows=lambda start, stop: random_subsets(start, stop, n_units, n_own, seed),
    )


def random_signs(start: int, stop: int, n_units: int, seed: int) -> Rows:
    """Rows start to stop of fair and independent signs, True for plus: [stop - start, n_units]."""
    words = _words(start, stop, -(-n_units // _BITS), seed, stream=1)
    return _bits(words)[:, :n_units]


def random_subsets(start: int, stop: int, n_units: int, n_own: int, seed: int) -> Rows:
    """Rows start to stop of subsets of `n_own` units, all equally likely: [stop - start, n_units].

    The units with the smallest of `n_units` random keys.
    """
    keys = _words(start, stop, n_units, seed, stream=2)
    chosen = np.zeros(keys.shape, dtype=bool)
    if n_own:
        members = np.argpartition(keys, n_own - 1, axis=1)[:, :n_own]
        np.put_along_axis(chosen, members, values=True, axis=1)
    return chosen


def _numbered_signs(start: int, stop: int, n_units: int) -> Rows:
    numbers = np.arange(start, stop, dtype=np.uint64)[:, None]
    return _bits(numbers)[:, :n_units]


def _bits(words: Words) -> Rows:
    # Lowest bit first on every machine: byte order is fixed before the bytes are looked at.
    octets = np.ascontiguousarray(words).astype("<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").astype(bool)


def _words(start: int, stop: int, n_columns: int, seed: int, *, stream: int) -> Words:
    """Entry (p, i) of SplitMix64's sequence for this seed and stream, read at p * 2**24 + i."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed & (2**64 - 1)], dtype=np.uint64) + golden * np.uint64(stream))
        row = np.arange(start, stop, dtype=np.uint64)[:, None] << np.uint64(_ROW_BITS)
        column = np.arange(1, n_columns + 1, dtype=np.uint64)[None, :]
        return _mix(key + golden * (row + column))


def _mix(z: Words) -> Words:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
