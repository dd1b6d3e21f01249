"""Many texts, SAEs and layers in one pass: nobody is edited otherwise than alone."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from affectlens.data.errors import ConfigError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.features.interventions import EditTally, Intervention, applied, clamped, intervened
from affectlens.features.specs import (
    Ablate,
    AddDirection,
    AddLatents,
    Clamp,
    MinClamp,
    PerRow,
    ProjectOut,
    Scale,
    Spec,
)
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

from .edited_streams import TEXTS, logits
from .made_saes import HOOK, make_sae

ARMS: list[tuple[Spec, ...]] = [
    (Clamp((3, 7), (4.0, 2.0)), AddLatents((9,), (0.3,))),
    (),
    (ProjectOut(torch.randn(2, 32, generator=torch.Generator().manual_seed(8))), Ablate((1,))),
    (MinClamp((11,), (3.0,)), Scale((3,), 2.0), AddDirection((0.2,) * 32)),
]
PROMPTS = [*TEXTS, "The day began like any other day."]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_is_edited_alike_alone_and_among_others(
    lm: LanguageModel, side: Literal["left", "right"]
) -> None:
    sae, batch = make_sae(lm), lm.encode(PROMPTS, side=side)
    with applied(lm, sae, [PerRow(tuple(ARMS))]) as together:
        mixed = lm.forward_logits(batch)
    assert together.row_norms is not None
    assert together.row_tokens is not None
    for index, (prompt, specs) in enumerate(zip(PROMPTS, ARMS, strict=True)):
        with applied(lm, sae, specs) as alone:
            own = lm.forward_logits(lm.encode([prompt]))
        torch.testing.assert_close(mixed[index], own[0], rtol=0, atol=1e-4)
        assert together.row_tokens[index] == alone.tokens
        assert together.row_norms[index] == pytest.approx(alone.norm_sum, rel=1e-4)
    assert together.norm_sum == pytest.approx(together.row_norms.sum())


def test_arms_that_share_a_generation_write_what_each_writes_alone(lm: LanguageModel) -> None:
    sae = make_sae(lm)
    with applied(lm, sae, [PerRow(tuple(ARMS))]) as together:
        mixed = lm.generate(PROMPTS, max_new_tokens=8)
    plain = lm.generate(PROMPTS, max_new_tokens=8)
    for index, (prompt, specs) in enumerate(zip(PROMPTS, ARMS, strict=True)):
        with applied(lm, sae, specs) as alone:
            assert lm.generate([prompt], max_new_tokens=8) == [mixed[index]]
        assert together.row_tokens is not None
        assert together.row_tokens[index] == alone.tokens
    assert mixed[1] == plain[1]
    assert mixed != plain


@pytest.mark.parametrize("specs", ARMS)
def test_padding_does_not_change_an_edit(lm: LanguageModel, specs: tuple[Spec, ...]) -> None:
    sae = make_sae(lm)
    with applied(lm, sae, specs):
        left = lm.forward_logits(lm.encode(PROMPTS, side="left"))
        right = lm.forward_logits(lm.encode(PROMPTS, side="right"))
    torch.testing.assert_close(left, right, rtol=0, atol=1e-4)


def test_several_saes_and_layers_at_once(lm: LanguageModel) -> None:
    """The stream after each place, worked out block by block."""
    first, second = make_sae(lm), make_sae(lm, hook="blocks.2.hook_resid_post", seed=6)
    batch = lm.encode(TEXTS)
    keep = (batch.attention_mask.bool() & (batch.positions > 0))[..., None]
    at = "blocks.2.hook_resid_post"
    with clamped(lm, first, {3: 4.0}):
        between = capture(lm, [at], batch)[at]
    wanted = between + keep * (2.0 - second.encode(between)[..., 5:6]) * second.W_dec[5]
    given = [
        Intervention(second, [Clamp((5,), (2.0,))]),
        Intervention(first, [Clamp((3,), (4.0,))]),
    ]
    with intervened(lm, given) as tallies:
        found = capture(lm, [at], batch)[at]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    assert [tally.calls for tally in tallies] == [1, 1]
    assert tallies[0].norm_sum == pytest.approx(
        float((wanted - between).norm(dim=-1).sum()), rel=1e-3
    )


def test_the_input_of_a_block_is_the_output_of_the_one_below(lm: LanguageModel) -> None:
    found = []
    for hook in (HOOK, "blocks.2.hook_resid_pre"):
        with clamped(lm, make_sae(lm, hook=hook), {3: 4.0, 9: 1.0}):
            found.append((logits(lm), lm.generate(TEXTS, max_new_tokens=4)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_interventions_at_one_place_run_in_the_given_order(tiny_llama: LanguageModel) -> None:
    lm = tiny_llama
    v = torch.eye(lm.d_model)[0]
    # The same place by two names.
    add = Intervention(make_sae(lm), [AddDirection(v, 5.0)], "all")
    drop = Intervention(make_sae(lm, hook="model.layers.1", seed=6), [ProjectOut(v)], "all")
    batch = lm.encode(TEXTS)
    found = []
    for given in ([add, drop], [drop, add]):
        with intervened(lm, given) as tallies:
            found.append(capture(lm, [HOOK], batch)[HOOK][batch.attention_mask.bool()])
        assert all(tally.tokens == len(found[-1]) for tally in tallies)
    torch.testing.assert_close(found[0][:, 0], torch.zeros(len(found[0])), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1][:, 0], torch.full((len(found[1]),), 5.0))
    torch.testing.assert_close(found[0][:, 1:], found[1][:, 1:])


def test_interventions_that_change_nothing_are_bit_equal_together(lm: LanguageModel) -> None:
    plain = logits(lm)
    given = [
        Intervention(make_sae(lm), []),
        Intervention(make_sae(lm, seed=6), [Scale((1,), 1.0)]),
        Intervention(make_sae(lm, hook="blocks.3.hook_resid_pre"), [PerRow(((), (), ()))]),
    ]
    with intervened(lm, given):
        assert torch.equal(logits(lm), plain)


def test_several_interventions_need_to_be_some(tiny_llama: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="no intervention was given"), intervened(tiny_llama, []):
        pass


def test_every_sae_must_fit(tiny_llama: LanguageModel) -> None:
    lm = tiny_llama
    other = make_sae(lm)
    other.sae.cfg.metadata.model_fingerprint = "0" * 64
    other = SparseAutoencoder(other.sae)
    given = [Intervention(make_sae(lm), []), Intervention(other, [])]
    with pytest.raises(SAEError, match="--allow-misfit fingerprint"), intervened(lm, given):
        pass
    with intervened(lm, given, allow_misfit=["fingerprint"]) as tallies:
        logits(lm)
    assert [len(tally.misfits) for tally in tallies] == [0, 1]
    outside = make_sae(lm, hook="blocks.9.hook_resid_post")
    with pytest.raises(SAEError, match="does not fit"), applied(lm, outside, []):
        pass


def test_tallies_add_up_over_passes_and_batches(tiny_llama: LanguageModel) -> None:
    lm = tiny_llama
    n = [len(lm.token_ids(t)) - 1 for t in TEXTS]
    spec = AddDirection((1.0,) * lm.d_model)
    with applied(lm, make_sae(lm), [spec]) as tally:
        assert (tally.row_tokens, tally.row_norms, tally.mean_norm) == (None, None, 0.0)
        lm.forward_logits(lm.encode(TEXTS[:2]))
        lm.forward_logits(lm.encode(TEXTS))
        lm.forward_logits(lm.encode(TEXTS[2:]))
    assert tally.row_tokens is not None
    assert tally.row_norms is not None
    assert tally.row_tokens.tolist() == [2 * n[0] + n[2], 2 * n[1], n[2]]
    size = lm.d_model**0.5
    assert tally.row_norms == pytest.approx(tally.row_tokens * size)
    assert (tally.calls, tally.tokens) == (3, 2 * sum(n))
    assert tally.mean_norm == pytest.approx(size)
    assert EditTally().mean_norm == 0
