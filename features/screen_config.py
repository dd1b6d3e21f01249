"""Settings of the screen of latents by their causal effect; light, for the command line."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from affectlens.data.config import StageConfig
from affectlens.features.config import READOUT_PROMPT

By = Literal["input", "output_score", "output", "both"]
"""By what latents are picked: what they respond to, their output score, their effect, or both."""


class ScreenConfig(StageConfig):
    """Every live latent to an estimated effect on the readouts, some of them to a measured one."""

    max_pairs: int | None = Field(
        default=24,
        ge=1,
        description="discovery pairs on which effects are estimated and measured, spread over "
        "emotions and clusters; unset, all",
    )
    n_top: int = Field(
        default=10,
        ge=1,
        description="latents of each contrast whose effect is measured: the largest by estimate, "
        "and for clamps as many again by effect for each unit of norm",
    )
    n_random: int = Field(
        default=30, ge=3, description="random live latents whose effect is measured"
    )
    clamp_strength: float = Field(
        default=1.0, gt=0, description="clamp in units of each latent's maximum on held-out text"
    )
    n_steps: int = Field(
        default=0,
        ge=0,
        description="steps of integrated gradients; 0 leaves them out; 10 take ten times as long "
        "as the gradient and rank single latents no better",
    )
    templates: tuple[str, ...] = Field(
        default=(READOUT_PROMPT,),
        min_length=1,
        description="suffixes whose next word is read",
    )
    words: str = Field(
        default="plutchik",
        description="word sets of the readout: plutchik, ekman, or a YAML or JSON file",
    )
    calibrate: bool = Field(
        default=True,
        description="measure each word's probability against its own after texts without content",
    )
    n_candidates: int = Field(
        default=50,
        ge=1,
        description="best latents of each contrast by the search that get an output score",
    )
    output_strength: float = Field(
        default=10.0,
        gt=0,
        description="what the output score adds, in units of each latent's maximum",
    )
    n_prefixes: int = Field(
        default=24, ge=1, description="neutral openings over which the output score is averaged"
    )
    max_latents: int = Field(
        default=20_000,
        ge=1,
        description="latents of each contrast and estimate that the table keeps, largest first",
    )
    batch_size: int = Field(default=16, ge=1, description="texts in one forward pass")
    n_bootstrap: int = Field(
        default=2000, ge=100, description="resamples of latents for the intervals of agreement"
    )
    seed: int = Field(default=0, ge=0, description="seed of the random sample and the bootstrap")
