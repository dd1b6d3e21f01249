"""How many emotion features does the same search find where there is nothing to find?

The SAE's recipe is trained again on a model whose weights were drawn anew and on the embedding
(`training.nulls`), and each of these SAEs is searched with the same battery, settings and
statistics. What they yield is what words and their order give to any dictionary of this size; only
what the SAE has above that can be owed to what the model has learned. Neither is a null in which
emotion is absent: random weights still pass words on, and mix them over positions. So a count
above 0 there is no false positive rate (for that, see `features.calibration`).

A null that reads tokens that are equal in all texts (a shared suffix, at the embedding) gives every
text the same numbers. This is said in place of a zero, and 'mean' stands beside it for every SAE.
The SAEs differ in how many latents fire often enough to be tested; the family-wise p takes account
of each one's own number, so a null with more of them has to clear a higher bar. The effects of the
best latents stand beside the counts, because they do not depend on that.

Latent by latent: the share of a null's retained latents that do as well on the confirmation part
(`p_null`). Both sides were chosen by the same rule on the discovery part and are compared on the
other part, so choice favours neither, if about as many were tested. What it is not: it is not
adjusted for the number of latents that are compared; the others share one SAE and its texts and
may copy one another; with n of them it cannot be below 1 / (n + 1); and another seed of the null
gives another value. Read it as a rank among equals, and rest claims on the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from affectlens.data.addresses import Address
from affectlens.data.corpus import Corpus
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.store import ActivationStore
from affectlens.features.baselines import check_searched
from affectlens.features.config import Pooling, SearchConfig
from affectlens.features.design import PairDesign, split_clusters
from affectlens.features.encode import encode_battery
from affectlens.features.encoding import TokenActivations
from affectlens.features.null_columns import NULL_COLUMNS, NULL_LATENT_COLUMNS
from affectlens.features.null_tables import (
    nulls_summary,
    reaching,
    search_rows,
)
from affectlens.features.pooling import SHARED, pool, reading_for
from affectlens.features.results import write_table
from affectlens.features.search import SearchResult, search_activations
from affectlens.features.validation_records import NullSearchSummary
from affectlens.result_views import NullViews
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae_comparison import OWN
from affectlens.training.evaluate import HELDOUT_TOKENS, reconstruction
from affectlens.training.null_names import NULLS, check_names
from affectlens.training.nulls import NullSAE, null_saes, place_in, plan_nulls

_ROUNDING = 1e-4
"""Spread of a pooled latent, over the largest latent, that is put down to rounding."""


@dataclass(frozen=True, eq=False, repr=False)
class NullSearch(NullViews):
    """The same search in SAEs that were trained where there is nothing to find.

    Attributes:
        table: one row an SAE, pooling and contrast, the SAE itself first (`NULL_COLUMNS`).
        latents: one row a retained latent of the SAE and other SAE (`NULL_LATENT_COLUMNS`).
        summary: settings and counts.
    """

    table: pd.DataFrame = field(repr=False)
    latents: pd.DataFrame = field(repr=False)
    summary: NullSearchSummary

    def write(self, run: Path) -> Path:
        """Write both tables and the summary as `search/null*` of a run folder; returns its path."""
        write_table(self.table, run, "search/nulls")
        write_table(self.latents, run, "search/null_latents")
        return self.summary.write(run)


@dataclass(frozen=True, eq=False)
class _Arm:
    """One SAE to search; NaN and None where unknown."""

    kind: str
    lm: LanguageModel
    sae: SparseAutoencoder
    n_samples: int | None
    fvu: float
    l0: float
    dead_share: float
    remark: str = ""

    @classmethod
    def of(cls, null: NullSAE, remark: str) -> _Arm:
        """An SAE that was trained as a null."""
        r = null.result
        measured = (r.n_samples, r.fvu, r.l0, r.dead_share)
        return cls(r.kind, null.lm, null.sae, *measured, remark)

    @property
    def says(self) -> dict[str, object]:
        """Its columns, the same in every row."""
        return {
            "sae": self.kind,
            "model": self.lm.name,
            "hook": Address.parse(self.sae.info.hook_name).name,
            "n_samples": self.n_samples,
            "d_sae": self.sae.d_sae,
            "fvu": self.fvu,
            "l0": self.l0,
            "dead_share": self.dead_share,
            "remark": self.remark,
        }


def search_nulls(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    names: Sequence[str] = NULLS,
    config: SearchConfig | None = None,
    *,
    encoded: TokenActivations | None = None,
    store: ActivationStore | None = None,
    corpus: Corpus | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    work: Path | None = None,
    quiet: bool | None = None,
    out: Path | None = None,
) -> NullSearch:
    """Train the SAE's nulls, search them as the SAE was searched, and set the counts side by side.

    Slow: one harvest and one training for each null, as `training.nulls.train_nulls`.

    Args:
        lm: the model that the SAE reads; not changed.
        sae: the SAE that was searched.
        battery: the battery that was searched.
        found: its search.
        names: which of `null_names.NULLS`, one at least.
        config: settings of that search.
        encoded: the battery under the SAE, read as the search reads it; encoded if not given.
        store: the SAE's activations: corpus, windows and mask of the nulls are taken from it, and
            the SAE's FVU is measured on it.
        corpus: text to train on; the embedded one by default.
        n_samples: activations to train each on; the SAE's own number by default.
        seed: seed of the random weights and of the trainings.
        work: folder for temporary activations (d_model x 4 bytes a token); the system's by default.
        quiet: no progress; see `progress.track`.
        out: run folder to write to.

    Raises:
        ConfigError: an unknown null or none, or another pooling, battery, split or SAE than the
            search's.
        StimulusError: clusters that the search did not split, or a text that cannot be read.
        HookError: the SAE's place lies outside the model.
        MachineError: not enough space for the activations.
    """
    config = config or SearchConfig()
    names = check_names(names)
    if not names:
        raise ConfigError(f"no null was named; known: {', '.join(NULLS)}")
    _check(sae, battery, found, config)
    if encoded is not None:
        encoded.require(sae.info.sha256, reading_for(config.pooling, config))
    searcher = _Searcher(battery, config, quiet=quiet)
    own = _own_arm(lm, sae, store)
    real = searcher.search(own, encoded, known={config.pooling: found})
    plan = plan_nulls(sae, store, corpus, n_samples, seed)
    trained = null_saes(sae, lm, names, plan, store=store, work=work, quiet=quiet)
    arms = (_Arm.of(null, "; ".join(plan.remarks)) for null in trained)
    others = {arm.kind: (arm, searcher.search(arm)) for arm in arms}
    made = _compared(own, real, others, found)
    summary = nulls_summary(
        *made,
        config,
        battery=battery.name,
        battery_sha256=battery.sha256,
        sae_hook=sae.info.hook_name,
        names=names,
        comparable=plan.comparable,
        seed=seed,
    )
    result = NullSearch(*made, summary)
    if out is not None:
        result.write(Path(out))
    return result


def _check(
    sae: SparseAutoencoder, battery: Battery, found: SearchResult, config: SearchConfig
) -> None:
    check_searched(battery, found, config)
    if found.summary.n_features != sae.d_sae:
        raise ConfigError(
            f"the search was of {found.summary.n_features:,} latents, the SAE has {sae.d_sae:,}; "
            "give the SAE that was searched"
        )
    pairs = battery.pairs
    parts = split_clusters(
        [p.cluster for p in pairs],
        [p.emotion for p in pairs],
        config.confirmation_share,
        config.seed,
    )
    if parts != dict(found.parts):
        raise ConfigError(
            f"seed {config.seed} and confirmation_share {config.confirmation_share:g} split the "
            "clusters otherwise than the search did; give the settings of the search"
        )


@dataclass(frozen=True)
class _Searcher:
    """The same battery and settings for every SAE."""

    battery: Battery
    config: SearchConfig
    quiet: bool | None

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """The search's pooling, and 'mean' beside one that reads the same tokens in every text."""
        own = self.config.pooling
        return (own, "mean") if own in SHARED else (own,)

    def search(
        self,
        arm: _Arm,
        encoded: TokenActivations | None = None,
        known: Mapping[Pooling, SearchResult] | None = None,
    ) -> dict[Pooling, SearchResult | None]:
        """The search under each pooling; None where all texts give the same numbers."""
        known = known or {}
        out: dict[Pooling, SearchResult | None] = {**known}
        todo = [p for p in self.poolings if p not in known]
        if todo and encoded is None:
            (encoded,) = encode_battery(
                arm.lm,
                [arm.sae],
                self.battery,
                self.config,
                pairs_only=True,
                label=f", {arm.kind}",
                quiet=self.quiet,
            )
        for pooling in todo:
            assert encoded is not None
            pooled = pool(encoded, pooling)
            out[pooling] = None
            if pooling not in SHARED or not _alike(pooled.values):
                out[pooling] = search_activations(
                    pooled.values,
                    PairDesign.from_battery(self.battery, pooled.item_ids),
                    self.config.model_copy(update={"pooling": pooling}),
                    battery=self.battery.name,
                    battery_sha256=self.battery.sha256,
                )
        return out


