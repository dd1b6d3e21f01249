"""The stages that follow a search as plain functions with keyword settings.

Each builds its stage's configuration from the keywords and shares the search's own settings:
pooling, units, permutations and level. Without `encoded` a stored search is encoded again; the
result of `search` carries its encoded battery along, and `read_encoded` reads a run folder's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affectlens.data.corpus import Corpus, load_corpus
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.store import ActivationStore
from affectlens.features.baselines import Baselines, check_searched
from affectlens.features.calibration import Calibration
from affectlens.features.calibration import calibrate as _calibrate
from affectlens.features.design import PairDesign
from affectlens.features.encode import encode_items
from affectlens.features.encoding import TokenActivations
from affectlens.features.fit import stored_hook
from affectlens.features.lexical_controls import LexicalControls
from affectlens.features.lexical_controls import lexical_controls as _lexical_controls
from affectlens.features.naming import FeatureNames
from affectlens.features.naming import name_features as _name_features
from affectlens.features.pooling import Pooled, pool, reading_for
from affectlens.features.search import SearchResult
from affectlens.features.stored import require_searched
from affectlens.features.validation_config import (
    BaselineConfig,
    CalibrationConfig,
    ControlsConfig,
    NamingConfig,
    ValidityConfig,
)
from affectlens.features.validity import Validity, retained
from affectlens.features.validity import check_validity as _check_validity
from affectlens.guard import ensure_checked
from affectlens.null_baselines import run_baselines
from affectlens.null_search import NullSearch
from affectlens.null_search import search_nulls as _search_nulls
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae_comparison import Comparison
from affectlens.sae_comparison import compare_saes as _compare_saes
from affectlens.stores import StoreOrFolder, opened
from affectlens.training.null_names import NULLS, check_names


def lexical_controls(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    *,
    encoded: TokenActivations | None = None,
    out: str | Path | None = None,
    quiet: bool | None = None,
    **settings: Any,
) -> LexicalControls:
    """Ask of every retained latent whether it answers to words or to what they say.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: the battery that was searched.
        found: the search.
        encoded: the battery as the search read it.
        out: run folder to write to.
        quiet: no progress.
        **settings: fields of `ControlsConfig`.
    """
    config = ControlsConfig.parse(settings, "controls.")
    encoded = encoded or found.encoded
    _require(lm, sae, found, encoded)
    result = _lexical_controls(
        lm,
        sae,
        battery,
        found,
        config,
        found.settings,
        encoded=encoded,
        quiet=quiet,
    )
    if out is not None:
        result.write(Path(out))
    return result


def check_validity(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    *,
    encoded: TokenActivations | None = None,
    out: str | Path | None = None,
    quiet: bool | None = None,
    **settings: Any,
) -> Validity:
    """Test the retained latents further: dose, discriminant, transfer, domains, person, wording.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: the battery that was searched.
        found: the search.
        encoded: the battery as the search read it.
        out: run folder to write to.
        quiet: no progress.
        **settings: fields of `ValidityConfig`.
    """
    config = ValidityConfig.parse(settings, "validity.")
    pooled = _pooled(lm, sae, battery, found, encoded, quiet=quiet)
    result = _check_validity(pooled, battery, found, config)
    if out is not None:
        result.write(Path(out))
    return result


def baselines(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    *,
    encoded: TokenActivations | None = None,
    out: str | Path | None = None,
    quiet: bool | None = None,
    **settings: Any,
) -> Baselines:
    """Put probes, differences of means, neurons and words beside the latents.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: the battery that was searched.
        found: the search.
        encoded: the battery as the search read it.
        out: run folder to write to.
        quiet: no progress.
        **settings: fields of `BaselineConfig`.
    """
    config = BaselineConfig.parse(settings, "baselines.")
    encoded = encoded or found.encoded
    _require(lm, sae, found, encoded)
    result = run_baselines(
        lm, sae, battery, found, config, found.settings, encoded=encoded, quiet=quiet
    )
    if out is not None:
        result.write(Path(out))
    return result


def name_features(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    found: SearchResult,
    store: StoreOrFolder,
    *,
    out: str | Path | None = None,
    quiet: bool | None = None,
    **settings: Any,
) -> FeatureNames:
    """Say of the retained latents what can be said without a language model that writes names.

    Args:
        lm: the model.
        sae: its autoencoder.
        found: the search.
        store: activations, or their folder; the held-out part is read.
        out: run folder to write to.
        quiet: no progress.
        **settings: fields of `NamingConfig`.
    """
    config = NamingConfig.parse(settings, "naming.")
    chosen, texts = retained(found.table), opened(store)
    allow = _require(lm, sae, found, found.encoded, texts)
    hook = stored_hook(sae, texts, allow=allow)
    result = _name_features(lm, sae, chosen, texts, config, hook=hook, quiet=quiet)
    if out is not None:
        result.write(Path(out))
    return result


def calibrate(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    *,
    encoded: TokenActivations | None = None,
    out: str | Path | None = None,
    quiet: bool | None = None,
    **settings: Any,
) -> Calibration:
    """Repeat the search where the answer is known: no effect, or a planted one.

    Args:
        lm: the model.
        sae: its autoencoder.
        battery: the battery that was searched.
        found: the search that is calibrated.
        encoded: the battery as the search read it.
        out: run folder to write to.
        quiet: no progress.
        **settings: fields of `CalibrationConfig`.
    """
    config = CalibrationConfig.parse(settings, "calibration.")
    pooled = _pooled(lm, sae, battery, found, encoded, quiet=quiet)
    design = PairDesign.from_battery(battery, pooled.item_ids)
    result = _calibrate(pooled.values, design, found.settings, config, quiet=quiet)
    if out is not None:
        result.write(Path(out))
    return result


def _pooled(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    encoded: TokenActivations | None,
    *,
    quiet: bool | None,
) -> Pooled:
    """The battery under the SAE, pooled as the search pooled it."""
    read, settings = encoded or found.encoded, found.settings
    _require(lm, sae, found, read)
    check_searched(battery, found, settings)
    if read is None:
        (read,) = encode_items(
            lm,
            [sae],
            [(item.id, item.text) for item in battery.items],
            reading_for(settings.pooling, settings),
            batch_size=settings.batch_size,
            label=f"battery {battery.name!r}",
            quiet=quiet,
        )
    read.require(sae.info.sha256, reading_for(settings.pooling, settings))
    return pool(read, settings.pooling)


def _require(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    found: SearchResult,
    encoded: TokenActivations | None,
    store: ActivationStore | None = None,
) -> list[str]:
    """Refuse another SAE, model or store than the search's; the misfits that it passed over."""
    ensure_checked(sae, lm, store)
    return require_searched(found, sae, lm, encoded=encoded, store=store)


