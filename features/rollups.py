"""Coarser readings of what a latent answers to: valence and arousal, Ekman's and Parrott's names.

Dimensions. Pair differences are regressed on the signs of valence and arousal of their emotion
(`taxonomy`; Russell 1980):

    difference = b0 + b1 valence + b2 arousal + error

With eight emotions the two are correlated and many other orders of emotions look like them; the
correlation stands in the table. Two p are given. `p` exchanges emotion labels between units, as the
search does, and is small as soon as any emotion stands out in a way that valence (or arousal)
partly follows. `p_emotions` takes the emotions as they are and exchanges the pairs of signs between
them: it asks whether valence fits the eight means better than other assignments of the same signs.
Only the second speaks for valence as such. Intervals are cluster-robust (Liang and Zeger 1986, with
the factor k / (k - 1) (n - 1) / (n - 3), t with k - 1 degrees of freedom for k clusters); they are
conditional on these emotions.

Categories. A category of a scheme (Ekman's six; Parrott's primary names) is tested against the
scheme's other categories by exchanging labels. Units of emotions without counterpart are left out
and counted. Max-T covers the latents of a contrast and category; `p_holm` covers all of a part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from affectlens.data.parrott import PARROTT_NAMES, parrott_path
from affectlens.data.taxonomy import TAXONOMY
from affectlens.features import stats
from affectlens.features.effect_sizes import cluster_codes
from affectlens.features.matrix import PARTS, Measured, Units
from affectlens.features.permutation import StatisticsError
from affectlens.features.search_tables import joined
from affectlens.features.validity_columns import DIMENSION_COLUMNS, ROLLUP_COLUMNS

Array = npt.NDArray[np.float64]

DIMENSIONS = ("valence", "arousal")
SCHEMES = ("ekman", "parrott")

_CHUNK = 512
_MOST_ORDERS = 50_000
"""Orders of the emotions that are enumerated: all 40,320 of eight."""
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Regression:
    """Valence and arousal of each latent; arrays are [2, n_features], valence first.

    Attributes:
        estimate: partial slope per step of the sign.
        low: lower bound; NaN below four clusters.
        high: upper bound; likewise.
        p: labels exchanged between units.
        p_emotions: signs exchanged between emotions.
        share: [n_features] share of the variance between emotion means (each once) explained by
            the two; NaN where the means are equal.
        correlation: of valence and arousal over the units.
        n: units.
    """

    estimate: Array
    low: Array
    high: Array
    p: Array
    p_emotions: Array
    share: Array
    correlation: float
    n: int


def signs(emotion: str) -> tuple[int, int] | None:
    """Valence and arousal of an emotion; None for a label without both."""
    known = TAXONOMY.get(emotion)
    return None if known is None else (known.valence, known.arousal)


def category(emotion: str, scheme: str) -> str | None:
    """The category of an emotion of the taxonomy in a scheme; None without counterpart.

    Parrott's is the primary name above the emotion's own, where his tree has it.

    Raises:
        StatisticsError: an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise StatisticsError(f"got scheme {scheme!r}; allowed: {', '.join(SCHEMES)}")
    if scheme == "parrott":
        return parrott_path(emotion)[0] if emotion in PARROTT_NAMES else None
    known = TAXONOMY.get(emotion)
    return None if known is None else known.ekman


def regress_dimensions(
    units: Units, *, alpha: float = 0.05, n_permutations: int = 10_000, seed: int = 0
) -> Regression | None:
    """Regress unit means on valence and arousal; see the module.

    Returns:
        None where the two cannot be told apart: fewer than four units, or signs that are constant
        or collinear over them.

    Raises:
        StatisticsError: a value is not finite.
    """
    known = [signs(e) for e in units.emotions]
    rows = [i for i, s in enumerate(known) if s is not None]
    if len(rows) < 4:
        return None
    x = np.array([[1.0, *s] for s in known if s is not None])
    if np.linalg.matrix_rank(x) < 3:
        return None
    y = stats.as_columns(units.values[rows], "units")
    emotions = [units.emotions[i] for i in rows]
    clusters = [units.clusters[i] for i in rows]
    estimate = np.linalg.pinv(x) @ y
    half = _robust(x, y - x @ estimate, clusters, alpha)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(x)) for _ in range(n_permutations)]
    reached = _reached(x, y, orders)
    p = (1 + reached) / (1 + n_permutations)
    names = list(dict.fromkeys(emotions))
    means = np.stack([y[[e == name for e in emotions]].mean(axis=0) for name in names])
    table = np.array([x[emotions.index(name)] for name in names])
    return Regression(
        estimate[1:],
        (estimate - half)[1:],
        (estimate + half)[1:],
        p,
        _p_emotions(table, means, n_permutations, rng),
        _explained(table, means),
        float(np.corrcoef(x[:, 1], x[:, 2])[0, 1]),
        len(x),
    )


