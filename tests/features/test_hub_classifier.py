"""A random model saved to a folder, read as a scorer: labels, cutting, batches, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from affectlens.data import model_loading
from affectlens.data.errors import ConfigError, ModelError
from affectlens.features import classification_models
from affectlens.features.hub_classifier import HubClassifier
from affectlens.features.text_scoring import (
    SCORE_LABELS,
    LexiconScorer,
    MaskedScorer,
    TextScorer,
    scorer_named,
)

WORDS = [
    "the", "a", "of", "and", "it", "was", "that", "dark", "sea", "angry", "sad", "happy", "he",
    "she", "walked", "home", "to", "after", "work",
]  # fmt: skip
TEXTS = ["the sea was dark", "she walked home after work", "he was sad and angry"]
LABELS = ("anger", "joy", "love", "sadness", "neutral", "fear")
CONTEXT = 12

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(labels: tuple[str, ...] = LABELS, kind: str = "single_label_classification") -> Path:
        vocab = {w: i for i, w in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
        raw = Tokenizer(WordLevel(vocab, unk_token="[UNK]"))
        raw.pre_tokenizer = Whitespace()
        raw.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", model_max_length=CONTEXT
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = DistilBertForSequenceClassification(
                DistilBertConfig(
                    vocab_size=len(vocab), max_position_embeddings=CONTEXT, n_layers=2, n_heads=2,
                    dim=16, hidden_dim=32, initializer_range=0.5, problem_type=kind,
                    id2label=dict(enumerate(labels)),
                    label2id={label: i for i, label in enumerate(labels)},
                )
            )  # fmt: skip
        folder = tmp_path / "classifier"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return build


def raw_probabilities(folder: Path, text: str) -> Any:
    """The model's own answer about one text, without padding, [n_labels]."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = DistilBertForSequenceClassification.from_pretrained(folder).eval()
    ids = tokenizer(text, truncation=True, max_length=CONTEXT)["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().softmax(-1).numpy()


def column(name: str) -> int:
    return SCORE_LABELS.index(name)


def test_labels_are_mapped_and_the_rest_is_neutral(make: Make) -> None:
    folder = make()
    scorer = HubClassifier(folder, batch_size=2)
    assert isinstance(scorer, TextScorer)
    got = scorer.probabilities(TEXTS)
    assert got.shape == (3, len(SCORE_LABELS))
    np.testing.assert_allclose(got.sum(1), 1)
    for row, text in zip(got, TEXTS, strict=True):
        own = dict(zip(LABELS, raw_probabilities(folder, text), strict=True))
        for label, ours in (("anger", "rage"), ("joy", "ecstasy"), ("sadness", "grief")):
            assert row[column(ours)] == pytest.approx(own[label], abs=1e-6)
        assert row[column("neutral")] == pytest.approx(own["neutral"] + own["love"], abs=1e-6)
    card = scorer.card()
    assert card["labels"]["fear"] == "terror"
    assert card["unmapped_labels"] == ["love"]
    assert set(card["labels_without_output"]) == {
        "loathing",
        "amazement",
        "admiration",
        "vigilance",
    }
    loves = [raw_probabilities(folder, t)[2] for t in TEXTS]
    assert card["mean_unmapped_mass"] == pytest.approx(np.mean(loves), abs=1e-6)
    json.dumps(card)


def test_a_label_map_goes_before_the_automatic_one(make: Make) -> None:
    folder = make(("LABEL_0", "LABEL_1", "joy"))
    with_map = HubClassifier(folder, {"label_0": "grief", "LABEL_1": "grief", "joy": "neutral"})
    got = with_map.probabilities(TEXTS[:1])[0]
    own = raw_probabilities(folder, TEXTS[0])
    assert got[column("grief")] == pytest.approx(own[0] + own[1], abs=1e-6)
    assert got[column("neutral")] == pytest.approx(own[2], abs=1e-6)
    for wrong, said in (
        ({"sorrow": "grief"}, "names 'sorrow', but .* has the labels LABEL_0"),
        ({"joy": "delight"}, "leads to 'delight'; allowed: rage"),
    ):
        with pytest.raises(ConfigError, match=said):
            HubClassifier(folder, wrong)


def test_a_model_without_emotions_needs_a_map(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"none of the labels .* LABEL_0, LABEL_1"):
        HubClassifier(make(("LABEL_0", "LABEL_1")))


def test_long_texts_are_cut_and_counted(make: Make) -> None:
    folder = make()
    scorer = HubClassifier(folder)
    long = (
        "the dark sea and that home of work was it after she walked to a happy sea and he was sad"
    )
    got = scorer.probabilities([TEXTS[0], long])
    assert (scorer.card()["n_texts"], scorer.card()["n_truncated"]) == (2, 1)
    own = raw_probabilities(folder, long)
    assert got[1, column("rage")] == pytest.approx(own[0], abs=1e-6)


def test_rules_give_incoherence(make: Make) -> None:
    scorer = HubClassifier(make())
    got = scorer.probabilities(["", "\x00", "the sea the sea the sea the sea the sea", TEXTS[0]])
    assert got[:, column("incoherent")].tolist() == [1, 1, 1, 0]
    assert scorer.n_texts == 1
    assert scorer.probabilities([]).shape == (0, len(SCORE_LABELS))
    hostile = ["\u202e\u05d0\u05d1", "sea \x00 dark \u200f home", "a sea " * 30_000]
    np.testing.assert_allclose(scorer.probabilities(hostile).sum(1), 1)


def test_independent_outputs_are_made_shares(make: Make) -> None:
    folder = make(kind="multi_label_classification")
    got = HubClassifier(folder).probabilities(TEXTS)
    np.testing.assert_allclose(got.sum(1), 1)
    p = raw_probabilities(folder, TEXTS[0])
    logits = np.log(p)  # up to a constant, which a ratio of odds shows
    odds = got[0] / got[0].sum()
    assert (odds[column("rage")] > odds[column("ecstasy")]) == (logits[0] > logits[1])


def test_a_folder_without_safetensors_is_refused(make: Make) -> None:
    folder = make()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        HubClassifier(folder)


def test_a_damaged_folder_and_none_are_refused(make: Make, tmp_path: Path) -> None:
    folder = make()
    (folder / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match="could not be read"):
        HubClassifier(folder)
    with pytest.raises(ModelError, match="no classifier folder"):
        HubClassifier(tmp_path / "nothing")


def test_no_code_of_a_folder_is_run(make: Make) -> None:
    folder = make()
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('code of the folder was run')\n")
    HubClassifier(folder).probabilities(TEXTS)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, revision: str | None) -> tuple[Path, str]:
        assert (name, revision) == ("someone/emotions", "main")
        return model_loading._cached_hub(name, revision, "offline")

    monkeypatch.setattr(classification_models, "fetch_hub", offline)
    with pytest.raises(ModelError, match="'default' and 'lexicon'"):
        HubClassifier("someone/emotions@main")


def test_scorers_by_name(make: Make) -> None:
    assert isinstance(scorer_named("lexicon"), LexiconScorer)
    folder = make()
    assert isinstance(scorer_named(folder), HubClassifier)
    masked = MaskedScorer(scorer_named(str(folder)))
    plain = scorer_named(folder).probabilities(["he was and"])
    np.testing.assert_allclose(masked.probabilities(["he was sad and angry"]), plain)
    with pytest.raises(ConfigError, match="has our labels already"):
        scorer_named("lexicon", label_map={"joy": "ecstasy"})
    with pytest.raises(ConfigError, match="batch_size"):
        HubClassifier(folder, batch_size=0)
