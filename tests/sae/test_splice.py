import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.splice import latent_delta, splice_delta


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "abstopk", "jumprelu"])
def test_delta_is_the_difference_of_two_decodes(raw, rows, architecture):
    sae = SparseAutoencoder(raw(architecture))
    z = sae.encode(rows)
    z_new = z.clone()
    z_new[..., [2, 5]] = 1.5
    expected = sae.decode(z_new) - sae.decode(z)
    torch.testing.assert_close(splice_delta(sae, z, z_new), expected, rtol=1e-5, atol=1e-5)


def test_no_change_is_exactly_zero(raw, rows):
    sae = SparseAutoencoder(raw())
    z = sae.encode(rows)
    delta = splice_delta(sae, z, z.clone())
    assert delta.shape == rows.shape
    assert torch.equal(delta, torch.zeros_like(rows))


def test_untouched_tokens_get_exactly_zero(raw, rows):
    sae = SparseAutoencoder(raw())
    z = sae.encode(rows)
    z_new = z.clone()
    z_new[0, 0, 3] += 2
    delta = splice_delta(sae, z, z_new)
    assert delta[0, 0].abs().max() > 0
    delta[0, 0] = 0
    assert torch.equal(delta, torch.zeros_like(delta))


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_run_time_normalisation_scales_with_the_token(raw, rows, norm):
    sae = SparseAutoencoder(raw("standard", normalize_activations=norm))
    z = sae.encode(rows)
    z_new = z.clone()
    z_new[..., 4] += 1
    inner = sae.sae
    inner.encode(rows)
    new = inner.decode(z_new)
    inner.encode(rows)
    old = inner.decode(z)
    torch.testing.assert_close(splice_delta(sae, z, z_new, rows), new - old, rtol=1e-4, atol=1e-5)
    with pytest.raises(SAEError, match="residual x"):
        splice_delta(sae, z, z_new)


def test_shapes_must_agree(raw, rows):
    sae = SparseAutoencoder(raw())
    z = sae.encode(rows)
    with pytest.raises(SAEError, match="must both be"):
        splice_delta(sae, z, z[:2])


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 23)), st.floats(-5, 5))
def test_edits_of_several_latents_add_up(raw, features, value):
    sae = SparseAutoencoder(raw())
    z = sae.encode(torch.ones(2, sae.d_in))
    chosen = torch.tensor(sorted(features), dtype=torch.long)
    z_new = z.clone()
    z_new[:, chosen] += value
    together = splice_delta(sae, z, z_new)
    one_by_one = sum(
        (latent_delta(sae, torch.full((2, 1), value), f[None]) for f in chosen),
        torch.zeros(2, sae.d_in),
    )
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-4)
