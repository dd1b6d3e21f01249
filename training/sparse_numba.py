"""The sparse backend on the CPU: sae-lens' gradients, several times faster than dense autograd.

The formulas are in `kernels`. The hidden layer [n, d_sae] never exists as a whole: a chunk of rows
is encoded, its active latents are selected, and the chunk is overwritten by the next. Memory beside
the parameters and Adam's moments: one gradient, the error of one chunk of rows for each nested
width, and the active entries. The SAE's `W_enc` is kept transposed in memory, so that one latent's
weights lie together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affectlens.training import kernels
from affectlens.training.dead_latents import DeadLatents
from affectlens.training.entries import BatchTopKSelection, Entries, TopKSelection
from affectlens.training.selection_kernels import keep_topk
from affectlens.training.steps import (
    BETAS,
    EPS,
    StepResult,
    clip_factor,
    refuse_other_names,
    refuse_other_shape,
)

_BACKWARD_ROWS, _BACKWARD_ERRORS = 768, 1536
"""Most rows that are gone through at once, and most of their errors over the nested widths."""
_DENSE_LIMITS = 8
"""Up to so many times d_in / 2 dead latents, dense products beat single entries."""


class NumbaBackend:
    """Gradients and Adam for a sae-lens TopK, BatchTopK or Matryoshka BatchTopK training SAE.

    Args:
        sae: on the CPU, in float32, with activations rescaled by decoder norms.
        unit_rows: keep decoder rows at norm one, the gradient's part along them removed.
    """

    def __init__(self, sae: Any, *, unit_rows: bool = False) -> None:
        self.sae = sae
        self.unit_rows = unit_rows
        self.aux_coefficient = float(sae.cfg.aux_loss_coefficient)
        self.n_updates = 0
        sae.W_enc.data = sae.W_enc.data.T.contiguous().T
        self._weights = {name: _rows(name, p.data) for name, p in sae.named_parameters()}
        self._grads = {name: np.zeros_like(w) for name, w in self._weights.items()}
        for name, parameter in sae.named_parameters():
            grad = torch.from_numpy(self._grads[name])
            parameter.grad = grad.T if name == "W_enc" else grad.view(parameter.shape)
        self._means = {name: np.zeros_like(w) for name, w in self._weights.items()}
        self._squares = {name: np.zeros_like(w) for name, w in self._weights.items()}
        widths = list(getattr(sae.cfg, "matryoshka_widths", None) or [sae.cfg.d_sae])
        self._widths = np.array(widths, np.int64)
        self._levels = np.searchsorted(self._widths, np.arange(sae.cfg.d_sae), side="right")
        self._all = np.arange(sae.cfg.d_sae)
        self._errors = np.empty((len(widths), 0, sae.cfg.d_in), np.float32)
        by_row = sae.cfg.architecture() == "topk"
        self._select = TopKSelection(sae) if by_row else BatchTopKSelection(sae)

    @torch.no_grad()
    def gradients(self, rows: Tensor, dead: Tensor, sparsity: float = 1.0) -> StepResult:  # noqa: ARG002
        """See `steps.Backend.gradients`; `rows` are centred in place."""
        for grad in self._grads.values():
            grad.fill(0)
        centred = rows.sub_(self.sae.b_dec)
        norms = self.sae.W_dec.norm(dim=-1).numpy()
        entries = self._select(centred, norms)
        at_once = max(1, min(_BACKWARD_ROWS, _BACKWARD_ERRORS // len(self._widths)))
        revived = None
        if self.aux_coefficient and bool(dead.any()):
            revived = DeadLatents.of(self.sae, self._weights, dead, norms)
        if self._errors.shape[1] < min(at_once, len(rows)):
            size = len(self._widths), min(at_once, len(rows)), rows.shape[1]
            self._errors = np.empty(size, np.float32)
        fired = np.zeros(self.sae.cfg.d_sae, dtype=bool)
        loss = 0.0
        for start in range(0, len(rows), at_once):
            part = centred[start : start + at_once]
            some = entries.of(start, start + len(part))
            block = self._errors[:, : len(part)]
            loss += self._reconstruction(part, some, block, len(rows), fired)
            if revived is not None:
                loss += self._auxiliary(part, block[-1], revived, len(rows))
        if revived is not None:
            revived.add_to(self._grads)
        b_dec_grad = self.sae.b_dec.grad
        b_dec_grad -= self.sae.W_enc @ self.sae.b_enc.grad
        return StepResult(loss, torch.from_numpy(fired))

    def update(self, lr: float) -> None:
        """See `steps.Backend.update`."""
        squares = []
        for name, grad in self._grads.items():
            out = np.empty(len(grad))
            if name == "W_dec" and self.unit_rows:
                kernels.remove_parallel(grad, self._weights[name], out)
            else:
                kernels.squared_norm(grad, out)
            squares.append(float(out.sum()))
        clip = clip_factor(math.sqrt(sum(squares)))
        self.n_updates += 1
        step_size = lr / (1 - BETAS[0] ** self.n_updates)
        correction = math.sqrt(1 - BETAS[1] ** self.n_updates)
        for name, weights in self._weights.items():
            kernels.adam(
                weights,
                self._grads[name],
                self._means[name],
                self._squares[name],
                clip,
                step_size,
                correction,
                BETAS,
                EPS,
                self.unit_rows and name == "W_dec",
            )

    def state(self) -> dict[str, Tensor]:
        """See `steps.Backend.state`."""
        moments = {"exp_avg": self._means, "exp_avg_sq": self._squares}
        found = {
            f"{key}.{name}": torch.from_numpy(array)
            for key, arrays in moments.items()
            for name, array in arrays.items()
        }
        return {**found, "n_updates": torch.tensor(self.n_updates)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `steps.Backend.restore`."""
        own = self.state()
        refuse_other_names(set(own), set(state))
        for name, tensor in own.items():
            refuse_other_shape(name, state[name], tensor)
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.n_updates = int(state["n_updates"])

    def _reconstruction(
        self, part: Tensor, some: Entries, errors: NDArray[np.float32], n: int, fired: NDArray[Any]
    ) -> float:
        """Add the gradients of the reconstruction losses of some rows; the losses."""
        decoder, losses = self._weights["W_dec"], np.empty(len(part))
        kernels.decode_errors(
            some.bounds,
            some.latents,
            some.values,
            decoder,
            part.numpy(),
            self._widths,
            errors,
            losses,
        )
        for level in range(len(errors) - 2, -1, -1):
            errors[level] += errors[level + 1]
        errors *= np.float32(2 / n)
        starts, rows, values = kernels.group_by_latent(
            some.bounds, some.latents, some.values, len(decoder)
        )
        fired |= np.diff(starts) > 0
        self._add(starts, rows, values, self._all, self._levels, part, errors)
        self._grads["b_dec"] += errors[0].sum(0)
        return float(losses.sum() / n)

    def _auxiliary(
        self, part: Tensor, scaled_error: NDArray[np.float32], dead: DeadLatents, n: int
    ) -> float:
        """Add the gradients by which the strongest dead latents fit the residual; the loss."""
        limit = self.sae.cfg.d_in // 2
        weight = self.aux_coefficient * min(len(dead.chosen) / limit, 1.0) / n
        residual = torch.from_numpy(scaled_error) * (-n / 2)
        acts = torch.addmm(dead.bias, part, dead.encoder.T)
        if len(dead.chosen) > limit:
            keep_topk(acts.numpy(), dead.norms, limit)
        if len(dead.chosen) > _DENSE_LIMITS * limit:
            return weight * dead.add_entries(part, acts, residual, weight)
        return weight * dead.add_products(part, acts, residual, weight)

    def _add(
        self,
        starts: NDArray[np.int64],
        rows: NDArray[np.int32],
        values: NDArray[np.float32],
        targets: NDArray[np.int64],
        levels: NDArray[np.int64],
        part: Tensor,
        errors: NDArray[np.float32],
    ) -> None:
        kernels.add_gradients(
            starts,
            rows,
            values,
            targets,
            levels,
            self._weights["W_dec"],
            part.numpy(),
            errors,
            self._grads["W_dec"],
            self._grads["W_enc"],
            self._grads["b_enc"][0],
        )


def _rows(name: str, data: Tensor) -> NDArray[np.float32]:
    """A parameter as rows [n, d] that share its memory: one row a latent, or one row in all."""
    data = data.T if name == "W_enc" else data
    return data.numpy().reshape(-1, data.shape[-1])
