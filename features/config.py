"""Settings of the search and of the interventions; light, no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from affectlens.data.config import StageConfig

Unit = Literal["pair", "cluster"]
Pooling = Literal["suffix", "mean", "max", "last"]


class SearchConfig(StageConfig):
    """Battery and SAE to features."""

    pooling: Pooling = Field(
        default="suffix",
        description="where a text is read: over a sentence appended to every text, or over its own "
        "tokens by mean, maximum or the last one",
    )
    suffix: str = Field(
        default=" That was the end of the day.",
        description="sentence appended for pooling 'suffix', with its leading space",
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
        default="cluster", description="what shares one sign in the test over all emotions"
    )
    unit_emotion: Unit = Field(
        default="pair",
        description="what changes emotion as a whole in the tests of one emotion; 'cluster' is "
        "safe where pairs of a cluster correlate, but needs six or more domains an emotion",
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
        default=10, ge=0, description="features a contrast for which text contexts are kept"
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
        if self.pooling == "suffix" and not self.suffix.strip():
            raise ValueError("pooling 'suffix' needs a sentence in `suffix`, but it is empty")
        return self
