"""The tests of one search: every contrast on the discovery part, its best again on the other part.

A contrast is 'all' or one emotion. Effects are always over pairs; tests are over the configured
unit (cluster totals for the sign flip, cluster means for the exchange of labels). With the unit
'hierarchical' pairs are flipped and the t of 'all' is over cluster totals (`cluster_flip`).

Pairs of a cluster share a scene, and their differences correlate, so by default a cluster changes
emotion as a whole. With pairs as the unit they count as independent: where emotions were dealt out
over clusters the family-wise error at a level of .05 came out at up to .14. Whole clusters keep the
level where labels are exchangeable, not where one emotion's differences scatter more than others',
and need about six domains an emotion before a confirmation part can reach the usual levels; 'pair'
is for batteries with fewer, and its p is too small where pairs of a cluster correlate.

Differences are sparse, as SAE activations are: tests and cluster sums run over their non-zero
entries, and effects over blocks of columns, so a million latents are never dense at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from affectlens.features import stats
from affectlens.features._columns import Differences
from affectlens.features.config import SearchConfig, Unit
from affectlens.features.design import PairDesign, Part
from affectlens.features.effect_sizes import cluster_codes

ALL = "all"
Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_BLOCK = 4096
"""Columns that are dense at once."""


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of one contrast in one part; arrays are [n_tested]."""

    mean_diff: Array
    d_z: Array
    auroc_paired: Array
    specificity: Array


@dataclass(frozen=True, eq=False)
class Contrast:
    """One contrast; arrays are [n_tested].

    Attributes:
        name: 'all' or an emotion.
        rows: discovery pairs that enter it as own.
        confirm_rows: the same in the confirmation part.
        discovery: effects over `rows`.
        confirmation: effects over `confirm_rows`; NaN if there are none.
        p: permutation p on the discovery part.
        p_fwer: step-down max-T p within the contrast.
        rank: 1 is best.
        retained: carried into confirmation.
        confirm_p: NaN where not retained or not testable.
        confirm_p_holm: Holm over the retained.
        n_units: units that the t of the discovery test is over.
        min_p: the smallest p that the discovery test can give.
        confirm_min_p: the same of the confirmation test; 1 where it cannot be made.
    """

    name: str
    rows: Rows
    confirm_rows: Rows
    discovery: Effects
    confirmation: Effects
    p: Array
    p_fwer: Array
    rank: npt.NDArray[np.int64]
    retained: npt.NDArray[np.bool_]
    confirm_p: Array
    confirm_p_holm: Array
    n_units: int
    min_p: float
    confirm_min_p: float

    def effects(self, prefix: str) -> dict[str, Array]:
        """Effect columns with a prefix: '' for discovery, 'confirm_' for confirmation."""
        source = self.confirmation if prefix else self.discovery
        return {
            f"{prefix}mean_diff": source.mean_diff,
            f"{prefix}d_z": source.d_z,
            f"{prefix}auroc_paired": source.auroc_paired,
            f"{prefix}specificity": source.specificity,
        }

    def confirmed(self, alpha: float) -> npt.NDArray[np.bool_]:
        """Retained, on the same side, for an emotion rising on its own pairs, and p after Holm."""
        same = np.sign(self.discovery.specificity) == np.sign(self.confirmation.specificity)
        # An emotion's pairs that only fall less than the others do not answer to it.
        if self.name != ALL:
            same &= self.confirmation.mean_diff > 0
        return self.retained & same & (np.nan_to_num(self.confirm_p_holm, nan=1.0) <= alpha)


@dataclass(frozen=True, eq=False)
class _Tested:
    statistic: Array
    p: Array
    p_fwer: Array
    n_units: int
    min_p: float


@dataclass(frozen=True, eq=False)
class Retest:
    """A contrast's test of other differences of the same pairs; arrays are [n_columns].

    Attributes:
        effects: over the contrast's own pairs.
        p: permutation p.
        p_fwer: step-down max-T p over the columns.
        p_holm: Holm over the columns.
        n_pairs: own pairs.
        n_units: units that its t is over.
        min_p: the smallest p that the test can give.
    """

    effects: Effects
    p: Array
    p_fwer: Array
    p_holm: Array
    n_pairs: int
    n_units: int
    min_p: float


