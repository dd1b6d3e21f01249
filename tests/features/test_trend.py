"""Page's test against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from affectlens.features.permutation import StatisticsError
from affectlens.features.trend import page_trend


@pytest.mark.parametrize("n_blocks", [2, 5, 11])
def test_exact_p_equals_scipy(n_blocks: int) -> None:
    x = np.random.default_rng(n_blocks).normal(size=(3, n_blocks, 4)) + np.arange(3)[:, None, None]
    found = page_trend(x)
    for f in range(4):
        reference = scipy_stats.page_trend_test(x[:, :, f].T, method="exact")
        assert found.statistic[f] == reference.statistic
        assert found.p[f] == pytest.approx(reference.pvalue, abs=1e-12)


def test_ties_are_exact_and_silence_is_no_trend() -> None:
    x = np.zeros((3, 2, 3))
    x[2, 0, 1] = 1  # one of two blocks rises at the last dose: one of three orders is as large
    x[:, :, 2] = np.array([[0, 0], [1, 1], [2, 2]])
    found = page_trend(x)
    np.testing.assert_allclose(found.p, [1, 1 / 3, 1 / 36])
    assert found.min_p == pytest.approx(1 / 36)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 4, 1)), np.zeros((3, 0, 1)), np.full((3, 1, 1), np.nan)]
)
def test_bad_input_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(StatisticsError, match="doses"):
        page_trend(bad)
