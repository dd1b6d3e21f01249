"""The stages that follow a search, each once, for the run, the commands and the plain functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.store import ActivationStore
from affectlens.features.baselines import Baselines, baselines, check_searched
from affectlens.features.calibration import Calibration, calibrate
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.encode import encode_battery
from affectlens.features.encoding import TokenActivations
from affectlens.features.fit import stored_hook
from affectlens.features.lexical_controls import LexicalControls, lexical_controls
from affectlens.features.naming import FeatureNames, name_features
from affectlens.features.pooling import Pooled, pool, reading_for
from affectlens.features.screen import screen
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.screened import with_screen
from affectlens.features.search import SearchResult
from affectlens.features.stored import require_searched
from affectlens.features.validation_config import (
    BaselineConfig,
    CalibrationConfig,
    ControlsConfig,
    NamingConfig,
    ValidityConfig,
)
from affectlens.features.validity import Validity, check_validity, retained
from affectlens.guard import ensure_checked
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.random_model import random_weights


@dataclass(frozen=True, eq=False)
class AfterSearch:
    """A finished search with what it was made of.

    Attributes:
        lm: the model.
        sae: the SAE that was searched.
        battery: the battery that was searched.
        found: the search.
        settings: its settings.
        encoded: the battery as the search read it; encoded again where it is needed and None.
        quiet: no progress; see `data.progress.track`.
    """

    lm: LanguageModel
    sae: SparseAutoencoder
    battery: Battery
    found: SearchResult
    settings: SearchConfig
    encoded: TokenActivations | None
    quiet: bool | None = None

    @property
    def inputs(self) -> tuple[LanguageModel, SparseAutoencoder, Battery, SearchResult]:
        """Model, SAE, battery and search, as the stages take them."""
        return self.lm, self.sae, self.battery, self.found

    def screened(self, config: ScreenConfig) -> SearchResult:
        """The search with `features.screen` and the columns that it fills."""
        allow = require_searched(self.found, self.sae, self.lm, encoded=self.encoded)
        done = screen(*self.inputs, config, quiet=self.quiet, allow_misfit=allow)
        return replace(self.found, table=with_screen(self.found.table, done), screen=done)

    def controls(self, config: ControlsConfig) -> LexicalControls:
        """`features.lexical_controls`."""
        return lexical_controls(
            *self.inputs, config, self.settings, encoded=self.encoded, quiet=self.quiet
        )

    def validity(self, config: ValidityConfig) -> Validity:
        """`features.validity`."""
        return check_validity(self._pooled(), self.battery, self.found, config)

    def baselines(self, config: BaselineConfig) -> Baselines:
        """`features.baselines`, with the random-weights model that the settings ask for.

        Its weights are drawn here, as `features` may not import `training`. Memory: one more copy
        of the model, while this runs.
        """
        random_lm = None
        if config.random_weights:
            random_lm = random_weights(self.lm, torch.Generator().manual_seed(config.seed))
        return baselines(
            *self.inputs,
            config,
            self.settings,
            encoded=self.encoded,
            random_lm=random_lm,
            quiet=self.quiet,
        )

    def naming(self, config: NamingConfig, store: ActivationStore) -> FeatureNames:
        """`name_retained`."""
        return name_retained(self.lm, self.sae, self.found, store, config, quiet=self.quiet)

    def calibration(self, config: CalibrationConfig) -> Calibration:
        """`calibrate_search`."""
        return calibrate_search(self.battery, self.found, self._pooled(), config, quiet=self.quiet)

    def _pooled(self) -> Pooled:
        check_searched(self.battery, self.found, self.settings)
        read = self.encoded
        if read is None:
            (read,) = encode_battery(
                self.lm, [self.sae], self.battery, self.settings, quiet=self.quiet
            )
        read.require(self.sae.info.sha256, reading_for(self.settings.pooling, self.settings))
        return pool(read, self.settings.pooling)


def checked(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    encoded: TokenActivations | None = None,
    *,
    quiet: bool | None = None,
) -> AfterSearch:
    """The search, with an SAE and a model that are known to be its own."""
    encoded = encoded or found.encoded
    ensure_checked(sae, lm)
    require_searched(found, sae, lm, encoded=encoded)
    return AfterSearch(lm, sae, battery, found, found.settings, encoded, quiet)


class _Writable(Protocol):
    def write(self, run: Path) -> Path: ...


W = TypeVar("W", bound=_Writable)


def written(result: W, out: str | Path | None) -> W:
    """The result, in the run folder if one is given."""
    if out is not None:
        result.write(Path(out))
    return result


def calibrate_search(
    battery: Battery,
    found: SearchResult,
    pooled: Pooled,
    config: CalibrationConfig,
    *,
    quiet: bool | None = None,
) -> Calibration:
    """`features.calibration` of a search on what it read, which needs no model."""
    check_searched(battery, found, found.settings)
    design = PairDesign.from_battery(battery, pooled.item_ids)
    return calibrate(pooled.values, design, found.settings, config, quiet=quiet)


def name_retained(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    found: SearchResult,
    store: ActivationStore,
    config: NamingConfig,
    *,
    quiet: bool | None = None,
) -> FeatureNames:
    """`features.naming` of what a search retained, on the held-out part of `store`.

    Misfits that the search passed over are passed over again.
    """
    allow = require_searched(found, sae, lm, store=store)
    hook = stored_hook(sae, store, allow=allow)
    return name_features(lm, sae, retained(found.table), store, config, hook=hook, quiet=quiet)
