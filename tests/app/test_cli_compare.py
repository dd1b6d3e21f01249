"""`compare` and `export`: several SAEs in one pass, what is refused, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sae_lens
import torch
import typer
import yaml
from safetensors.numpy import load_file

from affectlens import cli_compare, cli_export, cli_inputs, sae_comparison
from affectlens.cli_runtime import call
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel, load_model
from affectlens.data.stimuli import Battery, load_battery
from affectlens.features.config import SearchConfig
from affectlens.features.results import read_table
from affectlens.features.search import SearchResult, search
from affectlens.sae.errors import SAEError
from affectlens.sae.loading import load_sae
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae_comparison import LoadedOnDemand

HOOK = "blocks.2.hook_resid_post"
CONFIG = SearchConfig(pooling="mean", n_permutations=200, min_items=2, alpha=0.2)
Run = Callable[..., int]


def save_sae(folder: Path, lm: LanguageModel, seed: int, hook: str = HOOK, d_in: int = 0) -> str:
    config = sae_lens.TopKSAEConfig(
        d_in=d_in or lm.d_model,
        d_sae=64,
        k=8,
        metadata=sae_lens.saes.sae.SAEMetadata(hook_name=hook, model_name=lm.name),
    )
    sae = sae_lens.TopKSAE(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    folder.parent.mkdir(parents=True, exist_ok=True)
    sae.save_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model("tiny:llama")


@pytest.fixture(scope="module")
def battery(inputs: Any) -> Battery:
    return load_battery(str(inputs.battery))


@pytest.fixture(scope="module")
def folder(lm: LanguageModel, battery: Battery, inputs: Any, tmp_path_factory: Any) -> Path:
    """A searched run, a sweep of two seeds and a copy, an SAE of another layer and one too wide."""
    place = tmp_path_factory.mktemp("compare")
    save_sae(place / "run/sae", lm, 0)
    for seed in (0, 1, 2):
        save_sae(place / f"sweep/s{seed}", lm, seed)
    save_sae(place / "deep/sae", lm, 3, "blocks.1.hook_resid_post")
    save_sae(place / "wide/sae", lm, 4, d_in=lm.d_model + 8)
    settings = {"model": "tiny:llama", "battery": str(inputs.battery)}
    settings["search"] = {"pooling": "mean", "n_permutations": 300}
    (place / "run/config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    search(lm, load_sae(place / "run/sae"), battery, CONFIG, out=place / "run")
    return place


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the two commands; SAEs of random weights fit nothing, so none is checked."""
    for place in (cli_compare, cli_inputs):
        monkeypatch.setattr(place, "guard", lambda *_a, **_k: None)
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    cli_compare.register(app)
    cli_export.register(app)

    def start(*arguments: object) -> int:
        return call(typer.main.get_command(app), [str(a) for a in arguments])

    return start


@pytest.fixture(scope="module")
def found(folder: Path, lm: LanguageModel, battery: Battery) -> SearchResult:
    return search(lm, load_sae(folder / "run/sae"), battery, CONFIG)


def loaded(folder: Path, *names: str) -> LoadedOnDemand:
    return LoadedOnDemand({name: str(folder / name) for name in names}, load_sae)


