"""What all emotions of one intervention study share: texts, meters, readout and discovery means.

Only texts of the confirmation part are measured; everything that is fitted or selected (directions,
coordinates, shuffled selections, doses) comes from the discovery part. There is one meter for each
side of the pairs, used by every emotion, intervention and arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, Pair
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL
from affectlens.features.controls import (
    PairMeans,
    live_latents,
    pair_means,
    ranked_latents,
    searched_pairs,
)
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.encode import encode_battery
from affectlens.features.measure import Meter
from affectlens.features.pair_data import PairData
from affectlens.features.readout_words import emotion_words
from affectlens.features.readouts import Readout, build_readout, readout_name_of
from affectlens.features.selection import FeatureSet
from affectlens.features.text_means import TextMeans, text_means
from affectlens.features.verdicts import lowers
from affectlens.features.written_norms import TokenLatents, token_latents
from affectlens.sae.model import SparseAutoencoder

Side = Literal["clinical", "neutral"]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Texts:
    """One side of some pairs, ready to be measured.

    Attributes:
        side: which member.
        pairs: the pairs, in the order of the meter's texts.
        meter: measures them.
        tokens: what is stored of their tokens.
    """

    side: Side
    pairs: tuple[Pair, ...]
    meter: Meter
    tokens: TokenLatents
    _parts: dict[bytes, TokenLatents] = field(default_factory=dict, repr=False)

    def rows(self, emotion: str) -> Rows:
        """Texts of an emotion's own pairs; all of them for 'all'."""
        return np.flatnonzero([emotion in (ALL, p.emotion) for p in self.pairs])

    def clusters(self, rows: Rows) -> tuple[str, ...]:
        """Cluster of each of these texts."""
        return tuple(self.pairs[i].cluster for i in rows)

    def tokens_of(self, rows: Rows) -> TokenLatents:
        """Tokens of these texts; prepared once."""
        if len(rows) == len(self.pairs):
            return self.tokens
        key = rows.tobytes()
        if key not in self._parts:
            self._parts[key] = self.tokens.only(rows)
        return self._parts[key]


class EffectStudy:
    """Everything that is shared between the emotions of one run.

    Args:
        lm: the model.
        sae: its autoencoder.
        sets: chosen features, of one search.
        battery: the battery that was searched.
        config: settings.

    Raises:
        ConfigError: no or empty sets, features of another SAE, an emotion without a readout,
            another battery, or no confirmation part.
    """

    def __init__(
        self,
        lm: LanguageModel,
        sae: SparseAutoencoder,
        sets: Sequence[FeatureSet],
        battery: Battery,
        config: InterveneConfig,
    ) -> None:
        check_sets(sets, sae)
        self.lm, self.sae, self.config, self.sets = lm, sae, config, tuple(sets)
        self.readout: Readout = build_readout(
            lm,
            emotion_words(config.measures.words),
            config.templates,
            calibrate=config.measures.calibrate,
        )
        self._column = {s.emotion: _column(s.emotion, self.readout) for s in sets}
        parts = sets[0].parts
        self.discover = tuple(p for p in battery.pairs if parts.get(p.cluster) == "discovery")
        self.confirm = tuple(p for p in battery.pairs if parts.get(p.cluster) == "confirmation")
        if not self.confirm or not self.discover:
            raise ConfigError(
                f"the search split names {len(parts)} clusters, of which this battery holds "
                f"{len(self.discover)} discovery and {len(self.confirm)} confirmation pairs; "
                "use the battery that was searched, with pairs in both parts (a search with "
                "confirmation_share above 0)"
            )
        self._battery = battery
        if config.max_pairs is not None:
            self.confirm = self._limited(self.confirm, config.max_pairs)
        self.stats = sets[0].stats
        self.excluded = frozenset(f for s in sets for f in s)
        self._texts: dict[tuple[str, Side], Texts] = {}
        unread = [s.emotion for s in sets if not self._own(s.emotion)]
        if unread:
            raise ConfigError(
                f"no pair of {', '.join(unread)} is among the {len(self.confirm)} confirmation "
                "pairs measured; raise max_pairs, or leave the emotion out"
            )

    def column(self, emotion: str) -> int:
        """Column of the readout that an emotion is measured with."""
        return self._column[emotion]

    def texts(self, side: Side) -> Texts:
        """One side of the confirmation pairs; prepared once."""
        return self._prepared("confirmation", side, self.confirm)

    def dose_texts(self, side: Side) -> Texts:
        """One side of the discovery pairs on which doses are chosen; prepared once."""
        return self._prepared("discovery", side, self.dose_pairs)

    @cached_property
    def dose_pairs(self) -> tuple[Pair, ...]:
        """Discovery pairs on which doses are chosen."""
        return self._limited(self.discover, self.config.controls.dose_pairs)

    def rows(self, emotion: str, intervention: str, texts: Texts) -> Rows:
        """Texts on which an emotion's intervention is measured.

        Its own where something of its own is taken away or put in, else all.
        """
        if lowers(intervention) or intervention == "patch_clinical":
            return texts.rows(emotion)
        return np.arange(len(texts.pairs))

    @cached_property
    def neutral_means(self) -> TextMeans:
        """Means of the confirmation pairs' neutral texts."""
        return self._means([p.neutral.text for p in self.confirm])

    @cached_property
    def clinical_means(self) -> TextMeans:
        """Means of the confirmation pairs' clinical texts."""
        return self._means([p.clinical.text for p in self.confirm])

    @cached_property
    def pair_means(self) -> PairMeans:
        """Mean residuals of the discovery pairs."""
        size = self.config.batch_size
        return pair_means(self.lm, self.sae, self._battery, self.discover, batch_size=size)

    @cached_property
    def selection(self) -> SearchConfig:
        """Settings under which control selections are made: the search's own.

        Sets that do not know them have the defaults of a search, without its filter of rare
        latents.
        """
        return self.sets[0].settings or SearchConfig(seed=self.config.seed, min_items=1)

    @cached_property
    def searched(self) -> PairData:
        """The discovery pairs as the search pooled them, which is what latents are selected on."""
        settings = self.selection.model_copy(update={"confirmation_share": 0.0})
        battery = self._battery.select(clusters={p.cluster for p in self.discover})
        (encoded,) = encode_battery(
            self.lm, [self.sae], battery, settings, pairs_only=True, quiet=True
        )
        return searched_pairs(encoded, battery, settings)

    @cached_property
    def live(self) -> Rows:
        """Latents that fired on held-out text and were not chosen for any emotion."""
        return np.setdiff1d(live_latents(self.stats), np.array(sorted(self.excluded)))

    @cached_property
    def ranked(self) -> dict[str, tuple[int, ...]]:
        """Contrast -> every latent that rises on it, in the order of the search."""
        return ranked_latents(self.searched, live_latents(self.stats), self.selection)

    def _own(self, emotion: str) -> bool:
        return any(emotion in (ALL, p.emotion) for p in self.confirm)

    def _limited(self, pairs: tuple[Pair, ...], limit: int) -> tuple[Pair, ...]:
        """At most `limit` pairs, spread over emotions and clusters."""
        places = {p.cluster for p in pairs}
        return tuple(self._battery.select(clusters=places, limit=limit).pairs)

    def _prepared(self, part: str, side: Side, pairs: tuple[Pair, ...]) -> Texts:
        if (part, side) not in self._texts:
            members = [p.clinical if side == "clinical" else p.neutral for p in pairs]
            texts = [m.text for m in members]
            size = self.config.batch_size
            meter = Meter(self.lm, self.sae, texts, self.readout, batch_size=size)
            tokens = token_latents(
                self.lm, self.sae, texts, self.readout, self.config.scope, batch_size=size
            )
            self._texts[part, side] = Texts(side, pairs, meter, tokens)
        return self._texts[part, side]

    def _means(self, texts: Sequence[str]) -> TextMeans:
        return text_means(self.lm, self.sae, texts, batch_size=self.config.batch_size)


