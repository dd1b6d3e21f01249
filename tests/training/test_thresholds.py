import pytest
import sae_lens
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.training import thresholds
from affectlens.training.config import SparsityConfig
from affectlens.training.finish import to_inference
from affectlens.training.loop import train_step
from affectlens.training.thresholds import (
    batch_keys,
    calibrate_threshold,
    encode_for_inference,
    mean_l0_threshold,
)
from affectlens.training.trainer import fresh_state


def make(seed=0, bias=0.0):
    sae = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(d_in=12, d_sae=80))
    g = torch.Generator().manual_seed(seed)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    sae.b_enc.data.fill_(bias)
    return sae.requires_grad_(False)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 50), st.sampled_from([0.5, 1, 3, 7.5]), st.sampled_from([200, 1024, 2500]))
def test_mean_l0_is_k(seed, k, n):
    sae = make(seed)
    rows = torch.randn(n, 12, generator=torch.Generator().manual_seed(seed + 1))
    threshold = calibrate_threshold(sae, rows, k)
    assert threshold > 0
    active = float((sae.encode(rows) > 0).sum(1).double().mean())
    assert active == pytest.approx(k, abs=2 / n)


def test_rows_of_unequal_size_are_counted_together():
    sae = make()
    g = torch.Generator().manual_seed(1)
    rows = torch.cat([torch.randn(1024, 12, generator=g) * 4, torch.randn(1024, 12, generator=g)])
    calibrate_threshold(sae, rows, 4)
    assert float((sae.encode(rows) > 0).sum(1).double().mean()) == pytest.approx(4, abs=0.01)


def test_too_few_positive_latents_keep_all_of_them(caplog):
    sae = make(bias=-1e6)
    assert calibrate_threshold(sae, torch.randn(50, 12), 4) == 0
    assert float(sae.threshold.max()) == 0
    assert "no more than k = 4 latents per token are positive" in caplog.text


def test_narrow_chunks_find_the_same_threshold(monkeypatch):
    rows = torch.randn(700, 12, generator=torch.Generator().manual_seed(3))
    wanted = calibrate_threshold(make(), rows, 3)
    monkeypatch.setattr(thresholds, "_ENTRIES_AT_ONCE", 80 * 50)
    assert thresholds.rows_at_once(80) == 50
    assert calibrate_threshold(make(), rows, 3) == pytest.approx(wanted, rel=1e-5)


def test_memory_stays_bounded_for_any_width():
    for d_sae in (64, 4608, 10**6, 10**9):
        assert thresholds.rows_at_once(d_sae) * d_sae <= max(2**24, d_sae)


@pytest.mark.parametrize("free", [False, True])
def test_a_training_sae_encodes_as_its_inference_form(store, config, free):
    norm = "free" if free else "unit"
    settings = config.model_copy(
        update={"arch": "batchtopk", "sparsity": SparsityConfig(decoder_norm=norm)}
    )
    state = fresh_state(settings, store.train)
    for rows in store.train.clone().split(256):
        train_step(rows, settings, state, 1e-2)
    scaled = store.held * state.scale
    threshold = mean_l0_threshold(batch_keys(state.sae), 96, scaled, 3)
    z = encode_for_inference(state.sae, scaled, threshold)
    wanted = state.sae.decode(z) / state.scale
    raw = to_inference(state, settings)
    calibrate_threshold(raw, store.held, 3)
    found = raw.encode(store.held)
    assert float(((found > 0) != (z > 0)).double().mean()) < 1e-3
    torch.testing.assert_close(raw.decode(found), wanted, rtol=1e-3, atol=0.5)


def test_a_few_rows_that_hold_most_of_the_large_values(monkeypatch):
    """One row a chunk, as for very wide SAEs; every tenth row outshines the others."""
    monkeypatch.setattr(thresholds, "_ENTRIES_AT_ONCE", 80)
    rows = torch.randn(400, 12, generator=torch.Generator().manual_seed(3))
    rows[::10] *= 100
    sae = make()
    calibrate_threshold(sae, rows, 3)
    active = float((sae.encode(rows) > 0).sum(1).double().mean())
    assert active == pytest.approx(3, abs=0.01)
