"""Tables beside the verdicts: doses, and how much each arm wrote into the model."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from affectlens.display.arms import EFFECT_ARMS, TITLES, effect_arm, in_order
from affectlens.display.words import capital, contrast_label, listing, number, probability, sentence

from .loading import RunData
from .tables import Cell, Head, Row, Table, words

DOSES, EFFECTS = "effects/doses", "effects/effects"
_UNWRITTEN = ("no_edit", "prompt", "prompt_neutral")


def dose_tables(data: RunData) -> list[Table]:
    """One table for each intervention with several doses; where the dose was chosen is a column."""
    table = data.rows(DOSES)
    if table is None:
        return []
    own = [
        (str(name), part)
        for name, part in table.groupby("intervention", sort=False)
        if part.strength.nunique() > 1
    ]
    return [_doses(name, part) for name, part in own]


def dose_rule(data: RunData) -> str:
    """How the reported dose was chosen, as a sentence; '' where nothing has a dose."""
    summary = data.effects_summary
    if summary is None or data.rows(DOSES) is None or not summary.dose_rule:
        return ""
    several = [k for k, doses in summary.doses.items() if len(doses) > 1]
    if not several:
        return "Each intervention has one dose, set beforehand."
    return sentence(f"The reported dose is {summary.dose_rule}")


def _doses(name: str, part: pd.DataFrame) -> Table:
    rows = tuple(_dose_row(r) for r in part.itertuples())
    heads = (
        Head("Emotion", num=False),
        Head("Dose"),
        Head("Effect, discovery", "nats, chooses"),
        Head("Effect, kept aside", "nats, reported"),
        Head("Random sets", "mean, nats"),
        Head("Advantage", "nats"),
        Head("KL", "nats a token"),
        Head("p"),
        Head("p, all tests", "Holm"),
        Head("Reported", num=False),
    )
    return Table(f"Doses: {TITLES.get(name, name)}", heads, rows)


def _dose_row(r: Any) -> Row:
    cells = (
        Cell(f"{r.strength:g}×"),
        Cell(number(r.discovery_effect, sign=True)),
        Cell(number(r.effect, sign=True)),
        Cell(number(r.random_mean, sign=True)),
        Cell(number(r.advantage, sign=True)),
        Cell(number(r.kl, 3)),
        Cell(probability(r.p)),
        Cell(probability(r.p_family)),
        words("reported" if r.reported else "–"),
    )
    return Row(contrast_label(str(r.emotion)), cells)


def norm_table(data: RunData) -> Table | None:
    """Size of the change of every arm, over emotions; None where it was not recorded."""
    table = data.rows(EFFECTS)
    if table is None:
        return None
    own = table[table.reported.astype(bool) & ~table.arm.isin(_UNWRITTEN)]
    own = own[own.delta_norm.notna()]
    if own.empty:
        return None
    rows = []
    for name, part in own.groupby("intervention", sort=False):
        arms = in_order(part.arm, EFFECT_ARMS)
        rows += [_norm_row(str(name), arm, part[part.arm == arm]) for arm in arms]
    heads = (
        Head("Arm", num=False),
        Head("Intervention", num=False),
        Head("Norm a token", "of the residual; mean over emotions"),
        Head("Norm a text", "mean over emotions"),
        Head("Against chosen", "least to most"),
        Head("Edited tokens", "least to most"),
    )
    return Table("How much each arm writes (L2 norm of the change)", heads, tuple(rows))


def _norm_row(name: str, arm: str, own: pd.DataFrame) -> Row:
    return Row(
        capital(effect_arm(arm).label),
        (
            words(TITLES.get(name, name)),
            Cell(number(float(own.delta_norm.mean()))),
            Cell(number(float(own.delta_total.mean()), 1)),
            Cell(_span(own.norm_ratio, 2)),
            Cell(_span(own.n_edited_tokens, 0)),
        ),
    )


def norm_sentence(data: RunData) -> str:
    """Whether the random sets wrote as much as the chosen features; '' where not recorded."""
    table = data.rows(EFFECTS)
    if table is None:
        return ""
    own = table[table.reported.astype(bool) & (table.arm == "random")]
    ratio = own.norm_ratio[own.norm_ratio.map(math.isfinite)]
    if ratio.empty:
        return ""
    low, high = float(ratio.min()), float(ratio.max())
    said = (
        f"The random sets write {number(low)} to {number(high)} times the total norm of the chosen "
        "features"
    )
    off = own.loc[own.norm_ratio.map(math.isfinite) & ((own.norm_ratio - 1).abs() > 0.1)]
    if off.empty:
        return f"{said}."
    where = listing(sorted({contrast_label(str(e)) for e in off.emotion}))
    return f"{said}; more than a tenth apart for {where}, where they are no equal control."


def missing_arms(data: RunData) -> str:
    """Arms that could not be made, as a sentence; '' if all were."""
    summary = data.effects_summary
    lost = {} if summary is None else {a: e for a, e in summary.missing_arms.items() if e}
    if not lost:
        return ""
    named = [
        f"{effect_arm(arm).label} ({listing([contrast_label(e) for e in emotions])})"
        for arm, emotions in lost.items()
    ]
    return f"Could not be made: {'; '.join(named)}."


def prompts(data: RunData) -> list[tuple[str, str]]:
    """The sentences of the prompt arms, (emotion, both)."""
    summary = data.effects_summary
    if summary is None:
        return []
    return [
        (contrast_label(emotion), " · ".join(f"“{line.strip()}”" for line in lines))
        for emotion, lines in summary.prompts.items()
    ]


def _span(values: pd.Series, digits: int) -> str:
    known = values[values.notna()]
    if known.empty:
        return "–"
    ends = [number(float(v), digits) for v in (known.min(), known.max())]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
