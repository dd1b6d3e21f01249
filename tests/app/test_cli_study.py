"""`steer --evaluate`: what it takes from the run, what it refuses, what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from affectlens import cli_study
from affectlens.after_search import AfterSearch
from affectlens.cli_arguments import Named
from affectlens.cli_inputs import Loaded
from affectlens.cli_options import Common
from affectlens.console import Console
from affectlens.data.errors import ConfigError
from affectlens.features.study_columns import STEERING_TABLES, WINS_COLUMNS
from affectlens.run_config import RunConfig

from ..features.steered_model import world

NAMED = Named()
SETTINGS = {
    "arms": ("sae_input", "random", "prompt"), "features_per_emotion": 1, "n_random": 1,
    "doses": (0.5,), "max_new_tokens": 3, "scorer": "lexicon", "n_permutations": 100,
}  # fmt: skip


def common(*, as_json: bool = False, limit: int | None = 2) -> Common:
    return Common(True, False, None, None, limit, Console(json=as_json))


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[Common]:
    """A run whose search is that of the planted model; the calls that loaded it."""
    w, seen = world(), []

    def load(_run: Path, _named: Named, given: Common, **_more: object) -> Loaded:
        seen.append(given)
        after = AfterSearch(w.lm, w.sae, w.battery, w.found, w.found.settings, w.found.encoded)
        return Loaded(after, None, RunConfig())

    monkeypatch.setattr(cli_study, "load_searched", load)
    return seen


def test_the_study_is_made_and_shown(
    searched: list[Common], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli_study.evaluate(common(), dict(SETTINGS), tmp_path, NAMED, emotions=["grief"])
    shown = capsys.readouterr().out
    assert "means over 1 emotion(s) and 1 scenarios" in shown
    assert "no output-side choice was compared" in shown
    for name in STEERING_TABLES:
        assert (tmp_path / f"{name}.parquet").exists()
    # The limit is that of scenarios; the battery stays the one that was searched.
    assert [given.limit for given in searched] == [None]


def test_the_answer_for_machines_is_one_object(
    searched: list[Common], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli_study.evaluate(common(as_json=True), dict(SETTINGS), tmp_path, NAMED, emotions=["grief"])
    answer = json.loads(capsys.readouterr().out)
    assert {row["arm"] for row in answer["ranking"]} >= {"unedited", "sae_input", "prompt"}
    assert answer["summary"]["settings"]["n_scenarios"] == 2
    assert answer["wins"] == []


def test_an_arm_that_needs_the_screen_is_refused_without_one(
    searched: list[Common], tmp_path: Path
) -> None:
    settings = SETTINGS | {"arms": ("sae_output", "random")}
    with pytest.raises(ConfigError, match=r"holds no screen.*sae_output.*affectlens screen"):
        cli_study.evaluate(common(), settings, tmp_path, NAMED)
    world().screen.write(tmp_path)
    cli_study.evaluate(common(), settings, tmp_path, NAMED, emotions=["rage"])
    assert (tmp_path / "steering/study.json").exists()


def test_bad_settings_are_refused_before_anything_is_loaded(
    searched: list[Common], tmp_path: Path
) -> None:
    for settings, said in (({"arms": ("nothing",)}, "arms"), ({"doses": (-1.0,)}, "doses")):
        with pytest.raises(ConfigError, match=said):
            cli_study.evaluate(common(), settings, tmp_path, NAMED)
    assert searched == []


def test_the_verdict_is_said_whatever_it_is() -> None:
    row = dict.fromkeys(WINS_COLUMNS, 0) | {
        "arm": "sae_output", "n_emotions": 8, "bar": 4, "reached": False, "emotions": "",
        "score": "overall",
    }  # fmt: skip
    (line,) = cli_study.verdict_lines(pd.DataFrame([row]), 0.05)
    assert line.endswith(
        "in 0 of 8 emotions at a corrected level of 0.05; the stated bar of 4 is not reached"
    )
    row |= {"wins": 4, "reached": True, "emotions": "grief,rage,terror,ecstasy"}
    row["min_p_holm"] = 0.2
    line, limit = cli_study.verdict_lines(pd.DataFrame([row]), 0.05)
    assert "nothing could be found, since the smallest corrected p of this design is 0.2" in limit
    assert "in 4 of 8 emotions (grief, rage, terror, ecstasy) at" in line
    assert line.endswith("the stated bar of 4 is reached")
    masked = row | {"score": "overall_masked", "wins": 1, "reached": False}
    line, _ = cli_study.verdict_lines(pd.DataFrame([row, masked]), 0.05)
    assert line.endswith("is reached; in 1 by scores without emotion words")
