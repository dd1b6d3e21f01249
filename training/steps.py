"""One training step: loss, gradients, clipping, Adam; the interface and its reference.

The definition of every loss is sae-lens' own (`training_forward_pass` of its training classes: mean
over the batch of the squared error summed over d_in, plus the architecture's sparsity or auxiliary
loss; Gao et al. 2024, arXiv:2406.04093, A.2; Bussmann et al. 2024, arXiv:2412.06410; Bussmann et
al. 2025, arXiv:2503.17547). A backend may compute the same gradients faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import sae_lens
import torch
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput
from torch import Tensor

from affectlens.data.errors import ArtifactError

CLIP_NORM = 1.0
BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(frozen=True)
class StepResult:
    """What a step tells the loop; the gradients lie in the parameters' `.grad`."""

    loss: float
    """Reconstruction loss plus auxiliary or sparsity loss, in scaled units."""
    fired: Tensor
    """bool [d_sae]: latents active on at least one row."""


class Backend(Protocol):
    """Computes a step's gradients and applies them; holds the optimiser's state."""

    sae: Any
    """The sae-lens training SAE whose parameters change in place."""

    def gradients(self, rows: Tensor, dead: Tensor, sparsity: float = 1.0) -> StepResult:
        """Leave the gradients in the parameters.

        Args:
            rows: scaled activations [b, d_in]; they may be overwritten.
            dead: bool [d_sae], latents that the auxiliary loss revives.
            sparsity: factor on the sparsity coefficient, rising from 0 to 1 in the warm-up.
        """
        ...

    def update(self, lr: float) -> None:
        """One Adam step with the gradients, clipped to norm one as sae-lens does.

        Raises:
            ArtifactError: the gradients are not finite; nothing was changed.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """The optimiser's state by name, for a checkpoint (no copies)."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises:
            ArtifactError: a tensor is missing, unknown or of another shape.
        """
        ...


class TorchAdam:
    """Adam of torch over an SAE's parameters, with the gradients clipped, on any device.

    With `unit_rows` the part of the decoder's gradient along its own row is removed before, and the
    rows are brought back to norm one after the step (Bricken et al. 2023, "Towards
    Monosemanticity").
    """

    def __init__(self, sae: Any, *, unit_rows: bool) -> None:
        self.sae = sae
        self.unit_rows = unit_rows
        self._adam = torch.optim.Adam(sae.parameters(), betas=BETAS, eps=EPS, fused=True)

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """See `Backend.update`."""
        decoder = self.sae.W_dec
        if self.unit_rows:
            along = (decoder.grad * decoder).sum(-1, keepdim=True)
            decoder.grad -= along * decoder / decoder.square().sum(-1, keepdim=True)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.sae.parameters()])
        factor = clip_factor(float(norm))
        for parameter in self.sae.parameters():
            parameter.grad *= factor
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        if self.unit_rows:
            decoder /= decoder.norm(dim=-1, keepdim=True)

    def state(self) -> dict[str, Tensor]:
        """See `Backend.state`."""
        return {
            f"{key}.{name}": value
            for name, parameter in self.sae.named_parameters()
            for key, value in self._adam.state.get(parameter, {}).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Backend.restore`."""
        keys = ("step", "exp_avg", "exp_avg_sq")
        if not state:
            return
        wanted = {f"{key}.{name}" for name, _ in self.sae.named_parameters() for key in keys}
        refuse_other_names(wanted, set(state))
        for name, parameter in self.sae.named_parameters():
            moments = {key: state[f"{key}.{name}"].to(parameter.device, copy=True) for key in keys}
            for key in keys[1:]:
                refuse_other_shape(f"{key}.{name}", moments[key], parameter)
            self._adam.state[parameter] = moments


class AutogradBackend:
    """Dense autograd through sae-lens' training classes; the reference, on any device."""

    def __init__(self, sae: Any, *, unit_rows: bool) -> None:
        self.sae = sae
        self._adam = TorchAdam(sae, unit_rows=unit_rows)

    def gradients(self, rows: Tensor, dead: Tensor, sparsity: float = 1.0) -> StepResult:
        """See `Backend.gradients`."""
        coefficients = {
            name: sparsity * (value.value if isinstance(value, TrainCoefficientConfig) else value)
            for name, value in self.sae.get_coefficients().items()
        }
        output = self.sae.training_forward_pass(
            TrainStepInput(
                sae_in=rows,
                coefficients=coefficients,
                dead_neuron_mask=dead,
                n_training_steps=0,
                is_logging_step=False,
            )
        )
        self.sae.zero_grad(set_to_none=True)
        output.loss.backward()
        fired = (output.feature_acts.detach() > 0).any(0)
        return StepResult(float(output.loss.detach()), fired)

    def update(self, lr: float) -> None:
        """See `Backend.update`."""
        self._adam.update(lr)

    def state(self) -> dict[str, Tensor]:
        """See `Backend.state`."""
        return self._adam.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Backend.restore`."""
        self._adam.restore(state)


def nested_widths(sae: Any) -> list[int]:
    """Rising widths of the nested SAEs of a sae-lens training SAE; one but for Matryoshka."""
    if isinstance(sae.cfg, sae_lens.MatryoshkaBatchTopKTrainingSAEConfig):
        return list(sae.cfg.matryoshka_widths)
    return [sae.cfg.d_sae]


def clip_factor(norm: float) -> float:
    """What brings a gradient of that norm to at most norm one, as torch's clipping does.

    Raises:
        ArtifactError: the norm is not finite; the weights are still as before.
    """
    if not math.isfinite(norm):
        raise ArtifactError(f"the gradient's norm became {norm}; lower lr or check the activations")
    return min(1.0, CLIP_NORM / (norm + 1e-6))


def refuse_other_names(wanted: set[str], found: set[str]) -> None:
    """Raise if a stored optimiser state has other tensors than this one.

    Raises:
        ArtifactError: names what is missing and what is unknown.
    """
    if wanted != found:
        raise ArtifactError(
            f"the optimiser's state misses {sorted(wanted - found)} and has the unknown "
            f"{sorted(found - wanted)}; the checkpoint is of another architecture or damaged"
        )


def refuse_other_shape(name: str, found: Tensor, like: Tensor) -> None:
    """Raise if a stored tensor has another shape than its parameter.

    Raises:
        ArtifactError: with both shapes.
    """
    if found.shape != like.shape:
        raise ArtifactError(
            f"the optimiser's {name} is {tuple(found.shape)}, expected {tuple(like.shape)}; "
            "the checkpoint is of another size or damaged"
        )
