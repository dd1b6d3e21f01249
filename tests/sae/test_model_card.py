"""The model card: its front matter is YAML that the hub reads; hostile names stay text."""

from __future__ import annotations

from dataclasses import replace

import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.model_card import CardFacts, model_card

from .conftest import make_raw

INFO = SparseAutoencoder(make_raw()).info
ID = "blocks.1.hook_resid_post"


def test_what_a_card_says() -> None:
    facts = CardFacts(
        licence="MIT",
        base_model="Owner/model",
        training={"text": "stories | tales"},
        quality={"FVU": "0.16"},
        measured_on="10 tokens",
        limits=("It is small.",),
    )
    text = model_card(replace(INFO, norm_limit=50.0), ID, facts)
    card = ModelCard(text)
    assert (card.data.library_name, card.data.license) == ("saelens", "mit")
    assert card.data.base_model == "Owner/model"
    assert {"sparse-autoencoder", "topk"} <= set(card.data.tags)
    for said in (
        f'SAE.load_from_disk("{ID}")',
        "| FVU | 0.16 |",
        "stories \\| tales",
        "It is small.",
        "L2 norm above 50",
        INFO.sha256,
    ):
        assert said in text, said


def test_what_is_not_known_is_said() -> None:
    text = model_card(INFO, ID, CardFacts())
    head = yaml.safe_load(text.split("---")[1])
    assert "license" not in head and "base_model" not in head
    for said in ("No licence is stated", "Nothing was measured", "is not recorded"):
        assert said in text


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_stays_text(text: str) -> None:
    info = replace(INFO, model_name=text, hook_name=text)
    facts = CardFacts(licence=text, base_model=text, training={text: text}, limits=(text,))
    made = model_card(info, text, facts)
    made.encode("utf-8")
    block, body = made.removeprefix("---\n").split("\n---\n", 1)
    head = yaml.safe_load(block)
    assert head["library_name"] == "saelens"
    assert set(head) <= {"library_name", "license", "base_model", "tags"}
    assert "<script" not in model_card(replace(info, model_name="<script>"), ID, facts)
    assert body.count("```") == 2
