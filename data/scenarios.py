"""Scenarios with three outcomes each: prompts on which generation is steered and scored.

The layout is that of SEV (Scenario-Event with Valence): an everyday scene in one sentence and three
events that may follow it, one positive, one neutral, one negative. The same file read as a battery
(`load_battery`, layout sev) gives pairs; here a scenario stays one item, because a study continues
the scene and needs it whole, and because the three prompts of one scene are not independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from affectlens.data.artifacts import sha256_json
from affectlens.data.battery_rows import show
from affectlens.data.errors import StimulusError
from affectlens.data.table_files import Raw
from affectlens.data.text_sets import Row, read_set, required_texts, unfit_characters

Valence = Literal["positive", "neutral", "negative"]
"""Which way an event turns out."""

EVENTS: tuple[Valence, ...] = get_args(Valence)
"""The events of a scenario, in order."""

EMBEDDED = "affectlens-scenarios"
"""The set that ships with the package."""

_FIELDS = ("theme", "scenario", "event", "skeleton_id")


@dataclass(frozen=True)
class Scenario:
    """One scene.

    `id` is unique in its set, `theme` the subject it is filed under, `scenario` the scene in a
    sentence, `events` its outcome by valence, a sentence each.
    """

    id: str
    theme: str
    scenario: str
    events: Mapping[Valence, str]

    def prompt(self, valence: Valence = "neutral") -> str:
        """The scene and one of its events as running text.

        Raises:
            StimulusError: no such event.
        """
        if valence not in EVENTS:
            raise StimulusError(
                f"scenario {self.id!r} has no event {valence!r}; allowed: {', '.join(EVENTS)}"
            )
        return told(self.scenario, self.events[valence])


@dataclass(frozen=True)
class Scenarios:
    """A set of scenarios.

    `sha256` is over ids, themes and texts, in order; `source` says where they were read;
    `warnings` count what the file held and was not used.
    """

    name: str
    items: tuple[Scenario, ...]
    source: str
    licence: str
    warnings: tuple[str, ...] = field(default=())

    @cached_property
    def sha256(self) -> str:
        """Hex checksum of the items, independent of line ends and the order of keys."""
        return sha256_json([(s.id, s.theme, s.scenario, dict(s.events)) for s in self.items])

    @cached_property
    def themes(self) -> Mapping[str, int]:
        """Scenarios in each theme, in order of first appearance."""
        return MappingProxyType(Counter(s.theme for s in self.items))

    def prompts(self, valence: Valence = "neutral") -> tuple[str, ...]:
        """The prompt of every scenario, in order."""
        return tuple(s.prompt(valence) for s in self.items)

    def split(self, seed: int) -> tuple[Scenarios, Scenarios]:
        """Halve the set within each theme: doses are chosen on one half, reported on the other.

        The sizes of the halves differ by at most one, in every theme and over all. The halves keep
        the order of the file; both are fixed by the set and the seed.

        Returns:
            `select` and `report`, named after this set.

        Raises:
            StimulusError: fewer than two scenarios.
        """
        if len(self.items) < 2:
            raise StimulusError(
                f"{self.name} has {len(self.items)} scenario; two halves need at least two"
            )
        rng = np.random.default_rng(seed)
        themes = list(self.themes)
        order: list[int] = []
        # One run over shuffled themes, dealt out in turn: a theme of odd size does not always
        # leave its extra scenario in the same half.
        for theme in rng.permutation(len(themes)):
            members = [i for i, s in enumerate(self.items) if s.theme == themes[theme]]
            order += rng.permutation(members).tolist()
        return self._part("select", order[0::2]), self._part("report", order[1::2])

    def _part(self, name: str, indices: list[int]) -> Scenarios:
        items = tuple(self.items[i] for i in sorted(indices))
        return Scenarios(f"{self.name}/{name}", items, self.source, self.licence, self.warnings)


def load_scenarios(name: str | Path = EMBEDDED) -> Scenarios:
    """Load the embedded set, or a .jsonl file in the layout of SEV.

    A line holds `theme`, `scenario`, `event` with `positive`, `neutral` and `negative`, and
    `skeleton_id`. Outer blanks of a text are taken off; a byte order mark and CRLF line ends are
    accepted.

    Raises:
        StimulusError: unknown name, unreadable file, no scenario, or lines with missing, empty,
            mistyped or repeated fields; all are counted and the first ones named by line.
    """
    read = read_set(name, EMBEDDED, "scenarios", _row)
    return Scenarios(read.name, read.items, read.source, read.licence, read.warnings)


def read_events(raw: Raw, problems: list[str]) -> dict[Valence, str]:
    """The events of a row as they stand there; what is wrong with them is added to `problems`."""
    event = raw.values.get("event")
    if not isinstance(event, dict):
        problems.append(f"'event' must be an object with {', '.join(EVENTS)}, got {show(event)}")
        return {}
    texts: dict[Valence, str] = {}
    for kind in EVENTS:
        text = event.get(kind)
        if isinstance(text, str) and text.strip():
            texts[kind] = text
        else:
            problems.append(f"the {kind} event must be a text, got {show(text)}")
    return texts


def unused_fields(raw: Raw) -> tuple[str, ...]:
    """Fields of a row, and of its event, that the layout does not know."""
    event = raw.values.get("event")
    return (
        *(str(k) for k in raw.values if k not in _FIELDS),
        *(f"event.{k}" for k in (event if isinstance(event, dict) else ()) if k not in EVENTS),
    )


def told(scenario: str, event: str) -> str:
    """A scene and an event as running text."""
    return f"{scenario}{' ' if scenario.rstrip()[-1:] in tuple('.!?') else '. '}{event}"


def _row(raw: Raw) -> Row[Scenario]:
    texts, problems = required_texts(raw, ("skeleton_id", "theme", "scenario"))
    events = {kind: text.strip() for kind, text in read_events(raw, problems).items()}
    for kind, text in events.items():
        problems += unfit_characters(f"{kind} event", text)
    if len(set(events.values())) < len(events):
        problems.append("two of its events are the same text")
    return Row(
        Scenario(texts["skeleton_id"], texts["theme"], texts["scenario"], MappingProxyType(events)),
        tuple(problems),
        {"id": texts["skeleton_id"], "scenario": texts["scenario"]},
        unused_fields(raw),
    )
