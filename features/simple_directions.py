"""Scores that need no fitting beyond means: one column, a mean of columns, a difference of means.

Columns are residual neurons or latents. They are ranked as the search ranks latents, by the
studentised statistic of its own contrast on the training clusters (`contrasts.run_contrasts`). A
residual neuron has no preferred sign, so each enters twice, as it is and negated. A latent enters
once, like in the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, Contrast, run_contrasts
from affectlens.features.design import PairDesign, Part
from affectlens.features.effect_sizes import paired_differences
from affectlens.features.permutation import StatisticsError
from affectlens.features.probes import Numbers

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

FEWEST = 100
"""Permutations asked for where only the ranks are used, which do not depend on them."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best columns of one contrast on the training clusters, best first.

    Attributes:
        columns: [n] column indices.
        signs: [n] 1 where the column rises on the contrast, -1 where it falls.
    """

    columns: Rows
    signs: Array

    def first(self, n: int) -> Ranked:
        """The `n` best, fewer if there are fewer."""
        return Ranked(self.columns[:n], self.signs[:n])


def rank_columns(
    clinical: npt.NDArray[np.floating],
    neutral: npt.NDArray[np.floating],
    candidates: Rows,
    design: PairDesign,
    parts: Mapping[str, Part],
    config: SearchConfig,
    *,
    both_signs: bool,
    n_best: int,
) -> dict[str, Ranked]:
    """Rank columns on the discovery part of `parts`, contrast by contrast.

    Args:
        clinical: [n_pairs, n_columns], pairs in the design's order.
        neutral: the same of their neutrals.
        candidates: columns to rank.
        design: the pairs; only clusters, emotions and their order are used.
        parts: cluster -> part; nothing of 'confirmation' enters.
        config: units of the tests.
        both_signs: a column may also be chosen for falling on an emotion.
        n_best: how many to keep.

    Returns:
        contrast -> its best columns; no columns where none varies on the training part.

    Raises:
        StatisticsError: a value is not finite, or there are no pairs to rank on.
    """
    rows = design.rows(parts, "discovery")
    if not len(rows):
        raise StatisticsError("no cluster is in the discovery part, so no column can be chosen")
    d = paired_differences(clinical[rows][:, candidates], neutral[rows][:, candidates])
    moves = np.flatnonzero((d != 0).any(axis=0))
    known = Ranked(np.zeros(0, np.int64), np.zeros(0))
    training = design.take(rows)
    names = (ALL, *(e for e in training.order if e in training.emotions))
    if not len(moves):
        return dict.fromkeys(names, known)
    d = d[:, moves]
    signed = np.concatenate([d, -d], axis=1) if both_signs else d
    fewer = config.model_copy(update={"n_permutations": FEWEST})
    everything: dict[str, Part] = dict.fromkeys(training.clusters, "discovery")
    found = run_contrasts(signed, training, everything, fewer)
    return {c.name: _best(c, candidates[moves], n_best) for c in found}


def column_scores(values: npt.NDArray[np.floating], ranked: Ranked, train: Mask) -> Array:
    """Mean of the ranked columns, signed, each over its standard deviation on `train`: [n_items].

    Of one column the order of items is that of its values, so its AUROC needs no scale. Zeros where
    nothing was ranked.

    Args:
        values: [n_items, n_columns].
        ranked: columns and signs.
        train: [n_items] items that give the scale.
    """
    if not len(ranked.columns):
        return np.zeros(len(values))
    scaled = Numbers(values[:, ranked.columns]).prepared(train)
    return np.asarray(scaled @ ranked.signs / len(ranked.columns))


def difference_of_means(values: npt.NDArray[np.floating], positive: Mask, train: Mask) -> Array:
    """Projection on the difference of class means of the training items: [n_items].

    w = mean of x over positive - mean of x over negative, score = w'x, in the raw units of the
    stream (DiffMean in Wu et al. 2025, AxBench; mass-mean probe of Marks and Tegmark 2023 without
    its covariance). Large coordinates of the stream therefore count more.

    Args:
        values: [n_items, d].
        positive: [n_items] class.
        train: [n_items] items that give the means.

    Raises:
        StatisticsError: the training items are all of one class.
    """
    x = np.asarray(values, dtype=float)
    own, rest = train & positive, train & ~positive
    if not own.any() or not rest.any():
        raise StatisticsError(
            f"got {int(own.sum())} positive and {int(rest.sum())} negative training items; the "
            "difference of means needs both"
        )
    return np.asarray(x @ (x[own].mean(axis=0) - x[rest].mean(axis=0)))


def random_scores(
    values: npt.NDArray[np.floating], positive: Mask, train: Mask, n: int, seed: int
) -> Array:
    """Projections on `n` random directions: [n, n_items].

    Directions are isotropic in coordinates standardised on the training items, and turned so that
    the positive training items lie higher on average. That one bit is all that is learned.

    Raises:
        StatisticsError: the training items are all of one class.
    """
    own, rest = train & positive, train & ~positive
    if not own.any() or not rest.any():
        raise StatisticsError(
            f"got {int(own.sum())} positive and {int(rest.sum())} negative training items; a "
            "random direction needs both to be turned"
        )
    z = Numbers(values).prepared(train)
    scores = np.random.default_rng(seed).standard_normal((n, z.shape[1])) @ z.T
    higher = scores[:, own].mean(axis=1) >= scores[:, rest].mean(axis=1)
    return np.asarray(np.where(higher, 1.0, -1.0)[:, None] * scores)


def _best(contrast: Contrast, columns: Rows, n_best: int) -> Ranked:
    """The best signed columns as columns and signs; a column and its negative count once."""
    order = np.argsort(contrast.rank)
    column = columns[order % len(columns)]
    side = np.sign(contrast.discovery.specificity[order]) * np.where(
        order < len(columns), 1.0, -1.0
    )
    _, first = np.unique(column, return_index=True)
    kept = np.sort(first)[:n_best]
    return Ranked(column[kept], np.where(side[kept] < 0, -1.0, 1.0))
