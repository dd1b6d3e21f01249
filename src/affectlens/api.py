"""The stages as plain functions with keyword settings, for notebooks and scripts.

Each builds its stage's configuration from the keywords, so an unknown keyword is refused with the
nearest known name, and calls the same function as the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from affectlens.data.activations import harvest as _harvest
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import Corpus, load_corpus
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.store import ActivationStore
from affectlens.features.config import SearchConfig
from affectlens.features.effects import EffectResult
from affectlens.features.effects import intervene as _intervene
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.measure import text_statistics
from affectlens.features.results import Generation
from affectlens.features.search import SearchResult
from affectlens.features.search import search as _search
from affectlens.features.selection import FeatureSet
from affectlens.features.steering import steer as _steer
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.config import TrainConfig
from affectlens.training.trainer import train as _train


def harvest(
    lm: LanguageModel,
    corpus: Corpus | str,
    *,
    out: str | Path,
    layer: int | Sequence[int] | None = None,
    avoid: Battery | None = None,
    quiet: bool = False,
    **settings: Any,
) -> ActivationStore:
    """Write a corpus' activations to `out` and open them.

    Args:
        lm: the model.
        corpus: a corpus or its name.
        out: folder of the store; an unfinished one of the same settings is resumed.
        layer: block output(s) to keep; default as in `HarvestConfig`.
        avoid: a battery whose texts must not occur in the corpus.
        quiet: no progress.
        **settings: fields of `HarvestConfig`.
    """
    if layer is not None:
        settings["layers"] = (layer,) if isinstance(layer, int) else tuple(layer)
    config = HarvestConfig.parse(settings, "harvest.")
    texts = load_corpus(corpus) if isinstance(corpus, str) else corpus
    return _harvest(lm, texts, config, Path(out), avoid=avoid.texts if avoid else (), quiet=quiet)


def train(
    store: ActivationStore,
    *,
    out: str | Path,
    lm: LanguageModel | None = None,
    quiet: bool = False,
    **settings: Any,
) -> SparseAutoencoder:
    """Train an SAE on a store and save it to `out` in sae-lens' format.

    Args:
        store: activations.
        out: folder of the SAE; an interrupted training of the same settings is resumed.
        lm: the model, for cross-entropy recovered; without it those metrics are left out.
        quiet: no progress.
        **settings: fields of `TrainConfig`, such as `arch`, `d_sae`, `k`.
    """
    return _train(store, TrainConfig.parse(settings, "train."), Path(out), lm=lm, quiet=quiet)


def search(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    *,
    store: ActivationStore | None = None,
    out: str | Path | None = None,
    lexical_warning: str = "",
    **settings: Any,
) -> SearchResult:
    """Search the SAE for features that tell emotional vignettes from their neutral twins.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: matched pairs.
        store: activations, for firing statistics and contexts of the features. Without one the
            statistics that match random controls come from the battery's own texts.
        out: run folder to write `search/` to.
        lexical_warning: the warning of the battery's lexical card (`audit(battery).warning`).
        **settings: fields of `SearchConfig`.
    """
    config = SearchConfig.parse(settings, "search.")
    found = _search(
        lm,
        sae,
        battery,
        config,
        out=Path(out) if out else None,
        store=store,
        lexical_warning=lexical_warning,
    )
    if store is not None:
        return found
    return replace(found, stats=text_statistics(lm, sae, battery.texts))


def intervene(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: FeatureSet | Sequence[FeatureSet],
    battery: Battery,
    *,
    out: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> EffectResult:
    """Measure what features do to the emotion readout, against matched random features.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: from `SearchResult.top`.
        battery: the battery that was searched.
        out: run folder to write `effects/` to.
        quiet: no progress.
        **settings: fields of `InterveneConfig`.
    """
    config = InterveneConfig.parse(settings, "intervene.")
    return _intervene(
        lm, sae, features, battery, config, out=Path(out) if out else None, quiet=quiet
    )


def steer(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: FeatureSet | Sequence[FeatureSet],
    *,
    out: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> list[Generation]:
    """Write texts with features clamped, beside the unedited model's.

    Args:
        lm: the model.
        sae: its autoencoder.
        features: from `SearchResult.top`.
        out: run folder to write `effects/generations.jsonl` to.
        quiet: no progress.
        **settings: fields of `SteerConfig`.
    """
    config = SteerConfig.parse(settings, "steer.")
    return _steer(lm, sae, features, config, out=Path(out) if out else None, quiet=quiet)
