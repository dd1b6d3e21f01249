from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from affectlens.data.errors import ArtifactError
from affectlens.report import findings as public_findings
from affectlens.report.facts import power
from affectlens.report.findings import doubtful_readouts, main_findings
from affectlens.report.loading import RunData


def test_positive_run_says_what_was_found_and_its_limits(positive: RunData) -> None:
    first, second, third = main_findings(positive)
    assert first.headline.startswith("6 features tell emotional texts")
    assert "words alone also tell these texts apart" in first.detail
    assert first.tone == "mixed"
    assert "4 of 8 emotions" in second.headline and "grief (3)" in second.detail
    assert "Nothing was confirmed for ecstasy" in second.detail
    assert "4 of 24 tests" in third.headline
    assert "no emotion of 8" in third.detail


def test_without_lexical_warning_nothing_is_held_against_the_features(positive: RunData) -> None:
    assert positive.summary is not None
    clean = replace(positive, summary=replace(positive.summary, lexical_warning=""))
    assert main_findings(clean)[0].tone == "found"
    assert "words alone" not in main_findings(clean)[0].text


def test_negative_results_are_stated_plainly(null: RunData) -> None:
    found = main_findings(null)
    assert [f.tone for f in found] == ["none", "none", "none"]
    assert [f.value for f in found] == ["0", "0", "0"]
    assert found[0].headline.startswith("No feature was confirmed")
    assert "d_z of about 1.34" in found[0].detail
    assert "no more than editing random features" in found[2].headline


def test_nothing_could_be_carried_to_confirmation(null: RunData) -> None:
    assert null.summary is not None
    nothing = dict.fromkeys(null.summary.n_retained, 0)
    data = replace(null, summary=replace(null.summary, n_retained=nothing))
    first, second, _ = main_findings(data)
    assert "None could be tested again" in first.detail
    assert "too few for any candidate" in second.detail
    assert "No candidate could be carried" in " ".join(power(data))


def test_an_undetectable_effect_is_not_given_a_size(null: RunData) -> None:
    assert null.summary is not None
    data = replace(null, summary=replace(null.summary, min_detectable_d_z=1000.0))
    assert "no single feature could have passed" in main_findings(data)[0].detail
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
    readout = positive.readout.assign(p=1.0)
    third = main_findings(replace(positive, readout=readout))[2]
    assert "measure itself is doubtful for grief" in third.detail.replace("rage, ", "")


def test_readout_in_the_wrong_direction_is_doubtful(positive: RunData) -> None:
    assert positive.readout is not None
    readout = positive.readout.assign(p=0.001, mean_diff=-1.0)
    assert len(doubtful_readouts(replace(positive, readout=readout))) == 8


def test_an_unknown_intervention_keeps_its_own_name(positive: RunData) -> None:
    verdicts: pd.DataFrame = positive.verdicts.assign(intervention="patch")  # type: ignore[union-attr]
    assert "Patch: " in main_findings(replace(positive, verdicts=verdicts))[2].detail


def test_public_findings_are_three_sentences_safe_to_print(hostile_run: Path) -> None:
    lines = public_findings(hostile_run)
    assert len(lines) == 3
    assert all(isinstance(line, str) and "\x1b" not in line for line in lines)


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no results"):
        public_findings(tmp_path)
