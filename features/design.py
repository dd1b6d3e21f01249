"""Which rows of an activation table form pairs, and which pairs are for discovery."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Battery
from affectlens.features.config import Unit

Part = Literal["discovery", "confirmation"]


@dataclass(frozen=True, eq=False)
class PairDesign:
    """Pairs as row indices into pooled activations [n_items, d_sae].

    Attributes:
        clinical: [n_pairs] rows of the clinical members.
        neutral: [n_pairs] rows of their neutrals.
        pair_ids: ids of the clinical members.
        emotions: emotion of each pair.
        clusters: emotion x domain cluster of each pair.
        order: the distinct emotions in the order of presentation.
    """

    clinical: npt.NDArray[np.int64]
    neutral: npt.NDArray[np.int64]
    pair_ids: tuple[str, ...]
    emotions: tuple[str, ...]
    clusters: tuple[str, ...]
    order: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pair_ids)

    @classmethod
    def from_battery(cls, battery: Battery, item_ids: Sequence[str]) -> Self:
        """Find the battery's pairs among encoded items.

        Raises:
            StimulusError: the battery has no pairs, or an item was not encoded.
        """
        if not battery.pairs:
            raise StimulusError(
                f"battery {battery.name!r} has no pairs; a search needs clinical items with "
                "matched neutral controls"
            )
        row = {item: i for i, item in enumerate(item_ids)}
        missing = [m.id for p in battery.pairs for m in (p.clinical, p.neutral) if m.id not in row]
        if missing:
            raise StimulusError(
                f"{len(missing)} items of battery {battery.name!r} were not encoded, the first is "
                f"{missing[0]!r}; encode the same battery that is searched"
            )
        return cls(
            np.array([row[p.clinical.id] for p in battery.pairs], dtype=np.int64),
            np.array([row[p.neutral.id] for p in battery.pairs], dtype=np.int64),
            tuple(p.id for p in battery.pairs),
            tuple(p.emotion for p in battery.pairs),
            tuple(p.cluster for p in battery.pairs),
            tuple(battery.emotions),
        )

    def rows(self, parts: Mapping[str, Part], part: Part) -> npt.NDArray[np.int64]:
        """Indices of the pairs whose cluster belongs to `part`."""
        return np.flatnonzero([parts[c] == part for c in self.clusters])

    def take(self, rows: npt.ArrayLike) -> Self:
        """Some of the pairs, in the order of `rows` [n]; the emotions of `order` stay."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            clinical=self.clinical[chosen],
            neutral=self.neutral[chosen],
            pair_ids=tuple(self.pair_ids[i] for i in chosen),
            emotions=tuple(self.emotions[i] for i in chosen),
            clusters=tuple(self.clusters[i] for i in chosen),
        )

    def units(self, unit: Unit) -> tuple[str, ...]:
        """The unit of each pair: the pair itself, or its cluster (for 'hierarchical' too)."""
        return self.pair_ids if unit == "pair" else self.clusters


def split_clusters(
    clusters: Sequence[str], emotions: Sequence[str], share: float, seed: int
) -> dict[str, Part]:
    """Assign whole clusters to discovery or confirmation, in the same share for each emotion.

    Of an emotion's clusters round(share x n) are kept for confirmation, at least one (if `share`
    is above 0) and never all. An emotion with a single cluster is used for discovery alone. The
    split of an emotion depends on its own clusters and the seed only.

    Args:
        clusters: the cluster of each pair.
        emotions: the emotion of each pair.
        share: share of clusters kept for confirmation.
        seed: which of them.

    Returns:
        cluster -> part, sorted by cluster.

    Raises:
        StimulusError: a cluster holds pairs of two emotions.
    """
    owner: dict[str, str] = {}
    for cluster, emotion in zip(clusters, emotions, strict=True):
        if owner.setdefault(cluster, emotion) != emotion:
            raise StimulusError(
                f"cluster {cluster!r} holds pairs of {owner[cluster]!r} and {emotion!r}; "
                "a cluster belongs to one emotion"
            )
    parts: dict[str, Part] = {}
    for emotion in sorted(set(emotions)):
        own = sorted(c for c, e in owner.items() if e == emotion)
        wanted = max(1, round(share * len(own))) if share > 0 else 0
        rng = np.random.default_rng([seed, zlib.crc32(emotion.encode())])
        chosen = set(rng.permutation(len(own))[: min(wanted, len(own) - 1)].tolist())
        for i, cluster in enumerate(own):
            parts[cluster] = "confirmation" if i in chosen else "discovery"
    return dict(sorted(parts.items()))
