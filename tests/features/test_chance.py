"""What verdicts are worth together: who can win at all, and how many would by chance."""

from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats

from affectlens.features.chance import attainable, wins_by_chance


def verdicts(min_p: list[float], won: list[bool], kinds: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "emotion": [f"e{i}" for i in range(len(won))],
            "intervention": kinds,
            "min_p": min_p,
            "beats_random": won,
            "n_random": 7,
        }
    )


def test_a_verdict_can_win_if_its_smallest_p_survives_holm_in_its_own_intervention() -> None:
    table = verdicts([0.02, 0.02, 0.02, 0.03], [False] * 4, ["clamp", "ablate", "ablate", "ablate"])
    assert attainable(table, 0.05).tolist() == [True, False, False, False]
    assert attainable(table, 0.06).tolist() == [True, True, True, False]
    table.loc[3, "beats_random"] = True  # behind others that passed, Holm asks for less
    assert attainable(table, 0.05).tolist() == [True, False, False, True]


def test_chance_is_the_binomial_tail_over_those_that_can_win() -> None:
    table = verdicts([1e-4] * 9 + [0.5], [True] * 3 + [False] * 7, ["clamp"] * 10)
    found = wins_by_chance(table, 0.05)
    assert (found.n, found.n_won) == (9, 3)
    assert found.expected == pytest.approx(9 / 8)
    assert found.p == pytest.approx(stats.binom.sf(2, 9, 1 / 8))


def test_nothing_that_can_win_or_none_that_did() -> None:
    none = wins_by_chance(verdicts([0.5], [False], ["clamp"]), 0.05)
    assert (none.n, none.n_won, none.expected, none.p) == (0, 0, 0.0, 1.0)
    assert wins_by_chance(verdicts([0.001], [False], ["clamp"]), 0.05).p == 1.0
    assert wins_by_chance(verdicts([], [], []), 0.05).n == 0
