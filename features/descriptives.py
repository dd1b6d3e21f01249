"""What one contrast's own pairs look like in each latent, beside the test that judges them.

The p values here take pairs as independent and are not corrected for the number of latents. They
describe a latent: whether it differs by firing or by strength, and whether a rank test sees what
the permutation test sees. Pairs of a cluster correlate, so these p are too small to claim a latent.

Intervals are for latents that discovery chose and are made from the confirmation part alone: on the
pairs that chose them they would lie too far from zero. That holds over all retained latents. Those
of the confirmed ones alone were picked by the same pairs, and again lie too far from zero
(Benjamini and Yekutieli 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy import sparse

from affectlens.features import stats

Array = npt.NDArray[np.float64]

LEVEL = 0.95
"""Of the intervals."""
RESAMPLES = 2000
MIN_CLUSTERS = 3
"""Below this there is no interval."""
_BLOCK = 2048
"""Latents that are dense at once."""


@dataclass(frozen=True, eq=False)
class Description:
    """Pairs in each latent; arrays are float64 [n_latents].

    Attributes:
        mean_clinical: mean activation over clinical members.
        mean_neutral: the same over neutral members.
        auroc: AUROC of clinical against neutral members, the pairing ignored.
        presence_diff: share of clinical members active minus share of neutral members active.
        presence_p: exact sign test over the pairs in which one member is active.
        magnitude_n: pairs in which both members are active.
        magnitude_diff: mean difference over those; NaN without any.
        wilcoxon_p: signed-rank test.
        icc: intraclass correlation of the differences within clusters; NaN as in `icc`.
    """

    mean_clinical: Array
    mean_neutral: Array
    auroc: Array
    presence_diff: Array
    presence_p: Array
    magnitude_n: Array
    magnitude_diff: Array
    wilcoxon_p: Array
    icc: Array


@dataclass(frozen=True, eq=False)
class EffectIntervals:
    """Studentised cluster-bootstrap intervals; arrays are [n_latents], see `cluster_intervals`."""

    mean_diff_low: Array
    mean_diff_high: Array
    d_z_low: Array
    d_z_high: Array


def describe(
    clinical: sparse.csc_array, neutral: sparse.csc_array, clusters: Sequence[str]
) -> Description:
    """Describe pairs latent by latent, a block of latents at a time.

    Args:
        clinical: activations of the clinical members, [n_pairs, n_latents].
        neutral: of their neutrals, row by row.
        clusters: [n_pairs] cluster of each pair.

    Raises:
        StatisticsError: no pairs, shapes differ, or a value is not finite.
    """
    n_latents = clinical.shape[1]
    out = Description(*np.empty((len(fields(Description)), n_latents)))
    for start in range(0, n_latents, _BLOCK):
        block = slice(start, start + _BLOCK)
        # Columns in one piece: the sums of one then do not depend on its neighbours.
        x, y = (np.asfortranarray(side[:, block].toarray()) for side in (clinical, neutral))
        found = _block(x, y, clusters)
        for f in fields(Description):
            getattr(out, f.name)[block] = getattr(found, f.name)
    return out


def _block(x: Array, y: Array, clusters: Sequence[str]) -> Description:
    d = stats.paired_differences(x, y)
    fires, strength = stats.presence(x, y), stats.magnitude(x, y)
    return Description(
        x.mean(axis=0),
        y.mean(axis=0),
        stats.auroc(x, y),
        fires.difference,
        fires.p,
        strength.n.astype(float),
        strength.mean,
        stats.wilcoxon(d).p,
        stats.icc(d, clusters).value,
    )


def effect_intervals(differences: Array, clusters: Sequence[str], seed: int) -> EffectIntervals:
    """Intervals of the mean difference and of d_z at `LEVEL`.

    Studentised, the method that keeps its level with few clusters; the price are infinite bounds
    where the latent differs in few of them. A latent whose clusters all give the same value has the
    estimate for both bounds.

    Args:
        differences: [n_pairs, n_latents], dense.
        clusters: [n_pairs] cluster of each pair.
        seed: of the resamples.

    Returns:
        Bounds; NaN below three clusters, where resamples hold one cluster or both and bound
        nothing, and for a d_z that is not defined.

    Raises:
        StatisticsError: no pairs, or a value is not finite.
    """
    if len(set(clusters)) < MIN_CLUSTERS:
        return EffectIntervals(*np.full((4, differences.shape[1]), np.nan))
    mean, d_z = (
        stats.cluster_intervals(
            differences, clusters, statistic, "studentised", RESAMPLES, seed, LEVEL
        )
        for statistic in ("mean", "d_z")
    )
    return EffectIntervals(mean.low, mean.high, d_z.low, d_z.high)
