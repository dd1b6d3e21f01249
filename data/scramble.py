"""Scrambled variants of a battery: the same words in another order.

A feature that responds to scrambled members as it does to the originals follows words and not what
they say. Three grains, from harsh to mild: all words of a text, the words within each sentence, the
order of whole sentences. Words keep their own spelling and marks, so that the multiset of
blank-separated words is untouched.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Battery, make_battery

Grain = Literal["words", "within_sentences", "sentences"]
GRAINS: tuple[str, ...] = get_args(Grain)


def scramble_text(text: str, grain: str, generator: np.random.Generator) -> str:
    """One random reordering of a text; the same text if there is nothing to reorder.

    Raises:
        StimulusError: an unknown grain.
    """
    if grain == "words":
        return " ".join(_shuffled(text.split(), generator))
    if grain == "within_sentences":
        return " ".join(" ".join(_shuffled(s.split(), generator)) for s in sentences(text))
    if grain == "sentences":
        return " ".join(_shuffled(sentences(text), generator))
    raise StimulusError(f"unknown grain {grain!r}; allowed: {', '.join(GRAINS)}")


def scrambled(battery: Battery, grain: str, generator: np.random.Generator) -> Battery:
    """A battery with every text scrambled; ids, pairs and all other fields stay.

    `warnings` says how many texts came out unchanged (one sentence only, or by chance).

    Raises:
        StimulusError: an unknown grain.
    """
    items, same = [], 0
    for item in battery.items:
        text = scramble_text(item.text, grain, generator)
        same += text == item.text
        items.append(replace(item, text=text))
    notes = list(battery.warnings)
    if same:
        notes.append(f"{same} of {len(items)} texts are unchanged by scrambling their {grain}")
    return make_battery(
        f"{battery.name}~{grain}", items, f"{battery.source} scrambled", battery.licence, notes
    )


def sentences(text: str) -> list[str]:
    """Sentences of a text: cut after . ! or ? (and a closing quotation mark) before a blank."""
    return [s for s in re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"'\u201d])\s+", text.strip()) if s]


def _shuffled(parts: list[str], generator: np.random.Generator) -> list[str]:
    return [parts[i] for i in generator.permutation(len(parts))]
