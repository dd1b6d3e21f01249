"""Runs and searches with an SAE that is loaded instead of trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import affectlens as al
from affectlens.sae.errors import SAEError
from affectlens.training.adopt import place_of

Cli = Callable[..., Any]
AFTER = ["controls", "validity", "baselines", "naming", "intervene", "steer"]


@pytest.fixture(scope="module")
def settings(inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study up to the screen."""
    made = yaml.safe_load(inputs.config.read_text())
    made |= {"skip": AFTER}
    made["steer"]["evaluate"] = False
    path = tmp_path_factory.mktemp("settings") / "quick.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


@pytest.fixture(scope="module")
def trained(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained its SAE."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    al.run(al.RunConfig.parse(yaml.safe_load(settings.read_text())), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def elsewhere(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its SAE, as somebody else would have put it on a disk."""
    folder = tmp_path_factory.mktemp("elsewhere") / "sae"
    folder.mkdir()
    for name in ("cfg.json", "sae_weights.safetensors"):
        shutil.copy(trained / "sae" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def loaded(elsewhere: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with that SAE; its place is the SAE's own, whatever the harvest's settings."""
    folder = tmp_path_factory.mktemp("loaded") / "run"
    al.run(_with(settings, elsewhere), folder, quiet=True)
    return folder


def _with(settings: Path, sae: Path) -> al.RunConfig:
    made = yaml.safe_load(settings.read_text())
    return al.RunConfig.parse(
        made | {"sae": str(sae), "harvest": made["harvest"] | {"layers": [0]}}
    )


def test_a_run_with_a_loaded_sae_finds_what_the_run_that_trained_it_found(
    trained: Path, loaded: Path, elsewhere: Path
) -> None:
    for name in ("search/features.csv", "search/screen.csv"):
        assert (loaded / name).read_bytes() == (trained / name).read_bytes()
    made = json.loads((loaded / "run.json").read_text())
    assert "load" in made["stages"] and "train" not in made["stages"]
    assert made["sae"]["trained"] is False and made["sae"]["name"] == str(elsewhere)
    assert "train" not in made["seeds"]
    metrics = [json.loads((f / "sae/metrics.json").read_text()) for f in (loaded, trained)]
    assert metrics[0]["n_training_samples"] == 0 < metrics[1]["n_training_samples"]
    assert metrics[0]["fvu"] == pytest.approx(metrics[1]["fvu"], rel=1e-6)
    assert f"loaded: {elsewhere}" in (loaded / "report.html").read_text()


def test_the_same_run_again_reuses_everything(
    loaded: Path, elsewhere: Path, settings: Path, cli: Cli
) -> None:
    again = cli(
        *("run", "--config", settings, "--sae", elsewhere, "--out", loaded, "--json", "--quiet"),
        *("--set", "harvest.layers=0"),
    )
    assert all(stage["reused"] for stage in again.json["stages"].values())


def test_the_card_of_a_loaded_sae_does_not_claim_the_runs_text(
    trained: Path, loaded: Path, tmp_path: Path
) -> None:
    cards = []
    for name, folder in (("trained", trained), ("loaded", loaded)):
        al.export_sae(al.load_sae(folder / "sae"), tmp_path / name, run=folder)
        cards.append((tmp_path / name / "README.md").read_text())
    assert "SHA-256 of the text" in cards[0] and "SHA-256 of the text" not in cards[1]
    assert "trained on text of one corpus" not in cards[1]


def test_another_sae_in_the_same_folder_is_refused(
    elsewhere: Path, settings: Path, cli: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        yaml.safe_dump(al.RunConfig(sae="somewhere").model_dump(mode="json"))
    )
    refused = cli("run", "--config", settings, "--sae", elsewhere, "--out", run)
    assert refused.code == 2 and "made with other settings" in refused.err


def test_a_search_by_itself_remembers_model_battery_and_sae(
    inputs: Any,
    trained: Path,
    elsewhere: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(elsewhere.parent)
    run = tmp_path / "run"
    few = ("--n-permutations", "200", "--min-items", "2", "--no-controls", "--no-screen")
    named = ("--model", inputs.model, "--battery", inputs.battery, "--sae", "sae")
    store = ("--store", trained / "activations")
    assert cli("search", run, *named, *store, *few, "--quiet").code == 0
    made = yaml.safe_load((run / "config.yaml").read_text())
    assert made["model"] == inputs.model
    assert made["sae"] == str(elsewhere.resolve())
    assert made["search"]["n_permutations"] == 200
    monkeypatch.chdir(tmp_path)
    # Nothing is named: what the search was made with is found from the folder alone.
    steered = cli(
        *("steer", run, "--prompts", "The cart stood.", "--max-new-tokens", "2"),
        *("--strengths", "1", "--json", "--quiet"),
    )
    assert steered.code == 0, steered.err
    assert steered.json["generations"]
    assert cli("search", run, *store, *few, "--quiet").code == 0


def test_an_sae_without_a_place_is_refused(elsewhere: Path) -> None:
    from dataclasses import replace

    sae = al.load_sae(elsewhere)
    assert place_of(sae) == "blocks.2.hook_resid_post"
    sae.info = replace(sae.info, hook_name="")
    with pytest.raises(SAEError, match="does not say where in the model it belongs"):
        place_of(sae)
