"""Our capture and edits against TransformerLens' bridge, which hooks the same model its own way."""

import pytest
import torch

from affectlens.data.hooks import capture, edit
from affectlens.data.parity import bridge_of, largest_difference

TEXT = "She kept the letter in the drawer."


@pytest.fixture
def bridge(lm):
    return bridge_of(lm)


def test_capture_equals_the_bridges_cache(lm, bridge):
    batch = lm.encode([TEXT])
    names = [
        f"blocks.{n}.hook_resid_{site}" for n in range(lm.n_layers) for site in ("pre", "post")
    ]
    ours = capture(lm, names, batch)
    _, cache = bridge.run_with_cache(batch.input_ids)
    for name in names:
        assert torch.allclose(ours[name], cache[name], atol=2e-5, rtol=1e-5), name


def test_logits_and_edited_logits_equal_the_bridges(lm, bridge):
    batch = lm.encode([TEXT])
    name = "blocks.1.hook_resid_post"
    delta = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1))
    clean = lm.forward_logits(batch, last_only=False)
    assert torch.allclose(clean, bridge(batch.input_ids), atol=1e-3, rtol=1e-3)
    with edit(lm, {name: lambda h, c: h + delta}):
        ours = lm.forward_logits(batch, last_only=False)
    theirs = bridge.run_with_hooks(
        batch.input_ids, fwd_hooks=[(name, lambda value, hook: value + delta)]
    )
    assert torch.allclose(ours, theirs, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ours, clean, atol=1e-2)


def test_the_largest_difference_is_rounding(lm):
    before = lm.forward_logits(lm.encode([TEXT]))
    assert largest_difference(lm, TEXT) < 1e-4
    assert torch.equal(lm.forward_logits(lm.encode([TEXT])), before)
