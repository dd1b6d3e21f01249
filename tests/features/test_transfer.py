"""Keyword transfer: intervals of the AUROC, choice of latents, and both directions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy import stats as scipy_stats

from affectlens.data.stimuli import Battery, load_battery
from affectlens.features.config import EmotionUnit, SearchConfig
from affectlens.features.design import PairDesign, split_clusters
from affectlens.features.pooling import Pooled
from affectlens.features.transfer import (
    Transfer,
    auroc_interval,
    keyword_transfer,
    strongest,
)
from affectlens.features.validation_config import ValidityConfig

WORD, SCENE, BOTH = 0, 1, 2


@pytest.fixture(scope="module")
def battery() -> Battery:
    return load_battery("affectlens-vignettes")


def run(
    battery: Battery,
    part: str = "confirmation",
    unit: EmotionUnit = "pair",
    top: int = 4,
    **selected: list[int],
) -> Transfer:
    rng = np.random.default_rng(0)
    z = np.maximum(rng.normal(0, 0.3, size=(len(battery.items), 12)), 0)
    for i, item in enumerate(battery.items):
        rich = item.split == "keyword_rich" and item.emotion == "grief"
        scene = item.split == "clinical" and item.emotion == "grief"
        z[i, [WORD, SCENE, BOTH]] += 2 * np.array([rich, scene, rich or scene])
    ids = tuple(i.id for i in battery.items)
    pooled = Pooled(
        scipy.sparse.csc_array(z.astype(np.float32)), ids, "suffix", (), np.ones(len(ids), int), 0
    )
    design = PairDesign.from_battery(battery, ids)
    return keyword_transfer(
        pooled,
        battery,
        design,
        split_clusters(design.clusters, design.emotions, 0.34, 0),
        selected,
        SearchConfig(n_permutations=1000, unit_emotion=unit),
        ValidityConfig(n_permutations=1000, top=top, part=part),
    )


def test_words_and_scenes_are_told_apart(battery: Battery) -> None:
    found = run(battery, grief=[WORD, SCENE, BOTH])
    t = found.table.set_index(["direction", "feature"])
    forth = t.loc["to_keywords"]
    assert forth.transfers.to_dict() == {WORD: True, SCENE: False, BOTH: True}
    assert (forth.n_own == 10).all() and (forth.n_other == 70).all()
    back = t.loc["from_keywords"]
    assert list(back.index[:2]) in ([WORD, BOTH], [BOTH, WORD])
    assert back.transfers[BOTH] and not back.transfers[WORD]
    assert (back.n_own == 8).all() and (back.n_other == 56).all()
    s = found.summary.set_index("direction")
    assert s.n_transfer["to_keywords"] == 2 and s.n_transfer["from_keywords"] == 1
    assert (s.min_p < 0.002).all() and (s.note == "").all()


def test_by_clusters_as_many_are_tested_as_can_pass(battery: Battery) -> None:
    found = run(battery, unit="cluster", top=10, grief=[BOTH])
    back = found.table.query("direction == 'from_keywords'")
    s = found.summary.set_index("direction").loc["from_keywords"]
    # Two of 16 clusters are own: the smallest p is 1/120, which bears three tests.
    assert s.min_p == pytest.approx(1 / 120) and s.n_features == len(back) == 3
    assert back.p_holm.min() == pytest.approx(3 / 120)
    assert back.set_index("feature").transfers[BOTH] and s.n_transfer == 1
    # The interval counts clusters, not pairs.
    row = back.set_index("feature").loc[BOTH]
    assert (row.low, row.high) == auroc_interval(row.auroc, 2, 14, 0.05)
    narrow = run(battery, grief=[BOTH]).table.query("direction == 'from_keywords'")
    assert row.low < narrow.set_index("feature").low[BOTH]


def test_all_pairs_may_be_asked_for(battery: Battery) -> None:
    back = run(battery, "both", grief=[BOTH]).table.query("direction == 'from_keywords'")
    assert (back.n_own == 24).all()


def test_nothing_selected_is_said(battery: Battery) -> None:
    s = run(battery, grief=[]).summary.set_index("direction")
    assert s.n_features["to_keywords"] == 0 and "no latent" in s.note["to_keywords"]
    assert np.isnan(s.mean_auroc["to_keywords"])


def test_without_keyword_texts_nothing_is_tested(battery: Battery) -> None:
    found = run(battery, joy=[0])
    assert len(found.table) == 0 and (found.summary.min_p == 1).all()
    assert found.summary.note.str.contains("are needed").all()


def test_strongest_is_blind_to_rare_latents_and_takes_only_rising_ones() -> None:
    own = np.array([True] * 5 + [False] * 10)
    z = np.zeros((15, 4))
    z[:5, 0], z[5:, 1], z[:2, 2] = 1, 1, 9
    z[:, 3] = 1
    sparse = scipy.sparse.csc_array(z.astype(np.float32))
    assert strongest(sparse, own, 10, 4) == [0]
    assert strongest(sparse, own, 10, 1) == [0, 2]
    assert strongest(sparse, own, 10, 16) == []


def test_auroc_intervals_solve_their_equation() -> None:
    for auroc, m, n in ((0.8, 10, 70), (0.5, 4, 4), (0.03, 12, 20)):
        for theta in auroc_interval(auroc, m, n, 0.05):
            shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
            v = theta * (1 - theta) / (m * n) * (1 + ((m + n) / 2 - 1) * shape)
            assert abs(auroc - theta) == pytest.approx(1.959964 * np.sqrt(v), abs=1e-6)
    low, high = auroc_interval(1.0, 10, 70, 0.05)
    assert 0.7 < low < 1 and high == 1
    assert auroc_interval(0.0, 10, 70, 0.05) == pytest.approx((0, 1 - low))
    assert auroc_interval(1.0, 1, 1, 0.05)[0] < 0.25


def test_auroc_intervals_cover() -> None:
    rng = np.random.default_rng(1)
    true = scipy_stats.norm.cdf(1 / np.sqrt(2))
    hits, n = 0, 400
    for _ in range(n):
        x, y = rng.normal(1, 1, 10), rng.normal(size=30)
        a = scipy_stats.mannwhitneyu(x, y).statistic / 300
        low, high = auroc_interval(float(a), 10, 30, 0.05)
        hits += low <= true <= high
    assert hits / n > 0.92
