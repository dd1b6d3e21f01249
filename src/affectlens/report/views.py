"""What the template shows of the interventions: verdicts, readouts, texts side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from affectlens.display.arms import TITLES, effect_arm
from affectlens.display.words import (
    contrast_label,
    listing,
    number,
    plural,
    probability,
    share,
    shorten,
)
from affectlens.features.results import Generation

from .figures_effects import at_reported_strength
from .loading import RunData
from .readout_check import doubtful_readouts

GROUPS_SHOWN = 16
TEXT_LIMIT = 900
WORDS_LIMIT = 160


@dataclass(frozen=True)
class VerdictRow:
    """One emotion under one intervention."""

    emotion: str
    effect: str
    random: str
    advantage: str
    advantage_ends: str
    p: str
    p_family: str
    rank_p: str
    passes: bool
    beats_controls: bool
    strongest: str
    strongest_arm: str
    dose: str
    doubtful: bool


@dataclass(frozen=True)
class VerdictBlock:
    """Every emotion under one intervention."""

    title: str
    predicted: str
    n_passed: int
    n_beyond: int
    rows: tuple[VerdictRow, ...]


@dataclass(frozen=True)
class ReadoutRow:
    """One emotion's readout check."""

    emotion: str
    n_pairs: int
    difference: str
    d_z: str
    auroc: str
    p: str
    works: bool
    words: str


@dataclass(frozen=True)
class TextColumn:
    """One written text with what was done to the model."""

    label: str
    note: str
    kind: str
    text: str


@dataclass(frozen=True)
class TextGroup:
    """Texts from one prompt, side by side."""

    emotion: str
    prompt: str
    columns: tuple[TextColumn, ...]


def verdict_blocks(data: RunData) -> list[VerdictBlock]:
    """The verdicts, one table for each intervention; every test is in it."""
    if data.verdicts is None:
        return []
    doubtful = set(doubtful_readouts(data))
    blocks = []
    for name, part in data.verdicts.groupby("intervention", sort=False):
        rows = tuple(_verdict_row(v, v.emotion in doubtful) for v in part.itertuples())
        predicted = "higher" if part.direction.iloc[0] == "raise" else "lower"
        title = TITLES.get(str(name), str(name))
        counts = int(part.beats_random.sum()), int(part.beats_controls.sum())
        blocks.append(VerdictBlock(title, predicted, *counts, rows))
    return blocks


def _verdict_row(verdict: Any, doubtful: bool) -> VerdictRow:  # noqa: FBT001
    low, high = (number(v, sign=True) for v in (verdict.random_low, verdict.random_high))
    ends = [number(v, sign=True) for v in (verdict.advantage_low, verdict.advantage_high)]
    limits = "" if "–" in ends else " to ".join(ends)
    return VerdictRow(
        emotion=contrast_label(str(verdict.emotion)),
        effect=number(verdict.effect, sign=True),
        random=f"{low} to {high}",
        advantage=number(verdict.advantage, sign=True),
        advantage_ends=limits,
        p=probability(verdict.p_holm),
        p_family=probability(verdict.p_family),
        rank_p=probability(verdict.rank_p),
        passes=bool(verdict.beats_random),
        beats_controls=bool(verdict.beats_controls),
        strongest=number(verdict.strongest_effect, sign=True),
        strongest_arm=effect_arm(str(verdict.strongest_control)).label,
        dose=f"{verdict.strength:g}×" if verdict.strength else "",
        doubtful=doubtful,
    )


def _simpler(data: RunData) -> dict[tuple[str, str], float]:
    if data.effects is None or data.effects.empty:
        return {}
    table = at_reported_strength(data)
    part = table[table.arm == "diff_of_means"]
    return {(str(r.emotion), str(r.intervention)): float(r.effect) for r in part.itertuples()}


