"""A few latents read by their own columns, against a full encode."""

from __future__ import annotations

import pytest
import sae_lens
import torch

from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.reading import LatentReader, reads_by_feature

LOCAL = ["standard", "jumprelu", "gated"]


@pytest.mark.parametrize("architecture", LOCAL)
@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("centre", [False, True])
def test_values_equal_those_of_a_full_encode(raw, rows, architecture, norm, centre):
    made = raw(architecture, normalize_activations=norm, apply_b_dec_to_input=True)
    sae = SparseAutoencoder(made, centre=centre)
    assert reads_by_feature(sae)
    features = torch.tensor([7, 0, 19])
    read = LatentReader(sae, features)(rows)
    wanted = sae.encode(rows)[..., features]
    assert float(wanted.max()) > 0
    assert bool(((read.values - wanted).abs() <= read.rounding)[~read.at_edge].all())
    assert not read.at_edge.any()
    assert float(read.rounding.max()) < 1e-4


@pytest.mark.parametrize("architecture", LOCAL)
def test_a_latent_at_its_threshold_is_marked(raw, rows, architecture):
    made = raw(architecture)
    bias = made.b_gate if architecture == "gated" else made.b_enc
    threshold = made.threshold[3] if architecture == "jumprelu" else 0.0
    x = rows[0, :1]
    bias.data[3] = threshold - (x - made.b_dec * made.cfg.apply_b_dec_to_input) @ made.W_enc[:, 3]
    read = LatentReader(SparseAutoencoder(made), torch.tensor([3, 5]))(rows)
    assert read.at_edge[0, 0].tolist() == [True, False]
    assert int(read.at_edge.sum()) == 1


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_latents_that_depend_on_others_are_not_read_alone(raw, architecture):
    assert not reads_by_feature(SparseAutoencoder(raw(architecture)))


def test_another_activation_function_is_not_read_alone(raw):
    made = raw("standard")
    assert isinstance(made, sae_lens.StandardSAE)
    made.activation_fn = torch.nn.Tanh()
    assert not reads_by_feature(SparseAutoencoder(made))
