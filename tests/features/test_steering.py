"""Texts written under a clamp, and what is left of a call that was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectlens.features import steering
from affectlens.features.effects_config import SteerConfig
from affectlens.features.results import read_generations
from affectlens.features.selection import FeatureSet
from affectlens.features.steering import PARTIAL_FILE, steer

from .steered_model import PLANTED, world

SETTINGS = SteerConfig(prompts=("One.", "Two."), strengths=(0.5, 1.0), max_new_tokens=3)


def sets() -> list[FeatureSet]:
    found = world().found
    return [
        FeatureSet("grief", (PLANTED,), found.parts, found.stats),
        FeatureSet("rage", (3, 4), found.parts, found.stats),
    ]


def test_a_stopped_call_keeps_its_texts_and_leaves_no_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, sae = world().lm, world().sae
    whole = steer(lm, sae, sets(), SETTINGS, out=tmp_path / "whole", quiet=True)
    assert not (tmp_path / "whole" / PARTIAL_FILE).exists()
    assert read_generations(tmp_path / "whole") == whole

    written = steering._texts
    calls: list[int] = []

    def stopped(*args: object) -> list[str]:
        calls.append(len(calls))
        if len(calls) == 4:  # one unedited, then two strengths of the first set
            raise KeyboardInterrupt
        return written(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(steering, "_texts", stopped)
    with pytest.raises(KeyboardInterrupt):
        steer(lm, sae, sets(), SETTINGS, out=tmp_path / "part", quiet=True)
    assert not any(block._forward_hooks for block in lm.blocks)
    assert not (tmp_path / "part/effects/generations.jsonl").exists()
    kept = (tmp_path / "part" / PARTIAL_FILE).read_text().splitlines()
    complete = (tmp_path / "whole/effects/generations.jsonl").read_text().splitlines()
    assert kept == complete[: len(kept)]
    assert len(kept) == 6