def test_one_pass_or_several_give_the_same(
    folder: Path,
    lm: LanguageModel,
    battery: Battery,
    found: SearchResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sae = load_sae(folder / "run/sae")
    others = loaded(folder, "sweep/s1", "deep/sae", "sweep/s2")
    once = sae_comparison.compare_saes(lm, sae, battery, found, others, quiet=True)
    assert once.n_passes == 1
    assert list(once.table["sae"].unique()) == ["this SAE", "sweep/s1", "deep/sae", "sweep/s2"]
    assert list(once.table["kind"].unique()) == ["own", "seed", "layer"]
    assert (once.table["l0"] <= 8).all()
    monkeypatch.setattr(sae_comparison, "HELD_BYTES", 1)
    thrice = sae_comparison.compare_saes(lm, sae, battery, found, others, quiet=True)
    assert thrice.n_passes == 3
    pd.testing.assert_frame_equal(once.table, thrice.table)
    pd.testing.assert_frame_equal(once.stability, thrice.stability)


def test_the_first_sae_may_be_read_in_the_same_pass(
    folder: Path, lm: LanguageModel, battery: Battery, found: SearchResult
) -> None:
    from dataclasses import replace

    sae, others = load_sae(folder / "run/sae"), loaded(folder, "sweep/s1")
    kept = sae_comparison.compare_saes(lm, sae, battery, found, others, quiet=True)
    bare = replace(found, encoded=None)
    read = sae_comparison.compare_saes(lm, sae, battery, bare, others, quiet=True)
    assert read.n_passes == 1
    pd.testing.assert_frame_equal(kept.table, read.table)


def test_an_other_sae_has_the_results_of_its_own_search(
    folder: Path, lm: LanguageModel, battery: Battery, found: SearchResult
) -> None:
    sae, others = load_sae(folder / "run/sae"), loaded(folder, "sweep/s1")
    rows = sae_comparison.compare_saes(lm, sae, battery, found, others, quiet=True).table
    alone = search(lm, others["sweep/s1"], battery, CONFIG).summary
    rows = rows[rows["sae"] == "sweep/s1"].set_index("contrast")
    assert rows["n_confirmed"].to_dict() == alone.n_confirmed
    assert rows["n_fwer"].to_dict() == alone.n_significant_fwer


def test_refusals(folder: Path, lm: LanguageModel, battery: Battery, found: SearchResult) -> None:
    sae: SparseAutoencoder = load_sae(folder / "run/sae")

    def compare(names: list[str], config: SearchConfig | None = None) -> None:
        sae_comparison.compare_saes(
            lm, sae, battery, found, loaded(folder, *names), config, quiet=True
        )

    with pytest.raises(SAEError, match=r"'wide/sae' cannot be compared: .*d_in=40"):
        compare(["wide/sae"])
    with pytest.raises(ConfigError, match="same weights as this SAE"):
        compare(["sweep/s0"])
    with pytest.raises(ConfigError, match="none was given"):
        compare([])
    with pytest.raises(ConfigError, match="other settings: min_items, seed"):
        compare(["sweep/s1"], CONFIG.model_copy(update={"min_items": 3, "seed": 1}))
    other = battery.select(limit=8)
    with pytest.raises(ConfigError, match="search again"):
        sae_comparison.compare_saes(lm, sae, other, found, loaded(folder, "sweep/s1"))


def test_a_search_knows_its_own_settings(found: SearchResult) -> None:
    got = found.settings
    assert (got.pooling, got.seed, got.alpha) == (CONFIG.pooling, CONFIG.seed, CONFIG.alpha)
    assert (got.n_retained, got.confirmation_share) == (
        CONFIG.n_retained,
        CONFIG.confirmation_share,
    )


def test_compare_from_the_command_line(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", folder / "run", "--against", folder / "sweep", "--against"]
    assert run(*words, folder / "deep/sae", "--quiet") == 0
    said = capsys.readouterr().out
    assert "left out: s0: the same weights as this SAE" in said
    assert "s1" in said and "match confirmed" in said
    table = read_table(folder / "run", "validity/comparison")
    assert list(table["sae"].unique()) == ["this SAE", "s1", "s2", "sae"]
    assert len(read_table(folder / "run", "validity/stability")) == table["n_sought"].sum()


def test_an_sae_that_does_not_fit_ends_with_3(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", folder / "run", "--against", folder / "wide", "--quiet") == 3
    assert "'sae' cannot be compared" in capsys.readouterr().err


def test_what_is_no_sae(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for place, said in ((folder / "run/search", "no SAE lies"), (folder / "no", "no such folder")):
        assert run("compare", folder / "run", "--against", place) == 2
        assert said in capsys.readouterr().err
    assert run("compare", folder / "sweep", "--against", folder / "sweep") == 3
    assert "holds no search" in capsys.readouterr().err


def test_names_are_as_short_as_they_can_be(folder: Path) -> None:
    places = cli_compare.sae_places([str(folder / "deep"), str(folder / "wide/sae"), "a:b@c"])
    assert list(places) == ["deep/sae", "wide/sae", "a:b@c"]
    assert places["a:b@c"] == "a:b@c"
    assert list(cli_compare.sae_places([str(folder / "deep")] * 2)) == ["sae"]


def test_exports(
    folder: Path,
    lm: LanguageModel,
    inputs: Any,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["export", folder / "run", "--quiet", "--to"]
    assert run(*words, "csv", "--out", tmp_path / "c") == 3
    assert "affectlens name" in capsys.readouterr().err
    assert run(*words, "delphi", "--out", tmp_path / "d") == 3
    assert "affectlens harvest" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    assert run(*words, "csv", "--out", tmp_path / "full") == 2
    assert "not empty" in capsys.readouterr().err
    assert run(*words, "neuronpedia", "--out", tmp_path / "n") == 0
    listed = json.loads((tmp_path / "n/neuronpedia.json").read_text(encoding="utf-8"))
    assert listed["features"] == [] and "not public" in listed["note"]
    assert run(*words, "neuronpedia", "--out", tmp_path / "m", "--emotion", "joy") == 2

    from affectlens.data.activations import harvest
    from affectlens.data.config import HarvestConfig
    from affectlens.data.corpus import load_corpus

    acts = folder / "run/activations"
    how = HarvestConfig(layers=(2,), context_length=64, tokens_per_shard=1024)
    harvest(lm, load_corpus(str(inputs.corpus)), how, acts, quiet=True)
    assert (
        run(*words, "delphi", "--out", tmp_path / "d", "--ctx-len", "16", "--emotion", "all") == 0
    )
    config = json.loads((tmp_path / "d" / HOOK / "config.json").read_text(encoding="utf-8"))
    data = load_file(tmp_path / "d" / HOOK / "0_63.safetensors")
    assert (config["model_name"], config["ctx_len"]) == ("tiny:llama", 16)
    assert data["tokens"].shape[1] == 16
    assert set(data["locations"][:, 2]) <= set(config["latents"])
