"""Judges held-out scores and sets every method beside the best single latent."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from affectlens.features.baseline_columns import (
    EMBEDDING_LAYER,
    LAYERED_METHODS,
    REFERENCE,
    SAE_METHODS,
)
from affectlens.features.baseline_methods import (
    Evaluation,
    MethodKey,
    PairItems,
    Scored,
    targets_of,
)
from affectlens.features.heldout_scores import Judge, Judged, difference
from affectlens.features.pooled_residuals import Place
from affectlens.features.validation_config import BaselineConfig


def comparison_rows(
    items: PairItems,
    evaluation: Evaluation,
    scored: Scored,
    sae_place: Place,
    config: BaselineConfig,
) -> list[dict[str, object]]:
    """One row a target, method and layer (`BASELINE_COLUMNS`), in order of targets; SAE first.

    Raises:
        StatisticsError: a held-out score is not finite.
    """
    hooks = {r.place.layer: r.place.hook for r in items.residuals}
    out = []
    for target in targets_of(items.design):
        keys = [k for k in scored.held_out if k.target == target.name]
        if not keys:
            continue
        judge = Judge(
            target,
            items.design.clusters,
            scored.folds[target.name],
            n_bootstrap=config.n_bootstrap,
            seed=config.seed,
        )
        judged = {key: judge.judge(scored.held_out[key]) for key in keys}
        reference = judged[MethodKey(REFERENCE, None, target.name)]
        for key in sorted(keys, key=_order):
            layer = _layer(key, scored, sae_place)
            place = {
                "layer": pd.NA if layer is None else layer,
                "hook": "" if layer is None else hooks[layer],
                "evaluated_on": evaluation.on,
                "n_pairs": judge.n_pairs,
                "n_clusters": judge.n_clusters,
                "n_features_used": scored.held_out[key].n_features,
            }
            out.append({**place, **_numbers(key, judged[key], reference)})
    return out


def _order(key: MethodKey) -> tuple[bool, bool, str, int]:
    """The SAE first, the latent that all are compared with at its head, then by method, layer."""
    layer = EMBEDDING_LAYER - 1 if key.layer is None else key.layer
    return key.method not in SAE_METHODS, key.method != REFERENCE, key.method, layer


def _layer(key: MethodKey, scored: Scored, sae_place: Place) -> int | None:
    if key.method in SAE_METHODS:
        return sae_place.layer
    if key.method == "dense_probe_chosen_layer":
        chosen = set(scored.chosen_layers[key.target])
        return chosen.pop() if len(chosen) == 1 else None
    return key.layer


def _numbers(key: MethodKey, judged: Judged, reference: Judged) -> dict[str, object]:
    minus = difference(judged, reference)
    if key.method == REFERENCE:
        verdict = "reference"
    elif np.isnan(minus.low):
        verdict = "too few clusters"
    elif minus.high < 0:
        verdict = "SAE latent better"
    else:
        verdict = "SAE latent worse" if minus.low > 0 else "not distinguishable"
    return {
        "method": key.method,
        "target": key.target,
        "auroc": judged.auroc.estimate,
        "low": judged.auroc.low,
        "high": judged.auroc.high,
        "paired_accuracy": judged.paired_accuracy.estimate,
        "paired_low": judged.paired_accuracy.low,
        "paired_high": judged.paired_accuracy.high,
        "minus_sae": minus.estimate,
        "minus_sae_low": minus.low,
        "minus_sae_high": minus.high,
        "verdict": verdict,
    }


def verdict_counts(table: pd.DataFrame, on: str, sae_layer: int) -> dict[str, dict[str, int]]:
    """Method -> verdict -> number of targets in one evaluation.

    Of a method at several layers the row at the SAE's counts; the dense probe at the embedding
    counts as 'dense_probe_embedding'.
    """
    out: dict[str, Counter[str]] = {}
    for row in table[table["evaluated_on"] == on].itertuples(index=False):
        if row.method == REFERENCE:
            continue
        if row.method not in LAYERED_METHODS or row.layer == sae_layer:
            out.setdefault(str(row.method), Counter())[str(row.verdict)] += 1
        if row.method == "dense_probe" and row.layer == EMBEDDING_LAYER:
            out.setdefault("dense_probe_embedding", Counter())[str(row.verdict)] += 1
    return {name: dict(counter) for name, counter in out.items()}
