"""Keyword transfer: does what was found without emotion words answer to texts that have them.

    to_keywords    latents retained on keyword-free pairs, tested on keyword-rich texts: an
                   emotion's own texts against the other emotions' texts.
    from_keywords  latents chosen by that contrast of keyword-rich texts, tested on the keyword-free
                   confirmation pairs by the search's own test. As many as its smallest p can bear
                   after Holm, by the order in which the keyword-rich texts chose them.

Keyword-rich texts have no neutral partner, so the contrast is between emotions. A latent for the
word and one for the emotion both pass to_keywords; a latent for the word alone fails from_keywords.
'all' has no such contrast and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse
from scipy import optimize, special

from affectlens.data.stimuli import Battery
from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import retest
from affectlens.features.design import PairDesign, Part
from affectlens.features.pooling import Pooled
from affectlens.features.search_tables import joined
from affectlens.features.validation_config import ValidityConfig
from affectlens.features.validity_columns import TRANSFER_COLUMNS, TRANSFER_SUMMARY_COLUMNS

Array = npt.NDArray[np.float64]

DIRECTIONS = ("to_keywords", "from_keywords")

_EDGE = 1e-12


@dataclass(frozen=True, eq=False)
class Transfer:
    """Keyword transfer in both directions.

    Attributes:
        table: one row an emotion, direction and latent (`TRANSFER_COLUMNS`).
        summary: one row an emotion and direction (`TRANSFER_SUMMARY_COLUMNS`).
    """

    table: pd.DataFrame = field(repr=False)
    summary: pd.DataFrame = field(repr=False)


def keyword_transfer(
    pooled: Pooled,
    battery: Battery,
    design: PairDesign,
    parts: Mapping[str, Part],
    selected: Mapping[str, Sequence[int]],
    search: SearchConfig,
    config: ValidityConfig,
) -> Transfer:
    """Test both directions for every emotion of `selected`.

    Args:
        pooled: activations of all items of the battery.
        battery: pairs and keyword-rich items.
        design: the pairs as rows of `pooled`.
        parts: the split of the clusters.
        selected: emotion -> latents found without keywords, best first; the first `config.top`
            are tested.
        search: settings of the search's test.
        config: level, permutations, seed, `top`, and on which pairs to test.

    Raises:
        StatisticsError: a value is not finite.
    """
    rows = {item: i for i, item in enumerate(pooled.item_ids)}
    items = [i for i in battery.items if i.split == "keyword_rich"]
    labels = np.array([i.emotion for i in items], dtype=object)
    texts = pooled.values.tocsr()[[rows[i.id] for i in items]].tocsc()
    frames, summary = [], []
    for emotion, features in selected.items():
        own = labels == emotion
        if not own.any() or own.all():
            note = "keyword-rich texts of this emotion and of another are needed"
            summary += [_summary(emotion, d, None, 1.0, note) for d in DIRECTIONS]
            continue
        there = _to_keywords(emotion, list(features)[: config.top], texts, own, config)
        smallest = stats.min_attainable_p(len(own), config.n_permutations, int(own.sum()))
        summary.append(_summary(emotion, DIRECTIONS[0], there, smallest, "no latent was retained"))
        chosen = strongest(texts, own, config.top, search.min_items)
        back, smallest = _from_keywords(emotion, chosen, pooled, design, parts, search, config)
        note = "no latent rises on the keyword-rich texts, or no pairs to test on"
        summary.append(_summary(emotion, DIRECTIONS[1], back, smallest, note))
        frames += [f for f in (there, back) if f is not None]
    table = joined(frames, TRANSFER_COLUMNS)
    return Transfer(table, pd.DataFrame(summary, columns=list(TRANSFER_SUMMARY_COLUMNS)))


def strongest(
    values: scipy.sparse.csc_array, own: npt.NDArray[np.bool_], n: int, min_items: int
) -> list[int]:
    """Latents that best tell own texts from others: the `n` largest two-sample t above 0.

    Only latents active in at least `min_items` texts, whichever they are; ties by index.

    Args:
        values: [n_texts, d_sae] pooled activations.
        own: [n_texts].
        n: most latents.
        min_items: see above.
    """
    tested = np.flatnonzero(np.diff(values.indptr) >= min_items)
    if not len(tested):
        return []
    names = np.where(own, "own", "other").tolist()
    # Only the statistic is used, so a single permutation is enough.
    t = stats.label_permutation(values[:, tested], names, ["own"], 1).statistic[0]
    order = np.argsort(-t, kind="stable")[:n]
    return [int(tested[i]) for i in order if t[i] > 0]


def auroc_interval(auroc: float, n_own: int, n_other: int, alpha: float) -> tuple[float, float]:
    """Interval of an AUROC from the two numbers of independent units.

    The values theta with |auroc - theta| <= z sqrt(V(theta)) and (Newcombe 2006, method 5)

        V = theta (1 - theta) / (m n) (1 + N ((1 - theta) / (2 - theta) + theta / (1 + theta)))

    where N = (m + n) / 2 - 1. Unlike a bootstrap it does not shrink to a point at 0 or 1.
    """
    z = float(special.ndtri(1 - alpha / 2))
    more = (n_own + n_other) / 2 - 1

    def away(theta: float) -> float:
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        spread = theta * (1 - theta) / (n_own * n_other) * (1 + more * shape)
        return abs(auroc - theta) - z * float(np.sqrt(max(spread, 0.0)))

    low = optimize.brentq(away, 0.0, min(auroc, 1 - _EDGE)) if auroc > _EDGE else 0.0
    high = optimize.brentq(away, max(auroc, _EDGE), 1.0) if auroc < 1 - _EDGE else 1.0
    return float(low), float(high)


def _to_keywords(
    emotion: str,
    features: list[int],
    texts: scipy.sparse.csc_array,
    own: npt.NDArray[np.bool_],
    config: ValidityConfig,
) -> pd.DataFrame | None:
    if not features:
        return None
    x = np.asarray(texts[:, features].toarray(), dtype=float)
    names = np.where(own, "own", "other").tolist()
    p = stats.label_permutation(x, names, ["own"], config.n_permutations, config.seed).p[0]
    g = stats.hedges_g(x[own], x[~own])
    counts = len(x[own]), len(x[~own])
    return _rows(emotion, DIRECTIONS[0], features, x[own], x[~own], g, p, counts, config)


def _from_keywords(
    emotion: str,
    features: list[int],
    pooled: Pooled,
    design: PairDesign,
    parts: Mapping[str, Part],
    search: SearchConfig,
    config: ValidityConfig,
) -> tuple[pd.DataFrame | None, float]:
    if not features:
        return None, 1.0
    values = np.asarray(pooled.values[:, features].toarray(), dtype=float)
    d = values[design.clinical] - values[design.neutral]
    split = None if config.part == "both" else parts
    found = retest(d, emotion, design, search, parts=split)
    if found is None:
        return None, 1.0
    # As the search does: of more, only the most extreme result could pass Holm, or none.
    most = stats.bearable(found.min_p, config.alpha)
    features = features[:most]
    rows = np.arange(len(design)) if split is None else design.rows(parts, "confirmation")
    own = np.array([design.emotions[r] == emotion for r in rows])
    names = [design.units(search.unit_emotion)[r] for r in rows]
    counts = _distinct(names, own), _distinct(names, ~own)
    d, size, p = d[rows][:, :most], found.effects.d_z[:most], found.p[:most]
    table = _rows(emotion, DIRECTIONS[1], features, d[own], d[~own], size, p, counts, config)
    return table, found.min_p


def _distinct(names: Sequence[str], chosen: npt.NDArray[np.bool_]) -> int:
    return len({name for name, inside in zip(names, chosen, strict=True) if inside})


def _rows(
    emotion: str,
    direction: str,
    features: list[int],
    own: Array,
    other: Array,
    effect: Array,
    p: Array,
    n_units: tuple[int, int],
    config: ValidityConfig,
) -> pd.DataFrame:
    auroc = stats.auroc(own, other)
    # Pairs of a cluster may all say the same, so an interval counts the units of the test.
    bounds = [auroc_interval(float(a), *n_units, config.alpha) for a in auroc]
    adjusted = stats.holm(p)
    higher = own.mean(axis=0) > other.mean(axis=0)
    return pd.DataFrame(
        {
            "emotion": emotion,
            "direction": direction,
            "feature": features,
            "rank": np.arange(1, len(features) + 1),
            "n_own": len(own),
            "n_other": len(other),
            "auroc": auroc,
            "low": [b[0] for b in bounds],
            "high": [b[1] for b in bounds],
            "effect": effect,
            "p": p,
            "p_holm": adjusted,
            "transfers": higher & (adjusted <= config.alpha),
        },
        columns=list(TRANSFER_COLUMNS),
    )


def _summary(
    emotion: str, direction: str, rows: pd.DataFrame | None, min_p: float, note: str
) -> dict[str, object]:
    if rows is None:
        empty = {"n_features": 0, "mean_auroc": np.nan, "mean_effect": np.nan, "n_effect": 0}
        return {
            "emotion": emotion,
            "direction": direction,
            **empty,
            "n_transfer": 0,
            "min_p": min_p,
            "note": note,
        }
    effects = rows["effect"].dropna()
    return {
        "emotion": emotion,
        "direction": direction,
        "n_features": len(rows),
        "mean_auroc": float(rows["auroc"].mean()),
        "mean_effect": float(effects.mean()) if len(effects) else np.nan,
        "n_effect": len(effects),
        "n_transfer": int(rows["transfers"].sum()),
        "min_p": min_p,
        "note": "",
    }
