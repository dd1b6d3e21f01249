"""Data sets in which nothing is to be found, made from the activations of a run itself.

They keep what a simulation would have to guess: how latents correlate, how sparse they are, and how
pairs of one cluster resemble each other. What is exchanged is the label alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import StimulusError
from affectlens.features import effect_sizes
from affectlens.features.design import PairDesign
from affectlens.features.pair_data import PairData

By = Literal["cluster", "pair"]
Array = npt.NDArray[np.float64]


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


def centred(differences: Array, emotions: Sequence[str]) -> Array:
    """Differences [n_pairs, n_latents] less the mean of their emotion.

    What an emotion raises is gone; how widely its pairs scatter stays. Flipped by cluster, every
    emotion then has mean zero with a spread of its own.
    """
    codes, _ = effect_sizes.cluster_codes(emotions, len(differences))
    return np.asarray(differences - effect_sizes.cluster_means(differences, emotions)[codes])


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
    return design.take(sorted(kept))
