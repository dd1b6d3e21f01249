"""Writes run folders with made-up but plausible results: the report is tested without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from synthetic_causal import write_mediation, write_screen
from synthetic_controls import write_baselines, write_controls, write_reads
from synthetic_effects import EMOTIONS, HOSTILE, Settings, write_effects
from synthetic_study import write_study

from affectlens.features.columns import TABLES
from affectlens.features.results import (
    Context,
    SAEMetrics,
    SearchSummary,
    read_table,
    write_lines,
    write_table,
)

N_FEATURES = 4608
CONFIRMED = {"all": 6, "grief": 3, "terror": 2, "rage": 1, "loathing": 1}

CAUSAL = {"screen": write_screen, "mediation": write_mediation, "study": write_study}

WORDS = {
    "grief": ["her mother's funeral was held on a", "he wept beside the empty bed and"],
    "terror": ["the footsteps behind her quickened and she", "he could not breathe as the water"],
    "rage": ["slammed the door and shouted that he", "furious at the lie, she tore the"],
}


def write_run(run: Path, settings: Settings | None = None) -> Path:
    """Write a whole run folder and return it."""
    settings = settings or Settings()
    run.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(settings.seed)
    if "run" in settings.stages:
        _write_info(run, settings)
    if "sae" in settings.stages:
        _metrics().write(run)
    if "search" in settings.stages:
        _write_search(run, settings, rng)
    if "reads" in settings.stages:
        write_reads(run, settings)
    if "controls" in settings.stages:
        table = read_table(run, "search/features")
        write_controls(run, settings, table[table.retained])
    if "baselines" in settings.stages:
        write_baselines(run, settings)
    if "effects" in settings.stages:
        write_effects(run, settings, rng)
    # A stream of their own, so that they change nothing that was drawn before.
    drawn = np.random.default_rng([settings.seed, 1])
    for stage, write in CAUSAL.items():
        if stage in settings.stages:
            write(run, settings, drawn)
    return run


def _write_info(run: Path, settings: Settings) -> None:
    info = {
        "format_version": 1,
        "affectlens": "0.1.0",
        "created": "2026-11-22T23:40:00+00:00",
        "model": {
            "name": "smollm2-135m-instruct" + (HOSTILE[:-1] if settings.hostile else ""),
            "sha256": "b179c952" * 8,
            "n_layers": 30,
            "d_model": 576,
            "revision": None,
        },
        "tokenizer_sha256": "77aa" * 16,
        "corpus": {
            "name": "default",
            "sha256": "ab12" * 16,
            "n_documents": 912,
            "n_tokens": 270_336,
        },
        "battery": {
            "name": "affectlens-vignettes",
            "sha256": "cd34" * 16,
            "n_pairs": 48,
            "n_clusters": 24,
            "emotions": EMOTIONS,
        },
        "sae": {
            "sha256": "ef56" * 16,
            "architecture": "topk",
            "hook_name": "blocks.18.hook_resid_post",
            "d_sae": N_FEATURES,
            "k": 32,
        },
        "seeds": {"train": 0, "search": 0, "intervene": 0},
        "versions": {
            "torch": "2.9.1",
            "sae_lens": "6.54.0",
            "transformers": "5.1.0",
            "numpy": "2.3.0",
        },
        "platform": "Linux x86_64, 2 CPU threads",
        "stages": {
            "harvest": {"seconds": 161.2, "reused": False},
            "train": {"seconds": 93.0, "reused": False},
            "search": {"seconds": 21.4, "reused": False},
            "intervene": {"seconds": 240.5, "reused": True},
        },
        "config_sha256": "9f" * 32,
    }
    (run / "run.json").write_text(json.dumps(info), encoding="utf-8")
    note = HOSTILE.encode("utf-8", "replace").decode() if settings.hostile else "defaults"
    (run / "config.yaml").write_text(
        f"# {note}\nmodel: smollm2-135m-instruct\nlayer: 18\ntrain:\n  k: 32\n", encoding="utf-8"
    )


def _metrics() -> SAEMetrics:
    steps = np.linspace(20_000, 1_000_000, 26)
    history = [
        {"samples": float(s), "fvu": 0.21 + 0.5 * float(np.exp(-s / 1.5e5)), "l0": 32.0}
        for s in steps
    ]
    return SAEMetrics(
        architecture="topk",
        hook_name="blocks.18.hook_resid_post",
        d_in=576,
        d_sae=N_FEATURES,
        k=32.0,
        n_training_samples=1_000_000,
        n_heldout_tokens=27_112,
        n_masked_tokens=731,
        fvu=0.214,
        l0=32.0,
        dead_share=0.063,
        ce_clean=3.12,
        ce_spliced=3.58,
        ce_mean_ablated=7.9,
        ce_zero_ablated=9.4,
        ce_recovered_mean=0.904,
        ce_recovered_zero=0.927,
        history=history,
    )


def _confirmed(settings: Settings, contrast: str) -> int:
    return CONFIRMED.get(contrast, 0) if settings.positive else 0


def _contrast(
    contrast: str, index: int, settings: Settings, rng: np.random.Generator
) -> pd.DataFrame:
    n, n_pairs = settings.n_tested, 32 if contrast == "all" else 4
    hits = _confirmed(settings, contrast)
    effect = rng.normal(0, 0.22 if contrast == "all" else 0.6, n)
    effect[: hits * 3] = rng.uniform(0.9, 2.1, hits * 3) * np.where(
        np.arange(hits * 3) % 5 == 4, -1, 1
    )
    order = np.argsort(-np.abs(effect))
    effect = effect[order]
    p = np.clip(2 * np.exp(-0.5 * (np.abs(effect) * np.sqrt(n_pairs) * 0.75) ** 2), 1e-4, 1.0)
    p *= rng.uniform(0.6, 1.0, n)
    p = np.clip(p, 1e-4, 1)
    rank = np.arange(1, n + 1)
    q = np.minimum.accumulate((p * n / rank)[::-1])[::-1].clip(0, 1)
    retained, confirmed = rank <= 20, rank <= hits
    confirm_p = np.where(retained, np.where(confirmed, 0.002, rng.uniform(0.05, 1, n)), np.nan)
    features = rng.permutation(N_FEATURES)[:n] if index else np.arange(n) * 2

    def kept(values: np.ndarray | float) -> np.ndarray:
        return np.where(retained, values, np.nan)

    # With two clusters an emotion has no interval.
    wide = 0.4 if contrast == "all" else np.nan
    return pd.DataFrame(
        {
            "contrast": contrast,
            "feature": features,
            "rank": rank,
            "n_pairs": n_pairs,
            "firing_rate_items": rng.uniform(0.05, 0.9, n),
            "mean_clinical": np.abs(effect) * 0.8 + 0.4,
            "mean_neutral": np.abs(effect) * 0.2 + 0.4,
            "mean_diff": effect * 0.6,
            "d_z": effect,
            "auroc_paired": (0.5 + 0.35 * np.tanh(effect)),
            "auroc": (0.5 + 0.3 * np.tanh(effect)),
            "presence_diff": 0.3 * np.tanh(effect),
            "presence_p": np.clip(p * 8, 0, 1),
            "magnitude_diff": np.where(rank % 7 == 0, np.nan, effect * 0.4),
            "magnitude_n": np.where(rank % 7 == 0, 0, n_pairs // 2),
            "wilcoxon_p": np.clip(p * 2, 0, 1),
            "icc": 0.2 * np.cos(rank),
            "specificity": effect * 0.5,
            "p": p,
            "q": q,
            "q_by": np.clip(q * 9, 0, 1),
            "p_fwer": np.clip(p * 900, 0, 1),
            "p_family": np.clip(p * 8100, 0, 1),
            "confirm_n_pairs": 16 if contrast == "all" else 2,
            "confirm_mean_diff": np.where(retained, effect * 0.5, np.nan),
            "confirm_mean_diff_low": kept(effect * 0.5 - wide),
            "confirm_mean_diff_high": kept(effect * 0.5 + wide),
            "confirm_d_z": np.where(retained, effect * 0.8, np.nan),
            "confirm_d_z_low": kept(np.where(rank % 5 == 0, -np.inf, effect * 0.8 - 1.5 * wide)),
            "confirm_d_z_high": kept(effect * 0.8 + 1.5 * wide),
            "confirm_auroc_paired": np.where(retained, 0.8, np.nan),
            "confirm_auroc": kept(0.74),
            "confirm_presence_diff": kept(0.2),
            "confirm_presence_p": kept(0.04),
            "confirm_magnitude_diff": kept(effect * 0.3),
            "confirm_magnitude_n": kept(3),
            "confirm_wilcoxon_p": kept(0.02),
            "confirm_specificity": np.where(retained, effect * 0.4, np.nan),
            "confirm_p": confirm_p,
            "confirm_p_holm": np.clip(confirm_p * 20, 0, 1),
            "confirm_p_family": np.clip(confirm_p * 180, 0, 1),
            "retained": retained,
            "confirmed": confirmed,
        }
    )


def _write_search(run: Path, settings: Settings, rng: np.random.Generator) -> None:
    contrasts = ["all", *EMOTIONS]
    table = pd.concat(
        [_contrast(c, i, settings, rng) for i, c in enumerate(contrasts)], ignore_index=True
    )
    missing = [c for c in TABLES["search/features"] if c not in table]
    table = table.assign(**dict.fromkeys(missing, np.nan))
    write_table(table, run, "search/features")
    chosen = table[table.retained]
    features = sorted(set(chosen.feature))
    write_table(
        pd.DataFrame(
            {
                "feature": features,
                "firing_rate": rng.uniform(0.0005, 0.05, len(features)),
                "mean_active": rng.uniform(0.5, 3, len(features)),
                "max_active": rng.uniform(4, 12, len(features)),
            }
        ),
        run,
        "search/feature_stats",
    )
    write_table(_specificity(chosen, rng), run, "search/specificity")
    write_table(_pooled(chosen, rng), run, "search/pooled")
    write_lines(run / "search/contexts.jsonl", _contexts(chosen, settings, rng))
    counts = {c: _confirmed(settings, c) for c in contrasts}
    SearchSummary(
        battery="affectlens-vignettes",
        battery_sha256="cd34" * 16,
        pooling="suffix",
        suffix=" That was the end of the day.",
        emotions=EMOTIONS,
        n_pairs_discovery=32,
        n_pairs_confirmation=16,
        n_clusters_discovery=16,
        n_clusters_confirmation=8,
        n_features=N_FEATURES,
        n_tested=settings.n_tested,
        n_filtered=N_FEATURES - settings.n_tested,
        min_items=4,
        n_tests_family=settings.n_tested * 9,
        n_permutations=10_000,
        unit="cluster",
        unit_emotion="cluster",
        alpha=0.05,
        min_p={"all": 3.1e-5, **dict.fromkeys(EMOTIONS, 2.8e-5)},
        min_detectable_d_z=1.34,
        min_detectable={"all": 1.34, **dict.fromkeys(EMOTIONS, 2.6)},
        confirm_min_p={"all": 0.0001, **dict.fromkeys(EMOTIONS, 0.0002)},
        n_significant_q={c: 4 * counts[c] for c in contrasts},
        n_significant_fwer=counts,
        n_retained=dict.fromkeys(contrasts, 20),
        n_confirmed=counts,
        lexical_warning=(
            "words alone tell the members of a pair apart: TF-IDF words 0.97, function words "
            "0.71, negation count "
            "0.66 (paired accuracy, cross-validated; chance 0.50)"
            + (HOSTILE[:-1] if settings.hostile else "")
        ),
        seed=0,
        icc=0.12,
        n_significant_family={c: min(n, 1) for c, n in counts.items()},
        n_confirmed_family={c: n if c == "all" else 0 for c, n in counts.items()},
    ).write(run)


def _specificity(chosen: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for row in chosen[chosen["rank"] <= 5].itertuples():
        for emotion in EMOTIONS:
            own = row.contrast in (emotion, "all")
            for part, n in (("discovery", 4), ("confirmation", 2)):
                value = rng.normal(1.0 if own else 0.15, 0.25)
                rows.append((row.feature, row.contrast, emotion, part, n, value, value * 1.3))
    columns = ["feature", "selected_for", "emotion", "part", "n_pairs", "mean_diff", "d_z"]
    return pd.DataFrame(rows, columns=columns)


def _pooled(chosen: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for row in chosen[chosen["rank"] <= 5].itertuples():
        for emotion in EMOTIONS:
            for domain in (1, 2, 3):
                for variant in (1, 2):
                    low = max(0.0, rng.normal(0.5, 0.35))
                    lift = max(
                        -0.3, rng.normal(0.9 if row.contrast in (emotion, "all") else 0.1, 0.4)
                    )
                    rows.append(
                        (
                            row.feature,
                            f"V-{emotion}-d{domain}-v{variant}",
                            emotion,
                            f"{emotion}/{domain}",
                            "confirmation" if domain == 3 else "discovery",
                            max(0.0, low + lift),
                            low,
                        )
                    )
    columns = ["feature", "pair_id", "emotion", "cluster", "part", "clinical", "neutral"]
    return pd.DataFrame(rows, columns=columns)


def _contexts(chosen: pd.DataFrame, settings: Settings, rng: np.random.Generator) -> list[Context]:
    rows = []
    pairs = [(t.feature, t.contrast) for t in chosen.itertuples() if t.rank <= 10]
    for number, (feature, contrast) in enumerate(pairs):
        for variant in range(3):
            texts = WORDS.get(
                contrast,
                ["The committee met on Tuesday and the", "a small boat left the harbour at"],
            )
            tokens = [t if i == 0 else " " + t for i, t in enumerate(texts[variant % 2].split())]
            peak = int(rng.integers(1, len(tokens) - 1))
            acts = [0.0] * len(tokens)
            acts[peak] = float(rng.uniform(4, 9))
            acts[peak - 1] = float(rng.uniform(0, 3))
            if settings.hostile and number % 3 == 0:
                tokens[peak] = HOSTILE[:-1]
            rows.append(Context(int(feature), f"doc-{variant}", 17 + variant, peak, tokens, acts))
    return rows
