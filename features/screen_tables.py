"""Which latents a screen measures, and the tables it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features.output_score import SCORE_COLUMNS, OutputScores
from affectlens.features.screen_agreement import agreement
from affectlens.features.screen_columns import AGREEMENT_COLUMNS, SCREEN_COLUMNS
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.screen_effects import Estimates
from affectlens.features.search import SearchResult

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Effects = Mapping[str, Mapping[int, float]]
"""Contrast -> latent -> measured effect."""

KINDS = ("ablate", "clamp")
ESTIMATES = {
    "attribution_ablate": "ablate",
    "attribution_neutral": "neutral",
    "attribution_clamp": "clamp",
    "ig_ablate": "ig_ablate",
    "ig_neutral": "ig_neutral",
}
"""Column of the table -> field of `Estimates`."""


@dataclass(frozen=True, eq=False)
class Picks:
    """Latents whose effect is measured: intervention -> contrast -> latents.

    `steep` are those whose clamp raises the readout most for each unit of norm written, by
    estimate; selection by output takes them, so their effect should be known. They are no sample
    for agreement.
    """

    top: Mapping[str, Mapping[str, Index]]
    random: Mapping[str, Mapping[str, Index]]
    steep: Mapping[str, Index]

    def asked(self, kind: str) -> dict[str, list[int]]:
        """Contrast -> latents asked for, rising."""
        found = {}
        for contrast, top in self.top[kind].items():
            own = [top, self.random[kind][contrast]]
            if kind == "clamp":
                own.append(self.steep[contrast])
            found[contrast] = np.unique(np.concatenate(own)).tolist()
        return found

    def union(self, kind: str) -> list[int]:
        """Latents asked for by any contrast, rising."""
        return sorted({f for features in self.asked(kind).values() for f in features})

    def label(self, kind: str, contrast: str, features: Index, effect: Array) -> list[str]:
        """Why each effect was measured; see `verified_ablate` of the table."""
        top = np.isin(features, self.top[kind][contrast])
        drawn = np.isin(features, self.random[kind][contrast])
        words = np.select(
            [top & drawn, top, drawn, np.isfinite(effect)], ["both", "top", "random", "other"], ""
        )
        return [str(w) for w in words]


def pick(estimates: Mapping[str, Estimates], norms: Array, config: ScreenConfig) -> Picks:
    """The largest estimates of each contrast and intervention, and a random sample.

    `norms` [d_sae] is what a clamp writes, 0 for dead latents.

    For clamps the sample is of all live latents and the same for every contrast. For ablations it
    is of those whose estimate is not 0: the others are silent on the texts, and their effect is 0
    by construction.
    """
    rng = np.random.default_rng([config.seed, 1])
    live = norms > 0
    pool = np.flatnonzero(live)
    drawn = np.sort(rng.choice(pool, min(config.n_random, len(pool)), replace=False))
    top: dict[str, dict[str, Index]] = {kind: {} for kind in KINDS}
    random: dict[str, dict[str, Index]] = {kind: {} for kind in KINDS}
    steep: dict[str, Index] = {}
    for contrast, estimate in estimates.items():
        for kind, values in (("ablate", estimate.ablate), ("clamp", estimate.clamp)):
            top[kind][contrast] = _largest(values, live, config.n_top)
        active = np.flatnonzero(live & (np.nan_to_num(estimate.ablate) != 0))
        n = min(config.n_random, len(active))
        random["ablate"][contrast] = np.sort(rng.choice(active, n, replace=False))
        random["clamp"][contrast] = drawn
        rate = np.divide(estimate.clamp, norms, out=np.zeros_like(norms), where=live)
        steep[contrast] = _largest(np.maximum(rate, 0), live, config.n_top)
    return Picks(top, random, steep)


def contrast_rows(
    contrast: str,
    estimate: Estimates,
    exact: Mapping[str, Effects],
    picks: Picks,
    found: SearchResult,
    scores: OutputScores,
    inputs: Mapping[int, float],
    norms: Array,
    config: ScreenConfig,
) -> pd.DataFrame:
    """Rows of one contrast (`SCREEN_COLUMNS`).

    Args:
        contrast: its name.
        estimate: estimates for all latents.
        exact: intervention -> measured effects.
        picks: what was to be measured.
        found: the search.
        scores: output scores.
        inputs: latent -> input score.
        norms: [d_sae], what a clamp writes; 0 for dead latents.
        config: settings.
    """
    tested = found.table[found.table["contrast"] == contrast].set_index("feature")
    retained = tested.index[tested["retained"]].to_numpy(dtype=np.int64)
    live = norms > 0
    values = {name: getattr(estimate, attribute) for name, attribute in ESTIMATES.items()}
    kept = [_largest(v, live, config.max_latents) for v in values.values() if v is not None]
    measured = [np.array(list(exact[kind][contrast]), dtype=np.int64) for kind in KINDS]
    scored = scores.table["feature"].to_numpy(dtype=np.int64)
    features = np.unique(np.concatenate([*kept, *measured, scored, retained]))
    rows = pd.DataFrame({"contrast": contrast, "feature": features})
    for name, v in values.items():
        rows[name] = np.nan if v is None else v[features]
    for kind in KINDS:
        effect = rows["feature"].map(exact[kind][contrast]).to_numpy(dtype=float)
        rows[f"exact_{kind}"] = effect
        rows[f"verified_{kind}"] = picks.label(kind, contrast, features, effect)
    rows["clamp_norm"] = norms[features]
    rows["clamp_per_norm"] = _clamps(rows) / rows["clamp_norm"].where(rows["clamp_norm"] > 0)
    rows = rows.join(scores.table.set_index("feature")[list(SCORE_COLUMNS)], on="feature")
    rows["input_score"] = rows["feature"].map(inputs).astype(float)
    rows["input_rank"] = rows["feature"].map(tested["rank"]).astype(float)
    rows["d_z"] = rows["feature"].map(tested["d_z"]).astype(float)
    rows["candidate"] = np.isin(features, retained)
    return rows[list(SCREEN_COLUMNS)]


def _clamps(rows: pd.DataFrame) -> pd.Series[float]:
    """Effects of clamps: measured, else estimated and shrunk as far as estimates were too large.

    Estimates of large steps tend to be too large, and the largest the more so: unshrunk, a latent
    that was not measured would stand above those that were.
    """
    known = rows[rows["exact_clamp"].notna() & rows["attribution_clamp"].notna()]
    squares = float((known["attribution_clamp"] ** 2).sum())
    shared = float((known["attribution_clamp"] * known["exact_clamp"]).sum())
    slope = min(max(shared / squares, 0.0), 1.0) if squares > 0 else 1.0
    return rows["exact_clamp"].fillna(slope * rows["attribution_clamp"])


def agreement_table(table: pd.DataFrame, config: ScreenConfig) -> pd.DataFrame:
    """Estimates against measurements for each contrast, kind and sample (`AGREEMENT_COLUMNS`).

    Clamps have no integrated row: their path would clamp all latents together.
    """
    estimators = [("ablate", "gradient", "attribution_ablate")]
    if config.n_steps:
        estimators.append(("ablate", "integrated", "ig_ablate"))
    estimators.append(("clamp", "gradient", "attribution_clamp"))
    rows = []
    for contrast, own in table.groupby("contrast", sort=False):
        for kind, estimator, column in estimators:
            for sample in ("top", "random"):
                some = own[own[f"verified_{kind}"].isin((sample, "both"))]
                some = some[some[f"exact_{kind}"].notna()]
                found = agreement(
                    some[column].to_numpy(dtype=float),
                    some[f"exact_{kind}"].to_numpy(dtype=float),
                    n_bootstrap=config.n_bootstrap,
                    seed=config.seed,
                )
                head = (contrast, kind, estimator, sample)
                rows.append(
                    dict(
                        zip(("contrast", "intervention", "estimator", "sample"), head, strict=True)
                    )
                    | found
                )
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def completeness(estimate: Estimates, joint: float | None) -> dict[str, float | None]:
    """The effect of ablating all latents at once beside the sums of its estimates."""
    integrated = estimate.ig_ablate
    return {
        "joint": joint,
        "gradient": float(estimate.ablate.sum()) if joint is not None else None,
        "integrated": float(integrated.sum())
        if joint is not None and integrated is not None
        else None,
    }


def _largest(values: Array, live: npt.NDArray[np.bool_], n: int) -> Index:
    """The `n` live latents of largest absolute value above 0, rising."""
    size = np.where(live & np.isfinite(values), np.abs(values), 0.0)
    n = min(n, int(np.count_nonzero(size)))
    if not n:
        return np.empty(0, dtype=np.int64)
    # Ties are broken by index, so that the same screen always keeps the same latents.
    order = np.argsort(-size, kind="stable")[:n]
    return np.sort(order).astype(np.int64)
