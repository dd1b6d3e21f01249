"""Settings of the audit and of the search; light, no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from affectlens.data.config import StageConfig

Unit = Literal["pair", "cluster", "hierarchical"]
EmotionUnit = Literal["pair", "cluster"]
Pooling = Literal["suffix", "suffix_last", "mean", "max", "last", "firing", "readout"]
"""Where and how a text is read; the definitions are in `features.pooling`."""


class AuditConfig(StageConfig):
    """Battery to lexical card."""

    n_folds: int = Field(
        default=5, ge=2, description="parts into which pairs or clusters are divided"
    )
    n_repeats: int | None = Field(
        default=None,
        ge=1,
        description="random divisions over which scores are averaged; unset, five, or one for "
        "more than 2,000 pairs",
    )
    n_bootstrap: int = Field(
        default=2000, ge=0, description="resamples of clusters for the intervals; 0 for none"
    )
    threshold: float = Field(
        default=0.6,
        ge=0.5,
        le=1,
        description="a control above this AUROC or paired accuracy is named",
    )
    n_words: int = Field(default=20, ge=0, description="most one-sided words to list")
    n_near_duplicates: int = Field(default=20, ge=0, description="most near-duplicates to list")
    near_duplicate: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="overlap of word 3-grams from which two texts count as near-duplicates",
    )
    seed: int = Field(default=0, ge=0, description="seed of the divisions and the bootstrap")


SUFFIX = " That was the end of the day."
"""The sentence that search and probe append to every text unless told otherwise."""

READOUT_PROMPT = "\n\nThe feeling in this scene is one of"
"""The prompt of the emotion readout and of pooling 'readout'."""

DEFAULT_TEMPLATES = (
    READOUT_PROMPT,
    "\n\nReading this, one senses a feeling of",
    "\n\nWhat the person in this scene feels is",
    "\n\nIn one word, the mood of this passage is",
)
"""The suffixes whose next word the emotion readout averages over."""

CONTENT_FREE = ("Some text.", "This is a text.", "Something happened.")
"""Texts without content, against which readouts are calibrated."""


class ContextConfig(StageConfig):
    """Battery and model to contextual card."""

    layers: tuple[int, ...] = Field(
        default=(),
        description="blocks whose output is probed; unset, first, quarters and last",
    )
    suffix: str = Field(
        default=SUFFIX,
        min_length=1,
        description="sentence appended to every text, with its leading space",
    )
    n_folds: int = Field(default=5, ge=2, description="parts into which clusters are divided")
    n_repeats: int = Field(default=5, ge=1, description="random divisions averaged over")
    n_bootstrap: int = Field(
        default=2000, ge=0, description="resamples of clusters for the intervals; 0 for none"
    )
    strength: float = Field(
        default=0.01, gt=0, description="inverse of the probe's L2 penalty (scikit-learn's C)"
    )
    batch_size: int = Field(default=16, ge=1, description="texts in one forward pass")
    seed: int = Field(default=0, ge=0, description="seed of divisions and bootstrap")


class SearchConfig(StageConfig):
    """Battery and SAE to features."""

    pooling: Pooling = Field(
        default="suffix",
        description="where a text is read: on a sentence appended to every text (suffix: the mean "
        "over its tokens, suffix_last: the last one), on its own tokens (mean, max, last, firing: "
        "the share on which a latent is active), or at the end of the readout prompt (readout)",
    )
    suffix: str = Field(
        default=SUFFIX,
        description="sentence appended for pooling 'suffix' and 'suffix_last', with its leading "
        "space",
    )
    min_items: int = Field(
        default=4,
        ge=1,
        description="test only features active in at least this many discovery texts",
    )
    n_permutations: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="random permutations; enumerated if fewer exist",
    )
    unit: Unit = Field(
        default="cluster",
        description="what shares one sign in the test over all emotions; 'hierarchical' flips "
        "pairs and studentises by clusters, which needs about 20 clusters in each part",
    )
    unit_emotion: EmotionUnit = Field(
        default="cluster",
        description="what changes emotion as a whole in the tests of one emotion. Pairs of a "
        "cluster correlate; with 'pair' the family-wise error reached .14 at a level of .05 where "
        "emotions were dealt out over clusters. 'cluster' holds the level there and needs six or "
        "more domains an emotion; 'pair' is for batteries with fewer",
    )
    alpha: float = Field(default=0.05, gt=0, lt=1, description="level of the family-wise decisions")
    n_retained: int = Field(
        default=20,
        ge=1,
        description="most features a contrast carries into confirmation; fewer where that part is "
        "too small for so many tests",
    )
    confirmation_share: float = Field(
        default=0.34,
        ge=0,
        lt=1,
        description="share of each emotion's clusters kept for confirmation",
    )
    n_context_features: int = Field(
        default=20, ge=0, description="features a contrast for which text contexts are kept"
    )
    n_contexts: int = Field(default=5, ge=1, description="contexts a feature")
    context_width: int = Field(
        default=10, ge=1, description="tokens on each side of a context's peak"
    )
    n_stats_tokens: int = Field(
        default=50_000, ge=1, description="held-out corpus tokens for firing rates and contexts"
    )
    batch_size: int = Field(default=16, ge=1, description="texts in one forward pass")
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="seed of the split and the permutations"
    )

    @model_validator(mode="after")
    def _suffix_is_text(self) -> Self:
        if self.pooling in ("suffix", "suffix_last") and not self.suffix.strip():
            raise ValueError(
                f"pooling {self.pooling!r} needs a sentence in `suffix`, but it is empty"
            )
        return self
