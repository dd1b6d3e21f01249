"""One training step: loss, gradients and which latents fired.

The definition is sae-lens' own (`TopKTrainingSAE.training_forward_pass`: mean over the batch of the
squared error summed over d_in, plus the auxiliary loss of Gao et al. 2024, arXiv:2406.04093, A.2).
A backend may compute the same gradients faster; `kernels` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata, TrainStepInput
from torch import Tensor
from torch.nn import functional

from affectlens.training.config import TrainConfig

_INIT_NORM = 0.3


@dataclass(frozen=True)
class StepResult:
    """What a step tells the loop; the gradients lie in the parameters' `.grad`."""

    loss: float
    """Reconstruction loss plus auxiliary loss, in scaled units."""
    fired: Tensor
    """bool [d_sae]: latents active on at least one row."""


class Backend(Protocol):
    """Computes a step's gradients."""

    def step(self, rows: Tensor, dead: Tensor) -> StepResult:
        """Leave the gradients for `rows` [b, d_in] in the parameters; `dead` is bool [d_sae]."""
        ...


class SAELensBackend:
    """Dense autograd through sae-lens' training classes; the reference, on any device."""

    def __init__(self, sae: Any) -> None:
        self.sae = sae

    def step(self, rows: Tensor, dead: Tensor) -> StepResult:
        """See `Backend.step`."""
        output = self.sae.training_forward_pass(
            TrainStepInput(
                sae_in=rows,
                coefficients={},
                dead_neuron_mask=dead,
                n_training_steps=0,
                is_logging_step=False,
            )
        )
        self.sae.zero_grad(set_to_none=True)
        output.loss.backward()
        fired = (output.feature_acts.detach() > 0).any(0)
        return StepResult(float(output.loss.detach()), fired)


def build_training_sae(config: TrainConfig, rows: Tensor) -> Any:
    """A fresh sae-lens training SAE in scaled units.

    Decoder rows point halfway between a random direction and a random row of the data (centred),
    the encoder is their transpose, the decoder bias the mean of the data. Against sae-lens' purely
    random rows of norm 0.1 this lowers the unexplained variance of short runs and leaves fewer
    latents unused. The global random state is untouched.

    Args:
        config: architecture, sizes, seed.
        rows: scaled activations [n, d_in], a sample of the training data.
    """
    cls, cfg = {
        "topk": (sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig),
        "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig),
    }[config.arch]
    mean = rows.double().mean(0).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sae = cls(
            cfg(
                d_in=rows.shape[1],
                d_sae=config.d_sae,
                k=config.k,
                aux_loss_coefficient=config.aux_loss_coefficient,
                decoder_init_norm=1.0,
                metadata=SAEMetadata(),
            )
        )
        chosen = torch.randint(len(rows), (config.d_sae,))
    with torch.no_grad():
        towards_data = functional.normalize(rows[chosen] - mean, dim=-1)
        directions = functional.normalize(sae.W_dec + towards_data, dim=-1)
        sae.W_dec.copy_(directions * _INIT_NORM)
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_dec.copy_(mean)
    return sae


def choose_backend(config: TrainConfig, sae: Any) -> Backend:
    """The backend that `config.backend` names; `auto` is numba for TopK on a CPU, else sae-lens."""
    fits = config.arch == "topk" and sae.W_dec.device.type == "cpu"
    if config.backend == "numba" or (config.backend == "auto" and fits):
        # Compiled kernels load only where they are used.
        from affectlens.training.kernels import NumbaBackend

        return NumbaBackend(sae)
    return SAELensBackend(sae)
