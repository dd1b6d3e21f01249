"""Scores of a text by hand: factors, their harmonic mean, and what every row of the study gets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from affectlens.data.errors import ConfigError
from affectlens.features.fluency import Reference, fluency
from affectlens.features.steering_scores import (
    METHOD,
    Scene,
    Yardstick,
    coherence,
    on_topic,
    overall,
    score_texts,
)
from affectlens.features.study_columns import TEXTS_COLUMNS

from .steered_model import WordScorer, world

USUAL = Yardstick(Reference(perplexity=10.0, new=0.8, n=4, n_empty=0), readable=0.9, gain=0.5)


def test_coherence_by_hand() -> None:
    table = pd.DataFrame(
        {
            "incoherent": [0.0, 0.1, 0.55, 0.0, 0.0, 1.0],
            "perplexity": [5.0, 10.0, 20.0, np.nan, np.inf, 5.0],
            "repetition": [0.0, 0.2, 0.6, np.nan, 0.0, 0.0],
            "empty": [False, False, False, True, False, False],
        }
    )
    # readable x fluent x varied: (.45 / .9) x (10 / 20) x (.4 / .8)
    wanted = [1.0, 1.0, 0.125, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(coherence(table, USUAL), wanted)


def test_a_scorer_that_rejects_the_models_own_texts_does_not_decide() -> None:
    table = pd.DataFrame(
        {"incoherent": [0.99], "perplexity": [5.0], "repetition": [0.0], "empty": [False]}
    )
    blind = Yardstick(USUAL.fluency, readable=0.01, gain=0.5)
    assert coherence(table, blind)[0] == pytest.approx(1.0)
    assert coherence(table, USUAL)[0] == pytest.approx(0.01 / 0.9)


def test_on_topic_is_a_share_of_the_usual_gain() -> None:
    gain = np.array([-0.2, 0.0, 0.25, 0.5, 2.0, np.nan])
    np.testing.assert_allclose(on_topic(gain, 0.5), [0, 0, 0.5, 1, 1, 0])
    # Where unedited texts do not depend on their prompts there is nothing to measure.
    np.testing.assert_allclose(on_topic(gain, 0.0), [1, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(on_topic(gain, float("nan")), [1, 1, 1, 1, 1, 0])


def test_overall_is_the_harmonic_mean_and_zero_if_a_factor_is() -> None:
    table = pd.DataFrame(
        {"concept": [0.5, 0.0, 1.0], "coherence": [1.0, 1.0, 1.0], "on_topic": [0.25, 1.0, 1.0]}
    )
    np.testing.assert_allclose(overall(table), [3 / (2 + 1 + 4), 0.0, 1.0])


def rows() -> pd.DataFrame:
    texts = {
        ("unedited", "select", "a"): " the tray was still on the table",
        ("unedited", "select", "b"): " quiet as it was before",
        ("unedited", "report", "c"): " the train came in",
        ("sae_input", "report", "c"): " tears loss tears sorrow",
        ("sae_output", "report", "c"): "",
        ("prompt", "report", "c"): " tears loss tears sorrow",
    }
    return pd.DataFrame(
        [
            {
                "emotion": emotion, "arm": arm, "set_index": 0, "dose": 0.0, "scenario": scenario,
                "copy": 0, "half": half, "text": text, "n_edited_tokens": 0, "delta_norm": 0.0,
            }
            for emotion in ("grief", "rage")
            for (arm, half, scenario), text in texts.items()
        ]
    )  # fmt: skip


SCENES = {
    s: Scene(f"I waited for the {s}. Then it came.", f"We bought the {s * 2} in town.")
    for s in "abc"
}


def test_every_row_is_scored_for_its_own_emotion() -> None:
    lm = world().lm
    scorer = WordScorer()
    scored, yardstick = score_texts(lm, scorer, rows(), SCENES, quiet=True)
    assert list(scored.columns) == list(TEXTS_COLUMNS)
    assert len(scored) == 12
    at = scored.set_index(["emotion", "arm", "scenario"])
    assert at.loc[("grief", "sae_input", "c"), "concept"] == pytest.approx(4 / 5)
    assert at.loc[("rage", "sae_input", "c"), "concept"] == 0
    assert at.loc[("grief", "sae_input", "c"), "hit"]
    assert not at.loc[("rage", "sae_input", "c"), "hit"]
    assert at.loc[("grief", "sae_input", "c"), "naming"]  # "sorrow"
    assert not at.loc[("grief", "unedited", "c"), "naming"]
    empty = at.loc[("grief", "sae_output", "c")]
    assert empty["incoherent"] == 1
    assert empty[["coherence", "on_topic", "overall"]].tolist() == [0, 0, 0]
    assert np.isnan(empty["perplexity"])
    assert empty["n_tokens"] == 0
    # Equal texts of different arms are read once, and once more with their words masked.
    assert scorer.seen[:5].count(" tears loss tears sorrow") == 1
    assert len(scorer.seen) == 2 * 5
    assert at.loc[("grief", "prompt", "c"), "overall"] == pytest.approx(
        at.loc[("grief", "sae_input", "c"), "overall"]
    )
    plain = [" the tray was still on the table", " quiet as it was before"]
    own = fluency(lm, [SCENES[s].prompt for s in "ab"], plain)
    other = fluency(lm, [SCENES[s].other for s in "ab"], plain)
    assert yardstick.fluency.perplexity == pytest.approx(own["perplexity"].quantile(0.75))
    assert yardstick.gain == pytest.approx((other["nll"] - own["nll"]).median(), abs=1e-5)
    assert yardstick.readable == 1


def test_concept_masked_leaves_out_the_words_of_emotion() -> None:
    scored, _ = score_texts(world().lm, WordScorer(), rows(), SCENES, quiet=True)
    own = scored[(scored["emotion"] == "grief") & (scored["arm"] == "sae_input")].iloc[0]
    assert own["concept_masked"] < own["concept"]


def test_a_study_needs_one_unedited_text_to_measure_from() -> None:
    blank = rows().assign(text="")
    with pytest.raises(ConfigError, match="none of 2 continuations"):
        score_texts(world().lm, WordScorer(), blank, SCENES, quiet=True)


def test_the_method_names_what_stands_for_the_judge() -> None:
    assert set(METHOD) == {"concept", "coherence", "on_topic", "overall"}
