"""A few texts of the steering study side by side, picked by a rule and not by what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.arms import study_arm
from affectlens.display.words import contrast_label, number, plural, shorten

from .loading import RunData
from .views import TEXT_LIMIT, TextColumn, TextGroup

TEXTS, CHOSEN = "steering/texts", "steering/chosen"
SCENARIOS = 1
"""Scenarios shown for each emotion."""


@dataclass(frozen=True)
class StudyTexts:
    """Groups of texts and the rule by which they were picked."""

    groups: tuple[TextGroup, ...]
    rule: str


def study_texts(data: RunData) -> StudyTexts:
    """For each emotion: unedited, prompt, the best SAE arm and random latents, same scenario.

    The scenario is the first of the reported half, the SAE arm the one with the highest score on
    the other half, each arm at its chosen dose, and of random sets the first.
    """
    texts, chosen = data.rows(TEXTS), data.rows(CHOSEN)
    if texts is None or chosen is None:
        return StudyTexts((), "")
    report = texts[texts.half == "report"]
    scenarios = sorted(dict.fromkeys(report.scenario.astype(str)))[:SCENARIOS]
    groups = [
        _group(str(emotion), scenario, report, own)
        for emotion, own in chosen.groupby("emotion", sort=False)
        for scenario in scenarios
    ]
    n = plural(report.scenario.nunique(), "scenario")
    rule = (
        f"Shown is the first of {n} that chose no dose, for every emotion the same; of the arms of "
        "latents the one with the best score on the other half; of random sets the first."
    )
    return StudyTexts(tuple(g for g in groups if g.columns), rule)


def _group(emotion: str, scenario: str, report: pd.DataFrame, chosen: pd.DataFrame) -> TextGroup:
    sae = chosen[chosen.arm.str.startswith("sae_")].sort_values("select_overall", ascending=False)
    wanted = [
        ("unedited", "plain"),
        ("prompt", "other"),
        *((str(arm), "chosen") for arm in sae.arm.head(1)),
        ("random", "random"),
    ]
    here = report[(report.emotion == emotion) & (report.scenario == scenario)]
    columns = []
    for arm, kind in wanted:
        own = chosen[(chosen.arm == arm) & (chosen["set_index"] == 0)]
        row: Any = next(own.itertuples(), None)
        if row is None:
            continue
        found = here[(here.arm == arm) & (here["set_index"] == 0) & (here.dose == row.dose)]
        columns += [_column(r, kind) for r in found.head(1).itertuples()]
    return TextGroup(contrast_label(emotion), scenario, tuple(columns))


def _column(r: Any, kind: str) -> TextColumn:
    dose = f" at {r.dose:g}" if r.dose else ""
    note = f"emotion {number(r.concept)}, coherence {number(r.coherence)}"
    if r.naming:
        note += ", names it"
    text = shorten(str(r.text), TEXT_LIMIT).strip()
    return TextColumn(f"{study_arm(str(r.arm)).label}{dose}", note, kind, text or "(empty)")
