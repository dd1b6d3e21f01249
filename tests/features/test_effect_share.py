"""Shares of an effect: ratios of means, intervals by units, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import retest
from affectlens.features.design import PairDesign
from affectlens.features.effect_share import (
    effect,
    effect_share,
    sides,
    standardised,
)
from affectlens.features.stats import StatisticsError

CONFIG = SearchConfig(n_permutations=200)


def make_design(
    emotions: tuple[str, ...] = ("a", "b"), domains: int = 4, per: int = 2
) -> PairDesign:
    labels = [(e, f"{e}/{d}") for e in emotions for d in range(domains) for _ in range(per)]
    n = len(labels)
    return PairDesign(
        np.arange(n),
        np.arange(n, 2 * n),
        tuple(f"p{i}" for i in range(n)),
        tuple(e for e, _ in labels),
        tuple(c for _, c in labels),
        emotions,
    )


DESIGN = make_design()


def test_subset_keeps_rows_together() -> None:
    some = DESIGN.take([9, 2])
    assert some.pair_ids == ("p9", "p2") and some.emotions == ("b", "a")
    assert some.clinical.tolist() == [9, 2] and some.neutral.tolist() == [25, 18]
    assert some.order == DESIGN.order and len(DESIGN.take([])) == 0


@pytest.mark.parametrize("name", ["all", "a", "b"])
def test_effect_is_what_the_contrast_tests(name: str) -> None:
    d = np.random.default_rng(0).normal(size=(len(DESIGN), 3))
    found = retest(d, name, DESIGN, CONFIG)
    assert found is not None
    np.testing.assert_allclose(effect(d, name, DESIGN), found.effects.specificity)


def test_effect_without_a_side_is_nan() -> None:
    d = np.ones((len(DESIGN), 2))
    alone = make_design(("a",))
    assert np.isnan(effect(d, "c", DESIGN)).all()
    assert np.isnan(effect(np.ones((8, 2)), "a", alone)).all()
    assert len(sides("a", alone).rest) == 0


def test_standardised_by_hand() -> None:
    design = make_design(("a", "b"), domains=3, per=1)
    d = np.array([1.0, 2, 3, 0, 0, 3])[:, None]
    # Means 2 and 1; squares within 2 and 6, over 4 degrees of freedom: sd = sqrt 2.
    expected = stats.hedges_factor(4) / np.sqrt(2)
    np.testing.assert_allclose(standardised(d, "a", design), [expected])
    np.testing.assert_allclose(standardised(d, "all", design), stats.d_z(d))
    assert np.isnan(standardised(np.ones((6, 1)), "a", design)).all()
    assert np.isnan(standardised(d[:5], "b", design.take(range(5)))).all()


def test_share_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    whole = np.array([1.0, 3.0] * 8)[:, None]
    part = np.array([1.0, 0.0] * 8)[:, None]
    found = effect_share(part, whole, "all", DESIGN, CONFIG)
    np.testing.assert_allclose(found.share, [0.25])
    # Every cluster holds the same two pairs, so no resample differs.
    np.testing.assert_allclose([found.low[0], found.high[0]], 0.25)
    assert found.n_units == 8


@pytest.mark.parametrize("name", ["all", "a"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, -0.5])
def test_a_constant_share_has_a_narrow_interval(name: str, share: float) -> None:
    rng = np.random.default_rng(1)
    own = np.array([e == "a" for e in DESIGN.emotions])
    whole = 2 + 3.0 * own[:, None] + 0.2 * rng.normal(size=(len(DESIGN), 2))
    found = effect_share(share * whole, whole, name, DESIGN, CONFIG)
    for value in (found.share, found.low, found.high):
        np.testing.assert_allclose(value, share, atol=1e-9)


def test_no_effect_gives_no_share_and_a_noisy_one_no_interval() -> None:
    rng = np.random.default_rng(0)
    nil = np.zeros((len(DESIGN), 1))
    noise = rng.normal(size=(len(DESIGN), 1))
    noise -= noise.mean() - 0.05
    found = effect_share(np.ones((len(DESIGN), 2)), np.hstack([nil, noise]), "all", DESIGN, CONFIG)
    assert np.isnan(found.share[0]) and np.isfinite(found.share[1])
    assert np.isnan(found.low).all() and np.isnan(found.high).all()


def test_equal_opposites_are_no_effect() -> None:
    whole = np.array([0.1, -0.1] * 8)[:, None]
    assert np.isnan(effect_share(whole, whole, "all", DESIGN, CONFIG).share).all()


def test_one_unit_has_no_interval() -> None:
    one = DESIGN.take([0, 1])
    found = effect_share(np.ones((2, 1)), np.full((2, 1), 2.0), "all", one, CONFIG)
    assert found.share[0] == 0.5 and np.isnan(found.low[0]) and found.n_units == 1
    alone = effect_share(np.ones((8, 1)), np.ones((8, 1)), "a", make_design(("a",)), CONFIG)
    assert np.isnan(alone.share[0])


@pytest.mark.parametrize(("domains", "given"), [(3, False), (4, True)])
def test_below_four_units_a_side_there_is_no_interval(domains: int, given: bool) -> None:
    rng = np.random.default_rng(4)
    design = make_design(("a", "b", "c"), domains=domains, per=4)
    whole = (
        1 + 3.0 * (np.array(design.emotions) == "a")[:, None] + rng.normal(0, 0.2, (len(design), 1))
    )
    found = effect_share(0.5 * whole, whole, "a", design, CONFIG)
    assert found.share[0] == pytest.approx(0.5)
    assert np.isfinite([found.low[0], found.high[0]]).all() == given
    assert np.isfinite(effect_share(0.5 * whole, whole, "all", design, CONFIG).low[0])


def test_interval_follows_the_unit_of_the_test() -> None:
    """Pairs of one cluster are alike: resampling them as if they were apart is too sure."""
    rng = np.random.default_rng(2)
    design = make_design(domains=6, per=6)
    level = np.repeat(rng.normal(size=12), 6)[:, None]
    part, whole = 1 + level, np.full_like(level, 2.0) + 0.01 * rng.normal(size=level.shape)
    wide = effect_share(part, whole, "all", design, CONFIG)
    narrow = effect_share(part, whole, "all", design, SearchConfig(unit="pair"))
    assert (wide.high - wide.low)[0] > 1.7 * (narrow.high - narrow.low)[0]
    assert (wide.n_units, narrow.n_units) == (12, 72)


def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    design = make_design(domains=12, per=1)
    n_columns, truth = 400, 0.5
    whole = 1 + 0.5 * rng.normal(size=(24, n_columns))
    part = truth * whole + 0.3 * rng.normal(size=(24, n_columns))
    found = effect_share(part, whole, "all", design, CONFIG, n=500)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert 0.88 < covered < 0.98


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**40), st.floats(1e-6, 1e6))
def test_share_does_not_depend_on_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    part, whole = rng.normal(size=(2, len(DESIGN), 3)) + 1
    a = effect_share(part, whole, "a", DESIGN, CONFIG, n=50)
    b = effect_share(scale * part, scale * whole, "a", DESIGN, CONFIG, n=50)
    np.testing.assert_allclose(a.share, b.share)
    np.testing.assert_allclose(a.low, b.low)


def test_bad_input_is_refused() -> None:
    good = np.ones((len(DESIGN), 1))
    with pytest.raises(StatisticsError, match="NaN"):
        effect_share(good * np.nan, good, "all", DESIGN, CONFIG)
    with pytest.raises(StatisticsError, match="shape"):
        effect_share(good[:3], good, "all", DESIGN, CONFIG)
