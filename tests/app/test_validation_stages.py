"""The stages after a search, by command line, by plain function and in a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file, save_file

import affectlens as al
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.features.testable import untestable

Cli = Callable[..., Any]
SMALL = ["--n-shuffles", "1", "--n-texts", "60", "--n-bootstrap", "100"]
CALIBRATION = ["--n-repeats", "20", "--n-planted", "10", "--n-permutations", "99", "--effects", "1"]


@pytest.fixture(scope="module")
def searched(inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with activations, SAE and search, and nothing after it."""
    from affectlens.pipeline import run

    folder = tmp_path_factory.mktemp("searched") / "run"
    settings = yaml.safe_load(inputs.config.read_text())
    later = ["screen", "controls", "validity", "baselines", "naming", "intervene", "steer"]
    settings["skip"] = later
    settings["steer"]["evaluate"] = False
    result = run(al.RunConfig.parse(settings), folder, quiet=True)
    assert set(result.stages) == {"audit", "harvest", "train", "check", "search", "report"}
    return folder


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A copy of it to write to."""
    return Path(shutil.copytree(searched, tmp_path / "run"))


@pytest.fixture(scope="module")
def opened(searched: Path, inputs: Any) -> tuple[Any, Any, Any, Any]:
    """Model, SAE, battery and search."""
    return (
        al.load_model(inputs.model),
        al.load_sae(searched / "sae"),
        al.load_battery(inputs.battery),
        al.read_search(searched),
    )


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["controls", *SMALL], ["search/controls.csv", "search/control_grains.csv"]),
        (["validity", "--n-permutations", "200"], ["validity/tests.csv", "validity/matrix.csv"]),
        (["baselines", "--n-bootstrap", "100"], ["search/baselines.csv"]),
        (["name", "--n-reference", "99"], ["naming/names.csv", "naming/names.jsonl"]),
        (["calibrate", *CALIBRATION], ["calibration/rates.csv", "calibration/power.csv"]),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else None,
)
def test_each_command_writes_its_tables(
    words: list[str], files: list[str], run: Path, cli: Cli
) -> None:
    result = cli(words[0], run, *words[1:], "--quiet")
    assert result.code == 0, result.err
    assert all((run / name).is_file() for name in files)
    assert len(pd.read_csv(run / files[0]))
    assert cli("report", run, "--quiet").code == 0


def test_a_search_runs_its_controls_and_forgets_what_belongs_to_an_earlier_one(
    run: Path, cli: Cli
) -> None:
    (run / "naming").mkdir()
    (run / "naming/names.csv").write_text("old")
    answer = cli("search", run, "--n-permutations", "200", "--min-items", "2", "--json", "--quiet")
    assert answer.code == 0, answer.err
    controls = pd.read_csv(run / "search/controls.csv")
    for name, counts in answer.json["controls"]["classes"].items():
        assert sum(counts.values()) == (controls["contrast"] == name).sum()
    assert not (run / "naming").exists()
    cli("search", run, "--n-permutations", "200", "--min-items", "2", "--no-controls", "--quiet")
    assert not (run / "search/controls.csv").exists()


def test_search_null_calibrates_the_search_as_it_was_made(
    run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "affectlens.cli_validation.show_calibration", lambda *words: seen.append(words)
    )
    assert cli("search", run, "--null", "--seed", "3").code == 0
    assert (seen[0][0], seen[0][2].seed) == (run, 3)
    refused = cli("search", run, "--null", "--alpha", "0.1")
    assert refused.code == 2
    assert "--null" in refused.err and "alpha" in refused.err


def test_plain_functions_give_what_the_commands_write(
    run: Path, cli: Cli, opened: Any, tmp_path: Path
) -> None:
    lm, sae, battery, found = opened
    cli("controls", run, *SMALL, "--quiet")
    read = al.read_encoded(run)
    small: dict[str, Any] = {"n_shuffles": 1, "n_texts": 60, "n_bootstrap": 100}
    result = al.lexical_controls(
        lm, sae, battery, found, encoded=read, out=tmp_path / "api", quiet=True, **small
    )
    name = "search/controls.csv"
    assert (tmp_path / "api" / name).read_bytes() == (run / name).read_bytes()
    assert len(result.table)


def test_without_an_encoded_battery_it_is_encoded_again(opened: Any, searched: Path) -> None:
    lm, sae, battery, found = opened
    more: dict[str, Any] = {"n_permutations": 200, "quiet": True}
    again = al.check_validity(lm, sae, battery, found, **more)
    read = al.check_validity(lm, sae, battery, found, encoded=al.read_encoded(searched), **more)
    pd.testing.assert_frame_equal(again.table, read.table, rtol=1e-4)


def test_activations_of_another_sae_are_refused(opened: Any, searched: Path) -> None:
    from dataclasses import replace

    lm, sae, battery, found = opened
    other = replace(al.read_encoded(searched), sae_sha256="0" * 64)
    with pytest.raises(ArtifactError, match="give the SAE that was searched"):
        al.check_validity(lm, sae, battery, found, encoded=other, quiet=True)


def test_search_by_function_carries_its_controls(opened: Any) -> None:
    lm, sae, battery, _ = opened
    more: dict[str, Any] = {"n_permutations": 200, "min_items": 2}
    found = al.search(lm, sae, battery, **more)
    assert found.controls is not None and found.encoded is not None
    assert found.encoded.n_items == len(battery.items) == len(found.reads)
    assert al.search(lm, sae, battery, controls=False, **more).controls is None
    assert found.settings.n_permutations == 200


def test_a_search_without_confirmation_says_why_nothing_follows(
    run: Path, cli: Cli, inputs: Any, tmp_path: Path
) -> None:
    settings = yaml.safe_load(inputs.config.read_text())
    settings["search"]["confirmation_share"] = 0.0
    settings["skip"] = ["intervene", "steer"]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings))
    before = run / "search/controls.csv"
    before.write_text("of another search")
    result = cli("run", "--config", file, "--out", run, "--overwrite", "--quiet")
    assert result.code == 0, result.err
    assert not before.exists()
    assert "kept no pairs for confirmation" in (run / "log.jsonl").read_text()
    assert untestable(al.read_search(run).summary).keys() == {"controls"}
    refused = cli("controls", run)
    assert refused.code == 2
    assert "confirmation_share above 0" in refused.err


def test_a_stage_left_out_keeps_only_what_has_the_same_settings(
    run: Path, cli: Cli, inputs: Any, tmp_path: Path
) -> None:
    settings = yaml.safe_load(inputs.config.read_text())
    settings["skip"] = ["controls", "baselines", "validity", "intervene", "steer"]
    file = tmp_path / "study.yaml"

    def go(*words: str) -> Any:
        file.write_text(yaml.safe_dump(settings))
        result = cli("run", "--config", file, "--out", run, "--overwrite", "--json", "-q", *words)
        assert result.code == 0, result.err
        return result.json["stages"]

    assert not go()["naming"]["reused"]
    settings["skip"].append("naming")
    assert go()["naming"]["reused"]
    assert (run / "naming/names.csv").exists()
    settings["validation"]["naming"]["n_tokens"] = 3
    planned = go("--dry-run")
    assert "naming" not in planned
    assert "naming" not in go()
    assert not (run / "naming/names.csv").exists()


def test_naming_needs_activations(run: Path, cli: Cli) -> None:
    shutil.rmtree(run / "activations")
    refused = cli("name", run)
    assert refused.code == 2
    assert "--store" in refused.err


def test_an_unknown_setting_is_refused_before_anything_is_loaded() -> None:
    nothing: Any = None
    with pytest.raises(ConfigError, match="n_shuffles"):
        al.lexical_controls(nothing, nothing, nothing, nothing, n_shuffle=1)


def test_another_sae_model_or_battery_than_the_searched_is_refused(
    run: Path, cli: Cli, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run / "sae", other)
    settings = json.loads((other / "cfg.json").read_text())
    del settings["integrity"]
    (other / "cfg.json").write_text(json.dumps(settings))
    weights = {k: 1.5 * v for k, v in load_file(other / "sae_weights.safetensors").items()}
    save_file(weights, other / "sae_weights.safetensors")
    (run / "naming").mkdir()
    for words in (
        ["name", run],
        ["validity", run],
        ["compare", run, "--against", other],
        ["export", run, "--to", "neuronpedia", "--out", tmp_path / "x"],
        ["intervene", run],
        ["steer", run],
    ):
        refused = cli(*words, "--sae", other, "--quiet")
        assert refused.code == 3, words
        assert "give the SAE that was searched" in refused.err
    refused = cli("name", run, "--model", "tiny:gpt2", "--quiet")
    assert refused.code == 3
    assert "fingerprint" in refused.err
    for words in (["calibrate", run], ["search", run, "--null"]):
        refused = cli(*words, "--limit", "8", "--quiet")
        assert refused.code == 2
        assert "give the battery that was searched" in refused.err
    assert not list((run / "naming").iterdir())


def test_a_search_removes_the_effects_of_an_earlier_one(run: Path, opened: Any) -> None:
    (run / "effects").mkdir()
    (run / "effects/verdicts.csv").write_text("old")
    opened[3].write(run)
    assert not (run / "effects").exists()


def test_the_report_of_a_run_takes_up_what_other_commands_added(
    run: Path, cli: Cli, inputs: Any, tmp_path: Path
) -> None:
    settings = yaml.safe_load(inputs.config.read_text())
    later = ["screen", "controls", "validity", "baselines", "naming", "intervene", "steer"]
    settings["skip"] = later
    settings["steer"]["evaluate"] = False
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings))
    words = ["run", "--config", file, "--out", run, "--json", "-q"]
    assert cli(*words).json["stages"]["report"]["reused"]
    assert cli("calibrate", run, *CALIBRATION, "-q").code == 0
    assert not cli(*words, "--dry-run").json["stages"]["report"]["reused"]
    assert not cli(*words).json["stages"]["report"]["reused"]
    assert cli(*words).json["stages"]["report"]["reused"]
