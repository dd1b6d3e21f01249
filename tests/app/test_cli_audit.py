"""`battery audit`: card, folder with tables and picture, model rows, variants, refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from affectlens.data.stimuli import load_battery

Cli = Callable[..., Any]
QUICK = ["--limit", "16", "--n-folds", "2", "--n-repeats", "1", "--n-bootstrap", "20"]


def test_card_as_a_file(cli: Cli, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    result = cli("battery", "audit", *QUICK, "--seed", "3", "--out", card, "--json")
    assert (result.json["n_pairs"], result.json["seed"]) == (16, 3)
    assert result.json["contextual"] is None
    assert json.loads(card.read_text())["controls"] == result.json["controls"]


def test_folder_with_a_model(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    result = cli("battery", "audit", *QUICK, "--model", "tiny:llama", "--out", out)
    assert result.code == 0
    assert "static_embedding" in result.out
    assert "tiny:llama, read after ' That was the end of the day.'" in result.out
    assert {p.name for p in out.iterdir()} == {
        "audit.json", "contextual.json", "controls.csv", "words.csv", "pairs.csv", "battery.png",
        "battery.svg",
    }  # fmt: skip
    table = pd.read_csv(out / "controls.csv")
    assert "static_embedding" in set(table.control)
    assert len(pd.read_csv(out / "pairs.csv")) == 16


def test_variants(cli: Cli, tmp_path: Path) -> None:
    folder, kept = tmp_path / "variants", tmp_path / "kept.jsonl"
    result = cli("battery", "audit", *QUICK, "--scrambled", folder, "--at-chance", kept, "--json")
    variants = {p.stem: load_battery(p) for p in folder.iterdir()}
    assert set(variants) == {"words", "within_sentences", "sentences"}
    assert all(len(b.pairs) == 16 for b in variants.values())
    n_kept = result.json["n_pairs_at_chance"]
    assert len(load_battery(kept).pairs) == n_kept if n_kept else not kept.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "absent/card.json"], "no such folder"),
        (["--n-folds", "one"], "should be a valid integer"),
        (["--model", "tiny:lama"], "tiny"),
    ],
)
def test_refusals(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli("battery", "audit", *arguments)
    assert result.code in (2, 3)
    assert message in result.err


def test_a_file_where_a_folder_is_meant(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "taken"
    place.write_text("x")
    result = cli("battery", "audit", "--out", place)
    assert result.code == 2
    assert "is a file; give a folder, or a name that ends in .json" in result.err
