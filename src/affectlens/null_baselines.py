"""Baselines beside a model that has learned nothing; `features` may not draw its weights."""

from __future__ import annotations

from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.baselines import Baselines, baselines
from affectlens.features.config import SearchConfig
from affectlens.features.encoding import TokenActivations
from affectlens.features.search import SearchResult
from affectlens.features.validation_config import BaselineConfig
from affectlens.sae.model import SparseAutoencoder


def run_baselines(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    config: BaselineConfig,
    search_config: SearchConfig,
    *,
    encoded: TokenActivations | None = None,
    quiet: bool | None = None,
) -> Baselines:
    """`features.baselines.baselines`, with the random-weights model that the settings ask for.

    Memory: with `config.random_weights` one more copy of the model, while this runs.
    """
    random_lm = None
    if config.random_weights:
        import torch

        from affectlens.training.random_model import random_weights

        random_lm = random_weights(lm, torch.Generator().manual_seed(config.seed))
    return baselines(
        lm,
        sae,
        battery,
        found,
        config,
        search_config,
        encoded=encoded,
        random_lm=random_lm,
        quiet=quiet,
    )
