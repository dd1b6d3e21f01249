"""How well held-out scores separate, and by how much more than another method's, over clusters.

A method gives every member of every tested pair a score from a model that was fitted without the
pair's cluster. Two targets are judged:

    'all'        clinical members against neutral ones
    an emotion   its clinical members against the clinical members of the other emotions

AUROC is the chance that a random positive lies above a random negative, ties one half. Scores of
different folds come from different models and have no common scale, so only members of one fold
are compared (the stratified form of the Mann-Whitney statistic):

    AUROC = sum_f U_f / sum_f n+_f n-_f

with U_f the wins of positives over negatives in fold f. Paired accuracy is the share of own pairs
whose clinical member lies above its own neutral, ties one half, for both targets.

Intervals are percentile bootstrap over whole clusters. With c the times that each cluster is drawn,
W[a, b] the wins of the positives of cluster a over the negatives of cluster b in the same fold, and
N[a, b] their comparisons, a resample gives c'Wc / c'Nc. For an emotion, its own clusters and the
others are drawn apart (Davison and Hinkley 1997, section 3.2, on several samples), because both
numbers are fixed by the design. All methods share the draws, so that the interval of a difference
is a paired one. The fitted models are held fixed: the intervals say what other test clusters would
give, not what other training clusters would. At a perfect score they have no width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.features.effect_sizes import cluster_codes, wins
from affectlens.features.intervals import resample_counts
from affectlens.features.permutation import StatisticsError

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MIN_CLUSTERS = 4
"""Clusters below which no interval is given, for an emotion on each side.

Of k clusters the most extreme resample (one cluster k times) has probability k**-k: 0.25 and 0.037
for two and three, more than the 0.025 of a tail, so that the interval is only the range seen.
"""

_BLOCK = 256
"""Clusters whose wins are counted at once."""
_UNDEFINED = 0.01
"""Share of resamples that may hold no comparison (folds apart) before no interval is given."""


@dataclass(frozen=True)
class Target:
    """What is told apart. `own` [n_pairs] are the pairs whose clinical members are positive."""

    name: str
    own: Mask
    against_neutral: bool

    @property
    def n_own(self) -> int:
        """Own pairs."""
        return int(self.own.sum())


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of one method.

    Attributes:
        scores: [n_repeats, n_pairs, 2], clinical then neutral; measures are means over repeats.
            Rows that were not tested are ignored.
        n_features: numbers that enter a score (mean over folds).
    """

    scores: Array
    n_features: float