def _column(emotion: str, readout: Readout) -> int:
    try:
        return readout.names.index(readout_name_of(emotion, readout))
    except ConfigError as error:
        raise ConfigError(
            f"there is no readout for {emotion!r}, so the effect of an edit cannot be read: {error}"
        ) from error


def side_of(intervention: str) -> Side:
    """The member of a pair on which an intervention is tried."""
    return "clinical" if lowers(intervention) or intervention == "scale" else "neutral"


def check_sets(sets: Sequence[FeatureSet], sae: SparseAutoencoder) -> None:
    """Refuse sets that cannot be edited together in this SAE.

    Raises:
        ConfigError: no set, an empty one, one emotion twice, sets of two searches, or latents or
            statistics of another SAE.
    """
    empty = [s.emotion for s in sets if len(s) == 0]
    if not sets or empty:
        raise ConfigError(
            f"no features to intervene on for {empty or 'any emotion'}; pick some with "
            "SearchResult.top, or leave the emotion out"
        )
    names = [s.emotion for s in sets]
    if len(set(names)) < len(names):
        raise ConfigError(f"two sets of features for one emotion among {', '.join(names)}")
    if any(dict(s.parts) != dict(sets[0].parts) for s in sets):
        raise ConfigError(
            "the sets come from searches with different splits into discovery and confirmation; "
            "pick all of them from one search"
        )
    for chosen in sets:
        made = chosen.sae_sha256 or sae.info.sha256
        outside = [f for f in chosen if not 0 <= f < sae.d_sae]
        wide = not chosen.stats.empty and len(chosen.stats) != sae.d_sae
        if outside or wide or made != sae.info.sha256:
            found = f"latent {outside[0]}" if outside else f"statistics of {len(chosen.stats)}"
            found = f"the SAE {made[:12]}" if made != sae.info.sha256 else found
            raise ConfigError(
                f"the features of {chosen.emotion!r} belong to another SAE: they name {found}, "
                f"this one has {sae.d_sae} latents (0 to {sae.d_sae - 1}) and the hash "
                f"{sae.info.sha256[:12]}; search with this SAE, or load the one that was searched"
            )
