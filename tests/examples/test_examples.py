"""The example scripts as a user runs them, one after the other, on a tiny model."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = ("train_sae.py", "search_features.py", "steer_features.py")
MODEL = "tiny:llama"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    """Run a script in this process, which has torch loaded."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_train_then_search_then_steer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    rng = np.random.default_rng(0)
    words = ("a", "river", "stone", "walked", "over", "bright", "market", "bread", "window")
    texts = [{"text": " ".join(rng.choice(words, 40))} for _ in range(30)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    out = tmp_path / "mine"

    small = ("--d-sae", 64, "--k", 8, "--n-samples", 5000)
    run(monkeypatch, SCRIPTS[0], out, "--model", MODEL, "--text", corpus, "--layer", 2, *small)
    said = capsys.readouterr().out
    assert "SparseAutoencoder(topk, d_in=32, d_sae=64, k=8" in said
    assert "SAECheck: " in said
    assert (out / "sae/sae_weights.safetensors").exists()
    assert (out / "nearest.png").stat().st_size

    quick = ("--limit", 16, "--fast")
    run(monkeypatch, SCRIPTS[1], out, "--model", MODEL, "--emotion", "all", *quick)
    said = capsys.readouterr().out
    assert "SearchResult: " in said
    assert "EffectResult: " in said
    assert (out / "effects/verdicts.csv").exists()
    assert (out / "forest.png").stat().st_size

    run(monkeypatch, SCRIPTS[2], out, "--model", MODEL, "--emotion", "all", "--tokens", 4)
    steered = json.loads((out / "steered.json").read_text(encoding="utf-8"))
    assert 1 <= len(steered["clamped_to"]) <= 5
    assert "tokens changed" in capsys.readouterr().out


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_says_how_it_is_called(name: str) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    assert f"python examples/{name} my_sae" in source


def test_a_script_explains_itself_before_it_loads_anything() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / SCRIPTS[0], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "--layer" in done.stdout
