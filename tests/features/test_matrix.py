"""The emotion x latent matrix: against the label test, and its family-wise error on nulls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from affectlens.features import stats
from affectlens.features.design import PairDesign, Part
from affectlens.features.matrix import (
    Measured,
    emotion_matrix,
    own_against_others,
    specific_table,
)
from affectlens.features.validation_config import ValidityConfig
from affectlens.features.validity_columns import MATRIX_COLUMNS, OTHERS_COLUMNS

EMOTIONS = ("rage", "grief", "terror", "ecstasy")


def design(n_clusters: int = 4, n_pairs: int = 3) -> PairDesign:
    cells = [(e, c, p) for e in EMOTIONS for c in range(n_clusters) for p in range(n_pairs)]
    n = len(cells)
    return PairDesign(
        np.arange(n),
        np.arange(n, 2 * n),
        tuple(f"{e}-{c}-{p}" for e, c, p in cells),
        tuple(e for e, _, _ in cells),
        tuple(f"{e}/{c}" for e, c, _ in cells),
        EMOTIONS,
    )


def measured(d: np.ndarray, n_permutations: int = 2000, seed: int = 0, **kw: int) -> Measured:
    made = design(**kw)
    parts: dict[str, Part] = {
        c: "confirmation" if c.endswith(("/0", "/1")) else "discovery" for c in made.clusters
    }
    features = tuple(range(100, 100 + d.shape[1]))
    config = ValidityConfig(n_permutations=n_permutations, seed=seed)
    return Measured(d, features, made, parts, "pair", config)


def test_cells_are_the_paired_differences_and_the_label_test() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(size=(48, 3))
    d[:12, 0] += 4  # rage
    m = measured(d, n_permutations=20_000)
    table = emotion_matrix(m, {"rage": [100, 102]})
    assert list(table.columns) == list(MATRIX_COLUMNS) and len(table) == 2 * 2 * 4
    rows = m.design.rows(m.parts, "confirmation")
    reference = stats.label_permutation(
        d[rows], [m.design.emotions[r] for r in rows], EMOTIONS, 20_000
    )
    for row in table[table.part == "confirmation"].itertuples():
        own = d[[r for r in rows if m.design.emotions[r] == row.emotion], row.feature - 100]
        assert row.mean_diff == pytest.approx(own.mean()) and row.n_pairs == row.n_units == 6
        assert row.d_z == pytest.approx(stats.d_z(own))
        expected = reference.p[EMOTIONS.index(row.emotion), row.feature - 100]
        assert row.p == pytest.approx(expected, abs=0.02)
        assert row.p_fwer >= row.p
        assert (row.low > 0 or row.high < 0) == (stats.sign_flip(own).p[0] <= 0.05)
    best = table[(table.part == "confirmation") & (table.feature == 100)].set_index("emotion")
    assert best.p_fwer["rage"] < 0.01


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (3, 2, 2, 1), (3, 3)])
def test_the_smallest_p_is_reached_and_not_undercut(sizes: tuple[int, ...]) -> None:
    n = sum(sizes)
    emotions = tuple(e for e, k in zip(EMOTIONS, sizes, strict=False) for _ in range(k))
    names = EMOTIONS[: len(sizes)]
    clusters = tuple(f"{e}/{i}" for i, e in enumerate(emotions))
    rows = np.arange(n)
    made = PairDesign(rows, rows + n, clusters, emotions, clusters, names)
    parts: dict[str, Part] = dict.fromkeys(clusters, "confirmation")
    config = ValidityConfig(n_permutations=4000)
    for emotion, k in zip(names, sizes, strict=True):
        # As large as can be: own units far above all others, which are near and all different.
        d = (np.array(emotions) == emotion) * 100.0 + rows / 100
        table = emotion_matrix(
            Measured(d[:, None], (7,), made, parts, "cluster", config), {emotion: [7]}
        )
        row = table[table.emotion == emotion].iloc[0]
        assert row.min_p == pytest.approx(sizes.count(k) / math.comb(n, k))
        assert row.p_fwer == pytest.approx(row.min_p, abs=4 * np.sqrt(row.min_p / 4000))


def test_one_emotion_has_no_smallest_p() -> None:
    m = measured(np.random.default_rng(5).normal(size=(48, 1)))
    same = replace(m.design, emotions=("rage",) * 48, order=("rage",))
    table = emotion_matrix(replace(m, design=same), {"all": [100]})
    assert len(table) == 2 and table[["p_fwer", "min_p"]].isna().all(axis=None)


def test_family_wise_error_over_the_whole_matrix() -> None:
    rng = np.random.default_rng(1)
    n, wrong = 150, 0
    for seed in range(n):
        # Zero-inflated and skewed, as pooled latents are.
        d = np.where(rng.random((48, 6)) < 0.4, rng.exponential(size=(48, 6)), 0.0)
        table = emotion_matrix(measured(d, 200, seed), {"rage": [100, 101, 102, 103, 104, 105]})
        wrong += int((table[table.part == "discovery"].p_fwer <= 0.05).any())
    assert scipy_stats.binomtest(wrong, n, 0.05, "greater").pvalue > 0.01


def test_own_against_others_needs_every_other() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(0, 0.2, size=(48, 3))
    d[:12, :2] += 2
    d[12:24, 1] += 2  # grief as much as rage
    d[36:, 0] += 1.2  # ecstasy somewhat
    d[24:36, 2] += 2  # terror, though it was selected for rage
    m = measured(d)
    others = own_against_others(m, {"rage": [100, 101, 102]})
    assert list(others.columns) == list(OTHERS_COLUMNS) and len(others) == 2 * 3 * 3
    assert others.level.unique() == pytest.approx(1 - 0.05 / 3)
    found = specific_table(others, 2000)
    found = found[found.part == "confirmation"].set_index("feature")
    assert found.verdict.to_dict() == {100: "holds", 101: "unknown", 102: "fails"}
    assert found.closest[100] == "ecstasy" and found.n_below[101] == 2


def test_the_level_falls_with_the_number_of_latents() -> None:
    d = np.random.default_rng(3).normal(size=(48, 10))
    others = own_against_others(measured(d), {"rage": list(range(100, 110))})
    assert others.level.unique() == pytest.approx(1 - 2 * 0.05 / 10)


def test_clusters_as_units_are_too_few_and_say_so() -> None:
    d = np.random.default_rng(4).normal(size=(48, 1))
    m = replace(measured(d), unit="cluster")
    found = specific_table(own_against_others(m, {"rage": [100]}), 2000)
    assert set(found.verdict) == {"unknown"}
    assert found.note.str.contains("smallest attainable p is 0.33").all()
    table = emotion_matrix(m, {"rage": [100]})
    assert (table.n_units == 2).all() and np.isinf(table.low).all()


def test_degenerate_latents_and_selections() -> None:
    d = np.zeros((48, 1))
    table = emotion_matrix(measured(d), {"rage": [100], "grief": []})
    assert (table.p == 1).all() and (table.p_fwer == 1).all() and table.d_z.isna().all()
    assert len(own_against_others(measured(d), {"grief": []})) == 0
    made = measured(np.ones((48, 1)))
    one = replace(made, parts=dict.fromkeys(made.design.clusters, "discovery"))
    assert set(emotion_matrix(one, {"rage": [100]}).part) == {"discovery"}
    with pytest.raises(stats.StatisticsError, match="NaN"):
        emotion_matrix(measured(np.full((48, 1), np.nan)), {"rage": [100]})


def test_a_single_emotion_has_nothing_to_compare() -> None:
    made = measured(np.random.default_rng(5).normal(size=(48, 1)))
    alone = replace(
        made,
        design=replace(made.design, emotions=("rage",) * 48, order=("rage",)),
    )
    table = emotion_matrix(alone, {"all": [100]})
    assert table.p.isna().all() and table.p_fwer.isna().all() and table.low.notna().all()
    assert len(own_against_others(alone, {"rage": [100]})) == 0
