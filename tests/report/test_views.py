from dataclasses import replace

import pytest

from affectlens.features.results import Context, Generation
from affectlens.report import contrasts, controlled, doses, facts, views
from affectlens.report.loading import RunData


def test_blocks_cover_every_contrast_confirmed_first(positive: RunData) -> None:
    blocks = contrasts.contrast_blocks(positive)
    assert [b.name for b in blocks][:3] == ["all", "rage", "grief"]
    assert [b.n_confirmed for b in blocks[:4]] == [6, 1, 3, 2]
    for block in blocks:
        states = [row.confirmed for row in block.rows]
        assert states == sorted(states, reverse=True)
        assert sum(states) == block.n_confirmed
        assert block.note.split(" ")[0] == str(20 - len(block.rows))


def test_the_interval_of_the_confirmation_stands_below_its_effect(positive: RunData) -> None:
    table = positive.features
    assert table is not None
    known = table.assign(confirm_d_z_low=0.4, confirm_d_z_high=1.2)
    block = contrasts.contrast_blocks(replace(positive, features=known))[0]
    assert block.rows[0].confirm_interval == "+0.40 to +1.20"
    endless = table.assign(confirm_d_z_low=float("-inf"), confirm_d_z_high=1.2)
    block = contrasts.contrast_blocks(replace(positive, features=endless))[0]
    assert block.rows[0].confirm_interval == ""


def test_k_is_shown_as_a_whole_number(positive: RunData) -> None:
    sae = {**positive.info["sae"], "k": 32.0}
    whole = replace(positive, info={**positive.info, "sae": sae})
    assert dict(facts.what_was_run(whole))["SAE"] == "topk, 4,608 features, k = 32"
    none = replace(positive, info={**positive.info, "sae": {**sae, "k": None}})
    assert dict(facts.what_was_run(none))["SAE"] == "topk, 4,608 features"


def test_snippet_is_cut_around_its_peak_and_shaded() -> None:
    n = 60
    acts = [0.0] * n
    acts[30], acts[29] = 8.0, 2.0
    context = Context(5, "doc", 40, 30, [f" t{i}" for i in range(n)], acts)
    got = contrasts.snippet(context)
    assert got.cut_left and got.cut_right
    assert len(got.tokens) == 2 * contrasts.TOKENS_EACH_SIDE + 1
    shades = {t.text: t.shade for t in got.tokens}
    assert shades["t30"] == contrasts.SHADES
    assert 0 < shades["t29"] < contrasts.SHADES
    assert shades["t28"] == 0
    assert (got.tokens[0].space, got.tokens[1].space) == ("", " ")


@pytest.mark.parametrize("acts", [[0.0, 0.0], [-1.0, 0.0], [float("nan"), 0.0]])
def test_a_context_without_activation_is_not_shaded(acts: list[float]) -> None:
    got = contrasts.snippet(Context(1, "d", 0, 0, ["a\n", "b"], acts))
    assert [t.shade for t in got.tokens] == [0, 0]
    assert got.tokens[0].text == "a↵"


def test_every_verdict_is_shown(positive: RunData) -> None:
    blocks = views.verdict_blocks(positive)
    assert sum(len(b.rows) for b in blocks) == 24
    assert [b.n_passed for b in blocks] == [1, 0, 3]
    assert [b.predicted for b in blocks] == ["lower", "lower", "higher"]
    assert {r.emotion for b in blocks for r in b.rows if r.doubtful} == {"vigilance"}


def test_an_advantage_without_limits_shows_none(positive: RunData) -> None:
    bare = positive.verdicts.assign(advantage_low=float("nan"))  # type: ignore[union-attr]
    blocks = views.verdict_blocks(replace(positive, verdicts=bare))
    assert not any(row.advantage_ends for block in blocks for row in block.rows)
    first = views.verdict_blocks(positive)[0].rows[0]
    assert " to " in first.advantage_ends


def test_verdicts_show_both_corrections_and_the_strongest_control(positive: RunData) -> None:
    clamp = views.verdict_blocks(positive)[2]
    grief = next(row for row in clamp.rows if row.emotion == "grief")
    assert (grief.p, grief.p_family, grief.dose) == ("0.031", "0.040", "2×")
    assert (grief.strongest, grief.strongest_arm) == ("+2.40", "prompt naming it")
    assert grief.passes and not grief.beats_controls and clamp.n_beyond == 0
    assert views.verdict_blocks(positive)[0].rows[0].dose == ""


def test_doses_say_where_they_were_chosen_and_which_is_reported(positive: RunData) -> None:
    (table,) = doses.dose_tables(positive)
    assert len(table.rows) == 24 and table.heads[2].unit == "nats, chooses"
    reported = [row.cells[0].text for row in table.rows if row.cells[-1].text == "reported"]
    assert reported == ["2×"] * 8
    assert "16 pairs of the discovery part" in doses.dose_rule(positive)
    one = positive.tables["effects/doses"].query("strength == 2")
    data = replace(positive, tables={**positive.tables, "effects/doses": one})
    assert doses.dose_tables(data) == []
    summary = replace(positive.effects_summary, doses={"clamp": [2.0]})  # type: ignore[type-var]
    assert "one dose, set beforehand" in doses.dose_rule(replace(data, effects_summary=summary))


