"""Random and enumerated permutations: balanced, distinct where they should be, counter-based."""

from __future__ import annotations

import math

import numpy as np
import pytest

from affectlens.features.permutation_draws import (
    random_signs,
    random_subsets,
    sign_draws,
    subset_draws,
)


@pytest.mark.parametrize("n_units", [1, 50, 64, 65, 200])
def test_a_row_depends_on_seed_and_place_alone(n_units: int) -> None:
    whole = random_signs(0, 300, n_units, 3)
    np.testing.assert_array_equal(whole[100:217], random_signs(100, 217, n_units, 3))
    own = min(7, n_units)
    subsets = random_subsets(0, 300, n_units, own, 3)
    np.testing.assert_array_equal(subsets[100:217], random_subsets(100, 217, n_units, own, 3))


def test_random_signs_are_balanced_and_independent() -> None:
    signs = np.where(random_signs(0, 20_000, 70, 0), 1.0, -1.0)
    limit = 5 / np.sqrt(20_000)
    assert np.abs(signs.mean(axis=0)).max() < limit
    assert np.abs(signs.T @ signs / len(signs) - np.eye(70)).max() < limit
    assert np.abs((signs[1:] * signs[:-1]).mean(axis=0)).max() < limit


def test_random_subsets_are_balanced() -> None:
    chosen = random_subsets(0, 20_000, 30, 6, 0)
    assert (chosen.sum(axis=1) == 6).all()
    assert np.abs(chosen.mean(axis=0) - 0.2).max() < 5 * np.sqrt(0.16 / 20_000)
    together = chosen.T.astype(float) @ chosen / 20_000
    pair = 6 * 5 / (30 * 29)
    off = together[~np.eye(30, dtype=bool)]
    assert np.abs(off - pair).max() < 5 * np.sqrt(pair * (1 - pair) / 20_000)


def test_seeds_and_streams_differ() -> None:
    assert not np.array_equal(random_signs(0, 10, 50, 0), random_signs(0, 10, 50, 1))
    assert not np.array_equal(random_subsets(0, 10, 50, 5, 0), random_subsets(0, 10, 50, 5, 1))


@pytest.mark.parametrize("n_units", [1, 3, 9])
def test_all_signs_are_there_once(n_units: int) -> None:
    draws = sign_draws(n_units, 2**n_units, 0)
    assert draws.exact and draws.n_permutations == 2**n_units
    rows = draws.rows(0, draws.n_permutations)
    assert len({row.tobytes() for row in rows}) == 2**n_units
    assert not sign_draws(n_units, 2**n_units - 1, 0).exact or n_units == 0


@pytest.mark.parametrize(("n_units", "n_own"), [(5, 1), (8, 4), (9, 3)])
def test_all_subsets_are_there_once(n_units: int, n_own: int) -> None:
    total = math.comb(n_units, n_own)
    draws = subset_draws(n_units, n_own, total, 0)
    rows = draws.rows(0, total)
    assert draws.exact and draws.n_permutations == total == len({row.tobytes() for row in rows})
    assert (rows.sum(axis=1) == n_own).all()
    assert not subset_draws(n_units, n_own, total - 1, 0).exact
