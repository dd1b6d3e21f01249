"""The auxiliary loss on the CPU: dead latents fit what the living leave (Gao et al. 2024, A.2).

Weights of the dead latents are gathered once a step and their gradients scattered once, because the
rows come in blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affectlens.training import kernels


@dataclass(frozen=True)
class DeadLatents:
    """Weights and gradients of the dead latents, m of them."""

    chosen: Tensor
    """int64 [m]: their places among all latents."""
    encoder: Tensor
    """[m, d_in]; the encoder's columns."""
    decoder: Tensor
    """[m, d_in]."""
    bias: Tensor
    """[m]."""
    norms: NDArray[np.float32]
    """[m]: norms of the decoder's rows."""
    d_encoder: Tensor
    """[m, d_in]."""
    d_decoder: Tensor
    """[m, d_in]."""
    d_bias: Tensor
    """[m]."""

    @classmethod
    def of(
        cls,
        sae: Any,
        weights: Mapping[str, NDArray[np.float32]],
        dead: Tensor,
        norms: NDArray[np.float32],
    ) -> Self:
        """Gather them; `weights` hold one row a latent, `dead` is bool [d_sae]."""
        chosen = dead.nonzero().flatten()
        encoder = torch.from_numpy(weights["W_enc"])[chosen]
        decoder = torch.from_numpy(weights["W_dec"])[chosen]
        zeros = torch.zeros_like(encoder), torch.zeros_like(decoder), torch.zeros(len(chosen))
        bias = sae.b_enc.detach()[chosen]
        return cls(chosen, encoder, decoder, bias, norms[chosen.numpy()], *zeros)

    def add_products(self, part: Tensor, acts: Tensor, residual: Tensor, weight: float) -> float:
        """Add the gradients of some rows by dense products; the summed squared error.

        Args:
            part: centred rows [r, d_in].
            acts: pre-activations [r, m], zero where a latent does not act.
            residual: what the living latents leave [r, d_in].
            weight: of the squared error.
        """
        difference = acts @ self.decoder - residual
        gradient = difference * (2 * weight)
        slopes = (gradient @ self.decoder.T).mul_(acts != 0)
        self.d_decoder.addmm_(acts.T, gradient)
        self.d_encoder.addmm_(slopes.T, part)
        self.d_bias.add_(slopes.sum(0))
        return float(difference.square().sum(-1).double().sum())

    def add_entries(self, part: Tensor, acts: Tensor, residual: Tensor, weight: float) -> float:
        """The same, entry by entry, where few of many dead latents act on a row."""
        rows_of, columns = acts.numpy().nonzero()
        values = acts.numpy()[rows_of, columns]
        bounds = np.searchsorted(rows_of, np.arange(len(acts) + 1))
        latents = columns.astype(np.int32)
        errors, losses = np.empty((1, *part.shape), np.float32), np.empty(len(part))
        decoder = self.decoder.numpy()
        m = len(decoder)
        kernels.decode_errors(
            bounds, latents, values, decoder, residual.numpy(), np.array([m]), errors, losses
        )
        errors *= np.float32(2 * weight)
        kernels.add_gradients(
            *kernels.group_by_latent(bounds, latents, values, m),
            np.arange(m),
            np.zeros(m, np.int64),
            decoder,
            part.numpy(),
            errors,
            self.d_decoder.numpy(),
            self.d_encoder.numpy(),
            self.d_bias.numpy(),
        )
        return float(losses.sum())

    def add_to(self, grads: Mapping[str, NDArray[np.float32]]) -> None:
        """Scatter the gradients into those of all latents."""
        for name, own in (("W_dec", self.d_decoder), ("W_enc", self.d_encoder)):
            torch.from_numpy(grads[name]).index_add_(0, self.chosen, own)
        torch.from_numpy(grads["b_enc"])[0].index_add_(0, self.chosen, self.d_bias)
