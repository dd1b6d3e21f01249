"""Reading a battery: the right tokens, the right hook, the mask, and independence of the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sae_lens
import torch

from affectlens.data.errors import StimulusError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, Stimulus, make_battery
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.encode import encode_battery
from affectlens.features.results import SearchSummary, read_table
from affectlens.features.search import search
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"
SUFFIX = " The end."
EMOTIONS = ("rage", "grief")


def make_sae(d_in: int, hook: str = HOOK, **metadata: object) -> SparseAutoencoder:
    config = sae_lens.StandardSAEConfig(
        d_in=d_in,
        d_sae=64,
        metadata=sae_lens.saes.sae.SAEMetadata(hook_name=hook, **metadata),
    )
    sae = sae_lens.StandardSAE(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return SparseAutoencoder(sae)


def make_pairs(n_domains: int = 4, long: str = "") -> Battery:
    items = []
    for emotion in EMOTIONS:
        for d in range(1, n_domains + 1):
            for kind, words in (("clinical", "broke the cup"), ("neutral", "held it")):
                text = f"{emotion} {d}: someone {words}{'!' * d}{long}"
                control = f"N-{emotion}-{d}" if kind == "clinical" else None
                name = f"C-{emotion}-{d}" if kind == "clinical" else f"N-{emotion}-{d}"
                items.append(
                    Stimulus(
                        name,
                        emotion,
                        "peak",
                        str(d),
                        "place",
                        control,
                        len(text.split()),
                        text,
                        kind,  # type: ignore[arg-type]
                    )
                )
    return make_battery("made", items, "test")


@pytest.fixture
def model(tiny: Callable[[str], LanguageModel]) -> LanguageModel:
    return tiny("llama")


def latents_of(lm: LanguageModel, sae: SparseAutoencoder, text: str) -> np.ndarray:
    """Latents [n_tokens, d_sae] of one text alone."""
    return sae.encode(capture(lm, [HOOK], lm.encode([text]))[HOOK][0]).numpy()


@pytest.mark.parametrize("pooling", ["suffix", "mean", "max", "last"])
def test_pooling_is_what_it_says(lm: LanguageModel, pooling: str) -> None:
    sae, battery = make_sae(lm.d_model), make_pairs()
    config = SearchConfig(pooling=pooling, suffix=SUFFIX, batch_size=3)  # type: ignore[arg-type]
    found = encode_battery(lm, sae, battery, config)
    assert found.item_ids == tuple(i.id for i in battery.items)
    assert found.pooled.dtype == np.float32 and found.pooled.shape == (16, 64)
    for row, item in zip(found.pooled, battery.items, strict=True):
        text = item.text + (SUFFIX if pooling == "suffix" else "")
        z = latents_of(lm, sae, text)
        want = {
            "suffix": z[-len(SUFFIX) :].mean(0),  # one token for each byte
            "mean": z[1:].mean(0),
            "max": z[1:].max(0),
            "last": z[-1],
        }[pooling]
        np.testing.assert_allclose(row, want, rtol=1e-4, atol=1e-5)


def test_read_tokens_are_the_suffix(model: LanguageModel) -> None:
    config = SearchConfig(suffix=SUFFIX)
    found = encode_battery(model, make_sae(model.d_model), make_pairs(), config)
    assert "".join(found.read_tokens) == SUFFIX
    assert found.n_read.tolist() == [len(SUFFIX)] * 16 and found.n_masked == 0


def test_texts_that_end_alike_are_not_read_beyond_the_suffix(model: LanguageModel) -> None:
    battery = make_pairs(long=" and all of them went home.")
    found = encode_battery(model, make_sae(model.d_model), battery, SearchConfig(suffix=SUFFIX))
    assert "".join(found.read_tokens) == SUFFIX


def test_the_batch_size_does_not_matter(model: LanguageModel) -> None:
    sae, battery = make_sae(model.d_model), make_pairs()
    one, many = (
        encode_battery(model, sae, battery, SearchConfig(suffix=SUFFIX, batch_size=b)).pooled
        for b in (1, 16)
    )
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_the_first_token_and_outliers_are_left_out(model: LanguageModel) -> None:
    battery = make_pairs()
    open_ = make_sae(model.d_model, skip_first=False)
    config = SearchConfig(pooling="mean")
    every = encode_battery(model, open_, battery, config)
    without = encode_battery(model, make_sae(model.d_model), battery, config)
    assert (every.n_read - without.n_read == 1).all() and without.n_masked == 16
    norms = [
        capture(model, [HOOK], model.encode([i.text]))[HOOK][0].norm(dim=-1) for i in battery.items
    ]
    limit = float(torch.cat(norms).quantile(0.9))
    few = encode_battery(
        model, make_sae(model.d_model, skip_first=False, norm_limit=limit), battery, config
    )
    assert few.n_masked == sum(int((n > limit).sum()) for n in norms) > 0
    assert (few.n_read + [int((n > limit).sum()) for n in norms] == every.n_read).all()


def test_nothing_to_read_is_an_error(model: LanguageModel) -> None:
    sae = make_sae(model.d_model, norm_limit=1e-6)
    with pytest.raises(StimulusError, match="16 of 16 items have no token to read"):
        encode_battery(model, sae, make_pairs(), SearchConfig(suffix=SUFFIX))


def test_a_text_longer_than_the_context_is_named(model: LanguageModel) -> None:
    battery = make_pairs(n_domains=1, long=" x" * 1100)
    with pytest.raises(StimulusError, match=r"'C-rage-1'.*2048"):
        encode_battery(model, make_sae(model.d_model), battery, SearchConfig())


def test_an_sae_without_a_hook_is_refused(model: LanguageModel) -> None:
    with pytest.raises(SAEError, match="does not say which hook"):
        encode_battery(model, make_sae(model.d_model, hook=""), make_pairs(), SearchConfig())


def test_design_follows_ids_not_order() -> None:
    battery = make_pairs()
    ids = [i.id for i in reversed(battery.items)]
    design = PairDesign.from_battery(battery, ids)
    assert [ids[i] for i in design.clinical] == [p.clinical.id for p in battery.pairs]
    assert [ids[i] for i in design.neutral] == [p.neutral.id for p in battery.pairs]
    with pytest.raises(StimulusError, match="1 items of battery 'made' were not encoded"):
        PairDesign.from_battery(battery, ids[1:])


def test_search_from_model_to_files(model: LanguageModel, tmp_path: Path) -> None:
    sae, battery = make_sae(model.d_model), make_pairs()
    config = SearchConfig(suffix=SUFFIX, n_permutations=200, min_items=1)
    found = search(model, sae, battery, config, out=tmp_path, lexical_warning="TF-IDF 1.00")
    assert found.summary.battery_sha256 == battery.sha256
    assert "".join(found.read_tokens) == SUFFIX
    assert found.contrasts == ("all", *battery.emotions)
    assert SearchSummary.read(tmp_path).lexical_warning == "TF-IDF 1.00"
    assert len(read_table(tmp_path, "search/features")) == len(found.table)
    assert len(found.stats) == 0


def test_search_refuses_an_sae_of_another_model(model: LanguageModel) -> None:
    with pytest.raises(SAEError, match="d_in=8"):
        search(model, make_sae(8), make_pairs(), SearchConfig())
    other = make_sae(model.d_model, model_fingerprint="f" * 64)
    with pytest.raises(SAEError, match="fingerprint"):
        search(model, other, make_pairs(), SearchConfig())
