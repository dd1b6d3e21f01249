"""Curves, chosen doses, slopes, comparisons and wins against numbers worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from affectlens.features.steering_curves import (
    MARGIN,
    Halves,
    chosen_table,
    curves_table,
    equivalence,
    mean_interval,
    slope_values,
)
from affectlens.features.steering_ranking import (
    Scored,
    comparison_table,
    ranking_table,
    wins_table,
)
from affectlens.features.study_columns import (
    CHOSEN_COLUMNS,
    COMPARISON_STEERING_COLUMNS,
    CURVES_COLUMNS,
    RANKING_COLUMNS,
    TEXTS_COLUMNS,
    WINS_COLUMNS,
)

N = 10
"""Scenarios of each half."""


def made(levels: dict[tuple[str, int, float], tuple[float, float]], emotions=("grief",)):
    """Scored texts; (arm, set, dose) -> overall score on the select and on the report half.

    Scenarios differ by up to .04; concept is the overall score, coherence 1 less half the dose.
    """
    rows = []
    for emotion, ((arm, index, dose), halves) in itertools.product(emotions, levels.items()):
        for half, level in zip(("select", "report"), halves, strict=True):
            for number in range(N):
                value = level + 0.004 * number
                rows.append(
                    dict.fromkeys(TEXTS_COLUMNS, 0.0)
                    | {
                        "emotion": emotion,
                        "arm": arm,
                        "set_index": index,
                        "dose": dose,
                        "scenario": f"{half}{number}",
                        "half": half,
                        "text": "a text",
                        "overall": value,
                        "concept": value,
                        "coherence": 1 - dose / 2,
                        "hit": False,
                        "naming": False,
                        "perplexity": 5.0,
                        "n_edited_tokens": int(dose > 0),
                        "delta_norm": 3 * dose,
                    }
                )
    return pd.DataFrame(rows)


def tables(texts: pd.DataFrame, matched=None, *, own_random: bool = False):
    curves = curves_table(texts)
    who = texts[["emotion", "arm", "set_index"]].drop_duplicates()
    sets = {
        (e, a, i): ((1, 2), (matched or {}).get((a, i), ""))
        for e, a, i in who.itertuples(index=False)
    }
    chosen = chosen_table(texts, curves, sets)
    return curves, chosen, Scored.of(texts, chosen, own_random=own_random)


def by_overall(scored: Scored) -> pd.DataFrame:
    found = comparison_table(scored, 2000, 0)
    return found[found["score"] == "overall"]


LEVELS = {
    ("unedited", 0, 0.0): (0.0, 0.0),
    ("sae_input", 0, 0.2): (0.10, 0.30),
    ("sae_input", 0, 0.4): (0.20, 0.20),
    ("sae_output", 0, 0.2): (0.30, 0.50),
    ("sae_output", 0, 0.4): (0.30, 0.60),
    ("random", 0, 0.2): (0.05, 0.05),
    ("random", 1, 0.2): (0.05, 0.25),
}


def test_the_dose_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    curves, chosen, _ = tables(made(LEVELS))
    assert list(curves.columns) == list(CURVES_COLUMNS)
    assert list(chosen.columns) == list(CHOSEN_COLUMNS)
    by_arm = chosen.set_index(["arm", "set_index"])
    inner = by_arm.loc[("sae_input", 0)]
    # The report half would have preferred the other dose.
    assert inner["dose"] == 0.4
    assert inner["overall"] == pytest.approx(0.20 + 0.018)
    assert inner["select_overall"] == pytest.approx(0.20 + 0.018)
    assert by_arm.loc[("sae_output", 0), "dose"] == 0.2  # the lower of two equal ones
    assert inner["delta_norm"] == pytest.approx(1.2)
    assert inner["features"] == "1,2"
    assert inner["n_texts"] == N


def test_intervals_are_t_intervals_over_scenarios() -> None:
    values = np.random.default_rng(3).normal(size=30)
    wanted = scipy_stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values) == pytest.approx((wanted.low, wanted.high))
    assert all(np.isnan(mean_interval(np.ones(4))))
    assert all(np.isnan(mean_interval(np.array([1.0] * 5 + [np.nan]))))


def test_texts_of_a_scenario_are_averaged_first() -> None:
    once = made(LEVELS)
    apart = once.assign(copy=1, overall=once["overall"] + 0.1, concept=once["concept"] - 0.1)
    twice = pd.concat([once.assign(copy=0), apart], ignore_index=True)
    _, _, scored = tables(twice)
    _, _, single = tables(once)
    for name, shift in (("overall", 0.05), ("concept", -0.05)):
        got, plain = (s.mean("grief", "sae_output", name) for s in (scored, single))
        np.testing.assert_allclose(got, plain + shift)
    assert set(curves_table(twice)["n_texts"]) == {2 * N}
    compared = comparison_table(scored, 2000, 0)
    assert set(compared["n_scenarios"]) == {N}


def test_slopes_are_least_squares_with_the_unedited_model_at_zero() -> None:
    levels = {
        ("unedited", 0, 0.0): (0, 0.1),
        ("sae_input", 0, 0.2): (0, 0.4),
        ("sae_input", 0, 0.6): (0, 0.3),
        ("prompt_sae", 0, 0.2): (0, 0.4),
        ("prompt_sae", 0, 0.6): (0, 0.3),
        ("probe", 0, 0.2): (0, 0.4),
    }
    report = Halves(made(levels), "report")
    got = slope_values(report, ("grief", "sae_input", 0), "concept")
    wanted = scipy_stats.linregress([0, 0.2, 0.6], [0.1, 0.4, 0.3]).slope
    np.testing.assert_allclose(got, np.full(N, wanted))
    # Without 'prompt' there is no dose 0 of 'prompt_sae': two points, a slope between them.
    combined = slope_values(report, ("grief", "prompt_sae", 0), "concept")
    np.testing.assert_allclose(combined, np.full(N, -0.25))
    assert np.isnan(slope_values(report, ("grief", "unedited", 0), "concept")).all()
    two = slope_values(report, ("grief", "probe", 0), "coherence")
    np.testing.assert_allclose(two, np.full(N, -0.5))


def test_equivalence_asks_for_both_ends_within_the_margin() -> None:
    steady = np.tile([-0.02, 0.02], 10)
    assert equivalence(steady)["coherence_equivalent"]
    assert not equivalence(steady - MARGIN)["coherence_equivalent"]
    assert not equivalence(steady + MARGIN)["coherence_equivalent"]
    wide = np.tile([-0.9, 0.9], 10)
    assert not equivalence(wide)["coherence_equivalent"]  # not shown, so not claimed
    assert not equivalence(np.zeros(4))["coherence_equivalent"]


def test_a_rival_of_several_sets_is_beaten_only_if_every_one_is() -> None:
    _, _, scored = tables(made(LEVELS))
    table = by_overall(scored)
    assert list(table.columns) == list(COMPARISON_STEERING_COLUMNS)
    own = table[(table["arm"] == "sae_input") & (table["emotion"] == "grief")]
    rows = own.set_index("against")
    # Against set 0 alone the arm would win by .15; set 1 is better by .05.
    assert rows.loc["random", "difference"] == pytest.approx(-0.05)
    assert rows.loc["random", "p"] == 1.0
    assert not rows["beats"].any()
    won = table[(table["arm"] == "sae_output") & (table["emotion"] == "grief")]
    rows = won.set_index("against")
    assert rows.loc["random", "difference"] == pytest.approx(0.25)
    # Every scenario differs by the same amount: of 2^10 sign patterns one is as extreme.
    assert rows["p"].tolist() == [2.0**-N] * 2
    assert rows["min_p"].tolist() == [2.0**-N] * 2
    assert rows["p_holm"].tolist() == [2 * 2.0**-N] * 2
    assert rows["beats"].all()
    assert "sae_input" not in set(own["against"])


def test_holm_is_over_the_emotions_and_rivals_of_an_arm() -> None:
    texts = made(LEVELS, emotions=("grief", "rage", "terror"))
    _, _, scored = tables(texts)
    table = by_overall(scored)
    own = table[(table["arm"] == "sae_output") & (table["emotion"] != "all")]
    assert len(own) == 3 * 2
    assert own["p_holm"].unique().tolist() == [6 * 2.0**-N]
    whole = table[(table["arm"] == "sae_output") & (table["emotion"] == "all")]
    assert whole["p_holm"].unique().tolist() == [2 * 2.0**-N]


def test_an_arm_with_a_norm_of_its_own_meets_its_own_random_sets() -> None:
    matched = {("random", 0): "sae_input", ("random", 1): "sae_output"}
    _, _, scored = tables(made(LEVELS), matched, own_random=True)
    rows = by_overall(scored).set_index(["emotion", "arm", "against"])
    assert rows.loc[("grief", "sae_input", "random"), "difference"] == pytest.approx(0.15)
    assert rows.loc[("grief", "sae_output", "random"), "difference"] == pytest.approx(0.25)


def test_ranking_puts_the_best_first_and_shows_the_best_random_set() -> None:
    _, chosen, scored = tables(made(LEVELS, emotions=("grief", "rage")))
    table = ranking_table(scored, chosen)
    assert list(table.columns) == list(RANKING_COLUMNS)
    assert table["arm"].tolist() == [
        "sae_output", "random_best", "sae_input", "random", "unedited",
    ]  # fmt: skip
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    rows = table.set_index("arm")
    assert rows.loc["random", "overall"] == pytest.approx(0.15 + 0.018)
    assert rows.loc["random_best", "overall"] == pytest.approx(0.25 + 0.018)
    assert rows.loc["sae_output", "coherence_change"] == pytest.approx(-0.1)
    assert rows.loc["unedited", "coherence_equivalent"]
    assert np.isnan(rows.loc["unedited", "concept_slope"])
    low, high = rows.loc["sae_output", ["overall_low", "overall_high"]]
    assert low < rows.loc["sae_output", "overall"] < high


def test_wins_ask_for_both_and_for_half_of_the_emotions() -> None:
    better = made(LEVELS, emotions=("grief", "rage"))
    worse = made(LEVELS | {("random", 1, 0.2): (0.05, 0.7)}, emotions=("terror", "loathing"))
    even = made(LEVELS | {("sae_input", 0, 0.4): (0.2, 0.5)}, emotions=("ecstasy",))
    _, _, scored = tables(pd.concat([better, worse, even], ignore_index=True))
    table = wins_table(comparison_table(scored, 2000, 0))
    assert list(table.columns) == list(WINS_COLUMNS)
    row, masked = table.to_dict("records")
    assert (masked["score"], masked["wins"]) == ("overall_masked", 0)
    assert row["arm"] == "sae_output"
    assert (row["beats_input"], row["beats_random"], row["wins"]) == (4, 3, 2)
    assert row["emotions"] == "grief,rage"
    assert (row["bar"], row["reached"]) == (3, False)
    assert row["min_p_holm"] == 5 * 2.0**-N
    unnamed = better.assign(overall_masked=better["overall"])
    _, _, scored = tables(unnamed)
    assert wins_table(comparison_table(scored, 2000, 0))["reached"].tolist() == [True, True]


def test_the_p_of_a_win_is_the_larger_one_and_prompts_are_not_in_its_family() -> None:
    """Five scenarios give p = 1/32 at best: enough for one emotion, not after Holm over rivals."""
    levels = LEVELS | {("prompt", 0, 0.0): (0.9, 0.9)}
    few = made(levels)
    few = few[few["scenario"].str.fullmatch(r"(select|report)[0-4]")]
    _, _, scored = tables(few)
    compared = by_overall(scored)
    own = compared[(compared["arm"] == "sae_output") & (compared["emotion"] == "grief")]
    assert own.set_index("against")["p"].to_dict() == {
        "sae_input": 1 / 32, "random": 1 / 32, "prompt": 1.0,
    }  # fmt: skip
    assert not own["beats"].any()
    row = wins_table(compared).iloc[0]
    assert (row["beats_input"], row["beats_random"], row["wins"]) == (0, 0, 1)
    assert row["min_p_holm"] == 1 / 32


def test_wins_are_not_claimed_where_the_rivals_were_not_run() -> None:
    levels = {k: v for k, v in LEVELS.items() if k[0] != "random"}
    _, _, scored = tables(made(levels))
    assert wins_table(comparison_table(scored, 200, 0)).empty
    _, _, alone = tables(made({("unedited", 0, 0.0): (0, 0)}))
    assert comparison_table(alone, 200, 0).empty
