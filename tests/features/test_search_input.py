"""Degenerate and wide input of a search: a stated result or a clear error, never a silent NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from affectlens.data.errors import StimulusError
from affectlens.features import contrasts, stats
from affectlens.features.columns import FEATURE_COLUMNS
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, cluster_means, cluster_totals, run_contrasts
from affectlens.features.design import PairDesign
from affectlens.features.pair_data import PairData, as_sparse
from affectlens.features.search import search_activations

from .test_search import make

CONFIG = SearchConfig(n_permutations=200, min_items=1)
Made = tuple[np.ndarray, PairDesign]


def design_of(clusters: list[str]) -> PairDesign:
    """Pairs of these clusters, named emotion/domain."""
    n = len(clusters)
    emotions = tuple(c.split("/")[0] for c in clusters)
    ids = tuple(f"p{i}" for i in range(n))
    order = tuple(dict.fromkeys(emotions))
    return PairDesign(np.arange(n), np.arange(n, 2 * n), ids, emotions, tuple(clusters), order)


def noise(clusters: list[str], n_latents: int = 6) -> Made:
    rng = np.random.default_rng(0)
    shape = (2 * len(clusters), n_latents)
    return rng.exponential(1, shape) * (rng.random(shape) < 0.6), design_of(clusters)


def constant() -> Made:
    pooled, design = noise([f"{e}/{d}" for e in "ab" for d in range(6)])
    pooled[:, 0] = 2.0
    pooled[design.clinical, 1], pooled[design.neutral, 1] = 3.0, 1.0
    return pooled, design


def ties() -> Made:
    pooled, design = noise([f"{e}/{d}" for e in "ab" for d in range(6)])
    pooled[design.neutral] = pooled[design.clinical]
    return pooled, design


def fires_once() -> Made:
    pooled, design = noise([f"{e}/{d}" for e in "ab" for d in range(6)])
    pooled[:, 2:] = 0
    pooled[design.clinical[1], 2] = pooled[design.neutral[2], 3] = 1
    return pooled, design


CASES: dict[str, Callable[[], Made]] = {
    "one pair": lambda: noise(["a/1"]),
    "two pairs of one cluster": lambda: noise(["a/1", "a/1"]),
    "two pairs of two emotions": lambda: noise(["a/1", "b/1"]),
    "one cluster": lambda: noise(["a/1"] * 12),
    "one cluster an emotion": lambda: noise([f"{e}/1" for e in "abcdefgh" for _ in range(3)]),
    "one pair an emotion": lambda: noise([f"{e}/1" for e in "abcdefgh"]),
    "unequal clusters": lambda: noise(["a/1"] * 9 + ["a/2", "b/1", "b/1", "b/2", "c/1", "c/2"]),
    "equal members": ties,
    "constant latents": constant,
    "fires once": fires_once,
    "all zeros": lambda: (np.zeros((8, 5)), design_of(["a/1", "a/2", "b/1", "b/2"])),
}


@pytest.mark.parametrize("unit", ["cluster", "pair"])
@pytest.mark.parametrize("case", CASES)
def test_a_search_is_finite_where_it_does_not_say_otherwise(case: str, unit: str) -> None:
    pooled, design = CASES[case]()
    config = CONFIG.model_copy(update={"unit": unit, "unit_emotion": unit})
    found = search_activations(pooled, design, config)
    table, summary = found.table, found.summary
    for column, meaning in FEATURE_COLUMNS.items():
        values = table[column]
        assert "NaN" in meaning or not values.isna().any(), column
        if pd.api.types.is_float_dtype(values):
            assert "infinite" in meaning or not np.isinf(values).any(), column
    for column in ("p", "p_fwer", "q", "q_by", "presence_p", "wilcoxon_p"):
        assert table[column].between(0, 1).all(), column
    for name, p in summary.min_p.items():
        rows = table[table["contrast"] == name]
        assert (rows["p"] >= p - 1e-12).all()
        said = any(
            line.startswith(f"{name}: ") and "discovery" in line for line in summary.limits()
        )
        assert said == (p > config.alpha)
        if said:
            assert not (rows["p_fwer"] <= config.alpha).any() and not rows["confirmed"].any()
    assert summary.n_tested + summary.n_filtered == pooled.shape[1]
    assert np.isfinite(list(summary.min_detectable.values())).all()


def test_one_cluster_finds_nothing_whatever_the_effect() -> None:
    pooled, design = noise(["a/1"] * 12)
    pooled[design.clinical] += 100
    found = search_activations(pooled, design, CONFIG)
    assert (found.table["p"] == 1).all() and found.summary.min_p == {"all": 1.0}
    assert found.table["icc"].isna().all() and found.summary.icc is None


def test_equal_members_have_no_effect_and_nothing_is_retained() -> None:
    found = search_activations(*ties(), CONFIG)
    assert (found.table["p"] == 1).all() and not found.table["retained"].any()
    assert (found.table["mean_diff"] == 0).all() and (found.table["auroc"] == 0.5).all()
    assert (found.table["wilcoxon_p"] == 1).all() and (found.table["presence_p"] == 1).all()


def test_equal_differences_have_no_d_z_but_the_smallest_p() -> None:
    # 8 clusters: all 256 arrangements.
    found = search_activations(*constant(), CONFIG.model_copy(update={"n_permutations": 1000}))
    rows = found.table.query("contrast == 'all'").set_index("feature")
    assert rows.loc[1, "p"] == found.summary.min_p["all"] and np.isnan(rows.loc[1, "d_z"])
    assert rows.loc[1, "auroc"] == 1 and rows.loc[1, "rank"] == 1
    assert rows.loc[0, "p"] == 1 and rows.loc[0, "auroc"] == 0.5


def test_a_latent_that_fires_once_has_a_p_of_one_unless_it_is_left_out() -> None:
    pooled, design = fires_once()
    found = search_activations(pooled, design, CONFIG)
    table = found.table.query("contrast == 'all'").set_index("feature")
    once = [f for f in (2, 3) if f in table.index]
    assert once and (table.loc[once, "p"] == 1).all() and (table.loc[once, "presence_p"] == 1).all()
    stricter = search_activations(pooled, design, SearchConfig(n_permutations=200))
    assert set(stricter.table["feature"]) == {0, 1} and stricter.summary.n_filtered == 4


def test_a_cluster_of_any_size_is_one_unit() -> None:
    pooled, design = CASES["unequal clusters"]()
    found = search_activations(pooled, design, CONFIG.model_copy(update={"confirmation_share": 0}))
    d = stats.paired_differences(pooled[design.clinical], pooled[design.neutral])
    want = stats.sign_flip(stats.cluster_totals(d, design.clusters), 200)
    rows = found.table.query("contrast == 'all'").sort_values("feature")
    np.testing.assert_array_equal(rows["p"], want.p)
    assert found.summary.min_p["all"] == 2.0**-5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    pooled, design = noise(["a/1", "a/2"])
    pooled[0, 0] = bad
    for form in (pooled, sparse.csr_array(pooled)):
        with pytest.raises(stats.StatisticsError, match="NaN or infinite"):
            search_activations(form, design, CONFIG)
    d = pooled[design.clinical] - pooled[design.neutral]
    parts = dict.fromkeys(design.clusters, "discovery")
    with pytest.raises(stats.StatisticsError, match="NaN or infinite"):
        run_contrasts(d, design, parts, CONFIG)  # type: ignore[arg-type]


def test_no_pairs_are_refused() -> None:
    with pytest.raises(StimulusError, match="no pairs"):
        search_activations(np.ones((4, 3)), design_of([]), CONFIG)


# ---------------------------------------------------------------- sparse


@pytest.mark.parametrize("unit", ["pair", "cluster", "hierarchical"])
def test_sparse_differences_are_tested_as_the_dense_definitions_are(unit: str) -> None:
    pooled, design = make(n_domains=6)
    by_emotion = "pair" if unit == "pair" else "cluster"
    config = SearchConfig(n_permutations=300, unit=unit, unit_emotion=by_emotion)  # type: ignore[arg-type]
    data = PairData.of(as_sparse(pooled), design, config)
    found = run_contrasts(data.differences(data.tested), data.design, data.parts, config)
    rows = design.rows(data.parts, "discovery")
    d = data.members(data.tested).differences[rows]
    names, labels = ([each[i] for i in rows] for each in (design.clusters, design.emotions))
    if unit == "hierarchical":
        flips = stats.cluster_flip(d, names, 300)
        want_all = (flips.p, flips.p_fwer)
    else:
        flip = stats.sign_flip(d if unit == "pair" else stats.cluster_totals(d, names), 300)
        want_all = (flip.p, flip.p_fwer)
    if by_emotion == "cluster":
        units = sorted(set(names))
        label = stats.label_permutation(
            stats.cluster_means(d, names), [u.split("/")[0] for u in units], design.order, 300
        )
    else:
        label = stats.label_permutation(d, labels, design.order, 300)
    assert [c.name for c in found] == [ALL, *design.order]
    for contrast, want in zip(
        found, [want_all, *zip(label.p, label.p_fwer, strict=True)], strict=True
    ):
        np.testing.assert_array_equal(contrast.p, want[0])
        np.testing.assert_array_equal(contrast.p_fwer, want[1])
        own = d[[contrast.name in (ALL, e) for e in labels]]
        effects = contrast.discovery
        np.testing.assert_allclose(effects.mean_diff, stats.mean_diff(own), atol=1e-12)
        np.testing.assert_allclose(effects.d_z, stats.d_z(own), atol=1e-12)
        np.testing.assert_array_equal(effects.auroc_paired, stats.auroc_paired(own))


def test_dense_and_sparse_differences_and_blocks_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pooled, design = make()
    data = PairData.of(as_sparse(pooled), design, CONFIG)
    thin, dense = data.differences(data.tested), data.members(data.tested).differences
    np.testing.assert_array_equal(thin.toarray(), dense)
    one = run_contrasts(thin, data.design, data.parts, CONFIG)
    monkeypatch.setattr(contrasts, "_BLOCK", 7)
    for other in (dense, np.asfortranarray(dense), sparse.csr_array(thin)):
        two = run_contrasts(other, data.design, data.parts, CONFIG)
        for a, b in zip(one, two, strict=True):
            for column, values in {**a.effects(""), **a.effects("confirm_")}.items():
                again = {**b.effects(""), **b.effects("confirm_")}[column]
                np.testing.assert_array_equal(values, again, err_msg=column)
            np.testing.assert_array_equal(a.p, b.p)
            np.testing.assert_array_equal(a.confirm_p, b.confirm_p)


def test_sparse_cluster_sums_are_the_dense_ones_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    d = rng.normal(size=(40, 30)) * (rng.random((40, 30)) < 0.4)
    clusters = [f"c{i}" for i in rng.integers(7, size=40)]
    thin = sparse.csc_array(d)
    totals, means = cluster_totals(thin, clusters), cluster_means(thin, clusters)
    np.testing.assert_array_equal(totals.toarray(), stats.cluster_totals(d, clusters))
    np.testing.assert_array_equal(means.toarray(), stats.cluster_means(d, clusters))


def test_the_callers_matrix_is_left_as_it_is() -> None:
    twice = sparse.csc_array((np.ones(3), np.array([1, 0, 0]), np.array([0, 2, 3])), shape=(2, 2))
    twice.indices[:] = [1, 1, 0]
    assert as_sparse(twice).toarray().tolist() == [[0, 1], [2, 0]]
    assert twice.nnz == 3


def test_many_latents_are_never_dense_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    widest = 0
    plain = sparse.csc_array.toarray

    def watched(self: sparse.csc_array, *args: object, **more: object) -> np.ndarray:
        nonlocal widest
        widest = max(widest, self.shape[1])
        return plain(self, *args, **more)

    pooled, design = make(n_domains=3, n_per=1)
    wide = sparse.csc_array(np.tile(pooled, 250))
    monkeypatch.setattr(sparse.csc_array, "toarray", watched)
    found = search_activations(wide, design, SearchConfig(n_permutations=100))
    assert found.summary.n_tested > 8000 and 0 < widest <= 4096
