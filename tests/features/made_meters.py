"""Texts and readouts for measurements on tiny models."""

from __future__ import annotations

from affectlens.data.models import LanguageModel
from affectlens.features.readouts import Readout, build_readout

TEXTS = ["She read the letter.", "A boat left.", "He folded the map and went.", "Rain."]
TEMPLATES = (" It felt", "\nIt was")
# The tiny tokenizer reads bytes, so that these are words of one token, and of two.
WORDS = {"grief": ["a", "b", "c"], "rage": ["d", "e", "f"], "calm": ["g", "h", "i"]}
LONG = {"grief": ["ax", "ay", "c"], "rage": ["dd", "e", "f"], "calm": ["g", "hz", "i"]}


def make_readout(lm: LanguageModel, *, long: bool = False, scales: bool = False) -> Readout:
    return build_readout(
        lm,
        LONG if long else WORDS,
        TEMPLATES,
        calibrate=False,
        split="score",
        scales=scales,
    )
