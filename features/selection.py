"""A set of features picked by a search, with what later stages need to know about the pick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import pandas as pd

from affectlens.features.config import SearchConfig
from affectlens.features.controls import clamp_targets


@dataclass(frozen=True, eq=False)
class FeatureSet(Sequence[int]):
    """Latents chosen for one contrast; behaves as a sequence of latent indices.

    Attributes:
        emotion: the contrast ("grief", ... or "all") they were chosen for.
        features: latent indices, best first.
        parts: cluster -> "discovery" or "confirmation", as split by the search.
        stats: firing statistics of all latents on held-out text (columns `STATS_COLUMNS`).
        chosen_by: how, in words, for the report.
        sae_sha256: hash of the SAE whose latents these are; empty if it is not known.
        settings: of the search, under which control selections are made; None if not known.
    """

    emotion: str
    features: tuple[int, ...]
    parts: Mapping[str, str] = field(repr=False)
    stats: pd.DataFrame = field(repr=False)
    chosen_by: str = ""
    sae_sha256: str = ""
    settings: SearchConfig | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.features)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        """Latent index at a rank (0 is the best)."""
        return self.features[index]

    def at(self, strength: float) -> dict[int, float]:
        """Each latent at `strength` times its largest held-out activation, for `clamped`.

        Raises:
            ConfigError: no firing statistics, or a latent that never fired on held-out text.
        """
        values = clamp_targets(self.stats, self.features, strength)
        return dict(zip(self.features, map(float, values), strict=True))
