"""The search against a known answer: planted latents, through known and learnt dictionaries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sae_lens
import torch

from affectlens.data.errors import ConfigError
from affectlens.data.synthetic import (
    PlantedDictionary,
    PlantedPairs,
    plant_dictionary,
    plant_pairs,
)
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.search import SearchResult, search_activations

EMOTIONS = ("rage", "grief", "terror", "ecstasy")
# At .01 a latent that was not planted is confirmed in one contrast of a hundred; `SEEDS` runs count
# how often that happens at .05.
CONFIG = SearchConfig(n_permutations=5000, n_retained=8, alpha=0.01)
SEEDS = range(100, 110)
Encode = Callable[[np.ndarray], np.ndarray]


def design_of(pairs: PlantedPairs) -> PairDesign:
    n = len(pairs.emotions)
    return PairDesign(
        clinical=np.arange(n),
        neutral=np.arange(n, 2 * n),
        pair_ids=tuple(f"p{i}" for i in range(n)),
        emotions=pairs.emotions,
        clusters=pairs.clusters,
        order=tuple(dict.fromkeys(pairs.emotions)),
    )


def searched(pairs: PlantedPairs, encode: Encode, config: SearchConfig = CONFIG) -> SearchResult:
    latents = np.concatenate([pairs.clinical, pairs.neutral])
    pooled = np.stack([encode(text).mean(axis=0) for text in latents])
    return search_activations(pooled, design_of(pairs), config, battery="planted")


def confirmed(found: SearchResult, contrast: str) -> set[int]:
    return set(found.top(contrast, 1000, confirmed=True))


@pytest.fixture(scope="module")
def planted() -> tuple[PlantedDictionary, PlantedPairs]:
    rng = np.random.default_rng(0)
    dictionary = plant_dictionary(EMOTIONS, rng, n_latents=96, d_model=128)
    return dictionary, plant_pairs(dictionary, rng, n_domains=12, cluster_sd=0.1)


def test_latents_themselves_are_found_exactly(
    planted: tuple[PlantedDictionary, PlantedPairs],
) -> None:
    dictionary, pairs = planted
    found = searched(pairs, lambda z: z)
    every = {i for own in dictionary.own.values() for i in own}
    assert set(dictionary.general) <= confirmed(found, "all") <= every | set(dictionary.general)
    for emotion, own in dictionary.own.items():
        assert confirmed(found, emotion) == set(own)
        assert set(found.top(emotion, 2)) == set(own)


def test_found_through_noisy_residuals_and_a_known_dictionary(
    planted: tuple[PlantedDictionary, PlantedPairs],
) -> None:
    dictionary, pairs = planted
    sae = known_sae(dictionary, k=10)
    rng = np.random.default_rng(1)

    def encode(z: np.ndarray) -> np.ndarray:
        return sae.encode(torch.from_numpy(dictionary.residuals(z, rng))).numpy()

    found = searched(pairs, encode)
    planted_latents = {*dictionary.general, *(i for own in dictionary.own.values() for i in own)}
    assert set(dictionary.general) <= confirmed(found, "all") <= planted_latents
    for emotion, own in dictionary.own.items():
        assert confirmed(found, emotion) == set(own)


def test_found_through_a_learnt_dictionary() -> None:
    rng = np.random.default_rng(2)
    dictionary = plant_dictionary(EMOTIONS, rng, n_latents=40, d_model=32, rate=0.08)
    pairs = plant_pairs(dictionary, rng, n_domains=12, cluster_sd=0.1)
    sae = learnt_sae(dictionary, rng)
    likeness = sae.W_dec.detach().numpy() @ dictionary.directions.T
    assert (likeness.max(axis=0) > 0.95).mean() > 0.9

    def encode(z: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return sae.encode(torch.from_numpy(dictionary.residuals(z, rng))).numpy()

    found = searched(pairs, encode)
    meaning = likeness.argmax(axis=1)
    for emotion, own in dictionary.own.items():
        latents = confirmed(found, emotion)
        assert {int(meaning[i]) for i in latents} == set(own)


@pytest.mark.parametrize("effect", [0.0, 3.0])
@pytest.mark.parametrize("unit", ["cluster", "pair"])
def test_false_confirmations_keep_their_level(effect: float, unit: str) -> None:
    config = SearchConfig(n_permutations=500, n_retained=8, unit_emotion=unit)  # type: ignore[arg-type]
    wrong = contrasts = 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        dictionary = plant_dictionary(EMOTIONS, rng, n_latents=64)
        pairs = plant_pairs(dictionary, rng, n_domains=9, effect=effect)
        found = searched(pairs, lambda z: z, config)
        every = {i for own in dictionary.own.values() for i in own}
        for contrast in found.contrasts:
            true = set(dictionary.own.get(contrast, (*dictionary.general, *every)))
            wrong += bool(confirmed(found, contrast) - (true if effect else set()))
            contrasts += 1
    # 50 contrasts at .05 give 2.5; 99.9% of binomial outcomes lie below 9.
    assert contrasts == 50 and wrong <= 8


def test_dictionary_refuses_impossible_sizes() -> None:
    with pytest.raises(ConfigError, match="n_latents >= 10"):
        plant_dictionary(EMOTIONS, np.random.default_rng(0), n_latents=5)


def known_sae(dictionary: PlantedDictionary, k: int) -> sae_lens.TopKSAE:
    """A TopK SAE whose decoder is the planted dictionary and whose encoder inverts it."""
    config = sae_lens.TopKSAEConfig(d_in=dictionary.d_model, d_sae=dictionary.n_latents, k=k)
    sae = sae_lens.TopKSAE(config)
    rows = torch.from_numpy(dictionary.directions)
    sae.W_dec.data, sae.W_enc.data = rows.clone(), torch.linalg.pinv(rows)
    sae.b_enc.data.zero_()
    sae.b_dec.data.zero_()
    return sae.requires_grad_(requires_grad=False)


def learnt_sae(dictionary: PlantedDictionary, rng: np.random.Generator) -> torch.nn.Module:
    """A TopK SAE trained on residuals of the dictionary by sae-lens's own loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = sae_lens.TopKTrainingSAEConfig(
            d_in=dictionary.d_model, d_sae=56, k=5, rescale_acts_by_decoder_norm=True
        )
        sae = sae_lens.TopKTrainingSAE(config)
        optimiser = torch.optim.Adam(sae.parameters(), lr=3e-3)
        for step in range(900):
            latents = dictionary.latents(256, rng)
            batch = torch.from_numpy(dictionary.residuals(latents, rng))
            output = sae.training_forward_pass(
                sae_lens.saes.sae.TrainStepInput(
                    sae_in=batch,
                    coefficients={},
                    dead_neuron_mask=None,
                    n_training_steps=step,
                    is_logging_step=False,
                )
            )
            optimiser.zero_grad()
            output.loss.backward()
            optimiser.step()
    sae.fold_W_dec_norm()
    return sae
