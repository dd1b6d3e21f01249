"""Which emotions a latent answers to: the emotion x latent matrix, and own against each other one.

Matrix. Of each latent and emotion the mean difference of the emotion's pairs, its interval, and the
test of the search: these pairs against all others, labels exchanged. The labels of all units are
exchanged at once, so that one family-wise p (step-down max-T over the two-sample t) covers every
latent and emotion of a part. With few units an emotion cannot pass, whatever its effect: `min_p`.

Own against others. "Grief-specific" is a claim against each other emotion: own mean difference
minus the other's, with an interval by exchanging the labels of the two emotions' units. The claim
needs every interval above 0. Being a conjunction, it errs at most as often as one of its parts
(intersection-union test, Berger 1982): alpha / 2 of one side. The level is set stricter, at

    1 - min(alpha / n_others, 2 alpha / n_latents)

so that the intervals of a latent may be read together (Bonferroni), and the chance of any wrong
claim among the latents of a contrast stays within alpha.

Intervals invert the permutation tests and are no bootstrap: an emotion has two to six clusters in a
part, far too few to resample (see `intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features import stats
from affectlens.features._columns import centred, sparse_columns
from affectlens.features._max_t import Observed, count_by_definition, p_values
from affectlens.features.config import Unit
from affectlens.features.design import PairDesign, Part
from affectlens.features.inversion import one_sample, two_sample
from affectlens.features.search_tables import joined
from affectlens.features.validation_config import ValidityConfig
from affectlens.features.validity_columns import MATRIX_COLUMNS, OTHERS_COLUMNS, SPECIFIC_COLUMNS

Array = npt.NDArray[np.float64]

PARTS: tuple[Part, ...] = ("discovery", "confirmation")
_CHUNK = 250
_TIE = 1e-9
"""Permuted statistics, which lie within 0..1, count as equal from this distance."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Pair differences of some latents, with all that a test of them needs.

    Attributes:
        differences: [n_pairs, n_features] clinical minus neutral.
        features: [n_features] latent of each column.
        design: the pairs.
        parts: the split of the clusters.
        unit: what keeps its emotion label as a whole.
        config: permutations, level and seed.
    """

    differences: Array
    features: tuple[int, ...]
    design: PairDesign
    parts: Mapping[str, Part]
    unit: Unit
    config: ValidityConfig

    def columns(self, features: Sequence[int]) -> list[int]:
        """Columns of latents."""
        place = {f: i for i, f in enumerate(self.features)}
        return [place[f] for f in features]

    def units(self, part: Part) -> Units:
        """Units of a part: pairs, or clusters with the means of their pairs."""
        rows = self.design.rows(self.parts, part)
        units = self.design.units(self.unit)
        names = [units[r] for r in rows]
        order = sorted(set(names))
        emotion = dict(zip(names, (self.design.emotions[r] for r in rows), strict=True))
        cluster = dict(zip(names, (self.design.clusters[r] for r in rows), strict=True))
        if not len(rows):
            return Units(np.zeros((0, len(self.features))), (), ())
        return Units(
            stats.cluster_means(self.differences[rows], names),
            tuple(emotion[n] for n in order),
            tuple(cluster[n] for n in order),
        )

    def pairs(self, part: Part, emotion: str) -> npt.NDArray[np.int64]:
        """Rows of an emotion's pairs in a part."""
        rows = self.design.rows(self.parts, part)
        return rows[[self.design.emotions[r] == emotion for r in rows]] if len(rows) else rows


@dataclass(frozen=True, eq=False)
class Units:
    """Means of units [n_units, n_features], the emotion and the cluster of each."""

    values: Array
    emotions: tuple[str, ...]
    clusters: tuple[str, ...]

    def of(self, emotion: str) -> Array:
        """Values of an emotion's units."""
        return self.values[[e == emotion for e in self.emotions]]


