"""Picks latents of a search by what they respond to, by what they do, or by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import pandas as pd

from affectlens.data.errors import ConfigError
from affectlens.features.screen_config import By
from affectlens.features.screened import Screen
from affectlens.features.selection import FeatureSet

if TYPE_CHECKING:
    from affectlens.features.search import SearchResult


def select(
    found: SearchResult, screen: Screen | None, contrast: str, n: int, by: By = "input"
) -> FeatureSet:
    """The `n` best latents of a contrast, by what they respond to, what they do, or both.

    "input": as `SearchResult.top`. "output_score": of the first `n_candidates` by input those of
    highest output score (the protocol of Arad et al. 2025). "output": highest effect of a clamp on
    the contrast's readout for each unit of norm written (`clamp_per_norm`: measured for the best,
    else estimated), over all live latents. "both": among latents with a positive contrast on the
    input side and a positive effect on the output side, smallest sum of the two ranks.

    Latents that never fire on held-out text are not chosen; there are fewer if fewer qualify.

    Args:
        found: the search.
        screen: its screen; not needed for "input".
        contrast: "all" or an emotion.
        n: how many.
        by: the rule.

    Raises:
        ConfigError: an unknown contrast or rule, n below 1, no screen where one is needed, or one
            that left the contrast out.
    """
    if by not in get_args(By):
        raise ConfigError(f"select by {by!r} is unknown; there are {', '.join(get_args(By))}")
    everything = max(n, len(found.table), 1)
    by_input = found.top(contrast, everything if n >= 1 else n)
    if by == "input":
        return _chosen(by_input, by_input[:n], by_input.chosen_by)
    if screen is None:
        raise ConfigError(f"selecting by {by!r} needs a screen of the search; make one first")
    rows = screen.of(contrast)
    rows = rows[rows["clamp_norm"] > 0]
    if by == "output_score":
        pool = int(screen.summary.settings["n_candidates"])
        first = rows.loc[[f for f in by_input[:pool] if f in rows.index], "output_score"].dropna()
        features = first.sort_values(ascending=False, kind="stable").index.tolist()
        how = f"output score among the first {pool} by discovery score"
    elif by == "output":
        best = _raising(rows).sort_values(ascending=False, kind="stable")
        features = best.index.tolist()
        n_exact = int(rows.loc[features[:n], "exact_clamp"].notna().sum())
        how = (
            "effect of a clamp on the readout per unit of norm, discovery part, over all live "
            f"latents ({n_exact} of {len(features[:n])} measured, the others estimated)"
        )
    else:
        effect = _raising(rows)
        effect = effect[[f for f in by_input if f in effect.index]]
        ranks = pd.Series(range(len(effect)), effect.index) + effect.rank(ascending=False)
        features = ranks.sort_values(kind="stable").index.tolist()
        how = "sum of the ranks by discovery score and by effect of a clamp per unit of norm"
    return _chosen(by_input, features[:n], how)


def _raising(rows: pd.DataFrame) -> pd.Series[float]:
    """Effects of clamps per unit of norm, where they raise the readout."""
    return rows.loc[rows["clamp_per_norm"] > 0, "clamp_per_norm"]


def _chosen(by_input: FeatureSet, features: Sequence[int], how: str) -> FeatureSet:
    return replace(by_input, features=tuple(int(f) for f in features), chosen_by=how)
