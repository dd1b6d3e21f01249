"""Settings of the training stage; importing them needs no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field

from affectlens.data.config import StageConfig
from affectlens.data.errors import ConfigError

Arch = Literal["topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated"]
SPARSE_ARCHS: tuple[Arch, ...] = ("topk", "batchtopk", "matryoshka")
"""Architectures that select latents by rank; they have a sparse backend and unit decoder rows."""
K_READ_BY: tuple[Arch, ...] = (*SPARSE_ARCHS, "jumprelu")
"""Architectures whose sparsity `k` sets; the others follow from their L1 coefficient."""

WITHOUT_EFFECT: dict[str, set[str]] = {
    "watch": {"checkpoint_every_s", "checkpoint_every_samples", "keep_checkpoints", "tracker"}
}
"""Settings that change neither weights nor metrics; a run may go on with others."""


class SparsityConfig(StageConfig):
    """How an architecture is kept sparse; what does not belong to it is not read."""

    aux_loss_coefficient: float = Field(
        default=1 / 8,
        ge=0,
        description="topk family: weight of the loss by which dead latents fit the residual error",
    )
    decoder_norm: Literal["unit", "free"] = Field(
        default="unit",
        description="topk family: keep decoder rows at norm one, or leave them to the optimiser",
    )
    matryoshka_widths: tuple[int, ...] = Field(
        default=(),
        description="matryoshka: rising widths of the nested SAEs, the last being d_sae; "
        "default d_sae/16, d_sae/4, d_sae",
    )
    l1_coefficient: float = Field(
        default=5.0, ge=0, description="standard, gated: weight of the L1 loss"
    )
    l0_coefficient: float = Field(
        default=1.0, ge=0, description="jumprelu: weight of the quadratic loss around L0 = k"
    )
    init_threshold: float = Field(
        default=1.0,
        gt=0,
        description="jumprelu: threshold at the start, for rows scaled to a mean norm of "
        "sqrt(d_in); a step moves it by about lr at most",
    )
    bandwidth: float = Field(
        default=1.0,
        gt=0,
        description="jumprelu: width of the step's smoothed derivative, in the same units",
    )
    warmup_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="standard, gated, jumprelu: share of steps in which the weight rises",
    )


class WatchConfig(StageConfig):
    """What a training run measures and saves on its way."""

    n_evals: int = Field(
        default=20, ge=0, description="held-out evaluations, evenly spread over the run"
    )
    n_eval_rows: int = Field(
        default=20_000, ge=2, description="held-out activations for the final metrics"
    )
    patience: int = Field(
        default=0, ge=0, description="stop after so many evaluations without a lower FVU; 0: never"
    )
    min_gain: float = Field(
        default=0.001, ge=0, description="FVU must fall by this share to count as lower"
    )
    checkpoint_every_s: float = Field(default=60.0, ge=0, description="seconds between checkpoints")
    checkpoint_every_samples: int | None = Field(
        default=None, ge=1, description="samples between checkpoints, beside the time"
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, description="newest checkpoints that stay on disk while training"
    )
    tracker: Literal["none", "tensorboard", "wandb"] = Field(
        default="none", description="where metrics go beside the JSON lines"
    )


class TrainConfig(StageConfig):
    """Activations to an SAE."""

    layer: int | None = Field(
        default=None,
        ge=0,
        description="block output to train on; not needed if the store holds one",
    )
    arch: Arch = Field(default="topk", description="architecture of the SAE")
    d_sae: int = Field(default=4608, ge=2, description="number of latents")
    k: int = Field(
        default=32,
        ge=1,
        description="latents active per token (topk: at most; batchtopk, matryoshka: on average; "
        "jumprelu: aimed at; standard, gated: not read)",
    )
    n_samples: int = Field(
        default=1_000_000, ge=1, description="activations to train on, epochs counted"
    )
    batch_size: int = Field(default=2048, ge=1, description="activations in one optimiser step")
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate of Adam")
    lr_warmup_share: float = Field(
        default=0.05, ge=0, lt=1, description="share of steps that warm up"
    )
    lr_decay_share: float = Field(
        default=0.5, ge=0, le=1, description="share of steps that decay to zero"
    )
    dead_window: int = Field(
        default=50_000, ge=1, description="a latent is dead after so many samples without firing"
    )
    backend: Literal["auto", "sae_lens", "numba", "torch"] = Field(
        default="auto",
        description="who computes the gradients; auto: numba on a CPU and sparse torch elsewhere "
        "for the topk family, sae_lens for the others",
    )
    buffer_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="largest share of the stored rows held in memory for shuffling (also limited "
        "to 2 GiB)",
    )
    seed: int = Field(default=0, ge=0, description="seed of weights and data order")
    sparsity: SparsityConfig = Field(
        default=SparsityConfig(),
        description="settings of the architectures",
        json_schema_extra={"flat": True},
    )
    watch: WatchConfig = Field(
        default=WatchConfig(),
        description="evaluation, checkpoints, trackers",
        json_schema_extra={"flat": True},
    )


def matryoshka_widths(config: TrainConfig) -> tuple[int, ...]:
    """The nested widths, rising, the last being d_sae.

    Raises:
        ConfigError: they do not rise, or pass d_sae.
    """
    d_sae = config.d_sae
    usual = tuple(width for width in (d_sae // 16, d_sae // 4) if width)
    widths = config.sparsity.matryoshka_widths or usual
    if not widths or widths[-1] < d_sae:
        widths = (*widths, d_sae)
    rising = all(a < b for a, b in pairwise(widths))
    if widths[0] < 1 or widths[-1] != d_sae or not rising:
        raise ConfigError(f"matryoshka_widths {widths} must rise from 1 or more to d_sae ({d_sae})")
    return widths
