"""Power against simulation and by its identities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as sp

from affectlens.features import stats


@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(96, 1, 0.289), (192, 65_536, 0.431), (24, 1, 0.597), (24, 16_384, 1.466), (48, 1000, 0.775)],
)
def test_power_table(n: int, m: int, d: float) -> None:
    assert stats.min_detectable_d_z(n, m) == pytest.approx(d, abs=6e-4)


def test_power_holds_in_simulation() -> None:
    d = stats.min_detectable_d_z(20, 1)
    x = np.random.default_rng(3).normal(d, 1, (20, 20_000))
    assert (sp.ttest_1samp(x, 0).pvalue <= 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_power_at_the_edges() -> None:
    assert np.isnan(stats.min_detectable_d_z(1, 1))
    assert stats.min_detectable_d_z(2, 100_000) > 1000
    with pytest.raises(stats.StatisticsError, match="m=0"):
        stats.min_detectable_d_z(10, 0)


@pytest.mark.parametrize(("n", "m"), [(8, 1), (24, 1), (192, 65_536), (48, 1000)])
def test_power_inverts_the_smallest_detectable_effect(n: int, m: int) -> None:
    d = stats.min_detectable_d_z(n, m, power=0.7)
    assert stats.power_t(d, n, m) == pytest.approx(0.7, abs=1e-4)


def test_power_without_effect_is_the_level_and_has_no_sign() -> None:
    power = stats.power_t([0.0, 0.5, -0.5, 40.0], 20, 4)
    assert power[0] == pytest.approx(0.05 / 4)
    assert power[1] == power[2] and 0.05 < power[1] < 1
    assert power[3] == 1


def test_power_t_in_simulation() -> None:
    x = np.random.default_rng(0).normal(0.5, 1, (12, 20_000))
    share = (sp.ttest_1samp(x, 0).pvalue <= 0.05).mean()
    assert stats.power_t(0.5, 12) == pytest.approx(share, abs=0.012)


def test_power_t_at_the_edges() -> None:
    assert np.isnan(stats.power_t([0.1, 3.0], 1)).all()
    with pytest.raises(stats.StatisticsError, match="alpha=1"):
        stats.power_t(0.5, 10, alpha=1)
    with pytest.raises(stats.StatisticsError, match="NaN or infinite"):
        stats.power_t(np.nan, 10)


def test_clusters_cost_power_between_the_two_extremes() -> None:
    units = stats.min_detectable_d_z(24, 100)
    assert stats.detectable_with_clusters(96, 24, 1.0, 100) == pytest.approx(units)
    assert stats.detectable_with_clusters(96, 24, 0.0, 100) == pytest.approx(units / 2)
    # Design effect 1 + 3 * 0.2 = 1.6 over 4 pairs.
    found = stats.detectable_with_clusters(96, 24, 0.2, 100)
    assert found == pytest.approx(units * np.sqrt(0.4))
    assert stats.detectable_with_clusters(24, 24, 0.2, 100) == pytest.approx(units)


def test_detectable_with_clusters_in_simulation() -> None:
    rng = np.random.default_rng(1)
    k, size, icc = 12, 4, 0.3
    d = stats.detectable_with_clusters(k * size, k, icc)
    shared = np.sqrt(icc) * rng.normal(size=(k, 1, 10_000))
    x = d + shared + np.sqrt(1 - icc) * rng.normal(size=(k, size, 10_000))
    found = sp.ttest_1samp(x.mean(axis=1), 0).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.016)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((10, 20, 0.1), "n_pairs=10 in n_clusters=20"),
        ((0, 0, 0.1), "n_pairs=0"),
        ((40, 10, 1.2), "icc is 1.2"),
        ((40, 10, -0.4), r"within -0\.333\.\.1"),
        ((40, 10, float("nan")), "icc is nan"),
        ((40, 10, 0.1, 0), "m=0"),
    ],
)
def test_impossible_designs_are_named(args, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(stats.StatisticsError, match=message):
        stats.detectable_with_clusters(*args)


def test_one_cluster_detects_nothing_that_can_be_stated() -> None:
    assert np.isnan(stats.detectable_with_clusters(10, 1, 0.1))
    assert stats.detectable_with_clusters(10, 2, 0.1, 10**6) == np.inf
