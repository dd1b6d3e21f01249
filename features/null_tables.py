"""Counts and latents of several SAEs side by side, for the searches where there is nothing to find.

Effects are positive on the side that discovery found, so that SAEs whose latents fall on emotional
texts can be set beside those whose latents rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from affectlens.features.config import SearchConfig
from affectlens.features.search_tables import on_target
from affectlens.features.validation_records import NullSearchSummary

if TYPE_CHECKING:
    from affectlens.features.search import SearchResult

SEARCHED, EQUAL_TOKENS = "searched", "reads equal tokens"


def search_rows(
    result: SearchResult | None, pooling: str, contrasts: Sequence[str]
) -> list[dict[str, object]]:
    """The columns of `NULL_COLUMNS` that come from a search, one row a contrast.

    Args:
        result: the search; None where all texts give the same numbers.
        pooling: where texts were read.
        contrasts: names of the rows.
    """
    if result is None:
        counts = ("tested", "significant_fwer", "retained", "confirmed")
        none: dict[str, object] = {f"n_{name}": None for name in counts}
        return [
            {"pooling": pooling, "contrast": c, "status": EQUAL_TOKENS, **none, **_best(None)}
            for c in contrasts
        ]
    s = result.summary
    sided = oriented(result.table)
    return [
        {
            "pooling": pooling,
            "contrast": c,
            "status": SEARCHED,
            "n_tested": s.n_tested,
            "n_significant_fwer": s.n_significant_fwer[c],
            "n_retained": s.n_retained[c],
            "n_confirmed": s.n_confirmed[c],
            **_best(sided[sided["contrast"] == c]),
        }
        for c in contrasts
    ]


def oriented(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a search on the contrast's side, effects positive on the side of discovery."""
    rows = table[on_target(table)].sort_values(["contrast", "rank"], kind="stable")
    falls = rows["specificity"] < 0
    side = np.where(falls, -1.0, 1.0)
    auroc = rows["confirm_auroc_paired"]
    return rows.assign(
        d_z=side * rows["d_z"],
        confirm_d_z=side * rows["confirm_d_z"],
        confirm_auroc_paired=auroc.where(~falls, 1 - auroc),
    )


def _best(rows: pd.DataFrame | None) -> dict[str, object]:
    names = {
        "best_feature": "feature",
        "best_d_z": "d_z",
        "best_confirm_d_z": "confirm_d_z",
        "best_confirm_auroc": "confirm_auroc_paired",
    }
    if rows is None or not len(rows):
        missing: dict[str, object] = dict.fromkeys((*names, "max_confirm_d_z"), np.nan)
        return missing | {"best_feature": None}
    first = rows.iloc[0]
    most = rows.loc[rows["retained"], "confirm_d_z"].max()
    return {"max_confirm_d_z": most} | {name: first[column] for name, column in names.items()}


def reaching(real: SearchResult, other: SearchResult, pooling: str) -> list[dict[str, object]]:
    """Which retained latents of another SAE do as well as each of the SAE's own.

    Args:
        real: search of the SAE.
        other: search of the other SAE, on the same battery and split.
        pooling: where texts were read.

    Returns:
        rows of `NULL_LATENT_COLUMNS` without 'sae', by contrast and rank.
    """
    mine, theirs = (rows[rows["retained"]] for rows in map(oriented, (real.table, other.table)))
    out: list[dict[str, object]] = []
    for contrast in real.contrasts:
        others = theirs.loc[theirs["contrast"] == contrast, "confirm_d_z"].to_numpy()
        for row in mine[mine["contrast"] == contrast].itertuples(index=False):
            d_z, n = float(row.confirm_d_z), len(others)
            # A difference that is not defined reaches nothing: it does not vary or is not there.
            reached = int((others >= d_z).sum())
            known = n > 0 and not np.isnan(d_z)
            out.append(
                {
                    "contrast": contrast,
                    "feature": int(row.feature),
                    "pooling": pooling,
                    "confirmed": bool(row.confirmed),
                    "confirm_d_z": d_z,
                    "n_others": n,
                    "n_reaching": reached,
                    "share_reaching": reached / n if known else np.nan,
                    "p_null": (1 + reached) / (1 + n) if known else np.nan,
                }
            )
    return out


def nulls_summary(
    table: pd.DataFrame,
    latents: pd.DataFrame,
    config: SearchConfig,
    *,
    battery: str,
    battery_sha256: str,
    sae_hook: str,
    names: Sequence[str],
    comparable: bool,
    seed: int,
) -> NullSearchSummary:
    """The record of both tables (`NULL_COLUMNS`, `NULL_LATENT_COLUMNS`)."""
    searched = table[table["status"] == SEARCHED]
    equal = table[table["status"] == EQUAL_TOKENS]
    heads = table.drop_duplicates("sae")
    compared = latents[latents["share_reaching"].notna() & latents["confirmed"].astype(bool)]
    beyond = compared[compared["n_reaching"] == 0]

    def counts(column: str) -> dict[str, dict[str, dict[str, int]]]:
        out: dict[str, dict[str, dict[str, int]]] = {}
        for row in searched.itertuples(index=False):
            inner = out.setdefault(str(row.sae), {}).setdefault(str(row.pooling), {})
            inner[str(row.contrast)] = int(getattr(row, column))
        return out

    def sizes(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
        pairs = latents[["sae", "pooling"]].drop_duplicates().itertuples(index=False)
        out: dict[str, dict[str, int]] = {}
        for one, pooling in pairs:
            number = int(((rows["sae"] == one) & (rows["pooling"] == pooling)).sum())
            out.setdefault(str(one), {})[str(pooling)] = number
        return out

    return NullSearchSummary(
        battery=battery,
        battery_sha256=battery_sha256,
        sae_hook=sae_hook,
        names=list(names),
        poolings=list(dict.fromkeys(table["pooling"])),
        comparable=comparable,
        n_samples={r.sae: int(r.n_samples) for r in heads.itertuples() if not pd.isna(r.n_samples)},
        n_significant_fwer=counts("n_significant_fwer"),
        n_confirmed=counts("n_confirmed"),
        not_searched={
            str(s): list(dict.fromkeys(rows["pooling"])) for s, rows in equal.groupby("sae")
        },
        n_beyond=sizes(beyond),
        n_compared=sizes(compared),
        remarks={r.sae: r.remark for r in heads.itertuples() if r.remark},
        n_permutations=config.n_permutations,
        unit=config.unit,
        unit_emotion=config.unit_emotion,
        alpha=config.alpha,
        seed=seed,
    )
