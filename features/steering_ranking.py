"""Which arm steers best: ranking over emotions, paired comparisons, and wins by a stated bar.

All of it is read at the doses chosen on the select half, on the scenarios of the report half, which
are the units of every test. An arm beats its rival in an emotion if its mean overall score lies
above and a one-sided sign flip of the paired differences stays below the level after Holm over all
emotions and rivals of that arm. 'random' as a rival means every random set: the p is the largest
over the sets (an intersection-union test needs no correction for their number; Berger 1982) and the
difference is the smallest. Each random set has chosen its own dose, as the arm has.
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
from affectlens.features.steering_curves import Condition, Halves, Resamples, equivalence
from affectlens.features.study_columns import (
    COMPARISON_STEERING_COLUMNS,
    RANKING_COLUMNS,
    WINS_COLUMNS,
)
from affectlens.features.verdicts import least_p

Array = npt.NDArray[np.float64]

ALPHA = 0.05
RIVALS = ("sae_input", "sae_output", "random", "prompt")
JUDGED = ("sae_output", "sae_output_score")
"""Arms of which wins are counted."""
EVERY = "all"
"""The mean over emotions."""

_SHOWN = ("overall", "concept", "concept_masked", "hit", "naming", "coherence", "on_topic")


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


def ranking_table(
    scored: Scored, slopes: pd.DataFrame, n_resamples: int, seed: int
) -> pd.DataFrame:
    """One row an arm (`RANKING_COLUMNS`), best first; `slopes` is the table of chosen doses."""
    draws = Resamples.of(len(scored.report.scenarios), n_resamples, seed)
    rows = []
    for arm in scored.arms:
        sets = {e: scored.sets(e, arm) for e in scored.emotions}
        rows.append(_ranked(scored, arm, sets, slopes, draws))
        if arm == "random" and max(map(len, sets.values())) > 1:
            best = {e: [scored.best_random(e)] for e in scored.emotions}
            rows.append(_ranked(scored, "random_best", best, slopes, draws))
    table = pd.DataFrame(rows).sort_values("overall", ascending=False, kind="stable")
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table[list(RANKING_COLUMNS)].reset_index(drop=True)


def _ranked(
    scored: Scored,
    name: str,
    sets: Mapping[str, Sequence[Condition]],
    slopes: pd.DataFrame,
    draws: Resamples,
) -> dict[str, Any]:
    def mean(score: str) -> Array:
        """[n_scenarios] over sets, then over emotions."""
        each = [np.mean([scored.values(w, score) for w in own], axis=0) for own in sets.values()]
        return np.asarray(np.mean(each, axis=0))

    plain = np.mean([scored.mean(e, "unedited", "coherence") for e in sets], axis=0)
    low, high = draws.interval(mean("overall"))
    conditions = {who for own in sets.values() for who in own}
    places = zip(slopes["emotion"], slopes["arm"], slopes["set_index"], strict=True)
    own = slopes[[tuple(who) in conditions for who in places]]
    return {
        "arm": name,
        "n_emotions": len(sets),
        "n_scenarios": len(scored.report.scenarios),
        **{score: float(mean(score).mean()) for score in _SHOWN},
        "overall_low": low,
        "overall_high": high,
        **equivalence(mean("coherence") - plain, draws),
        "concept_slope": float(own["concept_slope"].mean()),
        "delta_norm": float(own["delta_norm"].mean()),
    }


def comparison_table(scored: Scored, n_resamples: int, seed: int) -> pd.DataFrame:
    """Every arm against every rival, for each emotion and over all (`COMPARISON_STEERING_COLUMNS`).

    Rivals that were not run are left out, an arm is not compared with itself.
    """
    draws = Resamples.of(len(scored.report.scenarios), n_resamples, seed)
    rows: list[dict[str, Any]] = []
    for arm in scored.arms:
        rivals = [r for r in RIVALS if r != arm and r in scored.arms]
        for emotion in (*scored.emotions, EVERY):
            for rival in rivals:
                differences = _differences(scored, emotion, arm, rival)
                rows.append(
                    {
                        "emotion": emotion,
                        "arm": arm,
                        "against": rival,
                        **_compared(differences, draws, n_resamples, seed),
                    }
                )
    table = pd.DataFrame(rows, columns=list(COMPARISON_STEERING_COLUMNS))
    for _, group in table.groupby(["arm", table["emotion"] == EVERY], sort=False):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy(dtype=float))
    table["p_holm"] = table["p_holm"].astype(float)
    table["beats"] = (table["p_holm"] <= ALPHA) & (table["difference"] > 0)
    return table


def _differences(scored: Scored, emotion: str, arm: str, rival: str) -> Array:
    """[n_sets, n_scenarios] arm minus rival; for all emotions the mean over them, set by set."""
    if emotion != EVERY:
        own = scored.mean(emotion, arm, "overall")
        sets = scored.rivals(emotion, arm, rival)
        return np.stack([own - scored.values(who, "overall") for who in sets])
    each = [_differences(scored, e, arm, rival) for e in scored.emotions]
    # As many sets were drawn for every emotion; which of them are put together is arbitrary.
    n_sets = min(map(len, each))
    return np.asarray(np.mean([d[:n_sets] for d in each], axis=0))


def _compared(differences: Array, draws: Resamples, n_flips: int, seed: int) -> dict[str, Any]:
    flip = sign_flip(differences.T, n_flips, seed, alternative="greater")
    hardest = int(np.argmin(differences.mean(axis=1)))
    low, high = draws.interval(differences[hardest])
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

    One row for each of 'sae_output' and 'sae_output_score' that was run beside 'sae_input' and
    'random' (`WINS_COLUMNS`). The bar is half of the emotions, 4 of 8, stated before any run.
    """
    rows = []
    single = comparisons[comparisons["emotion"] != EVERY]
    for arm in JUDGED:
        own = single[single["arm"] == arm]
        if not {"sae_input", "random"} <= set(own["against"]):
            continue
        won = {
            rival: set(own.loc[(own["against"] == rival) & own["beats"], "emotion"])
            for rival in ("sae_input", "random")
        }
        emotions = list(dict.fromkeys(own["emotion"]))
        both = [e for e in emotions if e in won["sae_input"] & won["random"]]
        bar = math.ceil(len(emotions) / 2)
        rows.append(
            {
                "arm": arm,
                "n_emotions": len(emotions),
                "beats_input": len(won["sae_input"]),
                "beats_random": len(won["random"]),
                "wins": len(both),
                "min_p_holm": min(1.0, float(own["min_p"].min()) * len(own)),
                "bar": bar,
                "reached": len(both) >= bar,
                "emotions": ",".join(both),
            }
        )
    return pd.DataFrame(rows, columns=list(WINS_COLUMNS))
