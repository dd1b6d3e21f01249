"""Valence, arousal and the categories of other schemes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as sp

from affectlens.data.taxonomy import EMOTIONS, TAXONOMY
from affectlens.features import stats
from affectlens.features.design import PairDesign, Part
from affectlens.features.matrix import Measured, Units
from affectlens.features.rollups import (
    category,
    dimension_table,
    over_families,
    regress_dimensions,
    rollup_table,
)
from affectlens.features.validation_config import ValidityConfig
from affectlens.features.validity_columns import DIMENSION_COLUMNS, ROLLUP_COLUMNS


def units(values: np.ndarray, n: int) -> Units:
    emotions = tuple(e for e in EMOTIONS for _ in range(n))
    clusters = tuple(f"{e}/{i // 2}" for e in EMOTIONS for i in range(n))
    return Units(values.reshape(len(emotions), -1), emotions, clusters)


def valence(n: int) -> np.ndarray:
    return np.repeat([TAXONOMY[e].valence for e in EMOTIONS], n).astype(float)


def arousal(n: int) -> np.ndarray:
    return np.repeat([TAXONOMY[e].arousal for e in EMOTIONS], n).astype(float)


def test_slopes_equal_least_squares_and_a_planted_valence_is_found() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(64, 2))
    y = noise + np.stack([2 * valence(8), 0 * valence(8)], axis=1)
    found = regress_dimensions(units(y, 8), n_permutations=500)
    assert found is not None and found.n == 64
    x = np.stack([np.ones(64), valence(8), arousal(8)], axis=1)
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(found.estimate, expected[1:], rtol=1e-9)
    assert found.p[0, 0] == pytest.approx(1 / 501) and found.p_emotions[0, 0] < 0.01
    assert found.low[0, 0] < 2 < found.high[0, 0]
    assert found.p[0, 1] > 0.05 and found.share[0] > 0.9 > found.share[1]
    assert found.correlation == pytest.approx(np.corrcoef(x[:, 1], x[:, 2])[0, 1])


def test_robust_errors_equal_a_loop_over_clusters() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=(32, 1))
    made = units(y, 4)
    found = regress_dimensions(made, n_permutations=100)
    assert found is not None
    x = np.stack([np.ones(32), valence(4), arousal(4)], axis=1)
    bread = np.linalg.inv(x.T @ x)
    e = (y - x @ (bread @ x.T @ y))[:, 0]
    meat = np.zeros((3, 3))
    for c in set(made.clusters):
        rows = [i for i, name in enumerate(made.clusters) if name == c]
        s = x[rows].T @ e[rows]
        meat += np.outer(s, s)
    k, n = 16, 32
    v = bread @ meat @ bread * k / (k - 1) * (n - 1) / (n - 3)
    from scipy import stats as scipy_stats

    half = scipy_stats.t.ppf(0.975, k - 1) * np.sqrt(np.diag(v))[1:]
    np.testing.assert_allclose(found.high[:, 0] - found.estimate[:, 0], half, rtol=1e-9)


def test_one_emotion_alone_moves_p_but_not_p_emotions() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(0, 0.3, size=(64, 1))
    y[[e == "ecstasy" for e in units(y, 8).emotions]] += 3
    found = regress_dimensions(units(y, 8), n_permutations=500)
    assert found is not None
    # Ecstasy is pleasant: its valence slope is 'significant', though one emotion makes it.
    assert found.p[0, 0] < 0.01 and found.p_emotions[0, 0] > 0.05


def test_what_cannot_be_told_apart_is_not_regressed() -> None:
    few = Units(np.ones((3, 1)), ("rage", "grief", "ecstasy"), ("a", "b", "c"))
    assert regress_dimensions(few) is None
    same = Units(np.ones((6, 1)), ("rage",) * 3 + ("terror",) * 3, tuple("abcdef"))
    assert regress_dimensions(same) is None
    foreign = Units(np.ones((6, 1)), ("positive",) * 6, tuple("abcdef"))
    assert regress_dimensions(foreign) is None
    flat = regress_dimensions(units(np.ones((32, 1)), 4), n_permutations=100)
    assert flat is not None and (flat.p == 1).all() and np.isnan(flat.share).all()
    with pytest.raises(stats.StatisticsError, match="NaN"):
        regress_dimensions(units(np.full((32, 1), np.nan), 4))


def test_categories_of_the_schemes() -> None:
    ekman = [category(e, "ekman") for e in EMOTIONS]
    assert ekman.count(None) == 2 and category("terror", "ekman") == "fear"
    assert category("loathing", "parrott") == category("rage", "parrott") == "anger"
    assert category("vigilance", "parrott") is None
    with pytest.raises(stats.StatisticsError, match="ekman, parrott"):
        category("rage", "plutchik")


def measured(d: np.ndarray, n: int) -> Measured:
    made = units(d, n)
    rows = np.arange(len(d))
    ids = tuple(str(i) for i in rows)
    design = PairDesign(rows, rows + len(d), ids, made.emotions, made.clusters, EMOTIONS)
    parts: dict[str, Part] = dict.fromkeys(made.clusters, "confirmation")
    config = ValidityConfig(n_permutations=300)
    return Measured(d, tuple(range(d.shape[1])), design, parts, "pair", config)


def test_rollups_count_what_has_no_counterpart() -> None:
    rng = np.random.default_rng(3)
    d = rng.normal(0, 0.5, size=(32, 2))
    d[[e in ("rage", "loathing") for e in units(d, 4).emotions], 0] += 2
    m = measured(d, 4)
    table = rollup_table(m, {"all": [0, 1], "grief": []})
    assert list(table.columns) == list(ROLLUP_COLUMNS)
    assert (table.n_left_out == 8).all() and (table.n_own + table.n_rest == 24).all()
    row = table[(table.scheme == "parrott") & (table.category == "anger") & (table.feature == 0)]
    assert row.emotions.item() == "rage,loathing" and row.n_own.item() == 8
    assert row.p_fwer.item() < 0.02 and row.specificity.item() == pytest.approx(2, abs=0.5)
    dims = dimension_table(m, {"all": [1], "grief": []})
    assert list(dims.columns) == list(DIMENSION_COLUMNS) and len(dims) == 2
    assert set(dims.part) == {"confirmation"}


def test_p_over_families_is_holm_and_counts_a_family_until_it_is_through() -> None:
    p = np.random.default_rng(0).random(9) ** 3
    np.testing.assert_allclose(over_families(p, [str(i) for i in range(9)]), stats.holm(p))
    np.testing.assert_allclose(over_families(p, ["one"] * 9), p)
    # By hand: both families are open until the second row of 'a', then only 'b' is.
    found = over_families(np.array([0.01, 0.03, 0.02, 0.04]), ["a", "a", "b", "b"])
    np.testing.assert_allclose(found, [0.02, 0.06, 0.04, 0.06])


def test_roll_ups_keep_their_level_over_all_contrasts_and_categories() -> None:
    wrong, n = 0, 60
    for seed in range(n):
        d = np.random.default_rng([seed, 9]).normal(size=(32, 3))
        m = measured(d, 4)
        m = replace(m, config=m.config.model_copy(update={"seed": seed}))
        table = rollup_table(m, {"all": [0, 1], "grief": [2], "rage": [1, 2]})
        assert (table.p_holm >= table.p_fwer).all()
        wrong += bool((table.p_holm <= 0.05).any())
    assert sp.binomtest(wrong, n, 0.05, "greater").pvalue > 0.01


def test_a_battery_of_valences_has_no_rows() -> None:
    m = measured(np.ones((32, 1)), 4)
    design = replace(m.design, emotions=("positive",) * 32, order=("positive",))
    m = replace(m, design=design)
    assert len(rollup_table(m, {"all": [0]})) == len(dimension_table(m, {"all": [0]})) == 0
