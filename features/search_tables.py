"""Turns the outcome of the contrasts into the tables and the summary of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.features import stats
from affectlens.features.columns import FEATURE_COLUMNS, POOLED_COLUMNS
from affectlens.features.config import READOUT_PROMPT, SearchConfig
from affectlens.features.contrasts import ALL, Contrast
from affectlens.features.design import PairDesign, Part
from affectlens.features.pair_data import Members, PairData
from affectlens.features.results import SearchSummary
from affectlens.features.validity_columns import SPECIFICITY_COLUMNS

NOT_DETECTABLE = 1000.0
"""Stands in the summary, which holds finite numbers, for 'no effect, however large'."""


def feature_table(
    contrasts: list[Contrast], data: PairData, members: Members, config: SearchConfig
) -> pd.DataFrame:
    """One row a contrast and tested latent, best first, with q over all of them."""
    active = (members.clinical > 0).sum(axis=0) + (members.neutral > 0).sum(axis=0)
    blocks = [
        pd.DataFrame(
            {
                "contrast": c.name,
                "feature": data.tested,
                "rank": c.rank,
                "n_pairs": len(c.rows),
                "firing_rate_items": active / (2 * len(data.design)),
                "mean_clinical": members.clinical[c.rows].mean(axis=0),
                "mean_neutral": members.neutral[c.rows].mean(axis=0),
                "p": c.p,
                "p_fwer": c.p_fwer,
                "retained": c.retained,
                **c.effects(""),
                "confirm_n_pairs": len(c.confirm_rows),
                **c.effects("confirm_"),
                "confirm_p": c.confirm_p,
                "confirm_p_holm": c.confirm_p_holm,
                "confirmed": c.confirmed(config.alpha),
            }
        )
        for c in contrasts
    ]
    table = pd.concat(blocks, ignore_index=True)
    table["q"] = stats.bh(table["p"].to_numpy())
    order = {c.name: i for i, c in enumerate(contrasts)}
    table = table.sort_values(
        ["contrast", "rank"], key=lambda s: s.map(order) if s.name == "contrast" else s
    )
    return table.reset_index(drop=True)[list(FEATURE_COLUMNS)]


def leading_of(table: pd.DataFrame, contrast: str, n: int) -> list[int]:
    """The `n` best latents of a contrast that lie on the side it looks for."""
    rows = table[(table["contrast"] == contrast) & on_target(table)]
    return [int(f) for f in rows["feature"].head(n)]


def on_target(table: pd.DataFrame) -> pd.Series:
    """Rows on the side a contrast looks for: any for 'all', rising and specific for an emotion."""
    return (table["contrast"] == ALL) | ((table["specificity"] > 0) & (table["mean_diff"] > 0))


def leading(table: pd.DataFrame, n: int) -> list[int]:
    """Union over contrasts of their `n` best latents, in order of the contrasts."""
    names = table["contrast"].unique() if n else []
    return list(dict.fromkeys(f for c in names for f in leading_of(table, c, n)))


def specificity_table(
    leading: Mapping[str, list[int]], data: PairData, members: Members
) -> pd.DataFrame:
    """The leading latents of each contrast against the pairs of every emotion, part by part."""
    design, differences = data.design, members.differences
    names = np.asarray(design.emotions, dtype=object)
    frames = []
    for contrast, features in leading.items():
        for part in ("discovery", "confirmation"):
            inside = design.rows(data.parts, part)
            for emotion in design.order:
                rows = inside[names[inside] == emotion]
                if not len(rows) or not features:
                    continue
                d = differences[np.ix_(rows, data.columns(features))]
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


def pooled_table(
    leading: Mapping[str, list[int]], data: PairData, members: Members
) -> pd.DataFrame:
    """Pooled activations of the leading latents, pair by pair."""
    design = data.design
    features = list(dict.fromkeys(f for own in leading.values() for f in own))
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
        for feature, column in zip(features, data.columns(features), strict=True)
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


@dataclass(frozen=True)
class Searched:
    """What was searched, for the summary."""

    n_tested: int
    n_features: int
    battery: str
    battery_sha256: str
    lexical_warning: str


def search_summary(
    table: pd.DataFrame,
    contrasts: list[Contrast],
    counts: Searched,
    design: PairDesign,
    parts: Mapping[str, Part],
    config: SearchConfig,
) -> SearchSummary:
    """The record of the search: its family of tests, its power and its counts."""
    names = [c.name for c in contrasts]
    target = table[on_target(table)]

    def count(mask: pd.Series) -> dict[str, int]:
        return {name: int(mask[target["contrast"] == name].sum()) for name in names}

    n_discovery = len(design.rows(parts, "discovery"))
    clusters = list(parts.values())
    family = counts.n_tested * len(contrasts)
    detectable = stats.min_detectable_d_z(contrasts[0].n_units, max(family, 1), config.alpha)
    return SearchSummary(
        battery=counts.battery,
        battery_sha256=counts.battery_sha256,
        pooling=config.pooling,
        suffix=_suffix(config),
        emotions=list(design.order),
        n_pairs_discovery=n_discovery,
        n_pairs_confirmation=len(design) - n_discovery,
        n_clusters_discovery=clusters.count("discovery"),
        n_clusters_confirmation=clusters.count("confirmation"),
        n_features=counts.n_features,
        n_tested=counts.n_tested,
        n_filtered=counts.n_features - counts.n_tested,
        min_items=config.min_items,
        n_tests_family=family,
        n_permutations=config.n_permutations,
        unit=config.unit,
        unit_emotion=config.unit_emotion,
        alpha=config.alpha,
        min_p={c.name: c.min_p for c in contrasts},
        min_detectable_d_z=detectable if np.isfinite(detectable) else NOT_DETECTABLE,
        n_significant_q=count(target["q"] <= config.alpha),
        n_significant_fwer=count(target["p_fwer"] <= config.alpha),
        n_retained=count(target["retained"]),
        n_confirmed=count(target["confirmed"]),
        lexical_warning=counts.lexical_warning,
        seed=config.seed,
    )
