"""What all data sets of a calibration share: their random keys, tests and limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy import stats as scipy_stats

from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import Contrast, run_contrasts
from affectlens.features.design import PairDesign
from affectlens.features.null_data import Members, PairData
from affectlens.features.permutation import StatisticsError
from affectlens.features.validation_config import CalibrationConfig


@dataclass(frozen=True, eq=False)
class Job:
    """What every data set needs."""

    values: sparse.csc_array
    design: PairDesign
    search: SearchConfig
    config: CalibrationConfig

    def rng(self, kind: int, *number: int) -> np.random.Generator:
        """A generator for one data set, whatever ran before it."""
        key = np.random.SeedSequence([self.config.seed, kind, *number])
        return np.random.Generator(np.random.Philox(key))

    def tests(self, rng: np.random.Generator) -> SearchConfig:
        """The search's settings with fewer permutations, drawn anew."""
        return self.search.model_copy(
            update={
                "n_permutations": self.config.n_permutations,
                "seed": int(rng.integers(2**31)),
            }
        )


@dataclass(frozen=True, eq=False)
class Limits:
    """Two-sided limits of a rate."""

    low: float
    high: float


def binomial_limits(events: float, n: int, level: float = 0.95) -> Limits:
    """Exact two-sided limits of a rate (Clopper and Pearson 1934).

    A sum of shares in [0, 1] may stand for a number of events. By convexity a share varies at most
    as much as a yes or no of the same mean (Hoeffding 1963), so limits are then conservative.

    Raises:
        StatisticsError: events outside 0..n, no data sets, or a level outside (0, 1).
    """
    if n < 1 or not 0 <= events <= n or not 0 < level < 1:
        raise StatisticsError(
            f"got {events} events of {n} at level {level}; need 0..n events, n >= 1 and a level "
            "within (0, 1)"
        )
    tail = (1 - level) / 2
    low = scipy_stats.beta.ppf(tail, events, n - events + 1) if events > 0 else 0.0
    high = scipy_stats.beta.isf(tail, events + 1, n - events) if events < n else 1.0
    return Limits(float(low), float(high))


def run_tests(
    members: Members, design: PairDesign, data: PairData, config: SearchConfig
) -> list[Contrast]:
    """The contrasts of the search on these pairs."""
    d = members.differences
    return run_contrasts(d, np.arange(d.shape[1]), design, data.parts, config)