def emotion_matrix(measured: Measured, selected: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Every selected latent against the pairs of every emotion, part by part (`MATRIX_COLUMNS`).

    The family of `p_fwer` is all distinct latents of `selected` times the emotions of the part.

    Args:
        measured: pair differences; holds all selected latents.
        selected: contrast -> latents.

    Raises:
        StatisticsError: a value is not finite.
    """
    frames = []
    for part in PARTS:
        units = measured.units(part)
        here = [e for e in measured.design.order if e in units.emotions]
        p, p_fwer = _joint(units, here, measured.config)
        least = _least_p(units, here, measured.config.n_permutations)
        for row, emotion in enumerate(here):
            tested = {"p": p[row], "p_fwer": p_fwer[row]}
            frames += _cells(measured, selected, part, emotion, tested, least[row])
    return joined(frames, MATRIX_COLUMNS)


def own_against_others(measured: Measured, selected: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Own mean difference minus each other emotion's (`OTHERS_COLUMNS`).

    Means are over units. An emotion without pairs in a part has no row there.

    Args:
        measured: pair differences; holds all selected latents.
        selected: emotion -> latents.

    Raises:
        StatisticsError: a value is not finite.
    """
    frames = []
    c = measured.config
    for part in PARTS:
        units = measured.units(part)
        here = [e for e in measured.design.order if e in units.emotions]
        for emotion in [e for e in here if selected.get(e)]:
            features = list(selected[emotion])
            columns = measured.columns(features)
            others = [e for e in here if e != emotion]
            alpha = min(c.alpha / max(len(others), 1), 2 * c.alpha / len(features))
            for other in others:
                own, rest = units.of(emotion)[:, columns], units.of(other)[:, columns]
                found = two_sample(
                    own, rest, alpha=alpha, n_permutations=c.n_permutations, seed=c.seed
                )
                frames.append(
                    pd.DataFrame(
                        {
                            "feature": features,
                            "selected_for": emotion,
                            "part": part,
                            "other": other,
                            "n_own": len(own),
                            "n_other": len(rest),
                            "difference": found.estimate,
                            "low": found.low,
                            "high": found.high,
                            "level": 1 - alpha,
                            "p": found.p,
                        }
                    )
                )
    return joined(frames, OTHERS_COLUMNS)


def specific_table(others: pd.DataFrame, n_permutations: int) -> pd.DataFrame:
    """Whether each latent is specific for its emotion (`SPECIFIC_COLUMNS`).

    Args:
        others: of `own_against_others`.
        n_permutations: that its intervals were made with.
    """
    rows = []
    keys = ["selected_for", "part", "feature"]
    for (emotion, part, feature), own in others.groupby(keys, sort=False):
        below = int((own["low"] > 0).sum())
        reversed_ = bool((own["high"] < 0).any())
        verdict = "holds" if below == len(own) else "fails" if reversed_ else "unknown"
        smallest = max(
            stats.min_attainable_p(a + b, n_permutations, a)
            for a, b in zip(own["n_own"], own["n_other"], strict=True)
        )
        level = 1 - float(own["level"].iloc[0])
        note = ""
        if verdict != "holds":
            note = "not surely below: " + ", ".join(own.loc[~(own["low"] > 0), "other"])
        if smallest > level:
            note += f"; too few units: the smallest attainable p is {smallest:.2g}, "
            note += f"and {level:.2g} is needed"
        rows.append(
            {
                "feature": feature,
                "selected_for": emotion,
                "part": part,
                "n_others": len(own),
                "n_below": below,
                "closest": own.loc[own["difference"].idxmin(), "other"],
                "verdict": verdict,
                "note": note,
            }
        )
    return pd.DataFrame(rows, columns=list(SPECIFIC_COLUMNS))


def _cells(
    measured: Measured,
    selected: Mapping[str, Sequence[int]],
    part: Part,
    emotion: str,
    tested: Mapping[str, Array],
    least: float,
) -> list[pd.DataFrame]:
    rows = measured.pairs(part, emotion)
    d, c = measured.differences[rows], measured.config
    source = measured.design.units(measured.unit)
    found = one_sample(
        d,
        [source[r] for r in rows],
        alpha=c.alpha,
        n_permutations=c.n_permutations,
        seed=c.seed,
    )
    mean, size = stats.mean_diff(d), stats.d_z(d)
    frames = []
    for contrast, features in selected.items():
        at = measured.columns(features)
        frames.append(
            pd.DataFrame(
                {
                    "feature": list(features),
                    "selected_for": contrast,
                    "emotion": emotion,
                    "part": part,
                    "n_pairs": len(rows),
                    "mean_diff": mean[at],
                    "d_z": size[at],
                    "n_units": found.n_units,
                    "low": found.low[at],
                    "high": found.high[at],
                    **{name: p[at] for name, p in tested.items()},
                    "min_p": least,
                }
            )
        )
    return [f for f in frames if len(f)]


def _joint(units: Units, emotions: Sequence[str], config: ValidityConfig) -> tuple[Array, Array]:
    """p and max-T p [n_emotions, n_features] of each emotion against the others, one family.

    Not `label_permutation`: its families are the groups, each with permutations of its own size of
    group; a family over emotions needs one order of the labels for all of them.
    """
    n, n_features = units.values.shape
    shape = (len(emotions), n_features)
    if len(emotions) < 2 or not n_features:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    own = np.array([[e == name for e in units.emotions] for name in emotions])
    z = centred(sparse_columns(units.values, "units")).dense()
    # Rising in t with N - 2 degrees of freedom, the same for every emotion, and bounded by 1.
    weights = own * np.sqrt(1 / own.sum(axis=1) + 1 / (~own).sum(axis=1))[:, None]
    observed = np.abs(weights @ z).reshape(1, -1)
    target = Observed(observed, observed - _TIE)
    blocks = (
        np.abs(weights[:, order].transpose(1, 0, 2) @ z).reshape(len(order), -1)
        for order in _orders(n, config)
    )
    found = p_values(count_by_definition(blocks, target), target, exact=False)
    return found.p.reshape(shape), found.p_fwer.reshape(shape)


def _least_p(units: Units, emotions: Sequence[str], n_permutations: int) -> list[float]:
    """The smallest max-T p of each emotion's cells; NaN where there is a single emotion.

    Let the k most extreme of N units be all its own. An order of the labels is as extreme whenever
    they all fall to one emotion, this or another of k units: n_k / (N over k) of the orders, where
    n_k emotions have k units. Random orders can give a little less by chance.
    """
    if len(emotions) < 2:
        return [float("nan")] * len(emotions)
    sizes = [units.emotions.count(e) for e in emotions]
    return [
        max(sizes.count(k) / math.comb(len(units.emotions), k), 1 / (1 + n_permutations))
        for k in sizes
    ]


def _orders(n_units: int, config: ValidityConfig) -> Iterator[npt.NDArray[np.int64]]:
    """Random orders of the units, [n_block, n_units] at a time."""
    rng = np.random.default_rng(config.seed)
    left = config.n_permutations
    while left:
        block = min(left, _CHUNK)
        yield rng.permuted(np.tile(np.arange(n_units), (block, 1)), axis=1)
        left -= block
