"""Interventions are bit-equal where nothing changes, and do what they say where it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from affectlens.data.errors import AffectLensError, ConfigError, HookError
from affectlens.data.hooks import EditContext, capture, edit
from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model
from affectlens.features.interventions import (
    Intervention,
    applied,
    clamped,
    intervened,
    residual_edit,
)
from affectlens.features.scopes import Positions
from affectlens.features.specs import (
    Ablate,
    AddDirection,
    AddLatents,
    Clamp,
    MinClamp,
    PerRow,
    Scale,
    SetRows,
    Spec,
)
from affectlens.sae.model import SparseAutoencoder

from .edited_streams import TEXTS, logits
from .made_saes import HOOK, make_sae


def neutral_specs(lm: LanguageModel, sae: SparseAutoencoder) -> list[list[Spec]]:
    """Edits that change nothing, one of each kind that can; for a batch of `TEXTS`."""
    own = sae.encode(capture(lm, [HOOK], lm.encode(TEXTS))[HOOK])
    silent = int((own == 0).flatten(0, 1).all(0).nonzero()[0])
    return [
        [],
        [Scale((1, 2), 1.0)],
        [AddDirection((0.0,) * lm.d_model)],
        [AddDirection((1.0,) * lm.d_model, 0.0, "residual_norm")],
        [AddLatents((1, 2), (0.0, 0.0))],
        [Ablate((silent,))],
        [Clamp((silent,), (0.0,))],
        [MinClamp((silent,), (0.0,))],
        [SetRows((silent,), torch.zeros(3, 1))],
        [PerRow(((), (), ()))],
        [PerRow(((Scale((1,), 1.0),), (), (AddLatents((4,), (0.0,)), Ablate((silent,)))))],
    ]


def test_empty_spec_and_neutral_values_are_bit_equal(lm: LanguageModel) -> None:
    sae, plain = make_sae(lm), logits(lm)
    for specs in neutral_specs(lm, sae):
        with applied(lm, sae, specs) as tally:
            assert torch.equal(logits(lm), plain)
        assert (tally.calls, tally.tokens) == (1, 0)


def test_neutral_edits_leave_greedy_text_alone(lm: LanguageModel) -> None:
    sae = make_sae(lm)
    plain = lm.generate(TEXTS, max_new_tokens=6)
    for specs in (
        [],
        [Scale((1, 2), 1.0)],
        [AddLatents((1,), (0.0,)), AddDirection((0.0,) * lm.d_model)],
        [PerRow(((), (Scale((3,), 1.0),), ()))],
    ):
        with applied(lm, sae, specs) as tally:
            assert lm.generate(TEXTS, max_new_tokens=6) == plain
        assert tally.tokens == 0
        assert tally.calls > 0


def test_own_values_of_each_text_are_bit_equal(lm: LanguageModel) -> None:
    sae, batch = make_sae(lm), lm.encode(TEXTS)
    plain = lm.forward_logits(batch)
    z = sae.encode(capture(lm, [HOOK], batch)[HOOK])
    own = z[torch.arange(3), batch.last_index]
    features = tuple(range(sae.d_sae))
    rows = tuple((Clamp(features, tuple(row.tolist())),) for row in own)
    for spec in (SetRows(features, own), PerRow(rows)):
        with applied(lm, sae, [spec], scope="last") as tally:
            assert torch.equal(lm.forward_logits(batch), plain)
        assert tally.tokens == 0
        # The same values at other tokens are a change.
        with applied(lm, sae, [spec]):
            assert not torch.equal(lm.forward_logits(batch), plain)


def test_clamp_to_own_value_is_bit_equal(lm: LanguageModel) -> None:
    sae = make_sae(lm)
    batch = lm.encode([TEXTS[0]])
    plain = lm.forward_logits(batch)
    resid = capture(lm, [HOOK], batch)[HOOK]
    last = sae.encode(resid)[0, -1]
    features = tuple(int(i) for i in last.nonzero().flatten())
    with applied(
        lm, sae, [Clamp(features, tuple(last[list(features)].tolist()))], scope="last"
    ) as t:
        assert torch.equal(lm.forward_logits(batch), plain)
    assert (t.calls, t.tokens) == (1, 0)


def test_clamp_writes_the_decoder_row_and_keeps_the_error(lm: LanguageModel) -> None:
    sae = make_sae(lm)
    batch = lm.encode(TEXTS)
    before = capture(lm, [HOOK], batch)[HOOK]
    z = sae.encode(before)
    with clamped(lm, sae, {3: 2.5}) as tally:
        after = capture(lm, [HOOK], batch)[HOOK]
    expected = before + (2.5 - z[..., 3:4]) * sae.W_dec[3]
    keep = batch.attention_mask.bool() & (batch.positions > 0)
    torch.testing.assert_close(after[keep], expected[keep], rtol=1e-5, atol=1e-5)
    assert torch.equal(after[~keep], before[~keep])
    assert tally.tokens == int(keep.sum())
    assert tally.mean_norm > 0


def test_ablate_equals_rows_of_zeros_and_scale_zero(lm: LanguageModel) -> None:
    sae = make_sae(lm)
    results = []
    for spec in (Ablate((1, 5)), SetRows((1, 5), ((0.0, 0.0),) * 3), Scale((1, 5), 0.0)):
        with applied(lm, sae, [spec]):
            results.append(logits(lm))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_hook_is_gone_after_an_exception(lm: LanguageModel) -> None:
    sae = make_sae(lm)
    plain = logits(lm)
    with pytest.raises(RuntimeError, match="planned"), clamped(lm, sae, {0: 9.0}):
        logits(lm)
        raise RuntimeError("planned")
    assert torch.equal(logits(lm), plain)


def test_an_edit_that_never_ran_raises(lm: LanguageModel) -> None:
    with pytest.raises(HookError, match="never ran"), clamped(lm, make_sae(lm), {0: 1.0}):
        pass


def test_generation_with_cache_equals_full_recomputation() -> None:
    lm = tiny_model("llama")
    sae = make_sae(lm)
    with clamped(lm, sae, {3: 4.0, 7: 2.0}):
        text = lm.generate("The day began", max_new_tokens=8)
        ids = lm.token_ids("The day began")
        for _ in range(8):
            step = lm.forward_logits(lm.pad([ids]))
            ids = [*ids, int(step[0].argmax())]
    plain = lm.generate("The day began", max_new_tokens=8)
    assert lm.tokenizer.decode(ids, skip_special_tokens=True).endswith(text)
    assert text != plain


def test_generated_scope_leaves_the_prompt_alone() -> None:
    lm = tiny_model("gpt2")
    with clamped(lm, make_sae(lm), {3: 50.0}, scope="generated") as tally:
        lm.generate("The day began", max_new_tokens=4)
    assert tally.calls == 4
    assert tally.tokens == 3  # the first of four passes reads the prompt


@pytest.mark.parametrize("spec", [SetRows((1,), ((0.0,),)), PerRow(((Ablate((1,)),),))])
def test_rows_must_match_the_batch(tiny_llama: LanguageModel, spec: Spec) -> None:
    with (
        pytest.raises(AffectLensError, match="holds 1 rows but the batch has 3"),
        applied(tiny_llama, make_sae(tiny_llama), [spec]),
    ):
        logits(tiny_llama)


def test_an_sae_of_another_width_is_refused() -> None:
    small, wide = tiny_model("llama", d_model=32), tiny_model("llama", d_model=64)
    with pytest.raises(ValueError, match="64"), clamped(wide, make_sae(small), {0: 1.0}):
        pass


def interrupt_after(n: int) -> Callable[[Tensor, EditContext], None]:
    calls = []

    def stop(_: Tensor, __: EditContext) -> None:
        calls.append(1)
        if len(calls) > n:
            raise KeyboardInterrupt

    return stop


def n_hooks(lm: LanguageModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


def test_hooks_are_gone_after_a_generation_is_interrupted(lm: LanguageModel) -> None:
    plain, before = logits(lm), n_hooks(lm)
    given = [
        Intervention(make_sae(lm), [Clamp((3,), (9.0,))]),
        Intervention(make_sae(lm, hook="blocks.2.hook_resid_post"), [PerRow(((Ablate((1,)),),))]),
    ]
    with (
        pytest.raises(KeyboardInterrupt),
        intervened(lm, given),
        edit(lm, {"blocks.3.hook_resid_post": interrupt_after(3)}),
    ):
        assert n_hooks(lm) > before
        lm.generate("The day began", max_new_tokens=8)
    assert n_hooks(lm) == before
    assert torch.equal(logits(lm), plain)


def test_hooks_are_gone_after_an_edit_overflows(lm: LanguageModel) -> None:
    plain, before = logits(lm), n_hooks(lm)
    with (
        pytest.raises(ConfigError, match="smaller strength"),
        applied(lm, make_sae(lm), [AddLatents((3,), (3e38,))], scope="generated"),
    ):
        lm.generate("The day began", max_new_tokens=3)
    assert n_hooks(lm) == before
    assert torch.equal(logits(lm), plain)


def test_an_overflow_of_the_models_number_format_is_refused() -> None:
    lm = tiny_model("llama")
    lm.model.half()
    sae = make_sae(lm)
    with applied(lm, sae, [AddDirection((100.0,) * lm.d_model)]) as tally:
        assert torch.isfinite(logits(lm)).all()
    assert tally.mean_norm == pytest.approx(100 * lm.d_model**0.5)
    with (
        pytest.raises(ConfigError, match=r"not finite in torch\.float16"),
        applied(lm, sae, [AddDirection((1e5,) * lm.d_model)]),
    ):
        logits(lm)


def test_texts_that_have_ended_are_left_alone(tiny_llama: LanguageModel) -> None:
    lm = tiny_llama
    sae = make_sae(lm)
    fn, tally = residual_edit(sae, [Clamp((3,), (2.0,))], "generated")
    resid = torch.randn(2, 1, lm.d_model, generator=torch.Generator().manual_seed(0))
    context = EditContext(torch.tensor([[4], [2]]), torch.tensor([[True], [False]]), "generated")
    new = fn(resid, context)
    assert new is not None
    assert torch.equal(new[1], resid[1])
    assert not torch.equal(new[0], resid[0])
    assert tally.row_tokens is not None
    assert tally.row_tokens.tolist() == [1, 0]


def test_an_unknown_scope_or_position_is_refused(tiny_llama: LanguageModel) -> None:
    lm = tiny_llama
    with (
        pytest.raises(ConfigError, match="unknown scope 'middle'"),
        applied(lm, make_sae(lm), [], scope="middle"),  # type: ignore[arg-type]
    ):
        pass
    with (
        pytest.raises(ConfigError, match="position 99 lies outside text 0"),
        applied(lm, make_sae(lm), [Ablate((1,))], scope=Positions((99,))),
    ):
        logits(lm)


def test_gradients_pass_an_edit(tiny_llama: LanguageModel) -> None:
    lm = tiny_llama
    fn, tally = residual_edit(make_sae(lm), [Clamp((3,), (2.0,)), AddLatents((4,), (0.1,))])
    resid = torch.randn(1, 3, lm.d_model, generator=torch.Generator().manual_seed(0))
    resid.requires_grad_()
    new = fn(resid, EditContext(torch.arange(3)[None], torch.ones(1, 3).bool(), "prompt"))
    assert new is not None
    new.sum().backward()
    assert resid.grad is not None
    assert torch.isfinite(resid.grad).all()
    assert tally.tokens == 2
