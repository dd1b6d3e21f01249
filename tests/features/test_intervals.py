"""Bootstrap intervals: against SciPy, the formulas written out, coverage, and odd input."""

from __future__ import annotations

from itertools import product
from typing import get_args

import numpy as np
import pytest
from scipy import stats as sp
from scipy.stats._resampling import BootstrapResult

from affectlens.features import intervals, stats

METHODS: tuple[intervals.Method, ...] = get_args(intervals.Method)
STATISTICS: tuple[intervals.Statistic, ...] = get_args(intervals.Statistic)


def labels(n: int, size: int = 1) -> list[str]:
    return [f"{i // size:03d}" for i in range(n)]


def sparse(rng: np.random.Generator, n: int, f: int, share: float = 0.5) -> np.ndarray:
    return rng.normal(0.3, 1, (n, f)) * (rng.random((n, f)) < share)


def define(statistic: str, x: np.ndarray, n_rows: int) -> float:
    """The statistic of one resample; d_z with the Hedges factor of the sample."""
    if statistic == "mean":
        return float(x.mean())
    if statistic == "auroc_paired":
        return float((x > 0).mean() + 0.5 * (x == 0).mean())
    return float(stats.hedges_factor(n_rows - 1) * x.mean() / x.std(ddof=1))


def rows_of(counts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [np.flatnonzero(codes == c) for c, k in enumerate(counts) for _ in range(k)]
    )


def drawn(statistic: str, x: np.ndarray, clusters: list[str], n: int, seed: int) -> np.ndarray:
    codes = np.unique(clusters, return_inverse=True)[1]
    counts = stats.resample_counts(n, codes.max() + 1, seed)
    return np.array([define(statistic, x[rows_of(row, codes)], len(x)) for row in counts])


# ---------------------------------------------------------------- against SciPy


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_clusters_of_one_equal_scipy_given_the_same_replicates(
    statistic: intervals.Statistic, method: intervals.Method
) -> None:
    rng = np.random.default_rng(0)
    x = rng.gamma(1.5, 1, 25) - 0.5
    replicates = drawn(statistic, x, labels(25), 400, 3)
    given = BootstrapResult(
        confidence_interval=None, bootstrap_distribution=replicates, standard_error=None
    )
    want = sp.bootstrap(
        (x,),
        lambda v: define(statistic, v, len(x)),
        n_resamples=0,
        method=method,
        vectorized=False,
        bootstrap_result=given,
    ).confidence_interval
    found = stats.cluster_intervals(x, labels(25), statistic, method, n=400, seed=3)
    assert found.low[0] == pytest.approx(want.low, abs=1e-9)
    assert found.high[0] == pytest.approx(want.high, abs=1e-9)


def test_equal_clusters_equal_scipy_on_cluster_means() -> None:
    x = np.random.default_rng(1).gamma(1.0, 1, (12, 4))
    replicates = drawn("mean", x.ravel(), labels(48, 4), 500, 0)
    given = BootstrapResult(
        confidence_interval=None, bootstrap_distribution=replicates, standard_error=None
    )
    want = sp.bootstrap((x.mean(axis=1),), np.mean, n_resamples=0, bootstrap_result=given)
    found = stats.cluster_intervals(x.ravel(), labels(48, 4), n=500)
    assert found.low[0] == pytest.approx(want.confidence_interval.low, abs=1e-9)
    assert found.high[0] == pytest.approx(want.confidence_interval.high, abs=1e-9)


def test_scipy_with_its_own_draws_agrees_within_monte_carlo_error() -> None:
    x = np.random.default_rng(2).gamma(2, 1, 40)
    want = sp.bootstrap((x,), np.mean, n_resamples=9999, rng=np.random.default_rng(0))
    found = stats.cluster_intervals(x, labels(40), n=9999)
    width = want.confidence_interval.high - want.confidence_interval.low
    assert found.low[0] == pytest.approx(want.confidence_interval.low, abs=0.05 * width)
    assert found.high[0] == pytest.approx(want.confidence_interval.high, abs=0.05 * width)


# ---------------------------------------------------------------- formulas written out


def bca_by_hand(statistic: str, x: np.ndarray, clusters: list[str], n: int) -> list[float]:
    codes = np.unique(clusters, return_inverse=True)[1]
    theta, reps = define(statistic, x, len(x)), drawn(statistic, x, clusters, n, 0)
    share = ((reps < theta - 1e-12).sum() + 0.5 * (np.abs(reps - theta) <= 1e-12).sum()) / n
    z0 = sp.norm.ppf(share)
    left_out = np.array([define(statistic, x[codes != c], len(x)) for c in range(codes.max() + 1)])
    away = left_out.mean() - left_out
    a = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z = z0 + sp.norm.ppf([0.05, 0.95])
    return np.quantile(reps, sp.norm.cdf(z0 + z / (1 - a * z))).tolist()


