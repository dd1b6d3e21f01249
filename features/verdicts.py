"""Do the chosen features beat their matched random controls? One verdict an emotion and
intervention.

The unit of inference is the emotion x domain cluster. Per text the advantage is the effect of the
chosen set minus the mean effect of the random sets, signed so that positive is the side predicted
beforehand (ablation lowers the readout, a clamp raises it). The p is a one-sided sign flip over
clusters, enumerated where possible, Holm-adjusted over the emotions within an intervention. A
verdict also asks that the chosen set is stronger than every random set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features.columns import VERDICT_COLUMNS
from affectlens.features.stats import cluster_bootstrap, cluster_totals, holm, sign_flip


@dataclass(frozen=True)
class Comparison:
    """The chosen set's and the random sets' effects on the same texts.

    Attributes:
        emotion: readout measured.
        intervention: which.
        chosen: [n_texts] effect in nats.
        random: [n_sets, n_texts] effects of the matched random sets.
        clusters: cluster of each text.
    """

    emotion: str
    intervention: str
    chosen: npt.NDArray[np.float64]
    random: npt.NDArray[np.float64]
    clusters: tuple[str, ...]


def predicted_sign(intervention: str) -> int:
    """+1 where the intervention should raise the readout, -1 where it should lower it."""
    return -1 if intervention.startswith("ablate") else 1


def verdict_table(
    comparisons: Sequence[Comparison],
    *,
    alpha: float,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """One row a comparison with the columns `VERDICT_COLUMNS`."""
    rows = []
    for c in comparisons:
        sign = predicted_sign(c.intervention)
        advantage = sign * (c.chosen - c.random.mean(0))
        interval = cluster_bootstrap(advantage, c.clusters, n_bootstrap, seed)
        totals = cluster_totals(advantage, c.clusters)
        flip = sign_flip(totals, n_permutations, seed, alternative="greater")
        sets = c.random.mean(1)
        effect = float(c.chosen.mean())
        stronger = int(np.sum(sign * sets >= sign * effect))
        rows.append(
            {
                "emotion": c.emotion,
                "intervention": c.intervention,
                "direction": "raise" if sign > 0 else "lower",
                "effect": effect,
                "random_mean": float(sets.mean()),
                "random_low": float(sets.min()),
                "random_high": float(sets.max()),
                "n_random": len(sets),
                "advantage": float(advantage.mean()),
                "advantage_low": interval.low,
                "advantage_high": interval.high,
                "rank_p": (1 + stronger) / (1 + len(sets)),
                "p": float(flip.p[0]),
                "p_holm": float("nan"),
                "beats_random": False,
                "n_items": len(advantage),
                "n_clusters": len(set(c.clusters)),
            }
        )
    table = pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
    for _, group in table.groupby("intervention"):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy())
    strongest = table["rank_p"] <= 1 / (1 + table["n_random"])
    table["beats_random"] = (table["p_holm"] <= alpha) & strongest
    return table
