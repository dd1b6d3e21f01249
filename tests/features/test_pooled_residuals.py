"""The stream is read at the places and tokens that it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sae_lens
import torch

from affectlens.data.errors import ConfigError, HookError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.features.config import SearchConfig
from affectlens.features.encode import encode_items
from affectlens.features.encoding import TokenActivations
from affectlens.features.permutation import StatisticsError
from affectlens.features.pooled_residuals import (
    Place,
    default_places,
    place_of,
    pooled_residuals,
)
from affectlens.features.pooling import POOLINGS, Pooling, reading_for
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"
PLACES = default_places(HOOK, (), 4)
CONFIG = SearchConfig(suffix=" The end.")
TEXTS = [("a", "One."), ("b", "Someone broke the cup and left!"), ("c", "It rained all day.")]


@pytest.fixture
def model(tiny: Callable[[str], LanguageModel]) -> LanguageModel:
    return tiny("llama")


def encoded(lm: LanguageModel, pooling: Pooling) -> TokenActivations:
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=HOOK)
    sae = sae_lens.StandardSAE(
        sae_lens.StandardSAEConfig(d_in=lm.d_model, d_sae=8, metadata=metadata)
    )
    (found,) = encode_items(lm, [SparseAutoencoder(sae)], TEXTS, reading_for(pooling, CONFIG))
    return found


@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_are_those_of_each_text_alone(model: LanguageModel, pooling: Pooling) -> None:
    activations = encoded(model, pooling)
    rows = [2, 0, 1]
    found = pooled_residuals(model, PLACES, activations, rows, pooling, batch_size=2, quiet=True)
    assert tuple(r.place for r in found) == PLACES
    for residual in found:
        for value, i in zip(residual.values, rows, strict=True):
            item = activations.item(TEXTS[i][0])
            batch = model.pad([item.tokens.tolist()])
            resid = capture(model, [residual.place.hook], batch)[residual.place.hook][0].numpy()
            tail = item.tail()
            read = {
                "suffix": tail & item.keep,
                "suffix_last": np.arange(item.n_tokens) == item.n_tokens - 1,
                "readout": np.arange(item.n_tokens) == item.n_tokens - 1,
                "last": np.arange(item.n_tokens) == item.n_tokens - 1,
            }.get(pooling, item.keep & ~tail)
            expected = resid[read].max(axis=0) if pooling == "max" else resid[read].mean(axis=0)
            assert read.any() and np.allclose(value, expected, atol=1e-5)


def test_at_the_embedding_a_shared_suffix_says_nothing(model: LanguageModel) -> None:
    found = pooled_residuals(
        model, PLACES, encoded(model, "suffix"), [0, 1, 2], "suffix", quiet=True
    )
    assert found[0].place.layer == -1 and np.ptp(found[0].values, axis=0).max() == 0
    assert np.ptp(found[1].values, axis=0).max() > 0


def test_places_go_from_the_embedding_to_the_sae() -> None:
    def layers(hook: str, chosen: tuple[int, ...] = (), n: int = 30) -> list[int]:
        return [p.layer for p in default_places(hook, chosen, n)]

    assert layers("blocks.15.hook_resid_post") == [-1, 0, 3, 7, 11, 15]
    assert layers("blocks.16.hook_resid_pre") == [-1, 0, 3, 7, 11, 15]
    assert default_places("blocks.16.hook_resid_pre", (), 30)[-1].hook == "blocks.16.hook_resid_pre"
    assert layers("blocks.0.hook_resid_pre") == [-1]
    assert layers("blocks.1.hook_resid_post") == [-1, 0, 1]
    assert layers("blocks.15.hook_resid_post", (20, 2)) == [-1, 2, 15, 20]
    assert place_of(3) == Place(3, "blocks.3.hook_resid_post")
    with pytest.raises(ConfigError, match=r"layers \[30\] do not exist; the model has 0 to 29"):
        layers("blocks.15.hook_resid_post", (30,))
    with pytest.raises(HookError):
        layers("nowhere")


def test_bad_settings_and_numbers_are_refused(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = encoded(model, "mean")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        pooled_residuals(model, PLACES, activations, [0], "mean", batch_size=0)
    with pytest.raises(ConfigError, match="reads a suffix"):
        pooled_residuals(model, PLACES, activations, [0], "suffix")

    def broken(lm: LanguageModel, names: list[str], batch: object) -> dict[str, torch.Tensor]:
        return {name: torch.full((1, 50, lm.d_model), torch.inf) for name in names}

    monkeypatch.setattr("affectlens.features.pooled_residuals.capture", broken)
    with pytest.raises(StatisticsError, match="holds NaN or infinity"):
        pooled_residuals(model, PLACES, activations, [0], "mean", quiet=True)
