"""Counts of one SAE's search beside those of others: the rows of `COMPARISON_COLUMNS`.

How many of the retained latents recur in another SAE says little without how many latents recur at
all. So tested latents of the first SAE, whatever their result, are looked for as well; what the
retained ones have beyond that is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.data.addresses import Address
from affectlens.features.comparison_columns import COMPARISON_COLUMNS
from affectlens.features.encoding import TokenActivations
from affectlens.features.pooling import Pooled
from affectlens.features.search import SearchResult
from affectlens.features.stability import Other, kind_of, stability, training_run
from affectlens.features.validity import retained
from affectlens.sae.model import SparseAutoencoder

N_BASE = 500
"""Most tested latents that give the base rates, spread evenly over all of them."""

_BASE = "tested"
"""Stands for a contrast where the latents of the base rates are looked for."""
_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Searched:
    """An SAE after it has read a battery and been searched.

    Attributes:
        name: how it is called in the tables.
        sae: the SAE.
        pooled: its activations on the items of the battery.
        l0: mean number of active latents over the unmasked tokens.
        found: its search.
        misfits: what was overridden, separated by '; '.
    """

    name: str
    sae: SparseAutoencoder
    pooled: Pooled
    l0: float
    found: SearchResult
    misfits: str = ""


def mean_l0(encoded: TokenActivations) -> float:
    """Mean number of active latents over the unmasked tokens; 0 without any."""
    return len(encoded.values) / max(int(encoded.keep.sum()), 1)


def own_rows(own: Searched) -> pd.DataFrame:
    """The rows of the SAE whose latents are looked for (`COMPARISON_COLUMNS`)."""
    return _rows(own, "own")


def against(own: Searched, other: Searched) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where the retained latents of `own` stand in `other`.

    Returns:
        latent by latent (`STABILITY_COLUMNS`), and counted by contrast (`COMPARISON_COLUMNS`).

    Raises:
        ConfigError: the two read other items.
    """
    sought = retained(own.found.table)
    tested = np.unique(own.found.table["feature"])
    base = tested[np.linspace(0, len(tested) - 1, min(N_BASE, len(tested)), dtype=int)]
    there = Other(other.name, other.sae, other.pooled, other.found.table)
    looked = stability(own.sae, own.pooled, {**sought, _BASE: base.tolist()}, [there])
    of_base = looked["contrast"] == _BASE
    kind = kind_of(own.sae, other.sae)
    table = _rows(other, kind, looked[~of_base], looked[of_base])
    return looked[~of_base], table


def _rows(
    one: Searched, kind: str, looked: pd.DataFrame | None = None, base: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row a contrast (`COMPARISON_COLUMNS`)."""
    info, summary, made = one.sae.info, one.found.summary, training_run(one.sae)
    about = {
        "sae": one.name,
        "kind": kind,
        "hook_name": info.hook_name,
        "layer": Address.parse(info.hook_name).layer,
        "architecture": info.architecture,
        "d_sae": info.d_sae,
        "k": _NAN if info.k is None else info.k,
        "l0": one.l0,
        "seed": made.get("seed", _NAN),
        "n_samples": made.get("n_samples", _NAN),
        "misfits": one.misfits,
    }
    rows = [
        {
            **about,
            "contrast": contrast,
            "n_tested": summary.n_tested,
            "n_fwer": summary.n_significant_fwer[contrast],
            "n_retained": summary.n_retained[contrast],
            "n_confirmed": summary.n_confirmed[contrast],
            **_effects(one.found.table, contrast),
            **_recurrence(contrast, kind, looked, base, one.found.table),
        }
        for contrast in one.found.contrasts
    ]
    return pd.DataFrame(rows)[list(COMPARISON_COLUMNS)]


def _effects(table: pd.DataFrame, contrast: str) -> dict[str, float]:
    rows = table[(table["contrast"] == contrast) & table["retained"]].sort_values("rank")
    found = {"first_auroc": _NAN, "first_d_z": _NAN, "best_auroc": _NAN, "best_d_z": _NAN}
    for name, centre in (("auroc_paired", 0.5), ("d_z", 0.0)):
        values = rows[f"confirm_{name}"].to_numpy(dtype=float)
        short = name.removesuffix("_paired")
        if len(values):
            found[f"first_{short}"] = values[0]
        if np.isfinite(values).any():
            found[f"best_{short}"] = values[np.nanargmax(np.abs(values - centre))]
    return found


def _recurrence(
    contrast: str,
    kind: str,
    looked: pd.DataFrame | None,
    base: pd.DataFrame | None,
    there: pd.DataFrame,
) -> dict[str, float]:
    if looked is None or base is None:
        nothing = {"n_sought": 0, "n_match_retained": 0, "n_match_confirmed": 0}
        names = ("n_recur", "base_recur", "median_correlation", "base_correlation")
        return nothing | dict.fromkeys(names, _NAN)
    own = looked[looked["contrast"] == contrast]
    kept = there[(there["contrast"] == contrast) & there["retained"]]["feature"]
    directions = kind != "layer"
    return {
        "n_sought": len(own),
        "n_recur": int(own["recurs"].sum()) if directions else _NAN,
        "base_recur": float(base["recurs"].mean()) if directions else _NAN,
        "median_correlation": float(own["best_correlation"].median()),
        "base_correlation": float(base["best_correlation"].median()),
        "n_match_retained": int(own["match"].isin(kept).sum()),
        "n_match_confirmed": int(own["match_confirmed"].sum()),
    }
