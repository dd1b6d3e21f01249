"""Error rates of a search on data sets without effect."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from affectlens.data.errors import StimulusError
from affectlens.data.progress import Progress
from affectlens.features import null_data, stats
from affectlens.features.calibration_columns import RATES_COLUMNS
from affectlens.features.calibration_sets import Job
from affectlens.features.contrasts import ALL, Contrast, run_contrasts
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
    "spread_cluster",
)
"""What they are is said in `features.calibration`."""
FAMILY = "family"
_JUDGED = ("p_excess", "verdict")


def not_allowed(job: Job, data: PairData) -> dict[str, str]:
    """Nulls that the design or the settings do not allow, with the reason."""
    reasons: dict[str, str] = {}
    rows = data.design.rows(data.parts, "discovery")
    if len({data.design.emotions[i] for i in rows}) < 2:
        of_emotions = ("labels_cluster", "labels_pair", "spread_cluster")
        reasons |= dict.fromkeys(of_emotions, "a single emotion")
    elif job.search.unit_emotion == "cluster":
        reasons["labels_pair"] = "clusters change emotion as a whole in this search"
    try:
        null_data.neutral_pairs(job.design, "cluster", job.rng(0))
    except StimulusError as error:
        reasons |= dict.fromkeys(("neutral_cluster", "neutral_pair"), str(error))
    return reasons


def rates_under(job: Job, data: PairData, null: str, progress: Progress) -> pd.DataFrame:
    """Rates of one null (`RATES_COLUMNS`; the verdict is left to `judged`)."""
    alpha = job.search.alpha
    seen: dict[tuple[str, str], list[float]] = {}
    n_latents: list[int] = []
    n_contrasts = 1
    for number in range(job.config.n_repeats):
        contrasts = _contrasts(job, data, null, job.rng(NULLS.index(null), number))
        progress.update()
        if not contrasts:
            continue
        n_latents.append(len(contrasts[0].p))
        n_contrasts = max(n_contrasts, len(contrasts))
        for key, value in _events(contrasts, alpha).items():
            seen.setdefault(key, []).append(value)
    rows = []
    for (contrast, measure), values in seen.items():
        whole_family = contrast == FAMILY and measure != "bh"
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
                "allowed": min(1.0, n_contrasts * alpha) if whole_family else alpha,
            }
        )
    return pd.DataFrame(rows, columns=[c for c in RATES_COLUMNS if c not in _JUDGED])


def _events(contrasts: tuple[Contrast, ...], alpha: float) -> dict[tuple[str, str], float]:
    """What one data set adds to each rate."""
    seen: dict[tuple[str, str], float] = {}
    for c in contrasts:
        seen[c.name, "fwer"] = bool((c.p_fwer <= alpha).any())
        seen[c.name, "per_test"] = float((c.p <= alpha).mean())
        seen[c.name, "confirmed"] = bool(c.confirmed(alpha).any())
    if len(contrasts) > 1:
        for measure in ("fwer", "confirmed"):
            seen[FAMILY, measure] = any(seen[c.name, measure] for c in contrasts)
    q = stats.bh(np.concatenate([c.p for c in contrasts]))
    seen[FAMILY, "bh"] = bool((q <= alpha).any())
    return seen


def judged(rates: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """Rates of all nulls with 'p_excess' and 'verdict' (`RATES_COLUMNS`).

    So many rates are judged at once that one limit of 95% in forty lies above the truth by chance;
    so the verdict is Holm's over all rows, and the limits are for the eye.

    Args:
        rates: rows of `rates_under`.
        level: chance that any verdict is 'outside' where every rate is as allowed.
    """
    n, allowed = rates["n_sets"].to_numpy(), rates["allowed"].to_numpy()
    events = rates["rate"].to_numpy() * n
    # P(X >= k) of a binomial; continuous in k, so that sums of shares have one too.
    tail = scipy_stats.beta.cdf(allowed, np.maximum(events, 1e-9), n - events + 1)
    p = np.where(events > 0, tail, 1.0)
    verdict = np.where(stats.holm(p) <= level, "outside", "inside")
    return rates.assign(p_excess=p, verdict=verdict)[list(RATES_COLUMNS)]


def _contrasts(
    job: Job, data: PairData, null: str, rng: np.random.Generator
) -> tuple[Contrast, ...]:
    """The contrasts of one data set that are null in it; none if no latent is left to test."""
    kind, by = _kind(null)
    if kind == "neutral":
        data = PairData.of(job.values, null_data.neutral_pairs(job.design, by, rng), job.search)
    if not len(data.tested):
        return ()
    members = data.drawn(job.config.max_latents, rng)
    design, differences = data.design, members.differences
    if kind in ("flip", "spread"):
        swap = null_data.swaps(design, by, rng)
        if kind == "spread":
            differences = null_data.centred(differences, design.emotions)
        else:
            design = data.labels(ALL)
        differences = np.where(swap[:, None], -differences, differences)
    elif kind == "labels":
        design = null_data.relabelled(data, by, rng)
    found = run_contrasts(differences, design, data.parts, job.tests(rng))
    return tuple(c for c in found if kind != "labels" or c.name != ALL)


def _kind(null: str) -> tuple[str, By]:
    kind, by = null.split("_")
    return kind, ("cluster" if by == "cluster" else "pair")
