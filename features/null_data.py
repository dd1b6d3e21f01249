"""Data sets in which nothing is to be found, made from the activations of a run itself.

They keep what a simulation would have to guess: how latents correlate, how sparse they are, and how
pairs of one cluster resemble each other. What is exchanged is the label alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from affectlens.data.errors import StimulusError
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign, Part, split_clusters
from affectlens.features.permutation import StatisticsError

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
By = Literal["cluster", "pair"]


@dataclass(frozen=True, eq=False)
class Members:
    """Both members of every pair for a few latents: float64 [n_pairs, n_latents], dense."""

    clinical: Array
    neutral: Array

    @property
    def differences(self) -> Array:
        """Clinical minus neutral."""
        return self.clinical - self.neutral

    def swapped(self, swap: npt.NDArray[np.bool_]) -> Members:
        """Members of the pairs [n_pairs] marked True change places."""
        at = swap[:, None]
        return Members(
            np.where(at, self.neutral, self.clinical), np.where(at, self.clinical, self.neutral)
        )


@dataclass(frozen=True, eq=False)
class PairData:
    """Pairs with their activations, as a search would test them.

    Attributes:
        design: the pairs; row i of `clinical` and of `neutral` is pair i.
        parts: cluster -> part.
        clinical: sparse [n_pairs, d_sae].
        neutral: the same shape.
        tested: latents active in enough discovery texts; blind to the labels.
    """

    design: PairDesign
    parts: Mapping[str, Part]
    clinical: sparse.csc_array
    neutral: sparse.csc_array
    tested: Rows

    @classmethod
    def of(cls, values: sparse.csc_array, design: PairDesign, config: SearchConfig) -> Self:
        """Pairs of a design, split and filtered as `search_activations` does.

        Raises:
            StimulusError: a cluster with two emotions.
        """
        parts = split_clusters(
            design.clusters, design.emotions, config.confirmation_share, config.seed
        )
        by_row = values.tocsr()
        clinical, neutral = by_row[design.clinical].tocsc(), by_row[design.neutral].tocsc()
        rows = design.rows(parts, "discovery")
        active = sum(_active(m.tocsr()[rows]) for m in (clinical, neutral))
        own = np.arange(len(design))
        return cls(
            replace(design, clinical=own, neutral=own),
            parts,
            clinical,
            neutral,
            np.flatnonzero(active >= config.min_items),
        )

    def drawn(self, max_latents: int, rng: np.random.Generator) -> Members:
        """At most `max_latents` of the tested latents, drawn at random, ascending."""
        chosen = self.tested
        if len(chosen) > max_latents:
            chosen = np.sort(rng.choice(chosen, max_latents, replace=False))
        return Members(
            self.clinical[:, chosen].toarray().astype(float),
            self.neutral[:, chosen].toarray().astype(float),
        )

    def labels(self, contrast: str) -> PairDesign:
        """The design with so few emotions that little but `contrast` is tested."""
        rest = [e for e in self.design.order if e != contrast]
        return replace(self.design, order=(contrast, *rest[:1]) if contrast != "all" else ())


def as_sparse(pooled: npt.ArrayLike | sparse.sparray | sparse.spmatrix) -> sparse.csc_array:
    """Pooled activations by column, checked.

    Raises:
        StatisticsError: not two-dimensional, or a value is NaN or infinite.
    """
    found: Any = pooled if sparse.issparse(pooled) else np.asarray(pooled)
    if found.ndim != 2:
        raise StatisticsError(f"pooled has shape {found.shape}; need [n_items, d_sae]")
    values = sparse.csc_array(found)
    if not bool(np.isfinite(values.data).all()):
        raise StatisticsError(
            "pooled holds NaN or infinite activations; encode again and leave such texts out"
        )
    return values


def swaps(design: PairDesign, by: By, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A fair coin for every cluster, or every pair: [n_pairs], True where the label is flipped."""
    if by == "pair":
        return rng.integers(2, size=len(design)).astype(bool)
    names = sorted(set(design.clusters))
    coin = dict(zip(names, rng.integers(2, size=len(names)).astype(bool), strict=True))
    return np.array([coin[c] for c in design.clusters], dtype=bool)