def retest(
    differences: Differences,
    name: str,
    design: PairDesign,
    config: SearchConfig,
    *,
    parts: Mapping[str, Part] | None = None,
    part: Part = "confirmation",
) -> Retest | None:
    """Test difference columns [n_pairs, n_columns] as the search tests a contrast.

    Controls hand over differences from which something was taken away (words, shuffled text), or
    those of another battery, so that they are judged by the test that judged the original.

    Args:
        differences: clinical minus neutral, dense or SciPy-sparse, pairs in the design's order.
        name: 'all' or an emotion.
        design: the pairs.
        config: settings of the test.
        parts: the split of the clusters; None takes every pair.
        part: which of them.

    Returns:
        None where the contrast cannot be tested: no own pair, or for an emotion no other one.

    Raises:
        StatisticsError: a value is not finite.
    """
    if parts is None:
        parts = dict.fromkeys(design.clusters, part)
    return _Run(differences, design, parts, config).retest(name, part)


def run_contrasts(
    differences: Differences,
    design: PairDesign,
    parts: Mapping[str, Part],
    config: SearchConfig,
) -> list[Contrast]:
    """Test 'all' and, where the battery has several, each emotion.

    Args:
        differences: [n_pairs, n_tested] clinical minus neutral, dense or SciPy-sparse.
        design: the pairs.
        parts: the split of the clusters.
        config: settings.

    Raises:
        StatisticsError: a value is not finite, or no pair is in the discovery part.
    """
    return _Run(differences, design, parts, config).contrasts()


