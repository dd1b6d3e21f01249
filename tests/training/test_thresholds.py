import pytest
import sae_lens
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.sae.errors import SAEError
from affectlens.training.thresholds import calibrate_threshold


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


def test_too_few_positive_latents():
    with pytest.raises(SAEError, match=r"only 0\.0 latents per token are positive, 4 are wanted"):
        calibrate_threshold(make(bias=-1e6), torch.randn(50, 12), 4)
