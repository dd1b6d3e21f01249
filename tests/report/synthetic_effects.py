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
DOSES = (1.0, 2.0, 4.0)
"""Strengths of the clamp; 2 is the reported one."""
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
    write_table(_doses(table, settings), run, "effects/doses")
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
                    "p_cluster": 0.02 if e != "vigilance" else 0.7,
                    "auroc_own": 0.81 if e != "vigilance" else 0.52,
                    "calibrated": True,
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
        arms=["random", "random_direction", "diff_of_means", "prompt", "splice", "no_error"],
        doses={"ablate_zero": [0.0], "ablate_neutral": [0.0], "clamp": list(DOSES)},
        dose_rule="the dose with the largest effect in the predicted direction on 16 pairs of the "
        "discovery part; effects and tests are of the confirmation part",
        n_tests=40,
        n_family={"clamp": int((table.p_family <= 0.05).sum())},
        n_beating_controls=dict.fromkeys(INTERVENTIONS, 0),
        n_pairs=16,
        missing_arms={"shuffled_labels": ["vigilance"]},
        prompts={"grief": ["This is a text about grief.", "This is a text about tables."]},
        calibrated=True,
    ).write(run)


def _one_effect(
    intervention: str, emotion: str, settings: Settings, rng: np.random.Generator
) -> tuple[list, dict]:
    wins = settings.positive and (intervention, emotion) in BEATS
    sign = 1 if intervention == "clamp" else -1
    size = sign * (0.55 if wins else 0.06) + rng.normal(0, 0.03)
    randoms = rng.normal(0, 0.07, settings.n_random)
    directions = rng.normal(0, 0.05, 5)
    arms = [
        ("chosen", 0, size),
        *(("random", i, v) for i, v in enumerate(randoms)),
        *(("random_direction", i, v) for i, v in enumerate(directions)),
        *(("shuffled_labels", i, v) for i, v in enumerate(rng.normal(0, 0.06, 3))),
        ("diff_of_means", 0, sign * 0.7),
        ("dense_probe", 0, sign * 0.3),
        ("neurons", 0, sign * 0.1),
        ("no_edit", 0, 0.0),
        ("splice", 0, -0.2),
        ("chosen_no_error", 0, size - 0.2),
        ("error_only", 0, -0.6),
        ("chosen_error_only", 0, size / 2 - 0.6),
    ]
    if sign > 0:
        arms += [("prompt", 0, 2.4), ("prompt_neutral", 0, 0.2)]
    strength = 2.0 if intervention == "clamp" else 0.0
    common = {
        "emotion": emotion,
        "intervention": intervention,
        "strength": strength,
        "n_items": 16,
        "n_clusters": 8,
        "readout_unedited": 0.8,
        "n_edited_tokens": 980,
        "hook_calls": 12,
        "reported": True,
    }
    unedited = ("no_edit", "prompt", "prompt_neutral")
    rows = [
        {
            **common,
            "arm": arm,
            "set_index": i,
            "features": "12,99" if arm in ("chosen", "random", "shuffled_labels") else "",
            "effect": v,
            "effect_low": v - 0.12 if arm != "no_edit" else 0.0,
            "effect_high": v + 0.12 if arm != "no_edit" else 0.0,
            "net_effect": v,
            "delta_norm": np.nan if arm in unedited else 1.9,
            "delta_total": np.nan if arm in unedited else 96.0,
            "norm_ratio": np.nan if arm in unedited else 1.0 + 0.01 * i,
            "kl": 0.05,
        }
        for arm, i, v in arms
    ]
    rows += [
        {**row, "strength": dose, "effect": row["effect"] * dose / 2, "reported": False}
        for dose in DOSES
        if strength and dose != strength
        for row in rows
        if row["arm"] in ("chosen", "random")
    ]
    verdict = {
        "emotion": emotion,
        "intervention": intervention,
        "direction": "raise" if sign > 0 else "lower",
        "strength": strength,
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
        "p_family": 0.04 if wins and sign > 0 else 1.0,
        "min_p": 1 / 256,
        "beats_random": wins,
        "beats_controls": False,
        "strongest_control": "prompt" if sign > 0 else "diff_of_means",
        "strongest_effect": 2.4 if sign > 0 else -0.7,
        "dose_slope": size / 2 if sign > 0 else np.nan,
        "dose_slope_low": size / 2 - 0.05 if sign > 0 else np.nan,
        "dose_slope_high": size / 2 + 0.05 if sign > 0 else np.nan,
        "n_items": 16,
        "n_clusters": 8,
    }
    return rows, verdict


def _doses(verdicts: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    rows = [
        {
            "emotion": v.emotion,
            "intervention": "clamp",
            "strength": dose,
            "discovery_effect": v.effect * (1.1 if dose == 2 else 0.5),
            "effect": v.effect * dose / 2,
            "random_mean": v.random_mean * dose / 2,
            "advantage": v.advantage * dose / 2,
            "kl": 0.02 * dose**2,
            "p": v.p,
            "p_family": v.p_family,
            "reported": dose == 2,
        }
        for v in verdicts[verdicts.intervention == "clamp"].itertuples()
        for dose in DOSES
    ]
    return pd.DataFrame(rows)


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
