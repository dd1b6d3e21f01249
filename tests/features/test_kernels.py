"""The compiled counts equal their NumPy definition, whatever the threads and the shape."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.features import _kernels
from affectlens.features._masked_sums import LANES, masked_sums, tally
from affectlens.features.cluster_flip import cluster_flip
from affectlens.features.permutation import Alternative, label_permutation, sign_flip

FIELDS = ("p", "p_fwer", "p_single_step")
SIZES = (st.integers(1, 70), st.integers(1, 150), st.integers(0, 9))
PERMUTATIONS = st.sampled_from([1, 50, 64, 300, 700])
DENSITIES = st.sampled_from([0.05, 0.4, 1.0])
ALTERNATIVES = st.sampled_from(["two-sided", "greater"])


def data(n: int, f: int, seed: int, density: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f)) * (rng.random((n, f)) < density)
    x[:, ::7] = np.round(x[:, ::7])
    return x


def labels_of(n: int) -> list[str]:
    return [f"g{i % 3}" for i in range(n)]


def clusters_of(n: int) -> list[str]:
    return [f"c{i * i % 11}" for i in range(n)]


def assert_same(one: object, two: object, fields: Sequence[str] = FIELDS) -> None:
    for field in fields:
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field), field)


@settings(deadline=None, max_examples=25)
@given(*SIZES, PERMUTATIONS, DENSITIES, ALTERNATIVES)
def test_sign_flip_twins(
    n: int, f: int, seed: int, perms: int, density: float, alternative: Alternative
) -> None:
    x = data(n, f, seed, density)
    one, two = (
        sign_flip(x, perms, seed, alternative=alternative, backend=backend)  # type: ignore[arg-type]
        for backend in ("numba", "numpy")
    )
    assert_same(one, two)


@settings(deadline=None, max_examples=25)
@given(*SIZES, PERMUTATIONS, DENSITIES, st.integers(2, 4))
def test_label_permutation_twins(
    n: int, f: int, seed: int, perms: int, density: float, groups: int
) -> None:
    x = data(n, f, seed, density)
    labels = [f"g{min(i % groups, i % 3)}" for i in range(n)]
    if len(set(labels)) < 2:
        return
    one, two = (
        label_permutation(x, labels, n_permutations=perms, seed=seed, backend=backend)  # type: ignore[arg-type]
        for backend in ("numba", "numpy")
    )
    assert_same(one, two)


@settings(deadline=None, max_examples=25)
@given(*SIZES, PERMUTATIONS, DENSITIES, ALTERNATIVES)
def test_cluster_flip_twins(
    n: int, f: int, seed: int, perms: int, density: float, alternative: Alternative
) -> None:
    x = data(n, f, seed, density)
    one, two = (
        cluster_flip(x, clusters_of(n), perms, seed, alternative=alternative, backend=backend)  # type: ignore[arg-type]
        for backend in ("numba", "numpy")
    )
    assert_same(one, two)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("width", [64, 192, 512])
def test_threads_and_chunks_do_not_change_the_result(
    threads: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = data(25, 120, 0)

    def run(n: int) -> list[object]:
        return [
            sign_flip(x, 1500, threads=n),
            label_permutation(x, labels_of(25), n_permutations=1500, threads=n),
            cluster_flip(x, clusters_of(25), 1500, threads=n),
        ]

    one = run(1)
    monkeypatch.setattr(_kernels, "WIDTH", width)
    monkeypatch.setattr(_kernels, "CLUSTER_WIDTH", width)
    for first, second in zip(one, run(threads), strict=True):
        assert_same(first, second)


def test_a_feature_does_not_depend_on_its_neighbours() -> None:
    x = data(30, 200, 1)
    alone = sign_flip(x[:, 130:131], 500)
    assert alone.p[0] == sign_flip(x, 500).p[130]


@numba.njit
def _call(top, words, units, values, start, stop, initial, limit, two_sided, counted, word):  # type: ignore[no-untyped-def]
    row = np.zeros_like(top)
    masked_sums(row, words, units, values, start, stop, initial, word)
    return tally(top, row, limit, two_sided, counted, word)


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_sums_and_tally_are_those_of_the_bits(count: int, two_sided: bool) -> None:
    rng = np.random.default_rng(count)
    words = rng.integers(0, 2**64, (9, 3), dtype=np.uint64)
    units = rng.integers(0, 9, 7).astype(np.int32)
    values = rng.integers(-(2**28), 2**28, 7).astype(np.int32)
    before = rng.integers(-(2**28), 2**28, 3 * LANES).astype(np.int32)
    top = before.copy()
    counted, limit = np.uint64(2**50 - 1), 2**26
    found = _call(top, words, units, values, 2, 2 + count, -5, limit, two_sided, counted, 1)
    sums = []
    for lane in range(LANES):
        bits = [(int(words[u, 1]) >> lane) & 1 for u in units[2 : 2 + count]]
        one = -5 + sum(int(v) * b for v, b in zip(values[2 : 2 + count], bits, strict=True))
        sums.append(abs(one) if two_sided else one)
    want = before.copy()
    want[LANES : 2 * LANES] = np.maximum(before[LANES : 2 * LANES], sums)
    np.testing.assert_array_equal(top, want)
    successive = int((want[LANES : LANES + 50] >= limit).sum())
    assert found == (int((np.array(sums[:50]) >= limit).sum()), successive)


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
