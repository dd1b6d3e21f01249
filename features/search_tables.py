"""Turns the outcome of the contrasts into the tables and the summary of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from affectlens.features import stats
from affectlens.features.columns import FEATURE_COLUMNS, POOLED_COLUMNS
from affectlens.features.config import READOUT_PROMPT, SearchConfig
from affectlens.features.contrasts import ALL, Contrast
from affectlens.features.descriptives import describe, effect_intervals
from affectlens.features.design import PairDesign
from affectlens.features.detectable import detectable_by_contrast, mean_icc
from affectlens.features.pair_data import PairData, n_active
from affectlens.features.results import SearchSummary
from affectlens.features.screen_columns import SCREENED
from affectlens.features.validity_columns import SPECIFICITY_COLUMNS

Values = npt.NDArray[Any]

_CONFIRM_RETAINED = (
    "confirm_mean_diff_low",
    "confirm_mean_diff_high",
    "confirm_d_z_low",
    "confirm_d_z_high",
    "confirm_auroc",
    "confirm_presence_diff",
    "confirm_presence_p",
    "confirm_magnitude_n",
    "confirm_magnitude_diff",
    "confirm_wilcoxon_p",
)
"""Columns that describe the confirmation pairs of retained latents alone."""


def feature_table(contrasts: list[Contrast], data: PairData, config: SearchConfig) -> pd.DataFrame:
    """One row a contrast and tested latent, best first, with q over all of them.

    Columns are put together one by one, since a table of a million latents is large.
    """
    clinical, neutral = data.sides(data.tested)
    active = n_active(clinical) + n_active(neutral)
    parts: dict[str, list[Values]] = {}
    for c in contrasts:
        columns = {
            "feature": data.tested,
            "firing_rate_items": active / (2 * len(data.design)),
            **_discovery(c, clinical, neutral, data.design),
            **_confirmation(c, clinical, neutral, data.design, config),
        }
        # Each contrast keeps a level of its own; Bonferroni joins them, since their tests differ.
        columns["p_family"] = np.minimum(1.0, columns["p_fwer"] * len(contrasts))
        columns["confirm_p_family"] = np.minimum(1.0, columns["confirm_p_holm"] * len(contrasts))
        best_first = np.argsort(c.rank)
        for name, values in columns.items():
            parts.setdefault(name, []).append(values[best_first])
    found: dict[str, Any] = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    names = np.repeat(np.array([c.name for c in contrasts], dtype=object), len(data.tested))
    found["contrast"] = pd.array(names, dtype="str")
    for name, rows in (("n_pairs", "rows"), ("confirm_n_pairs", "confirm_rows")):
        counts = [len(getattr(c, rows)) for c in contrasts]
        found[name] = np.repeat(np.array(counts, dtype=np.int64), len(data.tested))
    found |= {name: np.full(len(names), np.nan) for name in SCREENED}
    found["q"], found["q_by"] = stats.bh(found["p"]), stats.by(found["p"])
    return pd.DataFrame({name: found.pop(name) for name in FEATURE_COLUMNS}, copy=False)


def _discovery(
    c: Contrast, clinical: sparse.csc_array, neutral: sparse.csc_array, design: PairDesign
) -> dict[str, Values]:
    about = describe(clinical[c.rows], neutral[c.rows], [design.clusters[i] for i in c.rows])
    return {
        "rank": c.rank,
        "p": c.p,
        "p_fwer": c.p_fwer,
        "retained": c.retained,
        **c.effects(""),
        **vars(about),
        "magnitude_n": about.magnitude_n.astype(np.int64),
    }


def _confirmation(
    c: Contrast,
    clinical: sparse.csc_array,
    neutral: sparse.csc_array,
    design: PairDesign,
    config: SearchConfig,
) -> dict[str, Values]:
    rows, kept = c.confirm_rows, np.flatnonzero(c.retained)
    found: dict[str, Values] = {
        **c.effects("confirm_"),
        "confirm_p": c.confirm_p,
        "confirm_p_holm": c.confirm_p_holm,
        "confirmed": c.confirmed(config.alpha),
    }
    if not len(rows) or not len(kept):
        nothing = np.full(len(c.p), np.nan)
        return found | dict.fromkeys(_CONFIRM_RETAINED, nothing)
    x, y = clinical[:, kept][rows], neutral[:, kept][rows]
    clusters = [design.clusters[i] for i in rows]
    bounds = effect_intervals((x - y).toarray(), clusters, config.seed)
    side = {**vars(describe(x, y, clusters)), **vars(bounds)}
    for name in _CONFIRM_RETAINED:
        found[name] = np.full(len(c.p), np.nan)
        found[name][kept] = side[name.removeprefix("confirm_")]
    return found


def leading_of(table: pd.DataFrame, contrast: str, n: int) -> list[int]:
    """The `n` best latents of a contrast that lie on the side it looks for."""
    mask = (table["contrast"] == contrast) & on_target(table)
    return [int(f) for f in table.loc[mask, "feature"].head(n)]


def on_target(table: pd.DataFrame) -> pd.Series:
    """Rows on the side a contrast looks for: any for 'all', rising and specific for an emotion."""
    return (table["contrast"] == ALL) | ((table["specificity"] > 0) & (table["mean_diff"] > 0))


def leading(table: pd.DataFrame, n: int) -> list[int]:
    """Union over contrasts of their `n` best latents, in order of the contrasts."""
    names = table["contrast"].unique() if n else []
    return list(dict.fromkeys(f for c in names for f in leading_of(table, c, n)))


def specificity_table(leading: Mapping[str, list[int]], data: PairData) -> pd.DataFrame:
    """The leading latents of each contrast against the pairs of every emotion, part by part."""
    design = data.design
    names = np.asarray(design.emotions, dtype=object)
    frames = []
    for contrast, features in leading.items():
        differences = data.members(np.asarray(features, dtype=np.int64)).differences
        for part in ("discovery", "confirmation"):
            inside = design.rows(data.parts, part)
            for emotion in design.order:
                rows = inside[names[inside] == emotion]
                if not len(rows) or not features:
                    continue
                d = differences[rows]
                frames.append(
                    pd.DataFrame(
                        {
                            "feature": features,
                            "selected_for": contrast,
                            "emotion": emotion,
                            "part": part,
                            "n_pairs": len(rows),
                            "mean_diff": stats.mean_diff(d),
                            "d_z": stats.d_z(d),
                        }
                    )
                )
    return joined(frames, SPECIFICITY_COLUMNS)


def pooled_table(leading: Mapping[str, list[int]], data: PairData) -> pd.DataFrame:
    """Pooled activations of the leading latents, pair by pair."""
    design = data.design
    features = list(dict.fromkeys(f for own in leading.values() for f in own))
    members = data.members(np.asarray(features, dtype=np.int64))
    frames = [
        pd.DataFrame(
            {
                "feature": feature,
                "pair_id": design.pair_ids,
                "emotion": design.emotions,
                "cluster": design.clusters,
                "part": [data.parts[c] for c in design.clusters],
                "clinical": members.clinical[:, column],
                "neutral": members.neutral[:, column],
            }
        )
        for column, feature in enumerate(features)
    ]
    return joined(frames, POOLED_COLUMNS)


def joined(frames: Sequence[pd.DataFrame], columns: Mapping[str, str]) -> pd.DataFrame:
    """Frames one below the other, with these columns; without frames an empty table."""
    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True)[list(columns)]


def _suffix(config: SearchConfig) -> str:
    """What was appended to every text."""
    if config.pooling == "readout":
        return READOUT_PROMPT
    return config.suffix if config.pooling in ("suffix", "suffix_last") else ""


def search_summary(
    table: pd.DataFrame,
    contrasts: list[Contrast],
    data: PairData,
    config: SearchConfig,
    *,
    battery: str,
    battery_sha256: str,
    lexical_warning: str,
) -> SearchSummary:
    """The record of the search: its family of tests, its power and its counts."""
    names = [c.name for c in contrasts]
    read = ["contrast", "q", "p_fwer", "p_family", "retained", "confirmed", "confirm_p_family"]
    target = table.loc[on_target(table), read]

    def count(mask: pd.Series) -> dict[str, int]:
        return {name: int(mask[target["contrast"] == name].sum()) for name in names}

    design, n_tested, n_features = data.design, len(data.tested), data.clinical.shape[1]
    n_discovery = len(design.rows(data.parts, "discovery"))
    clusters = list(data.parts.values())
    family = n_tested * len(contrasts)
    icc = mean_icc(table.loc[table["contrast"] == ALL, "icc"])
    detectable = detectable_by_contrast(contrasts, design, icc, family, config)
    return SearchSummary(
        battery=battery,
        battery_sha256=battery_sha256,
        pooling=config.pooling,
        suffix=_suffix(config),
        emotions=list(design.order),
        n_pairs_discovery=n_discovery,
        n_pairs_confirmation=len(design) - n_discovery,
        n_clusters_discovery=clusters.count("discovery"),
        n_clusters_confirmation=clusters.count("confirmation"),
        n_features=n_features,
        n_tested=n_tested,
        n_filtered=n_features - n_tested,
        min_items=config.min_items,
        n_tests_family=family,
        n_permutations=config.n_permutations,
        unit=config.unit,
        unit_emotion=config.unit_emotion,
        alpha=config.alpha,
        min_p={c.name: c.min_p for c in contrasts},
        min_detectable_d_z=detectable[ALL],
        n_significant_q=count(target["q"] <= config.alpha),
        n_significant_fwer=count(target["p_fwer"] <= config.alpha),
        n_retained=count(target["retained"]),
        n_confirmed=count(target["confirmed"]),
        lexical_warning=lexical_warning,
        seed=config.seed,
        confirmation_share=config.confirmation_share,
        max_retained=config.n_retained,
        confirm_min_p={c.name: c.confirm_min_p for c in contrasts},
        min_detectable=detectable,
        icc=icc,
        n_significant_family=count(target["p_family"] <= config.alpha),
        n_confirmed_family=count(
            target["confirmed"] & (target["confirm_p_family"] <= config.alpha)
        ),
    )
