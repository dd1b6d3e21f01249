"""The compiled counts equal their NumPy definition, whatever the threads and the shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.features import _kernels, permutation
from affectlens.features.permutation import label_permutation, sign_flip


def data(n: int, f: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f)) * (rng.random((n, f)) < 0.4)
    x[:, ::7] = np.round(x[:, ::7])
    return x


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 40),
    st.integers(1, 150),
    st.integers(0, 9),
    st.sampled_from([50, 300]),
    st.sampled_from(["two-sided", "greater"]),
)
def test_sign_flip_twins(n: int, f: int, seed: int, perms: int, alternative: str) -> None:
    x = data(n, f, seed)
    found = [
        sign_flip(x, perms, seed, alternative=alternative, backend=backend)  # type: ignore[arg-type]
        for backend in ("numba", "numpy")
    ]
    np.testing.assert_array_equal(found[0].p, found[1].p)
    np.testing.assert_array_equal(found[0].p_fwer, found[1].p_fwer)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(4, 40),
    st.integers(1, 150),
    st.integers(0, 9),
    st.sampled_from([50, 300]),
    st.integers(2, 4),
)
def test_label_permutation_twins(n: int, f: int, seed: int, perms: int, groups: int) -> None:
    x = data(n, f, seed)
    labels = [f"g{min(i % groups, i % 3)}" for i in range(n)]
    if len(set(labels)) < 2:
        return
    one = label_permutation(x, labels, n_permutations=perms, seed=seed, backend="numba")
    two = label_permutation(x, labels, n_permutations=perms, seed=seed, backend="numpy")
    np.testing.assert_array_equal(one.p, two.p)
    np.testing.assert_array_equal(one.p_fwer, two.p_fwer)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_do_not_change_the_result(threads: int) -> None:
    x = data(25, 300, 0)
    labels = [f"g{i % 3}" for i in range(25)]
    one, many = sign_flip(x, 700, threads=1), sign_flip(x, 700, threads=threads)
    np.testing.assert_array_equal(one.p, many.p)
    np.testing.assert_array_equal(one.p_fwer, many.p_fwer)
    first = label_permutation(x, labels, n_permutations=700, threads=1)
    second = label_permutation(x, labels, n_permutations=700, threads=threads)
    np.testing.assert_array_equal(first.p, second.p)
    np.testing.assert_array_equal(first.p_fwer, second.p_fwer)


def test_a_feature_does_not_depend_on_its_neighbours() -> None:
    x = data(30, 200, 1)
    alone = sign_flip(x[:, 130:131], 500)
    assert alone.p[0] == sign_flip(x, 500).p[130]


def test_more_permutations_keep_the_first_ones() -> None:
    np.testing.assert_array_equal(
        permutation.random_codes(2000, 50, 3)[:100], permutation.random_codes(100, 50, 3)
    )
    np.testing.assert_array_equal(
        permutation.random_members(2000, 50, 7, 3)[:100], permutation.random_members(100, 50, 7, 3)
    )


def test_random_signs_are_balanced_and_independent() -> None:
    signs = permutation.codes_to_signs(permutation.random_codes(20_000, 40, 0), 40)
    limit = 5 / np.sqrt(20_000)
    assert np.abs(signs.mean(axis=0)).max() < limit
    correlation = signs.T @ signs / len(signs) - np.eye(40)
    assert np.abs(correlation).max() < limit
    lagged = (signs[1:] * signs[:-1]).mean(axis=0)
    assert np.abs(lagged).max() < limit


def test_random_members_are_balanced_subsets() -> None:
    members = permutation.random_members(20_000, 30, 6, 0)
    assert members.shape == (20_000, 6)
    assert (np.diff(members, axis=1) > 0).all()
    share = np.bincount(members.ravel(), minlength=30) / 20_000
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.16 / 20_000)


def test_seeds_differ() -> None:
    assert not np.array_equal(
        permutation.random_codes(10, 50, 0), permutation.random_codes(10, 50, 1)
    )


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert _kernels.n_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    assert _kernels.n_threads() >= 1


def test_kernels_survive_a_fork() -> None:
    import multiprocessing

    sign_flip(data(20, 100, 0), 200, threads=2)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_p_of_first) == sign_flip(data(20, 100, 0), 200).p[0]


def _p_of_first() -> float:
    return float(sign_flip(data(20, 100, 0), 200, threads=2).p[0])
