"""Settings of the stages that follow a search: controls, validity, baselines, calibration, names.

Light, no torch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from affectlens.data.config import StageConfig
from affectlens.features.screen_config import ScreenConfig

Grain = Literal["words", "within_sentences", "sentences"]
ControlPart = Literal["confirmation", "both"]


class ControlsConfig(StageConfig):
    """Found features to lexical controls and a class for each."""

    part: ControlPart = Field(
        default="confirmation",
        description="pairs on which controls are tested; 'both' adds those that chose the features",
    )
    grains: tuple[Grain, ...] = Field(
        default=("words", "within_sentences", "sentences"),
        description="what is shuffled for the difference in differences; 'words' always is",
    )
    n_shuffles: int = Field(default=2, ge=1, description="random orders averaged over, each grain")
    corpus: str = Field(
        default="default",
        description="unlabelled text on which the words' share is fitted: default, file or folder; "
        "in the battery's language",
    )
    n_texts: int = Field(
        default=400, ge=50, description="passages of that text on which the share is fitted"
    )
    max_r2: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="a latent whose words explain more of it than this is not called contextual",
    )
    strict: tuple[str, ...] = Field(
        default=("affectlens-balanced", "affectlens-isolexical"),
        description="batteries whose members hold the same words; the strictest tests",
    )
    n_bootstrap: int = Field(
        default=2000, ge=0, description="resamples for the intervals of shares; 0 for none"
    )
    seed: int = Field(default=0, ge=0, description="seed of shuffles and passages")

    @model_validator(mode="after")
    def _words_are_shuffled(self) -> Self:
        if "words" not in self.grains or len(set(self.grains)) < len(self.grains):
            raise ValueError("grains must hold 'words', on which classes rest, and none twice")
        if len(set(self.strict)) < len(self.strict):
            raise ValueError("a strict battery is given twice")
        return self


class ValidityConfig(StageConfig):
    """Found features to further tests of validity."""

    part: ControlPart = Field(
        default="confirmation",
        description="pairs on which found features are tested; 'both' adds those that chose them, "
        "which gives more power and results that are too good",
    )
    top: int = Field(
        default=10, ge=1, description="most features an emotion in the transfer to and from words"
    )
    n_permutations: int = Field(default=10_000, ge=100, description="random permutations")
    alpha: float = Field(default=0.05, gt=0, lt=1, description="level of the decisions")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the permutations")


class BaselineConfig(StageConfig):
    """Battery and model to what simpler methods reach on the same pairs."""

    layers: tuple[int, ...] = Field(
        default=(),
        description="blocks whose output is read; unset, a few up to the SAE's; the embedding is "
        "always among them",
    )
    strengths: tuple[float, ...] = Field(
        default=(0.001, 0.01, 0.1, 1.0),
        min_length=1,
        description="inverse L2 penalties among which the inner folds choose, for standardised "
        "numbers",
    )
    word_strengths: tuple[float, ...] = Field(
        default=(1.0, 10.0, 100.0),
        min_length=1,
        description="the same for TF-IDF weights, whose rows have length one",
    )
    n_folds: int = Field(default=5, ge=2, description="outer parts into which clusters are divided")
    n_inner: int = Field(default=4, ge=2, description="inner parts that choose the penalty")
    n_random: int = Field(default=20, ge=1, description="random directions averaged over")
    random_weights: bool = Field(
        default=True,
        description="also read the same model with weights drawn anew (one more pass over the "
        "battery)",
    )
    n_bootstrap: int = Field(
        default=2000, ge=0, description="resamples of clusters for the intervals; 0 for none"
    )
    seed: int = Field(default=0, ge=0, description="seed of folds and bootstrap")


class CalibrationConfig(StageConfig):
    """Repeat a search where the answer is known: flipped labels, neutral pairs, planted effects."""

    n_repeats: int = Field(default=400, ge=20, description="data sets of each kind of null")
    n_planted: int = Field(default=50, ge=10, description="data sets of each planted effect")
    n_permutations: int = Field(default=1999, ge=99, description="permutations in each search")
    effects: tuple[float, ...] = Field(
        default=(0.3, 0.5, 0.8, 1.2, 1.6), min_length=1, description="planted d_z, rising"
    )
    n_features: int = Field(
        default=20, ge=1, description="latents that get the effect in a planted data set"
    )
    max_latents: int = Field(
        default=1000, ge=50, description="latents drawn for each repeat where more are tested"
    )
    cluster_shares: tuple[float, ...] = Field(
        default=(0.5, 0.75),
        description="shares of whole clusters on which power is measured, besides all",
    )
    pairs_per_cluster: tuple[int, ...] = Field(
        default=(2,), description="pairs a cluster on which power is measured, besides all"
    )
    seed: int = Field(default=0, ge=0, description="seed")

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> Self:
        if any(not 0 < d <= 100 for d in self.effects) or list(self.effects) != sorted(
            set(self.effects)
        ):
            raise ValueError("effects must rise and lie above 0, at most 100")
        if any(not 0 < s < 1 for s in self.cluster_shares):
            raise ValueError("cluster_shares lie between 0 and 1; all clusters are always measured")
        if any(n < 1 for n in self.pairs_per_cluster):
            raise ValueError("pairs_per_cluster must be 1 or more")
        return self


class NamingConfig(StageConfig):
    """Found features to what can be said of them without a language model."""

    n_features: int = Field(default=20, ge=0, description="latents a contrast")
    n_contexts: int = Field(default=5, ge=1, description="contexts a quantile group")
    n_groups: int = Field(default=5, ge=1, description="groups of equal range of activation")
    context_width: int = Field(default=10, ge=1, description="tokens on each side of a peak")
    n_tokens: int = Field(
        default=10, ge=1, description="tokens listed as top, promoted, suppressed"
    )
    n_neighbours: int = Field(default=5, ge=0, description="nearest latents listed")
    n_reference: int = Field(
        default=500,
        ge=99,
        description="random other latents whose promoted words give the null distribution",
    )
    n_heldout_tokens: int = Field(
        default=200_000, ge=1, description="most held-out corpus tokens that are read"
    )
    seed: int = Field(default=0, ge=0, description="seed of the choice of reference latents")


class ValidationConfig(StageConfig):
    """What belongs to every search: the screen that is part of it, and the stages after it."""

    screen: ScreenConfig = Field(
        default=ScreenConfig(), description="features to what they do to the output"
    )
    controls: ControlsConfig = Field(
        default=ControlsConfig(), description="features to lexical controls and classes"
    )
    validity: ValidityConfig = Field(
        default=ValidityConfig(), description="features to further tests of validity"
    )
    baselines: BaselineConfig = Field(
        default=BaselineConfig(), description="what simpler methods reach on the same pairs"
    )
    naming: NamingConfig = Field(
        default=NamingConfig(), description="features to contexts, tokens and neighbours"
    )