def simpler_method(data: RunData) -> str:
    """How the chosen features compare with the difference of means, which needs no SAE."""
    found = _simpler(data)
    if data.verdicts is None or not found:
        return ""
    sign = {"lower": -1.0, "raise": 1.0}
    cases = [
        (
            sign.get(str(v.direction), 1.0),
            float(v.effect),
            found[(str(v.emotion), str(v.intervention))],
        )
        for v in data.verdicts.itertuples()
        if (str(v.emotion), str(v.intervention)) in found
    ]
    wins = sum(s * chosen > s * other for s, chosen, other in cases)
    return (
        f"The plain difference of means, which needs no SAE, moved the readout further than the "
        f"chosen features in "
        f"{len(cases) - wins} of {plural(len(cases), 'test')}."
    )


def readout_rows(data: RunData) -> list[ReadoutRow]:
    """Does the measure rise on the emotion's own texts?"""
    if data.readout is None:
        return []
    doubtful = set(doubtful_readouts(data))
    return [
        ReadoutRow(
            contrast_label(str(r.emotion)),
            int(r.n_pairs),
            number(r.mean_diff, sign=True),
            number(r.d_z, sign=True),
            share(r.auroc_paired),
            probability(r.p),
            r.emotion not in doubtful,
            shorten(", ".join(w.strip() for w in str(r.words).split(",")), WORDS_LIMIT),
        )
        for r in data.readout.itertuples()
    ]


def readout_sentence(data: RunData) -> str:
    """Which emotions' readouts can be read."""
    if data.readout is None or data.readout.empty:
        return "The readout was not checked."
    doubtful = doubtful_readouts(data)
    n = len(data.readout)
    if not doubtful:
        return f"The measure rises on the emotion’s own texts for all {n} readouts."
    return (
        f"The measure works for {n - len(doubtful)} of {n} readouts. It does not reliably rise "
        f"on its own texts for "
        f"{listing([contrast_label(e) for e in doubtful])}: effects on those say little."
    )


def dropped_words(data: RunData) -> str:
    """Words that could not be read because the tokenizer splits them."""
    if data.effects_summary is None:
        return ""
    lost = {e: w for e, w in data.effects_summary.dropped_words.items() if w}
    if not lost:
        return ""
    named = "; ".join(f"{e}: {', '.join(words)}" for e, words in lost.items())
    return f"Left out because the tokenizer splits them: {named}."


def text_groups(data: RunData) -> tuple[list[TextGroup], int]:
    """Written texts by emotion and prompt, unedited first, and how many groups are not shown."""
    ordered = sorted(data.generations, key=_group_key)
    groups = [_group(list(rows)) for _, rows in groupby(ordered, key=_group_key)]
    return groups[:GROUPS_SHOWN], max(0, len(groups) - GROUPS_SHOWN)


def _group_key(row: Generation) -> tuple[str, str, int]:
    return row.emotion, row.prompt, row.seed


def _group(rows: list[Generation]) -> TextGroup:
    arms = {"chosen": 0, "random": 1}
    ordered = sorted(rows, key=lambda r: (r.strength != 0, arms.get(r.arm, 2), r.strength))
    return TextGroup(
        contrast_label(rows[0].emotion), rows[0].prompt, tuple(_without_repeats(ordered))
    )


def _without_repeats(rows: Iterable[Generation]) -> Iterable[TextColumn]:
    unedited: set[str] = set()
    for row in rows:
        text = shorten(row.text, TEXT_LIMIT)
        if row.strength == 0:
            # Every arm at strength 0 is the same unedited model: one column is enough.
            if row.text not in unedited:
                yield TextColumn("Unedited", f"seed {row.seed}", "plain", text)
            unedited.add(row.text)
            continue
        named = ", ".join(str(f) for f in row.features[:6]) + (
            " …" if len(row.features) > 6 else ""
        )
        kind = row.arm if row.arm in ("chosen", "random") else "other"
        label = {"chosen": "Chosen features", "random": "Random features"}.get(row.arm, row.arm)
        yield TextColumn(
            f"{label} at {row.strength:g}×",
            f"features {named}" if named else "direction",
            kind,
            text,
        )
