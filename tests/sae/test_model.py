import pytest
import sae_lens
import torch

from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

ARCHITECTURES = ["standard", "gated", "topk", "abstopk", "jumprelu"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encode_decode_equal_sae_lens(raw, rows, architecture):
    expected = raw(architecture)
    sae = SparseAutoencoder(raw(architecture))
    assert torch.equal(sae.encode(rows), expected.encode(rows))
    assert torch.equal(sae.decode(sae.encode(rows)), expected(rows))
    assert torch.equal(sae.reconstruct(rows), expected(rows))
    assert sae.encode(rows).shape == (5, 3, sae.d_sae)


def test_single_rows_equal_batched_rows(raw, rows):
    sae = SparseAutoencoder(raw())
    for i in range(5):
        torch.testing.assert_close(sae.encode(rows[i, 0]), sae.encode(rows)[i, 0])


def test_low_precision_input_is_read_as_float32(raw, rows):
    sae = SparseAutoencoder(raw())
    z = sae.encode(rows.to(torch.bfloat16))
    assert z.dtype == torch.float32
    assert torch.equal(z, sae.encode(rows.to(torch.bfloat16).float()))


def test_works_in_inference_mode_without_gradients(raw, rows):
    sae = SparseAutoencoder(raw())
    with torch.inference_mode():
        inside = sae.encode(rows)
    assert torch.equal(inside, sae.encode(rows))
    assert not sae.encode(rows.clone().requires_grad_()).requires_grad


def test_centring_removes_and_restores_the_mean(raw, rows):
    metadata = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    with pytest.warns(UserWarning, match="model_from_pretrained_kwargs"):
        source = raw(metadata=metadata)
    sae = SparseAutoencoder(source)
    assert sae.info.centre
    mean = rows.mean(-1, keepdim=True)
    torch.testing.assert_close(sae.encode(rows + 3), sae.encode(rows), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae.reconstruct(rows), source(rows - mean) + mean)
    assert not SparseAutoencoder(source, centre=False).info.centre


def test_decoder_norms_are_folded_without_changing_the_output(raw, rows):
    expected = raw(rescale_acts_by_decoder_norm=True)(rows)
    sae = SparseAutoencoder(raw(rescale_acts_by_decoder_norm=True))
    torch.testing.assert_close(sae.reconstruct(rows), expected)
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(sae.d_sae))
    z = sae.encode(rows)
    torch.testing.assert_close(z @ sae.W_dec + sae.b_dec, expected)


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_run_time_normalisation_needs_the_input(raw, rows, norm):
    sae = SparseAutoencoder(raw("standard", normalize_activations=norm))
    torch.testing.assert_close(
        sae.reconstruct(rows), raw("standard", normalize_activations=norm)(rows)
    )
    with pytest.raises(SAEError, match="reconstruct"):
        sae.decode(sae.encode(rows))


def test_info_reads_the_metadata_with_types(raw):
    metadata = {
        "hook_name": "blocks.2.hook_resid_pre",
        "model_name": "m",
        "model_fingerprint": "ab",
        "skip_first": False,
        "norm_limit": 12,
        "k": 7.0,
    }
    info = SparseAutoencoder(raw("jumprelu", metadata=metadata), source="here").info
    assert (info.hook_name, info.model_name, info.model_fingerprint) == (
        "blocks.2.hook_resid_pre", "m", "ab")  # fmt: skip
    assert (info.skip_first, info.norm_limit, info.k, info.source) == (False, 12.0, 7, "here")
    bare = SparseAutoencoder(raw("standard", metadata={})).info
    assert (bare.hook_name, bare.k, bare.norm_limit, bare.skip_first) == ("", None, None, True)


def test_fingerprint_follows_weights_and_nothing_else(raw):
    one, again = SparseAutoencoder(raw()), SparseAutoencoder(raw(metadata={"note": "x"}))
    assert one.fingerprint == again.fingerprint
    changed = raw()
    changed.b_dec.data[0] += 1e-3
    assert SparseAutoencoder(changed).fingerprint != one.fingerprint
    assert SparseAutoencoder(raw(k=5)).fingerprint != one.fingerprint


def test_wrong_widths_are_named(raw):
    sae = SparseAutoencoder(raw())
    with pytest.raises(SAEError, match=r"width 9.*d_in=8"):
        sae.encode(torch.zeros(2, 9))
    with pytest.raises(SAEError, match=r"width 8.*d_sae=24"):
        sae.decode(torch.zeros(2, 8))


def test_other_kinds_of_sae_are_refused():
    config = sae_lens.TranscoderConfig(d_in=8, d_sae=16, d_out=8, apply_b_dec_to_input=False)
    with pytest.raises(SAEError, match=r"transcoder.*residual"):
        SparseAutoencoder(sae_lens.Transcoder(config))
    training = sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(d_in=8, d_sae=16, k=2))
    with pytest.raises(SAEError, match="training form"):
        SparseAutoencoder(training)
