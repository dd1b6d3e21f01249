"""What is steered with: sets by the screen, random sets, rival directions, and their edits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from affectlens.data.errors import ConfigError
from affectlens.data.hooks import capture, edit
from affectlens.features.choosing import select
from affectlens.features.controls import clamp_targets
from affectlens.features.interventions import residual_edit
from affectlens.features.specs import AddDirection, Clamp, MinClamp
from affectlens.features.steering_arms import EmotionArms, build_arms
from affectlens.features.steering_treatments import Treatment, treatments, written_norms
from affectlens.features.study_config import ARMS, SteeringStudyConfig
from affectlens.features.text_means import text_means

from .steered_model import PLANTED, world

BASE = SteeringStudyConfig(features_per_emotion=2, n_random=5, doses=(0.2, 0.5))
PROMPTS = ["The tray stood on the table all day.", "I walked to the shop, and it was shut."]


def arms_of(config: SteeringStudyConfig = BASE, emotions=("grief", "rage")):
    w = world()
    return build_arms(w.lm, w.sae, w.battery, w.found, w.screen, emotions, config)


def conditions_of(config: SteeringStudyConfig = BASE, emotions=("grief",)) -> list[Treatment]:
    w = world()
    own = arms_of(config, emotions)
    ids = [w.lm.token_ids(p) for p in PROMPTS]
    norms = written_norms(w.lm, w.sae, w.found, own, ids, config)
    return list(treatments(w.sae, w.found, own, norms, config))


def one(conditions: list[Treatment], arm: str, dose: float, index: int = 0) -> Treatment:
    (found,) = [c for c in conditions if (c.arm, c.dose, c.set_index) == (arm, dose, index)]
    return found


def test_sets_are_those_of_the_screen() -> None:
    w = world()
    grief, rage = arms_of()
    for arm, by in (("sae_input", "input"), ("sae_output", "output"), ("sae_both", "both")):
        assert grief.sets[arm] == tuple(select(w.found, w.screen, "grief", 2, by=by))
    assert grief.sets["sae_single"] == (PLANTED,)
    assert grief.sets["prompt_sae"] == grief.sets["sae_both"]
    assert rage.sets["sae_input"] == tuple(w.found.top("rage", 2))


def test_random_sets_avoid_every_chosen_latent_and_follow_the_sets_in_turn() -> None:
    both = arms_of()
    chosen = {f for own in both for features in own.sets.values() for f in features}
    for own in both:
        assert [matched for _, matched in own.random].count("sae_input") == 2  # 5 over 4 sets
        assert len(own.random) == 5
        for features, matched in own.random:
            assert not set(features) & chosen
            assert len(set(features)) == len(own.sets[matched])
    clamps = BASE.model_copy(update={"dose_unit": "max_activation"})
    assert len(arms_of(clamps)[0].random) == 5 * 4  # each set has a norm of its own


def test_arms_of_an_emotion_do_not_depend_on_the_other_emotions() -> None:
    together = arms_of()
    (again,) = arms_of(emotions=("rage",))
    rage = together[1]
    np.testing.assert_array_equal(
        rage.directions["random_direction"], again.directions["random_direction"]
    )
    assert rage.sets["sae_output"] == again.sets["sae_output"]


def test_difference_of_means_is_over_own_discovery_pairs() -> None:
    w = world()
    grief = arms_of()[0]
    pairs = [
        p for p in w.battery.pairs
        if p.emotion == "grief" and w.found.parts[p.cluster] == "discovery"
    ]  # fmt: skip
    means = [
        text_means(w.lm, w.sae, [getattr(p, side).text for p in pairs]).resid.astype(float)
        for side in ("clinical", "neutral")
    ]
    wanted = (means[0] - means[1]).mean(0)
    got = grief.directions["diff_of_means"]
    np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_shuffled_labels_choose_otherwise_and_the_same_again() -> None:
    first, again = arms_of(), arms_of()
    assert [a.sets["shuffled"] for a in first] == [a.sets["shuffled"] for a in again]
    other = arms_of(BASE.model_copy(update={"seed": 1}))
    assert [a.sets["shuffled"] for a in first] != [a.sets["shuffled"] for a in other]
    assert any(a.sets["shuffled"] != a.sets["sae_input"] for a in first)


def test_shuffled_choice_leaves_out_what_never_fires() -> None:
    w = world()
    first = {f for own in arms_of() for f in own.sets["shuffled"]}
    silent = w.found.stats["feature"].isin(first)
    stats = w.found.stats.assign(max_active=w.found.stats["max_active"].mask(silent, 0.0))
    found = replace(w.found, stats=stats)
    config = BASE.model_copy(update={"arms": ("shuffled",)})
    again = build_arms(w.lm, w.sae, w.battery, found, w.screen, ["grief", "rage"], config)
    assert not first & {f for own in again for f in own.sets["shuffled"]}


def test_every_arm_and_dose_is_a_condition_and_equal_ones_share_a_key() -> None:
    conditions = conditions_of()
    arms = [c.arm for c in conditions]
    assert set(arms) == set(ARMS)
    assert arms.count("random") == 5 * 2
    assert arms.count("prompt") == arms.count("unedited") == 1
    assert one(conditions, "unedited", 0.0).specs == ()
    assert one(conditions, "prompt", 0.0).instruction == "grief"
    assert one(conditions, "prompt_plain", 0.0).instruction == "plain"
    combined, both = (one(conditions, a, 0.2) for a in ("prompt_sae", "sae_both"))
    assert combined.instruction == "grief"
    assert combined.key.partition("|")[2] == both.key.partition("|")[2]
    assert combined.key != both.key
    keys = {c.key for c in conditions}
    distinct = {(c.instruction, c.dose, c.features, c.arm if not c.features else "")
                for c in conditions}  # fmt: skip
    assert len(keys) == len(distinct)
    single = conditions_of(BASE.model_copy(update={"features_per_emotion": 1}))
    assert one(single, "sae_single", 0.2).key == one(single, "sae_output", 0.2).key


def written(condition: Treatment) -> tuple[float, float]:
    """Mean norm that a condition writes on the prompts, and its mean share of the residual."""
    w = world()
    hook, batch = w.sae.info.hook_name, w.lm.encode(PROMPTS)
    resid = capture(w.lm, [hook], batch)[hook].float()
    edit_fn, tally = residual_edit(w.sae, condition.specs)
    with edit(w.lm, {hook: edit_fn}):
        w.lm.forward_logits(batch)
    keep = batch.attention_mask.bool() & (batch.positions > 0)
    return tally.mean_norm, tally.mean_norm / float(resid.norm(dim=-1)[keep].mean())


def test_shares_of_the_norm_are_equal_over_arms() -> None:
    for condition in conditions_of():
        if condition.specs:
            assert isinstance(condition.specs[0], AddDirection)
            assert written(condition)[1] == pytest.approx(condition.dose, rel=1e-4)


def test_a_set_is_steered_along_the_sum_of_its_decoder_rows() -> None:
    w = world()
    condition = one(conditions_of(), "sae_input", 0.2)
    rows = w.sae.W_dec[list(condition.features)].sum(0).double().numpy()
    vector = np.asarray(condition.specs[0].vector)
    np.testing.assert_allclose(vector, rows / np.linalg.norm(rows), atol=1e-6)
    assert condition.specs[0].unit == "residual_norm"


@pytest.mark.parametrize("unit", ["max_activation", "max_activation_floor"])
def test_clamps_and_directions_at_the_norm_of_the_reference_set(unit: str) -> None:
    config = BASE.model_copy(update={"dose_unit": unit})
    conditions = conditions_of(config)
    kind = Clamp if unit == "max_activation" else MinClamp
    both = one(conditions, "sae_both", 0.5)
    assert isinstance(both.specs[0], kind)
    assert set(both.specs[0].features) == set(both.features)
    wanted = clamp_targets(world().found.stats, both.specs[0].features, 0.5)
    np.testing.assert_allclose(both.specs[0].values, wanted)
    for arm in ("probe", "diff_of_means", "random_direction"):
        assert written(one(conditions, arm, 0.5))[0] == pytest.approx(written(both)[0], rel=1e-4)
    rows = world().sae.W_dec.double().numpy()
    for index in range(20):
        random = one(conditions, "random", 0.5, index)
        matched = one(conditions, random.matched_to, 0.5)
        norms = [
            np.linalg.norm(np.array(c.specs[0].values) @ rows[list(c.specs[0].features)])
            for c in (random, matched)
        ]
        assert norms[0] == pytest.approx(norms[1])


def test_without_a_screen_the_input_side_is_the_reference() -> None:
    w = world()
    config = SteeringStudyConfig(arms=("sae_input", "random", "probe"), features_per_emotion=2)
    (own,) = build_arms(w.lm, w.sae, w.battery, w.found, None, ["grief"], config)
    assert own.reference_arm == "sae_input"
    assert {matched for _, matched in own.random} == {"sae_input"}


def test_what_cannot_be_steered_is_refused() -> None:
    w = world()
    with pytest.raises(ConfigError, match=r"sae_output_score.*run the screen"):
        build_arms(w.lm, w.sae, w.battery, w.found, None, ["grief"], BASE)
    bare = replace(w.found, stats=w.found.stats.iloc[:0])
    for settings in (
        {"arms": ("random",)},
        {"arms": ("sae_input",), "dose_unit": "max_activation"},
    ):
        config = SteeringStudyConfig.parse(settings)
        with pytest.raises(ConfigError, match="no firing statistics"):
            build_arms(w.lm, w.sae, w.battery, bare, None, ["grief"], config)
    config = SteeringStudyConfig(arms=("diff_of_means",))
    other = w.battery.select(emotions=["rage"])
    with pytest.raises(ConfigError, match="'grief' has no discovery pair"):
        build_arms(w.lm, w.sae, other, w.found, None, ["grief"], config)
    moved = replace(w.found, parts=dict.fromkeys(w.found.parts, "confirmation"))
    with pytest.raises(ConfigError, match="use the battery that was searched"):
        build_arms(w.lm, w.sae, w.battery, moved, None, ["grief"], config)
    nothing = replace(w.found, table=w.found.table.assign(mean_diff=-1.0))
    with pytest.raises(ConfigError, match="'grief' has no latent for the arm 'sae_input'"):
        build_arms(w.lm, w.sae, w.battery, nothing, None, ["grief"], BASE_INPUT)


BASE_INPUT = SteeringStudyConfig(arms=("sae_input",))


def test_decoder_rows_that_cancel_name_no_direction() -> None:
    w = world()

    class Opposed:
        W_dec = w.sae.W_dec.clone()

    Opposed.W_dec[1] = -Opposed.W_dec[0]
    own = EmotionArms("grief", {"sae_input": (0, 1)}, (), {})
    with pytest.raises(ConfigError, match="add up to nothing"):
        treatments(Opposed, w.found, [own], {}, BASE_INPUT)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"doses": (0.1, float("nan"))}, "doses"),
        ({"doses": (0.1, float("inf"))}, "doses"),
        ({"doses": (-0.1,)}, "doses"),
        ({"doses": (0.0, 0.1)}, "unedited"),
        ({"doses": (0.1, 0.1)}, "different"),
        ({"doses": ()}, "doses"),
        ({"arms": ("sae_inpt",)}, "arms"),
        ({"arms": ("random", "random")}, "twice"),
        ({"emotions": ("grief", "grief")}, "twice"),
        ({"n_scenarios": 1}, "n_scenarios"),
        ({"dose_units": "x"}, "did you mean 'dose_unit'"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SteeringStudyConfig.parse(settings)
