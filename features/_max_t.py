"""Step-down max-T: what is counted over permutations, and the p values that follow; private.

Westfall and Young (1993, algorithm 2.8) order the features by their observed statistic. The
successive maximum of a feature is the largest permuted statistic among the features that are
observed at or below it. Its adjusted p is the share of permutations whose successive maximum
reaches the observed statistic, made monotone from the most significant feature on. Of features with
equal observed statistics the last in the order competes with all of them and has the largest count;
being monotone gives the others the same, so the order among ties does not matter.

Single-step max-T uses the maximum over all features for every feature. Step-down is never larger.
Both control the family-wise error whatever the other features are where permutations leave the
joint distribution of the true nulls unchanged (subset pivotality is not needed; Romano and Wolf
2005).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int32] | npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Observed:
    """What permutations are held against: [n_groups, n_features].

    Attributes:
        statistic: observed values; they order the features, and equal ones are ties.
        limit: the smallest permuted value that counts as reaching the statistic, a little below it
            so that rounding cannot hide a tie. Never falls where the statistic rises.
    """

    statistic: Numbers
    limit: Numbers

    def orders(self) -> Longs:
        """Features from the smallest statistic to the largest: [n_groups, n_features]."""
        return np.argsort(self.statistic, axis=1, kind="stable")


@dataclass(frozen=True, eq=False)
class Counts:
    """Permutations that reach the limit.

    Attributes:
        alone: [n_groups, n_features] by the feature's own permuted value.
        successive: [n_groups, n_features] by its successive maximum.
        maxima: [n_permutations] largest permuted value over all features, in any order.
    """

    alone: Longs
    successive: Longs
    maxima: Numbers


@dataclass(frozen=True, eq=False)
class PValues:
    """[n_groups, n_features] each."""

    p: Array
    p_fwer: Array
    p_single_step: Array


def count_by_definition(permuted: Iterable[Numbers], observed: Observed) -> Counts:
    """The counts, from permuted statistics in blocks [n_block, n_features]; the definition."""
    alone = np.zeros(observed.statistic.shape, dtype=np.int64)
    successive = np.zeros_like(alone)
    maxima = []
    for values in permuted:
        for group, order in enumerate(observed.orders()):
            limit = observed.limit[group][order]
            ordered = values[:, order]
            alone[group, order] += (ordered >= limit).sum(axis=0)
            upward = np.maximum.accumulate(ordered, axis=1)
            successive[group, order] += (upward >= limit).sum(axis=0)
        maxima.append(values.max(axis=1, initial=-np.inf))
    return Counts(alone, successive, np.concatenate(maxima))


def p_values(counts: Counts, observed: Observed, *, exact: bool) -> PValues:
    """p = hits / n where all arrangements were enumerated, else (1 + hits) / (1 + n).

    The observed arrangement is one of those enumerated, and is added to random ones (Phipson and
    Smyth 2010).
    """
    n, extra = len(counts.maxima), 0 if exact else 1
    ranked = np.sort(counts.maxima)
    reached = n - np.searchsorted(ranked, observed.limit, side="left")
    successive = np.empty(counts.successive.shape, dtype=np.int64)
    for group, order in enumerate(observed.orders()):
        down = order[::-1]
        successive[group, down] = np.maximum.accumulate(counts.successive[group, down])
    return PValues(
        (counts.alone + extra) / (n + extra),
        (successive + extra) / (n + extra),
        (reached + extra) / (n + extra),
    )
