"""Settings of the training stage; importing them needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from affectlens.data.config import StageConfig


class TrainConfig(StageConfig):
    """Activations to an SAE."""

    layer: int | None = Field(
        default=None,
        ge=0,
        description="block output to train on; not needed if the store holds one",
    )
    arch: Literal["topk", "batchtopk"] = Field(default="topk", description="activation of the SAE")
    d_sae: int = Field(default=4608, ge=2, description="number of latents")
    k: int = Field(default=32, ge=1, description="latents active per token (batchtopk: on average)")
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
    aux_loss_coefficient: float = Field(
        default=1 / 32,
        ge=0,
        description="weight of the loss by which dead latents fit the residual error",
    )
    dead_window: int = Field(
        default=200_000, ge=1, description="a latent is dead after so many samples without firing"
    )
    backend: Literal["auto", "sae_lens", "numba"] = Field(
        default="auto", description="who computes the gradients; auto takes numba on a CPU"
    )
    n_eval_rows: int = Field(
        default=20_000, ge=2, description="held-out activations for the final metrics"
    )
    checkpoint_every_s: float = Field(default=60.0, ge=0, description="seconds between checkpoints")
    seed: int = Field(default=0, ge=0, description="seed of weights and data order")
