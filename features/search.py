"""The search: which latents respond to emotion, in general and to one emotion in particular.

Pairs are split by cluster into a discovery and a confirmation part. On the discovery part every
latent that is active often enough is tested in two kinds of contrast: 'all' asks whether the
clinical member lies above (or below) its neutral, by flipping signs; an emotion asks whether its
pair differences exceed those of the other emotions, by exchanging which units belong to it, so
that what all emotions share cancels. The best latents of each contrast are tested once more on
the confirmation part. Words are not controlled here: see the lexical card of the battery.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt
import pandas as pd
from scipy import sparse

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.store import ActivationStore
from affectlens.features.choosing import select
from affectlens.features.columns import STATS_COLUMNS
from affectlens.features.config import SearchConfig
from affectlens.features.contexts import contexts_of, scan_heldout
from affectlens.features.contrasts import ALL, run_contrasts
from affectlens.features.design import PairDesign, Part
from affectlens.features.encode import encode_battery
from affectlens.features.encoding import TokenActivations
from affectlens.features.fit import require_fit, stored_hook
from affectlens.features.pair_data import PairData, as_sparse
from affectlens.features.pooling import pool, reads_frame
from affectlens.features.read_columns import READS_COLUMNS
from affectlens.features.results import Context, SearchSummary, write_lines, write_table
from affectlens.features.screen_config import By
from affectlens.features.search_tables import (
    feature_table,
    leading,
    leading_of,
    pooled_table,
    search_summary,
    specificity_table,
)
from affectlens.features.search_views import SearchViews
from affectlens.features.selection import FeatureSet
from affectlens.features.testable import forget
from affectlens.sae.model import SparseAutoencoder

if TYPE_CHECKING:
    from affectlens.features.lexical_controls import LexicalControls
    from affectlens.features.screened import Screen

ENCODED_FILE = "search/encoded.h5"
"""Where a run folder keeps the battery as the search read it."""


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult(SearchViews):
    """What a search found.

    Attributes:
        table: one row a contrast and tested latent, best first (`FEATURE_COLUMNS`).
        summary: the family of tests, its power and the counts.
        parts: cluster -> 'discovery' or 'confirmation'.
        specificity: the leading latents against every emotion (`SPECIFICITY_COLUMNS`).
        pooled: their pooled activations pair by pair (`POOLED_COLUMNS`).
        stats: firing statistics of all latents on held-out text (`STATS_COLUMNS`); empty without
            a store.
        contexts: where in held-out text the leading latents fire; empty without a store.
        read_tokens: the tokens that pooling 'suffix' reads.
        reads: where every item was read (`READS_COLUMNS`); empty without a model.
        encoded: the battery as it was read; None without a model, and for a stored search.
        controls: the lexical controls; None where they were not asked for or not possible.
        screen: what latents do to the output; None where it was not asked for.
    """

    table: pd.DataFrame = field(repr=False)
    summary: SearchSummary
    parts: Mapping[str, Part] = field(repr=False)
    specificity: pd.DataFrame = field(repr=False)
    pooled: pd.DataFrame = field(repr=False)
    stats: pd.DataFrame = field(repr=False)
    contexts: tuple[Context, ...] = field(default=(), repr=False)
    read_tokens: tuple[str, ...] = ()
    reads: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(READS_COLUMNS)), repr=False
    )
    encoded: TokenActivations | None = field(default=None, repr=False)
    controls: LexicalControls | None = field(default=None, repr=False)
    screen: Screen | None = field(default=None, repr=False)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The contrasts that were tested: 'all' and the emotions."""
        return tuple(self.summary.min_p)

    @property
    def settings(self) -> SearchConfig:
        """The settings of this search; those of text contexts and batches have their defaults."""
        s = self.summary
        shared: dict[str, object] = {
            name: getattr(s, name)
            for name in ("pooling", "min_items", "n_permutations", "unit", "unit_emotion", "alpha")
        } | {"confirmation_share": s.confirmation_share, "n_retained": s.max_retained}
        if s.pooling in ("suffix", "suffix_last"):
            shared["suffix"] = s.suffix
        return SearchConfig.model_validate({**shared, "seed": s.seed})

    def top(
        self,
        contrast: str = ALL,
        n: int = 5,
        *,
        by: By = "input",
        confirmed: bool = False,
        rising: bool = True,
    ) -> FeatureSet:
        """The `n` best latents of a contrast by discovery rank; fewer if fewer qualify.

        Latents that never fire on held-out text have no unit for a clamp and do not qualify.
        For an emotion, only latents qualify that rise on its own pairs, and more than on others.
        For 'all', only those that rise on clinical texts, unless `rising` is False: what falls
        there would work against the others when a set is ablated or clamped. With `confirmed`,
        only latents that held on the confirmation part.

        `by` other than "input" picks by what latents do to the output (`choosing.select`), which
        takes a screen and no further condition.

        Raises:
            ConfigError: an unknown contrast, n below 1, or a choice by output without a screen or
                with `confirmed`.
        """
        if by != "input":
            if confirmed:
                raise ConfigError(
                    f"got by={by!r} and confirmed=True; confirmation is of what latents respond "
                    "to, so it goes with by='input'"
                )
            return select(self, self.screen, contrast, n, by)
        if contrast not in self.contrasts or n < 1:
            near = difflib.get_close_matches(contrast, self.contrasts, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"got contrast {contrast!r}, n={n}; need one of {', '.join(self.contrasts)} and "
                f"n >= 1{hint}"
            )
        rows = self.table[self.table["contrast"] == contrast]
        if contrast != ALL or rising:
            rows = rows[(rows["specificity"] > 0) & (rows["mean_diff"] > 0)]
        how = "discovery score"
        if confirmed:
            rows, how = rows[rows["confirmed"]], "discovery score, confirmed on held-out clusters"
        if len(self.stats):
            fires = self.stats.loc[self.stats["max_active"] > 0, "feature"]
            rows = rows[rows["feature"].isin(fires)]
        chosen = rows.sort_values("rank")["feature"].head(n)
        features = tuple(int(f) for f in chosen)
        made = self.summary.sae_sha256
        return FeatureSet(contrast, features, self.parts, self.stats, how, made, self.settings)

    def write(self, run: Path) -> Path:
        """Write `search/*` of a run folder, the summary last; returns its path.

        Tables that need a store are written only if there was one. What later stages made of an
        earlier search in this folder is removed.
        """
        folder = Path(run) / "search"
        forget(Path(run))
        write_table(self.table, run, "search/features")
        write_table(self.specificity, run, "search/specificity")
        write_table(self.pooled, run, "search/pooled")
        write_table(self.reads, run, "search/reads")
        if self.encoded is not None:
            self.encoded.write(Path(run) / ENCODED_FILE)
        else:
            (Path(run) / ENCODED_FILE).unlink(missing_ok=True)
        if len(self.stats):
            write_table(self.stats, run, "search/feature_stats")
            write_lines(folder / "contexts.jsonl", self.contexts)
        else:
            # What an earlier search with a store left here belongs to other results.
            for name in ("feature_stats.parquet", "feature_stats.csv", "contexts.jsonl"):
                (folder / name).unlink(missing_ok=True)
        if self.controls is not None:
            self.controls.write(run)
        self.write_screen(run)
        return self.summary.write(run)

    def write_screen(self, run: Path) -> None:
        """Write the screen, if there is one, and the table with the columns that it fills."""
        if self.screen is not None:
            write_table(self.table, run, "search/features")
            self.screen.write(Path(run))


