"""Corrections against SciPy and worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as sp

from affectlens.features import stats


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(float, st.integers(1, 30), elements=st.floats(0, 1)))
def test_bh_equals_scipy_and_bounds_holm(p: np.ndarray) -> None:
    q, adjusted = stats.bh(p), stats.holm(p)
    np.testing.assert_allclose(q, sp.false_discovery_control(p), atol=1e-12)
    assert (adjusted >= q - 1e-12).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-15).all()


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


@pytest.mark.parametrize("correct", [stats.bh, stats.by, stats.holm])
def test_corrections_refuse_what_is_not_a_p(correct) -> None:  # type: ignore[no-untyped-def]
    for bad in ([0.1, np.nan], [1.1], [-0.1]):
        with pytest.raises(stats.StatisticsError, match=r"within 0\.\.1"):
            correct(bad)
    assert correct([]).shape == (0,)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(float, st.integers(1, 30), elements=st.floats(0, 1)))
def test_by_equals_scipy_and_is_never_below_bh(p: np.ndarray) -> None:
    q = stats.by(p)
    np.testing.assert_allclose(q, sp.false_discovery_control(p, method="by"), atol=1e-12)
    assert (q >= stats.bh(p)).all()


def test_by_by_hand() -> None:
    # 1 + 1/2 + 1/3 = 11/6; sorted .01 .03 .04 times 3/1, 3/2, 3/3, then minima from the right.
    want = np.array([0.03, 0.04, 0.04]) * 11 / 6
    np.testing.assert_allclose(stats.by([0.01, 0.04, 0.03]), want)


def test_a_table_is_one_family() -> None:
    p = np.random.default_rng(0).random((4, 5))
    for correct in (stats.bh, stats.by, stats.holm):
        np.testing.assert_array_equal(correct(p).ravel(), correct(p.ravel()))
