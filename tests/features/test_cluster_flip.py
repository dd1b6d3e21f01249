"""Hierarchical sign flips: against enumeration, against cluster t, and their level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats as sp

from affectlens.features.cluster_flip import cluster_flip
from affectlens.features.permutation import StatisticsError, sign_flip
from affectlens.features.stats import cluster_totals


def studentised(x: np.ndarray, clusters: list[str]) -> np.ndarray:
    """T / sqrt(SS - T^2 / C), up to infinity, one feature."""
    sums = np.array([sum(v for v, k in zip(x, clusters) if k == c) for c in sorted(set(clusters))])
    rest = (sums**2).sum() - sums.sum() ** 2 / len(sums)
    if abs(sums.sum()) < 1e-12:
        return np.float64(0)  # type: ignore[return-value]
    return sums.sum() / np.sqrt(rest) if rest > 1e-12 else np.copysign(np.inf, sums.sum())


def correlated(n_clusters: int, size: int, f: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """No effect; intraclass correlation one half."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(n_clusters, f)), size, axis=0)
    clusters = [f"{i // size:03d}" for i in range(n_clusters * size)]
    return shared + rng.normal(size=shared.shape), clusters


def test_statistic_is_the_t_of_cluster_totals() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.3, 1, (23, 6)) * (rng.random((23, 6)) < 0.6)
    clusters = [f"c{i % 5}" for i in rng.permutation(23)]
    found = cluster_flip(x, clusters, 100)
    want = sp.ttest_1samp(cluster_totals(x, clusters), 0).statistic
    np.testing.assert_allclose(found.statistic, want, rtol=1e-7)
    assert (found.n_units, found.n_clusters, found.exact) == (23, 5, False)


# Values of a cluster that cancel under some signs: a total of exactly zero.
@example(6, 2, 21, True)
@settings(deadline=None, max_examples=20)
@given(st.integers(2, 7), st.integers(2, 4), st.integers(0, 99), st.booleans())
def test_p_equals_enumeration(n: int, n_clusters: int, seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 1, (n, 3)) * (rng.random((n, 3)) < 0.7)
    x = np.round(x) if whole else x
    clusters = [f"c{i % n_clusters}" for i in range(n)]
    signs = np.array(list(itertools.product([-1, 1], repeat=n)))
    two, greater = (
        cluster_flip(x, clusters, 128),
        cluster_flip(x, clusters, 128, alternative="greater"),
    )
    assert two.exact
    for j in range(3):
        t = np.array([studentised(s * x[:, j], clusters) for s in signs])
        observed = studentised(x[:, j], clusters)
        slack = 1e-7 * max(1.0, abs(observed)) if np.isfinite(observed) else 0.0
        assert two.p[j] == pytest.approx((np.abs(t) >= abs(observed) - slack).mean())
        assert greater.p[j] == pytest.approx((t >= observed - slack).mean())


def test_ties_of_whole_numbers_are_ties() -> None:
    # T^2 / SS compared in whole numbers, with nothing rounded.
    x = np.random.default_rng(8).integers(-3, 4, (9, 60))
    members = (np.arange(9) % 4)[None, :] == np.arange(4)[:, None]
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    sums = np.einsum("cn,sn,nf->scf", members.astype(int), signs, x)
    total, squares = sums.sum(axis=1) ** 2, (sums**2).sum(axis=1)
    reaches = total * squares[-1] >= total[-1] * squares  # the last row has no sign changed
    found = cluster_flip(x, [f"c{i % 4}" for i in range(9)], 512)
    np.testing.assert_array_equal(found.p, reaches.mean(axis=0))


def test_one_pair_a_cluster_is_the_sign_flip() -> None:
    x = np.random.default_rng(1).normal(0.3, 1, (14, 30))
    found = cluster_flip(x, [f"{i:02d}" for i in range(14)], 900, 5)
    plain = sign_flip(x, 900, 5)
    np.testing.assert_array_equal(found.p, plain.p)
    np.testing.assert_array_equal(found.p_fwer, plain.p_fwer)
    np.testing.assert_allclose(found.statistic, plain.statistic, rtol=1e-6)


def test_names_and_order_of_clusters_do_not_matter() -> None:
    x, clusters = correlated(6, 3, 20, 2)
    renamed = [f"x{9 - int(c)}" for c in clusters]
    one, two = cluster_flip(x, clusters, 400), cluster_flip(x, renamed, 400)
    np.testing.assert_array_equal(one.p, two.p)
    np.testing.assert_array_equal(one.p_fwer, two.p_fwer)


def test_level_under_correlation_where_plain_flips_of_pairs_fail() -> None:
    x, clusters = correlated(40, 4, 3000, 3)
    assert (sign_flip(x, 499).p <= 0.05).mean() > 0.15
    found = cluster_flip(x, clusters, 499)
    # 3,000 independent features: 99.9% of binomial outcomes at .05 lie within .038 to .062.
    assert 0.038 <= (found.p <= 0.05).mean() <= 0.062
    assert (found.p <= 0.01).mean() <= 0.017


def test_level_is_exact_for_independent_pairs_in_few_clusters() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_t(3, size=(15, 3000))
    clusters = ["a"] * 9 + ["b"] * 4 + ["c"] * 2
    p = cluster_flip(x, clusters, 999, 1).p
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.013)
    assert sp.kstest(p, "uniform").pvalue > 1e-3


def test_family_wise_error_under_correlation() -> None:
    hits = 0
    for seed in range(150):
        x, clusters = correlated(30, 3, 20, 100 + seed)
        hits += bool((cluster_flip(x, clusters, 199, seed).p_fwer <= 0.1).any())
    # 99.9% of binomial outcomes of 150 draws at .1 lie below 28.
    assert hits <= 27


def test_finer_than_flipping_clusters() -> None:
    x = np.ones((20, 1)) + np.random.default_rng(5).normal(0, 0.2, (20, 1))
    clusters = [f"c{i % 5}" for i in range(20)]
    whole = sign_flip(cluster_totals(x, clusters), 9999)
    assert whole.p[0] == 2 / 32
    assert cluster_flip(x, clusters, 9999).p[0] < 0.01


def test_degenerate_input_has_a_stated_result() -> None:
    one = cluster_flip(np.array([[1.0, 0.0], [2.0, 0.0]]), ["a", "a"], 100)
    assert one.p.tolist() == one.p_fwer.tolist() == [1, 1]
    assert np.isinf(one.statistic[0]) and one.statistic[1] == 0
    single = cluster_flip([3.0], ["a"], 100)
    assert single.p.tolist() == [1.0]
    fires_once = cluster_flip(np.eye(6)[:, :1], list("aabbcc"), 100)
    assert fires_once.p.tolist() == [1.0]
    balanced = cluster_flip([1.0, -1.0, 2.0, -2.0], list("aabb"), 100)
    assert balanced.statistic.tolist() == [0.0] and balanced.p.tolist() == [1.0]
    assert cluster_flip(np.zeros((4, 0)), list("aabb"), 100).p.shape == (0,)


def test_wrong_input_is_named() -> None:
    with pytest.raises(StatisticsError, match="1 cluster labels for 2 rows"):
        cluster_flip([1.0, 2.0], ["a"])
    with pytest.raises(StatisticsError, match="NaN"):
        cluster_flip([1.0, np.nan], ["a", "b"])
