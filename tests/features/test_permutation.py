"""Step-down max-T and its inputs: by hand, by enumeration, by simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy import stats as sp

from affectlens.features import permutation
from affectlens.features.cluster_flip import cluster_flip
from affectlens.features.permutation import label_permutation, sign_flip

P_FIELDS = ("p", "p_fwer", "p_single_step")

# sum / norm under the sign patterns +++, ++-, +-+, -++ (the other four mirror them):
#   (1, 1, 0):  1.414  1.414  0      0
#   (0, 1, 2):  1.342  0.447  0.447  1.342
#   (5, 1, 1):  1.347  0.962  0.962  0.577
GOLDEN = np.array([[1.0, 0.0, 5.0], [1.0, 1.0, 1.0], [0.0, 2.0, 1.0]])


def sparse_data(n: int, f: int, seed: int, density: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f)) * (rng.random((n, f)) < density)
    x[:, ::5] = np.round(2 * x[:, ::5])
    return x


def every_test(x: object, n: int, **settings: object) -> list[object]:
    labels, clusters = [f"g{i % 3}" for i in range(n)], [f"c{i % 7}" for i in range(n)]
    return [
        sign_flip(x, 600, **settings),  # type: ignore[arg-type]
        sign_flip(x, 600, alternative="greater", **settings),  # type: ignore[arg-type]
        label_permutation(x, labels, n_permutations=600, **settings),  # type: ignore[arg-type]
        cluster_flip(x, clusters, 600, **settings),  # type: ignore[arg-type]
        cluster_flip(x, clusters, 600, alternative="greater", **settings),  # type: ignore[arg-type]
    ]


def assert_same(one: object, two: object, fields: tuple[str, ...] = P_FIELDS) -> None:
    for field in fields:
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field), field)


def step_down(values: np.ndarray, observed: np.ndarray, slack: float = 1e-6) -> np.ndarray:
    """Algorithm 2.8, one feature at a time; `values` [n_permutations, n_features]."""
    adjusted = np.zeros(len(observed))
    previous = 0.0
    for level in sorted(set(observed), reverse=True):
        below = observed <= level + slack
        share = (values[:, below].max(axis=1) >= level - slack).mean()
        previous = max(previous, share)
        adjusted[np.abs(observed - level) <= slack] = previous
    return adjusted


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_step_down_by_hand(backend: permutation.Backend) -> None:
    found = sign_flip(GOLDEN, 8, backend=backend)
    assert found.exact and found.n_permutations == 8
    assert found.p.tolist() == [0.5, 0.5, 0.25]
    # The second feature does not compete with the first, which is larger: 2 of 4 and not 3 of 4.
    # The third alone would have 1 of 4, and is held at the first feature's level.
    assert found.p_fwer.tolist() == [0.5, 0.5, 0.5]
    assert found.p_single_step.tolist() == [0.5, 0.75, 0.5]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ties_share_their_successive_maximum(
    order: tuple[int, ...], backend: permutation.Backend
) -> None:
    # (2, 1, 0) is observed at 1.342 as (0, 1, 2) is, and reaches it under other signs (++-).
    x = np.column_stack([GOLDEN[:, :2], [2.0, 1.0, 0.0]])[:, order]
    found = sign_flip(x, 8, backend=backend)
    assert found.p_fwer[np.argsort(order)].tolist() == [0.5, 0.75, 0.75]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_label_step_down_by_hand(backend: permutation.Backend) -> None:
    # One own unit of four; centred and over the norm, by the unit that is chosen:
    #   (3, 0, 0, 0):  0.866 -0.289 -0.289 -0.289      (2, 3, 0, 0): 0.289 0.674 -0.481 -0.481
    x = np.array([[3.0, 2.0], [0.0, 3.0], [0.0, 0.0], [0.0, 0.0]])
    found = label_permutation(x, list("abbb"), ["a"], 100, backend=backend)
    assert found.exact == (True,)
    assert found.p[0].tolist() == [0.25, 1.0]
    assert found.p_fwer[0].tolist() == [0.25, 1.0]


# ---------------------------------------------------------------- by enumeration


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 7), st.integers(1, 8), st.integers(0, 99))
def test_signs_equal_enumeration(n: int, f: int, seed: int) -> None:
    x = sparse_data(n, f, seed, 0.6)
    norm = np.linalg.norm(x, axis=0)
    u = x / np.where(norm > 0, norm, 1)
    values = np.abs(np.array(list(itertools.product([-1, 1], repeat=n))) @ u)
    observed = np.abs(u.sum(axis=0))
    found = sign_flip(x, 128)
    np.testing.assert_allclose(found.p, (values >= observed - 1e-6).mean(axis=0))
    single = (values.max(axis=1)[:, None] >= observed - 1e-6).mean(axis=0)
    np.testing.assert_allclose(found.p_single_step, single)
    np.testing.assert_allclose(found.p_fwer, step_down(values, observed))


@settings(deadline=None, max_examples=20)
@given(st.integers(4, 9), st.integers(1, 8), st.integers(0, 99), st.sampled_from([0.2, 0.6, 1.0]))
def test_labels_equal_enumeration(n: int, f: int, seed: int, density: float) -> None:
    x = sparse_data(n, f, seed, density)
    centred = x - x.mean(axis=0)
    centred[:, np.ptp(x, axis=0) == 0] = 0
    norm = np.linalg.norm(centred, axis=0)
    u = centred / np.where(norm > 0, norm, 1)
    chosen = np.array([[i in c for i in range(n)] for c in itertools.combinations(range(n), 2)])
    values = np.abs(chosen.astype(float) @ u)
    labels = ["a", "b", "b", "a", *"c" * (n - 4)]
    found = label_permutation(x, labels, ["b", "a"], 200)
    assert found.exact == (True, True)
    for row, own in enumerate(([1, 2], [0, 3])):
        observed = np.abs(u[own].sum(axis=0))
        np.testing.assert_allclose(found.p[row], (values >= observed - 1e-6).mean(axis=0))
        np.testing.assert_allclose(found.p_fwer[row], step_down(values, observed))


def test_label_p_equals_scipy_for_sparse_and_dense_columns() -> None:
    x = sparse_data(10, 12, 0, 0.5)
    assert {bool(k) for k in 2 * (x != 0).sum(axis=0) > 10} == {True, False}
    found = label_permutation(sparse.csc_array(x), ["a"] * 3 + ["b"] * 7, ["a"], 1000)

    def distance(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.abs(a.mean(axis=axis) - b.mean(axis=axis))

    want = sp.permutation_test(
        (x[:3], x[3:]), distance, n_resamples=np.inf, vectorized=True, alternative="greater"
    )
    np.testing.assert_allclose(found.p[0], want.pvalue, atol=1e-6)
    t = sp.ttest_ind(x[:3], x[3:]).statistic
    np.testing.assert_allclose(found.statistic[0], np.where(np.isnan(t), 0, t), atol=1e-9)


# ---------------------------------------------------------------- what must not matter


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_features_does_not_matter(seed: int) -> None:
    x = np.tile(sparse_data(20, 60, seed), 2)  # every feature twice: ties everywhere
    order = np.random.default_rng(seed).permutation(x.shape[1])
    for one, two in zip(every_test(x, 20), every_test(x[:, order], 20), strict=True):
        for field in (*P_FIELDS, "statistic"):
            np.testing.assert_array_equal(getattr(one, field)[..., order], getattr(two, field))


@pytest.mark.parametrize("convert", [sparse.csc_array, sparse.csr_matrix, sparse.coo_array])
def test_sparse_input_gives_the_same(convert: Callable[[np.ndarray], object]) -> None:
    x = sparse_data(21, 80, 4)
    x[:, 3] = 0.1  # constant
    x[:, 4] = 0.0
    for one, two in zip(every_test(x, 21), every_test(convert(x), 21), strict=True):
        assert_same(one, two, (*P_FIELDS, "statistic"))


def test_sparse_input_is_left_as_it_is() -> None:
    x = sparse.csc_array((np.array([1.0, 0.0, 2.0]), np.array([2, 0, 0]), np.array([0, 3])), (3, 1))
    sign_flip(x, 100)
    assert x.indices.tolist() == [2, 0, 0] and x.data.tolist() == [1.0, 0.0, 2.0]
    assert_same(sign_flip(x, 100), sign_flip(x.toarray(), 100))


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e30])
def test_the_scale_of_a_feature_does_not_matter(factor: float) -> None:
    x = sparse_data(18, 40, 6)
    scaled = x * np.where(np.arange(40) % 2, factor, 1.0)
    for one, two in zip(every_test(x, 18), every_test(scaled, 18), strict=True):
        assert_same(one, two)


def test_more_features_never_lower_a_family_wise_p() -> None:
    x = sparse_data(20, 50, 7)
    for part, whole in zip(every_test(x[:, :10], 20), every_test(x, 20), strict=True):
        assert (part.p_fwer <= whole.p_fwer[..., :10]).all()  # type: ignore[attr-defined]
        assert_same(part, _columns_of(whole, 10), ("p",))
        assert (whole.p_fwer <= whole.p_single_step).all()  # type: ignore[attr-defined]
        assert (whole.p_fwer >= whole.p).all()  # type: ignore[attr-defined]


def _columns_of(found: object, n: int) -> object:
    class Part:
        p = found.p[..., :n]  # type: ignore[attr-defined]

    return Part


@pytest.mark.parametrize("shift", [8.0, 2.0**30])
def test_labels_do_not_depend_on_a_common_shift(shift: float) -> None:
    # A shift moves every column from the sparse to the centred form; whole numbers shift exactly.
    x = np.round(4 * sparse_data(16, 30, 8))
    labels = [f"g{i % 4}" for i in range(16)]
    one, two = (label_permutation(z, labels, n_permutations=500) for z in (x, x + shift))
    assert_same(one, two)
    np.testing.assert_allclose(one.statistic, two.statistic, atol=1e-12)
    np.testing.assert_allclose(one.specificity, two.specificity, atol=1e-12)


# ---------------------------------------------------------------- error rates


@pytest.mark.parametrize("kind", ["signs", "labels"])
def test_step_down_controls_the_family_wise_error_beside_real_effects(kind: str) -> None:
    # Ten features carry an effect, thirty do not; the thirty correlate with one another.
    false = {"p_fwer": 0, "p_single_step": 0}
    true = dict(false)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(24, 40)) + rng.normal(size=(24, 1))
        x *= rng.random((24, 40)) < 0.7
        if kind == "signs":
            x[:, :10] += 1.0
            found = sign_flip(x, 299, seed)
        else:
            x[:12, :10] += 2.0
            found = label_permutation(x, ["a"] * 12 + ["b"] * 12, ["a"], 299, seed)
        for field in false:
            p = np.atleast_2d(getattr(found, field))[0]
            false[field] += bool((p[10:] <= 0.1).any())
            true[field] += int((p[:10] <= 0.1).sum())
    # 99.9% of binomial outcomes of 200 draws at .1 lie below 35.
    assert false["p_fwer"] <= 34
    assert false["p_fwer"] >= false["p_single_step"]
    assert true["p_fwer"] > true["p_single_step"]


# ---------------------------------------------------------------- edges


def test_a_feature_that_fires_once_never_counts() -> None:
    x = np.zeros((12, 3))
    x[4, 0], x[5, 1] = 5.0, -2.0
    clusters = [f"c{i % 3}" for i in range(12)]
    for found in (sign_flip(x, 600), cluster_flip(x, clusters, 600)):
        assert found.p.tolist() == found.p_fwer.tolist() == [1, 1, 1]
        assert found.statistic[2] == 0
    # As the one own unit of twelve it is the largest of twelve choices.
    own = label_permutation(x, ["b"] * 4 + ["a"] + ["b"] * 7, ["a"], 600)
    assert own.p[0, 0] == pytest.approx(1 / 12) and own.p[0, 2] == 1


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (sparse.csc_array((0, 3)), r"shape \(0, 3\)"),
        (sparse.csc_array(np.array([[1.0, np.nan]])), "1 values that are NaN"),
        (np.zeros((2, 2, 2)), "shape"),
    ],
)
def test_wrong_input_is_named(x: object, message: str) -> None:
    with pytest.raises(permutation.StatisticsError, match=message):
        sign_flip(x)  # type: ignore[arg-type]
