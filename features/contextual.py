"""Contextual card of a battery: what a model knows of its emotions beyond the words.

The counterpart of the lexical audit. The same sentence is appended to every text, so that both
members of a pair are read at the same tokens and only context can differ:

1. A linear probe (logistic regression, standardised inside the fold, whole emotion x domain
   clusters left out) tells emotional from neutral texts, at the last token of that sentence and at
   the mean over its tokens, for some blocks. Set beside it: the mean over the text's own tokens,
   which a bag of words explains in part (at the embedding entirely).
2. The emotion-word readout (`readouts`) of the unedited model, emotional against neutral member,
   for each emotion; p by sign flips over pairs, Holm-adjusted over the emotions.

A probe above the lexical rows shows that the model combines words; it does not show which features
do, nor that they matter for its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from affectlens.data.addresses import Address
from affectlens.data.artifacts import read_versioned, write_versioned
from affectlens.data.errors import ArtifactError, ConfigError, StimulusError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features._words import tokens
from affectlens.features.config import ContextConfig
from affectlens.features.contrasts import ALL
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.encode import common_start
from affectlens.features.lexical import StaticMeans
from affectlens.features.pooled_residuals import Positions, residuals_at
from affectlens.features.readout_check import check_readout

FORMAT_VERSION = 1
Place = Literal["suffix_last", "suffix_mean", "text_mean"]
PLACES: tuple[Place, ...] = ("suffix_last", "suffix_mean", "text_mean")
_LEVEL = 0.01


@dataclass(frozen=True)
class ProbeScore:
    """A linear probe on items it was not fitted to; chance is 0.5.

    `layer` is the block whose output was read, `place` where: the last token of the appended
    sentence, the mean over its tokens, or the mean over the text's own tokens. Bounds are the 95 %
    interval of a bootstrap over clusters.
    """

    layer: int
    place: str
    auroc: float
    paired_accuracy: float
    auroc_low: float | None
    auroc_high: float | None
    paired_low: float | None
    paired_high: float | None


@dataclass(frozen=True)
class ReadoutScore:
    """Readout of an emotion on its own pairs, unedited model.

    `mean_diff` in nats, `d_z` over pairs (None where all differences are equal), `p` two-sided
    sign flip, `p_holm` adjusted over the emotions ('all' stands apart and is not adjusted).
    """

    emotion: str
    n_pairs: int
    mean_diff: float
    d_z: float | None
    auroc_paired: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class ContextualCard:
    """What a model knows of a battery's emotions. `mid_layer` is the block at half depth."""

    battery: str
    battery_sha256: str
    model: str
    suffix: str
    mid_layer: int
    n_pairs: int
    probes: tuple[ProbeScore, ...]
    readouts: tuple[ReadoutScore, ...]

    @property
    def mid_depth(self) -> ProbeScore:
        """The probe at half depth and the last token of the appended sentence.

        Raises:
            ConfigError: that layer was not probed.
        """
        for row in self.probes:
            if (row.layer, row.place) == (self.mid_layer, "suffix_last"):
                return row
        raise ConfigError(f"layer {self.mid_layer} was not probed; add it to `layers`")

    @property
    def n_read(self) -> int:
        """Emotions whose readout is higher on the emotional members, Holm-adjusted p < .01."""
        return sum(
            r.emotion != ALL and r.mean_diff > 0 and r.p_holm < _LEVEL for r in self.readouts
        )

    @property
    def table(self) -> pd.DataFrame:
        """The probes as a table."""
        return pd.DataFrame([asdict(p) for p in self.probes])

    def readouts_frame(self) -> pd.DataFrame:
        """The readouts as a table."""
        return pd.DataFrame([asdict(r) for r in self.readouts])

    def write(self, path: Path) -> Path:
        """Write the card as JSON."""
        return write_versioned(path, FORMAT_VERSION, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ContextualCard:
        """Read a card written by `write`.

        Raises:
            ArtifactError: absent, not JSON, another format version, or other fields.
        """
        payload = read_versioned(path, FORMAT_VERSION, cure="run the audit with --model again")
        try:
            probes = tuple(ProbeScore(**p) for p in payload.pop("probes"))
            readouts = tuple(ReadoutScore(**r) for r in payload.pop("readouts"))
            return cls(probes=probes, readouts=readouts, **payload)
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is not a contextual card of this release ({error})"
            ) from error


def contextual_card(
    lm: LanguageModel, battery: Battery, config: ContextConfig | None = None
) -> ContextualCard:
    """Probe a model on a battery and read its emotion words.

    Cost: two passes over the texts (one stops at the highest probed block). Memory holds
    [2 n_pairs, d_model] float32 for three places of every probed layer.

    Raises:
        StimulusError: fewer than two clusters of pairs.
        ConfigError: a layer that the model lacks.
    """
    config = config or ContextConfig()
    if len(battery.clusters) < 2:
        raise StimulusError(
            f"battery {battery.name!r} has {len(battery.clusters)} clusters of pairs; a probe "
            "needs at least 2, one to fit on and one to test"
        )
    layers = config.layers or default_layers(lm.n_layers)
    wrong = [layer for layer in layers if not 0 <= layer < lm.n_layers]
    if wrong:
        raise ConfigError(f"layers {wrong} do not exist; the model has 0 to {lm.n_layers - 1}")
    read = _read(lm, battery, layers, config)
    return ContextualCard(
        battery=battery.name,
        battery_sha256=battery.sha256,
        model=lm.name,
        suffix=config.suffix,
        mid_layer=lm.n_layers // 2,
        n_pairs=len(battery.pairs),
        probes=tuple(
            _probe(battery, layer, place, read[layer, place], config)
            for layer in layers
            for place in PLACES
        ),
        readouts=_readouts(lm, battery, config),
    )


