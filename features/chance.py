"""What verdicts on several emotions and interventions are worth together; light, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd


def attainable(verdicts: pd.DataFrame, alpha: float) -> pd.Series[bool]:
    """Verdicts whose p could reach `alpha` after Holm over the emotions of their intervention.

    The smallest p of few clusters is large; a 'no' where it cannot pass says nothing. Asks for the
    strictest step of Holm's procedure; what passed at a later, milder one counts as well.
    """
    family = verdicts.groupby("intervention")["emotion"].transform("size")
    possible: pd.Series[bool] = (verdicts["min_p"] * family <= alpha) | verdicts["beats_random"]
    return possible


@dataclass(frozen=True)
class Chance:
    """How often sets that are no better than random ones would win.

    Attributes:
        n: verdicts that could win.
        n_won: those that did.
        expected: wins among n exchangeable sets, on average and at most.
        p: probability of `n_won` or more of them, taking verdicts for independent; approximate, as
            contrasts share latents and texts.
    """

    n: int
    n_won: int
    expected: float
    p: float


def wins_by_chance(verdicts: pd.DataFrame, alpha: float) -> Chance:
    """Wins over random sets against what exchangeable sets would win.

    Each is the strongest of itself and its n_random rivals with probability 1 / (1 + n_random);
    asking for a small p besides can only lower that.

    Args:
        verdicts: table with the columns `VERDICT_COLUMNS`.
        alpha: level of the verdicts.
    """
    own = verdicts[attainable(verdicts, alpha)]
    n, n_won = len(own), int(own["beats_random"].sum())
    if not n:
        return Chance(0, 0, 0.0, 1.0)
    rates = 1 / (1 + own["n_random"].astype(float))
    most = float(rates.max())
    below = sum(math.comb(n, k) * most**k * (1 - most) ** (n - k) for k in range(n_won))
    return Chance(n, n_won, float(rates.sum()), max(0.0, 1.0 - below))
