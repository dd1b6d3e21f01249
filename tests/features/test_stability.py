"""Latents in other SAEs: exact copies, rotations, other widths and layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sae_lens
import scipy.sparse
import torch

from affectlens.data.errors import ConfigError
from affectlens.features import stability as module
from affectlens.features.permutation import StatisticsError
from affectlens.features.pooling import Pooled
from affectlens.features.stability import (
    Other,
    correlations,
    nearest_activation,
    nearest_direction,
    stability,
)
from affectlens.features.validity_columns import STABILITY_COLUMNS
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"


def make_sae(W_dec: np.ndarray, hook: str = HOOK) -> SparseAutoencoder:
    config = sae_lens.StandardSAEConfig(
        d_in=W_dec.shape[1],
        d_sae=len(W_dec),
        metadata=sae_lens.saes.sae.SAEMetadata(hook_name=hook),
    )
    sae = sae_lens.StandardSAE(config)
    for parameter in sae.parameters():
        parameter.data = torch.zeros(parameter.shape)
    sae.W_dec.data = torch.tensor(W_dec, dtype=torch.float32)
    return SparseAutoencoder(sae)


def make_pooled(z: np.ndarray) -> Pooled:
    ids = tuple(str(i) for i in range(len(z)))
    values = scipy.sparse.csc_array(z.astype(np.float32))
    return Pooled(values, ids, "mean", (), np.ones(len(z), dtype=np.int64), 0)


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray]:
    """Decoder rows [40, 16] and sparse activations [30, 40]."""
    rng = np.random.default_rng(0)
    z = np.where(rng.random((30, 40)) < 0.3, rng.exponential(size=(30, 40)), 0)
    return rng.normal(size=(40, 16)), z


def test_a_permuted_copy_is_found_whatever_the_block(
    world: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    W, z = world
    order = np.random.default_rng(1).permutation(40)
    copy = Other("copy", make_sae(3 * W[order]), make_pooled(z[:, order]))
    wide = Other("wide", make_sae(np.concatenate([W[order], W])), make_pooled(np.tile(z, 2)))
    frames = []
    for block in (7, 16_384):
        monkeypatch.setattr(module, "_BLOCK", block)
        frames.append(stability(make_sae(W), make_pooled(z), {"all": [3, 9]}, [copy, wide]))
    pd.testing.assert_frame_equal(*frames)
    t = frames[0]
    assert list(t.columns) == list(STABILITY_COLUMNS)
    t = t.set_index(["other", "feature"])
    assert set(t.kind) == {"seed", "width"}
    assert t.match["copy", 3] == np.flatnonzero(order == 3)[0]
    assert t.cosine["copy", 9] == pytest.approx(1) and t.recurs.all()
    assert t.correlation["copy", 3] == pytest.approx(1)
    assert t.best_correlated["copy", 3] == t.match["copy", 3]
    assert t.chance_cosine["copy", 3] == pytest.approx(np.sqrt(2 * np.log(40) / 16))
    assert (t.match_rank == -1).all() and t.match_p.isna().all()


def test_unrelated_directions_do_not_recur(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    other = Other("other", make_sae(np.eye(16)[:8]), make_pooled(z[:, :8]))
    t = stability(make_sae(W), make_pooled(z), {"all": list(range(40))}, [other])
    cosine = W / np.linalg.norm(W, axis=1, keepdims=True)
    np.testing.assert_allclose(t.cosine, cosine[:, :8].max(axis=1), atol=1e-6)
    assert t.recurs.mean() < 0.2


def test_layers_are_compared_by_activation_alone(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    other = Other("layer 2", make_sae(W, "blocks.2.hook_resid_post"), make_pooled(z[:, ::-1]))
    t = stability(make_sae(W), make_pooled(z), {"grief": [0], "all": []}, [other]).iloc[0]
    assert t.kind == "layer" and np.isnan(t.cosine) and np.isnan(t.chance_cosine)
    assert t.match == t.best_correlated == 39 and t.correlation == pytest.approx(1)
    assert not t.recurs


def test_what_the_other_search_says_of_the_match(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    table = pd.DataFrame(
        {"contrast": ["all", "grief"], "feature": [3, 3], "rank": [2, 9], "p": [0.01, 0.5],
         "confirmed": [True, False]}
    )  # fmt: skip
    other = Other("copy", make_sae(W), make_pooled(z), table)
    t = stability(make_sae(W), make_pooled(z), {"all": [3], "terror": [3]}, [other])
    t = t.set_index("contrast")
    assert (t.match_rank["all"], t.match_p["all"], t.match_confirmed["all"]) == (2, 0.01, True)
    assert t.match_rank["terror"] == -1 and not t.match_confirmed["terror"]


def test_correlations_equal_numpy_and_constants_have_none() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 3)), np.where(rng.random((20, 5)) < 0.5, rng.random((20, 5)), 0)
    y[:, 4] = 0.1
    x[:, 2] = 7.0
    found = correlations(x, scipy.sparse.csc_array(y))
    np.testing.assert_allclose(
        found[:2, :4], np.corrcoef(x[:, :2].T, y[:, :4].T)[:2, 2:], atol=1e-9
    )
    assert np.isnan(found[2]).all() and np.isnan(found[:, 4]).all()
    best = nearest_activation(x, scipy.sparse.csc_array(y))
    assert best.index[0] == np.argmax(found[0, :4]) and best.index[2] == -1
    assert np.isnan(best.value[2])


def test_zero_rows_match_nothing() -> None:
    rows = np.array([[0.0, 0], [1, 0]])
    found = nearest_direction(rows, torch.tensor([[0.0, 0], [-1, 0], [1, 1]]))
    assert found.index.tolist() == [-1, 2] and np.isnan(found.value[0])
    assert found.value[1] == pytest.approx(np.sqrt(0.5))
    none = nearest_direction(rows, torch.zeros((2, 2)))
    assert np.isnan(none.value).all() and (none.index == -1).all()


def test_misfits_are_refused(world: tuple[np.ndarray, np.ndarray]) -> None:
    W, z = world
    sae, pooled = make_sae(W), make_pooled(z)
    with pytest.raises(ConfigError, match="other items"):
        moved = replace(pooled, item_ids=pooled.item_ids[::-1])
        stability(sae, pooled, {"all": [0]}, [Other("x", sae, moved)])
    with pytest.raises(ConfigError, match="activations of this SAE"):
        stability(sae, make_pooled(z[:, :5]), {"all": [0]}, [])
    with pytest.raises(ConfigError, match=r"outside 0\.\.39"):
        stability(sae, pooled, {"all": [40]}, [])
    with pytest.raises(StatisticsError, match="items"):
        correlations(z, scipy.sparse.csc_array(z[:5]))
    with pytest.raises(StatisticsError, match="NaN"):
        correlations(np.full((30, 1), np.nan), scipy.sparse.csc_array(z))
    assert list(stability(sae, pooled, {"all": [0]}, []).columns) == list(STABILITY_COLUMNS)
    assert len(stability(sae, pooled, {}, [Other("x", sae, pooled)])) == 0
