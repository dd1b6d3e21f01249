"""The made-up screen, mediation, matrix and damage of a synthetic run."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from synthetic_effects import EMOTIONS, Settings

from affectlens.features.results import write_table
from affectlens.features.screen_records import ScreenSummary

MEASURES = ("necessity", "sufficiency", "faithfulness", "completeness")
SIZES = (1, 2, 5, 10, 20)


def write_mediation(run: Path, settings: Settings, rng: np.random.Generator) -> None:
    """Mediation, matrix and damage."""
    rows = [row for emotion in EMOTIONS for row in _mediation(emotion, settings, rng)]
    write_table(pd.DataFrame(rows), run, "effects/mediation")
    write_table(_matrix(settings, rng), run, "effects/matrix")
    write_table(_damage(settings), run, "effects/damage")


def _mediation(emotion: str, settings: Settings, rng: np.random.Generator) -> list[dict]:
    blank = emotion == "vigilance"
    common = {
        "emotion": emotion,
        "numerator": 0.2,
        "denominator": 0.02 if blank else 0.7,
        "denominator_low": -0.3 if blank else 0.4,
        "denominator_high": 0.3 if blank else 1.0,
        "n_items": 6,
        "n_clusters": 6,
        "reason": "the interval of the denominator, -0.3 to 0.3, holds 0" if blank else "",
    }

    def row(measure: str, arm: str, index: int, n: int, value: float) -> dict:
        value = float("nan") if blank else value
        ends = {"value": value, "value_low": value - 0.08, "value_high": value + 0.08}
        return {
            **common,
            "measure": measure,
            "arm": arm,
            "set_index": index,
            "n_features": n,
            **ends,
        }

    size = 0.3 if settings.positive else 0.02
    rows = [row("error_share", "all", 0, 4608, 0.35)]
    for measure in MEASURES:
        base = 1 - size if measure == "completeness" else size
        rows.append(row(measure, "chosen", 0, 5, base + rng.normal(0, 0.03)))
        away = 1.0 if measure == "completeness" else 0.0
        rows += [row(measure, "random", i, 5, away + rng.normal(0, 0.02)) for i in range(3)]
        rows += [
            row(measure, "ranked", 0, n, base + 0.05 * np.log2(n / 5)) for n in SIZES if n != 5
        ]
    return rows


def _matrix(settings: Settings, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for kind, sign in (("ablate_zero", -1), ("clamp", 1)):
        for edited, read in product(EMOTIONS, EMOTIONS):
            value = sign * (0.5 if edited == read and settings.positive else 0.08)
            value += rng.normal(0, 0.06)
            hit = edited == read == "grief" and settings.positive
            rows.append(
                {
                    "intervention": kind,
                    "edited": edited,
                    "read": read,
                    "n_items": 6,
                    "n_clusters": 6,
                    "effect": value,
                    "effect_low": value - 0.1,
                    "effect_high": value + 0.1,
                    "p": 0.0004 if hit else 0.3,
                    "p_holm": 0.03 if hit else 1.0,
                    "diagonal_dominance": 0.42 if settings.positive else 0.01,
                    "p_diagonal": 0.002 if settings.positive else 0.4,
                }
            )
    return pd.DataFrame(rows)


def _damage(settings: Settings) -> pd.DataFrame:
    rows = []
    for emotion, kind, arm in [
        ("", "", "splice"),
        *(
            (e, i, a)
            for e in EMOTIONS
            for i in ("ablate_zero", "clamp")
            for a in ("chosen", "random")
        ),
    ]:
        small = kind == "ablate_zero"
        rows.append(
            {
                "emotion": emotion,
                "intervention": kind,
                "arm": arm,
                "strength": 0.0 if small or not kind else 2.0,
                "n_documents": 12,
                "n_tokens": 1500,
                "kl": 0.01 if small else 0.3,
                "kl_high": 0.02 if small else 0.4,
                "ce_unedited": 3.1,
                "ce_change": 0.002 if small else 0.2,
                "ce_low": -0.004 if small else 0.1,
                "ce_high": 0.008 if small else 0.3,
                "margin_kl": 0.1,
                "margin_ce": 0.05,
                "p_kl": 0.0001 if small else 1.0,
                "p_ce": 0.001 if small else 0.9,
                "no_damage": small,
            }
        )
    return pd.DataFrame(rows)


def write_screen(run: Path, settings: Settings, rng: np.random.Generator, n: int = 400) -> None:
    """A screen of `n` latents for every contrast, with its agreement and record."""
    contrasts = ["all", *EMOTIONS]
    parts, agreement = [], []
    for contrast in contrasts:
        parts.append(_screened(contrast, settings, rng, n))
        for kind, sample in product(("ablate", "clamp"), ("top", "random")):
            r = 0.93 if sample == "top" else 0.97
            agreement += [
                {
                    "contrast": contrast,
                    "intervention": kind,
                    "estimator": estimator,
                    "sample": sample,
                    "n": 10 if sample == "top" else 30,
                    "pearson": r,
                    "pearson_low": r - 0.2,
                    "pearson_high": r + 0.02,
                    "spearman": r - 0.05,
                    "spearman_low": r - 0.3,
                    "spearman_high": r,
                    "slope": 0.7,
                    "same_sign": 0.9,
                }
                for estimator in (("gradient", "integrated") if kind == "ablate" else ("gradient",))
            ]
    write_table(pd.concat(parts, ignore_index=True), run, "search/screen")
    write_table(pd.DataFrame(agreement), run, "search/screen_agreement")
    ScreenSummary(
        contrasts=contrasts,
        unread={},
        readout={"words": {}},
        n_pairs=24,
        n_texts={"all": 24, **dict.fromkeys(EMOTIONS, 3)},
        n_live=4553,
        n_dead=55,
        n_kept=dict.fromkeys(contrasts, n),
        n_left_out=dict.fromkeys(contrasts, 4553 - n),
        n_measured={"ablate": 300, "clamp": 350},
        completeness={c: {"joint": -1.0, "gradient": -0.4, "integrated": -1.02} for c in contrasts},
        n_scored=200,
        unscored="",
        n_prefixes=24,
        n_prefixes_masked=0,
        settings={"n_top": 10, "n_random": 30, "clamp_strength": 1.0},
    ).write(run)


def _screened(contrast: str, settings: Settings, rng: np.random.Generator, n: int) -> pd.DataFrame:
    estimate = rng.standard_t(3, n) * 0.02
    clamp = rng.standard_t(4, n) * 0.7
    norm = rng.uniform(5, 60, n)
    sample = np.full(n, "", dtype=object)
    sample[np.argsort(-np.abs(estimate))[:10]] = "top"
    sample[(rng.uniform(size=n) < 0.08) & (sample == "")] = "random"
    measured = sample != ""
    clamp_sample = np.full(n, "", dtype=object)
    clamp_sample[np.argsort(-np.abs(clamp))[:10]] = "top"
    clamp_sample[(rng.uniform(size=n) < 0.08) & (clamp_sample == "")] = "random"
    clamped = clamp_sample != ""
    rank = rng.permutation(n) + 1.0
    if settings.positive:  # three of the leading ten by input also lead by output
        best = np.argsort(-clamp / norm)[:3]
        for place, at in enumerate(best):
            other = int(np.flatnonzero(rank == place + 1)[0])
            rank[at], rank[other] = rank[other], rank[at]
    return pd.DataFrame(
        {
            "contrast": contrast,
            "feature": np.arange(n) * 2,
            "attribution_ablate": estimate,
            "attribution_neutral": estimate * 0.8,
            "attribution_clamp": clamp,
            "ig_ablate": estimate * 1.1,
            "ig_neutral": estimate * 0.9,
            "exact_ablate": np.where(measured, estimate * 0.9 + rng.normal(0, 0.004, n), np.nan),
            "exact_clamp": np.where(clamped, clamp * 0.7 + rng.normal(0, 0.1, n), np.nan),
            "verified_ablate": sample,
            "verified_clamp": clamp_sample,
            "clamp_norm": norm,
            "clamp_per_norm": clamp / norm,
            "output_score": np.where(rank <= 50, rng.uniform(0, 1, n), np.nan),
            "output_rank": np.where(rank <= 50, 12.0, np.nan),
            "output_probability": np.where(rank <= 50, 0.1, np.nan),
            "input_score": np.where(rank <= 50, rng.uniform(0, 0.4, n), np.nan),
            "input_rank": rank,
            "d_z": 2 * np.exp(-rank / 60) + rng.normal(0, 0.1, n),
            "candidate": rank <= 20,
        }
    )