class _Run:
    def __init__(
        self,
        differences: Differences,
        design: PairDesign,
        parts: Mapping[str, Part],
        config: SearchConfig,
    ) -> None:
        self.config = config
        self.emotions = np.asarray(design.emotions, dtype=object)
        self.clusters = np.asarray(design.clusters, dtype=object)
        self.order = design.order
        self.part_rows: dict[Part, Rows] = {
            "discovery": design.rows(parts, "discovery"),
            "confirmation": design.rows(parts, "confirmation"),
        }
        # Entries in the order of the rows for all callers: the last bits of sums depend on it.
        columns = sparse.csc_array(differences, dtype=float).sorted_indices()
        self.d = {part: columns[rows] for part, rows in self.part_rows.items()}

    def contrasts(self) -> list[Contrast]:
        found = [self._finish(ALL, self._test_all("discovery", slice(None)))]
        rows = self.part_rows["discovery"]
        names = [e for e in self.order if np.any(self.emotions[rows] == e)]
        if len(names) > 1:
            for name, tested in self._test_emotions("discovery", names, slice(None)).items():
                found.append(self._finish(name, tested))
        return found

    def retest(self, name: str, part: Part) -> Retest | None:
        own = self._own(name, part)
        if not len(own) or self._min_p(name, part) is None:
            return None
        if name == ALL:
            tested = self._test_all(part, slice(None))
        else:
            tested = self._test_emotions(part, [name], slice(None))[name]
        return Retest(
            self._effects(name, part),
            tested.p,
            tested.p_fwer,
            stats.holm(tested.p),
            len(own),
            tested.n_units,
            tested.min_p,
        )

    def _finish(self, name: str, tested: _Tested) -> Contrast:
        own, confirm_own = (self._own(name, part) for part in ("discovery", "confirmation"))
        effects = self._effects(name, "discovery")
        target = np.ones(len(tested.p), dtype=bool)
        if name != ALL:
            target = (effects.specificity > 0) & (effects.mean_diff > 0)
        rank = _rank(tested.statistic, effects, target)
        retained = np.zeros(len(tested.p), dtype=bool)
        best = np.argsort(rank)[: self._n_retained(name)]
        retained[best] = target[best] & (tested.statistic[best] != 0)
        confirm_p, confirm_holm = self._confirm(name, retained)
        confirm_min_p = self._min_p(name, "confirmation")
        return Contrast(
            name,
            own,
            confirm_own,
            effects,
            self._effects(name, "confirmation"),
            tested.p,
            tested.p_fwer,
            rank,
            retained,
            confirm_p,
            confirm_holm,
            tested.n_units,
            tested.min_p,
            1.0 if confirm_min_p is None else confirm_min_p,
        )

    def _n_retained(self, name: str) -> int:
        """How many latents confirmation can bear; the number follows from the design alone."""
        smallest = self._min_p(name, "confirmation")
        if smallest is None:
            return self.config.n_retained
        return min(self.config.n_retained, stats.bearable(smallest, self.config.alpha))

    def _confirm(self, name: str, retained: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        p, adjusted = np.full(len(retained), np.nan), np.full(len(retained), np.nan)
        columns = np.flatnonzero(retained)
        if not len(columns) or self._min_p(name, "confirmation") is None:
            return p, adjusted
        if name == ALL:
            tested = self._test_all("confirmation", columns)
        else:
            tested = self._test_emotions("confirmation", [name], columns)[name]
        p[columns] = tested.p
        adjusted[columns] = stats.holm(tested.p)
        return p, adjusted

    def _test_all(self, part: Part, columns: slice | Rows) -> _Tested:
        rows = self.part_rows[part]
        x, clusters = self.d[part][:, columns], list(self.clusters[rows])
        n, seed = self.config.n_permutations, self.config.seed
        if self.config.unit == "hierarchical":
            found = stats.cluster_flip(x, clusters, n, seed)
            smallest = stats.min_attainable_p(found.n_units, n)
            return _Tested(found.statistic, found.p, found.p_fwer, found.n_clusters, smallest)
        if self.config.unit == "cluster":
            x = cluster_totals(x, clusters)
        flip = stats.sign_flip(x, n, seed)
        smallest = stats.min_attainable_p(flip.n_units, n)
        return _Tested(flip.statistic, flip.p, flip.p_fwer, flip.n_units, smallest)

    def _test_emotions(
        self, part: Part, names: list[str], columns: slice | Rows
    ) -> dict[str, _Tested]:
        rows = self.part_rows[part]
        x, labels = self.d[part][:, columns], self.emotions[rows]
        if self.config.unit_emotion == "cluster":
            clusters = list(self.clusters[rows])
            owner = dict(zip(clusters, labels, strict=True))
            x = cluster_means(x, clusters)
            labels = np.asarray([owner[c] for c in sorted(set(clusters))], dtype=object)
        n = self.config.n_permutations
        found = stats.label_permutation(x, list(labels), names, n, self.config.seed)
        return {
            name: _Tested(
                found.statistic[i],
                found.p[i],
                found.p_fwer[i],
                found.n_units,
                stats.min_attainable_p(found.n_units, n, found.n_own[i]),
            )
            for i, name in enumerate(names)
        }

    def _min_p(self, name: str, part: Part) -> float | None:
        """Smallest attainable p of a contrast in a part; None if it cannot be tested there."""
        rows = self.part_rows[part]
        unit: Unit = self.config.unit if name == ALL else self.config.unit_emotion
        n = len(set(self.clusters[rows])) if unit == "cluster" else len(rows)
        if name == ALL:
            return stats.min_attainable_p(n, self.config.n_permutations) if n else None
        own = self._own(name, part)
        n_own = len(set(self.clusters[own])) if unit == "cluster" else len(own)
        if not 0 < n_own < n:
            return None
        return stats.min_attainable_p(n, self.config.n_permutations, n_own)

    def _own(self, name: str, part: Part) -> Rows:
        rows = self.part_rows[part]
        return rows if name == ALL else rows[self.emotions[rows] == name]

    def _effects(self, name: str, part: Part) -> Effects:
        d = self.d[part]
        own = np.isin(self.part_rows[part], self._own(name, part))
        out = Effects(*np.empty((4, d.shape[1])))
        for start in range(0, d.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            dense = d[:, block].toarray()
            # Columns in one piece: the sums of one then do not depend on its neighbours.
            x, rest = np.asfortranarray(dense[own]), np.asfortranarray(dense[~own])
            out.mean_diff[block] = mean = stats.mean_diff(x)
            out.d_z[block], out.auroc_paired[block] = stats.d_z(x), stats.auroc_paired(x)
            out.specificity[block] = mean if name == ALL else mean - stats.mean_diff(rest)
        return out


def cluster_totals(differences: sparse.csc_array, clusters: Sequence[str]) -> sparse.csc_array:
    """`effect_sizes.cluster_totals` of sparse columns, bit for bit: [n_clusters, n_columns]."""
    codes, n = cluster_codes(clusters, differences.shape[0])
    rows = np.arange(len(codes))
    members = sparse.csr_array((np.ones(len(codes)), (codes, rows)), shape=(n, len(codes)))
    # Entries of a column are added in their order, as the dense definition adds rows.
    return sparse.csc_array(members @ differences)


def cluster_means(differences: sparse.csc_array, clusters: Sequence[str]) -> sparse.csc_array:
    """`effect_sizes.cluster_means` of sparse columns, bit for bit: [n_clusters, n_columns]."""
    totals = cluster_totals(differences, clusters)
    codes, n = cluster_codes(clusters, differences.shape[0])
    totals.data = totals.data / np.bincount(codes, minlength=n)[totals.indices]
    return totals


def _rank(
    statistic: Array, effects: Effects, target: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Ranks from 1: latents on target first, then by |t|, then by |specificity|, then by index."""
    order = np.lexsort((-np.abs(effects.specificity), -np.abs(statistic), ~target))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return rank
