"""The stages that follow a search as plain functions with keyword settings.

Each builds its stage's configuration from the keywords and shares the search's own settings:
pooling, units, permutations and level. Without `encoded` a stored search is encoded again; the
result of `search` carries its encoded battery along, and `read_encoded` reads a run folder's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affectlens.after_search import checked, name_retained, written
from affectlens.data.corpus import Corpus, load_corpus
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.baselines import Baselines
from affectlens.features.calibration import Calibration
from affectlens.features.encoding import TokenActivations
from affectlens.features.lexical_controls import LexicalControls
from affectlens.features.naming import FeatureNames
from affectlens.features.search import SearchResult
from affectlens.features.stored import require_searched
from affectlens.features.validation_config import (
    BaselineConfig,
    CalibrationConfig,
    ControlsConfig,
    NamingConfig,
    ValidityConfig,
)
from affectlens.features.validity import Validity
from affectlens.guard import ensure_checked
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
    after = checked(lm, sae, battery, found, encoded, quiet=quiet)
    return written(after.controls(config), out)


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
    after = checked(lm, sae, battery, found, encoded, quiet=quiet)
    return written(after.validity(config), out)


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
    after = checked(lm, sae, battery, found, encoded, quiet=quiet)
    return written(after.baselines(config), out)


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
    texts = opened(store)
    ensure_checked(sae, lm, texts)
    require_searched(found, sae, encoded=found.encoded)
    return written(name_retained(lm, sae, found, texts, config, quiet=quiet), out)


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
    after = checked(lm, sae, battery, found, encoded, quiet=quiet)
    return written(after.calibration(config), out)


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
    after = checked(lm, sae, battery, found, encoded, quiet=quiet)
    for other in others.values():
        ensure_checked(other, lm)
    return _compare_saes(
        lm,
        sae,
        battery,
        found,
        others,
        after.settings,
        encoded=after.encoded,
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
    after = checked(lm, sae, battery, found, encoded, quiet=quiet)
    return _search_nulls(
        lm,
        sae,
        battery,
        found,
        check_names(names),
        after.settings,
        encoded=after.encoded,
        store=None if store is None else opened(store),
        corpus=load_corpus(corpus) if isinstance(corpus, str) else corpus,
        n_samples=n_samples,
        seed=seed,
        out=Path(out) if out else None,
        quiet=quiet,
    )
