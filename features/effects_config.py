"""Settings of the intervention and steering stages; light, for the command line."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from affectlens.data.config import StageConfig
from affectlens.features.config import READOUT_PROMPT

Intervention = Literal["ablate_zero", "ablate_neutral", "clamp", "scale"]


class InterveneConfig(StageConfig):
    """Chosen features and their controls to effects on the emotion readout."""

    interventions: tuple[Intervention, ...] = Field(
        default=("ablate_zero", "ablate_neutral", "clamp"),
        min_length=1,
        description="what is done to the features",
    )
    features_per_emotion: int = Field(
        default=5, ge=1, description="best features edited together for each emotion"
    )
    n_random_sets: int = Field(
        default=19, ge=1, description="matched random feature sets for each emotion"
    )
    clamp_strength: float = Field(
        default=1.0, description="clamp in units of each latent's maximum on held-out text"
    )
    scale_factor: float = Field(default=2.0, description="factor of the scale intervention")
    scope: Literal["content", "prompt", "generated", "last"] = Field(
        default="content", description="tokens that are edited"
    )
    templates: tuple[str, ...] = Field(
        default=(READOUT_PROMPT,),
        min_length=1,
        description="suffixes whose next word is read",
    )
    max_pairs: int | None = Field(
        default=None,
        ge=1,
        description="confirmation pairs on which effects are measured, spread over emotions and "
        "clusters; unset, all",
    )
    batch_size: int = Field(default=16, ge=1, description="texts in one forward pass")
    n_bootstrap: int = Field(default=2000, ge=100, description="cluster bootstrap resamples")
    n_permutations: int = Field(
        default=10_000, ge=100, description="sign flips where they cannot be enumerated"
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="family-wise level within an intervention"
    )
    seed: int = Field(default=0, ge=0, description="seed of control draws, bootstrap and flips")


class SteerConfig(StageConfig):
    """Chosen features to texts written under a clamp."""

    prompts: tuple[str, ...] = Field(
        default=(
            "The letter came on a Tuesday morning, and when she had read it she",
            "He opened the door of the old house and",
        ),
        min_length=1,
        description="openers that name no emotion",
    )
    strengths: tuple[float, ...] = Field(
        default=(0.5, 1.0), description="clamps in units of each latent's maximum on held-out text"
    )
    max_new_tokens: int = Field(default=40, ge=1, description="length of a continuation")
    temperature: float = Field(default=0.7, ge=0, description="0 is greedy")
    top_p: float = Field(default=0.95, gt=0, le=1, description="nucleus sampling mass")
    seed: int = Field(default=0, ge=0, description="seed of the sampling, the same for every arm")
