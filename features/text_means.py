"""Means and firing statistics of latents over the unmasked tokens of texts, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class TextMeans:
    """Means over each text's unmasked tokens.

    Attributes:
        resid: [n_texts, d_model] residual at the SAE's hook.
        latents: [n_texts, d_sae] activations.
    """

    resid: npt.NDArray[np.float32]
    latents: npt.NDArray[np.float32]


@torch.inference_mode()
def text_means(
    lm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], *, batch_size: int = 16
) -> TextMeans:
    """Mean residual and mean latent activations of each text over its unmasked tokens."""
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    hook = sae.info.hook_name
    resids, latents = [], []
    for start in range(0, len(texts), batch_size):
        batch = lm.encode(list(texts[start : start + batch_size]))
        x = capture(lm, [hook], batch)[hook].float()
        keep = rule.keep(x, batch.positions, batch.attention_mask)[..., None].float()
        count = keep.sum(1).clamp(min=1)
        resids.append(((x * keep).sum(1) / count).cpu().numpy())
        latents.append(((sae.encode(x) * keep).sum(1) / count).cpu().numpy())
    return TextMeans(np.concatenate(resids), np.concatenate(latents))


@torch.inference_mode()
def text_statistics(
    lm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], *, batch_size: int = 16
) -> pd.DataFrame:
    """Firing statistics of every latent over the unmasked tokens of `texts` (`STATS_COLUMNS`).

    For searches without a store of corpus activations; a few thousand tokens rank latents coarsely.
    """
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    hook = sae.info.hook_name
    n_tokens = 0
    fired, total, largest = (torch.zeros(sae.d_sae, dtype=torch.float64) for _ in range(3))
    for start in range(0, len(texts), batch_size):
        batch = lm.encode(list(texts[start : start + batch_size]))
        x = capture(lm, [hook], batch)[hook].float()
        z = sae.encode(x[rule.keep(x, batch.positions, batch.attention_mask)]).double().cpu()
        n_tokens += len(z)
        fired += (z > 0).sum(0)
        total += z.sum(0)
        largest = torch.maximum(largest, z.amax(0))
    return pd.DataFrame(
        {
            "feature": np.arange(sae.d_sae),
            "firing_rate": (fired / max(n_tokens, 1)).numpy(),
            "mean_active": (total / fired.clamp(min=1)).numpy(),
            "max_active": largest.numpy(),
        }
    )
