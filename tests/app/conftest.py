"""A run small enough for tests: texts, battery, settings; and ways to call the CLI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

WORDS = """the a river stone walked over bright market bread window slowly seven cart lamp road
carried under garden door counted paper blue quiet wheel boat tower mill gate north sand
kettle""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Outcome:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object it must be."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Inputs:
    """Files of a tiny study."""

    model: str
    corpus: Path
    battery: Path
    config: Path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call `main` in this process."""
    from affectlens.cli import main

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def spawn() -> Callable[..., subprocess.Popen[str]]:
    """Start the command line as a process of its own."""

    def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "affectlens.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        )

    return start


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A tiny llama, 30 documents and 16 pairs."""
    folder = tmp_path_factory.mktemp("study")
    model = "tiny:llama"
    rng = np.random.default_rng(0)
    corpus = folder / "corpus.jsonl"
    texts = (" ".join(rng.choice(WORDS, 40)) for _ in range(30))
    corpus.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    battery = folder / "pairs.jsonl"
    _write_battery(battery)
    config = folder / "study.yaml"
    settings = {
        "model": model,
        "corpus": str(corpus),
        "battery": str(battery),
        "harvest": {"layers": [2], "context_length": 64, "tokens_per_shard": 1024},
        "train": {
            "d_sae": 64,
            "k": 8,
            "n_samples": 10_000,
            "batch_size": 256,
            "watch": {"n_eval_rows": 500},
        },
        "search": {"n_permutations": 200, "min_items": 2},
        "validation": {
            "screen": {"max_pairs": 4, "n_top": 3, "n_random": 4, "n_prefixes": 2},
            "controls": {"n_texts": 60, "n_shuffles": 1, "n_bootstrap": 100},
            "validity": {"n_permutations": 200},
            "baselines": {"n_bootstrap": 100, "n_random": 2},
            "naming": {"n_reference": 99},
        },
        "intervene": {
            "interventions": ["ablate_zero"],
            "n_random_sets": 2,
            "n_permutations": 100,
            "features_per_emotion": 2,
            "controls": {
                "arms": ["random", "diff_of_means"],
                "doses": [1.0],
            },
            "measures": {
                "set_sizes": [],
                "mediation_random": 1,
                "damage_documents": 2,
                "damage_tokens": 16,
            },
        },
        "steer": {
            "max_new_tokens": 3,
            "strengths": [1.0],
            "evaluate": True,
            "study": {
                "emotions": ["grief"],
                "arms": ["sae_input", "sae_output", "random", "prompt"],
                "n_random": 1,
                "doses": [0.2],
                "n_scenarios": 4,
                "max_new_tokens": 2,
                "n_permutations": 100,
                "scorer": "lexicon",
            },
        },
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Inputs(model, corpus, battery, config)


def _write_battery(path: Path) -> None:
    from affectlens.data.battery_files import write_battery
    from affectlens.data.stimuli import load_battery

    write_battery(load_battery().select(limit=16), path)
