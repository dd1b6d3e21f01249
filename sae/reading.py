"""Some latents of a wide SAE, without encoding the others.

Where a latent depends on its own column of the encoder alone (standard, JumpReLU, gated), a few can
be read at a few columns' cost. A product of fewer columns may round otherwise in its last bits, so
the reader says how large that can get: whoever needs equality to the bit encodes in full there.
"""

from __future__ import annotations

from dataclasses import dataclass

import sae_lens
import torch
from torch import Tensor, nn

from affectlens.sae.model import SparseAutoencoder

_BY_FEATURE = (sae_lens.StandardSAE, sae_lens.JumpReLUSAE, sae_lens.GatedSAE)

_ROUNDING = 1e-6
"""Difference of two float32 dot products of one pair of vectors, in products of their norms."""


@dataclass(frozen=True)
class Read:
    """Some latents of some tokens.

    Attributes:
        values: activations [..., n].
        rounding: how far `values` may lie from those of a full encode, [..., n].
        at_edge: whether a latent is so close to where it starts to fire that a full encode may
            decide otherwise, bool [..., n].
    """

    values: Tensor
    rounding: Tensor
    at_edge: Tensor


class LatentReader:
    """Reads fixed latents; holds a copy of their encoder columns.

    Args:
        sae: an SAE for which `reads_by_feature` holds.
        features: latents [n] (long).
    """

    def __init__(self, sae: SparseAutoencoder, features: Tensor) -> None:
        raw = sae.sae
        self._sae = sae
        weights = raw.W_enc[:, features]
        self._gate, self._gate_norms = weights, weights.norm(dim=0)
        self._threshold: Tensor | float = 0.0
        if isinstance(raw, sae_lens.GatedSAE):
            self._bias = raw.b_gate[features]
            self._growth = raw.r_mag.exp()[features]
            self._value_bias = raw.b_mag[features]
        else:
            self._bias = self._value_bias = raw.b_enc[features]
            self._growth = torch.ones_like(self._bias)
            if isinstance(raw, sae_lens.JumpReLUSAE):
                self._threshold = raw.threshold[features]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Read:
        """Latents of residuals `x` [..., d_in]."""
        x = x.to(torch.float32)
        if self._sae.info.centre:
            x = x - x.mean(-1, keepdim=True)
        inner = self._sae.sae.process_sae_in(x)
        size = inner.norm(dim=-1, keepdim=True) * _ROUNDING
        product = inner @ self._gate
        distance = product + self._bias - self._threshold
        values = (product * self._growth + self._value_bias).relu() * (distance > 0)
        rounding = size * self._gate_norms
        return Read(values, rounding * self._growth.clamp(min=1), distance.abs() <= rounding)


def reads_by_feature(sae: SparseAutoencoder) -> bool:
    """Whether each latent depends on its own column of the encoder alone."""
    return isinstance(sae.sae, _BY_FEATURE) and isinstance(sae.sae.activation_fn, nn.ReLU)