def compare_saes(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    others: Mapping[str, SparseAutoencoder],
    *,
    encoded: TokenActivations | None = None,
    allow_misfit: Sequence[str] = (),
    out: str | Path | None = None,
    quiet: bool | None = None,
) -> Comparison:
    """Search other SAEs as this one was searched, and look there for what it retained.

    Args:
        lm: the model that all SAEs read.
        sae: the SAE that was searched.
        battery: the battery that was searched.
        found: the search.
        others: the other SAEs by name.
        encoded: the battery as the search read it.
        allow_misfit: misfits of the others to pass over.
        out: run folder to write to.
        quiet: no progress.
    """
    encoded = encoded or found.encoded
    _require(lm, sae, found, encoded)
    for other in others.values():
        ensure_checked(other, lm)
    return _compare_saes(
        lm,
        sae,
        battery,
        found,
        others,
        found.settings,
        encoded=encoded,
        allow_misfit=allow_misfit,
        out=Path(out) if out else None,
        quiet=quiet,
    )


def search_nulls(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    *,
    names: Sequence[str] = NULLS,
    encoded: TokenActivations | None = None,
    store: StoreOrFolder | None = None,
    corpus: Corpus | str | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    quiet: bool | None = None,
) -> NullSearch:
    """Train the SAE where there is nothing to find, and search there in the same way; slow.

    Args:
        lm: the model.
        sae: the SAE that was searched.
        battery: the battery that was searched.
        found: the search.
        names: "random-model" and "embedding", or one of them.
        encoded: the battery as the search read it.
        store: the SAE's activations, or their folder.
        corpus: text to train on, or its name; the embedded corpus by default.
        n_samples: activations to train each on; the SAE's own number by default.
        seed: seed of weights and trainings.
        out: run folder to write to.
        quiet: no progress.
    """
    encoded = encoded or found.encoded
    _require(lm, sae, found, encoded)
    return _search_nulls(
        lm,
        sae,
        battery,
        found,
        check_names(names),
        found.settings,
        encoded=encoded,
        store=None if store is None else opened(store),
        corpus=load_corpus(corpus) if isinstance(corpus, str) else corpus,
        n_samples=n_samples,
        seed=seed,
        out=Path(out) if out else None,
        quiet=quiet,
    )
