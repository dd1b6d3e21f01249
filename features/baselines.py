"""What simpler methods reach on the pairs on which the SAE's latents are judged.

Dense probes, differences of means, single residual neurons and words stand in one table beside the
best latents, layer by layer from the embedding on. Everything is evaluated twice: on the search's
confirmation clusters (all that is fitted or chosen comes from its discovery clusters), and in
folds over all clusters (latents are then chosen anew in every fold). The second has more clusters
and so the narrower intervals; it judges the procedure and not the very latents of the table.

Verdicts compare each method with the best single latent. They are at 95% each, unadjusted for
their number. A dense probe at or above the latent says that the latent adds no separation; what
the latent may add is a name and a handle, which are tested elsewhere. Words or the embedding at or
above it say that the target can be told without context.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features._words import tokens
from affectlens.features.baseline_columns import BASELINE_COLUMNS
from affectlens.features.baseline_methods import (
    TOP,
    PairItems,
    Scored,
    confirmation,
    cross_validation,
    score_all,
    searched_ranks,
)
from affectlens.features.baseline_table import comparison_rows, verdict_counts
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.encode import encode_items
from affectlens.features.encoding import TokenActivations
from affectlens.features.pooled_residuals import (
    Place,
    default_places,
    place_of,
    pooled_residuals,
)
from affectlens.features.pooling import SHARED, pool, reading_for
from affectlens.features.results import Record, write_table
from affectlens.features.search import SearchResult
from affectlens.features.simple_directions import Ranked
from affectlens.features.validation_config import BaselineConfig
from affectlens.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class BaselinesSummary(Record):
    """How the baselines were made and what they say.

    Attributes:
        hooks: places that were read, from the embedding up.
        n_pairs_tested: pairs tested in each evaluation.
        n_left_out: pairs left out of each, because a copy of their text is on the other side.
        untested: "evaluation: target" that could not be tested for want of clusters.
        chosen_layers: evaluation -> target -> layer that the inner folds chose, one a fold; -1 is
            the embedding.
        best_latents: evaluation -> target -> the best latents, best first, one list a fold.
        verdicts: evaluation -> method -> verdict -> number of targets. Methods that exist at
            several layers are counted at the SAE's, the dense probe also at the embedding.
    """

    file: ClassVar[str] = "search/baselines.json"
    battery: str
    battery_sha256: str
    pooling: str
    sae_hook: str
    hooks: list[str]
    n_pairs_tested: dict[str, int]
    n_left_out: dict[str, int]
    untested: list[str]
    chosen_layers: dict[str, dict[str, list[int]]]
    best_latents: dict[str, dict[str, list[list[int]]]]
    verdicts: dict[str, dict[str, dict[str, int]]]
    n_folds: int
    n_inner: int
    strengths: list[float]
    word_strengths: list[float]
    n_random: int
    n_bootstrap: int
    seed: int


@dataclass(frozen=True, eq=False)
class Baselines:
    """Baselines beside the SAE.

    Attributes:
        table: one row an evaluation, target, method and layer (`BASELINE_COLUMNS`).
        summary: settings, choices and counts of verdicts.
    """

    table: pd.DataFrame = field(repr=False)
    summary: BaselinesSummary

    def write(self, run: Path) -> Path:
        """Write the table and the summary as `search/*` of a run folder; returns its path."""
        write_table(self.table, run, "search/baselines")
        return self.summary.write(run)


def baselines(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    config: BaselineConfig | None = None,
    search_config: SearchConfig | None = None,
    *,
    encoded: TokenActivations | None = None,
    quiet: bool | None = None,
) -> Baselines:
    """Compare the latents of a search with simpler methods on the same held-out pairs.

    Args:
        lm: the model that the SAE reads.
        sae: the SAE that was searched.
        battery: the battery that was searched.
        found: its search.
        config: settings.
        search_config: settings of that search.
        encoded: the battery under the SAE, read as the search reads it; encoded if not given.
        quiet: no progress; see `progress.track`.

    Raises:
        ConfigError: another pooling, battery or SAE than the search's, or a layer that the model
            does not have.
        StimulusError: one cluster only, clusters that the search did not split, or a text that
            cannot be read.
        StatisticsError: a value is not finite, or a probe does not converge.
    """
    config, search_config = config or BaselineConfig(), search_config or SearchConfig()
    _check(battery, found, search_config)
    places = default_places(sae.info.hook_name, config.layers, lm.n_layers)
    if encoded is None:
        encoded = _encode(lm, sae, battery, search_config, quiet=quiet)
    elif encoded.sae_sha256 != sae.info.sha256:
        raise ConfigError(
            f"the activations are of SAE {encoded.sae_sha256[:12]}, the SAE given is "
            f"{sae.info.sha256[:12]}; give the activations of this SAE or none"
        )
    _check_reading(encoded, search_config)
    items = _items(lm, battery, places, encoded, search_config, quiet=quiet)
    return compare(items, battery, found, place_of(sae.info.hook_name), config, search_config)


def compare(
    items: PairItems,
    battery: Battery,
    found: SearchResult,
    sae_place: Place,
    config: BaselineConfig,
    search_config: SearchConfig,
) -> Baselines:
    """The comparison on pooled numbers; needs no model.

    Args:
        items: the battery's pairs.
        battery: gives texts and names.
        found: the search on the same latents.
        sae_place: where the SAE reads.
        config: settings.
        search_config: settings of the search.

    Raises:
        StimulusError, StatisticsError: as `baselines`.
    """
    texts = battery.pair_texts
    evaluations = [
        e
        for e in (
            confirmation(items.design, found.parts, texts),
            cross_validation(items.design, texts, config.n_folds, config.seed),
        )
        if e is not None
    ]
    if not evaluations:
        raise StimulusError(
            f"battery {battery.name!r} has {len(set(items.design.clusters))} cluster of pairs; "
            "baselines need at least 2, one to fit on and one to test"
        )
    rows: list[dict[str, object]] = []
    scored: dict[str, Scored] = {}
    for evaluation in evaluations:
        ranks = None
        if evaluation.on == "confirmation":
            ranks = searched_ranks(_searched(found), items.latent_ids)
        scored[evaluation.on] = score_all(items, evaluation, config, search_config, ranks=ranks)
        rows += comparison_rows(items, evaluation, scored[evaluation.on], sae_place, config)
    table = pd.DataFrame(rows, columns=list(BASELINE_COLUMNS)).astype({"layer": "Int64"})
    return Baselines(
        table,
        BaselinesSummary(
            battery=battery.name,
            battery_sha256=battery.sha256,
            pooling=search_config.pooling,
            sae_hook=sae_place.hook,
            hooks=[r.place.hook for r in items.residuals],
            n_pairs_tested={e.on: int((e.folds >= 0).sum()) for e in evaluations},
            n_left_out={e.on: e.n_left_out for e in evaluations},
            untested=[
                f"{on}: {name}"
                for on, s in scored.items()
                for name, folds in s.folds.items()
                if not (folds >= 0).any()
            ],
            chosen_layers={
                on: {t: list(v) for t, v in s.chosen_layers.items()} for on, s in scored.items()
            },
            best_latents={
                on: {t: [list(f) for f in v] for t, v in s.chosen_latents.items()}
                for on, s in scored.items()
            },
            verdicts={on: verdict_counts(table, on, sae_place.layer) for on in scored},
            n_folds=config.n_folds,
            n_inner=config.n_inner,
            strengths=list(config.strengths),
            word_strengths=list(config.word_strengths),
            n_random=config.n_random,
            n_bootstrap=config.n_bootstrap,
            seed=config.seed,
        ),
    )


def _check(battery: Battery, found: SearchResult, search_config: SearchConfig) -> None:
    if found.summary.battery_sha256 not in ("", battery.sha256):
        raise ConfigError(
            f"the search was on battery {found.summary.battery!r} "
            f"({found.summary.battery_sha256[:12]}), given is {battery.name!r} "
            f"({battery.sha256[:12]}); give the battery that was searched"
        )
    if found.summary.pooling != search_config.pooling:
        raise ConfigError(
            f"the search pooled by {found.summary.pooling!r}, the settings say "
            f"{search_config.pooling!r}; give the settings of the search"
        )
    unknown = [c for c in battery.clusters if c not in found.parts]
    if unknown:
        raise StimulusError(
            f"{len(unknown)} clusters are not in the search's split, the first is {unknown[0]!r}; "
            "give the battery that was searched"
        )


def _check_reading(encoded: TokenActivations, search_config: SearchConfig) -> None:
    read, wanted = encoded.reading, reading_for(search_config.pooling, search_config)
    # The model is causal: what follows a text matters only where it is read itself.
    if search_config.pooling in SHARED and read.suffix != wanted.suffix:
        raise ConfigError(
            f"the activations were read with the suffix {read.suffix!r}, the search with "
            f"{wanted.suffix!r}; give the activations of the search or none"
        )
    if read.prefix != wanted.prefix:
        raise ConfigError(
            f"the activations were read with the prefix {read.prefix!r}, the search with "
            f"{wanted.prefix!r}; give the activations of the search or none"
        )


def _encode(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    search_config: SearchConfig,
    *,
    quiet: bool | None,
) -> TokenActivations:
    members = [m for p in battery.pairs for m in (p.clinical, p.neutral)]
    (encoded,) = encode_items(
        lm,
        [sae],
        [(m.id, m.text) for m in members],
        reading_for(search_config.pooling, search_config),
        batch_size=search_config.batch_size,
        label=f"battery {battery.name!r}",
        quiet=quiet,
    )
    return encoded


def _items(
    lm: LanguageModel,
    battery: Battery,
    places: tuple[Place, ...],
    encoded: TokenActivations,
    search_config: SearchConfig,
    *,
    quiet: bool | None,
) -> PairItems:
    design = PairDesign.from_battery(battery, encoded.item_ids)
    rows = np.concatenate([design.clinical, design.neutral])
    residuals = pooled_residuals(
        lm,
        places,
        encoded,
        rows.tolist(),
        search_config.pooling,
        batch_size=search_config.batch_size,
        quiet=quiet,
    )
    latents = pool(encoded, search_config.pooling).values.tocsr()[rows].tocsc()
    # What is silent in almost every text can neither be ranked nor help a probe.
    active = np.flatnonzero(np.diff(latents.indptr) >= search_config.min_items)
    documents = tuple(tuple(tokens(text)) for text in battery.pair_texts)
    return PairItems(design, residuals, latents[:, active].toarray(), active, documents)


def _searched(found: SearchResult) -> dict[str, Ranked]:
    """The best latents of each contrast of a search, by their SAE index."""
    out = {}
    for name, rows in found.table.groupby("contrast", sort=False):
        best = rows.sort_values("rank").head(TOP)
        signs = np.where(best["specificity"].to_numpy() < 0, -1.0, 1.0)
        out[str(name)] = Ranked(best["feature"].to_numpy(dtype=np.int64), signs)
    return out
