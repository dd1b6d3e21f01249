"""Whether a latent recurs in other SAEs: other seeds, widths and layers.

At the same hook two latents are compared by the cosine of their decoder rows; the best one counts
as the same latent above .7 (the threshold of Paulo and Belrose 2025, *Sparse autoencoders trained
on the same data learn different features*, who match by encoder as well). The largest cosine that
random directions would give, about sqrt(2 ln d_sae / d_in), stands beside it.

Between layers the residual stream turns, so a cosine means nothing there; latents are compared by
the correlation of their pooled activations over the items of a battery. That correlation is a
weaker sign: the items are few, and two latents that answer to the same texts need not be one.

Memory grows with (latents of interest) x (latents of the other SAE), a block at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse
import torch

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError
from affectlens.features.permutation import StatisticsError
from affectlens.features.pooling import Pooled
from affectlens.features.search_tables import joined
from affectlens.features.validity_columns import STABILITY_COLUMNS
from affectlens.sae.metrics import nearest_rows
from affectlens.sae.model import SparseAutoencoder

Array = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

RECURS = 0.7
"""Decoder cosine above which two latents count as the same."""

Kind = Literal["seed", "training", "design", "width", "layer"]
"""What tells two SAEs apart; see `kind_of`."""

_TRAINED_WITH = ("n_samples", "batch_size", "lr", "store_sha256")
"""Settings of training beside the seed that make another SAE of the same design."""
_BLOCK = 16_384
"""Latents of the other SAE that are looked at at once."""
_NIL = 1e-12


@dataclass(frozen=True, eq=False)
class Other:
    """Another SAE and what is known of it.

    Attributes:
        name: how it is called in the table.
        sae: the SAE.
        pooled: its activations on the items of the same battery.
        table: its search (`FEATURE_COLUMNS`); None if it was not searched.
    """

    name: str
    sae: SparseAutoencoder
    pooled: Pooled
    table: pd.DataFrame | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The best of many candidates for each latent; arrays are [n_features].

    `index` is -1 and `value` NaN where no candidate has a value.
    """

    index: Longs
    value: Array


def stability(
    sae: SparseAutoencoder,
    pooled: Pooled,
    selected: Mapping[str, Sequence[int]],
    others: Sequence[Other],
) -> pd.DataFrame:
    """Each selected latent against each other SAE (`STABILITY_COLUMNS`).

    Args:
        sae: the SAE that the latents belong to.
        pooled: its activations on a battery.
        selected: contrast -> latents.
        others: SAEs to look in.

    Raises:
        ConfigError: a latent outside the SAE, or activations of other items or another SAE.
        StatisticsError: an activation is not finite.
    """
    features = list(dict.fromkeys(f for own in selected.values() for f in own))
    _check(sae, pooled, features, "the SAE")
    frames = []
    for other in others:
        _check(other.sae, other.pooled, [], f"SAE {other.name!r}")
        if other.pooled.item_ids != pooled.item_ids:
            raise ConfigError(
                f"SAE {other.name!r} was read on other items than the first one; encode the same "
                "battery with both"
            )
        if features:
            frames += _against(sae, pooled, features, selected, other)
    return joined(frames, STABILITY_COLUMNS)


def kind_of(sae: SparseAutoencoder, other: SparseAutoencoder) -> Kind:
    """What tells another SAE from the first, the first that fits: place, width, design, training.

    SAEs made elsewhere do not say how they were trained; of the same place, width and design they
    count as other seeds.
    """
    a, b = sae.info, other.info
    if a.d_in != b.d_in or _place(a.hook_name) != _place(b.hook_name):
        return "layer"
    if a.d_sae != b.d_sae:
        return "width"
    if (a.architecture, a.k) != (b.architecture, b.k):
        return "design"
    mine, theirs = training_run(sae), training_run(other)
    stated = [name for name in _TRAINED_WITH if name in mine and name in theirs]
    return "training" if any(mine[n] != theirs[n] for n in stated) else "seed"


def training_run(sae: SparseAutoencoder) -> dict[str, Any]:
    """The settings an SAE was trained with; empty for one made elsewhere."""
    stated = sae.sae.cfg.metadata.training_run
    return dict(stated) if isinstance(stated, Mapping) else {}


def nearest_direction(rows: Array, candidates: torch.Tensor) -> Nearest:
    """The candidate [n_candidates, d_in] with the largest cosine to each of `rows` [n, d_in].

    A zero row is no direction: it has no match and matches nothing. Ties go to the lower index.
    """
    found = nearest_rows(torch.from_numpy(np.asarray(rows, dtype=float)), candidates)
    return Nearest(found.index[:, 0].numpy(), found.cosine[:, 0].numpy())


