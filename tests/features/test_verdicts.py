"""Verdicts: the predicted side, the unit of inference and the rule for beating random sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from affectlens.features.stats import holm
from affectlens.features.verdicts import Comparison, dose_table, predicted_sign, verdict_table


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


def test_random_sets_are_held_at_their_best_dose() -> None:
    """The reported dose was chosen for the chosen set; a random set that is stronger at another
    dose stays a rival."""
    one = _comparison(2.0, 1)
    strong = replace(one, strength=0.5, reported=False, random=one.random.copy())
    assert _table([one, strong])["beats_random"].tolist() == [True]
    strong.random[7] += 3.0
    table = _table([one, strong])
    assert table["beats_random"].tolist() == [False]
    assert table["rank_p"].iloc[0] == 2 / 20
    assert table["random_high"].iloc[0] < 1  # what is shown is the reported dose


def test_one_cluster_cannot_win() -> None:
    base = _comparison(5.0, 1)
    one = Comparison("grief", "ablate_zero", -base.chosen, base.random, ("only",) * 16)
    table = _table([one])
    assert table["p"].iloc[0] == 0.5
    assert not table["beats_random"].iloc[0]


def test_the_family_is_every_emotion_intervention_and_dose() -> None:
    made = [
        _comparison(2.0, 1),
        replace(_comparison(2.0, 1), strength=2.0, reported=False),
        _comparison(-2.0, 2, "ablate_zero"),
        _comparison(0.0, 3, "ablate_zero"),
    ]
    table = _table(made)
    p = [1 / 256, 1 / 256, 1 / 256, table["p"].iloc[2]]
    assert len(table) == 3  # the dose that is not reported has no verdict
    assert table["p_family"].tolist() == pytest.approx([holm(p)[i] for i in (0, 2, 3)])
    assert table["p_holm"].tolist() == pytest.approx([1 / 256, 2 / 256, p[3]])
    assert table["min_p"].tolist() == [1 / 256] * 3
    doses = dose_table(made, n_permutations=1000, seed=0)
    assert doses["strength"].tolist() == [1.0, 2.0]
    assert doses["reported"].tolist() == [True, False]
    assert doses["p_family"].tolist() == pytest.approx(holm(p)[:2])


@pytest.mark.parametrize(
    ("others", "beats", "strongest"),
    [
        ({}, True, "random"),
        ({"diff_of_means": [1.0], "random_direction": [-3.0, 0.5]}, True, "diff_of_means"),
        ({"diff_of_means": [2.5]}, False, "diff_of_means"),
        ({"random_direction": [0.1, 2.6]}, False, "random_direction"),
        ({"prompt": [9.0], "neurons": [0.3]}, True, "prompt"),
    ],
)
def test_every_control_but_a_prompt_must_be_beaten(
    others: dict[str, list[float]], beats: bool, strongest: str
) -> None:
    row = _table([replace(_comparison(2.0, 1), others=others)]).iloc[0]
    assert row["beats_random"]
    assert row["beats_controls"] == beats
    assert row["strongest_control"] == strongest
    if others:
        assert row["strongest_effect"] == max(others[strongest])


def test_a_control_is_strong_on_the_predicted_side() -> None:
    down = replace(_comparison(-2.0, 1, "ablate_zero"), others={"neurons": [-3.0, 5.0]})
    row = _table([down]).iloc[0]
    assert not row["beats_controls"]
    assert row["strongest_effect"] == -3.0


def test_the_slope_is_that_of_least_squares() -> None:
    made = [
        replace(_comparison(2.0 * s, 1), strength=s, reported=s == 1.0) for s in (0.5, 1.0, 3.0)
    ]
    row = _table(made).iloc[0]
    means = [c.chosen.mean() for c in made]
    assert row["dose_slope"] == pytest.approx(np.polyfit([0.5, 1.0, 3.0], means, 1)[0])
    assert row["dose_slope_low"] <= row["dose_slope"] <= row["dose_slope_high"]
    assert np.isnan(_table([_comparison(2.0, 1)])["dose_slope"].iloc[0])


@pytest.mark.parametrize(
    ("intervention", "strength", "sign"),
    [
        ("clamp", 1.0, 1), ("clamp", -1.0, -1), ("scale", 2.0, 1), ("scale", 0.5, -1),
        ("add", 0.3, 1), ("patch_clinical", 0.0, 1), ("ablate_mean", 0.0, -1),
        ("project_out", 0.0, -1),
    ],
)  # fmt: skip
def test_the_side_follows_the_strength(intervention: str, strength: float, sign: int) -> None:
    assert predicted_sign(intervention, strength) == sign


def test_no_comparison_gives_empty_tables() -> None:
    assert _table([]).empty
    assert dose_table([], n_permutations=100, seed=0).empty
