from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from affectlens.data.errors import ArtifactError
from affectlens.report import findings as public_findings
from affectlens.report.facts import power
from affectlens.report.finding import Finding
from affectlens.report.findings import main_findings
from affectlens.report.loading import RunData
from affectlens.report.readout_check import doubtful_readouts


def test_positive_run_says_what_was_found_and_its_limits(positive: RunData) -> None:
    first, second, third = main_findings(positive)
    assert first.headline.startswith("6 features tell emotional texts")
    assert "words alone also tell these texts apart" in first.detail
    assert first.tone == "mixed"
    assert "4 of 8 emotions" in second.headline and "grief (3)" in second.detail
    assert "Nothing was confirmed for ecstasy" in second.detail
    assert "4 of 24 tests" in third.headline
    assert "no emotion of 8" in third.detail
    assert "Of these none also beats every other edit of equal norm" in third.detail
    assert "over all tests of the run, 3 stay." in third.detail


def test_without_controls_it_is_said_that_words_were_not_tested(positive: RunData) -> None:
    assert positive.summary is not None
    clean = replace(positive, summary=replace(positive.summary, lexical_warning=""))
    first = main_findings(clean)[0]
    assert first.tone == "mixed"
    assert "words alone" not in first.text
    assert "was not tested (no controls)" in first.detail


def test_classes_and_baselines_stand_in_the_headline(validated: RunData) -> None:
    first, second, _ = main_findings(validated)
    assert first.headline == (
        "6 features tell emotional texts from their neutral twins; 2 are contextual, 2 mixed, 2 "
        "lexical. Words alone (TF-IDF) and a probe without the SAE separate the texts better than "
        "a best feature chosen in the same way."
    )
    assert first.tone == "mixed"
    assert "ords alone (TF-IDF) separate" in second.headline
    assert "better than a best feature chosen in the same way" in second.headline
    assert "where the topic helps them" in second.detail
    assert "was not tested" not in first.detail


def _clean(data: RunData, verdicts: dict[str, str]) -> RunData:
    """Without warning, and with these verdicts on 'all' by method."""
    assert data.summary is not None
    table = data.tables["search/baselines"].copy()
    for method, verdict in verdicts.items():
        table.loc[(table.method == method) & (table.target == "all"), "verdict"] = verdict
    return replace(
        data,
        summary=replace(data.summary, lexical_warning=""),
        tables={**data.tables, "search/baselines": table},
    )


def test_nothing_held_against_contextual_features_is_found(validated: RunData) -> None:
    better = dict.fromkeys(("tfidf_words", "dense_probe"), "SAE latent better")
    first = main_findings(_clean(validated, better))[0]
    assert first.tone == "found"
    assert first.headline.endswith("2 are contextual, 2 mixed, 2 lexical.")


@pytest.mark.parametrize(
    ("words", "probe", "said"),
    [
        (
            "not distinguishable",
            "SAE latent better",
            "Words alone (TF-IDF) are not distinguishable from a best feature chosen in the same",
        ),
        (
            "not distinguishable",
            "SAE latent worse",
            "same way, and a probe without the SAE separates the texts better.",
        ),
        ("SAE latent better", "SAE latent worse", "A probe without the SAE separates the texts"),
    ],
)
def test_a_method_in_reach_of_the_feature_is_named(
    validated: RunData, words: str, probe: str, said: str
) -> None:
    data = _clean(validated, {"tfidf_words": words, "dense_probe": probe})
    assert said in main_findings(data)[0].headline


def test_no_contextual_feature_is_never_plainly_found(validated: RunData) -> None:
    better = dict.fromkeys(("tfidf_words", "dense_probe"), "SAE latent better")
    data = _clean(validated, better)
    table = data.tables["search/controls"].replace({"class": {"contextual": "mixed"}})
    data = replace(data, tables={**data.tables, "search/controls": table})
    assert main_findings(data)[0].tone == "mixed"


def _specific(data: RunData, verdicts: list[str]) -> RunData:
    assert data.features is not None
    rows = data.features[data.features.confirmed & (data.features.contrast == "grief")]
    table = pd.DataFrame({"selected_for": "grief", "feature": rows.feature[: len(verdicts)]})
    table = table.assign(part="confirmation", verdict=verdicts)
    return replace(data, tables={**data.tables, "validity/specific": table})


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["fails", "unknown"], "Of 2 such features none is shown to exceed every single other"),
        (["holds", "fails"], "Of 2 such features 1 is shown"),
        (["holds", "holds"], "Of 2 such features 2 are shown"),
    ],
)
def test_specific_is_said_only_of_what_exceeds_every_other_emotion(
    positive: RunData, verdicts: list[str], said: str
) -> None:
    assert said in main_findings(_specific(positive, verdicts))[1].detail
    assert "such feature" not in main_findings(positive)[1].detail
    assert "such feature" not in main_findings(_specific(positive, []))[1].detail


