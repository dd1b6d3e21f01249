"""The threshold that turns a BatchTopK SAE into a JumpReLU SAE with the same mean L0.

BatchTopK keeps the n*k largest activations of a batch of n rows; for a single token the same
selection is "larger than a fixed threshold" (Bussmann et al. 2024, arXiv:2412.06410). sae-lens
tracks that threshold by a moving average from zero, which is far off in short runs, so it is
measured here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from affectlens.sae.errors import SAEError

_ROWS_AT_ONCE = 1024
_CANDIDATES = 4
"""Each chunk contributes so many times its fair share, far above how chunks differ."""


@torch.no_grad()
def calibrate_threshold(sae: Any, rows: Tensor, k: float) -> float:
    """Set `sae.threshold` of a sae-lens JumpReLU SAE so that mean L0 over `rows` is `k`.

    Args:
        sae: a `sae_lens.JumpReLUSAE`; its threshold is changed in place.
        rows: activations [n, d_in], masked ones left out.
        k: wanted mean number of active latents.

    Returns:
        The threshold, in units of the latents.

    Raises:
        SAEError: fewer than k latents are positive on average.
    """
    wanted = round(k * len(rows))
    candidates = []
    for chunk in rows.split(_ROWS_AT_ONCE):
        values = (sae.process_sae_in(chunk) @ sae.W_enc + sae.b_enc).flatten()
        values = values[values > 0]
        keep = min(len(values), round(_CANDIDATES * k * len(chunk)))
        candidates.append(values.topk(keep, sorted=False).values)
    largest = torch.cat(candidates)
    if len(largest) <= wanted:
        raise SAEError(
            f"only {len(largest) / len(rows):.1f} latents per token are positive, {k} are wanted; "
            "train longer or with a smaller k"
        )
    edge = largest.topk(wanted + 1).values[-2:]
    threshold = float(edge.double().mean())
    sae.threshold.fill_(threshold)
    return threshold
