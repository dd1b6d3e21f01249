"""Which token positions carry content: the one mask for harvest, training, search and intervention.

Many language models park a huge vector on the first token (and sometimes on a few others), the
"massive activations" of Sun et al. 2024 (arXiv:2402.17762). Such a token can hold nearly all the
variance of a layer while saying nothing about the text, so it is left out everywhere, by one rule
that is stored beside the activations and inside the SAE.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from affectlens.data.errors import ModelError


@dataclass(frozen=True)
class MaskRule:
    """The rule that tells content tokens from the rest at one hook.

    Attributes:
        skip_first: leave out the first real token of every text.
        norm_limit: leave out tokens whose L2 norm at this hook exceeds it; None for no limit.
    """

    skip_first: bool = True
    norm_limit: float | None = None

    def __post_init__(self) -> None:
        if self.norm_limit is not None and not (0 < self.norm_limit < float("inf")):
            raise ModelError(
                f"norm_limit must be a positive finite number or None, got {self.norm_limit!r}"
            )

    def keep(self, resid: Tensor, positions: Tensor, attention: Tensor) -> Tensor:
        """Mark the content tokens.

        Args:
            resid: residual stream, float [batch, seq, d_model].
            positions: real positions, long [batch, seq]; 0 is the first real token of a text.
            attention: bool [batch, seq], False on padding.

        Returns:
            bool [batch, seq], True on content tokens.

        Raises:
            ModelError: the shapes disagree, or a real token's norm is not finite (an overflow of
                a half-precision model would otherwise pass for an outlier and vanish).
        """
        shape = resid.shape[:-1]
        if positions.shape != shape or attention.shape != shape:
            raise ModelError(
                f"resid is {tuple(shape)} by d_model, but positions {tuple(positions.shape)} and "
                f"attention {tuple(attention.shape)}: all three must agree"
            )
        keep = attention.to(torch.bool).clone()
        if self.skip_first:
            keep &= positions > 0
        if self.norm_limit is not None:
            norms = token_norms(resid)
            if not bool(torch.isfinite(norms[attention.to(torch.bool)]).all()):
                raise ModelError(
                    "the residual stream holds infinite or NaN values on real tokens; load the "
                    "model with dtype='float32' or 'bfloat16'"
                )
            keep &= norms <= self.norm_limit
        return keep


def token_norms(resid: Tensor) -> Tensor:
    """L2 norm over the last axis in float32; float [batch, seq] from [batch, seq, d_model]."""
    return torch.linalg.vector_norm(resid, dim=-1, dtype=torch.float32)


def norm_limit(norms: Tensor, factor: float) -> float:
    """The limit above which a token counts as an outlier: `factor` times the median norm.

    Args:
        norms: L2 norms of content tokens (first tokens already left out), float [n].
        factor: how many medians are still normal; above 1.

    Raises:
        ModelError: no norms, a norm that is not finite, or a factor of 1 or less.
    """
    if not factor > 1:
        raise ModelError(f"the outlier factor must be above 1, got {factor}")
    values = norms.detach().to("cpu", torch.float64).numpy().ravel()
    if values.size == 0:
        raise ModelError("no token norms were given: the texts hold nothing but first tokens")
    if not np.isfinite(values).all():
        raise ModelError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} token norms are not finite; "
            "load the model with dtype='float32' or 'bfloat16'"
        )
    return float(np.median(values) * factor)
