"""Null data sets keep what they say they keep."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import sparse

from affectlens.data.errors import StimulusError
from affectlens.features import null_data
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.pair_data import Members, PairData, as_sparse
from affectlens.features.permutation import StatisticsError
from affectlens.features.search import search_activations

CONFIG = SearchConfig(n_permutations=100)


def design_of(emotions: int = 3, domains: int = 5, size: int = 3) -> PairDesign:
    n = emotions * domains * size
    names = [f"e{i // (domains * size)}" for i in range(n)]
    return PairDesign(
        np.arange(n),
        np.arange(n, 2 * n),
        tuple(f"p{i}" for i in range(n)),
        tuple(names),
        tuple(f"{names[i]}/d{i // size % domains}" for i in range(n)),
        tuple(dict.fromkeys(names)),
    )


def activations(design: PairDesign, n_latents: int = 30, seed: int = 0) -> np.ndarray:
    """Non-negative, with zeros and latents of every rate."""
    rng = np.random.default_rng(seed)
    n = 2 * len(design)
    fires = rng.random((n, n_latents)) < np.linspace(0.02, 0.9, n_latents)
    return np.where(fires, rng.gamma(2.0, size=(n, n_latents)), 0).astype(np.float32)


def test_split_and_filter_are_those_of_the_search() -> None:
    design = design_of()
    pooled = activations(design)
    data = PairData.of(as_sparse(pooled), design, CONFIG)
    found = search_activations(pooled, design, CONFIG)
    assert dict(data.parts) == dict(found.parts)
    np.testing.assert_array_equal(data.tested, np.sort(found.table["feature"].unique()))
    assert 0 < len(data.tested) < pooled.shape[1]
    members = data.drawn(10**6, np.random.default_rng(0))
    np.testing.assert_array_equal(members.clinical, pooled[design.clinical][:, data.tested])
    assert data.drawn(5, np.random.default_rng(0)).clinical.shape == (len(design), 5)


def test_a_swap_turns_the_sign_of_a_difference() -> None:
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [5.0]])
    np.testing.assert_array_equal(
        Members(x, y).swapped(np.array([True, False])).differences, [[-1.0], [-3.0]]
    )


def test_coins_are_per_cluster_or_per_pair_and_fair() -> None:
    design = design_of(domains=40)
    whole = null_data.swaps(design, "cluster", np.random.default_rng(0))
    of: dict[str, set[bool]] = {}
    for cluster, swap in zip(design.clusters, whole, strict=True):
        of.setdefault(cluster, set()).add(bool(swap))
    assert all(len(s) == 1 for s in of.values())
    assert 40 < sum(s == {True} for s in of.values()) < 80
    single = null_data.swaps(design, "pair", np.random.default_rng(0)).reshape(-1, 3)
    assert (single.min(axis=1) != single.max(axis=1)).any()


@pytest.mark.parametrize("by", ["cluster", "pair"])
def test_labels_stay_within_parts_and_keep_their_counts(by: null_data.By) -> None:
    design = design_of()
    data = PairData.of(as_sparse(activations(design)), design, CONFIG)
    made = null_data.relabelled(data, by, np.random.default_rng(1))
    assert made.emotions != design.emotions
    for part in ("discovery", "confirmation"):
        rows = design.rows(data.parts, part)  # type: ignore[arg-type]
        before = Counter(design.emotions[i] for i in rows)
        assert Counter(made.emotions[i] for i in rows) == before
    emotions_of = {(c, e) for c, e in zip(made.clusters, made.emotions, strict=True)}
    assert (len(emotions_of) == len(set(design.clusters))) == (by == "cluster")


def test_neutral_pairs_cross_topics_within_an_emotion_and_use_each_once() -> None:
    design = design_of(emotions=2, domains=5, size=3)
    made = null_data.neutral_pairs(design, "cluster", np.random.default_rng(2))
    rows = np.concatenate([made.clinical, made.neutral])
    assert len(set(rows.tolist())) == len(rows) and set(rows) <= set(design.neutral)
    # Five domains make two twos of three pairs, for each of two emotions; one is left over.
    assert len(made) == 12 and len(set(made.clusters)) == 4
    cluster = dict(zip(design.neutral.tolist(), design.clusters, strict=True))
    first: dict[str, set[str]] = {}
    for a, b, e, c in zip(made.clinical, made.neutral, made.emotions, made.clusters, strict=True):
        assert cluster[a] != cluster[b] and cluster[a].startswith(e) and cluster[b].startswith(e)
        first.setdefault(c, set()).add(cluster[a])
    assert all(len(sides) == 1 for sides in first.values())


def test_centring_takes_the_mean_of_each_emotion_and_leaves_its_spread() -> None:
    d = np.array([[1.0, 4.0], [3.0, 4.0], [10.0, 0.0], [30.0, 2.0]])
    got = null_data.centred(d, ["b", "b", "a", "a"])
    np.testing.assert_allclose(got, [[-1, 0], [1, 0], [-10, -1], [10, 1]])


def test_one_cluster_an_emotion_has_no_neutral_pairs() -> None:
    with pytest.raises(StimulusError, match="no emotion has neutrals of two clusters"):
        null_data.neutral_pairs(design_of(domains=1), "pair", np.random.default_rng(0))


def test_subsampling_keeps_whole_clusters_of_each_emotion() -> None:
    design = design_of(emotions=2, domains=6, size=4)
    half = null_data.subsampled(design, 0.5, None, np.random.default_rng(0))
    assert set(Counter(half.clusters).values()) == {4} and len(set(half.clusters)) == 6
    assert Counter(half.emotions) == {"e0": 12, "e1": 12}
    thin = null_data.subsampled(design, 1.0, 2, np.random.default_rng(0))
    assert set(Counter(thin.clusters).values()) == {2} and len(set(thin.clusters)) == 12
    assert len(null_data.subsampled(design, 0.01, 1, np.random.default_rng(0))) == 2


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([[np.nan]]), np.array([[np.inf]])])
def test_what_is_no_matrix_of_finite_values_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(StatisticsError, match=r"shape|NaN or infinite"):
        as_sparse(bad)


def test_sparse_is_taken_as_dense() -> None:
    x = activations(design_of())
    assert (as_sparse(sparse.csr_array(x)) != as_sparse(x)).nnz == 0
