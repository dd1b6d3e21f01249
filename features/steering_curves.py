"""Dose-response of the steering study: curves, the dose chosen for each arm, and its slopes.

The dose of every emotion, arm and random set is the one with the highest mean overall score on the
select half of the scenarios; everything that is reported about it comes from the other half, so the
choice costs nothing but data. Scenarios are the unit: several texts of one are averaged first, and
intervals are t intervals over scenarios (see `cluster_t`), of differences where arms are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features.cluster_t import cluster_mean
from affectlens.features.study_columns import CHOSEN_COLUMNS, CURVES_COLUMNS

Array = npt.NDArray[np.float64]
Condition = tuple[str, str, int]
"""Emotion, arm and number of the set."""

MARGIN = 0.1
"""Coherence is called equivalent to the unedited model's if its 90% interval lies within +- this,
two one-sided tests at the 5% level. Stated before any run."""

WHO = ["emotion", "arm", "set_index"]
BOUNDED = ("overall", "concept", "coherence")
_SCORES = (*BOUNDED, "overall_masked", "concept_masked", "on_topic", "hit", "naming")
"""What arms are compared by, scenario by scenario."""
_MEANS = (
    *BOUNDED, "on_topic", "concept_masked", "overall_masked", "hit", "naming", "incoherent",
    "distinct_1", "distinct_2", "repetition", "drift", "n_tokens",
)  # fmt: skip


def curves_table(texts: pd.DataFrame) -> pd.DataFrame:
    """One row an emotion, arm, set, dose and half (`CURVES_COLUMNS`), in the order of the texts."""
    rows = []
    for (emotion, arm, index, dose, half), group in texts.groupby(
        [*WHO, "dose", "half"], sort=False
    ):
        row = {"emotion": emotion, "arm": arm, "set_index": index, "dose": dose, "half": half}
        row |= {"n_texts": len(group), **_levels(group)}
        for name in BOUNDED:
            bounds = cluster_mean(group[name].to_numpy(dtype=float), group["scenario"].tolist())
            row[f"{name}_low"], row[f"{name}_high"] = bounds.low, bounds.high
        rows.append(row)
    return pd.DataFrame(rows, columns=list(CURVES_COLUMNS))


def _levels(group: pd.DataFrame) -> dict[str, float]:
    found = {name: float(group[name].mean()) for name in _MEANS}
    found["perplexity"] = float(group["perplexity"].median())
    edited = group.loc[group["n_edited_tokens"] > 0, "delta_norm"]
    return {**found, "delta_norm": float(edited.mean()) if len(edited) else 0.0}


class Halves:
    """Scores of one half of the scenarios as arrays over scenarios, by condition and dose."""

    def __init__(self, texts: pd.DataFrame, half: str) -> None:
        own = texts[texts["half"] == half]
        self.scenarios = list(dict.fromkeys(own["scenario"]))
        self._rows = {
            (str(e), str(a), int(i), float(d)): group.groupby("scenario")[list(_SCORES)]
            .mean()
            .loc[self.scenarios]
            for (e, a, i, d), group in own.groupby([*WHO, "dose"], sort=False)
        }

    def values(self, condition: Condition, dose: float, score: str) -> Array:
        """[n_scenarios] of one score."""
        return self._rows[*condition, dose][score].to_numpy(dtype=float)

    def doses(self, condition: Condition) -> list[float]:
        """Doses of a condition, ascending."""
        return sorted(dose for *who, dose in self._rows if tuple(who) == condition)


def chosen_table(
    texts: pd.DataFrame,
    curves: pd.DataFrame,
    sets: Mapping[Condition, tuple[Sequence[int], str]],
) -> pd.DataFrame:
    """The dose of every condition and what it gives on the report half (`CHOSEN_COLUMNS`).

    Args:
        texts: scored texts.
        curves: their curves.
        sets: latents of each condition and the arm that a random set is matched to.
    """
    report = Halves(texts, "report")
    rows = []
    for who, dose, score in chosen_doses(curves):
        here = curves[
            (curves[WHO] == list(who)).all(axis=1)
            & (curves["dose"] == dose)
            & (curves["half"] == "report")
        ]
        features, matched_to = sets[who]
        rows.append(
            {
                **here.iloc[0].to_dict(),
                "features": ",".join(map(str, features)),
                "matched_to": matched_to,
                "select_overall": score,
                **_change(report, who, dose),
                **_slopes(report, who),
            }
        )
    return pd.DataFrame(rows, columns=list(CHOSEN_COLUMNS))


def chosen_doses(curves: pd.DataFrame) -> Iterator[tuple[Condition, float, float]]:
    """Condition, dose and score of the select half; the lowest of equally good doses."""
    select = curves[curves["half"] == "select"]
    for (emotion, arm, index), group in select.groupby(WHO, sort=False):
        best = group.sort_values(["overall", "dose"], ascending=[False, True]).iloc[0]
        yield (str(emotion), str(arm), int(index)), float(best["dose"]), float(best["overall"])


def _change(report: Halves, who: Condition, dose: float) -> dict[str, object]:
    plain = report.values((who[0], "unedited", 0), 0.0, "coherence")
    return equivalence(report.values(who, dose, "coherence") - plain)


def equivalence(change: Array) -> dict[str, object]:
    """Mean change of coherence [n_scenarios], its 90% interval, and whether that is within MARGIN.

    Two one-sided t tests (Schuirmann 1987) at the 5% level; with too few scenarios for an interval
    nothing is shown.
    """
    low, high = mean_interval(change, level=0.9)
    return {
        "coherence_change": float(change.mean()),
        "coherence_change_low": low,
        "coherence_change_high": high,
        "coherence_equivalent": bool(low > -MARGIN and high < MARGIN),
    }


def _slopes(report: Halves, who: Condition) -> dict[str, float]:
    out: dict[str, float] = {}
    for score in ("concept", "coherence"):
        own = slope_values(report, who, score)
        low, high = mean_interval(own)
        found = {"": float(own.mean()), "_low": low, "_high": high}
        out |= {f"{score}_slope{end}": value for end, value in found.items()}
    return out


def mean_interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """t interval of the mean over scenarios [n_scenarios]; NaN for too few, or for NaN."""
    found = cluster_mean(values, [f"{i:06d}" for i in range(len(values))], level)
    return found.low, found.high


def slope_values(report: Halves, who: Condition, score: str) -> Array:
    """Least-squares slope over doses of each scenario [n_scenarios]; NaN without doses.

    Dose 0 is the unedited model; for 'prompt_sae' it is 'prompt', and where that was not run there
    is none.
    """
    doses = report.doses(who)
    if not any(doses):
        return np.full(len(report.scenarios), math.nan)
    values = [report.values(who, dose, score) for dose in doses]
    start = (who[0], "prompt" if who[1] == "prompt_sae" else "unedited", 0)
    if report.doses(start):
        doses = [0.0, *doses]
        values = [report.values(start, 0.0, score), *values]
    if len(doses) < 2:
        return np.full(len(report.scenarios), math.nan)
    x = np.array(doses) - np.mean(doses)
    return np.asarray((x / (x @ x)) @ np.stack(values))
