"""Calibration: the search, repeated where the truth is known.

Error rates. Each null makes data sets without effect from the activations of the run, and every
one goes through the tests of the search: the same split, filter, units, max-T, BH and confirmation.

    flip_cluster     members change places by a coin for each cluster; judges 'all'
    flip_pair        by a coin for each pair; judges 'all'
    labels_cluster   emotions dealt out anew over clusters, within each part; judges emotions
    labels_pair      over pairs; judges emotions; only where their unit is the pair
    neutral_cluster  neutrals of two topics as pairs, a coin for each two topics; judges both
    neutral_pair     a coin for each pair; judges both
    spread_cluster   the emotion's mean taken from its pairs, then a coin for each cluster; judges
                     both

The sign test over clusters is exact under both flips and 'spread_cluster', and over neutral pairs.
An emotion's test over clusters is exact under the nulls of labels; its test over pairs under
'labels_pair' alone, and under 'labels_cluster' the rate shows by how much p is too small.

An emotion's test exchanges labels, so it asks whether the emotion's differences are distributed
like the others'. Under the neutral nulls and 'spread_cluster' all means are zero but one emotion's
differences may scatter more than another's, and no exchange of labels keeps its level then: those
rates say how far a claim about means may be off (Romano 1990). Neutral pairs differ in topic, which
matched pairs do not, and make half as many clusters.

Power. Effects of known size (`features.planted`) are added to data flipped by cluster, on all
clusters, on fewer, and on fewer pairs a cluster; for one emotion's pairs, drawn at random, on the
whole design alone. With `n_permutations` below that of the search,
q has a coarser floor and BH finds less than the search would.

Every data set has a key of its own (seed, kind, number), so none depends on threads or order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy.typing as npt
import pandas as pd
from scipy import sparse

from affectlens.data.progress import track
from affectlens.features.calibration_columns import POWER_COLUMNS
from affectlens.features.calibration_sets import Job
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL
from affectlens.features.design import PairDesign
from affectlens.features.null_rates import NULLS, judged, not_allowed, rates_under
from affectlens.features.pair_data import PairData, as_sparse
from affectlens.features.permutation import StatisticsError
from affectlens.features.power_curves import (
    EMOTION,
    curve_sizes,
    detectable_effects,
    power_curve,
)
from affectlens.features.results import write_table
from affectlens.features.validation_config import CalibrationConfig
from affectlens.features.validation_records import CalibrationSummary
from affectlens.features.validation_views import CalibrationViews


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(CalibrationViews):
    """What `calibrate` measured.

    Attributes:
        rates: errors under each null (`RATES_COLUMNS`).
        power: recall and FDR with planted effects (`POWER_COLUMNS`).
        detectable: smallest d_z found with power .8 (`DETECTABLE_COLUMNS`).
        summary: settings and counts; `outside` names 'null contrast measure'.
    """

    rates: pd.DataFrame = field(repr=False)
    power: pd.DataFrame = field(repr=False)
    detectable: pd.DataFrame = field(repr=False)
    summary: CalibrationSummary

    def write(self, run: Path) -> Path:
        """Write `calibration/*` of a run folder, the summary last; returns its path."""
        write_table(self.rates, run, "calibration/rates")
        write_table(self.power, run, "calibration/power")
        write_table(self.detectable, run, "calibration/detectable")
        return self.summary.write(run)


def calibrate(
    pooled: npt.ArrayLike | sparse.sparray | sparse.spmatrix,
    design: PairDesign,
    search_config: SearchConfig | None = None,
    config: CalibrationConfig | None = None,
    *,
    quiet: bool | None = None,
) -> Calibration:
    """Measure error rates and power of a search on its own activations.

    Args:
        pooled: [n_items, d_sae], dense or sparse; values above zero count as active.
        design: the pairs.
        search_config: settings of the search that is calibrated.
        config: settings of the calibration.
        quiet: see `data.progress.track`.

    Raises:
        StatisticsError: a value is NaN or infinite, or no latent is active in enough texts.
        StimulusError: a cluster with two emotions.
    """
    search_config, config = search_config or SearchConfig(), config or CalibrationConfig()
    job = Job(as_sparse(pooled), design, search_config, config)
    data = PairData.of(job.values, design, search_config)
    if not len(data.tested):
        raise StatisticsError(
            f"no latent is active in {search_config.min_items} discovery texts, so there is "
            "nothing to calibrate; lower min_items or read other tokens"
        )
    skipped = not_allowed(job, data)
    nulls = [null for null in NULLS if null not in skipped]
    curves = [ALL] + ([EMOTION] if "labels_cluster" in nulls else [])
    total = len(nulls) * config.n_repeats
    n_sizes = sum(len(curve_sizes(config, contrast)) for contrast in curves)
    total += n_sizes * len(config.effects) * config.n_planted
    with track(total, "data sets", "calibration", quiet=quiet) as progress:
        rates = pd.concat([rates_under(job, data, null, progress) for null in nulls])
        rates = judged(rates.reset_index(drop=True))
        power = pd.concat([power_curve(job, contrast, progress) for contrast in curves])
        power = power[list(POWER_COLUMNS)].reset_index(drop=True)
    bad = rates[rates["verdict"] == "outside"]
    summary = CalibrationSummary(
        n_pairs=len(design),
        n_clusters=len(set(design.clusters)),
        n_tested=len(data.tested),
        n_latents=min(len(data.tested), config.max_latents),
        n_repeats=config.n_repeats,
        n_planted=config.n_planted,
        n_permutations=config.n_permutations,
        alpha=search_config.alpha,
        unit=search_config.unit,
        unit_emotion=search_config.unit_emotion,
        effects=list(config.effects),
        n_rates=len(rates),
        n_outside=len(bad),
        outside=[
            f"{n} {c} {m}"
            for n, c, m in zip(bad["null"], bad["contrast"], bad["measure"], strict=True)
        ],
        skipped=skipped,
        seed=config.seed,
    )
    return Calibration(rates, power, detectable_effects(power, data, search_config), summary)
