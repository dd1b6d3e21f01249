"""The search's split, bookkeeping and files; what it finds is tested in test_planted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.features import stats
from affectlens.features.columns import FEATURE_COLUMNS
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign, split_clusters
from affectlens.features.detectable import NOT_DETECTABLE
from affectlens.features.results import SearchSummary, read_contexts, read_table
from affectlens.features.search import SearchResult, search_activations

EMOTIONS = ("rage", "grief", "terror")


def make(
    n_domains: int = 3, n_per: int = 3, emotions: tuple[str, ...] = EMOTIONS, seed: int = 0
) -> tuple[np.ndarray, PairDesign]:
    """Pooled activations of 40 latents; latent 0 general, latent 1 + i the i-th emotion's."""
    labels = [(e, f"{e}/{d}") for e in emotions for d in range(n_domains) for _ in range(n_per)]
    n = len(labels)
    rng = np.random.default_rng(seed)
    pooled = rng.exponential(1, (2 * n, 40)) * (rng.random((2 * n, 40)) < 0.5)
    pooled[:n, 0] += 3
    for i, emotion in enumerate(emotions):
        pooled[:n, 1 + i] += 3 * np.array([e == emotion for e, _ in labels])
    pooled[n:, 10] += 3  # falls on clinical texts
    pooled[:, 20] = 0
    pooled[:3, 20] = 1  # too rare
    design = PairDesign(
        np.arange(n),
        np.arange(n, 2 * n),
        tuple(f"p{i}" for i in range(n)),
        tuple(e for e, _ in labels),
        tuple(c for _, c in labels),
        emotions,
    )
    return pooled.astype(np.float32), design


@pytest.fixture(scope="module")
def found() -> SearchResult:
    pooled, design = make(n_domains=12)
    config = SearchConfig(n_permutations=2000, n_retained=5, alpha=0.01)
    return search_activations(
        pooled, design, config, battery="made", battery_sha256="0" * 64, lexical_warning="words!"
    )


# ---------------------------------------------------------------- split


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 8), min_size=1),
    st.floats(0, 0.99),
    st.integers(0, 2**40),
    st.randoms(),
)
def test_split_is_whole_stratified_and_order_free(sizes, share, seed, shuffler) -> None:  # type: ignore[no-untyped-def]
    pairs = [(f"{e}/{d}", e) for e, n in sizes.items() for d in range(n) for _ in range(2)]
    parts = split_clusters(*zip(*pairs, strict=True), share, seed)
    shuffler.shuffle(pairs)
    assert split_clusters(*zip(*pairs, strict=True), share, seed) == parts
    for emotion, n in sizes.items():
        held = Counter(parts[f"{emotion}/{d}"] for d in range(n))["confirmation"]
        assert held <= n - 1
        if share > 0 and n > 1:
            assert held == min(max(1, round(share * n)), n - 1)
        elif share == 0:
            assert held == 0


def test_split_depends_on_the_seed_and_on_own_clusters_only() -> None:
    clusters = [f"{e}/{d}" for e in "ab" for d in range(8)]
    emotions = [c[0] for c in clusters]
    splits = {tuple(split_clusters(clusters, emotions, 0.5, s).values()) for s in range(5)}
    assert len(splits) > 1
    alone = split_clusters(clusters[:8], emotions[:8], 0.5, 0)
    assert alone.items() <= split_clusters(clusters, emotions, 0.5, 0).items()


def test_a_cluster_of_two_emotions_is_refused() -> None:
    with pytest.raises(StimulusError, match=r"'x'.*'a' and 'b'"):
        split_clusters(["x", "x"], ["a", "b"], 0.3, 0)


# ---------------------------------------------------------------- core


def test_planted_features_lead(found: SearchResult) -> None:
    assert list(found.top("all", 1)) == [0]
    for i, emotion in enumerate(EMOTIONS):
        assert list(found.top(emotion, 1)) == [1 + i]
        assert list(found.top(emotion, 5, confirmed=True)) == [1 + i]
    assert 10 in found.top("all", 2, rising=False)
    assert 10 not in found.top("all", 1000)


