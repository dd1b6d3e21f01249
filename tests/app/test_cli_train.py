"""`affectlens train`: one SAE, several, and what it would need."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import affectlens as al
from affectlens.data.store_writer import write_store
from affectlens.training import memory, sweep

Cli = Callable[..., Any]
HOOKS = ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post")
SMALL = ("--d-sae", "24", "--k", "3", "--n-samples", "600", "--batch-size", "100", "--no-model")


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "acts"
    rows = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    doc = [i // 20 for i in range(600)]
    documents = [f"d{i}" for i in range(30)]
    layers = {HOOKS[0]: rows, HOOKS[1]: rows.flip(1) + 1}
    write_store(folder, layers, doc, documents=documents, provenance={"model": {"name": "m"}})
    return folder


def test_several_layers_sizes_and_seeds_in_one_command(
    cli: Cli, acts: Path, tmp_path: Path
) -> None:
    words = ("train", acts, "--out", tmp_path, *SMALL[2:])
    grid = ("--layers", "1,2", "--d-sae", "16,24", "--seeds", "0,1", "--n-evals", "2")
    first = cli(*words, *grid, "--json")
    assert first.code == 0, first.err
    names = [f"l{x}-topk-{d}-k3-s{s}" for x in (1, 2) for d in (16, 24) for s in (0, 1)]
    assert [r["name"] for r in first.json["results"]] == names
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == sorted(names)
    with (tmp_path / "sweep.csv").open() as handle:
        table = list(csv.DictReader(handle))
    assert [row["name"] for row in table] == names
    assert all(0 < float(row["fvu"]) < 2 and float(row["l0"]) <= 3 for row in table)
    weights = {n: (tmp_path / n / "sae_weights.safetensors").read_bytes() for n in names}
    again = cli(*words, *grid, "--json")
    assert again.json["results"] == first.json["results"]
    assert weights == {n: (tmp_path / n / "sae_weights.safetensors").read_bytes() for n in names}


def test_one_that_fails_is_told_and_the_others_are_kept(
    cli: Cli, acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", acts, "--out", tmp_path, *SMALL, "--layers", "1", "--seeds", "0,1,2")
    original = sweep.train

    def fail(store: Any, config: Any, out: Path, **options: Any) -> Any:
        if config.seed == 1:
            raise RuntimeError("no luck")
        return original(store, config, out, **options)

    monkeypatch.setattr(sweep, "train", fail)
    outcome = cli(*words)
    assert outcome.code == 3
    assert "failed: l1-topk-24-k3-s1: no luck" in outcome.out
    rows = json.loads((tmp_path / "sweep.json").read_text())["results"]
    assert [bool(r["error"]) for r in rows] == [False, True, False]
    assert (tmp_path / "l1-topk-24-k3-s2" / "cfg.json").exists()
    monkeypatch.undo()
    assert cli(*words).code == 0
    assert not any(r["error"] for r in json.loads((tmp_path / "sweep.json").read_text())["results"])


def test_one_of_everything_is_one_sae(cli: Cli, acts: Path, tmp_path: Path) -> None:
    done = cli(
        *("train", acts, "--out", tmp_path / "sae", *SMALL, "--layer", "2", "--seed", "7"),
        *("--patience", "1", "--n-evals", "3", "--min-gain", "0.9", "--json"),
    )
    assert done.code == 0, done.err
    run = json.loads((tmp_path / "sae/cfg.json").read_text())["metadata"]["training_run"]
    assert (run["seed"], run["hook_name"], run["watch.patience"]) == (7, HOOKS[1], 1)
    assert not (tmp_path / "sweep.json").exists()
    assert "held-out activations: FVU, L0 and dead share will be rough" in done.err


def test_a_dry_run_shows_the_plan_and_makes_nothing(
    cli: Cli, acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", acts, "--out", tmp_path / "sae", "--layer", "1", *SMALL, "--dry-run")
    shown = cli(*words)
    assert shown.code == 0, shown.err
    assert "checkpoint bytes on disk" in shown.out
    assert cli(*words, "--json").json["plans"][0]["parameters"] == 4 * (2 * 8 * 24 + 8 + 24)
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1000)
    refused = cli(*words)
    assert refused.code == 4
    assert "training needs about" in refused.err
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert cli(*words, "--k", "24").code == 2


def test_a_layer_that_is_not_stored_stops_before_the_first(
    cli: Cli, acts: Path, tmp_path: Path
) -> None:
    done = cli("train", acts, "--out", tmp_path / "s", *SMALL, "--layers", "1,9")
    assert done.code == 2
    assert "layer 9 is not in the store" in done.err
    assert not (tmp_path / "s").exists()


def test_the_same_from_python(acts: Path, tmp_path: Path) -> None:
    store = al.ActivationStore.open(acts)
    small = {"d_sae": 24, "k": 3, "n_samples": 600, "batch_size": 100, "quiet": True}
    results = al.train_many(store, out=tmp_path / "s", layers=[1], seeds=[0, 1], **small)
    assert [r.name for r in results] == ["l1-topk-24-k3-s0", "l1-topk-24-k3-s1"]
    a, b = (al.load_sae(tmp_path / "s" / r.name) for r in results)
    pairs = json.loads((tmp_path / "s/sweep.json").read_text())["overlaps"]
    assert pairs[0]["share_of_a_in_b"] == pytest.approx(al.latent_overlap(a, b), abs=1e-6)
    one = al.train(store, out=tmp_path / "one", layer=1, watch={"n_evals": 2}, **small)
    rows = store.rows(HOOKS[0]).acts
    other = al.train_on(
        rows.split(64), out=tmp_path / "two", d_in=8, heldout=rows[:50], **small | {"seed": 3}
    )
    assert one.d_sae == other.d_sae == 24
    assert al.samples_seen(tmp_path / "two") == 0
    with pytest.raises(al.AffectLensError, match=r"did you mean 'watch.patience'"):
        al.train(store, out=tmp_path / "x", patience=3)
