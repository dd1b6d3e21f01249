"""Lexical controls of a search: is a found latent about what the words say, or about the words?

Every retained latent of every contrast goes through the shuffles, the regression on words, the
shared tokens, the masses on words, and the strict batteries, each described in its own module; it
ends in a class (`feature_classes`). By default only pairs that had no part in finding the latents
are used. Orders, passages and settings are drawn without looking at labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.corpus import Corpus, load_corpus
from affectlens.data.errors import StimulusError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, Pair, load_battery
from affectlens.features.config import SearchConfig
from affectlens.features.controls_tables import ControlInputs, Shuffled, control_tables
from affectlens.features.design import PairDesign
from affectlens.features.encode import encode_items
from affectlens.features.encoding import TokenActivations
from affectlens.features.feature_classes import CLASSES, MOSTLY
from affectlens.features.lexical_share import fit_lexical, predictors, unseen_share, vocabulary
from affectlens.features.pair_data import Members
from affectlens.features.passages import Passages, passages
from affectlens.features.pooling import SHARED, pool, reading_for
from affectlens.features.results import write_table
from affectlens.features.shared_tokens import shared_tokens
from affectlens.features.shuffle_control import shufflable, shuffle_text
from affectlens.features.strict_pairs import StrictPairs
from affectlens.features.validation_config import ControlsConfig, Grain
from affectlens.features.validation_records import ControlsSummary
from affectlens.features.validation_views import ControlsViews
from affectlens.features.word_mass import piece_of, token_words
from affectlens.sae.model import SparseAutoencoder

if TYPE_CHECKING:
    from affectlens.features.search import SearchResult

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class LexicalControls(ControlsViews):
    """Lexical controls of a search.

    Attributes:
        table: one row a contrast and retained latent (`CONTROLS_COLUMNS`).
        grains: one row a contrast, retained latent and grain of shuffling (`GRAIN_COLUMNS`).
        strict: one row a contrast, retained latent and strict battery (`STRICT_COLUMNS`).
        summary: settings and counts.
    """

    table: pd.DataFrame = field(repr=False)
    grains: pd.DataFrame = field(repr=False)
    strict: pd.DataFrame = field(repr=False)
    summary: ControlsSummary

    def write(self, run: Path) -> Path:
        """Write the tables and the summary as `search/*` of a run folder; returns its path."""
        write_table(self.table, run, "search/controls")
        write_table(self.grains, run, "search/control_grains")
        write_table(self.strict, run, "search/strict")
        return self.summary.write(run)


def lexical_controls(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    config: ControlsConfig | None = None,
    search_config: SearchConfig | None = None,
    *,
    encoded: TokenActivations | None = None,
    corpus: Corpus | None = None,
    quiet: bool | None = None,
) -> LexicalControls:
    """Put every retained latent of a search through the lexical controls.

    Args:
        lm: the model that the SAE reads.
        sae: the SAE that was searched.
        battery: the battery that was searched.
        found: what the search found.
        config: settings of the controls.
        search_config: settings of the search; tests and pooling are the same here.
        encoded: activations of the battery, read as the search reads it; encoded here if not given.
        corpus: unlabelled text for the regression on words; `config.corpus` if not given.
        quiet: no progress; see `progress.track`.

    Raises:
        StimulusError: the battery is not the one searched, no pair is left to test, an item was not
            encoded, or the corpus gives no passages.
        ArtifactError: `encoded` is of another SAE or was read in another way.
        ConfigError: an unknown strict battery.
        MachineError: see `encode_items`.
    """
    config, search_config = config or ControlsConfig(), search_config or SearchConfig()
    runner = _Runner(lm, sae, config, search_config, quiet)
    design, pairs = _pairs(battery, found, config)
    retained = found.table.loc[found.table["retained"], "feature"]
    latents = np.unique(retained.to_numpy(dtype=np.int64))
    if encoded is None:
        items = [(m.id, m.text) for p in pairs for m in (p.clinical, p.neutral)]
        encoded = runner.encode(items, f"pairs of {battery.name!r}")
    else:
        encoded.require(sae.info.sha256, runner.reading)
    design = _placed(design, pairs, encoded.item_ids)
    original = _members(runner.pool(encoded, latents), design)
    corpus = corpus or load_corpus(config.corpus)
    drawn = passages(corpus, battery.pair_texts, config.n_texts, config.seed)
    words = vocabulary(drawn.texts)
    read = runner.encode(list(zip(drawn.ids, drawn.texts, strict=True)), "passages")
    once = search_config.pooling == "max"
    x = predictors(drawn.texts, words, presence=once)
    fit = fit_lexical(x, runner.pool(read, latents), drawn.documents, config.seed)
    predicted = fit.predict(
        predictors([p.clinical.text for p in pairs], words, presence=once)
    ) - fit.predict(predictors([p.neutral.text for p in pairs], words, presence=once))
    strict = _strict_batteries(config, battery)
    inputs = ControlInputs(
        latents=latents,
        design=design,
        encoded=encoded,
        words=token_words(encoded, piece_of(lm.tokenizer)),
        original=original,
        shuffled={grain: runner.shuffle(pairs, grain, latents) for grain in config.grains},
        fit=fit,
        predicted=predicted,
        shared=None if search_config.pooling in SHARED else shared_tokens(encoded, design, latents),
        strict=[runner.strict(b, latents) for b in strict],
    )
    tables = control_tables(found.table, inputs, config, search_config)
    texts = [m.text for p in pairs for m in (p.clinical, p.neutral)]
    summary = _summary(
        tables.table, inputs, drawn, corpus, unseen_share(texts, words), config, search_config
    )
    return LexicalControls(tables.table, tables.grains, tables.strict, summary)


class _Runner:
    """Reads texts with one model and SAE in the way of one search."""

    def __init__(
        self,
        lm: LanguageModel,
        sae: SparseAutoencoder,
        config: ControlsConfig,
        search_config: SearchConfig,
        quiet: bool | None,  # noqa: FBT001
    ) -> None:
        self.lm, self.sae, self.config, self.search = lm, sae, config, search_config
        self.quiet = quiet
        self.reading = reading_for(search_config.pooling, search_config)

    def encode(self, items: Sequence[tuple[str, str]], label: str) -> TokenActivations:
        (encoded,) = encode_items(
            self.lm,
            [self.sae],
            items,
            self.reading,
            batch_size=self.search.batch_size,
            label=label,
            quiet=self.quiet,
        )
        return encoded

    def pool(self, encoded: TokenActivations, latents: Rows) -> Array:
        """[n_items, n_latents]."""
        values = pool(encoded, self.search.pooling).values
        return np.asarray(values[:, latents].toarray(), dtype=float)

    def shuffle(self, pairs: Sequence[Pair], grain: Grain, latents: Rows) -> Shuffled:
        rows = shufflable(pairs, grain)
        values = np.zeros((self.config.n_shuffles, len(rows), 2, len(latents)))
        for k in range(self.config.n_shuffles if len(rows) else 0):
            items = [
                (m.id, shuffle_text(m.text, m.id, grain, k, self.config.seed))
                for i in rows
                for m in (pairs[i].clinical, pairs[i].neutral)
            ]
            label = f"{grain.replace('_', ' ')} shuffled, {k + 1} of {self.config.n_shuffles}"
            # Members alternate, as they were listed.
            values[k] = self.pool(self.encode(items, label), latents).reshape(values.shape[1:])
        return Shuffled(rows, Members(values[:, :, 0], values[:, :, 1]))

    def strict(self, battery: Battery, latents: Rows) -> StrictPairs:
        items = [(m.id, m.text) for p in battery.pairs for m in (p.clinical, p.neutral)]
        encoded = self.encode(items, f"battery {battery.name!r}")
        design = PairDesign.from_battery(battery, encoded.item_ids)
        members = _members(self.pool(encoded, latents), design)
        return StrictPairs(battery.name, members.differences, design)


def _pairs(
    battery: Battery, found: SearchResult, config: ControlsConfig
) -> tuple[PairDesign, tuple[Pair, ...]]:
    """The pairs to test, in the battery's order."""
    searched = found.summary.battery_sha256
    design = PairDesign.from_battery(battery, [item.id for item in battery.items])
    unknown = sorted(set(design.clusters) - set(found.parts))
    if (searched and searched != battery.sha256) or unknown:
        raise StimulusError(
            f"battery {battery.name!r} is not the one that was searched "
            f"({found.summary.battery!r}); give that one"
        )
    rows = np.arange(len(design))
    if config.part == "confirmation":
        rows = design.rows(found.parts, "confirmation")
    if not len(rows):
        raise StimulusError(
            "the search kept no pairs for confirmation, so there are none to test controls on; "
            "search with a confirmation_share above 0"
        )
    return design.take(rows), tuple(battery.pairs[i] for i in rows)


