"""What all data sets of a calibration share: their random keys and settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
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
