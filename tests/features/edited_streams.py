"""SAEs and residual streams to edit, without a model and in a tiny one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import sae_lens
import torch
from torch import Tensor

from affectlens.data.hooks import EditContext
from affectlens.data.models import LanguageModel
from affectlens.features.edit_plan import ErrorTerm
from affectlens.features.interventions import EditTally, residual_edit
from affectlens.features.specs import Spec
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


def logits(lm: LanguageModel) -> Tensor:
    return lm.forward_logits(lm.encode(TEXTS), last_only=False)