def test_confirmed_features_hold_the_sign(found: SearchResult) -> None:
    row = found.table.query("contrast == 'all' and feature == 10").iloc[0]
    assert row["confirmed"] and row["mean_diff"] < 0 and row["confirm_mean_diff"] < 0


def test_an_emotion_whose_own_pairs_fall_is_not_confirmed() -> None:
    pooled, design = make(n_domains=12)
    config = SearchConfig(n_permutations=500, n_retained=5)
    parts = split_clusters(design.clusters, design.emotions, config.confirmation_share, 0)
    confirm = design.rows(parts, "confirmation")
    # In confirmation rage's own pairs fall a little, and the others' far more.
    own = np.array([design.emotions[r] == "rage" for r in confirm])
    pooled[design.neutral[confirm], 1] = np.where(own, 6.0, 12.0)
    pooled[design.clinical[confirm], 1] = np.arange(len(confirm)) / 100 + np.where(own, 5.0, 1.0)
    table = search_activations(pooled, design, config).table
    row = table.query("contrast == 'rage' and feature == 1").iloc[0]
    assert row["retained"] and row["confirm_p_holm"] <= 0.05 and row["confirm_specificity"] > 0
    assert row["confirm_mean_diff"] < 0 and not row["confirmed"]


def test_table_and_counts_agree(found: SearchResult) -> None:
    table, summary = found.table, found.summary
    assert list(table.columns) == list(FEATURE_COLUMNS)
    assert summary.n_features == 40 and summary.n_filtered == 1 and summary.n_tested == 39
    assert 20 not in set(table["feature"])
    assert len(table) == summary.n_tests_family == 39 * 4
    assert found.contrasts == ("all", *EMOTIONS)
    for name in found.contrasts:
        rows = table[table["contrast"] == name]
        assert rows["rank"].tolist() == list(range(1, 40))
        assert summary.n_retained[name] == rows["retained"].sum() <= 5
        assert summary.n_confirmed[name] == rows["confirmed"].sum()
    kept = table["retained"]
    assert table["confirm_p"].notna().equals(kept) and table["confirm_p_holm"].notna().equals(kept)
    assert not (table["confirmed"] & ~kept).any()
    np.testing.assert_allclose(table["q"], stats.bh(table["p"]))
    assert (table["p_fwer"] >= table["p"]).all()
    for of, over in (("p_fwer", "p_family"), ("confirm_p_holm", "confirm_p_family")):
        np.testing.assert_allclose(table[over], np.minimum(4 * table[of], 1))
    for name in found.contrasts:
        own = table[table["contrast"] == name]
        rising = (own["specificity"] > 0) & (own["mean_diff"] > 0) | (name == "all")
        significant = rising & (own["p_family"] <= 0.01)
        assert summary.n_significant_family[name] == significant.sum()
        held = own["confirmed"] & (own["confirm_p_family"] <= 0.01)
        assert summary.n_confirmed_family[name] == held.sum()
    assert summary.n_confirmed_family["all"] >= 1
    emotion = table[(table["contrast"] != "all") & table["retained"]]
    assert ((emotion["specificity"] > 0) & (emotion["mean_diff"] > 0)).all()
    assert summary.lexical_warning == "words!"


def test_confirmation_never_sees_discovery(found: SearchResult) -> None:
    pooled, design = make(n_domains=12)
    config = SearchConfig(n_permutations=2000, n_retained=5, alpha=0.01)
    confirm = design.rows(found.parts, "confirmation")
    changed = pooled.copy()
    changed[design.clinical[confirm]] = 7.0
    other = search_activations(changed, design, config)
    columns = [c for c in FEATURE_COLUMNS if not c.startswith(("confirm", "firing"))]
    assert {"auroc", "presence_p", "wilcoxon_p", "icc", "q_by"} <= set(columns)
    pd.testing.assert_frame_equal(found.table[columns], other.table[columns])
    assert not set(found.pooled.query("part == 'discovery'")["cluster"]) & set(
        found.pooled.query("part == 'confirmation'")["cluster"]
    )


