"""Sampling against a full sort, random streams, and generation that is stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import ModelError
from affectlens.data.generation import Sampling, _Chooser, _pick, generate_ids, stream_ids
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model

ROWS = [[72, 105], [84, 104, 101, 32], [65]]


def by_full_sort(logits: torch.Tensor, top_p: float, draw: float) -> int:
    """The definition, on one row: sort all, keep up to the share, inverse CDF of one draw."""
    p = torch.softmax(logits.double(), -1)
    values, order = p.sort(descending=True, stable=True)
    before = values.cumsum(0) - values
    kept = values[before < top_p].cumsum(0)
    place = int(torch.searchsorted(kept, torch.tensor(draw) * kept[-1], right=True))
    return int(order[min(place, len(kept) - 1)])


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_sorted_few_give_what_a_full_sort_gives(top_p: float, scale: float) -> None:
    # The flat rows need more than the 1,024 likeliest tokens, the peaked ones do not.
    logits = scale * torch.randn(40, 5000, generator=torch.Generator().manual_seed(0))
    got = _Chooser(Sampling(temperature=1.0, top_p=top_p), range(40))(logits)
    draws = [np.random.default_rng([0, row]).random() for row in range(40)]
    want = [by_full_sort(row, top_p, draw) for row, draw in zip(logits, draws, strict=True)]
    assert sum(a == b for a, b in zip(got, want, strict=True)) >= 39  # 32-bit against 64-bit


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=30),
    st.floats(0.01, 1),
    st.floats(0, 0.999),
    st.integers(1, 30),
)
def test_any_width_picks_the_same(counts: list[int], top_p: float, draw: float, width: int) -> None:
    weights = torch.tensor([[*counts, 7]], dtype=torch.float32)
    total = weights.sum(-1, keepdim=True, dtype=torch.float64)
    draws = torch.tensor([[draw]], dtype=torch.float64)
    full = weights.shape[1]
    narrow = _pick(weights, total, draws, top_p, min(width, full))
    picked = int(_pick(weights, total, draws, top_p, full)[0])
    assert weights[0, picked] > 0
    # Ties at the edge of the narrow selection may be broken otherwise, never by another weight.
    assert weights[0, int(narrow[0])] == weights[0, picked]


def test_rows_with_one_stream_draw_the_same(tiny_llama: LanguageModel) -> None:
    how = Sampling(8, temperature=1.5)
    row = ROWS[1]
    same = generate_ids(tiny_llama, [row, row, row], how, streams=[4, 4, 5])
    assert same[0] == same[1] != same[2]
    alone = generate_ids(tiny_llama, [row], how, streams=[5])
    assert alone[0] == same[2]
    default = generate_ids(tiny_llama, ROWS, how)
    assert default == generate_ids(tiny_llama, ROWS, how, streams=[0, 1, 2])


@pytest.mark.parametrize("streams", [[0], [0, 1, -1], [0, 1, 2, 3]])
def test_streams_that_do_not_fit_are_refused(tiny_llama: LanguageModel, streams: list[int]) -> None:
    with pytest.raises(ModelError, match="random streams"):
        generate_ids(tiny_llama, ROWS, Sampling(2), streams=streams)


def test_steps_are_those_of_the_whole(lm: LanguageModel) -> None:
    steps = list(stream_ids(lm, ROWS, Sampling(6)))
    whole = generate_ids(lm, ROWS, Sampling(6))
    for row, ids in enumerate(whole):
        assert [step[row] for step in steps if step[row] is not None] == ids


def test_a_generation_that_is_stopped_leaves_no_hook_and_no_switch() -> None:
    lm = tiny_model("llama")
    before = generate_ids(lm, ROWS, Sampling(6))
    kept: list[list[int | None]] = []

    def stop_at_third() -> None:
        for step in stream_ids(lm, ROWS, Sampling(6)):
            assert torch.is_grad_enabled()
            kept.append(step)
            if len(kept) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), edit(lm, {"1": lambda x, _: x + 3.0}):
        stop_at_third()
    assert len(kept) == 3
    assert not any(block._forward_hooks for block in lm.blocks)
    assert generate_ids(lm, ROWS, Sampling(6)) == before
