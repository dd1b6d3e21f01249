"""The comparison with a model: what is read, what is refused, random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch

from affectlens.data.errors import ArtifactError, ConfigError, StimulusError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.tiny import tiny_model
from affectlens.features.baseline_columns import RANDOM_METHODS
from affectlens.features.baselines import baselines
from affectlens.features.config import SearchConfig
from affectlens.features.encode import encode_items
from affectlens.features.encoding import Reading
from affectlens.features.pooled_residuals import place_of, pooled_residuals
from affectlens.features.search import search
from affectlens.sae.model import SparseAutoencoder

from .made_pairs import FAST, SEARCH, make_pairs


@pytest.fixture(scope="module")
def battery() -> Battery:
    return make_pairs()


@pytest.fixture
def model(tiny: Callable[[str], LanguageModel]) -> LanguageModel:
    return tiny("llama")


def make_sae(lm: LanguageModel) -> SparseAutoencoder:
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name="blocks.1.hook_resid_post")
    sae = sae_lens.StandardSAE(
        sae_lens.StandardSAEConfig(d_in=lm.d_model, d_sae=64, metadata=metadata)
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return SparseAutoencoder(sae)


@pytest.mark.parametrize("pooling", ["mean", "suffix"])
def test_the_whole_with_a_model(model: LanguageModel, battery: Battery, pooling: str) -> None:
    config = SEARCH.model_copy(update={"pooling": pooling})
    sae = make_sae(model)
    found = search(model, sae, battery, config)
    result = baselines(model, sae, battery, found, FAST, config, quiet=True)
    assert result.summary.hooks == [f"blocks.0.hook_resid_{s}" for s in ("pre", "post")] + [
        "blocks.1.hook_resid_post"
    ]
    for target, latents in result.summary.best_latents["confirmation"].items():
        own = found.table[found.table["contrast"] == target].sort_values("rank")
        assert latents == [own["feature"].head(5).tolist()]
    if pooling == "suffix":
        embedding = result.table[result.table["layer"] == -1]
        assert (embedding["auroc"] == 0.5).all()


def test_what_does_not_belong_together_is_refused(model: LanguageModel, battery: Battery) -> None:
    sae = make_sae(model)
    found = search(model, sae, battery, SEARCH)
    with pytest.raises(ConfigError, match="pooled by 'mean', the settings say 'suffix'"):
        baselines(model, sae, battery, found, FAST, SearchConfig())
    with pytest.raises(ConfigError, match="give the battery that was searched"):
        baselines(model, sae, make_pairs(n_domains=3), found, FAST, SEARCH)
    with pytest.raises(ConfigError, match=r"layers \[9\] do not exist"):
        wrong = FAST.model_copy(update={"layers": (9,)})
        baselines(model, sae, battery, found, wrong, SEARCH)
    unsplit = replace(found, parts={"rage/1": "discovery"})
    with pytest.raises(StimulusError, match="clusters are not in the search's split"):
        baselines(model, sae, battery, unsplit, FAST, SEARCH)
    suffix = SearchConfig(n_permutations=100)
    under_suffix = search(model, sae, battery, suffix)
    items = [(m.id, m.text) for m in battery.items]
    (other,) = encode_items(model, [sae], items, Reading(suffix=" It ended.", name="suffix"))
    with pytest.raises(ArtifactError, match=r"suffix=' It ended\.'"):
        baselines(model, sae, battery, under_suffix, FAST, suffix, encoded=other)
    with pytest.raises(ArtifactError, match="encode them with the SAE that was searched"):
        wrong_sae = replace(other, sae_sha256="0" * 64)
        baselines(model, sae, battery, under_suffix, FAST, suffix, encoded=wrong_sae)


def test_given_activations_spare_the_encoding(model: LanguageModel, battery: Battery) -> None:
    sae = make_sae(model)
    found = search(model, sae, battery, SEARCH)
    items = [(m.id, m.text) for m in reversed(battery.items)]
    (encoded,) = encode_items(model, [sae], items, quiet=True)
    one = baselines(model, sae, battery, found, FAST, SEARCH, encoded=encoded, quiet=True)
    two = baselines(model, sae, battery, found, FAST, SEARCH, quiet=True)
    numbers = ["auroc", "paired_accuracy"]
    assert np.allclose(one.table[numbers], two.table[numbers], atol=0.02)
    assert one.summary.best_latents == two.summary.best_latents


def test_random_weights_are_read_at_the_saes_tokens(model: LanguageModel, battery: Battery) -> None:
    sae, blank = make_sae(model), tiny_model("llama", seed=7)
    found = search(model, sae, battery, SEARCH)
    (encoded,) = encode_items(model, [sae], [(m.id, m.text) for m in battery.items], quiet=True)
    more = {"encoded": encoded, "quiet": True}
    plain = baselines(model, sae, battery, found, FAST, SEARCH, **more)
    both = baselines(model, sae, battery, found, FAST, SEARCH, random_lm=blank, **more)
    own = both.table[both.table["method"].isin(RANDOM_METHODS)]
    assert len(own) == 2 * plain.table.groupby(["evaluated_on", "target"]).ngroups
    assert (own["hook"] == "blocks.1.hook_resid_post").all()
    rest = both.table.drop(own.index).reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, plain.table)
    place = place_of("blocks.1.hook_resid_post")
    (read,) = pooled_residuals(blank, [place], encoded, range(4), "mean", quiet=True)
    batch = blank.encode([battery.items[0].text])
    kept = encoded.keep[: encoded.first[1]]
    stream = capture(blank, [place.hook], batch)[place.hook][0]
    assert np.allclose(read.values[0], stream[torch.from_numpy(kept)].mean(0), atol=1e-4)
    with pytest.raises(ConfigError, match="random_lm has the weights of"):
        baselines(model, sae, battery, found, FAST, SEARCH, random_lm=model, **more)
    with pytest.raises(ConfigError, match="random_lm has d_model and layers"):
        small = tiny_model("llama", d_model=16)
        baselines(model, sae, battery, found, FAST, SEARCH, random_lm=small, **more)