def test_swapping_all_members_flips_every_sign() -> None:
    pooled, design = make()
    swapped = PairDesign(
        design.neutral,
        design.clinical,
        design.pair_ids,
        design.emotions,
        design.clusters,
        design.order,
    )
    config = SearchConfig(n_permutations=500)
    one, two = (search_activations(pooled, d, config).table for d in (design, swapped))
    key = ["contrast", "feature"]
    one, two = one.set_index(key).sort_index(), two.set_index(key).sort_index()
    for column in ("mean_diff", "d_z", "specificity", "confirm_mean_diff", "confirm_specificity"):
        np.testing.assert_allclose(one[column], -two[column], atol=1e-12)
    for column in ("auroc_paired", "auroc"):
        np.testing.assert_allclose(one[column], 1 - two[column], atol=1e-12)
    for column in ("p", "p_fwer", "q", "q_by", "presence_p", "wilcoxon_p"):
        np.testing.assert_array_equal(one[column], two[column])


def test_equal_inputs_give_equal_tables() -> None:
    pooled, design = make()
    config = SearchConfig(n_permutations=300, seed=5)
    one, two = (search_activations(pooled, design, config) for _ in range(2))
    pd.testing.assert_frame_equal(one.table, two.table)
    assert one.summary == two.summary


@pytest.mark.parametrize("unit", ["pair", "cluster"])
def test_units_set_the_smallest_p(unit: str) -> None:
    pooled, design = make(n_domains=3, n_per=2)
    config = SearchConfig(unit=unit, unit_emotion=unit)  # type: ignore[arg-type]
    found = search_activations(pooled, design, config)
    # Discovery: 2 of 3 domains, so 6 clusters with 12 pairs; an emotion has 2 clusters, 4 pairs.
    n, own = (6, 2) if unit == "cluster" else (12, 4)
    assert found.summary.min_p["all"] == pytest.approx(2.0 ** (1 - n))
    assert found.summary.min_p["rage"] == stats.min_attainable_p(n, 10_000, own)
    assert (found.table["p"] >= found.table["contrast"].map(found.summary.min_p) - 1e-12).all()


def test_retained_are_no_more_than_confirmation_can_bear() -> None:
    pooled, design = make(n_domains=6, n_per=2)
    config = SearchConfig(n_permutations=500, n_retained=20)
    found = search_activations(pooled, design, config)
    # 6 confirmation clusters: smallest p 1/32, so one test at .05.
    assert found.summary.n_retained["all"] == 1
    # 2 of 6 clusters are own: C(6, 2) = 15 choices, so not even one test at .05.
    assert {found.summary.n_retained[e] for e in EMOTIONS} == {1}
    # 4 of 12 confirmation pairs are own: C(12, 4) = 495 choices, so 24 tests, half of it 12.
    by_pair = config.model_copy(update={"unit_emotion": "pair"})
    over_pairs = search_activations(pooled, design, by_pair)
    assert max(over_pairs.summary.n_retained[e] for e in EMOTIONS) == 12
    assert len(found.pooled["feature"].unique()) > 20


def test_cluster_sign_flip_is_that_of_totals() -> None:
    pooled, design = make(n_per=2)
    found = search_activations(pooled, design, SearchConfig())
    rows = design.rows(found.parts, "discovery")
    d = stats.paired_differences(pooled[design.clinical], pooled[design.neutral])[rows]
    want = stats.sign_flip(stats.cluster_totals(d, [design.clusters[i] for i in rows]))
    table = found.table.query("contrast == 'all'").set_index("feature")["p"]
    np.testing.assert_array_equal(table.to_numpy(), want.p[table.index])


# ---------------------------------------------------------------- degenerate


def test_one_pair_is_tested_and_finds_nothing() -> None:
    pooled = np.abs(np.random.default_rng(0).normal(size=(2, 6)))
    design = PairDesign(np.array([0]), np.array([1]), ("p",), ("rage",), ("rage/1",), ("rage",))
    found = search_activations(pooled, design, SearchConfig(min_items=1))
    assert found.contrasts == ("all",)
    assert (found.table["p"] == 1).all() and found.table["confirm_p"].isna().all()
    assert found.summary.n_confirmed == {"all": 0}
    assert found.summary.min_detectable_d_z == NOT_DETECTABLE
    assert found.summary.n_pairs_confirmation == 0
    assert found.summary.limits() == [
        "all: the smallest p that discovery can give is 1, above the level 0.05; it has too few "
        "clusters",
        "all: the smallest p that confirmation can give is 1, above the level 0.05; it has too few "
        "clusters",
    ]


