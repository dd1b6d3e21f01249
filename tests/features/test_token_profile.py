"""Token profiles and densities, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectlens.data.store import Rows
from affectlens.features.token_profile import Density, density, mass_share, token_profile


def test_profile_by_hand() -> None:
    token = np.array([5, 5, 6, 7], dtype=np.int32)
    place = np.arange(4, dtype=np.int32)
    rows = Rows(torch.zeros(0, 1), np.ones(4, bool), place * 0, place, token)
    got = token_profile(np.array([1, 0, 1, 2], dtype=np.float32), rows, str, 2)
    assert (got.n_active, got.n_types, got.entropy_bits) == (3, 3, pytest.approx(1.5))
    assert got.effective_types == pytest.approx(2**1.5)
    assert [(t.token, t.mass_share, t.base_rate, t.lift) for t in got.top] == [
        (7, 0.5, 0.25, 2.0),
        (5, 0.25, 0.5, 0.5),
    ]
    silent = token_profile(np.zeros(4, dtype=np.float32), rows, str, 2)
    assert (silent.n_active, silent.entropy_bits, silent.top) == (0, None, ())


def test_density_and_mass() -> None:
    assert density(np.zeros(3, dtype=np.float32)) == Density((), ())
    assert density(np.array([0, 1, 1.1, 2], dtype=np.float32)).counts == (2, 0, 0, 1)
    chosen = np.array([True, False])
    assert mass_share(np.array([1, 3], dtype=np.float32), chosen) == 0.25
    assert mass_share(np.zeros(2, dtype=np.float32), chosen) is None
