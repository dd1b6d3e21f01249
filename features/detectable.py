"""The smallest effect that each contrast of a search finds with power .8, before it is looked at.

Effects are d_z: standard deviations of single pair differences. Where clusters are the units, what
is tested varies less than single pairs, by how much says the intraclass correlation that is seen in
the data. All follow from two-sided t tests, Bonferroni-corrected over the whole family of a search
(`power`); step-down max-T within a contrast finds somewhat smaller effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, Contrast
from affectlens.features.design import PairDesign

NOT_DETECTABLE = 1000.0
"""Stands in the summary, which holds finite numbers, for 'no effect, however large'."""


def mean_icc(values: npt.ArrayLike) -> float | None:
    """Mean intraclass correlation over the latents in which it is defined; None without any.

    That of one latent is too noisy to plan with.
    """
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    return float(found.mean()) if len(found) else None


def detectable_by_contrast(
    contrasts: Sequence[Contrast],
    design: PairDesign,
    icc: float | None,
    n_tests: int,
    config: SearchConfig,
) -> dict[str, float]:
    """Contrast -> smallest d_z found with power .8 in the discovery part.

    For an emotion it is the difference of its pairs from all others. `NOT_DETECTABLE` where no
    effect is found, because units are too few for the level or no latent is tested.

    Args:
        contrasts: of the search, 'all' first.
        design: the pairs.
        icc: intraclass correlation of pair differences within clusters. Without one (single pairs
            as clusters, one cluster) it is taken as 1, so that pairs add nothing to clusters.
        n_tests: latents times contrasts.
        config: settings of the tests.
    """
    clusters = np.asarray(design.clusters, dtype=object)
    inside = contrasts[0].rows
    if n_tests < 1:
        return dict.fromkeys((c.name for c in contrasts), NOT_DETECTABLE)
    found = {}
    for c in contrasts:
        rest = np.setdiff1d(inside, c.rows)
        own = _Counts(len(c.rows), len(set(clusters[c.rows])))
        others = _Counts(len(rest), len(set(clusters[rest])))
        if c.name == ALL:
            effect = detectable_over_all(own.pairs, own.clusters, icc, n_tests, config)
        else:
            effect = _of_emotion(own, others, icc, n_tests, config)
        reachable = np.isfinite(effect) and c.min_p <= config.alpha
        found[c.name] = min(effect, NOT_DETECTABLE) if reachable else NOT_DETECTABLE
    return found


@dataclass(frozen=True)
class _Counts:
    pairs: int
    clusters: int


def detectable_over_all(
    n_pairs: int,
    n_clusters: int,
    icc: float | None,
    n_tests: int,
    config: SearchConfig,
    power: float = 0.8,
) -> float:
    """Smallest d_z that the test of 'all' finds with `power`; NaN for fewer than two units.

    Args:
        n_pairs: pairs of the contrast.
        n_clusters: clusters they lie in.
        icc: as in `detectable_by_contrast`; cut to what clusters of this size allow.
        n_tests: tests of the family.
        config: unit and level.
        power: wanted power.
    """
    if config.unit == "pair":
        return stats.min_detectable_d_z(n_pairs, n_tests, config.alpha, power)
    agreed = _possible(icc, n_pairs / n_clusters)
    return stats.detectable_with_clusters(n_pairs, n_clusters, agreed, n_tests, config.alpha, power)


def _of_emotion(
    own: _Counts, others: _Counts, icc: float | None, n_tests: int, config: SearchConfig
) -> float:
    if config.unit_emotion == "pair":
        return stats.min_detectable_between(own.pairs, others.pairs, n_tests, config.alpha)
    units = stats.min_detectable_between(own.clusters, others.clusters, n_tests, config.alpha)
    size = (own.pairs + others.pairs) / (own.clusters + others.clusters)
    # Cluster means vary by this share of the variance of single pairs.
    share = float(stats.design_effect(_possible(icc, size), [size])) / size
    return units * float(np.sqrt(max(share, 0.0))) if np.isfinite(units) else units


def _possible(icc: float | None, size: float) -> float:
    """Within the values that clusters of this many pairs allow."""
    lowest = max(stats.lowest_icc(size), -1.0)
    return 1.0 if icc is None else float(np.clip(icc, lowest, 1.0))
