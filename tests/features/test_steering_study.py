"""The whole study on a planted model: who wins, what is written, how it goes on after a stop."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.scenarios import EVENTS, Scenario, Scenarios, load_scenarios
from affectlens.features import steering_study, steering_writing
from affectlens.features.results import read_table
from affectlens.features.steering_plan import plan_study
from affectlens.features.steering_study import (
    SteeringStudy,
    chosen_by_words,
    evaluate_steering,
)
from affectlens.features.steering_writing import PARTIAL_FILE
from affectlens.features.study_columns import STEERING_TABLES
from affectlens.features.study_config import ARMS, SteeringStudyConfig
from affectlens.features.study_record import SteeringSummary
from affectlens.sae.errors import SAEError

from .steered_model import PLANTED, WordScorer, world

SMALL = SteeringStudyConfig(
    features_per_emotion=1, n_random=2, doses=(0.3, 1.0), n_scenarios=4, max_new_tokens=4,
    batch_size=32, n_permutations=200,
)  # fmt: skip
FEW = SMALL.model_copy(
    update={"emotions": ("grief",), "arms": ("sae_input", "random", "prompt"), "batch_size": 8}
)


def scenes(n: int) -> Scenarios:
    """Short ones, since every byte is a token of the tiny model."""
    things = itertools.product(
        ("took", "saw", "sold", "left", "hid"), ("bag", "hat", "cup", "key", "box")
    )
    made = [
        Scenario(f"s{i}", "ab"[i % 2], f"I {verb} {thing}", dict.fromkeys(EVENTS, f"It was {i}."))
        for i, (verb, thing) in enumerate(things)
    ]
    return Scenarios("scenes", tuple(made[:n]), "here", "none")


def study(config: SteeringStudyConfig = SMALL, **more: object) -> SteeringStudy:
    w = world()
    given = {"screen": w.screen, "scorer": WordScorer(), "quiet": True, "scenarios": scenes(25)}
    more = given | more
    return evaluate_steering(w.lm, w.sae, w.battery, w.found, config, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SteeringStudy, Path]:
    run = tmp_path_factory.mktemp("run")
    return study(out=run), run


def test_the_planted_latent_wins_for_its_emotion() -> None:
    config = SMALL.model_copy(
        update={
            "emotions": ("grief",),
            "arms": ("sae_input", "sae_output", "random", "random_direction"),
            "n_scenarios": 24,
            "max_new_tokens": 10,
            "n_permutations": 2000,
        }
    )
    done = study(config)
    assert done.summary.features["grief"]["sae_output"] == [PLANTED]
    assert done.summary.features["grief"]["sae_input"] != [PLANTED]
    first = done.ranking.iloc[0]
    assert first["arm"] == "sae_output"
    assert first["concept"] > 0.5
    rest = done.ranking[done.ranking["arm"] != "sae_output"]
    assert rest["concept"].max() < 0.2
    won, masked = done.wins.to_dict("records")
    assert (won["score"], masked["score"]) == ("overall", "overall_masked")
    assert (won["wins"], won["bar"], won["reached"], won["emotions"]) == (1, 1, True, "grief")
    own = done.chosen.set_index("arm").loc["sae_output"]
    assert own["concept_slope_low"] > 0
    assert own["naming"] > 0.5


def test_every_arm_dose_and_scenario_has_a_row(whole: tuple[SteeringStudy, Path]) -> None:
    done, _ = whole
    texts = done.texts
    # For each emotion ten arms at two doses, two random sets likewise, three arms without a dose.
    assert done.summary.n_conditions == 2 * (10 * 2 + 2 * 2 + 3)
    assert len(texts) == done.summary.n_texts == done.summary.n_conditions * 4
    assert set(texts["arm"]) == set(ARMS)
    counts = texts.groupby(["emotion", "arm", "set_index", "dose"])["scenario"].nunique()
    assert (counts == 4).all()
    assert texts.groupby("half")["scenario"].nunique().tolist() == [2, 2]
    assert done.summary.n_written < done.summary.n_texts  # shared ones are written once
    edited = texts["dose"] > 0
    assert (texts["n_edited_tokens"] > 0).eq(edited).all()
    assert np.isfinite(texts[["overall", "coherence", "on_topic", "concept"]]).all(axis=None)


def test_unedited_texts_are_the_same_for_every_emotion(whole: tuple[SteeringStudy, Path]) -> None:
    texts = whole[0].texts
    plain = texts[texts["arm"] == "unedited"].pivot(
        index="scenario", columns="emotion", values="text"
    )
    assert (plain["grief"] == plain["rage"]).all()


def test_tables_and_record_come_back(whole: tuple[SteeringStudy, Path]) -> None:
    done, run = whole
    for name in STEERING_TABLES:
        table = getattr(done, name.removeprefix("steering/"))
        pd.testing.assert_frame_equal(read_table(run, name), table)
    assert SteeringSummary.read(run) == done.summary
    assert not (run / PARTIAL_FILE).exists()
    assert done.summary.settings["doses"] == [0.3, 1.0]
    assert done.summary.scorer == {"name": "words of a test"}
    assert set(done.summary.seconds) == {"plan", "write", "score", "tables"}
    assert (done.summary.n_select, done.summary.n_report) == (2, 2)


def test_a_stopped_study_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = study(FEW)
    n_batches = -(-wanted.summary.n_written // FEW.batch_size)
    assert n_batches == 4
    calls: list[int] = []
    original = steering_writing._write_batch

    def counted(*args: object):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(steering_writing, "_write_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        study(FEW, out=tmp_path)
    assert len(calls) == 3
    partial = tmp_path / PARTIAL_FILE
    kept = partial.read_bytes()
    assert kept.count(b"\n") == 3  # the key and two batches
    for block in world().lm.blocks:
        assert not block._forward_hooks
        assert not block._forward_pre_hooks
    assert not list(tmp_path.glob("steering/*.parquet"))
    # As after a kill in the middle of the second line, then as left behind.
    for size, left in ((len(kept) - 40, 3), (len(kept), 2)):
        partial.write_bytes(kept[:size])
        calls[:] = [0] * 10
        got = study(FEW, out=tmp_path)
        assert len(calls) == 10 + left
        assert got.summary.n_dropped_lines == int(left == 3)
        assert got.summary.n_resumed == (n_batches - left) * FEW.batch_size
        for name in STEERING_TABLES:
            key = name.removeprefix("steering/")
            pd.testing.assert_frame_equal(getattr(got, key), getattr(wanted, key))
            pd.testing.assert_frame_equal(read_table(tmp_path, name), getattr(wanted, key))
        assert got.summary == wanted.summary
        assert not partial.exists()


def test_a_stop_while_scoring_keeps_every_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steering_study, "score_texts", stop)
        with pytest.raises(KeyboardInterrupt):
            study(FEW, out=tmp_path)

    def refuse(*_args: object) -> None:
        raise AssertionError("a text was written again")

    monkeypatch.setattr(steering_writing, "_write_batch", refuse)
    done = study(FEW, out=tmp_path)
    assert done.summary.n_resumed == done.summary.n_written


def test_other_settings_begin_anew_and_other_scores_do_not() -> None:
    w = world()
    key = plan_study(w.lm, w.sae, w.battery, w.found, FEW, labels=WordScorer.labels).key
    for settings, same in (
        ({"n_permutations": 300, "scorer": "lexicon"}, True),
        ({"seed": 1}, False),
        ({"doses": (0.3, 0.9)}, False),
        ({"max_new_tokens": 5}, False),
        ({"valence": "negative"}, False),
        ({"dose_unit": "max_activation"}, False),
        ({"batch_size": 16}, False),
    ):
        other = FEW.model_copy(update=settings)
        again = plan_study(w.lm, w.sae, w.battery, w.found, other, labels=WordScorer.labels)
        assert (again.key == key) is same, settings


def test_arms_meet_the_same_prompts_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    w = world()
    plan = plan_study(
        w.lm, w.sae, w.battery, w.found, SMALL, screen=w.screen, labels=WordScorer.labels
    )
    prompts: dict[tuple[str, int], set[tuple[int, ...]]] = {}
    for condition in plan.conditions:
        for place in range(4):
            item = plan.items[plan.rows[condition.key, place, 0]]
            assert item.stream == place
            prompts.setdefault((condition.instruction, place), set()).add(item.ids)
    assert all(len(ids) == 1 for ids in prompts.values())
    assert len({len(w.lm.tokenizer.decode(p).split()) for (asked, place), ids in prompts.items()
                if asked and place == 0 for p in ids}) == 1  # fmt: skip
    with monkeypatch.context() as patched:
        # Without an effect of the edit, arms with equal draws write equal texts.
        patched.setattr(steering_writing, "residual_edit", unedited)
        texts = study(SMALL.model_copy(update={"emotions": ("grief",)})).texts
    bare = texts[~texts["arm"].isin(["prompt", "prompt_plain", "prompt_sae"])]
    assert (bare.groupby("scenario")["text"].nunique() == 1).all()


def test_several_texts_of_a_scene_differ_and_are_paired_over_arms() -> None:
    config = FEW.model_copy(update={"texts_per_scene": 3, "temperature": 1.0})
    w = world()
    plan = plan_study(w.lm, w.sae, w.battery, w.found, config, labels=WordScorer.labels)
    n = len(plan.scenarios)
    streams = {
        key: [
            plan.items[i].stream for (k, place, _), i in plan.rows.items() if k == key and not place
        ]
        for key, *_ in plan.rows
    }
    assert all(found == [0, n, 2 * n] for found in streams.values())
    texts = study(config).texts
    assert (texts.groupby(["emotion", "arm", "set_index", "dose", "scenario"]).size() == 3).all()
    plain = texts[texts["arm"] == "unedited"].drop_duplicates(["scenario", "copy"])
    assert plain.groupby("scenario")["text"].nunique().max() > 1
    once = study(FEW.model_copy(update={"temperature": 1.0})).texts
    first = texts[texts["copy"] == 0].reset_index(drop=True)
    assert first["text"].tolist() == once["text"].tolist()


def test_words_that_chose_latents_are_masked_as_well(tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    file.write_text("grief: [Snorf, blick, wug]\nrage: [dax, fep, zorp]\n")
    screen = world().screen
    assert screen is not None
    settings = {**screen.summary.settings, "words": str(file)}
    own = replace(screen, summary=replace(screen.summary, settings=settings))
    assert chosen_by_words(own) == {"snorf", "blick", "wug", "dax", "fep", "zorp"}
    assert chosen_by_words(None) == frozenset()


def unedited(sae: object, specs: object):
    from affectlens.features.interventions import residual_edit

    return residual_edit(sae, [])


def test_max_activation_reports_the_norms_it_writes() -> None:
    config = FEW.model_copy(
        update={"dose_unit": "max_activation", "arms": ("sae_both", "probe", "random")}
    )
    done = study(config)
    assert done.summary.reference == "sae_both"
    norms = done.summary.norms["grief"]
    assert set(norms) == {"0.3", "1"}
    own = done.curves[done.curves["dose"] > 0].groupby(["arm", "dose"])["delta_norm"].mean()
    for dose, norm in (("0.3", 0.3), ("1", 1.0)):
        assert own["probe", norm] == pytest.approx(norms[dose], rel=1e-3)
        assert own["sae_both", norm] == pytest.approx(norms[dose], rel=0.2)


def test_the_cost_is_told_before_the_first_text(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steering_study, "write_texts", stop)
    with caplog.at_level(logging.INFO, "affectlens"), pytest.raises(KeyboardInterrupt):
        study(FEW)
    assert "the study writes 32 texts (8 conditions), up to 128 new tokens" in caplog.text


def test_emotions_that_cannot_be_steered_to_are_left_out_or_refused() -> None:
    w = world()
    more = {"labels": WordScorer.labels}
    fallen = w.found.table.assign(
        mean_diff=w.found.table["mean_diff"].where(w.found.table["contrast"] != "rage", -1.0)
    )
    found = replace(w.found, table=fallen)
    config = FEW.model_copy(update={"emotions": ()})
    plan = plan_study(w.lm, w.sae, w.battery, found, config, **more)
    assert [own.emotion for own in plan.arms] == ["grief"]
    assert list(plan.left_out) == ["rage"]
    assert "'rage' has no latent for the arm 'sae_input'" in plan.left_out["rage"]
    asked = FEW.model_copy(update={"emotions": ("grief", "rage")})
    with pytest.raises(ConfigError, match="'rage' has no latent for the arm"):
        plan_study(w.lm, w.sae, w.battery, found, asked, **more)
    with pytest.raises(ConfigError, match=r"no emotion 'joy'; it has rage, grief"):
        study(FEW.model_copy(update={"emotions": ("joy",)}))
    with pytest.raises(ConfigError, match="the scorer has no such label"):
        plan_study(w.lm, w.sae, w.battery, w.found, config, labels=("neutral",))
    bare = replace(w.screen, summary=replace(w.screen.summary, contrasts=["all", "grief"]))
    plan = plan_study(w.lm, w.sae, w.battery, w.found, config, screen=bare, **more)
    assert plan.left_out == {"rage": "the screen left it out"}


def test_bad_scenarios_are_refused() -> None:
    every = load_scenarios()
    single = Scenarios("one", every.items[:1], "here", "none")
    with pytest.raises(StimulusError, match="two halves need at least two"):
        study(FEW.model_copy(update={"n_scenarios": None}), scenarios=single)
    with pytest.raises(ConfigError, match="n_scenarios is 99"):
        study(FEW.model_copy(update={"n_scenarios": 99}))
    with pytest.raises(StimulusError, match="exceeds the context"):
        study(FEW.model_copy(update={"max_new_tokens": 5000}))


def test_fewer_scenarios_come_from_all_themes() -> None:
    w = world()
    n = len(load_scenarios().themes)
    config = FEW.model_copy(update={"n_scenarios": n})
    plan = plan_study(w.lm, w.sae, w.battery, w.found, config, labels=WordScorer.labels)
    assert len({s.theme for s in plan.scenarios}) == n


def test_a_foreign_sae_is_refused() -> None:
    w = world()
    info = replace(w.sae.info, model_fingerprint="0" * 64)

    class Foreign:
        def __getattr__(self, name: str) -> object:
            return info if name == "info" else getattr(w.sae, name)

    with pytest.raises(SAEError):
        evaluate_steering(w.lm, Foreign(), w.battery, w.found, FEW, scorer=WordScorer())
