"""What part of a contrast's effect remains in other differences of the same pairs.

The effect of a contrast is what its test is about: for 'all' the mean difference over pairs, for an
emotion the mean over its own pairs minus the mean over the others'. A share is a ratio of two such
effects, a ratio of means and not a mean of ratios, since single pairs have differences near 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.features import stats
from affectlens.features.config import SearchConfig, Unit
from affectlens.features.contrasts import ALL
from affectlens.features.design import PairDesign

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_NIL = 1e-12
"""An effect below this share of the largest difference is rounding error."""
MIN_UNITS = 4
"""Fewer on a side give no interval: with two, what is called 95% holds the truth in 72%."""
_STREAM = 2**63
"""Keeps the resamples of the other emotions apart from those of the own ones."""


@dataclass(frozen=True, eq=False)
class EffectShare:
    """Shares with percentile intervals; arrays are [n_columns].

    Attributes:
        share: effect of the part over effect of the whole; NaN where the whole has none.
        low: lower end; NaN where the whole's own interval holds 0, or with fewer than four units
            on a side.
        high: upper end; NaN likewise.
        n_units: units that were resampled.
    """

    share: Array
    low: Array
    high: Array
    n_units: int


@dataclass(frozen=True, eq=False)
class Sides:
    """Pairs that a contrast is about, and those it is set against; none of the latter for 'all'."""

    own: Rows
    rest: Rows


def sides(name: str, design: PairDesign) -> Sides:
    """The two sides of a contrast, as indices of pairs."""
    every = np.arange(len(design))
    if name == ALL:
        return Sides(every, every[:0])
    own = np.array([e == name for e in design.emotions], dtype=bool)
    return Sides(every[own], every[~own])


def effect(differences: Array, name: str, design: PairDesign) -> Array:
    """Effect of a contrast in `differences` [n_pairs, n_columns]: [n_columns].

    NaN where there is nothing to compare: no own pair, or for an emotion no other one.
    """
    two = sides(name, design)
    own, rest = two.own, two.rest
    if not len(own) or (name != ALL and not len(rest)):
        return np.full(differences.shape[1:], np.nan)
    found = stats.mean_diff(differences[own])
    return found if name == ALL else found - stats.mean_diff(differences[rest])


def standardised(differences: Array, name: str, design: PairDesign) -> Array:
    """Effect of a contrast over the standard deviation of pair differences: [n_columns].

    For 'all' this is d_z, for an emotion `hedges_g` of its own pairs against the others. NaN for
    fewer than three own pairs, fewer than three others, or no spread.
    """
    two = sides(name, design)
    own, rest = two.own, two.rest
    if name == ALL:
        return stats.d_z(differences)
    if len(own) < 3 or len(rest) < 3:
        return np.full(differences.shape[1:], np.nan)
    return stats.hedges_g(differences[own], differences[rest])


def effect_share(
    part: Array,
    whole: Array,
    name: str,
    design: PairDesign,
    config: SearchConfig,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> EffectShare:
    """Share of the whole's effect that the part has, with a bootstrap interval.

    Numerator and denominator come from the same resample (Davison and Hinkley 1997, section 2.5).
    Resampled are the units of the contrast's test: clusters or pairs, own ones and others
    separately. With few units the interval is too short; below `MIN_UNITS` a side there is none. A
    ratio has a bounded interval only if its denominator is told apart from 0 (Fieller 1954), so
    there is none where the interval of the whole's effect holds 0.

    Args:
        part: [n_pairs, n_columns] differences.
        whole: [n_pairs, n_columns] differences that hold all of the effect.
        name: 'all' or an emotion.
        design: the pairs.
        config: gives the unit of the test.
        n: resamples; 0 for shares without intervals.
        seed: seed of the resamples.
        level: of the interval.

    Raises:
        StatisticsError: shapes differ, no pairs, or a value is not finite.
    """
    stats.paired_differences(part, whole)
    top, bottom = effect(part, name, design), effect(whole, name, design)
    nil = ~(np.abs(bottom) > _NIL * np.abs(whole).max(axis=0))
    share = np.where(nil, np.nan, top / np.where(nil, 1.0, bottom))
    unit: Unit = config.unit if name == ALL else config.unit_emotion
    names = design.units(unit)
    two = sides(name, design)
    groups = [rows for rows in (two.own, two.rest) if len(rows)]
    sizes = [len({names[i] for i in rows}) for rows in groups]
    none = np.full(share.shape, np.nan)
    if n < 1 or min(sizes) < MIN_UNITS or bool(np.isnan(bottom).all()):
        return EffectShare(share, none, none, sum(sizes))
    joined = np.concatenate([part, whole], axis=1)
    drawn = np.zeros((n, joined.shape[1]))
    for sign, rows, stream in zip((1, -1), groups, (0, _STREAM), strict=False):
        units = [names[i] for i in rows]
        drawn += sign * _resampled_means(joined[rows], units, n, seed + stream)
    tops, bottoms = drawn[:, : len(share)], drawn[:, len(share) :]
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(bottoms, ends, axis=0)
    bounded = ~nil & ((low > 0) | (high < 0))
    # Single resamples may still have no effect below the line: such a ratio lies at infinity.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(tops / bottoms, nan=0.0)
    low, high = np.quantile(ratios, ends, axis=0)
    return EffectShare(
        share, np.where(bounded, low, np.nan), np.where(bounded, high, np.nan), sum(sizes)
    )


def _resampled_means(values: Array, units: list[str], n: int, seed: int) -> Array:
    """Means over rows of resampled units: [n, n_columns]."""
    totals = stats.cluster_totals(values, units)
    sizes = stats.cluster_totals(np.ones(len(values)), units)
    counts = stats.resample_counts(n, len(sizes), seed).astype(float)
    return np.asarray((counts @ totals) / (counts @ sizes)[:, None])
