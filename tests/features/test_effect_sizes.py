"""Effect sizes against SciPy and scikit-learn, and worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as sp
from sklearn.metrics import roc_auc_score

from affectlens.features import effect_sizes, stats

LEVELS = st.integers(0, 3).map(float)


def test_d_z_is_hedges_corrected() -> None:
    d = np.array([1.0, 2.0, 4.0, 5.0])
    factor = stats.hedges_factor(3)
    assert stats.d_z(d) == pytest.approx(factor * d.mean() / d.std(ddof=1))
    assert factor == pytest.approx(1 - 3 / (4 * 3 - 1), abs=0.01)
    assert stats.hedges_factor(1000) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("d", [[1.0], [1.0, 2.0], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0]])
def test_d_z_is_nan_where_it_is_not_defined(d: list[float]) -> None:
    assert np.isnan(stats.d_z(np.array(d)))


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200])
def test_d_z_does_not_depend_on_the_scale(scale: float) -> None:
    d = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 3.0], [5.0, 0.0]])
    np.testing.assert_allclose(stats.d_z(d * scale), stats.d_z(d), rtol=1e-12)


def test_d_z_is_unbiased() -> None:
    rng = np.random.default_rng(2)
    assert stats.d_z(rng.normal(0.8, 1, (6, 40_000))).mean() == pytest.approx(0.8, abs=0.01)


def test_auroc_paired_counts_ties_half() -> None:
    d = np.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 1.0], [0.0, -1.0]])
    assert stats.auroc_paired(d).tolist() == [0.625, 0.5]
    assert np.isnan(stats.auroc_paired(np.zeros((0, 2)))).all()


def test_paired_differences_refuses_unequal_shapes_and_nan() -> None:
    with pytest.raises(stats.StatisticsError, match=r"\(2,\).*\(3,\)"):
        stats.paired_differences([1, 2], [1, 2, 3])
    with pytest.raises(stats.StatisticsError, match="1 values that are NaN"):
        stats.paired_differences([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(stats.StatisticsError, match="shape"):
        stats.paired_differences(np.zeros((0, 3)), np.zeros((0, 3)))


def test_cluster_totals_weigh_pairs_equally() -> None:
    totals = stats.cluster_totals([[1.0], [2.0], [4.0]], ["b", "a", "b"])
    assert totals.tolist() == [[2.0], [5.0]]
    with pytest.raises(stats.StatisticsError, match="2 cluster labels for 3 rows"):
        stats.cluster_totals([1.0, 2.0, 3.0], ["a", "b"])


# ---------------------------------------------------------------- unpaired AUROC


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(float, st.tuples(st.integers(1, 9), st.just(3)), elements=LEVELS),
    hnp.arrays(float, st.tuples(st.integers(1, 9), st.just(3)), elements=LEVELS),
)
def test_auroc_equals_scikit_learn_with_ties(a: np.ndarray, b: np.ndarray) -> None:
    labels = [1] * len(a) + [0] * len(b)
    want = [roc_auc_score(labels, np.concatenate([a, b])[:, j]) for j in range(3)]
    np.testing.assert_allclose(stats.auroc(a, b), want, atol=1e-12)


def test_auroc_over_many_features_equals_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, (20, 11)), rng.normal(size=(13, 11))
    want = stats.auroc(a, b)
    monkeypatch.setattr(effect_sizes, "_COLUMNS", 4)
    np.testing.assert_array_equal(stats.auroc(a, b), want)
    assert stats.auroc(a[:, 2], b[:, 2]) == want[2]
    np.testing.assert_allclose(stats.auroc(b, a), 1 - want)


def test_auroc_at_the_edges() -> None:
    assert stats.auroc(np.zeros((4, 2)), np.zeros((3, 2))).tolist() == [0.5, 0.5]
    assert stats.auroc([2.0], [1.0]) == 1.0
    assert stats.auroc(np.zeros((4, 0)), np.zeros((3, 0))).shape == (0,)
    with pytest.raises(stats.StatisticsError, match="same features"):
        stats.auroc(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(stats.StatisticsError, match="neutral has shape"):
        stats.auroc(np.zeros((4, 2)), np.zeros((0, 2)))
    with pytest.raises(stats.StatisticsError, match="NaN"):
        stats.auroc([np.nan], [1.0])


# ---------------------------------------------------------------- presence and magnitude


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(float, st.tuples(st.integers(1, 30), st.just(2)), elements=LEVELS))
def test_presence_p_is_the_binomial_test(x: np.ndarray) -> None:
    found = stats.presence(x[:, 0], x[:, 1])
    b, c = int(found.n_clinical_only[0]), int(found.n_neutral_only[0])
    want = sp.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert found.p[0] == pytest.approx(want, abs=1e-12)
    share = (x > 0).mean(axis=0)
    assert found.difference[0] == pytest.approx(share[0] - share[1])


def test_presence_and_magnitude_by_hand() -> None:
    a = np.array([[3.0, 0.0], [2.0, 0.0], [5.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    b = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [4.0, 0.0], [0.0, 0.0]])
    found = stats.presence(a, b)
    assert (found.n_clinical_only[0], found.n_neutral_only[0], found.n_both[0]) == (2, 1, 2)
    assert found.difference.tolist() == [0.2, 0.0]
    assert found.p.tolist() == [1.0, 1.0]
    strength = stats.magnitude(a, b)
    assert strength.mean[0] == 3.0 and strength.n.tolist() == [2, 0]
    assert np.isnan(strength.mean[1])


def test_presence_six_to_none_and_a_feature_that_fires_once() -> None:
    found = stats.presence([1.0] * 6, [0.0] * 6)
    assert found.p[0] == pytest.approx(2 / 64)
    assert stats.presence([1.0, 0.0], [0.0, 0.0]).p[0] == 1.0


@pytest.mark.parametrize("contrast", [stats.presence, stats.magnitude])
def test_contrasts_of_firing_refuse_what_is_not_pairs(contrast) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(stats.StatisticsError, match="equal shapes"):
        contrast([1.0], [1.0, 2.0])
    with pytest.raises(stats.StatisticsError, match="NaN"):
        contrast([1.0, np.nan], [1.0, 2.0])


# ---------------------------------------------------------------- intraclass correlation


def test_icc_of_shrout_and_fleiss() -> None:
    # Shrout and Fleiss 1979, table 2: six targets rated by four judges; ICC(1,1) = .17.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = stats.icc(np.ravel(ratings).astype(float), [str(i // 4) for i in range(24)])
    assert found.value[0] == pytest.approx(0.1657, abs=5e-5)
    assert found.sizes == (4,) * 6


def test_icc_with_unequal_clusters_is_the_anova_of_scipy() -> None:
    rng = np.random.default_rng(0)
    clusters = ["a"] * 2 + ["b"] * 5 + ["c"] + ["d"] * 4
    x = rng.normal(size=12)
    x[:2] += 2
    parts = [x[:2], x[2:7], x[7:8], x[8:]]
    f = sp.f_oneway(*parts).statistic  # MSB / MSW
    k0 = (12 - (4 + 25 + 1 + 16) / 12) / 3
    found = stats.icc(x, clusters).value[0]
    assert found == pytest.approx((f - 1) / (f + k0 - 1))
    assert stats.icc(x * 1e200, clusters).value[0] == pytest.approx(found)


def test_icc_is_recovered() -> None:
    rng = np.random.default_rng(1)
    shared = np.repeat(rng.normal(size=(30, 2000)), 4, axis=0)
    x = np.sqrt(0.3) * shared + np.sqrt(0.7) * rng.normal(size=(120, 2000))
    found = stats.icc(x, [str(i // 4) for i in range(120)]).value
    assert found.mean() == pytest.approx(0.3, abs=0.01)


def test_icc_at_the_edges() -> None:
    x = np.array([[1.0, 7.0], [1.0, 7.0], [3.0, 7.0], [3.0, 7.0]])
    found = stats.icc(x, list("aabb")).value
    assert found[0] == 1.0 and np.isnan(found[1])
    assert stats.icc(x[:, 0], list("abab")).value[0] == pytest.approx(-1.0)
    assert np.isnan(stats.icc(x, list("aaaa")).value).all()
    assert np.isnan(stats.icc(x, list("abcd")).value).all()
    with pytest.raises(stats.StatisticsError, match="3 cluster labels for 4 rows"):
        stats.icc(x, list("aab"))


def test_design_effect() -> None:
    assert stats.design_effect([0.0, 0.5, 1.0], [4, 4, 4]).tolist() == [1.0, 2.5, 4.0]
    # Sizes 1 and 3: sum of squares 10 over 4 pairs.
    assert stats.design_effect(0.5, [1, 3]) == pytest.approx(1 + 1.5 * 0.5)
    with pytest.raises(stats.StatisticsError, match="needs a pair"):
        stats.design_effect(0.5, [0, 3])


def test_design_effect_is_the_variance_of_the_mean() -> None:
    rng = np.random.default_rng(2)
    sizes, icc = np.array([1, 2, 6, 3]), 0.4
    codes = np.repeat(np.arange(4), sizes)
    shared = np.sqrt(icc) * rng.normal(size=(4, 60_000))
    x = shared[codes] + np.sqrt(1 - icc) * rng.normal(size=(12, 60_000))
    want = float(stats.design_effect(icc, sizes.tolist())) / 12
    assert x.mean(axis=0).var() == pytest.approx(want, rel=0.03)
