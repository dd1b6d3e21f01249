"""The threshold that turns a BatchTopK SAE into a JumpReLU SAE with the same mean L0.

BatchTopK keeps the n*k largest activations of a batch of n rows; for a single token the same
selection is "larger than a fixed threshold" (Bussmann et al. 2024, arXiv:2412.06410). sae-lens
tracks that threshold by a moving average from zero, which is far off in short runs, so it is
measured here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BATCH_ARCHS = ("batchtopk", "matryoshka")
"""Architectures whose selection in training spans the batch; at inference a threshold stands in."""
_ENTRIES_AT_ONCE = 2**24
"""Pre-activations held at once: 64 MiB, whatever the width."""
_CANDIDATES = 4
"""Each chunk contributes so many times its fair share at first, and more where that was too few."""

logger = logging.getLogger("affectlens")


def rows_at_once(d_sae: int) -> int:
    """How many rows to encode at once so that their hidden layer stays small."""
    return max(1, min(1024, _ENTRIES_AT_ONCE // d_sae))


@torch.no_grad()
def mean_l0_threshold(
    keys: Callable[[Tensor], Tensor], d_sae: int, rows: Tensor, k: float
) -> float:
    """The value that `k` keys per row exceed on average; 0 where fewer than that are positive.

    Args:
        keys: rows [n, d_in] to the values that compete, [n, d_sae].
        d_sae: number of latents.
        rows: activations [n, d_in], masked ones left out.
        k: wanted mean number of active latents.
    """
    wanted, share = round(k * len(rows)), float(_CANDIDATES)
    while True:
        largest, left_out = _largest_keys(keys, d_sae, rows, share * k)
        if len(largest) <= wanted and left_out == 0:
            return 0.0
        if len(largest) > wanted:
            threshold = float(largest.topk(wanted + 1).values[-2:].double().mean())
            if threshold >= left_out:
                return threshold
        # A chunk of few rows can hold far more than its share of the large values.
        share *= 4


def _largest_keys(
    keys: Callable[[Tensor], Tensor], d_sae: int, rows: Tensor, per_row: float
) -> tuple[Tensor, float]:
    """The largest positive keys of each chunk, and a bound on those that were left out."""
    candidates, left_out = [], 0.0
    for chunk in rows.split(rows_at_once(d_sae)):
        values = keys(chunk).flatten()
        values = values[values > 0]
        keep = min(len(values), max(1, round(per_row * len(chunk))))
        candidates.append(values.topk(keep, sorted=False).values)
        if keep < len(values):
            left_out = max(left_out, float(candidates[-1].min()))
    return torch.cat(candidates), left_out


@torch.no_grad()
def calibrate_threshold(sae: Any, rows: Tensor, k: float) -> float:
    """Set `sae.threshold` of a sae-lens JumpReLU SAE so that mean L0 over `rows` is `k`.

    Where fewer than k latents are positive on average, as after very few steps, the threshold is 0
    and L0 stays below k; the log says so.

    Args:
        sae: a `sae_lens.JumpReLUSAE`; its threshold is changed in place.
        rows: activations [n, d_in], masked ones left out.
        k: wanted mean number of active latents.

    Returns:
        The threshold, in units of the latents.
    """

    def keys(chunk: Tensor) -> Tensor:
        return sae.process_sae_in(chunk) @ sae.W_enc + sae.b_enc

    threshold = mean_l0_threshold(keys, sae.cfg.d_sae, rows, k)
    if threshold == 0:
        logger.warning(
            "no more than k = %g latents per token are positive, so inference keeps all of them; "
            "train longer or with a smaller k",
            k,
        )
    sae.threshold.fill_(threshold)
    return threshold


@torch.no_grad()
def encode_for_inference(sae: Any, rows: Tensor, threshold: float | None) -> Tensor:
    """Latents [n, d_sae] of a training SAE as its inference form would give them.

    Args:
        sae: a sae-lens training SAE.
        rows: scaled activations [n, d_in].
        threshold: of a batch architecture, in units of the decoder-scaled pre-activations; None for
            those whose training form encodes row by row.
    """
    if threshold is None:
        return sae.encode(rows)
    keys = batch_keys(sae)(rows)
    return torch.where(keys > threshold, keys, 0.0)


def batch_keys(sae: Any) -> Callable[[Tensor], Tensor]:
    """The values by which a BatchTopK training SAE selects: pre-activations times decoder norms."""
    norms = sae.W_dec.norm(dim=-1) if sae.cfg.rescale_acts_by_decoder_norm else 1.0
    return lambda rows: (sae.process_sae_in(rows) @ sae.W_enc + sae.b_enc) * norms
