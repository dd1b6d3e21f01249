import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import ModelError
from affectlens.data.masking import MaskRule, norm_limit, token_norms
from affectlens.data.token_batches import pad_rows, real_positions

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=5)


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, side=st.sampled_from(["left", "right"]), skip=st.booleans())
def test_keeps_real_tokens_but_the_first(lengths, side, skip):
    batch = pad_rows([[5] * n for n in lengths], 0, side=side)
    resid = torch.ones(*batch.input_ids.shape, 3)
    keep = MaskRule(skip_first=skip).keep(resid, batch.positions, batch.attention_mask)
    assert keep.sum(dim=1).tolist() == [n - skip for n in lengths]
    assert not (keep & ~batch.attention_mask).any()


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, side=st.sampled_from(["left", "right"]))
def test_positions_count_real_tokens_from_zero(lengths, side):
    batch = pad_rows([[5] * n for n in lengths], 0, side=side)
    for row, n in enumerate(lengths):
        assert batch.positions[row][batch.attention_mask[row]].tolist() == list(range(n))
    assert torch.equal(batch.positions, real_positions(batch.attention_mask))


def test_norm_limit_leaves_out_outliers_only():
    resid = torch.zeros(1, 4, 2)
    resid[0, :, 0] = torch.tensor([1.0, 2.0, 100.0, 3.0])
    positions = torch.arange(4)[None]
    everything = torch.ones(1, 4, dtype=torch.bool)
    keep = MaskRule(skip_first=False, norm_limit=3.0).keep(resid, positions, everything)
    assert keep.tolist() == [[True, True, False, True]]


def test_padding_may_hold_anything():
    resid = torch.tensor([[[float("nan")], [1.0], [1.0]]])
    attention = torch.tensor([[False, True, True]])
    keep = MaskRule(norm_limit=2.0).keep(resid, real_positions(attention), attention)
    assert keep.tolist() == [[False, False, True]]


def test_a_real_token_without_finite_norm_is_an_error():
    resid = torch.tensor([[[1.0], [float("inf")]]])
    with pytest.raises(ModelError, match="infinite or NaN"):
        MaskRule(norm_limit=2.0).keep(resid, torch.arange(2)[None], torch.ones(1, 2).bool())


def test_shapes_must_agree():
    with pytest.raises(ModelError, match="must agree"):
        MaskRule().keep(torch.ones(1, 3, 2), torch.arange(2)[None], torch.ones(1, 2).bool())


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_must_be_positive_and_finite(limit):
    with pytest.raises(ModelError, match="positive finite"):
        MaskRule(norm_limit=limit)


def test_half_precision_norms_do_not_overflow():
    assert token_norms(torch.full((1, 1, 4), 60_000.0, dtype=torch.float16)).item() == 120_000.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.125, 1000.0, width=32), min_size=1, max_size=30), st.floats(1.5, 20))
def test_norm_limit_is_factor_times_the_median(values, factor):
    found = norm_limit(torch.tensor(values), factor)
    assert found == pytest.approx(factor * np.median(np.float32(values).astype(np.float64)))


def test_norm_limit_refuses_what_has_no_median():
    with pytest.raises(ModelError, match="no token norms"):
        norm_limit(torch.empty(0), 10)
    with pytest.raises(ModelError, match="1 of 2 token norms"):
        norm_limit(torch.tensor([1.0, float("inf")]), 10)
    with pytest.raises(ModelError, match="above 1"):
        norm_limit(torch.ones(3), 1.0)