def test_negative_results_are_stated_plainly(null: RunData) -> None:
    found = main_findings(null)
    assert [f.tone for f in found] == ["none", "none", "none"]
    assert [f.value for f in found] == ["0", "0", "0"]
    assert found[0].headline.startswith("No feature was confirmed")
    assert "d_z of about 1.34" in found[0].detail
    assert "d_z of about 2.60" in found[1].detail
    assert found[2].headline.startswith("It is not shown that editing the chosen features")


def test_nothing_could_be_carried_to_confirmation(null: RunData) -> None:
    assert null.summary is not None
    nothing = dict.fromkeys(null.summary.n_retained, 0)
    data = replace(null, summary=replace(null.summary, n_retained=nothing))
    first, second, _ = main_findings(data)
    assert "No candidate was left to test again." in first.detail
    assert "No candidate was left to test again." in second.detail
    assert "No candidate could be carried" in " ".join(power(data))


def test_without_scenes_kept_aside_no_retest_is_claimed(null: RunData) -> None:
    assert null.summary is not None
    data = replace(null, summary=replace(null.summary, n_pairs_confirmation=0))
    first, second, _ = main_findings(data)
    for text in (first.detail, second.detail, " ".join(power(data))):
        assert "No scenes were kept aside" in text
        assert "tested again on scenes" not in text and "went into confirmation" not in text


def test_an_untested_family_is_not_given_a_size(null: RunData) -> None:
    assert null.summary is not None
    data = replace(null, summary=replace(null.summary, n_tested=0))
    assert "No feature was tested." in main_findings(data)[0].detail
    assert "d_z" not in main_findings(data)[0].detail


def _family(data: RunData, kept: int) -> RunData:
    assert data.summary is not None
    counts = {c: min(kept, n) for c, n in data.summary.n_confirmed.items()}
    found = data.summary.n_significant_fwer
    summary = replace(data.summary, n_confirmed_family=counts, n_significant_family=found)
    return replace(data, summary=summary)


def test_counts_over_all_searches_stand_in_the_findings(positive: RunData) -> None:
    first, second, _ = main_findings(_family(positive, 1))
    assert "over all 9 searches together, 1 of the 6 stays confirmed." in first.detail
    assert "over all 9 searches together, 4 of the 7 stay confirmed." in second.detail
    assert "in up to 40% of runs" in second.detail
    none = main_findings(_family(positive, 0))
    assert "together, none of the 6 stays confirmed." in none[0].detail
    assert "6 of 13" not in " ".join(power(_family(positive, 0)))
    assert "0 of 13 confirmed" in " ".join(power(_family(positive, 0)))


def test_a_correction_that_nothing_can_pass_is_named(positive: RunData) -> None:
    assert positive.summary is not None
    data = _family(positive, 0)
    assert data.summary is not None
    small = {c: 0.0001 if c == "all" else 0.002 for c in data.summary.confirm_min_p}
    data = replace(data, summary=replace(data.summary, confirm_min_p=small))
    first, second, _ = main_findings(data)
    assert "none could" in second.detail and "none could" not in first.detail
    said = " ".join(power(data))
    assert "could not have succeeded after correction over all searches together" in said


def test_a_finding_that_no_common_level_keeps_is_not_plainly_found(validated: RunData) -> None:
    data = _clean(validated, dict.fromkeys(("tfidf_words", "dense_probe"), "SAE latent better"))
    assert main_findings(_family(data, 1))[0].tone == "found"
    assert main_findings(_family(data, 0))[0].tone == "mixed"


def test_an_undetectable_effect_is_not_given_a_size(null: RunData) -> None:
    assert null.summary is not None
    never = dict.fromkeys(null.summary.min_detectable, 1000.0)
    summary = replace(null.summary, min_detectable_d_z=1000.0, min_detectable=never)
    data = replace(null, summary=summary)
    assert "no single feature could have passed" in main_findings(data)[0].detail
    assert "no single feature could have passed" in main_findings(data)[1].detail
    assert "1000" not in " ".join(power(data))


