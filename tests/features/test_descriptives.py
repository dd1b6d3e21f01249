"""Side statistics of the feature table are their definitions, on the pairs that they name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from affectlens.features import descriptives, stats
from affectlens.features.columns import FEATURE_COLUMNS
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.search import SearchResult, search_activations

from .test_search import EMOTIONS, make

CONFIG = SearchConfig(n_permutations=300, n_retained=5)


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, PairDesign, SearchResult]:
    pooled, design = make(n_domains=12, n_per=2)
    return pooled, design, search_activations(pooled, design, CONFIG)


def own(
    made: tuple[np.ndarray, PairDesign, SearchResult], name: str, part: str
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, list[str]]:
    """Rows of a contrast in the order of latents, members of its pairs, and their clusters."""
    pooled, design, found = made
    rows = found.table[found.table["contrast"] == name]
    if part == "confirmation":
        rows = rows[rows["retained"]]
    table = rows.sort_values("feature").set_index("feature")
    inside = design.rows(found.parts, part)  # type: ignore[arg-type]
    pairs = [i for i in inside if name in ("all", design.emotions[i])]
    x, y = (
        pooled[np.ix_(side[pairs], table.index)].astype(float)
        for side in (design.clinical, design.neutral)
    )
    return table, x, y, [design.clusters[i] for i in pairs]


@pytest.mark.parametrize("name", ["all", *EMOTIONS])
@pytest.mark.parametrize("part", ["discovery", "confirmation"])
def test_columns_are_the_definitions(
    made: tuple[np.ndarray, PairDesign, SearchResult], name: str, part: str
) -> None:
    table, x, y, clusters = own(made, name, part)
    fires, strength = stats.presence(x, y), stats.magnitude(x, y)
    want = {
        "auroc": stats.auroc(x, y),
        "presence_diff": fires.difference,
        "presence_p": fires.p,
        "magnitude_diff": strength.mean,
        "magnitude_n": strength.n,
        "wilcoxon_p": stats.wilcoxon(x - y).p,
    }
    prefix = "confirm_" if part == "confirmation" else ""
    if part == "discovery":
        want |= {
            "mean_clinical": x.mean(axis=0),
            "mean_neutral": y.mean(axis=0),
            "icc": stats.icc(x - y, clusters).value,
        }
    assert len(table) > 0
    for column, values in want.items():
        np.testing.assert_allclose(table[prefix + column], values, atol=1e-12, err_msg=column)


@pytest.mark.parametrize("name", ["all", "grief"])
def test_intervals_are_of_the_confirmation_part(
    made: tuple[np.ndarray, PairDesign, SearchResult], name: str
) -> None:
    table, x, y, clusters = own(made, name, "confirmation")
    for column, statistic in (("mean_diff", "mean"), ("d_z", "d_z")):
        want = stats.cluster_intervals(x - y, clusters, statistic, "studentised", 2000, CONFIG.seed)  # type: ignore[arg-type]
        np.testing.assert_allclose(table[f"confirm_{column}_low"], want.low)
        np.testing.assert_allclose(table[f"confirm_{column}_high"], want.high)
        held = table[np.isfinite(table[f"confirm_{column}_low"])]
        assert (held[f"confirm_{column}_low"] <= held[f"confirm_{column}"]).all()
    assert np.isfinite(table["confirm_d_z_low"]).any()


def test_what_was_not_retained_has_no_confirmation_columns(
    made: tuple[np.ndarray, PairDesign, SearchResult],
) -> None:
    table = made[2].table
    rest = table[~table["retained"]]
    empty = [c for c in FEATURE_COLUMNS if c.startswith("confirm_") and rest[c].isna().all()]
    assert len(empty) == 13 and "confirm_d_z" not in empty


def test_q_of_any_dependence_is_over_the_same_family(
    made: tuple[np.ndarray, PairDesign, SearchResult],
) -> None:
    table = made[2].table
    np.testing.assert_allclose(table["q_by"], stats.by(table["p"]))
    assert (table["q_by"] >= table["q"]).all()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled, design = make()
    clinical, neutral = (
        sparse.csc_array(pooled[side].astype(float)) for side in (design.clinical, design.neutral)
    )
    whole = descriptives.describe(clinical, neutral, design.clusters)
    monkeypatch.setattr(descriptives, "_BLOCK", 7)
    parts = descriptives.describe(clinical, neutral, design.clusters)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(parts, name), values, err_msg=name)


def test_two_clusters_bound_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(8, 3))
    few = descriptives.effect_intervals(x, ["a"] * 4 + ["b"] * 4, 0)
    assert all(np.isnan(bounds).all() for bounds in vars(few).values())
    three = descriptives.effect_intervals(x, [*"aaabbbcc"], 0)
    assert not np.isnan(three.d_z_low).any()
