"""Models, autoencoders and statistics for studies of effects on tiny models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import sae_lens
import torch

from affectlens.data.models import LanguageModel
from affectlens.data.taxonomy import AROUSAL_WORDS, CALM_WORDS, EMOTION_WORDS, VALENCE_WORDS
from affectlens.sae.model import SparseAutoencoder

WORDS = list(
    dict.fromkeys(
        w
        for words in (*EMOTION_WORDS.values(), CALM_WORDS, VALENCE_WORDS, AROUSAL_WORDS)
        for w in words
    )
)
"""Words that get a token of their own, so that readouts work."""


def make_sae(
    lm: LanguageModel, layer: int = 1, d_sae: int = 96, k: int = 8, seed: int = 5
) -> SparseAutoencoder:
    sae = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(
            d_in=lm.d_model,
            d_sae=d_sae,
            k=k,
            metadata=sae_lens.saes.sae.SAEMetadata(
                hook_name=f"blocks.{layer}.hook_resid_post",
                model_name=lm.name,
                model_fingerprint=lm.fingerprint,
                skip_first=True,
                norm_limit=None,
            ),
        )
    )
    rows = torch.randn(d_sae, lm.d_model, generator=torch.Generator().manual_seed(seed))
    rows /= rows.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return SparseAutoencoder(sae)


def make_stats(d_sae: int = 96, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rate = 10 ** rng.uniform(-3, -0.5, d_sae)
    return pd.DataFrame(
        {
            "feature": range(d_sae),
            "firing_rate": rate,
            "mean_active": rng.uniform(0.2, 1, d_sae),
            "max_active": rng.uniform(1, 3, d_sae),
        }
    )
