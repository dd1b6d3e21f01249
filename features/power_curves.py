"""Recall and FDR of a search by planted effect and size of the design."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.progress import Progress
from affectlens.features import null_data, stats
from affectlens.features.calibration_columns import DETECTABLE_COLUMNS, POWER_COLUMNS
from affectlens.features.calibration_sets import Job
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, Contrast, run_contrasts
from affectlens.features.detectable import detectable_over_all
from affectlens.features.inversion import binomial_limits
from affectlens.features.pair_data import PairData
from affectlens.features.planted import Planted, plant
from affectlens.features.validation_config import CalibrationConfig

EMOTION = "emotion"
TARGET_POWER = 0.8
_KIND = 100
"""Keys of these data sets start here, above those of the nulls."""
_CRITERIA = ("fwer", "bh", "confirmed")


@dataclass(frozen=True, eq=False)
class _Size:
    """How much of the design a power curve is measured on."""

    share: float = 1.0
    per_cluster: int | None = None


def curve_sizes(config: CalibrationConfig, contrast: str) -> list[_Size]:
    """The whole design; for 'all' also fewer clusters, and fewer pairs a cluster."""
    if contrast != ALL:
        return [_Size()]
    shares = [_Size(share=s) for s in sorted(set(config.cluster_shares))]
    return [
        _Size(),
        *shares,
        *(_Size(per_cluster=n) for n in sorted(set(config.pairs_per_cluster))),
    ]


def power_curve(job: Job, contrast: str, progress: Progress) -> pd.DataFrame:
    """Power of one contrast, at every effect and size (`POWER_COLUMNS`)."""
    frames = []
    for s, size in enumerate(curve_sizes(job.config, contrast)):
        for e, effect in enumerate(job.config.effects):
            kind = _KIND + (contrast != ALL)
            found = []
            for number in range(job.config.n_planted):
                found.append(_planted(job, contrast, size, effect, job.rng(kind, s, e, number)))
                progress.update()
            frames.append(_power_rows(contrast, effect, pd.DataFrame(found)))
    return pd.concat(frames, ignore_index=True)


def _planted(
    job: Job, contrast: str, size: _Size, effect: float, rng: np.random.Generator
) -> dict[str, float]:
    """One data set with a planted effect, searched; empty if nothing could be planted."""
    design = null_data.subsampled(job.design, size.share, size.per_cluster, rng)
    data = PairData.of(job.values, design, job.search)
    members = data.drawn(job.config.max_latents, rng)
    target = ALL if contrast == ALL else str(rng.choice(sorted(set(design.emotions))))
    emotions = np.asarray(design.emotions, dtype=object)
    own = np.arange(len(design)) if contrast == ALL else np.flatnonzero(emotions == target)
    swap = null_data.swaps(data.design, "cluster", rng)
    made = plant(members, own, effect, job.config.n_features, rng, swap)
    found = run_contrasts(made.members.differences, data.labels(target), data.parts, job.tests(rng))
    judged = [c for c in found if c.name == target]
    if not judged or not len(made.latents):
        return {}
    rows = judged[0].rows
    names = np.asarray(design.clusters, dtype=object)
    return {
        "n_pairs": len(own),
        "n_clusters": len(set(names[own])),
        "n_pairs_discovery": len(rows),
        "n_clusters_discovery": len(set(names[rows])),
        "n_latents": len(judged[0].p),
        "n_planted": len(made.latents),
        "reached_d_z": _mean(stats.d_z(made.members.differences[np.ix_(rows, made.latents)])),
        **_score(judged[0], made, job.search.alpha),
    }


def _score(contrast: Contrast, made: Planted, alpha: float) -> dict[str, float]:
    """Recall (on the planted side) and share of false ones at each criterion."""
    true = np.zeros(len(contrast.p), dtype=bool)
    true[made.latents] = True
    rising = contrast.discovery.specificity > 0
    found = {
        "fwer": contrast.p_fwer <= alpha,
        "bh": stats.bh(contrast.p) <= alpha,
        "confirmed": contrast.confirmed(alpha),
    }
    scores: dict[str, float] = {}
    for name, at in found.items():
        scores[f"recall_{name}"] = float((at & rising & true).sum() / max(true.sum(), 1))
        scores[f"fdr_{name}"] = float((at & ~true).sum() / max(at.sum(), 1))
    return scores


def _power_rows(contrast: str, effect: float, found: pd.DataFrame) -> pd.DataFrame:
    found = found.dropna(how="all")
    if not len(found):
        return pd.DataFrame(columns=list(POWER_COLUMNS))
    measures = [f"{kind}_{name}" for name in _CRITERIA for kind in ("recall", "fdr")]
    shared = {c: float(found[c].mean()) for c in found.columns if c not in measures}
    rows = []
    for measure in measures:
        limits = binomial_limits(float(found[measure].sum()), len(found))
        rows.append(
            {
                "contrast": contrast,
                "d_z": effect,
                "n_sets": len(found),
                **shared,
                "measure": measure,
                "value": float(found[measure].mean()),
                "low": limits.low,
                "high": limits.high,
            }
        )
    return pd.DataFrame(rows, columns=list(POWER_COLUMNS))


def detectable_effects(power: pd.DataFrame, data: PairData, config: SearchConfig) -> pd.DataFrame:
    """Smallest effects found with power .8 (`DETECTABLE_COLUMNS`)."""
    sample = data.drawn(1000, np.random.default_rng(0))
    icc = stats.icc(sample.differences, data.design.clusters).value
    middle = float(np.median(icc[np.isfinite(icc)])) if np.isfinite(icc).any() else float("nan")
    rows = []
    keys = ["contrast", "n_pairs", "n_clusters"]
    for (contrast, _, _), curve in power.groupby(keys, sort=False):
        pairs, clusters = (float(curve[f"n_{u}_discovery"].mean()) for u in ("pairs", "clusters"))
        m = max(round(float(curve["n_latents"].mean())), 1)
        for name in _CRITERIA:
            # Sizes that a small design does not tell apart are averaged.
            own = curve[curve["measure"] == f"recall_{name}"].groupby("d_z")["value"].mean()
            with_formula = contrast == ALL and name == "fwer"
            rows.append(
                {
                    "contrast": contrast,
                    "n_pairs_discovery": pairs,
                    "n_clusters_discovery": clusters,
                    "criterion": name,
                    "detectable": crossing(own.index.to_numpy(), own.to_numpy()),
                    "formula": _formula(pairs, clusters, middle, m, config)
                    if with_formula
                    else float("nan"),
                    "icc": middle if with_formula else float("nan"),
                }
            )
    return pd.DataFrame(rows, columns=list(DETECTABLE_COLUMNS))


def crossing(effects: npt.ArrayLike, recall: npt.ArrayLike, power: float = TARGET_POWER) -> float:
    """First effect at which recall reaches `power`, by straight lines from (0, 0); else infinite.

    Args:
        effects: [n] rising.
        recall: [n] at those effects.
        power: what is to be reached.
    """
    x = np.concatenate([[0.0], np.asarray(effects, dtype=float)])
    y = np.concatenate([[0.0], np.asarray(recall, dtype=float)])
    reached = np.flatnonzero(y >= power)
    if not len(reached):
        return float("inf")
    i = int(reached[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (power - y[i - 1]) / (y[i] - y[i - 1]))


def _formula(pairs: float, clusters: float, icc: float, m: int, config: SearchConfig) -> float:
    n_pairs, n_clusters = round(pairs), round(clusters)
    known = float(np.nan_to_num(icc))
    return detectable_over_all(n_pairs, n_clusters, known, m, config, TARGET_POWER)


def _mean(values: npt.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
