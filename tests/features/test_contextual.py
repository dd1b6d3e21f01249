"""Probes and readouts on tiny models: what is read where, and what chance looks like."""

import numpy as np
import pytest
import torch

from affectlens.data.errors import ArtifactError, ConfigError, StimulusError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel, load_model
from affectlens.data.stimuli import Battery, load_battery
from affectlens.features import contextual
from affectlens.features._words import tokens
from affectlens.features.config import ContextConfig
from affectlens.features.contextual import ContextualCard, contextual_card, static_means

FAST = ContextConfig(layers=(1, 2), n_repeats=1, n_bootstrap=50)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model("tiny:llama")


@pytest.fixture(scope="module")
def battery() -> Battery:
    return load_battery().select(limit=16)


@pytest.fixture(scope="module")
def card(lm: LanguageModel, battery: Battery) -> ContextualCard:
    return contextual_card(lm, battery, FAST)


def test_the_card_has_every_layer_place_and_emotion(card: ContextualCard, battery: Battery) -> None:
    assert [(p.layer, p.place) for p in card.probes] == [
        (layer, place) for layer in (1, 2) for place in contextual.PLACES
    ]
    assert card.mid_layer == 2
    assert card.mid_depth.place == "suffix_last"
    assert {r.emotion for r in card.readouts} == {*battery.emotions, "all"}
    assert all(0 <= r.p <= r.p_holm <= 1 for r in card.readouts if r.emotion != "all")
    assert 0 <= card.n_read <= 8
    assert len(card.table) == 6
    assert card.readouts_frame().columns[0] == "emotion"


def test_it_survives_its_file(card: ContextualCard, tmp_path) -> None:
    path = card.write(tmp_path / "deep" / "contextual.json")
    assert ContextualCard.read(path) == card
    path.write_text('{"format_version": 7}')
    with pytest.raises(ArtifactError, match="format version 7"):
        ContextualCard.read(path)
    path.write_text('{"format_version": 1}')
    with pytest.raises(ArtifactError, match="not a contextual card"):
        ContextualCard.read(path)


def test_places_are_the_tokens_they_say(lm: LanguageModel, battery: Battery) -> None:
    config = ContextConfig(layers=(1,))
    read = contextual._read(lm, battery, (1,), config)
    text = battery.pairs[3].clinical.text
    with torch.inference_mode():
        name = "blocks.1.hook_resid_post"
        resid = capture(lm, [name], lm.encode([text + config.suffix]))[name][0].float().numpy()
    # The tiny tokenizer makes one token of a byte; every text ends with the same mark as well.
    tail = len(config.suffix.encode()) + 1
    assert read[1, "suffix_last"][3] == pytest.approx(resid[-1], abs=1e-5)
    assert read[1, "suffix_mean"][3] == pytest.approx(resid[-tail:].mean(0), abs=1e-5)
    assert read[1, "text_mean"][3] == pytest.approx(resid[1:-tail].mean(0), abs=1e-5)


def test_a_planted_direction_is_found(battery: Battery) -> None:
    values = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    values[:16, 2] += 8
    found = contextual._probe(battery, 1, "suffix_last", values, FAST)
    assert found.auroc > 0.95
    assert found.auroc_low is not None and found.auroc_low > 0.8


def test_static_means_are_blind_to_order_case_and_marks(
    lm: LanguageModel, battery: Battery
) -> None:
    found = static_means(lm, battery)
    assert found.values.shape == (32, lm.d_model)
    assert found.model == lm.name
    embed = lm.model.get_input_embeddings().weight.detach()
    words = tokens(battery.pairs[0].neutral.text)
    ids = [i for w in words for i in lm.tokenizer.encode(f" {w}", add_special_tokens=False)]
    assert found.values[16] == pytest.approx(embed[ids].mean(0).numpy(), abs=1e-5)
    same = load_battery("affectlens-isolexical").select(limit=6)
    values = static_means(lm, same).values
    assert (values[:6] == values[6:]).all()


def test_refusals(lm: LanguageModel, battery: Battery, card: ContextualCard) -> None:
    with pytest.raises(ConfigError, match=r"layers \[9\] do not exist; the model has 0 to 3"):
        contextual_card(lm, battery, ContextConfig(layers=(1, 9)))
    with pytest.raises(StimulusError, match="1 clusters of pairs"):
        contextual_card(lm, battery.select(clusters=[battery.clusters[0]]))
    with pytest.raises(ConfigError, match="layer 2 was not probed"):
        _ = contextual_card(lm, battery, ContextConfig(layers=(1,), n_repeats=1)).mid_depth


def test_default_layers() -> None:
    assert contextual.default_layers(30) == (0, 7, 15, 22, 29)
    assert contextual.default_layers(1) == (0,)
