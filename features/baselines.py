"""What simpler methods reach on the pairs on which the SAE's latents are judged.

Dense probes, differences of means, single residual neurons and words stand in one table beside the
best latents, layer by layer from the embedding on. Everything is evaluated twice: on the search's
confirmation clusters (all that is fitted or chosen comes from its discovery clusters), and in
folds over all clusters (latents are then chosen anew in every fold). The second has more clusters
and so the narrower intervals; it judges the procedure and not the very latents of the table.

Verdicts compare each method with the best single latent. They are at 95% each, unadjusted for
their number. A dense probe at or above the latent says that the latent adds no separation; what
the latent may add is a name and a handle, which are tested elsewhere. Words or the embedding at or
above it say that the target can be told without context. A model with random weights, where
one is given, says as much: its stream holds the words, mixed over positions, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

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
    Rows,
    Scored,
    confirmation,
    cross_validation,
    score_all,
)
from affectlens.features.baseline_table import comparison_rows, verdict_counts
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.encode import encode_battery
from affectlens.features.encoding import TokenActivations
from affectlens.features.pooled_residuals import (
    Place,
    PooledResidual,
    default_places,
    place_of,
    pooled_residuals,
)
from affectlens.features.pooling import pool, reading_for
from affectlens.features.results import write_table
from affectlens.features.search import SearchResult
from affectlens.features.simple_directions import Ranked
from affectlens.features.validation_config import BaselineConfig
from affectlens.features.validation_records import BaselinesSummary
from affectlens.features.validation_views import BaselinesViews
from affectlens.sae.model import SparseAutoencoder


@dataclass(frozen=True, eq=False, repr=False)
class Baselines(BaselinesViews):
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
    random_lm: LanguageModel | None = None,
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
        random_lm: the model with weights drawn anew; adds the methods in `RANDOM_METHODS`, read at
            the SAE's place, at the cost of one more pass over the battery.
        quiet: no progress; see `progress.track`.

    Raises:
        ConfigError: another pooling, battery or SAE than the search's, a layer that the model
            does not have, or a `random_lm` that is the model or of another shape.
        StimulusError: one cluster only, clusters that the search did not split, or a text that
            cannot be read.
        StatisticsError: a value is not finite, or a probe does not converge.
    """
    config, search_config = config or BaselineConfig(), search_config or SearchConfig()
    check_searched(battery, found, search_config)
    if random_lm is not None:
        _check_random(lm, random_lm)
    places = default_places(sae.info.hook_name, config.layers, lm.n_layers)
    if encoded is None:
        (encoded,) = encode_battery(lm, [sae], battery, search_config, pairs_only=True, quiet=quiet)
    encoded.require(sae.info.sha256, reading_for(search_config.pooling, search_config))
    items = _items(lm, battery, places, encoded, search_config, quiet=quiet)
    if random_lm is not None:
        own = [place_of(sae.info.hook_name)]
        (blank,) = _residuals(random_lm, own, encoded, items.design, search_config, quiet=quiet)
        items = replace(items, random_residual=blank)
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


def check_searched(battery: Battery, found: SearchResult, search_config: SearchConfig) -> None:
    """Refuse a battery or settings that are not those of a search.

    Raises:
        ConfigError: another battery or pooling.
        StimulusError: clusters that the search did not split.
    """
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


def _check_random(lm: LanguageModel, random_lm: LanguageModel) -> None:
    if random_lm.fingerprint == lm.fingerprint:
        raise ConfigError(
            f"random_lm has the weights of {lm.name!r}; give a copy with weights drawn anew "
            "(training.random_model.random_weights)"
        )
    shapes = [(m.d_model, m.n_layers) for m in (lm, random_lm)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"random_lm has d_model and layers {shapes[1]}, the model {shapes[0]}; give a copy of "
            "the model with weights drawn anew"
        )


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
    residuals = _residuals(lm, places, encoded, design, search_config, quiet=quiet)
    latents = pool(encoded, search_config.pooling).values.tocsr()[rows].tocsc()
    # What is silent in almost every text can neither be ranked nor help a probe.
    active = np.flatnonzero(np.diff(latents.indptr) >= search_config.min_items)
    documents = tuple(tuple(tokens(text)) for text in battery.pair_texts)
    return PairItems(design, residuals, latents[:, active].toarray(), active, documents)


def _residuals(
    lm: LanguageModel,
    places: Sequence[Place],
    encoded: TokenActivations,
    design: PairDesign,
    search_config: SearchConfig,
    *,
    quiet: bool | None,
) -> tuple[PooledResidual, ...]:
    """The stream of clinical members, then of neutral ones, [2 n_pairs, d_model] at each place."""
    return pooled_residuals(
        lm,
        places,
        encoded,
        np.concatenate([design.clinical, design.neutral]).tolist(),
        search_config.pooling,
        batch_size=search_config.batch_size,
        quiet=quiet,
    )


def searched_ranks(found: Mapping[str, Ranked], latent_ids: Rows) -> dict[str, Ranked]:
    """Ranked SAE indices of a search as columns of `latents`.

    Raises:
        StimulusError: the search ranked a latent that is silent on these pairs.
    """
    column = {int(f): i for i, f in enumerate(latent_ids)}
    missing = [int(f) for r in found.values() for f in r.columns if int(f) not in column]
    if missing:
        raise StimulusError(
            f"{len(missing)} latents of the search are silent on these pairs, the first is "
            f"{missing[0]}; give the battery, pooling and SAE that were searched"
        )
    return {
        name: Ranked(np.array([column[int(f)] for f in r.columns], dtype=np.int64), r.signs)
        for name, r in found.items()
    }


def _searched(found: SearchResult) -> dict[str, Ranked]:
    """The best latents of each contrast of a search, by their SAE index."""
    out = {}
    for name, rows in found.table.groupby("contrast", sort=False):
        best = rows.sort_values("rank").head(TOP)
        signs = np.where(best["specificity"].to_numpy() < 0, -1.0, 1.0)
        out[str(name)] = Ranked(best["feature"].to_numpy(dtype=np.int64), signs)
    return out