def dimension_table(measured: Measured, selected: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Valence and arousal of selected latents, part by part (`DIMENSION_COLUMNS`).

    Parts in which the two cannot be told apart have no rows.

    Args:
        measured: pair differences; holds all selected latents.
        selected: contrast -> latents.
    """
    c = measured.config
    frames = []
    for part in PARTS:
        found = regress_dimensions(
            measured.units(part), alpha=c.alpha, n_permutations=c.n_permutations, seed=c.seed
        )
        if found is None:
            continue
        for contrast, features in selected.items():
            at = measured.columns(features)
            for i, name in enumerate(DIMENSIONS if at else ()):
                frames.append(
                    pd.DataFrame(
                        {
                            "contrast": contrast,
                            "feature": list(features),
                            "part": part,
                            "dimension": name,
                            "n": found.n,
                            "estimate": found.estimate[i, at],
                            "low": found.low[i, at],
                            "high": found.high[i, at],
                            "p": found.p[i, at],
                            "p_emotions": found.p_emotions[i, at],
                            "correlation": found.correlation,
                            "share": found.share[at],
                        }
                    )
                )
    return joined(frames, DIMENSION_COLUMNS)


def rollup_table(measured: Measured, selected: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Selected latents against the categories of Ekman and Parrott (`ROLLUP_COLUMNS`).

    A scheme of which a part holds fewer than two categories has no rows there.

    Args:
        measured: pair differences; holds all selected latents.
        selected: contrast -> latents.

    Raises:
        StatisticsError: a value is not finite.
    """
    frames = []
    for part in PARTS:
        units = measured.units(part)
        for scheme in SCHEMES:
            of = {e: category(e, scheme) for e in measured.design.order}
            labels = np.array([of[e] or "" for e in units.emotions], dtype=object)
            inside = labels != ""
            names = list(dict.fromkeys(labels[inside]))
            if len(names) < 2:
                continue
            for contrast, features in selected.items():
                if not features:
                    continue
                at = measured.columns(features)
                found = stats.label_permutation(
                    units.values[inside][:, at],
                    list(labels[inside]),
                    names,
                    measured.config.n_permutations,
                    measured.config.seed,
                )
                for i, name in enumerate(names):
                    members = [e for e in measured.design.order if of[e] == name]
                    frames.append(
                        pd.DataFrame(
                            {
                                "contrast": contrast,
                                "feature": list(features),
                                "part": part,
                                "scheme": scheme,
                                "category": name,
                                "emotions": ",".join(e for e in members if e in units.emotions),
                                "n_own": found.n_own[i],
                                "n_rest": found.n_units - found.n_own[i],
                                "n_left_out": int((~inside).sum()),
                                "mean_diff": units.values[labels == name][:, at].mean(axis=0),
                                "specificity": found.specificity[i],
                                "p": found.p[i],
                                "p_fwer": found.p_fwer[i],
                            }
                        )
                    )
    return joined([_over_all(pd.concat(frames))] if frames else [], ROLLUP_COLUMNS)


def _over_all(table: pd.DataFrame) -> pd.DataFrame:
    """With `p_holm`: `p_fwer` adjusted over the families of each part."""
    names = table["contrast"] + "/" + table["scheme"] + "/" + table["category"]
    adjusted = np.empty(len(table))
    for part in PARTS:
        rows = (table["part"] == part).to_numpy()
        adjusted[rows] = over_families(table["p_fwer"][rows].to_numpy(), list(names[rows]))
    return table.assign(p_holm=adjusted)


def over_families(p_fwer: Array, families: Sequence[str]) -> Array:
    """Family-wise p over several families, each with a family-wise p of its own: [n].

    Holm (1979) over the families: each p is multiplied by the number of families that still hold
    one as large, so a family counts until all of it is through (sequential rejection, Goeman and
    Solari 2010). With families of one this is Holm.

    Args:
        p_fwer: [n], step-down within the families.
        families: [n], the family of each.
    """
    order = np.argsort(p_fwer, kind="stable")
    left, still = set[str](), np.empty(len(order))
    for place in range(len(order) - 1, -1, -1):
        left.add(families[order[place]])
        still[place] = len(left)
    out = np.empty(len(order))
    out[order] = np.minimum(1.0, np.maximum.accumulate(p_fwer[order] * still))
    return out


def _robust(x: Array, residuals: Array, clusters: Sequence[str], alpha: float) -> Array:
    """Half widths [3, n_features] of cluster-robust intervals; NaN below four clusters."""
    n, k_x = x.shape
    codes, k = cluster_codes(clusters, n)
    if k < k_x + 1 or n <= k_x:
        return np.full((k_x, residuals.shape[1]), np.nan)
    bread = np.linalg.inv(x.T @ x)
    scores = np.zeros((k, k_x, residuals.shape[1]))
    np.add.at(scores, codes, x[:, :, None] * residuals[:, None, :])
    moved = np.einsum("ij,cjf->cif", bread, scores)
    variance = (moved**2).sum(axis=0) * k / (k - 1) * (n - 1) / (n - k_x)
    return np.asarray(special.stdtrit(k - 1, 1 - alpha / 2) * np.sqrt(variance))


def _squared_t(x: Array, y: Array) -> Array:
    """Squared t, up to a factor, of valence and arousal: [..., 2, n_features] for y [..., n, f].

    Where nothing is left unexplained it is infinite, or 0 for a slope of 0.
    """
    solve = np.linalg.pinv(x)
    beta = solve @ y
    rest = ((y - x @ beta) ** 2).sum(axis=-2, keepdims=True)
    spread = np.diag(np.linalg.inv(x.T @ x))[1:, None]
    total = ((y - y.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-2, keepdims=True)
    exact = rest <= 1e-12 * total
    slope = beta[..., 1:, :] ** 2 / spread
    slope = np.where(slope <= 1e-12 * total, 0.0, slope)
    infinite = np.where(slope > 0, np.inf, 0.0)
    return np.asarray(np.where(exact, infinite, slope / np.where(exact, 1.0, rest)))


def _reached(x: Array, y: Array, orders: Sequence[npt.ArrayLike]) -> Array:
    """How many orders of the rows of y give a t as large as the observed: [2, n_features].

    Not `label_permutation`: two predictors share the residual, which orders change.
    """
    limit = _squared_t(x, y)
    limit = np.where(np.isinf(limit), limit, limit * (1 - _TIE))
    counts = np.zeros(limit.shape)
    for start in range(0, len(orders), _CHUNK):
        counts += (_squared_t(x, y[np.array(orders[start : start + _CHUNK])]) >= limit).sum(axis=0)
    return counts


def _p_emotions(x: Array, means: Array, n: int, rng: np.random.Generator) -> Array:
    count = len(x)
    if count < 4 or np.linalg.matrix_rank(x) < 3:
        return np.ones((2, means.shape[1]))
    if math.factorial(count) <= _MOST_ORDERS:
        orders = [np.array(o) for o in itertools.permutations(range(count))]
        return _reached(x, means, orders) / len(orders)
    return (1 + _reached(x, means, [rng.permutation(count) for _ in range(n)])) / (1 + n)


def _explained(x: Array, means: Array) -> Array:
    total = ((means - means.mean(axis=0)) ** 2).sum(axis=0)
    rest = ((means - x @ (np.linalg.pinv(x) @ means)) ** 2).sum(axis=0)
    varies = total > 1e-24 * np.maximum((means**2).sum(axis=0), np.finfo(float).tiny)
    return np.where(varies, 1 - rest / np.where(varies, total, 1.0), np.nan)
