"""Our edits of a Hugging Face model against sae-lens' HookedSAETransformer on the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sae_lens
import torch
from torch import Tensor
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import (
    convert_gpt2_weights,
    convert_llama_weights,
)

from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model
from affectlens.features.edit_plan import ErrorTerm
from affectlens.features.interventions import Intervention, intervened
from affectlens.features.specs import Ablate, Clamp, Scale, Spec
from affectlens.sae.model import SparseAutoencoder

TEXT = "She kept the letter in the drawer."
Edit = Callable[[Tensor], Tensor]


def peer_of(lm: LanguageModel) -> Any:
    """The model with the same weights in TransformerLens' own modules."""
    hf: Any = lm.model
    llama = lm.name == "tiny:llama"
    heads = hf.config.num_attention_heads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = HookedTransformerConfig(
            n_layers=lm.n_layers,
            d_model=lm.d_model,
            n_ctx=128,
            d_head=lm.d_model // heads,
            n_heads=heads,
            n_key_value_heads=hf.config.num_key_value_heads if llama else None,
            d_mlp=(2 if llama else 4) * lm.d_model,
            d_vocab=lm.d_vocab,
            act_fn="silu" if llama else "gelu_new",
            normalization_type="RMS" if llama else "LN",
            positional_embedding_type="rotary" if llama else "standard",
            rotary_dim=lm.d_model // heads if llama else None,
            gated_mlp=llama,
            eps=hf.config.rms_norm_eps if llama else hf.config.layer_norm_epsilon,
            original_architecture="LlamaForCausalLM" if llama else "GPT2LMHeadModel",
            final_rms=llama,
            device="cpu",
            init_weights=False,
        )
        peer = sae_lens.HookedSAETransformer(cfg)
        weights = (convert_llama_weights if llama else convert_gpt2_weights)(hf, cfg)
        if not llama:
            weights["pos_embed.W_pos"] = weights["pos_embed.W_pos"][: cfg.n_ctx]
        # What is left out are masks and rotations, which are no weights, and biases of zero.
        peer.load_state_dict(weights, strict=False)
    return peer.eval()


def make_raw(lm: LanguageModel, layer: int, kind: str) -> Any:
    cls = {"topk": sae_lens.TopKSAE, "jumprelu": sae_lens.JumpReLUSAE}[kind]
    config = getattr(sae_lens, cls.__name__ + "Config")
    raw = cls(
        config(
            d_in=lm.d_model,
            d_sae=64,
            metadata=sae_lens.saes.sae.SAEMetadata(
                hook_name=f"blocks.{layer}.hook_resid_post", skip_first=False
            ),
            **({"k": 8} if kind == "topk" else {}),
        )
    )
    generator = torch.Generator().manual_seed(layer)
    for parameter in raw.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    if kind == "jumprelu":
        raw.threshold.data.abs_()
    return raw


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def both(request: pytest.FixtureRequest) -> tuple[LanguageModel, Any]:
    lm = tiny_model(request.param)
    return lm, peer_of(lm)


def set_to(features: Sequence[int], values: Sequence[float]) -> Edit:
    def run(z: Tensor) -> Tensor:
        z = z.clone()
        z[..., list(features)] = torch.tensor(values)
        return z

    return run


def theirs(
    peer: Any, saes: Sequence[Any], ids: Tensor, edits: Sequence[Edit], *, use_error_term: bool
) -> Tensor:
    def hook(edit: Edit) -> Callable[..., Tensor]:
        return lambda z, hook: edit(z)

    hooks = [
        (f"{raw.cfg.metadata.hook_name}.hook_sae_acts_post", hook(edit))
        for raw, edit in zip(saes, edits, strict=True)
    ]
    with torch.no_grad(), peer.saes(saes=list(saes), use_error_term=use_error_term):
        out: Tensor = peer.run_with_hooks(ids, fwd_hooks=hooks)
    return out


def test_the_weights_are_the_same(both: tuple[LanguageModel, Any]) -> None:
    lm, peer = both
    batch = lm.encode([TEXT])
    with torch.no_grad():
        torch.testing.assert_close(
            lm.forward_logits(batch, last_only=False), peer(batch.input_ids), rtol=0, atol=1e-4
        )


EDITS: list[tuple[list[Spec], Edit]] = [
    ([], lambda z: z),
    ([Ablate(tuple(range(0, 64, 2)))], set_to(range(0, 64, 2), [0.0] * 32)),
    ([Clamp((3, 17), (4.0, 2.5))], set_to((3, 17), (4.0, 2.5))),
    ([Scale(tuple(range(64)), 2.0)], lambda z: 2 * z),
]


@pytest.mark.parametrize("error", ["keep", "drop"])
@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
@pytest.mark.parametrize("index", range(len(EDITS)))
def test_edited_logits_equal_sae_lens(
    both: tuple[LanguageModel, Any], kind: str, error: ErrorTerm, index: int
) -> None:
    lm, peer = both
    specs, change = EDITS[index]
    raw, batch = make_raw(lm, 1, kind), lm.encode([TEXT])
    one = Intervention(SparseAutoencoder(raw), specs, "all", error)
    with intervened(lm, [one]) as tallies:
        ours = lm.forward_logits(batch, last_only=False)
    wanted = theirs(peer, [raw], batch.input_ids, [change], use_error_term=error == "keep")
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)
    plain = lm.forward_logits(batch, last_only=False)
    changes = bool(specs) or error == "drop"
    assert bool(float((ours - plain).abs().max()) > 1e-2) == changes
    assert (tallies[0].tokens > 0) == changes


@pytest.mark.parametrize("error", ["keep", "drop"])
def test_two_saes_at_two_layers_equal_sae_lens(
    both: tuple[LanguageModel, Any], error: ErrorTerm
) -> None:
    lm, peer = both
    raws, batch = [make_raw(lm, 1, "topk"), make_raw(lm, 2, "jumprelu")], lm.encode([TEXT])
    (ablate, first), (clamp, second) = EDITS[1], EDITS[2]
    given = [
        Intervention(SparseAutoencoder(raw), specs, "all", error)
        for raw, specs in zip(raws, (ablate, clamp), strict=True)
    ]
    with intervened(lm, given) as tallies:
        ours = lm.forward_logits(batch, last_only=False)
    wanted = theirs(peer, raws, batch.input_ids, [first, second], use_error_term=error == "keep")
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)
    assert tallies[0].tokens > 0
    assert tallies[1].tokens == batch.input_ids.shape[1]


def test_generation_with_a_cache_writes_what_sae_lens_writes_without(
    both: tuple[LanguageModel, Any],
) -> None:
    lm, peer = both
    raw, (specs, change) = make_raw(lm, 1, "topk"), EDITS[2]
    ids = lm.token_ids(TEXT)
    with intervened(lm, [Intervention(SparseAutoencoder(raw), specs, "all")]):
        text = lm.generate(TEXT, max_new_tokens=6)
    for _ in range(6):
        logits = theirs(peer, [raw], torch.tensor([ids]), [change], use_error_term=True)
        ids = [*ids, int(logits[0, -1].argmax())]
    assert lm.tokenizer.decode(ids, skip_special_tokens=True) == TEXT + str(text)
    assert text != lm.generate(TEXT, max_new_tokens=6)
