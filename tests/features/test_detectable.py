"""The smallest detectable effect of each contrast, in standard deviations of pair differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.detectable import NOT_DETECTABLE, mean_icc
from affectlens.features.results import SearchSummary
from affectlens.features.search import search_activations

from .test_search import EMOTIONS, make


def summary(unit: str = "cluster", n_domains: int = 12, n_per: int = 4) -> SearchSummary:
    pooled, design = make(n_domains=n_domains, n_per=n_per)
    config = SearchConfig(n_permutations=200, unit=unit, unit_emotion=unit)  # type: ignore[arg-type]
    return search_activations(pooled, design, config).summary


def test_clusters_count_by_their_correlation() -> None:
    found = summary()
    # Of 12 domains 8 are for discovery, with 4 pairs each.
    assert found.icc is not None
    m = found.n_tests_family
    want = stats.detectable_with_clusters(96, 24, found.icc, m)
    assert found.min_detectable["all"] == found.min_detectable_d_z == pytest.approx(want)
    share = float(stats.design_effect(found.icc, [4])) / 4
    own = stats.min_detectable_between(8, 16, m) * np.sqrt(share)
    assert [found.min_detectable[e] for e in EMOTIONS] == pytest.approx([own] * 3)
    assert own > want


def test_pairs_count_as_independent() -> None:
    found = summary("pair")
    m = found.n_tests_family
    assert found.min_detectable["all"] == pytest.approx(stats.min_detectable_d_z(96, m))
    want = stats.min_detectable_between(32, 64, m)
    assert found.min_detectable["rage"] == pytest.approx(want)


def test_without_a_tested_latent_nothing_is_detectable() -> None:
    pooled, design = make(n_domains=6)
    config = SearchConfig(n_permutations=100, min_items=10_000)
    found = search_activations(pooled, design, config).summary
    assert found.n_tested == 0 and set(found.min_detectable.values()) == {NOT_DETECTABLE}


def test_the_correlation_is_the_mean_over_latents() -> None:
    pooled, design = make(n_domains=12)
    found = search_activations(pooled, design, SearchConfig(n_permutations=200))
    values = found.table.query("contrast == 'all'")["icc"]
    assert found.summary.icc == pytest.approx(values.mean())
    assert mean_icc([np.nan, 0.25, 0.75]) == 0.5 and mean_icc([np.nan]) is None


def test_single_pairs_as_clusters_have_no_correlation() -> None:
    found = summary(n_per=1)
    assert found.icc is None
    assert found.min_detectable["all"] == pytest.approx(
        stats.min_detectable_d_z(24, found.n_tests_family)
    )


def test_too_few_clusters_find_no_effect_and_say_so() -> None:
    # Of 3 domains 2 are for discovery: 2 of 6 clusters are own, 15 choices.
    found = summary(n_domains=3)
    assert found.min_p["rage"] == pytest.approx(1 / 15)
    assert found.min_detectable["rage"] == NOT_DETECTABLE > found.min_detectable["all"]
    lines = found.limits()
    assert sum("discovery" in line for line in lines) == 3
    assert any(line.startswith("rage: ") and "0.067" in line for line in lines)
    # One of 3 clusters is own in confirmation; over all emotions they are 3.
    assert found.confirm_min_p == pytest.approx({"all": 0.25, **dict.fromkeys(EMOTIONS, 1 / 3)})
    assert sum("confirmation" in line for line in lines) == 4
    assert replace(found, alpha=0.5).limits() == []
