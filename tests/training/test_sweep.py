"""Grids, their names and tables, and what two SAEs share."""

import csv
import json

import pytest
import sae_lens
import torch

from affectlens.data.artifacts import folder_lock
from affectlens.data.errors import ArtifactError, ConfigError, MachineError
from affectlens.sae import metrics
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder
from affectlens.training import loop, memory, sweep
from affectlens.training.config import WatchConfig
from affectlens.training.sweep import Grid, latent_overlap, train_many


def made(decoder):
    sae = sae_lens.StandardSAE(
        sae_lens.StandardSAEConfig(d_in=decoder.shape[1], d_sae=len(decoder))
    )
    sae.W_dec.data = decoder.clone()
    return SparseAutoencoder(sae)


def test_overlap_by_hand():
    a = torch.eye(4)[:3]
    b = torch.tensor([[3.0, 0, 0, 0], [0, 0.8, 0.6, 0], [0, 0, 0, 1]])
    # The first is there at another length, the second at cosine .8, the third at .6 only.
    assert latent_overlap(made(a), made(b)) == pytest.approx(2 / 3)
    assert latent_overlap(made(a), made(b), threshold=0.9) == pytest.approx(1 / 3)
    assert latent_overlap(made(b), made(a), threshold=0.9) == pytest.approx(1 / 3)
    # A direction and its opposite are two latents.
    assert latent_overlap(made(a), made(-b)) == 0


def test_overlap_in_chunks_is_the_same(monkeypatch):
    g = torch.Generator().manual_seed(0)
    a, b = made(torch.randn(37, 3, generator=g)), made(torch.randn(23, 3, generator=g))
    whole = torch.nn.functional.cosine_similarity(a.W_dec[:, None], b.W_dec[None], dim=-1)
    wanted = float((whole.amax(1) > 0.7).double().mean())
    assert latent_overlap(a, b) == pytest.approx(wanted)
    monkeypatch.setattr(metrics, "COSINES_AT_ONCE", 50)
    assert latent_overlap(a, b) == pytest.approx(wanted)
    assert latent_overlap(a, a) == 1
    with pytest.raises(SAEError, match="d_in 3 and 4"):
        latent_overlap(a, made(torch.ones(3, 4)))


def test_every_combination_once(config):
    grid = Grid(archs=("topk", "standard"), ks=(2, 4), seeds=(0, 1))
    found = [(c.arch, c.k, c.seed) for c in grid.configs(config)]
    assert found == [
        ("topk", 2, 0),
        ("topk", 2, 1),
        ("topk", 4, 0),
        ("topk", 4, 1),
        ("standard", 3, 0),
        ("standard", 3, 1),
    ]
    assert Grid().configs(config) == [config]
    with pytest.raises(ConfigError, match="d_sae"):
        Grid(d_saes=(1,)).configs(config)


@pytest.fixture
def short(config):
    return config.model_copy(update={"n_samples": 2048, "d_sae": 64})


def test_a_sweep_writes_its_tables_and_overlaps(small_store, short, tmp_path):
    grid = Grid(archs=("topk", "standard"), seeds=(0, 1))
    results = train_many(small_store, short, grid, tmp_path / "s", quiet=True)
    names = ["l1-topk-64-k3-s0", "l1-topk-64-k3-s1", "l1-standard-64-s0", "l1-standard-64-s1"]
    assert [r.name for r in results] == names
    payload = json.loads((tmp_path / "s/sweep.json").read_text())
    assert payload["format_version"] == 1
    assert [r["name"] for r in payload["results"]] == names
    with (tmp_path / "s/sweep.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    for row, result in zip(rows, results, strict=True):
        metrics = json.loads((tmp_path / "s" / result.name / "metrics.json").read_text())
        assert float(row["fvu"]) == result.fvu == metrics["fvu"]
        assert float(row["l0"]) == result.l0 == metrics["l0"]
        assert result.tokens_per_s > 0
        assert result.ce_recovered_mean is None
    pairs = {(p["a"], p["b"]): p["share_of_a_in_b"] for p in payload["overlaps"]}
    assert set(pairs) == {tuple(names[:2]), (names[1], names[0]), *_both(names[2], names[3])}
    assert all(0 <= share <= 1 for share in pairs.values())


def _both(a, b):
    return {(a, b), (b, a)}


def test_an_interrupted_sweep_goes_on(small_store, short, tmp_path, monkeypatch):
    settings = short.model_copy(update={"watch": WatchConfig(checkpoint_every_s=0)})
    grid, out = Grid(seeds=(0, 1, 2)), tmp_path / "s"
    whole = train_many(small_store, settings, grid, tmp_path / "whole", quiet=True)
    steps = []
    original = loop.train_step

    def stop(*args):
        steps.append(args[2].step)
        if len(steps) == 12:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train_many(small_store, settings, grid, out, quiet=True)
    assert [r["name"][-2:] for r in json.loads((out / "sweep.json").read_text())["results"]] == [
        "s0"
    ]
    counted = []

    def count(*args):
        counted.append(args[2].step)
        return original(*args)

    monkeypatch.setattr(loop, "train_step", count)
    resumed = train_many(small_store, settings, grid, out, quiet=True)
    # The first is kept, the second continued at its fourth step, the third is new.
    assert counted == [*range(3, 8), *range(8)]
    assert [r.fvu for r in resumed] == [r.fvu for r in whole]


def test_a_failed_one_leaves_the_others(small_store, short, tmp_path, monkeypatch):
    original = sweep.train

    def fail(store, config, out, **options):
        if config.seed == 1:
            raise ArtifactError("bad luck")
        return original(store, config, out, **options)

    monkeypatch.setattr(sweep, "train", fail)
    results = train_many(small_store, short, Grid(seeds=(0, 1, 2)), tmp_path, quiet=True)
    assert [r.error for r in results] == ["", "bad luck", ""]
    assert results[1].fvu is None
    pairs = json.loads((tmp_path / "sweep.json").read_text())["overlaps"]
    assert {p["a"][-2:] for p in pairs} == {"s0", "s2"}


def test_the_room_for_every_sae_is_looked_at_before_the_first(
    small_store, short, tmp_path, monkeypatch
):
    """The last of three is too large; later it is the only one that is not finished."""
    seen = []

    def train(store, config, out, **options):
        seen.append(config.d_sae)
        return original(store, config, out, **options)

    original = sweep.train
    monkeypatch.setattr(sweep, "train", train)
    few, all_three = Grid(d_saes=(48, 64)), Grid(d_saes=(48, 64, 4096))
    needed = memory.plan(short.model_copy(update={"d_sae": 4096}), 32, 1024).total
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": needed - 1)
    told = r"l1-topk-4096-k3-s0: training needs about .*; no SAE of this sweep was trained"
    with pytest.raises(MachineError, match=told):
        train_many(small_store, short, all_three, tmp_path, quiet=True)
    assert seen == []
    assert not list(tmp_path.glob("l1-*"))
    train_many(small_store, short, few, tmp_path, quiet=True)
    # What is finished needs no room any more.
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 10)
    assert not any(r.error for r in train_many(small_store, short, few, tmp_path, quiet=True))


def test_two_sweeps_on_one_folder(small_store, short, tmp_path):
    with folder_lock(tmp_path), pytest.raises(MachineError, match="being written"):
        train_many(small_store, short, Grid(), tmp_path, quiet=True)