def test_norms_of_controls_are_compared_with_the_chosen(positive: RunData) -> None:
    table = doses.norm_table(positive)
    assert table is not None
    random = next(row for row in table.rows if row.name == "Random features")
    assert random.cells[3].text == "1.00 to 1.19"
    assert not any("prompt" in row.name.lower() for row in table.rows)
    assert "1.00 to 1.19 times" in doses.norm_sentence(positive)
    assert "they are no equal control" in doses.norm_sentence(positive)
    equal = positive.effects.assign(norm_ratio=1.0)  # type: ignore[union-attr]
    said = doses.norm_sentence(replace(positive, effects=equal))
    assert said.endswith("1.00 to 1.00 times the total norm of the chosen features.")
    assert doses.missing_arms(positive) == "Could not be made: shuffled labels (vigilance)."


def test_the_simpler_method_is_compared_in_the_predicted_direction(positive: RunData) -> None:
    assert "in 24 of 24 tests" in views.simpler_method(positive)
    without = positive.effects[positive.effects.arm != "diff_of_means"]  # type: ignore[index,union-attr]
    assert views.simpler_method(replace(positive, effects=without)) == ""


def test_texts_stand_side_by_side_unedited_first_and_once(positive: RunData) -> None:
    groups, hidden = views.text_groups(positive)
    assert hidden == 0
    assert [c.label for c in groups[0].columns] == [
        "Unedited",
        "Chosen features at 2×",
        "Random features at 2×",
    ]
    same = Generation("joy", [], "random", 0.0, "p", "same", 0)
    twice = replace(positive, generations=(same, replace(same, arm="chosen")))
    assert len(views.text_groups(twice)[0][0].columns) == 1


def test_groups_beyond_the_limit_are_counted(positive: RunData) -> None:
    many = tuple(Generation("joy", [], "chosen", 1.0, f"p{i}", "t", 0) for i in range(40))
    groups, hidden = views.text_groups(replace(positive, generations=many))
    assert len(groups) + hidden == 40


def test_dropped_words_are_named(positive: RunData) -> None:
    assert views.dropped_words(positive) == ""
    summary = replace(positive.effects_summary, dropped_words={"grief": ["bereft"], "rage": []})  # type: ignore[type-var]
    assert "grief: bereft" in views.dropped_words(replace(positive, effects_summary=summary))


def test_power_states_family_and_what_could_not_pass(positive: RunData, null: RunData) -> None:
    lines = " ".join(facts.power(positive))
    assert "Family: 16,857 tests" in lines
    assert "d_z = 1.34 (mean" in lines and "for a single emotion 2.60." in lines
    assert "at least 11 would have to reach it" in lines
    assert "could not have succeeded" not in lines
    # 8 scene groups, 20 retained: even the smallest one-sided p (1/256) times 20 is above .05.
    summary = replace(null.summary, confirm_min_p={"all": 1 / 256})  # type: ignore[type-var]
    said = " ".join(facts.power(replace(null, summary=summary)))
    assert "confirmation of ‘any emotion’ could not have succeeded after correction: " in said
    assert "smallest adjusted p is 0.078" in said
    assert "has no such floor" not in said


def test_hopeless_verdicts_are_named(positive: RunData) -> None:
    few = positive.verdicts.assign(min_p=0.25)  # type: ignore[union-attr]
    assert "Too few scene groups" in " ".join(facts.power(replace(positive, verdicts=few)))
    assert "Too few scene groups" not in " ".join(facts.power(positive))
    assert "over all 40 tests of emotions" in " ".join(facts.power(positive))
    assert "at once, 3 of 24 verdicts keep p ≤ 0.05 (4 beat" in " ".join(facts.power(positive))


def test_controls_list_only_what_was_run(positive: RunData) -> None:
    names = [name for name, _ in controlled.controls(positive)]
    assert "Any edit of this size" in names and "A simpler method" in names
    without = replace(positive, effects=None, verdicts=None, metrics=None)
    assert "Any edit of this size" not in [name for name, _ in controlled.controls(without)]
    assert controlled.controls(RunData(positive.path)) == []


def test_a_poor_sae_is_called_coarse(positive: RunData) -> None:
    assert "usable lens" in facts.quality_verdict(positive)
    poor = replace(positive, metrics=replace(positive.metrics, fvu=0.6))  # type: ignore[type-var]
    assert "coarse lens" in facts.quality_verdict(poor)
    unknown = replace(positive, metrics=replace(positive.metrics, ce_recovered_mean=None))  # type: ignore[type-var]
    assert "next-token" not in facts.quality_verdict(unknown)
    assert "–" in [value for _, value, _ in facts.quality(unknown)]


def test_provenance_without_run_json(positive: RunData) -> None:
    rows = facts.provenance(RunData(positive.path))
    assert {value for _, value in rows} == {"not recorded"}
    assert "intervene 240 s (reused)" in dict(facts.provenance(positive))["Stages"]
