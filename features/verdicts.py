"""Do the chosen features beat their controls? One verdict for each emotion and intervention.

The unit of inference is the emotion x domain cluster. Per text the advantage is the effect of the
chosen set minus the mean effect of the random sets, signed so that positive is the side predicted
beforehand (an ablation lowers the readout, a clamp raises it). The p is a one-sided sign flip over
clusters, enumerated where possible. It is adjusted (Holm) over the emotions within an intervention
and, as `p_family`, over every emotion, intervention and dose of the run. That p is about the texts:
latents that do what any latents do pass it in two of five cases, since the mean of a few random
sets is not theirs. A verdict therefore also asks that the chosen set is stronger than every random
set. Exchangeable latents pass that in 1 of 1 + n_random cases each, which is not corrected over
emotions; `chance.wins_by_chance` says how many wins that would be. Against all controls a set must
be stronger than each direction, shuffled selection and set of neurons as well.

Of several doses one is reported. It is chosen on other texts, so its p needs no correction for the
choice; `p_family` counts the others all the same. Random sets have not chosen a dose, so each is
held at its best. The slope over all doses needs no choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features.cluster_t import cluster_mean
from affectlens.features.effect_columns import DOSE_COLUMNS, VERDICT_COLUMNS
from affectlens.features.stats import (
    SignFlip,
    cluster_totals,
    holm,
    sign_flip,
)

Array = npt.NDArray[np.float64]

PROMPTS = ("prompt", "prompt_neutral")
"""Arms that edit the text and not the stream."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The chosen set's and its controls' effects on the same texts, at one dose.

    Attributes:
        emotion: readout measured.
        intervention: which.
        chosen: [n_texts] effect in nats.
        random: [n_sets, n_texts] effects of the matched random sets.
        clusters: cluster of each text.
        strength: dose; below 0 (for 'scale' below 1) the readout should fall.
        reported: the dose that the verdict is about.
        others: mean effects of the other control arms (one for each of their sets).
        kl: mean KL of the chosen edit at the readout.
        discovery_effect: effect on discovery texts, from which the dose was chosen.
    """

    emotion: str
    intervention: str
    chosen: Array
    random: Array
    clusters: tuple[str, ...]
    strength: float = 1.0
    reported: bool = True
    others: Mapping[str, Sequence[float]] = field(default_factory=dict)
    kl: float = float("nan")
    discovery_effect: float = float("nan")

    @property
    def sign(self) -> int:
        """+1 where the edit should raise the readout, -1 where it should lower it."""
        return predicted_sign(self.intervention, self.strength)

    @property
    def advantage(self) -> Array:
        """[n_texts] chosen minus mean random, positive on the predicted side."""
        return self.sign * (self.chosen - self.random.mean(0))


def lowers(intervention: str) -> bool:
    """Whether an intervention takes something away, so that it is tried on emotional texts."""
    return intervention.startswith("ablate") or intervention == "project_out"


def predicted_sign(intervention: str, strength: float = 1.0) -> int:
    """+1 where the intervention should raise the readout, -1 where it should lower it."""
    if lowers(intervention):
        return -1
    return -1 if strength < (1.0 if intervention == "scale" else 0.0) else 1


def verdict_table(
    comparisons: Sequence[Comparison],
    *,
    alpha: float,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """One row for each reported comparison, with the columns `VERDICT_COLUMNS`."""
    tests = _tests(comparisons, n_permutations, seed)
    rows = [
        {
            **_verdict(c, comparisons),
            **_strongest(c),
            **_slope(c, comparisons),
            **test,
        }
        for c, test in zip(comparisons, tests, strict=True)
        if c.reported
    ]
    table = pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
    for _, group in table.groupby("intervention"):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy(dtype=float))
    strongest = table["rank_p"] <= 1 / (1 + table["n_random"])
    table["beats_random"] = ((table["p_holm"] <= alpha) & strongest).astype(bool)
    table["beats_controls"] = (table["beats_random"] & table["beats_controls"]).astype(bool)
    return table


def dose_table(
    comparisons: Sequence[Comparison], *, n_permutations: int, seed: int
) -> pd.DataFrame:
    """One row for each comparison at a dose, with the columns `DOSE_COLUMNS`.

    Comparisons of interventions without a strength are left out, but count in `p_family`.
    """
    tests = _tests(comparisons, n_permutations, seed)
    rows = [
        {
            "emotion": c.emotion,
            "intervention": c.intervention,
            "strength": c.strength,
            "discovery_effect": c.discovery_effect,
            "effect": float(c.chosen.mean()),
            "random_mean": float(c.random.mean()),
            "advantage": float(c.advantage.mean()),
            "kl": c.kl,
            "p": test["p"],
            "p_family": test["p_family"],
            "reported": c.reported,
        }
        for c, test in zip(comparisons, tests, strict=True)
        if not lowers(c.intervention) and c.intervention != "patch_clinical"
    ]
    return pd.DataFrame(rows, columns=list(DOSE_COLUMNS))


def _tests(
    comparisons: Sequence[Comparison], n_permutations: int, seed: int
) -> list[dict[str, float]]:
    """p of every comparison, adjusted over all of them, and the smallest that it can be."""
    found = [cluster_p(c.advantage, c.clusters, n_permutations, seed) for c in comparisons]
    family = holm([p for p, _ in found])
    return [
        {"p": p, "min_p": least, "p_family": float(adjusted)}
        for (p, least), adjusted in zip(found, family, strict=True)
    ]


def cluster_p(
    values: Array, clusters: Sequence[str], n_permutations: int, seed: int
) -> tuple[float, float]:
    """One-sided sign-flip p (means above 0) over cluster totals, and the smallest possible one."""
    flip = sign_flip(cluster_totals(values, clusters), n_permutations, seed, alternative="greater")
    return float(flip.p[0]), least_p(flip)


def least_p(flip: SignFlip) -> float:
    """Smallest p of a one-sided flip: of all sign patterns a single one is the most extreme."""
    return 2.0**-flip.n_units if flip.exact else 1 / (1 + flip.n_permutations)


def _verdict(c: Comparison, comparisons: Sequence[Comparison]) -> dict[str, object]:
    advantage, sets, effect = c.advantage, c.random.mean(1), float(c.chosen.mean())
    best = np.max([d.sign * d.random.mean(1) for d in _doses(c, comparisons)], axis=0)
    interval = cluster_mean(advantage, c.clusters)
    stronger = int(np.sum(best >= c.sign * effect))
    return {
        "emotion": c.emotion,
        "intervention": c.intervention,
        "direction": "raise" if c.sign > 0 else "lower",
        "strength": c.strength,
        "effect": effect,
        "random_mean": float(sets.mean()),
        "random_low": float(sets.min()),
        "random_high": float(sets.max()),
        "n_random": len(sets),
        "advantage": float(advantage.mean()),
        "advantage_low": interval.low,
        "advantage_high": interval.high,
        "rank_p": (1 + stronger) / (1 + len(sets)),
        "p_holm": float("nan"),
        "n_items": len(advantage),
        "n_clusters": len(set(c.clusters)),
    }


def _doses(c: Comparison, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one emotion and intervention, itself included."""
    return [d for d in comparisons if (d.emotion, d.intervention) == (c.emotion, c.intervention)]


def _strongest(c: Comparison) -> dict[str, object]:
    """The strongest control, and whether the chosen set is above all of them but prompts."""
    controls = {**c.others, "random": [float(v) for v in c.random.mean(1)]}
    best = {arm: max(c.sign * v for v in values) for arm, values in controls.items() if values}
    edits = [v for arm, v in best.items() if arm not in PROMPTS]
    strongest = max(best, key=lambda arm: best[arm])
    return {
        "beats_controls": c.sign * float(c.chosen.mean()) > max(edits),
        "strongest_control": strongest,
        "strongest_effect": c.sign * best[strongest],
    }


def _slope(c: Comparison, comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Slope of each text's effect over the doses of one emotion and intervention."""
    same = _doses(c, comparisons)
    strengths = np.array([d.strength for d in same])
    away = strengths - strengths.mean()
    if len(same) < 2 or not away.any():
        return dict.fromkeys(("dose_slope", "dose_slope_low", "dose_slope_high"), float("nan"))
    slopes = away @ np.stack([d.chosen for d in same]) / (away @ away)
    interval = cluster_mean(slopes, c.clusters)
    return {
        "dose_slope": interval.estimate,
        "dose_slope_low": interval.low,
        "dose_slope_high": interval.high,
    }