def _alike(values: sparse.csc_array) -> bool:
    """Every row of [n_items, d_sae] holds the same numbers, up to rounding."""
    if not values.nnz:
        return True
    high, low = (np.asarray(m.todense()).ravel() for m in (values.max(axis=0), values.min(axis=0)))
    return bool((high - low).max() <= _ROUNDING * np.abs(values.data).max())


def _own_arm(lm: LanguageModel, sae: SparseAutoencoder, store: ActivationStore | None) -> _Arm:
    metadata = sae.sae.cfg.metadata.to_dict()
    runs = [metadata.get(name) or {} for name in ("training_end", "training_run")]
    n = next((run["n_samples"] for run in runs if run.get("n_samples")), None)
    if store is None or place_in(store, sae.info.hook_name) not in store.hook_names:
        return _Arm(OWN, lm, sae, n, np.nan, np.nan, np.nan, "no activations to measure it on")
    rows = store.heldout(place_in(store, sae.info.hook_name), HELDOUT_TOKENS).acts
    meter = reconstruction(sae, rows)
    return _Arm(OWN, lm, sae, n, meter.fvu, meter.l0, meter.dead_share)


def _compared(
    own: _Arm,
    real: Mapping[Pooling, SearchResult | None],
    others: Mapping[str, tuple[_Arm, Mapping[Pooling, SearchResult | None]]],
    found: SearchResult,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables."""
    rows, latents = [], []
    for arm, results in ((own, real), *others.values()):
        for pooling, result in results.items():
            rows += [{**arm.says, **row} for row in search_rows(result, pooling, found.contrasts)]
            mine = real[pooling]
            if arm is not own and mine is not None and result is not None:
                latents += [{"sae": arm.kind, **row} for row in reaching(mine, result, pooling)]
    table = pd.DataFrame(rows, columns=list(NULL_COLUMNS))
    whole = [c for c in NULL_COLUMNS if c.startswith("n_") or c in ("d_sae", "best_feature")]
    return (
        table.astype(dict.fromkeys(whole, "Int64")),
        pd.DataFrame(latents, columns=list(NULL_LATENT_COLUMNS)),
    )
