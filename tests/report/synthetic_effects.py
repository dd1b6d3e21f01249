"""The made-up interventions of a synthetic run, and what both halves of the generator share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.features.results import EffectsSummary, Generation, write_lines, write_table

EMOTIONS = [
    "rage",
    "grief",
    "terror",
    "ecstasy",
    "loathing",
    "amazement",
    "admiration",
    "vigilance",
]
INTERVENTIONS = ["ablate_zero", "ablate_neutral", "clamp"]
HOSTILE = (
    "</script><!-- {{ 7*7 }} {% raw %} \x1b[31mred\x1b[0m \u202egnp.exe\u202c <img src=x "
    "onerror=alert(1)> $x^2$ \ud800"
)
BEATS = {("ablate_zero", "grief"), ("clamp", "grief"), ("clamp", "terror"), ("clamp", "rage")}


@dataclass(frozen=True)
class Settings:
    """What kind of run to make up."""

    positive: bool = True
    hostile: bool = False
    n_tested: int = 1873
    n_random: int = 20
    seed: int = 0
    stages: tuple[str, ...] = ("run", "sae", "search", "effects")


def write_effects(run: Path, settings: Settings, rng: np.random.Generator) -> None:
    effects, verdicts = [], []
    for intervention in INTERVENTIONS:
        for emotion in EMOTIONS:
            rows, verdict = _one_effect(intervention, emotion, settings, rng)
            effects += rows
            verdicts.append(verdict)
    write_table(pd.DataFrame(effects), run, "effects/effects")
    table = pd.DataFrame(verdicts)
    write_table(table, run, "effects/verdicts")
    write_table(
        pd.DataFrame(
            [
                {
                    "emotion": e,
                    "n_pairs": 6,
                    "clinical": 0.9 + 0.05 * i,
                    "neutral": 0.3,
                    "mean_diff": 0.6 + 0.05 * i if e != "vigilance" else 0.02,
                    "d_z": 1.1 if e != "vigilance" else 0.05,
                    "auroc_paired": 0.92 if e != "vigilance" else 0.5,
                    "p": 0.03 if e != "vigilance" else 0.84,
                    "words": "sorrow, mourning, loss, grief",
                }
                for i, e in enumerate(EMOTIONS)
            ]
        ),
        run,
        "effects/readout_check",
    )
    write_lines(run / "effects/generations.jsonl", _generations(settings))
    EffectsSummary(
        emotions=EMOTIONS,
        interventions=INTERVENTIONS,
        features_per_emotion=5,
        n_random_sets=settings.n_random,
        clamp_strength=2.0,
        scope="content",
        templates=[" I feel", " The feeling was one of"],
        readout="log probability of an emotion's words minus the mean over the other emotions, "
        "after a fixed suffix",
        alpha=0.05,
        selection="retained",
        n_beating_random={
            i: int(table.loc[table.intervention == i, "beats_random"].sum()) for i in INTERVENTIONS
        },
        dropped_words={e: [] for e in EMOTIONS},
        seed=0,
    ).write(run)


def _one_effect(
    intervention: str, emotion: str, settings: Settings, rng: np.random.Generator
) -> tuple[list, dict]:
    wins = settings.positive and (intervention, emotion) in BEATS
    sign = 1 if intervention == "clamp" else -1
    size = sign * (0.55 if wins else 0.06) + rng.normal(0, 0.03)
    randoms = rng.normal(0, 0.07, settings.n_random)
    arms = [
        ("chosen", 0, size),
        *(("random", i, v) for i, v in enumerate(randoms)),
        ("random_direction", 0, rng.normal(0, 0.05)),
        ("diff_of_means", 0, sign * 0.7),
        ("no_edit", 0, 0.0),
    ]
    common = {
        "emotion": emotion,
        "intervention": intervention,
        "strength": 2.0 if intervention == "clamp" else 0.0,
        "n_items": 16,
        "n_clusters": 8,
        "readout_unedited": 0.8,
        "n_edited_tokens": 980,
        "hook_calls": 12,
    }
    rows = [
        {
            **common,
            "arm": arm,
            "set_index": i,
            "features": "" if "direction" in arm or "means" in arm else "12,99",
            "effect": v,
            "effect_low": v - 0.12,
            "effect_high": v + 0.12,
            "delta_norm": 1.9,
            "kl": 0.05,
        }
        for arm, i, v in arms
    ]
    verdict = {
        "emotion": emotion,
        "intervention": intervention,
        "direction": "raise" if sign > 0 else "lower",
        "effect": size,
        "random_mean": randoms.mean(),
        "random_low": randoms.min(),
        "random_high": randoms.max(),
        "n_random": settings.n_random,
        "advantage": sign * (size - randoms.mean()),
        "advantage_low": sign * (size - randoms.mean()) - 0.1,
        "advantage_high": sign * (size - randoms.mean()) + 0.1,
        "rank_p": 1 / 21 if wins else 0.4,
        "p": 0.0039 if wins else 0.3,
        "p_holm": 0.031 if wins else 1.0,
        "beats_random": wins,
        "n_items": 16,
        "n_clusters": 8,
    }
    return rows, verdict


def _generations(settings: Settings) -> list[Generation]:
    texts = {
        (
            "grief",
            "chosen",
            0.0,
        ): " She made coffee, opened the window, and went to work as she always did.",
        (
            "grief",
            "chosen",
            2.0,
        ): " The house was silent. She sat by the empty chair and could not stop crying for him.",
        (
            "grief",
            "random",
            2.0,
        ): " She took the number nine bus to the market and bought two kilos of apples.",
        ("terror", "chosen", 0.0): " The road was quiet and the sky was a pale, even blue.",
        (
            "terror",
            "chosen",
            2.0,
        ): " Something moved behind the door. He ran, and the dark ran after him, after him, "
        "after him.",
        ("terror", "random", 2.0): " The road was wide and lined with old trees on both sides.",
    }
    rows = [
        Generation(e, [12, 99], arm, s, "The day began like any other.", t, 0)
        for (e, arm, s), t in texts.items()
    ]
    if settings.hostile:
        rows.append(Generation("rage", [1], "chosen", 2.0, HOSTILE[:-1], HOSTILE[:-1] * 3, 0))
    return rows
