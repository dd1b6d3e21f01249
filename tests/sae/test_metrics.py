import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.sae.errors import SAEError
from affectlens.sae.metrics import (
    QualityMeter,
    dead_share,
    encoder_decoder_cosine,
    fvu,
    l0,
    loss_recovered,
    nearest_decoder_cosine,
)


def test_fvu_fixed_points():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 100
    assert fvu(x, x) == 0
    assert fvu(x, x.mean(0).expand_as(x)) == pytest.approx(1, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 1000))
def test_fvu_equals_its_definition_in_numpy(n, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(3, 2, (n, d)), rng.normal(3, 2, (n, d))
    expected = ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert fvu(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected, rel=1e-8)


def test_meter_does_not_depend_on_the_batches():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=g), torch.randn(30, 4, generator=g)
    z = torch.randn(30, 7, generator=g).relu()
    z[:, 3] = 0
    meter = QualityMeter(7)
    for part in (slice(0, 1), slice(1, 17), slice(17, 30)):
        meter.add(x[part], y[part], z[part])
    assert meter.fvu == pytest.approx(fvu(x, y), rel=1e-9)
    assert meter.l0 == pytest.approx(l0(z))
    assert meter.dead_share == pytest.approx(1 / 7)
    assert meter.n == 30


@pytest.mark.parametrize("rows", [torch.zeros(1, 3), torch.ones(4, 3)])
def test_undefined_fvu_is_an_error(rows):
    with pytest.raises(SAEError, match="FVU"):
        fvu(rows, rows)


def test_fvu_refuses_other_shapes():
    with pytest.raises(SAEError, match=r"\(4, 3\).*\(4, 2\)"):
        fvu(torch.ones(4, 3), torch.ones(4, 2))


def test_dead_share():
    assert dead_share(torch.tensor([True, False, False, True])) == 0.5


def test_loss_recovered():
    assert loss_recovered(2.0, 2.0, 6.0) == 1.0
    assert loss_recovered(2.0, 6.0, 6.0) == 0.0
    assert loss_recovered(2.0, 3.0, 6.0) == 0.75
    assert math.isnan(loss_recovered(2.0, 3.0, 2.0))


def test_encoder_decoder_cosine_by_hand():
    W_dec = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    W_enc = torch.tensor([[2.0, 0.0], [0.0, -5.0], [1.0, 0.0], [1.0, 1.0]]).T
    found = encoder_decoder_cosine(W_enc, W_dec)
    assert found.tolist() == pytest.approx([1, -1, 2**-0.5, 0])
    with pytest.raises(SAEError, match=r"\(4, 2\).*do not belong together"):
        encoder_decoder_cosine(W_dec, W_dec)


def test_nearest_decoder_cosine_by_hand():
    W_dec = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    found = nearest_decoder_cosine(W_dec, torch.tensor([0, 3]))
    assert found.tolist() == pytest.approx([2**-0.5, 0], abs=1e-6)


def test_density_counts_each_latent():
    meter = QualityMeter(3)
    z = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, -1.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    meter.add(torch.eye(4), torch.eye(4), z)
    assert meter.density.tolist() == [0.75, 0, 0.25]
    assert meter.fired.tolist() == [True, False, True]
    assert meter.l0 == 1.0


def test_cosine_and_norm_of_a_halved_reconstruction():
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    meter = QualityMeter(0)
    meter.add(x, x / 2)
    assert meter.cosine == pytest.approx(1)
    assert meter.relative_norm == pytest.approx(0.5)
