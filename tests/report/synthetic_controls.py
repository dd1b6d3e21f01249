"""Made-up lexical controls, baselines and read positions of a synthetic run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from synthetic_effects import EMOTIONS, HOSTILE, Settings

from affectlens.features.baseline_columns import LAYERED_METHODS, METHODS, RANDOM_METHODS
from affectlens.features.columns import TABLES
from affectlens.features.feature_classes import CLASSES
from affectlens.features.results import write_table
from affectlens.features.validation_records import BaselinesSummary, ControlsSummary

LAYERS = (-1, 0, 9, 18)
SAE_LAYER = 18
KINDS = ("contextual", "mixed", "lexical")


def write_controls(run: Path, settings: Settings, chosen: pd.DataFrame) -> None:
    """Write the tables and the record of the controls for the retained features."""
    rng = np.random.default_rng(settings.seed + 1)
    table = _controls(chosen, settings, rng)
    write_table(table, run, "search/controls")
    write_table(_grains(table, rng), run, "search/control_grains")
    write_table(_strict(table, rng), run, "search/strict")
    ControlsSummary(
        part="confirmation",
        pooling="suffix",
        n_pairs=16,
        n_latents=int(table.feature.nunique()),
        classes={
            str(name): {kind: int((rows["class"] == kind).sum()) for kind in CLASSES}
            for name, rows in table.groupby("contrast", sort=False)
        },
        n_strict=dict.fromkeys(["all", *EMOTIONS], 0),
        grains=["words", "within_sentences", "sentences"],
        n_shuffles=8,
        n_excluded={"words": 0, "within_sentences": 0, "sentences": 3},
        n_passages=400,
        n_passages_asked=400,
        n_passages_shared=0,
        n_passages_repeated=0,
        n_passage_documents=380,
        corpus="default",
        corpus_sha256="ab12" * 16,
        n_words=1108,
        unseen_share=0.27,
        strict=["affectlens-balanced", "affectlens-isolexical"],
        mostly=0.5,
        max_r2=0.5,
        alpha=0.05,
        seed=0,
    ).write(run)


def _filled(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The frame with every column of its table; what is not given is NaN."""
    missing = [c for c in TABLES[name] if c not in frame]
    return frame.assign(**dict.fromkeys(missing, np.nan))


def _controls(chosen: pd.DataFrame, settings: Settings, rng: np.random.Generator) -> pd.DataFrame:
    n = len(chosen)
    confirmed = chosen.confirmed.to_numpy()
    kinds = np.array([KINDS[i % 3] for i in range(n)], dtype=object)
    kinds[~confirmed] = "unsupported"
    kept = np.where(kinds == "lexical", 0.9, rng.normal(0.1, 0.2, n))
    why = "Words carry it: " + (HOSTILE[:-1] if settings.hostile else "see the numbers") + "."
    frame = pd.DataFrame(
        {
            "contrast": chosen.contrast.to_numpy(),
            "feature": chosen.feature.to_numpy(),
            "confirmed": confirmed,
            "class": kinds,
            "why": why,
            "strict": "",
            "n_pairs": 16,
            "effect": 0.4,
            "d": chosen.confirm_d_z.to_numpy(),
            "kept": kept,
            "kept_low": kept - 0.3,
            "kept_high": kept + 0.3,
            "did_p_holm": np.where(kinds == "contextual", 0.004, 0.3),
            "off_distribution": np.arange(n) % 5 == 0,
            "r2": np.where(np.arange(n) % 7 == 0, np.nan, rng.uniform(0, 0.5, n)),
            "n_active": 37,
            "predicted": np.where(np.arange(n) % 7 == 0, np.nan, kept / 2),
            "predicted_low": kept / 2 - 0.2,
            "predicted_high": kept / 2 + 0.2,
            "residual_p_holm": 0.01,
            "shared_status": "not applicable: equal tokens by construction",
            "shared_n_pairs": 0,
        }
    )
    shares = {c: 0.2 for c in TABLES["search/controls"] if c.startswith(("mass_", "tokens_"))}
    return _filled(frame.assign(**shares), "search/controls")


