"""Activations of chosen features on every token, read while the model writes.

A token's residual is read as it comes in, before the edit of this layer is added to it: what the
model itself has there. The edit's own share would be constant under a clamp and tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.hooks import EditContext, EditFn
from affectlens.data.masking import MaskRule
from affectlens.sae.model import SparseAutoencoder

Values = list[float] | None
"""Activation of each wanted feature on one token; None where the SAE's rule masks the token."""

_CHUNK = 64
"""Tokens encoded at once, so that a wide SAE does not fill the memory."""


class Trace:
    """An edit that first reads the wanted features of each row.

    Args:
        sae: whose features they are.
        wanted: features of each row.
        edit: what is then done to the residual.
        told: rows whose prompts are read; all tokens that follow are read in every row.

    Attributes:
        prompts: row -> values of each of its prompt's tokens; filled by the first pass.
        latest: row -> values of the token that was read last.
        norms: [n_rows] summed norm of the residual over unmasked tokens.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        wanted: Sequence[Sequence[int]],
        edit: EditFn,
        told: Sequence[int],
    ) -> None:
        self._sae, self._edit, self._told = sae, edit, told
        self._wanted = [torch.tensor(list(w), dtype=torch.long) for w in wanted]
        info = sae.info
        self._rule = MaskRule(skip_first=info.skip_first, norm_limit=info.norm_limit)
        self.prompts: list[list[Values]] = [[] for _ in wanted]
        self.latest: list[Values] = [None for _ in wanted]
        self.norms: npt.NDArray[np.float64] = np.zeros(len(wanted))

    def __call__(self, resid: Tensor, context: EditContext) -> Tensor | None:
        """Read the residual [rows, seq, d_model], then return what the edit makes of it."""
        with torch.no_grad():
            keep = self._rule.keep(resid, context.positions, context.attention)
            lengths = resid.float().norm(dim=-1) * keep
            self.norms += lengths.double().sum(-1).cpu().numpy()
            if context.phase == "prompt":
                self._read_prompts(resid, keep, context.attention)
            else:
                self._read_latest(resid[:, -1], keep[:, -1])
        return self._edit(resid, context)

    def _read_prompts(self, resid: Tensor, keep: Tensor, attention: Tensor) -> None:
        for row in self._told:
            real = attention[row]
            x, kept = resid[row][real], keep[row][real].tolist()
            parts = [self._values(part, self._wanted[row]) for part in x.split(_CHUNK)]
            values = torch.cat(parts).tolist()
            self.prompts[row] = [v if k else None for v, k in zip(values, kept, strict=True)]

    def _read_latest(self, x: Tensor, keep: Tensor) -> None:
        if not any(len(w) for w in self._wanted):
            self.latest = [[] if k else None for k in keep.tolist()]
            return
        z = self._encoded(x)
        self.latest = [
            row[wanted].tolist() if kept else None
            for row, wanted, kept in zip(z, self._wanted, keep.tolist(), strict=True)
        ]

    def _values(self, x: Tensor, wanted: Tensor) -> Tensor:
        if not len(wanted):
            return torch.zeros(len(x), 0)
        return self._encoded(x)[:, wanted]

    def _encoded(self, x: Tensor) -> Tensor:
        return self._sae.encode(x.to(self._sae.device, torch.float32)).cpu()