def t_by_hand(statistic: str, x: np.ndarray, clusters: list[str], n: int) -> list[float]:
    codes = np.unique(clusters, return_inverse=True)[1]
    counts = stats.resample_counts(n, codes.max() + 1, 0)

    def error(values: np.ndarray, groups: np.ndarray) -> float:
        if statistic == "auroc_paired":
            values = (values > 0) + 0.5 * (values == 0)
        influence = values - values.mean()
        if statistic == "d_z":
            u = influence / values.std()
            influence = u - values.mean() / values.std() * (u**2 - 1) / 2
            rows = len(values)
            influence = influence * stats.hedges_factor(len(x) - 1) * np.sqrt((rows - 1) / rows)
        sums = np.array([influence[groups == g].sum() for g in np.unique(groups)])
        return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(values))

    theta, t = define(statistic, x, len(x)), []
    for row in counts:
        # Each draw of a cluster is a cluster of its own.
        parts = [np.flatnonzero(codes == c) for c, k in enumerate(row) for _ in range(k)]
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        values = x[np.concatenate(parts)]
        t.append((define(statistic, values, len(x)) - theta) / error(values, groups))
    low, high = np.quantile(t, [0.95, 0.05])
    return [theta - low * error(x, codes), theta - high * error(x, codes)]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_unequal_clusters_equal_the_formulas_written_out(statistic: intervals.Statistic) -> None:
    rng = np.random.default_rng(4)
    clusters = labels(30, 3) + ["x"] * 7 + ["y"]
    x = rng.normal(0.5, 1, 38) + np.repeat(rng.normal(size=12), [3] * 10 + [7, 1])
    x[3:6] = 0.0
    bca = stats.cluster_intervals(x, clusters, statistic, "bca", n=300, level=0.9)
    np.testing.assert_allclose(
        [bca.low[0], bca.high[0]], bca_by_hand(statistic, x, clusters, 300), atol=1e-9
    )
    found = stats.cluster_intervals(x, clusters, statistic, "studentised", n=300, level=0.9)
    want = t_by_hand(statistic, x, clusters, 300)
    if statistic == "auroc_paired":
        want = np.clip(want, 0, 1).tolist()
    np.testing.assert_allclose([found.low[0], found.high[0]], want, atol=1e-9)


def test_estimates_are_the_definitions() -> None:
    x = sparse(np.random.default_rng(5), 24, 70)
    for statistic in STATISTICS:
        want = {"mean": stats.mean_diff, "d_z": stats.d_z, "auroc_paired": stats.auroc_paired}
        found = stats.cluster_intervals(x, labels(24, 3), statistic, n=20)
        np.testing.assert_allclose(found.estimate, want[statistic](x), rtol=1e-12, atol=1e-15)
        assert (found.method, found.statistic, found.n_resamples) == ("bca", statistic, 20)
        assert (found.level, found.n_clusters) == (0.95, 8)


# ---------------------------------------------------------------- draws and reproducibility


def test_resamples_depend_on_seed_and_number_alone() -> None:
    few, many = stats.resample_counts(50, 12, 7), stats.resample_counts(400, 12, 7)
    np.testing.assert_array_equal(few, many[:50])
    assert (many.sum(axis=1) == 12).all() and (many >= 0).all()
    assert not np.array_equal(few, stats.resample_counts(50, 12, 8))
    np.testing.assert_array_equal(
        stats.resample_counts(5, 12, -1), stats.resample_counts(5, 12, 2**64 - 1)
    )