def search(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    config: SearchConfig | None = None,
    *,
    out: Path | None = None,
    store: ActivationStore | None = None,
    lexical_warning: str = "",
    allow_misfit: Sequence[str] = (),
) -> SearchResult:
    """Search an SAE for latents that respond to the emotions of a battery.

    Args:
        lm: the model that the SAE reads.
        sae: the SAE.
        battery: matched pairs.
        config: settings.
        out: run folder; results are written below `out/search` if given.
        store: activations whose held-out part gives firing rates and text contexts.
        lexical_warning: what the lexical card of the battery warns of; kept in the summary.
        allow_misfit: misfits to pass over, see `fit.require_fit`; kept in the summary.

    Raises:
        SAEError: the SAE does not fit the model, or the store lacks the SAE's hook.
        StimulusError: no pairs, or a text that does not fit the context.
    """
    config = config or SearchConfig()
    passed = require_fit(sae, lm, store=store, allow=allow_misfit)
    (encoded,) = encode_battery(lm, [sae], battery, config)

    def decode(token: int) -> str:
        return str(lm.tokenizer.decode([token]))

    pooled = pool(encoded, config.pooling, decode)
    found = search_activations(
        pooled.values,
        PairDesign.from_battery(battery, pooled.item_ids),
        config,
        battery=battery.name,
        battery_sha256=battery.sha256,
        lexical_warning=lexical_warning,
    )
    summary = replace(found.summary, misfits=passed, sae_sha256=sae.info.sha256)
    found = replace(
        found,
        read_tokens=pooled.read_tokens,
        summary=summary,
        reads=reads_frame(encoded, config.pooling, decode),
        encoded=encoded,
    )
    if store is not None:
        shown = leading(found.table, config.n_context_features)
        hook = stored_hook(sae, store, allow=allow_misfit)
        scan = scan_heldout(sae, store, hook, features=shown, max_rows=config.n_stats_tokens)
        contexts = contexts_of(scan, lm.tokenizer, config.n_contexts, config.context_width)
        found = replace(found, stats=scan.stats, contexts=tuple(contexts))
    if out is not None:
        found.write(Path(out))
    return found


def search_activations(
    pooled: npt.ArrayLike | sparse.sparray | sparse.spmatrix,
    design: PairDesign,
    config: SearchConfig | None = None,
    *,
    battery: str = "",
    battery_sha256: str = "",
    lexical_warning: str = "",
) -> SearchResult:
    """The search on pooled activations [n_items, d_sae], dense or sparse; needs no model.

    Latents are dense in blocks only, so a million of them fit.

    A contrast carries at most floor(alpha / 2 p_min) latents (but one at least) into confirmation,
    where p_min is the smallest p that its confirmation part can give: with twice as many, only the
    single most extreme result could pass Holm. The number follows from the design alone.

    Raises:
        StatisticsError: a value is NaN or infinite.
        StimulusError: no pairs, or a cluster with two emotions.
    """
    config = config or SearchConfig()
    data = PairData.of(as_sparse(pooled), design, config)
    contrasts = run_contrasts(data.differences(data.tested), data.design, data.parts, config)
    table = feature_table(contrasts, data, config)
    best = {c.name: leading_of(table, c.name, config.n_retained) for c in contrasts}
    return SearchResult(
        table=table,
        summary=search_summary(
            table,
            contrasts,
            data,
            config,
            battery=battery,
            battery_sha256=battery_sha256,
            lexical_warning=lexical_warning,
        ),
        parts=data.parts,
        specificity=specificity_table(best, data),
        pooled=pooled_table(best, data),
        stats=pd.DataFrame({c: pd.Series(dtype=float) for c in STATS_COLUMNS}),
    )
