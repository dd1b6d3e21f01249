"""Settings of the steering study; light, for the command line."""

from __future__ import annotations

import math
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from affectlens.data.config import StageConfig

Arm = Literal[
    "unedited",
    "sae_input",
    "sae_output_score",
    "sae_output",
    "sae_both",
    "sae_single",
    "random",
    "random_direction",
    "diff_of_means",
    "probe",
    "shuffled",
    "prompt",
    "prompt_plain",
    "prompt_sae",
]
DoseUnit = Literal["residual_norm", "max_activation", "max_activation_floor"]
Valence = Literal["positive", "neutral", "negative"]

ARMS: tuple[Arm, ...] = get_args(Arm)
"""Every arm, in the order in which tables list them. 'unedited' is always run: the others' losses
of coherence are measured from it."""


class SteeringStudyConfig(StageConfig):
    """Chosen features and their rivals to texts, scores and a ranking.

    `dose_unit` "residual_norm": a dose is the share of the residual's norm that is written to every
    token, the same for latent sets and directions, so arms are compared at equal size of the edit.
    "max_activation": latents are clamped at the dose times their maximum on held-out text, and
    directions get the mean norm that the set of 'sae_both' writes at that dose;
    "max_activation_floor" raises latents to that value and leaves them where they are above it.
    """

    emotions: tuple[str, ...] = Field(
        default=(), description="emotions to steer to; none given, every emotion of the search"
    )
    arms: tuple[Arm, ...] = Field(
        default=ARMS, min_length=1, description="what is compared; 'unedited' is always added"
    )
    features_per_emotion: int = Field(
        default=5, ge=1, description="latents steered together for each emotion"
    )
    n_random: int = Field(
        default=5,
        ge=1,
        description="matched random sets for each norm that chosen sets are steered at",
    )
    doses: tuple[float, ...] = Field(
        default=(0.1, 0.2, 0.4, 0.8),
        min_length=1,
        description="strengths, in the unit of dose_unit",
    )
    dose_unit: DoseUnit = Field(
        default="residual_norm",
        description="residual_norm: share of the residual's norm, equal for all arms; "
        "max_activation: clamp in units of each latent's maximum on held-out text; "
        "max_activation_floor: the same, but latents above it are left",
    )
    scenarios: str = Field(
        default="affectlens-scenarios", description="scenarios to write about: name or SEV file"
    )
    n_scenarios: int | None = Field(
        default=None, ge=2, description="scenarios used, spread over themes; unset, all"
    )
    texts_per_scene: int = Field(
        default=1,
        ge=1,
        description="texts of each arm and scenario, averaged before any test; three find what "
        "twice as many scenarios would",
    )
    valence: Valence = Field(
        default="neutral", description="which of a scenario's events the model is told of"
    )
    max_new_tokens: int = Field(default=60, ge=1, description="longest text")
    temperature: float = Field(
        default=0.7, ge=0, description="0 is greedy; else nucleus sampling with mass .95"
    )
    batch_size: int = Field(default=64, ge=1, description="texts written at the same time")
    scorer: str = Field(
        default="default",
        description="reader of emotions in texts: default, lexicon, a hub id or a folder",
    )
    n_permutations: int = Field(
        default=10_000, ge=100, description="sign flips where they cannot be enumerated"
    )
    seed: int = Field(default=0, ge=0, description="seed of sampling, controls and flips")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        bad = [d for d in self.doses if not (math.isfinite(d) and d > 0)]
        if bad or len(set(self.doses)) < len(self.doses):
            raise ValueError(
                f"doses must be finite, above zero and different, got {list(self.doses)}; "
                "the dose 0 is the arm 'unedited', which is always run"
            )
        for name in ("arms", "emotions"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} holds an entry twice: {', '.join(given)}")
        return self