def relabelled(data: PairData, by: By, rng: np.random.Generator) -> PairDesign:
    """Emotions dealt out anew over clusters, or pairs, within each part of the split.

    The parts stay as they are, so each part keeps its number of units of every emotion.
    """
    emotions = np.array(data.design.emotions, dtype=object)
    clusters = np.array(data.design.clusters, dtype=object)
    for part in ("discovery", "confirmation"):
        rows = data.design.rows(data.parts, part)
        if by == "pair":
            emotions[rows] = rng.permutation(emotions[rows])
            continue
        names, first = np.unique(clusters[rows].astype(str), return_index=True)
        dealt = rng.permutation(emotions[rows][first])
        to = dict(zip(names.tolist(), dealt, strict=True))
        emotions[rows] = [to[c] for c in clusters[rows]]
    return replace(data.design, emotions=tuple(str(e) for e in emotions))


def neutral_pairs(design: PairDesign, by: By, rng: np.random.Generator) -> PairDesign:
    """Neutrals of different topics as pairs; which one is called clinical is arbitrary.

    Within each emotion the clusters are put into twos at random; neutrals of the two are matched
    at random, each used once. The two make one new cluster. A coin for each new cluster (or pair)
    says which side is called clinical, so 'cluster' keeps the difference of two topics within a
    cluster, and 'pair' does not. Of an odd number of clusters one is left over, and of the larger
    cluster of a two what has no partner. The rows index the same activations as `design`.

    Raises:
        StimulusError: no emotion has two clusters.
    """
    members: dict[str, dict[str, list[int]]] = {}
    for emotion, cluster, row in zip(design.emotions, design.clusters, design.neutral, strict=True):
        members.setdefault(emotion, {}).setdefault(cluster, []).append(int(row))
    rows: list[tuple[int, int, str, str]] = []
    for emotion in sorted(members):
        names = [str(n) for n in rng.permutation(sorted(members[emotion]))]
        for one, two in zip(names[::2], names[1::2], strict=False):
            # Several pairs may share a neutral; it enters once.
            sides = [rng.permutation(sorted(set(members[emotion][n]))) for n in (one, two)]
            rows.extend(
                (int(a), int(b), emotion, f"{one}|{two}")
                for a, b in zip(*sides, strict=False)
                if a != b
            )
    if not rows:
        raise StimulusError(
            "no emotion has neutrals of two clusters, so none can be paired across topics"
        )
    left, right = np.array([r[:2] for r in rows], dtype=np.int64).T
    made = PairDesign(
        left,
        right,
        tuple(str(i) for i in range(len(rows))),
        tuple(r[2] for r in rows),
        tuple(r[3] for r in rows),
        tuple(e for e in design.order if e in {r[2] for r in rows}),
    )
    swap = swaps(made, by, rng)
    return replace(made, clinical=np.where(swap, right, left), neutral=np.where(swap, left, right))


def subsampled(
    design: PairDesign, share: float, per_cluster: int | None, rng: np.random.Generator
) -> PairDesign:
    """Round(share x n) whole clusters of each emotion (one at least), then pairs within them.

    Args:
        design: the pairs.
        share: share of clusters kept.
        per_cluster: most pairs of a cluster that are kept; None keeps all.
        rng: which ones.
    """
    members: dict[str, dict[str, list[int]]] = {}
    for i, (emotion, cluster) in enumerate(zip(design.emotions, design.clusters, strict=True)):
        members.setdefault(emotion, {}).setdefault(cluster, []).append(i)
    kept: list[int] = []
    for emotion in sorted(members):
        names = sorted(members[emotion])
        wanted = max(1, round(share * len(names)))
        for name in sorted(str(n) for n in rng.permutation(names)[:wanted]):
            own = members[emotion][name]
            if per_cluster is not None and len(own) > per_cluster:
                own = sorted(int(i) for i in rng.choice(own, per_cluster, replace=False))
            kept.extend(own)
    rows = np.array(sorted(kept), dtype=np.int64)
    return PairDesign(
        design.clinical[rows],
        design.neutral[rows],
        tuple(design.pair_ids[i] for i in rows),
        tuple(design.emotions[i] for i in rows),
        tuple(design.clusters[i] for i in rows),
        design.order,
    )


def _active(members: sparse.csr_array) -> Rows:
    return np.asarray((members > 0).sum(axis=0)).ravel()