@dataclass(frozen=True)
class Measure:
    """An estimate and the bounds of its 95% interval; NaN bounds where there is none."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Judged:
    """A method on one target.

    Attributes:
        auroc, paired_accuracy: estimates with intervals.
        replicates: [n_bootstrap] AUROC of the resamples, NaN where one holds no comparison; empty
            without intervals.
    """

    auroc: Measure
    paired_accuracy: Measure
    replicates: Array


@dataclass(frozen=True, eq=False)
class _Fold:
    """Pairs of a fold among those tested that give a positive, and a negative, text."""

    positive: Mask
    negative: Mask


class Judge:
    """Judges methods on one target and one division into folds, all with the same resamples.

    Args:
        target: what is told apart.
        clusters: [n_pairs] cluster of each pair.
        folds: [n_pairs] fold in which each pair is tested; -1 for never.
        n_bootstrap: resamples; 0 for no intervals.
        seed: of the resamples.

    Raises:
        StatisticsError: no fold holds a positive and a negative.
    """

    def __init__(
        self,
        target: Target,
        clusters: Sequence[str],
        folds: Rows,
        *,
        n_bootstrap: int,
        seed: int,
    ) -> None:
        self._folds = usable_folds(target, folds)
        tested = self._folds >= 0
        if not tested.any():
            raise StatisticsError(
                f"target {target.name!r} has no fold with a positive and a negative text to test; "
                "use more clusters or fewer folds"
            )
        self._target = target
        self._rows = np.flatnonzero(tested)
        self._codes, self._k = cluster_codes(
            [clusters[i] for i in self._rows.tolist()], len(self._rows)
        )
        own = np.unique(self._codes[target.own[self._rows]])
        self.n_pairs = int(target.own[self._rows].sum())
        self.n_clusters = len(own)
        self._counts = sum(
            (np.outer(self._sizes(f.positive), self._sizes(f.negative)) for f in self._each_fold()),
            np.zeros((self._k, self._k)),
        )
        self._draws = _draws(self._k, own, target, n_bootstrap, seed)

    def judge(self, held_out: HeldOut) -> Judged:
        """AUROC and paired accuracy with their intervals.

        Raises:
            StatisticsError: a tested score is not finite.
        """
        used = held_out.scores[:, self._rows]
        if not np.isfinite(used).all():
            raise StatisticsError(
                f"{int((~np.isfinite(used)).sum())} held-out scores of target "
                f"{self._target.name!r} are not finite; the activations hold NaN or infinity"
            )
        won = self._wins(used)
        own = self._target.own[self._rows]
        right = wins(used[:, :, 0] - used[:, :, 1]).mean(axis=0)[own]
        correct = np.bincount(self._codes[own], weights=right, minlength=self._k)
        auroc = float(won.sum() / self._counts.sum())
        if not len(self._draws):
            nan = float("nan")
            return Judged(
                Measure(auroc, nan, nan), Measure(float(right.mean()), nan, nan), np.empty(0)
            )
        replicates = resampled_auroc(self._draws, won, self._counts)
        accuracy = _ratio(self._draws @ correct, self._draws @ self._sizes(own))
        return Judged(
            Measure(auroc, *central(replicates)),
            Measure(float(right.mean()), *central(accuracy)),
            replicates,
        )

    def _each_fold(self) -> Iterator[_Fold]:
        own = self._target.own[self._rows]
        rest = own if self._target.against_neutral else ~own
        for fold in np.unique(self._folds[self._rows]):
            here = self._folds[self._rows] == fold
            yield _Fold(here & own, here & rest)

    def _sizes(self, rows: Mask) -> Array:
        """Tested pairs among `rows` [n_tested] by cluster: [n_clusters]."""
        return np.bincount(self._codes[rows], minlength=self._k).astype(float)

    def _wins(self, scores: Array) -> Array:
        """`cluster_wins` of tested scores [n_repeats, n_tested, 2], within folds, over repeats."""
        column = 1 if self._target.against_neutral else 0
        total = np.zeros((self._k, self._k))
        for fold in self._each_fold():
            codes = self._codes[fold.positive], self._codes[fold.negative]
            for one in scores:
                sides = one[fold.positive, 0], one[fold.negative, column]
                total += cluster_wins(*sides, *codes, self._k)
        return total / len(scores)


def difference(method: Judged, reference: Judged) -> Measure:
    """AUROC of a method minus that of a reference, both from the same `Judge`.

    The interval is that of the difference within each resample; NaN bounds without resamples.
    """
    estimate = method.auroc.estimate - reference.auroc.estimate
    if not len(method.replicates):
        return Measure(estimate, float("nan"), float("nan"))
    return Measure(estimate, *central(method.replicates - reference.replicates))


def cluster_wins(
    positive: Array, negative: Array, positive_codes: Rows, negative_codes: Rows, n_clusters: int
) -> Array:
    """W[a, b]: wins of the positives of cluster a over the negatives of b, ties one half.

    By sorting, so that memory goes with the numbers of texts and not with their product.

    Args:
        positive: [n_positive] scores.
        negative: [n_negative] scores.
        positive_codes: [n_positive] cluster of each, below `n_clusters`.
        negative_codes: [n_negative].
        n_clusters: of both.
    """
    order = np.argsort(negative, kind="stable")
    below = np.searchsorted(negative[order], positive, side="left")
    upto = np.searchsorted(negative[order], positive, side="right")
    out = np.zeros((n_clusters, n_clusters))
    for start in range(0, n_clusters, _BLOCK):
        columns = np.arange(start, min(start + _BLOCK, n_clusters))
        member = negative_codes[order][:, None] == columns
        count = np.concatenate([np.zeros((1, len(columns))), np.cumsum(member, axis=0)])
        np.add.at(
            out[:, start : start + _BLOCK], positive_codes, 0.5 * (count[below] + count[upto])
        )
    return out


def resampled_auroc(draws: Array, won: Array, compared: Array) -> Array:
    """c'Wc / c'Nc of each row c of `draws` [n, n_clusters]; NaN where nothing is compared: [n]."""
    return _ratio(
        np.einsum("bi,bi->b", draws @ won, draws), np.einsum("bi,bi->b", draws @ compared, draws)
    )


def usable_folds(target: Target, folds: Rows) -> Rows:
    """`folds` with -1 where a fold lacks a positive or a negative text of the target."""
    out = folds.copy()
    for fold in np.unique(folds[folds >= 0]):
        here = folds == fold
        own = target.own[here]
        if not own.any() or (own.all() and not target.against_neutral):
            out[here] = -1
    if target.against_neutral:
        out[~target.own] = -1
    return out


def _draws(k: int, own: Rows, target: Target, n: int, seed: int) -> Array:
    """How often each resample holds each cluster [n, k]; no rows where no interval is given."""
    rest = np.setdiff1d(np.arange(k), own)
    sides = [own] if target.against_neutral else [own, rest]
    if n < 1 or min(len(side) for side in sides) < MIN_CLUSTERS:
        return np.empty((0, k))
    out = np.zeros((n, k))
    for i, side in enumerate(sides):
        # Each side has its own stream: equal seeds would tie the draws of sides of equal size.
        out[:, side] = resample_counts(n, len(side), seed * 2 + i)
    return out


def _ratio(top: Array, bottom: Array) -> Array:
    """top / bottom; NaN where nothing is compared."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)


def central(replicates: Array) -> tuple[float, float]:
    """The central 95% of replicates; NaN bounds where too many of them are NaN."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < (1 - _UNDEFINED) * len(replicates):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