def nearest_activation(own: Array, candidates: scipy.sparse.csc_array) -> Nearest:
    """The candidate [n_items, n_candidates] with the highest Pearson correlation to each of `own`.

    A constant column has no correlation. Ties go to the lower index.

    Args:
        own: [n_items, n_features].
        candidates: sparse, the same items.

    Raises:
        StatisticsError: other items, or a value that is not finite.
    """
    x = _standard(own)
    best, value = np.full(x.shape[1], -1, dtype=np.int64), np.full(x.shape[1], -np.inf)
    for start in range(0, candidates.shape[1], _BLOCK):
        r = correlations(own, candidates[:, start : start + _BLOCK])
        _take(np.where(np.isnan(r), -np.inf, r), start, best, value)
    found = np.isfinite(value)
    return Nearest(np.where(found, best, -1), np.where(found, value, np.nan))


def correlations(own: Array, others: scipy.sparse.csc_array) -> Array:
    """Pearson correlations [n_features, n_others] over items; NaN where a column is constant.

    Raises:
        StatisticsError: other items, or a value that is not finite.
    """
    if own.shape[0] != others.shape[0]:
        raise StatisticsError(f"got {own.shape[0]} and {others.shape[0]} items; need the same ones")
    if not (np.isfinite(own).all() and np.isfinite(others.data).all()):
        raise StatisticsError("an activation is NaN or infinite")
    n = own.shape[0]
    x, y = _standard(own), others.astype(np.float64)
    total = np.asarray(y.sum(axis=0)).ravel()
    square = np.asarray(y.multiply(y).sum(axis=0)).ravel()
    spread = square - total**2 / n
    varies = spread > _NIL * square
    # x is centred, so y need not be.
    r = (y.T @ x).T / np.sqrt(np.where(varies, spread, 1.0))
    return np.where(varies & (np.abs(x).max(axis=0) > 0)[:, None], r, np.nan)


def _standard(own: Array) -> Array:
    """Columns centred to norm 1; 0 where constant."""
    centred = own - own.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    varies = norm**2 > _NIL * (own**2).sum(axis=0)
    return np.asarray(np.where(varies, centred / np.where(varies, norm, 1.0), 0.0))


def _take(values: Array, start: int, best: Longs, value: Array) -> None:
    if not values.shape[1]:
        return
    at = values.argmax(axis=1)
    here = values[np.arange(len(values)), at]
    better = here > value
    best[better], value[better] = at[better] + start, here[better]


def _against(
    sae: SparseAutoencoder,
    pooled: Pooled,
    features: list[int],
    selected: Mapping[str, Sequence[int]],
    other: Other,
) -> list[pd.DataFrame]:
    kind = kind_of(sae, other.sae)
    own = np.asarray(pooled.values[:, features].toarray(), dtype=float)
    by_activation = nearest_activation(own, other.pooled.values)
    if kind == "layer":
        match = by_activation.index
        cosine, chance = np.full(len(features), np.nan), np.nan
    else:
        rows = sae.W_dec[features].detach().double().cpu().numpy()
        found = nearest_direction(rows, other.sae.W_dec)
        match, cosine = found.index, found.value
        chance = min(1.0, math.sqrt(2 * math.log(max(other.sae.d_sae, 2)) / sae.d_in))
    table = pd.DataFrame(
        {
            "feature": features,
            "other": other.name,
            "kind": kind,
            "match": match,
            "cosine": cosine,
            "chance_cosine": chance,
            "recurs": np.nan_to_num(cosine, nan=-1.0) > RECURS,
            "correlation": _with_match(own, other.pooled.values, match),
            "best_correlated": by_activation.index,
            "best_correlation": by_activation.value,
        }
    ).set_index("feature")
    frames = []
    for contrast, chosen in selected.items():
        if not len(chosen):
            continue
        rows_ = table.loc[list(chosen)].reset_index().assign(contrast=contrast)
        frames.append(rows_.join(_found_there(other.table, contrast, rows_["match"])))
    return frames


def _with_match(own: Array, values: scipy.sparse.csc_array, match: Longs) -> Array:
    out = np.full(len(match), np.nan)
    for i in np.flatnonzero(match >= 0):
        out[i] = correlations(own[:, [i]], values[:, [int(match[i])]])[0, 0]
    return out


def _found_there(table: pd.DataFrame | None, contrast: str, match: pd.Series) -> pd.DataFrame:
    n = len(match)
    rank, p = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    confirmed = np.zeros(n, dtype=bool)
    if table is not None:
        there = table[table["contrast"] == contrast].set_index("feature")
        for i, feature in enumerate(match):
            if feature in there.index:
                row = there.loc[feature]
                rank[i], p[i], confirmed[i] = row["rank"], row["p"], row["confirmed"]
    return pd.DataFrame(
        {"match_rank": rank, "match_p": p, "match_confirmed": confirmed}, index=match.index
    )


def _place(name: str) -> Address | None:
    return Address.parse(name).as_output if name else None


def _check(sae: SparseAutoencoder, pooled: Pooled, features: Sequence[int], what: str) -> None:
    if pooled.values.shape[1] != sae.d_sae:
        raise ConfigError(
            f"{what} has {sae.d_sae} latents, but its activations have {pooled.values.shape[1]}; "
            "give the activations of this SAE"
        )
    outside = [f for f in features if not 0 <= f < sae.d_sae]
    if outside:
        raise ConfigError(f"latent {outside[0]} is outside 0..{sae.d_sae - 1} of {what}")