def test_silent_sae_has_no_test_and_an_empty_table(tmp_path: Path) -> None:
    pooled, design = make()
    found = search_activations(np.zeros_like(pooled), design)
    assert found.summary.n_tested == 0 and len(found.table) == 0
    assert len(found.top("rage", 3)) == 0
    found.write(tmp_path)
    assert len(read_table(tmp_path, "search/features")) == 0


def test_one_emotion_has_no_emotion_contrast() -> None:
    pooled, design = make(emotions=("rage",), n_domains=6)
    found = search_activations(pooled, design, SearchConfig(n_permutations=200))
    assert found.contrasts == ("all",)
    with pytest.raises(ConfigError, match="'rage'"):
        found.top("rage", 1)


def test_nan_is_refused() -> None:
    pooled, design = make()
    pooled[0, 0] = np.nan
    with pytest.raises(stats.StatisticsError, match="NaN"):
        search_activations(pooled, design)
    with pytest.raises(stats.StatisticsError, match="n_items, d_sae"):
        search_activations(pooled[0], design)


def test_confirmation_share_zero_confirms_nothing() -> None:
    pooled, design = make()
    found = search_activations(
        pooled, design, SearchConfig(n_permutations=200, confirmation_share=0.0, n_retained=3)
    )
    assert found.table["confirm_mean_diff"].isna().all()
    assert sum(found.summary.n_confirmed.values()) == 0
    assert found.summary.n_retained["all"] == 3


# ---------------------------------------------------------------- results


def test_top_names_the_nearest_contrast(found: SearchResult) -> None:
    with pytest.raises(ConfigError, match="did you mean 'grief'"):
        found.top("greif", 3)
    with pytest.raises(ConfigError, match="n=0"):
        found.top("grief", 0)


def test_top_carries_the_split(found: SearchResult) -> None:
    chosen = found.top("grief", 2)
    assert chosen.emotion == "grief" and chosen.parts == found.parts
    assert "discovery score" in chosen.chosen_by


def test_files_come_back_as_written(found: SearchResult, tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "contexts.jsonl").write_text("{}\n")
    found.write(tmp_path)
    pd.testing.assert_frame_equal(
        read_table(tmp_path, "search/features"), found.table, check_dtype=False
    )
    for name in ("specificity", "pooled"):
        assert len(read_table(tmp_path, f"search/{name}")) == len(getattr(found, name)) > 0
    assert SearchSummary.read(tmp_path) == found.summary
    with pytest.raises(Exception, match="does not exist"):
        read_contexts(tmp_path)


def test_specificity_is_the_mean_over_own_pairs(found: SearchResult) -> None:
    pooled, design = make(n_domains=12)
    d = pooled[design.clinical].astype(float) - pooled[design.neutral]
    rows = design.rows(found.parts, "confirmation")
    own = [i for i in rows if design.emotions[i] == "terror"]
    got = found.specificity.query(
        "feature == 2 and selected_for == 'grief' and emotion == 'terror'"
        " and part == 'confirmation'"
    )
    assert got["mean_diff"].item() == pytest.approx(d[own, 2].mean())
    assert got["n_pairs"].item() == len(own)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"poling": "mean"}, "did you mean 'pooling'"),
        ({"pooling": "sum"}, "pooling"),
        ({"alpha": 1.5}, "alpha"),
        ({"suffix": "  "}, "suffix"),
        ({"n_permutations": 10}, "n_permutations"),
    ],
)
def test_config_refuses(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchConfig.parse(values)


def test_config_is_small_and_described() -> None:
    fields = SearchConfig.model_fields
    assert len(fields) <= 15
    assert all(f.description for f in fields.values())
