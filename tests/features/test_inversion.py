"""Intervals that invert permutation tests: against the tests themselves, SciPy and hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from affectlens.features import stats
from affectlens.features.inversion import one_sample, two_sample, welch
from affectlens.features.permutation import StatisticsError


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_one_sample_agrees_with_the_sign_flip_test(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Small integers give ties and sums that vanish.
    x = rng.integers(-1, 4, size=(n, 5)).astype(float)
    found = one_sample(x, names(n))
    np.testing.assert_allclose(found.p, stats.sign_flip(x, 10_000).p, atol=1e-12)
    outside = (found.low > 0) | (found.high < 0)
    np.testing.assert_array_equal(outside, found.p <= 0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_two_sample_agrees_with_the_label_test(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, size=(n, 5)).astype(float) + 2
    y = rng.integers(0, 4, size=(m, 5)).astype(float)
    found = two_sample(x, y)
    reference = stats.label_permutation(np.concatenate([x, y]), ["a"] * n + ["b"] * m, ["a"])
    np.testing.assert_allclose(found.p, reference.p[0], atol=1e-12)
    outside = (found.low > 0) | (found.high < 0)
    np.testing.assert_array_equal(outside, found.p <= 0.05)


@pytest.mark.parametrize("n", [6, 30])
def test_the_bounds_are_where_the_test_turns(n: int) -> None:
    x = np.random.default_rng(1).normal(0.4, 1, size=(n, 1))
    found = one_sample(x, names(n), n_permutations=5000)
    step = 1e-6
    for bound, inward in ((found.low[0], 1), (found.high[0], -1)):
        inside, outside = x - bound - inward * step, x - bound + inward * step
        assert one_sample(inside, names(n), n_permutations=5000).p[0] > 0.05
        assert one_sample(outside, names(n), n_permutations=5000).p[0] <= 0.05


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 9), (20, 20)])
def test_the_two_sample_bounds_are_where_the_test_turns(n: int, m: int) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(1, 1, size=(n, 1)), rng.normal(size=(m, 1))
    found = two_sample(x, y, n_permutations=5000)
    for bound, inward in ((found.low[0], 1), (found.high[0], -1)):
        assert two_sample(x - bound - inward * 1e-6, y, n_permutations=5000).p[0] > 0.05
        assert two_sample(x - bound + inward * 1e-6, y, n_permutations=5000).p[0] <= 0.05


def test_a_hand_worked_interval() -> None:
    # Means of the 63 subsets of six values; 2 of 64 patterns (none, all) always count, so at 5%
    # one more may: bounds are the smallest and the largest subset mean, the extreme values.
    x = np.array([1.0, 2, 3, 4, 5, 9])
    found = one_sample(x, names(6))
    assert (found.low[0], found.high[0], found.estimate[0]) == (1.0, 9.0, 4.0)
    assert found.p[0] == 2 / 64


def test_clusters_are_flipped_as_a_whole() -> None:
    x = np.ones((24, 1))
    assert one_sample(x, [str(i // 4) for i in range(24)]).p[0] == pytest.approx(2 / 64)
    # A larger cluster weighs more.
    assert one_sample([1.0, 1, 1, 5], ["a", "a", "a", "b"]).estimate[0] == 2.0


def test_coverage_is_at_least_nominal_where_pairs_share_clusters() -> None:
    rng = np.random.default_rng(3)
    n_sets, k = 400, 8
    x = 1 + rng.normal(size=(k, 1, n_sets)) + rng.normal(size=(k, 4, n_sets))
    found = one_sample(x.reshape(4 * k, n_sets), [str(i // 4) for i in range(4 * k)])
    covered = int(((found.low <= 1) & (found.high >= 1)).sum())
    assert scipy_stats.binomtest(covered, n_sets, 0.95).pvalue > 1e-3 or covered > 0.95 * n_sets


def test_welch_equals_scipy() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(1, 3, size=(8, 6)), rng.normal(size=(40, 6))
    reference = scipy_stats.ttest_ind(x, y, equal_var=False)
    interval = reference.confidence_interval(0.95)
    found = welch(x, y)
    np.testing.assert_allclose(found.p, reference.pvalue, rtol=1e-9)
    np.testing.assert_allclose(found.low, interval.low, rtol=1e-9)
    np.testing.assert_allclose(found.high, interval.high, rtol=1e-9)


def test_degenerate_input_is_stated() -> None:
    zero = one_sample(np.zeros((8, 2)), names(8))
    assert (zero.p == 1).all() and (zero.low == 0).all() and (zero.high == 0).all()
    few = one_sample(np.ones((3, 1)), names(3))
    assert few.min_p == 0.25 and few.low[0] == -np.inf and few.high[0] == np.inf
    one = one_sample(np.ones((1, 1)), ["a"])
    assert one.p[0] == 1 and one.min_p == 1
    pair = two_sample([1.0], [0.0])
    assert pair.p[0] == 1 and pair.low[0] == -np.inf
    assert welch([1.0], [0.0, 1.0]).high[0] == np.inf
    flat = welch(np.ones((3, 1)), np.ones((4, 1)))
    assert flat.p[0] == 1 and flat.low[0] == flat.high[0] == 0
    with pytest.raises(StatisticsError, match="NaN"):
        one_sample([np.nan, 1.0], names(2))
    with pytest.raises(StatisticsError, match="features"):
        two_sample(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(StatisticsError, match="alpha"):
        one_sample([1.0], ["a"], alpha=1.0)
