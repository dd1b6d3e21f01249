"""Tied autoencoders of random unit rows for tiny models, and a model with one planted direction."""

from __future__ import annotations

from collections.abc import Iterable

import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"


def unit_rows(n: int, d_model: int, seed: int = 5) -> Tensor:
    """Random rows of length 1, [n, d_model]."""
    rows = torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True)


def planted_rows(n: int, direction: Tensor, place: int) -> Tensor:
    """Unit rows without a direction, all but the one at `place`, which is that direction."""
    rows = torch.randn(n, len(direction), generator=torch.Generator().manual_seed(5))
    rows -= (rows @ direction)[:, None] * direction
    rows[place] = direction
    return rows / rows.norm(dim=-1, keepdim=True)


def metadata(lm: LanguageModel, hook: str = HOOK, norm_limit: float | None = None) -> SAEMetadata:
    return SAEMetadata(
        hook_name=hook,
        model_name=lm.name,
        model_fingerprint=lm.fingerprint,
        skip_first=True,
        norm_limit=norm_limit,
    )


def tied(raw: sae_lens.SAE, rows: Tensor) -> SparseAutoencoder:
    """The SAE with decoder rows [d_sae, d_model] that it encodes by, too."""
    with torch.no_grad():
        raw.W_dec.copy_(rows)
        raw.W_enc.copy_(rows.T)
    return SparseAutoencoder(raw)


def topk_sae(
    lm: LanguageModel,
    rows: Tensor,
    *,
    k: int = 8,
    hook: str = HOOK,
    norm_limit: float | None = None,
    norm: str = "none",
) -> SparseAutoencoder:
    config = sae_lens.TopKSAEConfig(
        d_in=lm.d_model,
        d_sae=len(rows),
        k=k,
        normalize_activations=norm,  # type: ignore[arg-type]
        metadata=metadata(lm, hook, norm_limit),
    )
    return tied(sae_lens.TopKSAE(config), rows)


def make_sae(
    lm: LanguageModel, hook: str = HOOK, *, d_sae: int = 96, k: int = 8, seed: int = 5
) -> SparseAutoencoder:
    """A TopK SAE of random rows."""
    return topk_sae(lm, unit_rows(d_sae, lm.d_model, seed), k=k, hook=hook)


def planted_lm(
    words: Iterable[str], promoted: Iterable[str], *, gain: float = 2.0, last: float = 1.0
) -> tuple[LanguageModel, Tensor]:
    """A model in which one direction promotes some of its words and no other token.

    Args:
        words: words of one token.
        promoted: those that are promoted.
        gain: what the unembedding of each holds of the direction.
        last: factor on what the last block writes; small, other directions reach the words hardly
            at all.
    """
    lm = tiny_model("llama", n_layers=3, words=list(words))
    direction = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(3))
    direction /= direction.norm()
    head = lm.model.get_output_embeddings().weight
    ids = [lm.tokenizer.encode(f" {w}", add_special_tokens=False)[0] for w in promoted]
    with torch.no_grad():
        head -= (head @ direction)[:, None] * direction
        head[ids] += gain * direction
        for name, weight in lm.blocks[2].named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight *= last
    return lm, direction
