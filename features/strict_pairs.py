"""The strictest lexical test: pairs whose members hold the same words.

A latent found on one battery is tested, by the same contrast, on pairs that words cannot tell
apart: in one battery both members of a pair hold the same words in another order, in the other the
differing words stand as often on either side. What differs there is meaning. These pairs are few,
and minimal pairs have small effects, so a result that is not significant says little by itself; the
smallest effect that the pairs could have shown stands beside each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, Retest, retest
from affectlens.features.design import PairDesign
from affectlens.features.detectable import detectable_over_all, mean_icc
from affectlens.features.effect_share import sides, standardised

Array = npt.NDArray[np.float64]
Outcome = Literal["holds", "opposite", "low power", "not shown", "not testable"]

MIN_OWN = 3
"""Own pairs below which an effect has no standard deviation worth the name, and no d_z."""


@dataclass(frozen=True, eq=False)
class StrictPairs:
    """Differences of some latents on one strict battery: float64 [n_pairs, n_columns]."""

    battery: str
    differences: Array
    design: PairDesign


@dataclass(frozen=True, eq=False)
class StrictTest:
    """One contrast on one strict battery; arrays are [n_columns].

    Attributes:
        battery: its name.
        test: the contrast's test; None if it cannot be made there.
        p_holm: Holm over all columns and all strict batteries of the contrast; NaN without a test.
        standardised: effect over the standard deviation of pair differences; may be NaN.
        min_detectable: the smallest such effect that is found with power .8; NaN without a test,
            infinite where no effect would be.
        outcome: 'holds' (significant, on the side of the finding), 'opposite' (on the other side),
            'low power' (not significant, and the effect of the finding is below the smallest
            detectable one), 'not shown' (not significant though it could have been), or 'not
            testable'.
    """

    battery: str
    test: Retest | None
    p_holm: Array
    standardised: Array
    min_detectable: float
    outcome: tuple[Outcome, ...]


def strict_tests(
    name: str,
    batteries: Sequence[StrictPairs],
    found: Array,
    config: SearchConfig,
) -> tuple[StrictTest, ...]:
    """Test one contrast's latents on every strict battery.

    Args:
        name: 'all' or an emotion.
        batteries: differences of the same latents on each of them.
        found: [n_columns] standardised effect in the search's own battery; its sign is the side
            that is looked for, its size what power is judged by.
        config: settings of the test.

    Returns:
        One `StrictTest` a battery, in order.

    Raises:
        StatisticsError: a difference is not finite.
    """
    tests = [_test(name, b, config) for b in batteries]
    family = sum(t is not None for t in tests) * len(found)
    p = [t.p for t in tests if t is not None]
    adjusted = iter(stats.holm(np.stack(p)) if p else np.zeros((0, len(found))))
    results = []
    for battery, test in zip(batteries, tests, strict=True):
        if test is None:
            none = np.full(len(found), np.nan)
            nothing: list[Outcome] = ["not testable"] * len(found)
            results.append(
                StrictTest(battery.battery, None, none, none, float("nan"), tuple(nothing))
            )
            continue
        holm = next(adjusted)
        least = _detectable(name, battery, test, max(family, 1), config)
        results.append(
            StrictTest(
                battery.battery,
                test,
                holm,
                standardised(battery.differences, name, battery.design),
                least,
                _outcomes(test, holm, least, found, config.alpha),
            )
        )
    return tuple(results)


def _test(name: str, battery: StrictPairs, config: SearchConfig) -> Retest | None:
    if len(sides(name, battery.design).own) < MIN_OWN:
        return None
    return retest(battery.differences, name, battery.design, config)


def _detectable(
    name: str, battery: StrictPairs, test: Retest, family: int, config: SearchConfig
) -> float:
    """In standard deviations of pair differences; infinite if the smallest p is too large."""
    if test.min_p * family > config.alpha:
        return float("inf")
    design = battery.design
    two = sides(name, design)
    own, rest = two.own, two.rest
    if name != ALL:
        units = design.units(config.unit_emotion)
        n_own, n_rest = (len({units[i] for i in rows}) for rows in (own, rest))
        return stats.min_detectable_between(n_own, n_rest, family, config.alpha)
    icc = mean_icc(stats.icc(battery.differences, design.clusters).value)
    return detectable_over_all(len(own), test.n_units, icc, family, config)


def _outcomes(
    test: Retest, p_holm: Array, least: float, found: Array, alpha: float
) -> tuple[Outcome, ...]:
    side = np.sign(test.effects.specificity) == np.sign(found)
    outcomes: list[Outcome] = []
    for p, same, size in zip(p_holm, side, np.abs(found), strict=True):
        if p <= alpha:
            outcomes.append("holds" if same else "opposite")
        else:
            outcomes.append("not shown" if size >= least else "low power")
    return tuple(outcomes)