def test_resamples_draw_clusters_evenly() -> None:
    counts = stats.resample_counts(5000, 10, 0)
    drawn_share = sp.chisquare(counts.sum(axis=0)).pvalue
    assert drawn_share > 1e-3
    # Each count is binomial(10, 1/10): variance 0.9, covariance between clusters -0.1.
    covariance = np.cov(counts.T.astype(float))
    assert np.abs(np.diag(covariance) - 0.9).max() < 0.1
    assert np.abs(covariance[~np.eye(10, dtype=bool)] + 0.1).max() < 0.08


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_threads_and_order_of_features_change_no_bit(
    statistic: intervals.Statistic, method: intervals.Method
) -> None:
    rng = np.random.default_rng(6)
    x, clusters = sparse(rng, 40, 150), labels(40, 4)
    order = rng.permutation(150)
    one = stats.cluster_intervals(x, clusters, statistic, method, n=60, threads=1)
    for found, where in (
        (stats.cluster_intervals(x, clusters, statistic, method, n=60, threads=3), slice(None)),
        (stats.cluster_intervals(x[:, order], clusters, statistic, method, n=60), order),
        (stats.cluster_intervals(x[:, 77], clusters, statistic, method, n=60), slice(77, 78)),
    ):
        np.testing.assert_array_equal(found.estimate, one.estimate[where])
        np.testing.assert_array_equal(found.low, one.low[where])
        np.testing.assert_array_equal(found.high, one.high[where])


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize("method", METHODS)
def test_scale_and_sign_carry_over(method: intervals.Method) -> None:
    x, clusters = sparse(np.random.default_rng(7), 60, 20, 0.8), labels(60, 3)
    base = stats.cluster_intervals(x, clusters, "mean", method, n=200)
    for factor in (1e-200, 3.0, 1e200):
        scaled = stats.cluster_intervals(x * factor, clusters, "mean", method, n=200)
        np.testing.assert_allclose(scaled.low, base.low * factor, rtol=1e-9)
        ratio = stats.cluster_intervals(x * factor, clusters, "d_z", method, n=200)
        want = stats.cluster_intervals(x, clusters, "d_z", method, n=200)
        np.testing.assert_allclose(ratio.high, want.high, rtol=1e-9)
    turned = stats.cluster_intervals(-x, clusters, "mean", method, n=200)
    np.testing.assert_allclose(turned.low, -base.high, rtol=1e-9, atol=1e-12)


def test_wider_level_is_wider_and_clusters_are_wider_than_pairs() -> None:
    x = np.repeat(np.random.default_rng(8).normal(size=(12, 30)), 6, axis=0)
    narrow = stats.cluster_intervals(x, labels(72, 6), level=0.8, n=400)
    wide = stats.cluster_intervals(x, labels(72, 6), level=0.99, n=400)
    assert ((wide.low < narrow.low) & (wide.high > narrow.high)).all()
    pairs = stats.cluster_intervals(x, labels(72), level=0.8, n=400)
    assert ((narrow.high - narrow.low) > 1.8 * (pairs.high - pairs.low)).all()


