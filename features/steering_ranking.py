"""Which arm steers best: ranking over emotions, paired comparisons, and wins by a stated bar.

All of it is read at the doses chosen on the select half, on the scenarios of the report half, which
are the units of every test. An arm beats its rival in an emotion if its mean overall score lies
above and a one-sided sign flip of the paired differences stays below the level after Holm over all
emotions and rivals of that arm. 'random' as a rival means every random set: the p is the largest
over the sets (an intersection-union test needs no correction for their number; Berger 1982) and the
difference is the smallest. Each random set has chosen its own dose, as the arm has. An emotion is
won where the arm beats the input side's choice and every random set, again by the larger p, after
Holm over emotions. All of it is done twice, by the overall score and by the same with emotion words
taken out of the texts, since output-side choice is made by the words that a model is moved to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features.stats import holm, sign_flip
from affectlens.features.steering_curves import Condition, Halves, equivalence, mean_interval
from affectlens.features.study_columns import (
    COMPARISON_STEERING_COLUMNS,
    RANKING_COLUMNS,
    WINS_COLUMNS,
)
from affectlens.features.verdicts import least_p

Array = npt.NDArray[np.float64]

ALPHA = 0.05
RIVALS = ("sae_input", "sae_output", "random", "prompt")
BEATEN = ("sae_input", "random")
"""Rivals that an arm must beat to win an emotion."""
JUDGED = ("sae_output", "sae_output_score")
"""Arms of which wins are counted."""
COMPARED = ("overall", "overall_masked")
"""Scores by which arms are compared; the second does not reward naming the emotion."""
EVERY = "all"
"""The mean over emotions."""

_SHOWN = (
    "overall",
    "overall_masked",
    "concept",
    "concept_masked",
    "hit",
    "naming",
    "coherence",
    "on_topic",
)


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores at the chosen doses on the report half.

    Attributes:
        emotions: emotions of the study.
        arms: arms that were run, in order.
        report: the texts of the report half.
        doses: chosen dose of each condition.
        matched: random set -> arm it is matched to, for each emotion and set.
        own_random: a set arm is compared with the random sets matched to it alone (where each arm
            is steered at a norm of its own), not with all.
    """

    emotions: tuple[str, ...]
    arms: tuple[str, ...]
    report: Halves
    doses: Mapping[Condition, float]
    matched: Mapping[Condition, str]
    own_random: bool

    @classmethod
    def of(cls, texts: pd.DataFrame, chosen: pd.DataFrame, *, own_random: bool) -> Scored:
        """Gather texts and chosen doses."""
        who = [
            (str(e), str(a), int(i))
            for e, a, i in zip(chosen["emotion"], chosen["arm"], chosen["set_index"], strict=True)
        ]
        return cls(
            tuple(dict.fromkeys(chosen["emotion"])),
            tuple(dict.fromkeys(chosen["arm"])),
            Halves(texts, "report"),
            dict(zip(who, map(float, chosen["dose"]), strict=True)),
            dict(zip(who, map(str, chosen["matched_to"]), strict=True)),
            own_random,
        )

    def sets(self, emotion: str, arm: str) -> list[Condition]:
        """The conditions of an arm: one, or its random sets."""
        return [who for who in self.doses if who[:2] == (emotion, arm)]

    def values(self, who: Condition, score: str) -> Array:
        """[n_scenarios] of a condition at its dose."""
        return self.report.values(who, self.doses[who], score)

    def mean(self, emotion: str, arm: str, score: str) -> Array:
        """[n_scenarios], mean over the sets of an arm."""
        return np.mean([self.values(who, score) for who in self.sets(emotion, arm)], axis=0)

    def best_random(self, emotion: str) -> Condition:
        """The random set with the highest mean overall score."""
        sets = self.sets(emotion, "random")
        return max(sets, key=lambda who: float(self.values(who, "overall").mean()))

    def rivals(self, emotion: str, arm: str, against: str) -> list[Condition]:
        """What an arm must beat: one condition, or the random sets."""
        sets = self.sets(emotion, against)
        if against == "random" and self.own_random:
            return [who for who in sets if self.matched[who] == arm] or sets
        return sets


def ranking_table(scored: Scored, slopes: pd.DataFrame) -> pd.DataFrame:
    """One row an arm (`RANKING_COLUMNS`), best first; `slopes` is the table of chosen doses."""
    rows = []
    for arm in scored.arms:
        sets = {e: scored.sets(e, arm) for e in scored.emotions}
        rows.append(_ranked(scored, arm, sets, slopes))
        if arm == "random" and max(map(len, sets.values())) > 1:
            best = {e: [scored.best_random(e)] for e in scored.emotions}
            rows.append(_ranked(scored, "random_best", best, slopes))
    table = pd.DataFrame(rows).sort_values("overall", ascending=False, kind="stable")
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table[list(RANKING_COLUMNS)].reset_index(drop=True)


