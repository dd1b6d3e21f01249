"""The unit 'hierarchical': pairs are flipped, the t of 'all' is over cluster totals."""

from __future__ import annotations

import numpy as np
import pytest

from affectlens.data.errors import ConfigError
from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.search import search_activations

from .test_search import make

CONFIG = SearchConfig(n_permutations=500, unit="hierarchical")


def test_all_is_tested_by_cluster_flip() -> None:
    pooled, design = make(n_domains=12)
    found = search_activations(pooled, design, CONFIG)
    rows = design.rows(found.parts, "discovery")
    own = found.table[found.table["contrast"] == "all"].set_index("feature").sort_index()
    d = stats.paired_differences(pooled[design.clinical], pooled[design.neutral])
    clusters = [design.clusters[i] for i in rows]
    want = stats.cluster_flip(d[np.ix_(rows, own.index)], clusters, 500, CONFIG.seed)
    np.testing.assert_array_equal(own["p"], want.p)
    np.testing.assert_array_equal(own["p_fwer"], want.p_fwer)
    assert list(found.top("all", 1, confirmed=True)) == [0]


def test_the_smallest_p_counts_pairs_and_power_counts_clusters() -> None:
    pooled, design = make(n_domains=3)
    over_clusters, over_pairs, found = (
        search_activations(pooled, design, CONFIG.model_copy(update={"unit": unit})).summary
        for unit in ("cluster", "pair", "hierarchical")
    )
    assert found.min_p["all"] == over_pairs.min_p["all"] < over_clusters.min_p["all"]
    assert found.min_detectable_d_z == over_clusters.min_detectable_d_z
    assert found.unit == "hierarchical"


def test_emotions_have_no_such_unit() -> None:
    with pytest.raises(ConfigError, match="unit_emotion"):
        SearchConfig.parse({"unit_emotion": "hierarchical"})
