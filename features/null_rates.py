"""Error rates of a search on data sets without effect."""

from __future__ import annotations

import numpy as np
import pandas as pd

from affectlens.data.errors import StimulusError
from affectlens.data.progress import Progress
from affectlens.features import null_data, stats
from affectlens.features.calibration_columns import RATES_COLUMNS
from affectlens.features.calibration_sets import Job, run_tests
from affectlens.features.contrasts import ALL, Contrast
from affectlens.features.inversion import binomial_limits
from affectlens.features.null_data import By
from affectlens.features.pair_data import PairData

NULLS = (
    "flip_cluster",
    "flip_pair",
    "labels_cluster",
    "labels_pair",
    "neutral_cluster",
    "neutral_pair",
)
"""What they are is said in `features.calibration`."""
FAMILY = "family"


def not_allowed(job: Job, data: PairData) -> dict[str, str]:
    """Nulls that the design or the settings do not allow, with the reason."""
    reasons: dict[str, str] = {}
    rows = data.design.rows(data.parts, "discovery")
    if len({data.design.emotions[i] for i in rows}) < 2:
        reasons |= dict.fromkeys(("labels_cluster", "labels_pair"), "a single emotion")
    elif job.search.unit_emotion == "cluster":
        reasons["labels_pair"] = "clusters change emotion as a whole in this search"
    try:
        null_data.neutral_pairs(job.design, "cluster", job.rng(0))
    except StimulusError as error:
        reasons |= dict.fromkeys(("neutral_cluster", "neutral_pair"), str(error))
    return reasons


def rates_under(job: Job, data: PairData, null: str, progress: Progress) -> pd.DataFrame:
    """Rates of one null (`RATES_COLUMNS`)."""
    alpha = job.search.alpha
    seen: dict[tuple[str, str], list[float]] = {}
    n_latents: list[int] = []
    for number in range(job.config.n_repeats):
        contrasts = _judged(job, data, null, job.rng(NULLS.index(null), number))
        progress.update()
        if not contrasts:
            continue
        n_latents.append(len(contrasts[0].p))
        for c in contrasts:
            seen.setdefault((c.name, "fwer"), []).append(bool((c.p_fwer <= alpha).any()))
            seen.setdefault((c.name, "per_test"), []).append(float((c.p <= alpha).mean()))
            seen.setdefault((c.name, "confirmed"), []).append(bool(c.confirmed(alpha).any()))
        q = stats.bh(np.concatenate([c.p for c in contrasts]))
        seen.setdefault((FAMILY, "bh"), []).append(bool((q <= alpha).any()))
    rows = []
    for (contrast, measure), values in seen.items():
        limits = binomial_limits(float(np.sum(values)), len(values))
        rows.append(
            {
                "null": null,
                "contrast": contrast,
                "measure": measure,
                "n_sets": len(values),
                "n_latents": float(np.mean(n_latents)),
                "rate": float(np.mean(values)),
                "low": limits.low,
                "high": limits.high,
                "allowed": alpha,
                "verdict": "outside" if limits.low > alpha else "inside",
            }
        )
    return pd.DataFrame(rows, columns=list(RATES_COLUMNS))


def _judged(job: Job, data: PairData, null: str, rng: np.random.Generator) -> tuple[Contrast, ...]:
    """The contrasts of one data set that are null in it; none if no latent is left to test."""
    kind, by = _kind(null)
    if kind == "neutral":
        data = PairData.of(job.values, null_data.neutral_pairs(job.design, by, rng), job.search)
    if not len(data.tested):
        return ()
    members = data.drawn(job.config.max_latents, rng)
    design = data.design
    if kind == "flip":
        members = members.swapped(null_data.swaps(design, by, rng))
        design = data.labels(ALL)
    elif kind == "labels":
        design = null_data.relabelled(data, by, rng)
    found = run_tests(members, design, data, job.tests(rng))
    return tuple(c for c in found if kind != "labels" or c.name != ALL)


def _kind(null: str) -> tuple[str, By]:
    kind, by = null.split("_")
    return kind, ("cluster" if by == "cluster" else "pair")