def test_stages_not_run_are_said_to_be_missing(tmp_path: Path) -> None:
    found = main_findings(RunData(tmp_path))
    assert [f.tone for f in found] == ["missing"] * 3


def test_empty_verdicts_count_as_not_run(positive: RunData) -> None:
    assert positive.verdicts is not None
    empty = replace(positive, verdicts=positive.verdicts.iloc[:0])
    assert main_findings(empty)[2].tone == "missing"


def test_a_winner_with_a_failed_readout_is_flagged(positive: RunData) -> None:
    assert positive.readout is not None
    assert doubtful_readouts(positive) == ["vigilance"]
    readout = positive.readout.assign(p_cluster=1.0)
    third = main_findings(replace(positive, readout=readout))[2]
    assert "measure itself is doubtful for grief" in third.detail.replace("rage, ", "")


def test_readout_in_the_wrong_direction_is_doubtful(positive: RunData) -> None:
    assert positive.readout is not None
    readout = positive.readout.assign(p_cluster=0.001, mean_diff=-1.0)
    assert len(doubtful_readouts(replace(positive, readout=readout))) == 8


def test_a_readout_is_judged_over_scene_groups_and_scales_are_none(positive: RunData) -> None:
    assert positive.readout is not None
    few = positive.readout.assign(p=0.001, p_cluster=0.2)
    assert len(doubtful_readouts(replace(positive, readout=few))) == 8
    unknown = positive.readout.assign(p_cluster=float("nan"))
    assert doubtful_readouts(replace(positive, readout=unknown)) == ["vigilance"]
    scales = positive.readout.assign(emotion="valence", p_cluster=1.0)
    assert doubtful_readouts(replace(positive, readout=scales)) == []


def test_an_unknown_intervention_keeps_its_own_name(positive: RunData) -> None:
    verdicts: pd.DataFrame = positive.verdicts.assign(intervention="patch")  # type: ignore[union-attr]
    assert "Patch: " in main_findings(replace(positive, verdicts=verdicts))[2].detail


def _causal(data: RunData) -> dict[str, Finding]:
    return dict(zip(("screen", "mediation", "study"), main_findings(data)[3:], strict=True))


def test_the_causal_stages_each_add_a_finding(causal: RunData) -> None:
    found = _causal(causal)
    assert found["screen"].value == "25" and "of 80 features that respond" in found["screen"].text
    assert "it ranks, and tests nothing" in found["screen"].detail
    assert found["mediation"].tone == "mixed" and found["mediation"].value == "7"
    assert "1 emotion without a measurable difference" in found["mediation"].detail
    assert "0.35 of it is there where only the SAE’s error is left" in found["mediation"].detail
    assert "not corrected for the number of emotions" in found["mediation"].detail
    assert found["study"].tone == "mixed" and found["study"].value == "4"
    assert "in 4 of 8 emotions; the bar of 4 set beforehand is reached" in found["study"].headline
    assert "Highest of all scored prompt naming it." in found["study"].detail


def test_nulls_of_the_causal_stages_are_not_shown_and_not_disproved(causal_null: RunData) -> None:
    found = _causal(causal_null)
    assert found["mediation"].tone == "none"
    assert found["mediation"].headline.startswith("It is not shown that any")
    assert found["study"].tone == "none" and "is not reached" in found["study"].headline
    assert "is not shown to lose" in found["study"].detail


def test_no_shared_latent_and_no_measurable_share_are_said(causal: RunData) -> None:
    table = causal.tables["search/screen"]
    apart = table.assign(clamp_per_norm=table.input_rank)
    blank = causal.tables["effects/mediation"].assign(value=float("nan"))
    tables = {**causal.tables, "search/screen": apart, "effects/mediation": blank}
    found = _causal(replace(causal, tables=tables))
    assert found["screen"].tone == "none" and found["screen"].value == "0"
    assert found["screen"].headline.startswith("No feature that responds most")
    assert found["mediation"].headline.startswith("No share of an emotion’s difference")


def test_a_study_without_the_judged_arms_only_ranks(causal: RunData) -> None:
    wins = causal.tables["steering/wins"].iloc[:0]
    found = _causal(replace(causal, tables={**causal.tables, "steering/wins": wins}))
    assert "prompt naming it scored highest" in found["study"].headline


def test_public_findings_are_three_sentences_safe_to_print(hostile_run: Path) -> None:
    lines = public_findings(hostile_run)
    assert len(lines) == 3
    assert all(isinstance(line, str) and "\x1b" not in line for line in lines)


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no results"):
        public_findings(tmp_path)
