"""Settings of the intervention and steering stages; light, for the command line."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from affectlens.data.config import StageConfig
from affectlens.features.config import READOUT_PROMPT
from affectlens.features.study_config import SteeringStudyConfig

Intervention = Literal[
    "ablate_zero",
    "ablate_mean",
    "ablate_neutral",
    "project_out",
    "clamp",
    "min_clamp",
    "scale",
    "add",
    "patch_clinical",
]
Arm = Literal[
    "splice",
    "no_error",
    "error_only",
    "random",
    "random_direction",
    "shuffled_labels",
    "diff_of_means",
    "dense_probe",
    "neurons",
    "prompt",
]
ARMS: tuple[Arm, ...] = get_args(Arm)
DOSED: tuple[Intervention, ...] = ("clamp", "min_clamp", "scale", "add")
"""Interventions that have a strength."""


class EffectControlsConfig(StageConfig):
    """Arms that every intervention is held against, and its doses."""

    arms: tuple[Arm, ...] = Field(
        default=ARMS,
        description="control arms beside the chosen features and no edit; 'random' is needed for "
        "verdicts",
    )
    doses: tuple[float, ...] = Field(
        default=(0.25, 1.0),
        min_length=1,
        description="factors on the strength of clamp, min_clamp, scale and add; with several, the "
        "one whose effect is reported is chosen on texts of the discovery part",
    )
    add_strength: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="total length of what 'add' writes, in units of the residual's norm",
    )
    n_directions: int = Field(default=7, ge=1, description="random directions of equal norm")
    n_shuffled: int = Field(
        default=3, ge=1, description="selections with shuffled labels of pairs, each by cluster"
    )
    dose_pairs: int = Field(
        default=16, ge=1, description="discovery pairs on which a dose is chosen"
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.arms)) < len(self.arms) or len(set(self.doses)) < len(self.doses):
            raise ValueError("an arm or a dose is given twice")
        if any(not 0 < dose < float("inf") for dose in self.doses):
            raise ValueError("doses must be finite and above 0")
        return self


class EffectMeasuresConfig(StageConfig):
    """What is read and tested beside the effect itself."""

    words: str = Field(
        default="plutchik",
        description="word sets of the readout: plutchik, ekman, or a YAML or JSON file",
    )
    calibrate: bool = Field(
        default=True,
        description="measure each word's probability against its own after texts without content",
    )
    scales: bool = Field(
        default=False,
        description="read valence and arousal too, in the readout check, which then takes about "
        "five times as long",
    )
    mediation: bool = Field(
        default=True,
        description="share of the clinical-neutral difference that runs through the features",
    )
    set_sizes: tuple[int, ...] = Field(
        default=(1, 2, 5, 10, 20, 50),
        description="sizes of feature sets whose faithfulness is measured; () for the chosen only",
    )
    mediation_random: int = Field(
        default=3, ge=0, description="random sets for which mediation is measured too"
    )
    matrix: bool = Field(
        default=True, description="effects of each emotion's features on every emotion's readout"
    )
    damage_documents: int = Field(
        default=12, ge=0, description="neutral documents on which damage is tested; 0 for none"
    )
    damage_tokens: int = Field(default=128, ge=8, description="tokens of each that are read")
    margin_kl: float = Field(
        default=0.1,
        gt=0,
        allow_inf_nan=False,
        description="KL to the unedited model (nats a token) below which an edit does no damage",
    )
    margin_ce: float = Field(
        default=0.05,
        gt=0,
        allow_inf_nan=False,
        description="change of the cross entropy (nats a token) below which it does none",
    )


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
        default=1.0,
        allow_inf_nan=False,
        description="clamp in units of each latent's maximum on held-out text",
    )
    scale_factor: float = Field(
        default=2.0, allow_inf_nan=False, description="factor of the scale intervention"
    )
    scope: Literal["all", "content", "prompt", "generated", "last"] = Field(
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
    n_permutations: int = Field(
        default=10_000, ge=100, description="sign flips where they cannot be enumerated"
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="level of p_holm, family-wise over the emotions of an intervention; the rank "
        "among the random sets is not corrected",
    )
    seed: int = Field(default=0, ge=0, description="seed of control draws and flips")
    controls: EffectControlsConfig = Field(
        default=EffectControlsConfig(),
        description="control arms and doses",
        json_schema_extra={"flat": True},
    )
    measures: EffectMeasuresConfig = Field(
        default=EffectMeasuresConfig(),
        description="readout, mediation, matrix and damage",
        json_schema_extra={"flat": True},
    )

    @model_validator(mode="after")
    def _each_intervention_once(self) -> Self:
        if len(set(self.interventions)) < len(self.interventions):
            raise ValueError("an intervention is given twice")
        return self


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
    evaluate: bool = Field(
        default=False,
        description="run the study that compares ways to steer (arms, doses, scores, a ranking); "
        "at its defaults it takes hours on two cores",
    )
    study: SteeringStudyConfig = Field(
        default=SteeringStudyConfig(),
        description="the study that compares ways to steer (steer --evaluate)",
        json_schema_extra={"flat": True},
    )
