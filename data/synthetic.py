"""Data with a known answer: residuals from a planted dictionary, and emotion pairs made of it.

The dictionary has more directions than the residual has dimensions; each token is a sparse sum of
them plus noise. Some latents are planted for one emotion, some for emotion in general; pairs of
texts differ in those alone. Used to test that a search finds what is there and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PlantedDictionary:
    """A known dictionary.

    Attributes:
        directions: float32 [n_latents, d_model], unit rows.
        rates: float64 [n_latents], share of tokens on which each latent is active.
        general: latents that rise with every emotion.
        own: emotion -> latents that rise with it alone.
    """

    directions: Floats
    rates: npt.NDArray[np.float64]
    general: tuple[int, ...]
    own: Mapping[str, tuple[int, ...]]

    @property
    def n_latents(self) -> int:
        """Number of directions."""
        return self.directions.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual."""
        return self.directions.shape[1]

    def latents(self, n_tokens: int, rng: np.random.Generator) -> Floats:
        """Sparse activations [n_tokens, n_latents]: active by rate, size 1 + exponential."""
        active = rng.random((n_tokens, self.n_latents)) < self.rates
        size = 1.0 + rng.exponential(1.0, size=active.shape)
        return (active * size).astype(np.float32)

    def residuals(self, latents: Floats, rng: np.random.Generator, noise: float = 0.01) -> Floats:
        """Residuals [n, d_model] of latents [n, n_latents], with normal noise of this SD."""
        clean = latents @ self.directions
        return (clean + noise * rng.standard_normal(clean.shape)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class PlantedPairs:
    """Texts in pairs; row i of `clinical` and of `neutral` is one pair.

    Attributes:
        clinical: float32 [n_pairs, n_tokens, n_latents] latents of the clinical member.
        neutral: the same of its neutral.
        emotions: emotion of each pair.
        clusters: 'emotion/domain' of each pair.
    """

    clinical: Floats
    neutral: Floats
    emotions: tuple[str, ...]
    clusters: tuple[str, ...]


def plant_dictionary(
    emotions: Sequence[str],
    rng: np.random.Generator,
    *,
    n_latents: int = 128,
    d_model: int = 64,
    n_own: int = 2,
    n_general: int = 2,
    rate: float = 0.04,
) -> PlantedDictionary:
    """Draw a dictionary and choose the latents that stand for emotion.

    Raises:
        ConfigError: fewer latents than were to be planted, or a rate outside (0, 1).
    """
    needed = n_general + n_own * len(emotions)
    if n_latents < needed or d_model < 1 or not 0 < rate < 1:
        raise ConfigError(
            f"got n_latents={n_latents}, d_model={d_model}, rate={rate}; need n_latents >= "
            f"{needed} for {len(emotions)} emotions, d_model >= 1 and a rate within (0, 1)"
        )
    rows = rng.standard_normal((n_latents, d_model))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = [int(i) for i in rng.permutation(n_latents)[:needed]]
    general, rest = tuple(chosen[:n_general]), chosen[n_general:]
    own = {e: tuple(rest[i * n_own : (i + 1) * n_own]) for i, e in enumerate(emotions)}
    rates = np.full(n_latents, rate)
    return PlantedDictionary(rows.astype(np.float32), rates, general, MappingProxyType(own))


def plant_pairs(
    dictionary: PlantedDictionary,
    rng: np.random.Generator,
    *,
    n_domains: int = 3,
    n_per_domain: int = 4,
    n_tokens: int = 12,
    effect: float = 3.0,
    cluster_sd: float = 0.3,
) -> PlantedPairs:
    """Make pairs that differ by the planted latents only.

    Both members share the cluster's topic (a few latents that fire in all its texts); tokens are
    otherwise independent. The clinical member has `effect` added to the general latents and to
    its emotion's own, on every second token, scaled by a cluster factor 1 + cluster_sd x normal.
    With `effect` 0 the null holds.
    """
    clinical, neutral, emotions, clusters = [], [], [], []
    for emotion, own in dictionary.own.items():
        planted = np.array([*dictionary.general, *own], dtype=np.int64)
        others = np.setdiff1d(np.arange(dictionary.n_latents), _planted(dictionary))
        for domain in range(1, n_domains + 1):
            topic = rng.choice(others, size=min(3, len(others)), replace=False)
            factor = max(0.0, 1.0 + cluster_sd * rng.standard_normal())
            for _ in range(n_per_domain):
                pair = [dictionary.latents(n_tokens, rng) for _ in range(2)]
                for member in pair:
                    member[:, topic] += 1.0
                pair[0][::2, planted] += effect * factor
                clinical.append(pair[0])
                neutral.append(pair[1])
                emotions.append(emotion)
                clusters.append(f"{emotion}/{domain}")
    return PlantedPairs(np.stack(clinical), np.stack(neutral), tuple(emotions), tuple(clusters))


def _planted(dictionary: PlantedDictionary) -> npt.NDArray[np.int64]:
    own = [i for latents in dictionary.own.values() for i in latents]
    return np.array([*dictionary.general, *own], dtype=np.int64)
