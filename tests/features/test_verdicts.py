"""Verdicts: the predicted side, the unit of inference and the rule for beating random sets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from affectlens.features.verdicts import Comparison, verdict_table


def _comparison(shift: float, seed: int, intervention: str = "clamp") -> Comparison:
    rng = np.random.default_rng(seed)
    clusters = tuple(f"c{i // 2}" for i in range(16))
    return Comparison(
        f"emotion{seed}",
        intervention,
        shift + rng.normal(0, 0.1, 16),
        rng.normal(0, 0.1, (19, 16)),
        clusters,
    )


def _table(comparisons: list[Comparison]) -> pd.DataFrame:
    return verdict_table(
        comparisons,
        alpha=0.05,
        n_permutations=1000,
        n_bootstrap=200,
        seed=0,
    )


def test_a_real_effect_beats_random_and_a_null_one_does_not() -> None:
    table = _table([_comparison(2.0, 1), _comparison(0.0, 2)])
    assert table["beats_random"].tolist() == [True, False]
    assert table["p"].iloc[0] == 1 / 256
    assert table["rank_p"].iloc[0] == 1 / 20
    assert table["advantage_low"].iloc[0] > 1.5


def test_the_predicted_side_follows_the_intervention() -> None:
    down = [_comparison(-2.0, 1, name) for name in ("ablate_zero", "clamp")]
    table = _table(down)
    assert table["direction"].tolist() == ["lower", "raise"]
    assert table["beats_random"].tolist() == [True, False]


def test_one_cluster_cannot_win() -> None:
    base = _comparison(5.0, 1)
    one = Comparison("grief", "ablate_zero", -base.chosen, base.random, ("only",) * 16)
    table = _table([one])
    assert table["p"].iloc[0] == 0.5
    assert not table["beats_random"].iloc[0]