def default_layers(n_layers: int) -> tuple[int, ...]:
    """First block, the quarters (half depth among them) and the last block."""
    return tuple(sorted({0, n_layers // 4, n_layers // 2, 3 * n_layers // 4, n_layers - 1}))


def static_means(lm: LanguageModel, battery: Battery) -> StaticMeans:
    """Mean of the model's static token embeddings over each paired text.

    Each word is encoded by itself, in small letters after a blank, so that texts of the same words
    have the same mean (capitals and marks follow order). No forward pass is made, so nothing of the
    context can enter.
    """
    embed = cast(torch.nn.Embedding, lm.model.get_input_embeddings())
    table = embed.weight.detach()
    rows = [_word_ids(lm, text) for text in battery.pair_texts]
    means = [table[torch.tensor(ids, device=table.device)].float().mean(0) for ids in rows]
    return StaticMeans(lm.name, torch.stack(means).cpu().numpy())


def _word_ids(lm: LanguageModel, text: str) -> list[int]:
    """Token ids of every word; those of the text where it has no word. Sorted: sums are exact."""
    ids = [
        i
        for word in tokens(text)
        for i in lm.tokenizer.encode(" " + word, add_special_tokens=False)
    ]
    return sorted(ids) or lm.token_ids(text, add_special_tokens=False, label="a battery's text")


def _read(
    lm: LanguageModel, battery: Battery, layers: Sequence[int], config: ContextConfig
) -> dict[tuple[int, Place], npt.NDArray[np.float32]]:
    """[2 n_pairs, d_model] for every layer and place."""
    rows = [
        lm.token_ids(t + config.suffix, label="a text of the battery") for t in battery.pair_texts
    ]
    tail = _common_tail(rows)
    positions: dict[Place, list[Positions]] = {
        "suffix_last": [np.array([len(row) - 1]) for row in rows],
        "suffix_mean": [np.arange(len(row) - tail, len(row)) for row in rows],
        # The first token carries the attention sink, not the text.
        "text_mean": [np.arange(1, max(len(row) - tail, 2)) for row in rows],
    }
    found = residuals_at(
        lm,
        [Address(layer, "resid_post").name for layer in layers],
        rows,
        [positions[place] for place in PLACES],
        batch_size=config.batch_size,
        quiet=True,
    )
    return {
        (layer, place): found[i, j]
        for i, place in enumerate(PLACES)
        for j, layer in enumerate(layers)
    }


def _common_tail(rows: Sequence[Sequence[int]]) -> int:
    """Tokens at the end that all texts share: the suffix, and what the texts themselves end with.

    `encode` counts the suffix alone. Here a full stop that closes every text is read with it.
    """
    common = common_start([row[::-1] for row in rows])
    if common == 0:
        raise StimulusError(
            "the suffix has no token that is the same in every text; begin it with a space and end "
            "it with a full stop"
        )
    return common


def _probe(
    battery: Battery,
    layer: int,
    place: Place,
    values: npt.NDArray[np.float32],
    config: ContextConfig,
) -> ProbeScore:
    from affectlens.features._lexical_models import NumberDesign, cross_validated

    clusters = [p.cluster for p in battery.pairs]
    found = cross_validated(
        NumberDesign(values.astype(np.float64), strength=config.strength),
        clusters,
        clusters,
        n_folds=config.n_folds,
        n_repeats=config.n_repeats,
        n_bootstrap=config.n_bootstrap,
        seed=config.seed,
    )
    return ProbeScore(layer, place, found.auroc, found.paired_accuracy, *found.bounds)


def _readouts(
    lm: LanguageModel, battery: Battery, config: ContextConfig
) -> tuple[ReadoutScore, ...]:
    from affectlens.features.stats import holm

    settings = InterveneConfig(batch_size=config.batch_size, seed=config.seed)
    table = check_readout(lm, battery, settings)
    own = table["emotion"] != ALL
    adjusted = table["p"].to_numpy(dtype=float).copy()
    adjusted[own] = holm(adjusted[own])
    return tuple(
        ReadoutScore(
            emotion=str(row.emotion),
            n_pairs=int(row.n_pairs),
            mean_diff=float(row.mean_diff),
            d_z=float(row.d_z) if np.isfinite(row.d_z) else None,
            auroc_paired=float(row.auroc_paired),
            p=float(row.p),
            p_holm=float(adjusted[i]),
        )
        for i, row in enumerate(table.itertuples(index=False))
    )
