"""Counts of one search beside others: exact copies, unrelated SAEs, other layers, no results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sae_lens
import scipy.sparse
import torch

from affectlens.features.comparison import N_BASE, Searched, against, own_rows
from affectlens.features.comparison_columns import COMPARISON_COLUMNS
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.pooling import Pooled
from affectlens.features.search import search_activations
from affectlens.features.stability import kind_of
from affectlens.features.validity_columns import STABILITY_COLUMNS
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"
N_PAIRS, N_LATENTS, WIDTH = 48, 60, 24
CONFIG = SearchConfig(pooling="mean", n_permutations=200, n_retained=5)


def make_sae(W_dec: np.ndarray, hook: str = HOOK, **training: object) -> SparseAutoencoder:
    told = {"training_run": dict(training)} if training else {}
    config = sae_lens.StandardSAEConfig(
        d_in=W_dec.shape[1],
        d_sae=len(W_dec),
        metadata=sae_lens.saes.sae.SAEMetadata(hook_name=hook, **told),
    )
    sae = sae_lens.StandardSAE(config)
    for parameter in sae.parameters():
        parameter.data = torch.zeros(parameter.shape)
    sae.W_dec.data = torch.tensor(W_dec.copy(), dtype=torch.float32)
    return SparseAutoencoder(sae)


def searched(name: str, sae: SparseAutoencoder, z: np.ndarray) -> Searched:
    n = N_PAIRS
    design = PairDesign(
        np.arange(n),
        np.arange(n, 2 * n),
        tuple(f"p{i}" for i in range(n)),
        ("rage",) * (n // 2) + ("grief",) * (n // 2),
        tuple(f"c{i}" for i in range(n)),
        ("rage", "grief"),
    )
    values = scipy.sparse.csc_array(z.astype(np.float32))
    ids = tuple(str(i) for i in range(2 * n))
    pooled = Pooled(values, ids, "mean", (), np.ones(2 * n, dtype=np.int64), 0)
    return Searched(name, sae, pooled, 3.5, search_activations(values, design, CONFIG))


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray]:
    """Decoder rows [60, 24] and activations [96, 60]; latents 0 to 2 rise on clinical texts."""
    rng = np.random.default_rng(0)
    z = rng.exponential(size=(2 * N_PAIRS, N_LATENTS)) * (rng.random((2 * N_PAIRS, 60)) < 0.5)
    z[:N_PAIRS, :3] += 4
    return rng.normal(size=(N_LATENTS, WIDTH)), z


def test_a_permuted_copy_holds_everything(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    order = np.random.default_rng(1).permutation(N_LATENTS)
    own = searched("this", make_sae(W, seed=0), z)
    stable, table = against(own, searched("copy", make_sae(W[order], seed=1), z[:, order]))
    assert list(stable.columns) == list(STABILITY_COLUMNS)
    assert set(stable["contrast"]) <= {"all", "rage", "grief"}
    assert list(table.columns) == list(COMPARISON_COLUMNS)
    row = table.set_index("contrast").loc["all"]
    mine = own_rows(own).set_index("contrast").loc["all"]
    assert (row["kind"], row["seed"], mine["kind"], mine["seed"]) == ("seed", 1, "own", 0)
    assert row["n_sought"] == row["n_recur"] == row["n_match_retained"] == mine["n_retained"] >= 3
    assert row["n_match_confirmed"] == mine["n_confirmed"] >= 3
    assert row["base_recur"] == 1
    assert row["median_correlation"] == pytest.approx(1)
    for name in ("n_tested", "n_fwer", "first_auroc", "best_d_z"):
        assert row[name] == mine[name]
    assert (mine["n_sought"], mine["n_match_confirmed"]) == (0, 0)
    assert np.isnan([mine["n_recur"], mine["base_recur"], mine["median_correlation"]]).all()


def test_an_unrelated_sae_holds_nothing(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    rng = np.random.default_rng(2)
    noise = rng.exponential(size=(2 * N_PAIRS, 40)) * (rng.random((2 * N_PAIRS, 40)) < 0.5)
    own = searched("this", make_sae(W), z)
    _, table = against(own, searched("other", make_sae(rng.normal(size=(40, WIDTH))), noise))
    row = table.set_index("contrast").loc["all"]
    assert row["kind"] == "width"
    assert (row["n_recur"], row["n_match_confirmed"], row["n_confirmed"]) == (0, 0, 0)
    assert row["base_recur"] < 0.1
    assert row["median_correlation"] < 0.6


def test_between_layers_only_activations_count(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    own = searched("this", make_sae(W), z)
    other = searched("deep", make_sae(W[::-1], "blocks.2.hook_resid_post"), z[:, ::-1])
    row = against(own, other)[1].set_index("contrast").loc["all"]
    assert (row["kind"], row["layer"]) == ("layer", 2)
    assert np.isnan(row["n_recur"]) and np.isnan(row["base_recur"])
    assert row["n_match_retained"] == row["n_sought"]


def test_the_best_is_no_nearer_than_the_first(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    own = searched("this", make_sae(W), z)
    rows = own.found.table
    rows = rows[(rows["contrast"] == "all") & rows["retained"]].sort_values("rank")
    row = own_rows(own).set_index("contrast").loc["all"]
    assert row["first_auroc"] == rows["confirm_auroc_paired"].iloc[0]
    assert row["best_d_z"] == rows["confirm_d_z"].loc[rows["confirm_d_z"].abs().idxmax()]
    assert abs(row["best_auroc"] - 0.5) >= abs(row["first_auroc"] - 0.5)


def test_the_base_rate_leaves_the_retained_alone(
    world: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    W, z = world
    assert N_BASE >= N_LATENTS
    half = W.copy()
    half[N_LATENTS // 2 :] = np.random.default_rng(3).normal(size=(N_LATENTS // 2, WIDTH))
    own, other = searched("this", make_sae(W), z), searched("half", make_sae(half), z)
    full = against(own, other)[1]
    assert full["base_recur"].iloc[0] == pytest.approx(0.5, abs=0.05)
    monkeypatch.setattr("affectlens.features.comparison.N_BASE", 7)
    few = against(own, other)[1]
    pd.testing.assert_series_equal(few["n_recur"], full["n_recur"])
    assert few["base_recur"].iloc[0] in [i / 7 for i in range(8)]


def test_kinds() -> None:
    W = np.eye(8)
    own = make_sae(W, seed=0, lr=1e-3, n_samples=100)
    pre = "blocks.2.hook_resid_pre"
    assert kind_of(own, make_sae(W, seed=1, lr=1e-3, n_samples=100)) == "seed"
    assert kind_of(own, make_sae(W, seed=0, lr=2e-3, n_samples=100)) == "training"
    assert kind_of(own, make_sae(W)) == "seed"  # not told
    assert kind_of(own, make_sae(W, pre)) == "seed"  # the same place by its other name
    assert kind_of(own, make_sae(W[:4], lr=2e-3)) == "width"
    assert kind_of(own, make_sae(W, "blocks.2.hook_resid_post")) == "layer"
