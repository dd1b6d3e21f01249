"""The planted effect has the size that it says, in the population and on average in data."""

from __future__ import annotations

import numpy as np
import pytest

from affectlens.features import stats
from affectlens.features.pair_data import Members
from affectlens.features.permutation import StatisticsError
from affectlens.features.planted import plant, population_d_z, solve_strength


def members(n: int = 60, rates: tuple[float, ...] = (0.05, 0.3, 1.0), seed: int = 0) -> Members:
    rng = np.random.default_rng(seed)

    def side() -> np.ndarray:
        return np.where(rng.random((n, len(rates))) < rates, rng.gamma(2, size=(n, len(rates))), 0)

    return Members(side(), side())


def test_population_d_z_by_hand() -> None:
    # One pair (2, 0): orientations (2, 0) and (0, 2). With t = ln 2 a silent member fires half the
    # time. Mean active value 2, variance 0, shift 2 ln 2 = s: differences 2 + s with probability
    # 1/2, s (2 + s - 2) and -2 with 1/4 each.
    s = 2 * np.log(2)
    outcomes, p = np.array([2 + s, s, -2.0]), np.array([0.5, 0.25, 0.25])
    mean = outcomes @ p
    sd = np.sqrt(outcomes**2 @ p - mean**2)
    got = population_d_z(
        Members(np.array([[2.0]]), np.array([[0.0]])), *np.array([[2.0], [0.0], [np.log(2)]])
    )
    np.testing.assert_allclose(got, [mean / sd])


@pytest.mark.parametrize("d_z", [0.1, 0.5, 1.6, 5.0])
def test_the_strength_solves_the_population(d_z: float) -> None:
    own = members()
    t = solve_strength(own, own, d_z)
    pools = [np.concatenate([own.clinical[:, j], own.neutral[:, j]]) for j in range(3)]
    active = [p[p > 0] for p in pools]
    mean, variance = (np.array([f(a) for a in active]) for f in (np.mean, np.var))
    np.testing.assert_allclose(population_d_z(own, mean, variance, t), d_z, rtol=1e-6)
    assert (t > 0).all()


def test_data_scatter_about_the_planted_effect_and_stay_non_negative() -> None:
    own, rows = members(), np.arange(60)
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        swap = rng.integers(2, size=60).astype(bool)
        made = plant(own, rows, 0.8, 3, rng, swap)
        assert (made.members.clinical >= 0).all()
        np.testing.assert_array_equal(
            made.members.neutral, np.where(swap[:, None], own.clinical, own.neutral)
        )
        found.append(stats.d_z(made.members.differences)[made.latents.argsort()])
    assert np.std(found, axis=0).min() > 0.05
    # The standard error of a mean over 200 is about .01; sparse latents are skewed.
    np.testing.assert_allclose(np.mean(found, axis=0)[1:], 0.8, atol=0.05)
    np.testing.assert_allclose(np.mean(found, axis=0)[0], 0.8, atol=0.12)


def test_zeros_mostly_stay_under_a_small_effect() -> None:
    own = members(n=400, rates=(0.1,))
    made = plant(own, np.arange(400), 0.1, 1, np.random.default_rng(0), np.zeros(400, dtype=bool))
    assert (made.members.clinical[own.clinical == 0] == 0).mean() > 0.8


def test_only_the_given_pairs_and_latents_change() -> None:
    own, rows = members(rates=(0.5,) * 6), np.arange(20)
    made = plant(own, rows, 1.0, 2, np.random.default_rng(0), np.zeros(60, dtype=bool))
    changed = made.members.clinical != own.clinical
    assert not changed[20:].any() and set(np.flatnonzero(changed.any(axis=0))) == set(made.latents)
    assert len(made.latents) == 2


def test_latents_that_never_differ_get_nothing() -> None:
    same = np.ones((5, 3))
    made = plant(
        Members(same, same), np.arange(5), 1.0, 3, np.random.default_rng(0), np.zeros(5, dtype=bool)
    )
    assert len(made.latents) == 0
    np.testing.assert_array_equal(made.members.clinical, same)


@pytest.mark.parametrize("d_z", [0.0, -1.0, np.inf])
def test_an_effect_must_be_positive(d_z: float) -> None:
    with pytest.raises(StatisticsError, match="need d_z above 0"):
        plant(members(), np.arange(3), d_z, 1, np.random.default_rng(0), np.zeros(60, dtype=bool))
