"""`affectlens battery defend`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from affectlens.data.tiny import byte_tokenizer
from affectlens.features.defence_card import DefenceCard

Cli = Callable[..., Any]


def _classifier(folder: Path, labels: tuple[str, ...]) -> Path:
    config = BertConfig(
        vocab_size=258, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=2048, pad_token_id=256,
        id2label=dict(enumerate(labels)), label2id={n: k for k, n in enumerate(labels)},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        BertForSequenceClassification(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_lexica_alone(cli: Cli, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    result = cli("battery", "defend", "--model", "none", "--limit", "16", "--out", card)
    assert result.code == 0
    assert "16 pairs" in result.out
    assert "no classifier and no model" in result.out
    assert "`affectlens battery audit` measures that" in result.out
    assert "is a warning" in result.out
    assert "what one wants" in result.out
    assert "It is not the NRC Emotion Lexicon" in result.out
    assert "arXiv 2604.23719" in result.out
    assert "p = 1.76e-10" in result.out
    assert "median -0.072, mean |x| 0.41" in result.out
    read = DefenceCard.read(card)
    assert (read.n_pairs, read.model, read.classifier) == (16, "", "")


def test_readout_and_nrc(cli: Cli, tmp_path: Path) -> None:
    nrc = tmp_path / "nrc.txt"
    nrc.write_text("the\tjoy\t1\nthe\tnegative\t1\n")
    words = ["--model", "tiny:llama", "--nrc", nrc, "--limit", "8", "--seed", "5", "--json"]
    found = cli("battery", "defend", *words).json
    assert (found["model"], found["seed"]) == ("tiny:llama", 5)
    methods = {r["method"] for r in found["rows"]}
    assert methods == {"valence", "lexicon_own", "lexicon_nrc", "readout"}
    assert any("tiny:llama" in line for line in found["reading"])
    assert {"method": "valence", "measure": "compound", "split": "clinical",
            "statistic": "median", "value": -0.072} in found["published"]  # fmt: skip


def test_classifier(cli: Cli, tmp_path: Path) -> None:
    folder = _classifier(tmp_path / "c", ("none of all", "joy", "anger"))
    words = ["battery", "defend", "--classifier", folder, "--limit", "4"]
    refused = cli(*words)
    assert refused.code == 2
    assert "its labels: none of all, joy, anger" in refused.err
    found = cli(*words, "--neutral-label", "none of all", "--json").json
    assert (found["classifier"], found["model"]) == (str(folder), "")
    assert "p_emotional" in {r["measure"] for r in found["rows"]}


def test_bad_input(cli: Cli, tmp_path: Path) -> None:
    for words, message in [
        (["--neutral-label", "x"], "give --classifier too"),
        (["--classifier", str(tmp_path)], "no *.safetensors"),
        (["--model", "none", "--nrc", str(tmp_path / "absent")], "absent"),
        (["--model", "tiny:lama"], "unknown tiny family"),
        (["absent.jsonl"], "no battery 'absent.jsonl'"),
    ]:
        result = cli("battery", "defend", *words)
        assert (result.code, message in result.err) == (2, True), (words, result.err)
    assert json.loads(cli("battery", "defend", "absent", "--json").out)["exit_code"] == 2
