"""Wilcoxon's signed-rank test against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as sp

from affectlens.features import signed_rank, stats

SIGNED = st.integers(-4, 4).map(float)


def by_scipy(x: np.ndarray, method: str) -> tuple[float, float]:
    found = sp.wilcoxon(x, zero_method="wilcox", correction=False, method=method)
    return found.statistic, found.pvalue


@settings(deadline=None, max_examples=80)
@given(hnp.arrays(float, st.integers(1, 40), elements=SIGNED))
def test_asymptotic_equals_scipy_with_ties_and_zeros(x: np.ndarray) -> None:
    found = stats.wilcoxon(x, "asymptotic")
    n = int((x != 0).sum())
    assert found.n_nonzero[0] == n and not found.exact[0]
    if n == 0:
        assert (found.p[0], found.z[0], found.rank_sum[0]) == (1.0, 0.0, 0.0)
        return
    statistic, p = by_scipy(x, "asymptotic")
    assert found.p[0] == pytest.approx(p, abs=1e-9)
    assert min(found.rank_sum[0], n * (n + 1) / 2 - found.rank_sum[0]) == pytest.approx(statistic)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 25, 50, 51, 192])
def test_auto_equals_scipy_without_ties(n: int) -> None:
    x = np.random.default_rng(n).normal(0.3, 1, (n, 6))
    found = stats.wilcoxon(x)
    want = [by_scipy(x[:, j], "auto")[1] for j in range(6)]
    np.testing.assert_allclose(found.p, want, atol=1e-9)
    assert found.exact.tolist() == [n <= 50] * 6


def test_exact_leaves_zeros_out_and_is_not_used_with_ties() -> None:
    rng = np.random.default_rng(0)
    x = np.zeros((20, 3))
    x[:9, 0] = rng.normal(0.5, 1, 9)
    x[:9, 1] = np.round(rng.normal(0.5, 1, 9)) + 0.5
    found = stats.wilcoxon(x)
    assert found.exact.tolist() == [True, False, False]
    assert found.p[0] == pytest.approx(by_scipy(x[:9, 0], "exact")[1], abs=1e-12)
    assert found.p[1] == pytest.approx(by_scipy(x[:, 1], "asymptotic")[1], abs=1e-12)
    assert found.p[2] == 1.0 and found.n_nonzero.tolist() == [9, 9, 0]


def test_columns_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0.2, 1, (30, 9)) * (rng.random((30, 9)) < 0.5)
    want = stats.wilcoxon(x)
    monkeypatch.setattr(signed_rank, "_COLUMNS", 2)
    np.testing.assert_array_equal(stats.wilcoxon(x).p, want.p)
    turned = stats.wilcoxon(-x)
    np.testing.assert_allclose(turned.z, -want.z)
    np.testing.assert_allclose(turned.p, want.p, rtol=1e-12)


def test_p_is_valid_under_the_null() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_t(3, size=(24, 20_000)) * (rng.random((24, 20_000)) < 0.6)
    # Exact p are discrete: the attained level lies somewhat below .05.
    assert 0.042 <= (stats.wilcoxon(x).p <= 0.05).mean() <= 0.054


def test_wrong_input_is_named() -> None:
    assert stats.wilcoxon([3.0]).p[0] == 1.0
    assert stats.wilcoxon(np.zeros((3, 0))).p.shape == (0,)
    with pytest.raises(stats.StatisticsError, match="'best'"):
        stats.wilcoxon([1.0], "best")  # type: ignore[arg-type]
    with pytest.raises(stats.StatisticsError, match="NaN"):
        stats.wilcoxon([np.nan])
    with pytest.raises(stats.StatisticsError, match="shape"):
        stats.wilcoxon(np.zeros((0, 2)))
