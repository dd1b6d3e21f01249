"""A tiny model with one planted latent that promotes the words of grief, its search and screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata

from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, load_battery
from affectlens.data.tiny import tiny_model
from affectlens.features.config import SearchConfig
from affectlens.features.readouts import build_readout
from affectlens.features.screen import screen
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.screened import Screen
from affectlens.features.search import SearchResult, search
from affectlens.features.text_scoring import SCORE_LABELS
from affectlens.sae.model import SparseAutoencoder

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


def planted_lm() -> tuple[LanguageModel, torch.Tensor]:
    """A model in which one direction promotes the words of grief and no other token."""
    lm = tiny_model("llama", n_layers=3, words=[w for words in WORDS.values() for w in words])
    direction = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(3))
    direction /= direction.norm()
    head = lm.model.get_output_embeddings().weight
    ids = [lm.tokenizer.encode(f" {w}", add_special_tokens=False)[0] for w in WORDS["grief"]]
    with torch.no_grad():
        head -= (head @ direction)[:, None] * direction
        head[ids] += 2 * direction
        for name, weight in lm.blocks[2].named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight *= 0.2
    return lm, direction


def planted_sae(lm: LanguageModel, direction: torch.Tensor) -> SparseAutoencoder:
    """Random decoder rows, all but one without the planted direction."""
    metadata = SAEMetadata(
        hook_name="blocks.1.hook_resid_post",
        model_name=lm.name,
        model_fingerprint=lm.fingerprint,
        skip_first=True,
        norm_limit=None,
    )
    made = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(d_in=lm.d_model, d_sae=D_SAE, k=8, metadata=metadata)
    )
    rows = torch.randn(D_SAE, lm.d_model, generator=torch.Generator().manual_seed(5))
    rows -= (rows @ direction)[:, None] * direction
    rows[PLANTED] = direction
    rows /= rows.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        made.W_dec.copy_(rows)
        made.W_enc.copy_(rows.T)
    return SparseAutoencoder(made)


@cache
def world() -> World:
    """Built once; tests must not change it."""
    lm, direction = planted_lm()
    sae = planted_sae(lm, direction)
    places = [f"{e}/{d}" for e in ("grief", "rage") for d in "123"]
    battery = load_battery().select(clusters=places, limit=12)
    config = SearchConfig(n_permutations=200, min_items=1, n_retained=3)
    found = search(lm, sae, battery, config)
    maxima = np.random.default_rng(0).uniform(1, 3, D_SAE)
    maxima[PLANTED], maxima[DEAD] = 2.0, 0.0
    stats = pd.DataFrame(
        {
            "feature": range(D_SAE),
            "firing_rate": np.where(maxima > 0, 0.01, 0.0),
            "mean_active": maxima / 2,
            "max_active": maxima,
        }
    )
    found = replace(found, stats=stats)
    screen_config = ScreenConfig(
        max_pairs=4, n_top=6, n_random=8, n_steps=0, n_candidates=12, n_prefixes=6, n_bootstrap=200
    )
    readout = build_readout(lm, WORDS, ("\nIt felt",))
    screened = screen(lm, sae, battery, found, screen_config, readout=readout, quiet=True)
    return World(lm, sae, battery, found, screened)