def _grains(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "contrast": table.contrast,
                "feature": table.feature,
                "grain": grain,
                "kept": rng.normal(middle, 0.05, len(table)),
                "did_p_holm": 0.02,
                "off_distribution": False,
            }
        )
        for grain, middle in (("words", 0.1), ("within_sentences", 0.3), ("sentences", 0.7))
    ]
    return _filled(pd.concat(parts, ignore_index=True), "search/control_grains")


def _strict(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "contrast": table.contrast,
                "feature": table.feature,
                "battery": battery,
                "n_pairs": 24,
                "n_units": 12,
                "d": rng.normal(0, 0.1, len(table)),
                "p_holm": 0.8,
                "min_detectable": 0.6,
                "outcome": outcome,
            }
        )
        for battery, outcome in (
            ("affectlens-balanced", "not shown"),
            ("affectlens-isolexical", "low power"),
        )
    ]
    return _filled(pd.concat(parts, ignore_index=True), "search/strict")


def write_baselines(run: Path, settings: Settings) -> None:
    """Write the table and the record of the baselines."""
    rng = np.random.default_rng(settings.seed + 2)
    rows = [
        _baseline(evaluation, target, method, layer, rng)
        for evaluation in ("confirmation", "folds")
        for target in ("all", *EMOTIONS)
        for method in METHODS
        for layer in (LAYERS if method in LAYERED_METHODS else (SAE_LAYER,))
    ]
    table = pd.DataFrame(rows)
    table["layer"] = table["layer"].astype("Int64")
    write_table(table, run, "search/baselines")
    BaselinesSummary(
        battery="affectlens-vignettes",
        battery_sha256="cd34" * 16,
        pooling="suffix",
        sae_hook="blocks.18.hook_resid_post",
        hooks=["embed", "blocks.0", "blocks.9", "blocks.18"],
        n_pairs_tested={"confirmation": 16, "folds": 48},
        n_left_out={"confirmation": 0, "folds": 2},
        untested=[],
        chosen_layers={},
        best_latents={},
        verdicts={},
        n_folds=5,
        n_inner=4,
        strengths=[1.0],
        word_strengths=[1.0],
        n_random=20,
        n_bootstrap=500,
        seed=0,
    ).write(run)


def _baseline(
    evaluation: str, target: str, method: str, layer: int, rng: np.random.Generator
) -> dict[str, object]:
    auroc = {"dense_probe": 0.95, "tfidf_words": 0.9, "sae_latent": 0.72}.get(method, 0.7)
    if layer == -1 or method in RANDOM_METHODS:
        auroc = 0.5
    few = evaluation == "confirmation" and target != "all"
    verdict = "SAE latent worse" if auroc > 0.72 else "not distinguishable"
    if method == "sae_latent":
        verdict = "reference"
    elif few:
        verdict = "too few clusters"
    elif auroc == 0.5:
        verdict = "SAE latent better"
    low, high = (np.nan, np.nan) if few else (auroc - 0.05, min(auroc + 0.05, 1.0))
    return {
        "layer": None if method == "tfidf_words" else layer,
        "hook": "",
        "method": method,
        "target": target,
        "n_features_used": 1.0,
        "auroc": auroc,
        "low": low,
        "high": high,
        "paired_accuracy": auroc,
        "paired_low": low,
        "paired_high": high,
        "minus_sae": auroc - 0.72,
        "minus_sae_low": np.nan if few else auroc - 0.72 - 0.05,
        "minus_sae_high": np.nan if few else auroc - 0.72 + 0.05 * rng.uniform(0.9, 1.1),
        "verdict": verdict,
        "n_pairs": 48 if target == "all" else 6,
        "n_clusters": 24 if target == "all" else 3,
        "evaluated_on": evaluation,
    }


def write_reads(run: Path, settings: Settings) -> None:
    """Write where texts were read."""
    tokens = [".", ".", ".", '."', " day\n"] + (["<b>\u202e"] if settings.hostile else [])
    n = len(tokens)
    frame = pd.DataFrame(
        {
            "item_id": [f"V-{i}" for i in range(n)],
            "n_read": [8 + i for i in range(n)],
            "position": [30 + i for i in range(n)],
            "token": tokens,
            "before": [" and the kettle went cold on the"] * n,
        }
    )
    write_table(frame, run, "search/reads")
