"""Interventions are bit-equal where nothing changes, and do what they say where it does."""

from __future__ import annotations

import pytest
import sae_lens
import torch
from torch import Tensor

from affectlens.data.errors import AffectLensError, ConfigError, HookError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model
from affectlens.features.interventions import (
    Ablate,
    AddDirection,
    Clamp,
    Scale,
    SetRows,
    applied,
    clamped,
)
from affectlens.sae.model import SparseAutoencoder

FAMILIES = ("llama", "gpt2", "gpt_neox", "gemma2")
TEXTS = ["The door was open when she came home.", "Rain.", "He counted the steps twice, then ran."]
HOOK = "blocks.1.hook_resid_post"


def make_sae(lm: LanguageModel, d_sae: int = 64, k: int = 8) -> SparseAutoencoder:
    config = sae_lens.TopKSAEConfig(
        d_in=lm.d_model,
        d_sae=d_sae,
        k=k,
        metadata=sae_lens.saes.sae.SAEMetadata(
            hook_name=HOOK, model_name=lm.name, skip_first=True, norm_limit=None
        ),
    )
    sae = sae_lens.TopKSAE(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        weight = torch.randn(d_sae, lm.d_model, generator=generator)
        weight /= weight.norm(dim=-1, keepdim=True)
        sae.W_dec.copy_(weight)
        sae.W_enc.copy_(weight.T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return SparseAutoencoder(sae)


@pytest.fixture(params=FAMILIES)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return tiny_model(request.param)


def logits(lm: LanguageModel) -> Tensor:
    return lm.forward_logits(lm.encode(TEXTS), last_only=False)


def test_empty_spec_and_neutral_values_are_bit_equal(lm: LanguageModel) -> None:
    sae = make_sae(lm)
    plain = logits(lm)
    resid = capture(lm, [HOOK], lm.encode(TEXTS))[HOOK]
    own = sae.encode(resid)
    silent = int((own == 0).flatten(0, 1).all(0).nonzero()[0])
    for specs in (
        [],
        [Scale((1, 2), 1.0)],
        [AddDirection((0.0,) * lm.d_model)],
        [Ablate((silent,))],
    ):
        with applied(lm, sae, specs):
            assert torch.equal(logits(lm), plain)


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


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Ablate((64,)), "outside the SAE: allowed are 0 to 63"),
        (Clamp((1, 2), (1.0,)), "2 features but 1 values"),
        (Clamp((1,), (float("inf"),)), "infinite or not a number"),
        (Scale((1,), float("nan")), "infinite or not a number"),
        (AddDirection((1.0,)), "the direction has 1 entries"),
    ],
)
def test_bad_specs_are_refused(spec: object, message: str) -> None:
    lm = tiny_model("llama")
    with pytest.raises(ConfigError, match=message), applied(lm, make_sae(lm), [spec]):  # type: ignore[list-item]
        pass


def test_rows_must_match_the_batch() -> None:
    lm = tiny_model("llama")
    with (
        pytest.raises(AffectLensError, match="holds 1 rows but the batch has 3"),
        applied(lm, make_sae(lm), [SetRows((1,), ((0.0,),))]),
    ):
        logits(lm)


def test_an_sae_of_another_width_is_refused() -> None:
    small, wide = tiny_model("llama", d_model=32), tiny_model("llama", d_model=64)
    with pytest.raises(ValueError, match="64"), clamped(wide, make_sae(small), {0: 1.0}):
        pass
