"""SAEs and residual streams to edit, without a model and in a tiny one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import sae_lens
import torch
from torch import Tensor

from affectlens.data.hooks import EditContext
from affectlens.data.models import LanguageModel
from affectlens.features.interventions import (
    EditTally,
    ErrorTerm,
    Spec,
    residual_edit,
)
from affectlens.sae.model import SparseAutoencoder

D, N = 8, 40
KINDS = {
    "standard": sae_lens.StandardSAE,
    "jumprelu": sae_lens.JumpReLUSAE,
    "gated": sae_lens.GatedSAE,
    "topk": sae_lens.TopKSAE,
}


def made(kind: str = "standard", **settings: object) -> SparseAutoencoder:
    cls = KINDS[kind]
    extra = {"k": 6} if kind == "topk" else {}
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name="blocks.1.hook_resid_post", skip_first=False)
    config = getattr(sae_lens, cls.__name__ + "Config")
    raw = cls(config(d_in=D, d_sae=N, metadata=metadata, **extra, **settings))
    generator = torch.Generator().manual_seed(3)
    for parameter in raw.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    if kind == "jumprelu":
        raw.threshold.data.abs_()
    return SparseAutoencoder(raw)


shared = cache(made)


def run(
    sae: SparseAutoencoder, specs: Sequence[Spec], x: Tensor, error: ErrorTerm = "keep"
) -> tuple[Tensor | None, EditTally]:
    edit_fn, tally = residual_edit(sae, specs, "all", error)
    batch, seq = x.shape[:2]
    context = EditContext(
        torch.arange(seq).expand(batch, seq), torch.ones(batch, seq, dtype=torch.bool), "prompt"
    )
    return edit_fn(x, context), tally


def close(found: Tensor | None, wanted: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True)


TEXTS = ["The door was open when she came home.", "Rain.", "He counted the steps twice, then ran."]
HOOK = "blocks.1.hook_resid_post"


def make_sae(
    lm: LanguageModel, d_sae: int = 64, k: int = 8, hook: str = HOOK, seed: int = 5
) -> SparseAutoencoder:
    config = sae_lens.TopKSAEConfig(
        d_in=lm.d_model,
        d_sae=d_sae,
        k=k,
        metadata=sae_lens.saes.sae.SAEMetadata(
            hook_name=hook, model_name=lm.name, skip_first=True, norm_limit=None
        ),
    )
    sae = sae_lens.TopKSAE(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = torch.randn(d_sae, lm.d_model, generator=generator)
        weight /= weight.norm(dim=-1, keepdim=True)
        sae.W_dec.copy_(weight)
        sae.W_enc.copy_(weight.T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return SparseAutoencoder(sae)


def logits(lm: LanguageModel) -> Tensor:
    return lm.forward_logits(lm.encode(TEXTS), last_only=False)