def _ranked(
    scored: Scored,
    name: str,
    sets: Mapping[str, Sequence[Condition]],
    slopes: pd.DataFrame,
) -> dict[str, Any]:
    def mean(score: str) -> Array:
        """[n_scenarios] over sets, then over emotions."""
        each = [np.mean([scored.values(w, score) for w in own], axis=0) for own in sets.values()]
        return np.asarray(np.mean(each, axis=0))

    plain = np.mean([scored.mean(e, "unedited", "coherence") for e in sets], axis=0)
    low, high = mean_interval(mean("overall"))
    conditions = {who for own in sets.values() for who in own}
    places = zip(slopes["emotion"], slopes["arm"], slopes["set_index"], strict=True)
    own = slopes[[tuple(who) in conditions for who in places]]
    return {
        "arm": name,
        "n_emotions": len(sets),
        "n_scenarios": len(scored.report.scenarios),
        "select_overall": float(own["select_overall"].mean()),
        **{score: float(mean(score).mean()) for score in _SHOWN},
        "overall_low": low,
        "overall_high": high,
        **equivalence(mean("coherence") - plain),
        "concept_slope": float(own["concept_slope"].mean()),
        "delta_norm": float(own["delta_norm"].mean()),
    }


def comparison_table(scored: Scored, n_flips: int, seed: int) -> pd.DataFrame:
    """Every arm against every rival by every score (`COMPARISON_STEERING_COLUMNS`).

    For each emotion and over all. Rivals that were not run are left out, an arm is not compared
    with itself.
    """
    rows = [
        {
            "emotion": emotion,
            "arm": arm,
            "against": rival,
            "score": score,
            **_compared(_differences(scored, emotion, arm, rival, score), n_flips, seed),
        }
        for score in COMPARED
        for arm in scored.arms
        for emotion in (*scored.emotions, EVERY)
        for rival in RIVALS
        if rival != arm and rival in scored.arms
    ]
    table = pd.DataFrame(rows, columns=list(COMPARISON_STEERING_COLUMNS))
    for _, group in table.groupby(["score", "arm", table["emotion"] == EVERY], sort=False):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy(dtype=float))
    table["p_holm"] = table["p_holm"].astype(float)
    table["beats"] = (table["p_holm"] <= ALPHA) & (table["difference"] > 0)
    return table


def _differences(scored: Scored, emotion: str, arm: str, rival: str, score: str) -> Array:
    """[n_sets, n_scenarios] arm minus rival; for all emotions the mean over them, set by set."""
    if emotion != EVERY:
        own = scored.mean(emotion, arm, score)
        sets = scored.rivals(emotion, arm, rival)
        return np.stack([own - scored.values(who, score) for who in sets])
    each = [_differences(scored, e, arm, rival, score) for e in scored.emotions]
    # As many sets were drawn for every emotion; which of them are put together is arbitrary, so
    # these are composites and not each emotion's hardest set.
    n_sets = min(map(len, each))
    return np.asarray(np.mean([d[:n_sets] for d in each], axis=0))


def _compared(differences: Array, n_flips: int, seed: int) -> dict[str, Any]:
    flip = sign_flip(differences.T, n_flips, seed, alternative="greater")
    hardest = int(np.argmin(differences.mean(axis=1)))
    low, high = mean_interval(differences[hardest])
    return {
        "difference": float(differences[hardest].mean()),
        "low": low,
        "high": high,
        "p": float(flip.p.max()),
        "p_holm": math.nan,
        "beats": False,
        "n_scenarios": flip.n_units,
        "min_p": least_p(flip),
    }


def wins_table(comparisons: pd.DataFrame) -> pd.DataFrame:
    """For how many emotions output-side choice beats input-side choice and chance.

    One row for each score and each of 'sae_output' and 'sae_output_score' that was run beside
    'sae_input' and 'random' (`WINS_COLUMNS`). An emotion is won if the arm beats both; the p of
    that is the larger of the two (an intersection-union test), corrected by Holm over emotions
    alone. The bar is half of the emotions, 4 of 8, stated before any run.
    """
    single = comparisons[comparisons["emotion"] != EVERY]
    rows = [
        _wins(own, arm, str(score))
        for (score, arm), own in single.groupby(["score", "arm"], sort=False)
        if arm in JUDGED and set(BEATEN) <= set(own["against"])
    ]
    table = pd.DataFrame(rows, columns=list(WINS_COLUMNS))
    return table.sort_values(["score", "arm"], key=_in_order, kind="stable", ignore_index=True)


def _in_order(column: pd.Series[Any]) -> pd.Series[Any]:
    order = (*COMPARED, *JUDGED)
    return column.map(order.index)


def _wins(own: pd.DataFrame, arm: str, score: str) -> dict[str, Any]:
    """One row of `WINS_COLUMNS` from the comparisons of an arm by a score, emotion by emotion."""
    own = own[own["against"].isin(BEATEN)]
    won = {r: int(own.loc[own["against"] == r, "beats"].sum()) for r in BEATEN}
    both = own.groupby("emotion", sort=False).agg(
        p=("p", "max"), difference=("difference", "min"), min_p=("min_p", "max")
    )
    names = both.index[(holm(both["p"].to_numpy()) <= ALPHA) & (both["difference"] > 0)]
    bar = math.ceil(len(both) / 2)
    return {
        "arm": arm,
        "score": score,
        "n_emotions": len(both),
        "beats_input": won["sae_input"],
        "beats_random": won["random"],
        "wins": len(names),
        "min_p_holm": min(1.0, float(both["min_p"].min()) * len(both)),
        "bar": bar,
        "reached": len(names) >= bar,
        "emotions": ",".join(names),
    }
