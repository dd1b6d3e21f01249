"""A tiny model with one planted latent that promotes the words of grief, its search and screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, load_battery
from affectlens.features.config import SearchConfig
from affectlens.features.readouts import build_readout
from affectlens.features.screen import screen
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.screened import Screen
from affectlens.features.search import SearchResult, search
from affectlens.features.text_scoring import SCORE_LABELS
from affectlens.sae.model import SparseAutoencoder

from .made_saes import planted_lm, planted_rows, topk_sae

WORDS = {
    "grief": ("tears", "loss", "sorrow", "weeping", "mourning", "ache"),
    "rage": ("wrath", "fury", "anger", "shouting", "temper", "spite"),
    "calm": ("quiet", "still", "even"),
}
D_SAE, PLANTED, DEAD = 64, 7, 20


@dataclass(frozen=True, eq=False)
class World:
    """Everything a study needs."""

    lm: LanguageModel
    sae: SparseAutoencoder
    battery: Battery
    found: SearchResult
    screen: Screen


class WordScorer:
    """Shares of the made words; what a real scorer does, in three lines."""

    labels = SCORE_LABELS

    def __init__(self) -> None:
        self.seen: list[str] = []

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """One row a text; empty texts are incoherent."""
        self.seen += texts
        out = np.zeros((len(texts), len(self.labels)))
        for row, text in zip(out, texts, strict=True):
            words = text.split()
            for emotion in ("grief", "rage"):
                hits = sum(word in WORDS[emotion] for word in words)
                row[self.labels.index(emotion)] = hits / (len(words) + 1)
            rest = "neutral" if words else "incoherent"
            row[self.labels.index(rest)] = 1 - row.sum()
        return out

    def card(self) -> dict[str, Any]:
        """A name."""
        return {"name": "words of a test"}


def planted_stats() -> pd.DataFrame:
    """Firing statistics with one dead latent."""
    maxima = np.random.default_rng(0).uniform(1, 3, D_SAE)
    maxima[PLANTED], maxima[DEAD] = 2.0, 0.0
    return pd.DataFrame(
        {
            "feature": range(D_SAE),
            "firing_rate": np.where(maxima > 0, 0.01, 0.0),
            "mean_active": maxima / 2,
            "max_active": maxima,
        }
    )


@cache
def world() -> World:
    """Built once; tests must not change it."""
    lm, direction = planted_lm(sum(WORDS.values(), ()), WORDS["grief"], last=0.2)
    sae = topk_sae(lm, planted_rows(D_SAE, direction, PLANTED))
    places = [f"{e}/{d}" for e in ("grief", "rage") for d in "123"]
    battery = load_battery().select(clusters=places, limit=12)
    config = SearchConfig(n_permutations=200, min_items=1, n_retained=3)
    found = search(lm, sae, battery, config)
    found = replace(found, stats=planted_stats())
    screen_config = ScreenConfig(
        max_pairs=4, n_top=6, n_random=8, n_steps=0, n_candidates=12, n_prefixes=6, n_bootstrap=200
    )
    readout = build_readout(lm, WORDS, ("\nIt felt",))
    screened = screen(lm, sae, battery, found, screen_config, readout=readout, quiet=True)
    return World(lm, sae, battery, found, screened)
