"""Single latents edited one by one against jobs written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.features import exact_effects as module
from affectlens.features.exact_effects import exact_effects
from affectlens.features.jobs import Job
from affectlens.features.measure import Meter
from affectlens.features.specs import Ablate, Clamp

from .made_meters import TEXTS, make_readout
from .made_saes import make_sae

FEATURES = (3, 17, 40, 41, 90)


@pytest.fixture
def meter(tiny_llama: LanguageModel) -> Meter:
    return Meter(tiny_llama, make_sae(tiny_llama), TEXTS, make_readout(tiny_llama))


def test_each_latent_is_edited_by_itself(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEATURES_AT_ONCE", 2)
    told: list[int] = []
    found = exact_effects(meter, FEATURES, lambda f: Clamp((f,), (4.0,)), done=told.append)
    assert found.effect.shape == (5, 4, 3)
    assert found.names == meter.names == ("grief", "rage", "all")
    for i, feature in enumerate(FEATURES):
        alone = meter.measure(Job([Clamp((feature,), (4.0,))]))
        np.testing.assert_allclose(found.effect[i], alone.effect, atol=1e-5)
        np.testing.assert_allclose(found.kl[i], alone.kl, atol=1e-5)
    assert (found.n_run, found.n_skipped, sum(told)) == (5 * 16, 0, 5)
    np.testing.assert_allclose(found.mean("rage"), found.effect[:, :, 1].mean(1))
    with pytest.raises(ConfigError, match="no readout 'joy'; allowed are 'grief', 'rage', 'all'"):
        found.mean("joy")


def test_silent_latents_have_exactly_no_effect(meter: Meter) -> None:
    found = exact_effects(meter, range(96), texts=(2, 1))
    assert found.n_run + found.n_skipped == 96 * 2 * 4
    assert 0 < found.n_run < found.n_skipped
    # Rows that were run come from texts with an effect, and the other way round.
    n_moved = int(found.effect.any(-1).sum())
    assert found.n_run / 4 <= n_moved <= found.n_run
    moved = int(found.effect.any((1, 2)).nonzero()[0][0])
    by_hand = meter.measure(Job([Ablate((moved,))], texts=(2, 1)))
    np.testing.assert_allclose(found.effect[moved], by_hand.effect, atol=1e-5)


def test_no_latent_is_refused(meter: Meter) -> None:
    with pytest.raises(ConfigError, match="at least one latent"):
        exact_effects(meter, ())
    with pytest.raises(ConfigError, match="feature 96 is outside"):
        exact_effects(meter, (1, 96))
