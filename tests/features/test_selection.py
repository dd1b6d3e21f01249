"""Sets of features as users hold them."""

from __future__ import annotations

import pandas as pd
import pytest

from affectlens.data.errors import ConfigError
from affectlens.features.selection import FeatureSet

STATS = pd.DataFrame({"feature": [0, 1, 2], "max_active": [4.0, 0.0, 10.0]})


def test_a_set_is_a_sequence_of_latents() -> None:
    chosen = FeatureSet("grief", (2, 0), {}, STATS)
    assert (list(chosen), len(chosen), chosen[0], 2 in chosen) == ([2, 0], 2, 2, True)


def test_values_for_a_clamp_are_shares_of_each_maximum() -> None:
    assert FeatureSet("grief", (2, 0), {}, STATS).at(0.5) == {2: 5.0, 0: 2.0}


def test_a_latent_that_never_fires_has_no_value() -> None:
    with pytest.raises(ConfigError, match="latent 1 never fired"):
        FeatureSet("grief", (2, 1), {}, STATS).at(1.0)
    with pytest.raises(ConfigError):
        FeatureSet("grief", (2,), {}, STATS.iloc[:0]).at(1.0)
