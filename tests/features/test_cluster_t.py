"""t intervals over clusters: against SciPy, by hand, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from affectlens.features.cluster_t import cluster_mean, cluster_ratio
from affectlens.features.effect_columns import FEWEST_CLUSTERS
from affectlens.features.permutation import StatisticsError


def names(n_clusters: int, size: int) -> list[str]:
    return [f"c{i // size}" for i in range(n_clusters * size)]


def test_clusters_of_one_size_give_the_t_interval_of_their_means(rng: np.random.Generator) -> None:
    x = rng.normal(1, 2, 24)
    found = cluster_mean(x, names(8, 3), 0.9)
    wanted = stats.ttest_1samp(x.reshape(8, 3).mean(axis=1), 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.estimate, found.level, found.n_clusters) == (pytest.approx(x.mean()), 0.9, 8)


def test_clusters_of_unlike_size_by_hand() -> None:
    x = np.array([1.0, 1.0, 4.0, 0.0, 2.0, 2.0, 6.0])
    found = cluster_mean(x, ["a", "a", "b", "c", "d", "d", "e"])
    # Mean 16/7; deviations summed by cluster: -18/7, 12/7, -16/7, -4/7, 26/7; squares 1416/49.
    half = stats.t.ppf(0.975, 4) * np.sqrt(5 / 4 * 1416 / 49) / 7
    assert found.estimate == pytest.approx(16 / 7)
    assert (found.low, found.high) == pytest.approx((16 / 7 - half, 16 / 7 + half))


def test_fieller_holds_the_ratios_that_a_t_test_does_not_reject(rng: np.random.Generator) -> None:
    a, b = rng.normal(2, 1, 9), rng.normal(4, 1, 9)
    found = cluster_ratio(a, b, names(9, 1))
    assert found.estimate == pytest.approx(a.mean() / b.mean())
    for end in (found.low, found.high):
        assert stats.ttest_1samp(a - end * b, 0).pvalue == pytest.approx(0.05)
    assert stats.ttest_1samp(a - found.estimate * b, 0).pvalue == pytest.approx(1)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.6, 0.9, 2.0])
def test_a_ratio_is_bounded_where_the_denominator_is_told_from_zero(shift: float) -> None:
    rng = np.random.default_rng(4)
    b = shift + rng.normal(0, 1, 10)
    told = stats.ttest_1samp(b, 0).pvalue < 0.05
    found = cluster_ratio(np.ones(10), b, names(10, 1))
    assert np.isfinite(found.estimate) == told == np.isfinite(found.low)
    assert found.n_clusters == 10


def test_few_clusters_give_no_interval() -> None:
    few = names(FEWEST_CLUSTERS - 1, 2)
    mean = cluster_mean(np.arange(8.0), few)
    assert mean.estimate == 3.5
    assert np.isnan([mean.low, mean.high]).all()
    assert np.isnan(cluster_ratio(np.ones(8), np.ones(8), few).estimate)
    enough = cluster_mean(np.arange(10.0), names(FEWEST_CLUSTERS, 2))
    assert np.isfinite([enough.low, enough.high]).all()


def test_bad_input_is_refused() -> None:
    with pytest.raises(StatisticsError, match="at least one"):
        cluster_mean(np.zeros(0), [])
    with pytest.raises(StatisticsError, match="shape"):
        cluster_ratio(np.zeros((2, 2)), np.zeros(4), ["a"] * 4)
    with pytest.raises(StatisticsError, match="level"):
        cluster_mean(np.ones(2), ["a", "b"], 95)
    with pytest.raises(StatisticsError):
        cluster_mean(np.ones(3), ["a", "b"])


@pytest.mark.parametrize("n_clusters", [6, 20])
def test_coverage(n_clusters: int) -> None:
    """About 95% of 400 intervals hold the mean 1 and the ratio 1/2 of correlated items."""
    rng, clusters, hits = np.random.default_rng(1), names(n_clusters, 2), np.zeros(2)
    for _ in range(400):
        shared = np.repeat(rng.normal(0, 0.7, n_clusters), 2)
        noise = rng.normal(0, 0.7, (2, 2 * n_clusters))
        mean = cluster_mean(1 + shared + noise[0], clusters)
        ratio = cluster_ratio(2 + shared / 2 + noise[1], 4 + shared + noise[0], clusters)
        hits += mean.low <= 1 <= mean.high, ratio.low <= 0.5 <= ratio.high
    assert ((hits / 400 > 0.92) & (hits / 400 < 0.975)).all()
