from dataclasses import replace

import pandas as pd
import pytest

from affectlens.report.loading import RunData
from affectlens.report.study import scorer_card, study_view, wins_lines
from affectlens.report.study_texts import study_texts


def _with(data: RunData, name: str, table: pd.DataFrame) -> RunData:
    return replace(data, tables={**data.tables, name: table})


def test_leads_name_the_best_and_where_latents_stand(causal: RunData) -> None:
    view = study_view(causal)
    assert view is not None
    leads = dict(view.leads)
    best = leads["Which works best?"]
    assert best.startswith("Highest overall score: prompt naming it 0.66")
    assert (
        "that was best on the scenarios that chose the doses is SAE by output: place 3 of 8" in best
    )
    assert "unedited 0.15" in best
    asking = leads["Against simply asking"]
    assert "the whole interval lies below 0, so the prompt does better" in asking
    assert "It is not shown to beat the prompt over all emotions" in asking
    assert "0.28 as written, 0.20 with emotion words taken out" in leads["Evoked or merely named?"]
    assert "60% of texts name it" in leads["Evoked or merely named?"]


def test_the_bar_is_reached_or_not_in_words(causal: RunData, causal_null: RunData) -> None:
    first, second = wins_lines(causal)
    assert "both in 4 (grief, terror, rage and ecstasy)" in first
    assert first.endswith(
        "The bar set before the study was 4: reached. By scores without emotion words it wins 2."
    )
    assert "it wins 0. What is not shown to win is not shown to lose." in second
    assert all("not reached" in line for line in wins_lines(causal_null))


def test_a_design_that_could_find_nothing_says_so(causal_null: RunData) -> None:
    table = causal_null.tables["steering/wins"].assign(min_p_holm=0.25)
    lines = wins_lines(_with(causal_null, "steering/wins", table))
    assert all(
        "smallest corrected p is 0.25, so nothing could have been found." in x for x in lines
    )


def test_coherence_is_shown_or_not_shown(causal: RunData) -> None:
    view = study_view(causal)
    assert view is not None
    assert "None of 5 steered arms is shown to keep" in dict(view.leads)["What it costs"]
    ranking = causal.tables["steering/ranking"]
    kept = ranking.assign(coherence_equivalent=ranking.arm == "sae_input")
    one = study_view(_with(causal, "steering/ranking", kept))
    assert one is not None
    said = dict(one.leads)["What it costs"]
    assert "1 of 5 steered arms is shown" in said and "SAE by input" in said
    assert "For the others it is not shown." in said


def test_topic_that_was_not_measured_is_named(causal: RunData) -> None:
    assert causal.study_summary is not None
    summary = replace(causal.study_summary, on_topic_measured=False)
    view = study_view(replace(causal, study_summary=summary))
    assert view is not None
    assert "staying on topic could not be measured" in dict(view.leads)["What it costs"]


def test_doses_of_random_sets_are_a_range(causal: RunData) -> None:
    chosen = causal.tables["steering/chosen"].copy()
    own = (chosen.arm == "random") & (chosen.emotion == "rage")
    chosen.loc[own, "dose"] = [0.1, 0.8]
    view = study_view(_with(causal, "steering/chosen", chosen))
    assert view is not None and view.doses is not None
    row = next(r for r in view.doses.rows if r.name == "random latents")
    assert row.cells[0].text == "0.1 to 0.8" and row.cells[0].below.startswith("score ")
    assert not any("prompt" in r.name for r in view.doses.rows)


def test_comparisons_count_emotions_and_never_call_a_null_a_loss(causal: RunData) -> None:
    view = study_view(causal)
    assert view is not None and view.comparisons is not None
    row = next(r for r in view.comparisons.rows if r.name == "SAE by output")
    assert row.cells[0].below.endswith("in\xa08\xa0of\xa08") and row.cells[1].text == "–"
    assert [b.title for b in view.blocks] == [
        "SAE by input",
        "SAE by output score",
        "SAE by output",
    ]
    cells = [c for b in view.blocks for r in b.table.rows for c in r.cells]
    assert not any("los" in c.text + c.below for c in cells)


def test_the_scorer_stands_with_its_accuracy(causal: RunData) -> None:
    assert causal.study_summary is not None
    card = dict(scorer_card(causal.study_summary.scorer))
    assert card["Held-out accuracy"] == "62% right (58% to 66%), 900 texts; guessing gives 10%"
    assert card["On passages that do not"].startswith("44% right")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"name": "hub", "kind": "model", "held_out": None}, "none was measured"),
        ({"name": "lexicon", "kind": "counts", "fitted": False}, "it was fitted to nothing"),
        ({}, "none was measured"),
    ],
)
def test_a_scorer_without_held_out_accuracy_says_so(card: dict[str, object], said: str) -> None:
    assert said in dict(scorer_card(card))["Held-out accuracy"]


@pytest.mark.parametrize("accuracy", [None, 3, {"share": None}, {"share": "high"}])
def test_a_damaged_card_shows_no_number(accuracy: object) -> None:
    rows = scorer_card({"name": "x", "held_out": {"accuracy": accuracy, "recall": {"a": None}}})
    assert "Held-out accuracy" not in dict(rows)


def test_texts_are_picked_by_rule_on_the_reported_half(causal: RunData) -> None:
    found = study_texts(causal)
    assert len(found.groups) == 8
    labels = [c.label for c in found.groups[0].columns]
    assert labels[:2] == ["unedited", "prompt naming it"]
    assert labels[2].startswith("SAE by ") and labels[3].startswith("random latents at ")
    assert {g.prompt for g in found.groups} == {"s02"}  # the first that chose no dose
    assert "first of 4 scenarios" in found.rule
    # The arm is picked by the other half, not by what is shown.
    chosen = causal.tables["steering/chosen"].copy()
    chosen.loc[chosen.arm == "sae_input", "select_overall"] = 0.99
    again = study_texts(_with(causal, "steering/chosen", chosen))
    assert again.groups[0].columns[2].label.startswith("SAE by input")


def test_an_empty_text_is_called_empty(causal: RunData) -> None:
    table = causal.tables["steering/texts"].assign(text=" ")
    found = study_texts(_with(causal, "steering/texts", table))
    assert {c.text for g in found.groups for c in g.columns} == {"(empty)"}


def test_no_study_no_section(positive: RunData) -> None:
    assert study_view(positive) is None and wins_lines(positive) == []
    assert study_texts(positive).groups == ()
