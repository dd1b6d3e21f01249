"""Fresh training SAEs, and the backend that fits an SAE and a device."""

from __future__ import annotations

from typing import Any

import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from torch.nn import functional

from affectlens.data.errors import ConfigError
from affectlens.training.config import SPARSE_ARCHS, TrainConfig, matryoshka_widths
from affectlens.training.steps import AutogradBackend, Backend

_INIT_NORM = 0.3
"""Of encoder and decoder rows where the decoder is free, as in the rows of a trained SAE."""
_UNIT_ENCODER_NORM = 0.1
"""Of encoder rows where decoder rows have norm one: the first reconstructions stay small."""


def build_training_sae(config: TrainConfig, rows: Tensor) -> Any:
    """A fresh sae-lens training SAE in scaled units.

    Decoder rows point halfway between a random direction and a random row of the data (centred),
    the encoder is their transpose, the decoder bias the mean of the data. Against sae-lens' purely
    random rows of norm 0.1 this lowers the unexplained variance of short runs and leaves fewer
    latents unused. The global random state is untouched.

    Args:
        config: architecture, sizes, seed.
        rows: scaled activations [n, d_in], a sample of the training data.

    Raises:
        ConfigError: matryoshka widths that do not rise to d_sae.
    """
    mean = column_mean(rows).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sae = _empty(config, rows.shape[1])
        chosen = torch.randint(len(rows), (config.d_sae,))
    unit = unit_rows(config)
    with torch.no_grad():
        towards_data = functional.normalize(rows[chosen] - mean, dim=-1)
        directions = functional.normalize(sae.W_dec + towards_data, dim=-1)
        sae.W_dec.copy_(directions if unit else directions * _INIT_NORM)
        sae.W_enc.copy_(directions.T * (_UNIT_ENCODER_NORM if unit else _INIT_NORM))
        sae.b_dec.copy_(mean)
    return sae


def column_mean(rows: Tensor) -> Tensor:
    """Mean of rows [n, d_in], float64 [d_in], without a float64 copy of all rows."""
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for part in rows.split(1024):
        total += part.double().sum(0)
    return total / len(rows)


def unit_rows(config: TrainConfig) -> bool:
    """Whether the decoder's rows are kept at norm one."""
    return config.arch in SPARSE_ARCHS and config.sparsity.decoder_norm == "unit"


def choose_backend(config: TrainConfig, sae: Any) -> Backend:
    """The backend that `config.backend` names; `auto` takes the fastest that fits.

    Raises:
        ConfigError: a sparse backend for an architecture without one, or numba off the CPU.
    """
    on_cpu = sae.W_dec.device.type == "cpu"
    sparse = config.arch in SPARSE_ARCHS
    name = config.backend
    if name == "auto":
        name = ("numba" if on_cpu else "torch") if sparse else "sae_lens"
    if name == "sae_lens":
        return AutogradBackend(sae, unit_rows=unit_rows(config))
    if not sparse:
        raise ConfigError(
            f"the {name} backend trains {', '.join(SPARSE_ARCHS)}; for {config.arch} use backend "
            "'auto' or 'sae_lens'"
        )
    if name == "torch":
        from affectlens.training.sparse_torch import SparseTorchBackend

        return SparseTorchBackend(sae, unit_rows=unit_rows(config))
    if not on_cpu:
        raise ConfigError(
            f"the numba backend runs on the CPU, the SAE is on {sae.W_dec.device}; use 'auto'"
        )
    # Compiled kernels load only where they are used.
    from affectlens.training.sparse_numba import NumbaBackend

    return NumbaBackend(sae, unit_rows=unit_rows(config))


def _empty(config: TrainConfig, d_in: int) -> Any:
    sizes = {"d_in": d_in, "d_sae": config.d_sae, "metadata": SAEMetadata()}
    s = config.sparsity
    if config.arch in SPARSE_ARCHS:
        sizes |= {"k": config.k, "aux_loss_coefficient": s.aux_loss_coefficient}
        sizes |= {"decoder_init_norm": 1.0}
    if config.arch == "topk":
        return sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(**sizes))
    if config.arch == "batchtopk":
        return sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(**sizes))
    if config.arch == "matryoshka":
        widths = list(matryoshka_widths(config))
        return sae_lens.MatryoshkaBatchTopKTrainingSAE(
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(**sizes, matryoshka_widths=widths)
        )
    if config.arch == "jumprelu":
        return sae_lens.JumpReLUTrainingSAE(
            sae_lens.JumpReLUTrainingSAEConfig(
                **sizes,
                l0_coefficient=s.l0_coefficient,
                jumprelu_init_threshold=s.init_threshold,
                jumprelu_bandwidth=s.bandwidth,
                jumprelu_sparsity_loss_mode="quadratic",
                target_l0=float(config.k),
            )
        )
    if config.arch == "gated":
        return sae_lens.GatedTrainingSAE(
            sae_lens.GatedTrainingSAEConfig(**sizes, l1_coefficient=s.l1_coefficient)
        )
    return sae_lens.StandardTrainingSAE(
        sae_lens.StandardTrainingSAEConfig(**sizes, l1_coefficient=s.l1_coefficient)
    )
