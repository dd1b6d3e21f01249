"""Permutation tests against SciPy and by their properties, through the front `features.stats`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as sp

from affectlens.features import stats

FINITE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


def sparse(rng: np.random.Generator, n: int, f: int) -> np.ndarray:
    return rng.normal(size=(n, f)) * (rng.random((n, f)) < 0.5)


# ---------------------------------------------------------------- the front


def test_front_offers_what_it_names() -> None:
    assert sorted(stats.__all__) == stats.__all__
    assert all(hasattr(stats, name) for name in stats.__all__)


# ---------------------------------------------------------------- statistics


def test_statistic_is_the_paired_t_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, (12, 7)), rng.normal(size=(12, 7))
    found = stats.sign_flip(stats.paired_differences(a, b), 100)
    np.testing.assert_allclose(found.statistic, sp.ttest_rel(a, b).statistic, rtol=1e-9)


def test_statistic_is_the_pooled_t_of_scipy() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(15, 4))
    labels = ["a"] * 4 + ["b"] * 11
    found = stats.label_permutation(x, labels, n_permutations=50)
    want = sp.ttest_ind(x[:4], x[4:]).statistic
    np.testing.assert_allclose(found.statistic[0], want, rtol=1e-9)
    np.testing.assert_allclose(found.specificity[0], x[:4].mean(0) - x[4:].mean(0), atol=1e-12)


@pytest.mark.parametrize(("n", "p"), [(8, 0.0078125), (24, 1 / 10_001), (1, 1.0), (0, 1.0)])
def test_min_attainable_p_signs(n: int, p: float) -> None:
    assert stats.min_attainable_p(n, 10_000) == pytest.approx(p)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_min_attainable_p_is_attained(n: int) -> None:
    found = stats.sign_flip(np.ones((n, 1)) + np.arange(n)[:, None] / 100, 1000)
    assert found.p[0] == stats.min_attainable_p(n, 1000)


@pytest.mark.parametrize(("n", "own"), [(6, 2), (8, 4), (5, 1)])
def test_min_attainable_p_of_labels_is_attained(n: int, own: int) -> None:
    x = np.zeros(n)
    x[:own] = 1.0 + np.arange(own) / 10
    found = stats.label_permutation(x, ["a"] * own + ["b"] * (n - own), ["a"], 1000)
    assert found.p[0, 0] == pytest.approx(stats.min_attainable_p(n, 1000, own))


# ---------------------------------------------------------------- permutation tests


def test_exact_sign_flip_equals_scipy() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(0.4, 1, (9, 5))
    x[:, 3] = np.round(x[:, 3])  # ties between different sums
    x[:6, 4] = 0.0
    found = stats.sign_flip(x, 1000)
    assert found.exact
    want = sp.permutation_test(
        (x,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True, axis=0
    )
    np.testing.assert_allclose(found.p, want.pvalue, atol=1e-6)
    greater = stats.sign_flip(x, 1000, alternative="greater")
    one = sp.permutation_test(
        (x,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
        axis=0,
        alternative="greater",
    )
    np.testing.assert_allclose(greater.p, one.pvalue, atol=1e-6)


def test_exact_label_permutation_equals_scipy() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(9, 4))
    x[:, 3] = np.round(x[:, 3])
    found = stats.label_permutation(x, ["a"] * 3 + ["b"] * 6, ["a"], 1000)
    assert found.exact == (True,)

    def statistic(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.abs(a.mean(axis=axis) - b.mean(axis=axis))

    want = sp.permutation_test(
        (x[:3], x[3:]),
        statistic,
        n_resamples=np.inf,
        vectorized=True,
        axis=0,
        alternative="greater",
    )
    np.testing.assert_allclose(found.p[0], want.pvalue, atol=1e-6)


def test_random_agrees_with_exact() -> None:
    x = np.random.default_rng(6).normal(0.3, 1, (13, 20))
    exact, drawn = stats.sign_flip(x, 8192), stats.sign_flip(x, 8000)
    assert exact.exact and not drawn.exact
    np.testing.assert_allclose(exact.p, drawn.p, atol=0.03)
    np.testing.assert_allclose(exact.p_fwer, drawn.p_fwer, atol=0.03)


def test_swapping_members_flips_every_sign_and_keeps_every_p() -> None:
    rng = np.random.default_rng(7)
    a, b = sparse(rng, 30, 50), sparse(rng, 30, 50)
    one = stats.sign_flip(stats.paired_differences(a, b), 500)
    two = stats.sign_flip(stats.paired_differences(b, a), 500)
    np.testing.assert_array_equal(one.statistic, -two.statistic)
    np.testing.assert_array_equal(one.p, two.p)
    np.testing.assert_array_equal(one.p_fwer, two.p_fwer)


@pytest.mark.parametrize("kind", ["sign", "label"])
def test_p_is_uniform_under_the_null(kind: str) -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_t(3, size=(24, 2000))
    if kind == "sign":
        p = stats.sign_flip(x, 999, seed=1).p
    else:
        p = stats.label_permutation(x, ["a"] * 6 + ["b"] * 18, ["a"], 999, seed=1).p[0]
    assert sp.kstest(p, "uniform").pvalue > 1e-3
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_pairs_as_units_are_optimistic_where_clusters_share_their_effect() -> None:
    # 24 clusters of 4 pairs, a quarter of them 'a', intraclass correlation one half, no effect.
    rng = np.random.default_rng(11)
    clusters = [f"{i // 4:02d}" for i in range(96)]
    labels = ["a" if i < 24 else "b" for i in range(96)]
    x = np.repeat(rng.normal(size=(24, 1500)), 4, axis=0) + rng.normal(size=(96, 1500))
    by_pair = stats.label_permutation(x, labels, ["a"], 499).p[0]
    totals = stats.cluster_totals(x, clusters)
    by_cluster = stats.label_permutation(totals, labels[::4], ["a"], 499).p[0]
    assert (by_pair <= 0.05).mean() > 0.12
    assert (by_cluster <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_family_wise_error_is_held() -> None:
    hits = 0
    for seed in range(200):
        x = sparse(np.random.default_rng(seed), 16, 40)
        hits += bool((stats.sign_flip(x, 400, seed=seed).p_fwer <= 0.1).any())
    # 200 draws at .1: 99.9% of binomial outcomes lie below 35.
    assert hits <= 34


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=FINITE))
def test_p_bounds_hold_for_any_finite_input(x: np.ndarray) -> None:
    found = stats.sign_flip(x, 300)
    assert ((found.p > 0) & (found.p <= 1)).all()
    assert (found.p_fwer >= found.p).all()
    assert not np.isnan(found.statistic).any()
    assert (found.p[np.all(x == 0, axis=0)] == 1).all()


@settings(deadline=None, max_examples=25)
@given(st.floats(1e-30, 1e30), st.integers(0, 100))
def test_p_does_not_depend_on_the_scale(scale: float, seed: int) -> None:
    x = sparse(np.random.default_rng(seed), 10, 5)
    np.testing.assert_array_equal(stats.sign_flip(x * scale, 200).p, stats.sign_flip(x, 200).p)


def test_one_pair_zeros_and_constants() -> None:
    one = stats.sign_flip([[3.0, 0.0]], 100)
    assert one.p.tolist() == [1.0, 1.0]
    flat = stats.sign_flip(np.full((5, 1), 2.0), 100)
    assert np.isinf(flat.statistic[0]) and flat.p[0] == 2 / 32
    zero = stats.sign_flip(np.zeros((20, 3)), 100)
    assert zero.statistic.tolist() == [0, 0, 0]
    assert zero.p.tolist() == zero.p_fwer.tolist() == [1, 1, 1]
    label = stats.label_permutation(np.full((6, 1), 0.1), list("aabbbb"), n_permutations=100)
    assert label.p.ravel().tolist() == [1, 1] and label.statistic.ravel().tolist() == [0, 0]


def test_no_features_is_an_empty_result() -> None:
    assert stats.sign_flip(np.zeros((4, 0)), 100).p.shape == (0,)
    assert stats.label_permutation(np.zeros((4, 0)), list("aabb")).p.shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.sign_flip(np.zeros((0, 2))), "shape"),
        (lambda: stats.sign_flip([[np.nan]]), "NaN"),
        (lambda: stats.sign_flip([[np.inf]]), "infinite"),
        (lambda: stats.sign_flip([1.0], 0), "n_permutations is 0"),
        (lambda: stats.label_permutation([1.0, 2.0], ["a"]), "1 labels for 2 units"),
        (lambda: stats.label_permutation([1.0, 2.0], ["a", "a"]), "every unit"),
        (lambda: stats.label_permutation([1.0, 2.0], ["a", "b"], ["c"]), "no unit"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(stats.StatisticsError, match=message):
        call()