def simulate(kind: str, k: int, f: int, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Data sets as features, four pairs a cluster, and the true values."""
    rng, n = np.random.default_rng(seed), 4 * k
    shared, own = np.repeat(rng.normal(size=(k, f)), 4, axis=0), rng.normal(size=(n, f))
    if kind == "normal":
        x = np.sqrt(0.3) * shared + np.sqrt(0.7) * own
        return x, {"mean": 0.0, "d_z": 0.0, "auroc_paired": 0.5}
    share = float(kind)
    on = np.repeat(rng.random((k, f)) < share, 4, axis=0) & (rng.random((n, f)) < 0.6)
    fires, x = 0.6 * share, on * np.exp(0.5 * shared + 0.5 * own)
    mean, square = fires * np.exp(0.25), fires * np.exp(1.0)
    d_z = mean / np.sqrt(square - mean**2)
    return x, {"mean": mean, "d_z": d_z, "auroc_paired": 0.5 + fires / 2}


COVERAGE = {
    ("normal", 8): ((0.89, 0.95), (0.91, 0.94), (0.92, 0.96)),
    ("normal", 48): ((0.93, 0.95), (0.94, 0.95), (0.95, 0.95)),
    ("0.3", 24): ((0.91, 0.98), (0.94, 0.94), (0.95, 0.99)),
    ("0.1", 24): ((0.83, 0.91), (0.88, 0.88), (0.85, 0.91)),
    ("0.03", 48): ((0.71, 0.75), (0.72, 0.73), (0.74, 0.74)),
}
"""As in the table of `cluster_intervals`: mean, d_z, paired AUROC; each 'bca' and 'studentised'."""


@pytest.mark.parametrize(("kind", "k"), COVERAGE)
def test_coverage_is_what_the_documentation_says(kind: str, k: int) -> None:
    x, truth = simulate(kind, k, 500, k)
    for i, (statistic, (j, method)) in enumerate(
        product(STATISTICS, enumerate(("bca", "studentised")))
    ):
        found = stats.cluster_intervals(x, labels(len(x), 4), statistic, method, n=1000, seed=1)  # type: ignore[arg-type]
        inside = (found.low <= truth[statistic]) & (truth[statistic] <= found.high)
        want = COVERAGE[kind, k][i // 2][j]
        # 3.5 binomial standard errors, and rounding and error of the table itself.
        assert inside.mean() == pytest.approx(
            want, abs=3.5 * np.sqrt(want * (1 - want) / 500) + 0.012
        )


# ---------------------------------------------------------------- odd input


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_constant_features_have_the_estimate_as_bounds(
    statistic: intervals.Statistic, method: intervals.Method
) -> None:
    x = np.tile([0.0, 0.1, -3.7, 1e-300], (12, 1))
    x[:, 3] = [1.0, 2.0, 4.0] * 4  # equal clusters
    found = stats.cluster_intervals(x, labels(12, 3), statistic, method, n=50)
    np.testing.assert_array_equal(found.low, found.estimate)
    np.testing.assert_array_equal(found.high, found.estimate)
    if statistic == "d_z":
        assert np.isnan(found.estimate[:3]).all() and found.estimate[3] > 0
    else:
        assert not np.isnan(found.estimate).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_one_cluster_has_no_bounds(
    statistic: intervals.Statistic, method: intervals.Method
) -> None:
    for rows in (1, 5):
        found = stats.cluster_intervals(np.ones((rows, 2)), ["a"] * rows, statistic, method)
        assert np.isnan(found.low).all() and np.isnan(found.high).all()
        assert found.n_clusters == 1
        assert found.estimate.shape == (2,)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_few_clusters_and_rare_features_give_ordered_bounds(
    statistic: intervals.Statistic, method: intervals.Method
) -> None:
    rng = np.random.default_rng(9)
    for sizes in ([1, 1], [1, 2], [3, 3, 1], [2] * 8):
        clusters = [str(c) for c, size in enumerate(sizes) for _ in range(size)]
        x = sparse(rng, len(clusters), 40, 0.3)
        x[:, 0] = 0.0
        x[0, 0] = 2.0  # fires once
        found = stats.cluster_intervals(x, clusters, statistic, method, n=100)
        nan = np.isnan(found.estimate)
        assert not np.isnan(found.low[~nan]).any() and not np.isnan(found.high[~nan]).any()
        assert np.isnan(found.low[nan]).all() and np.isnan(found.high[nan]).all()
        assert (found.low[~nan] <= found.high[~nan]).all()
        if statistic == "auroc_paired":
            assert ((found.low >= 0) & (found.high <= 1)).all()


def test_a_feature_that_fires_in_one_cluster_is_not_bounded_above() -> None:
    x = np.zeros(40)
    x[0] = 1.0
    found = stats.cluster_intervals(x, labels(40, 4), "mean", "studentised", n=500)
    assert found.high[0] == np.inf and found.low[0] <= 0.025
    assert stats.cluster_intervals(x, labels(40, 4), n=500).low[0] == 0.0


def test_no_features_is_an_empty_result() -> None:
    found = stats.cluster_intervals(np.zeros((4, 0)), labels(4))
    assert found.low.shape == found.high.shape == found.estimate.shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.cluster_intervals([1.0, np.nan], ["a", "b"]), "NaN"),
        (lambda: stats.cluster_intervals(np.zeros((0, 2)), []), "shape"),
        (lambda: stats.cluster_intervals([1.0, 2.0], ["a"]), "1 cluster labels for 2 rows"),
        (lambda: stats.cluster_intervals([1.0, 2.0], ["a", "b"], n=0), "n=0"),
        (lambda: stats.cluster_intervals([1.0, 2.0], ["a", "b"], level=1.0), r"level=1\.0"),
        (lambda: stats.cluster_intervals([1.0], ["a"], "median"), "statistic='median'"),
        (lambda: stats.cluster_intervals([1.0], ["a"], method="t"), "method='t'"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(stats.StatisticsError, match=message):
        call()


# ---------------------------------------------------------------- one feature, percentile


def test_cluster_bootstrap_covers_the_mean() -> None:
    rng = np.random.default_rng(9)
    clusters = [str(i // 4) for i in range(80)]
    hits = 0
    for seed in range(200):
        x = np.repeat(rng.normal(1, 1, 20), 4) + rng.normal(0, 0.3, 80)
        interval = stats.cluster_bootstrap(x, clusters, 300, seed)
        hits += interval.low <= 1 <= interval.high
    assert 175 <= hits <= 199


def test_cluster_bootstrap_is_wider_than_that_of_items() -> None:
    x = np.repeat(np.random.default_rng(10).normal(size=10), 10)
    by_cluster = stats.cluster_bootstrap(x, [str(i // 10) for i in range(100)])
    by_item = stats.cluster_bootstrap(x, [str(i) for i in range(100)])
    assert by_cluster.high - by_cluster.low > 2 * (by_item.high - by_item.low)
    assert by_cluster.estimate == pytest.approx(x.mean())
    assert by_cluster == stats.cluster_bootstrap(x, [str(i // 10) for i in range(100)])


def test_cluster_bootstrap_of_one_cluster_has_no_interval() -> None:
    one = stats.cluster_bootstrap([1.0, 2.0], ["a", "a"])
    assert one.estimate == 1.5 and np.isnan(one.low) and np.isnan(one.high)
    with pytest.raises(stats.StatisticsError, match="level=2"):
        stats.cluster_bootstrap([1.0], ["a"], level=2)
