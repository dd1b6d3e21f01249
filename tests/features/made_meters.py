"""Texts, autoencoders and readouts for measurements on tiny models."""

from __future__ import annotations

import sae_lens
import torch

from affectlens.data.models import LanguageModel
from affectlens.features.readouts import Readout, build_readout
from affectlens.sae.model import SparseAutoencoder

TEXTS = ["She read the letter.", "A boat left.", "He folded the map and went.", "Rain."]
TEMPLATES = (" It felt", "\nIt was")
# The tiny tokenizer reads bytes, so that these are words of one token, and of two.
WORDS = {"grief": ["a", "b", "c"], "rage": ["d", "e", "f"], "calm": ["g", "h", "i"]}
LONG = {"grief": ["ax", "ay", "c"], "rage": ["dd", "e", "f"], "calm": ["g", "hz", "i"]}


def make_sae(
    lm: LanguageModel, hook: str = "blocks.1.hook_resid_post", d_sae: int = 96
) -> SparseAutoencoder:
    sae = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(
            d_in=lm.d_model,
            d_sae=d_sae,
            k=8,
            metadata=sae_lens.saes.sae.SAEMetadata(
                hook_name=hook, model_name=lm.name, skip_first=True, norm_limit=None
            ),
        )
    )
    rows = torch.randn(d_sae, lm.d_model, generator=torch.Generator().manual_seed(5))
    rows /= rows.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return SparseAutoencoder(sae)


def make_readout(lm: LanguageModel, *, long: bool = False, scales: bool = False) -> Readout:
    return build_readout(
        lm,
        LONG if long else WORDS,
        TEMPLATES,
        calibrate=False,
        split="score",
        scales=scales,
    )
