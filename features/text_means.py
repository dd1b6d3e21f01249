"""Means and firing statistics of latents over the unmasked tokens of texts, without a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.data.token_batches import Batch
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
    """Mean residual and mean latent activations of each text over its unmasked tokens.

    Zeros for a text without such a token.
    """
    resid = np.zeros((len(texts), sae.d_in), dtype=np.float32)
    latents = np.zeros((len(texts), sae.d_sae), dtype=np.float32)
    rows = [lm.token_ids(t, label=f"text {i}") for i, t in enumerate(texts)]
    for places, x, batch in read_rows(lm, sae, rows, batch_size):
        keep = kept_tokens(sae, x, batch)[..., None].float()
        count = keep.sum(1).clamp(min=1)
        resid[places] = ((x * keep).sum(1) / count).cpu().numpy()
        latents[places] = ((sae.encode(x) * keep).sum(1) / count).cpu().numpy()
    return TextMeans(resid, latents)


@torch.inference_mode()
def text_statistics(
    lm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], *, batch_size: int = 16
) -> pd.DataFrame:
    """Firing statistics of every latent over the unmasked tokens of `texts` (`STATS_COLUMNS`).

    For searches without a store of corpus activations; a few thousand tokens rank latents coarsely.
    """
    n_tokens = 0
    fired, total, largest = (torch.zeros(sae.d_sae, dtype=torch.float64) for _ in range(3))
    rows = [lm.token_ids(t, label=f"text {i}") for i, t in enumerate(texts)]
    for _, x, batch in read_rows(lm, sae, rows, batch_size):
        z = sae.encode(x[kept_tokens(sae, x, batch)]).double().cpu()
        if not len(z):
            continue
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


def read_rows(
    lm: LanguageModel, sae: SparseAutoencoder, rows: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[list[int], Tensor, Batch]]:
    """The residual at the SAE's hook, rows of like length together, so that little is padding.

    Args:
        lm: the model.
        sae: names the hook.
        rows: token ids.
        batch_size: rows in one pass.

    Yields:
        The places of some rows, float32 [n, seq, d_model], and their batch.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = lm.pad([rows[i] for i in places])
        yield places, capture(lm, [sae.info.hook_name], batch)[sae.info.hook_name].float(), batch


def kept_tokens(sae: SparseAutoencoder, x: Tensor, batch: Batch) -> Tensor:
    """Tokens [n, seq] that the SAE's mask leaves in."""
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    return rule.keep(x, batch.positions.to(x.device), batch.attention_mask.to(x.device))