def _placed(design: PairDesign, pairs: Sequence[Pair], item_ids: Sequence[str]) -> PairDesign:
    """The design with rows that index these items."""
    row = {item: i for i, item in enumerate(item_ids)}
    missing = [m.id for p in pairs for m in (p.clinical, p.neutral) if m.id not in row]
    if missing:
        raise StimulusError(
            f"{len(missing)} items were not encoded, the first is {missing[0]!r}; encode the "
            "battery that was searched"
        )
    return replace(
        design,
        clinical=np.array([row[p.clinical.id] for p in pairs], dtype=np.int64),
        neutral=np.array([row[p.neutral.id] for p in pairs], dtype=np.int64),
    )


def _members(values: Array, design: PairDesign) -> Members:
    return Members(values[design.clinical], values[design.neutral])


def _strict_batteries(config: ControlsConfig, searched: Battery) -> list[Battery]:
    """The strict batteries; one that was searched itself would be tested on its own choice."""
    loaded = [load_battery(name) for name in config.strict]
    return [b for b in loaded if b.sha256 != searched.sha256]


def _summary(
    table: pd.DataFrame,
    inputs: ControlInputs,
    drawn: Passages,
    corpus: Corpus,
    unseen: float,
    config: ControlsConfig,
    search_config: SearchConfig,
) -> ControlsSummary:
    by_contrast = table.groupby("contrast", sort=False)
    return ControlsSummary(
        part=config.part,
        pooling=search_config.pooling,
        n_pairs=len(inputs.design),
        n_latents=len(inputs.latents),
        classes={
            str(name): {c: int((rows["class"] == c).sum()) for c in CLASSES}
            for name, rows in by_contrast
        },
        n_strict={str(name): int((rows["strict"] != "").sum()) for name, rows in by_contrast},
        grains=list(config.grains),
        n_shuffles=config.n_shuffles,
        n_excluded={g: len(inputs.design) - len(s.rows) for g, s in inputs.shuffled.items()},
        n_passages=len(drawn.texts),
        n_passages_asked=drawn.n_asked,
        n_passages_shared=drawn.n_shared,
        n_passages_repeated=drawn.n_repeated,
        n_passage_documents=len(np.unique(drawn.documents)),
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        n_words=len(inputs.fit.centre),
        unseen_share=unseen,
        strict=[b.battery for b in inputs.strict],
        mostly=MOSTLY,
        max_r2=config.max_r2,
        alpha=search_config.alpha,
        seed=config.seed,
    )
