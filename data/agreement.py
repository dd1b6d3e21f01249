"""Agreement of raters with the battery's intent and with each other.

Accuracy; Cohen's kappa (J. Cohen, *A coefficient of agreement for nominal scales*, 1960); Fleiss'
kappa for three or more raters (J. Fleiss, *Measuring nominal scale agreement among many raters*,
1971). Intervals are percentile intervals of a bootstrap over emotion x domain clusters, since the
items of a cluster share a situation, or over items.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import StimulusError
from affectlens.data.ratings import ANSWERS, OTHER, Rating, intents, text_sha256
from affectlens.data.stimuli import SPLITS, Battery, Stimulus
from affectlens.data.taxonomy import NEUTRAL, TAXONOMY, VALENCES

if TYPE_CHECKING:
    import pandas as pd

INTENT = "intent"
"""The name of the battery's own labels among raters."""

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Unit = Literal["cluster", "item"]

LABELS: tuple[str, ...] = (*ANSWERS, *VALENCES)
"""Rows and columns of every confusion table; the last two only for items meant as a valence."""

_K = len(LABELS)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bounds; None where undefined or with fewer than two units."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Two raters, or a rater (`a`) and the intent (`b`), on the `n` items that both labelled.

    `counts[i][j]` counts items that `a` called `labels[i]` and `b` called `labels[j]`. Kappa is
    undefined where both used one and the same label throughout.
    """

    a: str
    b: str
    n: int
    accuracy: Estimate
    kappa: Estimate
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def table(self) -> pd.DataFrame:
        """The confusion table: rows are answers of `a`, columns of `b`, unused labels left out."""
        import pandas as pd

        frame = pd.DataFrame(self.counts, index=list(self.labels), columns=list(self.labels))
        frame = frame.loc[frame.sum(axis=1) > 0, frame.sum(axis=0) > 0]
        return frame.rename_axis(index=self.a, columns=self.b)


@dataclass(frozen=True)
class Fleiss:
    """Agreement of all raters on the `n` items that every one of them labelled."""

    raters: tuple[str, ...]
    n: int
    kappa: Estimate


@dataclass(frozen=True)
class Difference:
    """An answer that is not what the battery intends."""

    item: str
    split: str
    intent: str
    rater: str
    emotion: str
    intensity: int | None
    comment: str


@dataclass(frozen=True)
class MeanIntensity:
    """Mean intensity that a rater gave to the items of a split (those with an intensity)."""

    rater: str
    split: str
    n: int
    mean: float


@dataclass(frozen=True)
class Agreement:
    """What raters say about a battery.

    `n_unrated` counts items that nobody labelled. `unit` is what the bootstrap draws.
    """

    battery: str
    battery_sha256: str
    n_items: int
    n_unrated: int
    unit: Unit
    with_intent: tuple[Comparison, ...]
    between: tuple[Comparison, ...]
    fleiss: Fleiss | None
    intensities: tuple[MeanIntensity, ...]
    differences: tuple[Difference, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row a comparison: a, b, n, accuracy and kappa with their bounds."""
        import pandas as pd

        rows = [
            (
                *(c.a, c.b, c.n, c.accuracy.value, c.accuracy.low, c.accuracy.high),
                *(c.kappa.value, c.kappa.low, c.kappa.high),
            )
            for c in (*self.with_intent, *self.between)
        ]
        columns = ["a", "b", "n", "accuracy", "accuracy_low", "accuracy_high"]
        return pd.DataFrame(rows, columns=[*columns, "kappa", "kappa_low", "kappa_high"])


def agreement(
    battery: Battery,
    ratings: Sequence[Rating],
    *,
    unit: Unit = "cluster",
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Compare every rater with the intent and with every other rater.

    The intent of a neutral or complex neutral item is 'neutral', of all others their emotion;
    'other' never agrees with an intent. Where the intent is a valence, the valence of the answer is
    compared with it (of 'amazement' and 'vigilance', which have none: 'other').

    Args:
        battery: what was rated.
        ratings: rows of one or more files (`ratings.read_ratings`).
        unit: what the bootstrap draws, 'cluster' or 'item'.
        n_bootstrap: resamples; 0 for no intervals.
        seed: seed of the resamples.

    Raises:
        StimulusError: no ratings, an item or text that is not in the battery, one item answered
            twice by one rater, or a rater called 'intent'.
    """
    by_rater = _by_rater(battery, ratings)
    place = {item.id: k for k, item in enumerate(battery.items)}
    label = {name: k for k, name in enumerate(LABELS)}
    meant = intents(battery)
    # [n_raters, n_items], -1 where not answered.
    codes = np.full((len(by_rater), len(battery.items)), -1, dtype=np.int64)
    for row, answers in enumerate(by_rater.values()):
        for answer in answers.values():
            codes[row, place[answer.item]] = label[answer.emotion]
    intended = np.array([label[meant[i.id]] for i in battery.items], dtype=np.int64)
    valence = np.array([label[_as_valence(name)] for name in LABELS])
    by_valence = np.isin(intended, [label[name] for name in VALENCES])
    # Only against the intent: two raters are compared on what they said.
    translated = np.where(by_valence & (codes >= 0), valence[codes], codes)
    units = _units(battery.items, unit)
    draw = _Bootstrap(units, n_bootstrap, seed)
    names = list(by_rater)
    return Agreement(
        battery=battery.name,
        battery_sha256=battery.sha256,
        n_items=len(battery.items),
        n_unrated=int((codes < 0).all(axis=0).sum()),
        unit=unit,
        with_intent=tuple(
            _compare(name, INTENT, translated[k], intended, draw) for k, name in enumerate(names)
        ),
        between=tuple(
            _compare(names[a], names[b], codes[a], codes[b], draw)
            for a, b in itertools.combinations(range(len(names)), 2)
        ),
        fleiss=_fleiss(tuple(names), codes, draw) if len(names) > 2 else None,
        intensities=tuple(_intensities(battery, by_rater)),
        differences=tuple(_differences(battery, by_rater)),
    )


def cohen_kappa(counts: npt.ArrayLike) -> Array:
    """Cohen's kappa of confusion tables [..., k, k]: [...]; NaN where chance agreement is 1."""
    table = np.asarray(counts, dtype=float)
    n = table.sum(axis=(-2, -1))
    safe = np.where(n > 0, n, 1.0)
    observed = np.trace(table, axis1=-2, axis2=-1) / safe
    chance = (table.sum(-1) * table.sum(-2)).sum(-1) / safe**2
    defined = (n > 0) & (chance < 1)
    return _beyond_chance(observed, chance, defined)


def fleiss_kappa(counts: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
    """Fleiss' kappa of counts [n_items, k], with equal row sums of 2 or more.

    Args:
        counts: how many raters gave an item a label.
        weights: [n_resamples, n_items] how often each item counts; once by default.

    Returns:
        [n_resamples] (or a scalar array); NaN where chance agreement is 1.

    Raises:
        StimulusError: no items, row sums that differ, or fewer than two raters.
    """
    table = np.asarray(counts, dtype=float)
    raters = table.sum(axis=1)
    if table.ndim != 2 or not len(table) or raters[0] < 2 or (raters != raters[0]).any():
        raise StimulusError(
            "Fleiss' kappa needs items that were all labelled by the same number of raters, 2 or "
            f"more; got row sums {sorted({*raters.tolist()})}"
        )
    m = raters[0]
    agreed = ((table**2).sum(axis=1) - m) / (m * (m - 1))
    w = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=float)
    n = w.sum(axis=-1)
    safe = np.where(n > 0, n, 1.0)
    observed = (w @ agreed) / safe
    chance = (((w @ table) / (safe[..., None] * m)) ** 2).sum(axis=-1)
    defined = (n > 0) & (chance < 1)
    return _beyond_chance(observed, chance, defined)


def _beyond_chance(observed: Array, chance: Array, defined: npt.NDArray[np.bool_]) -> Array:
    rest = np.where(defined, 1 - chance, 1.0)
    return np.where(defined, (observed - chance) / rest, np.nan)


class _Bootstrap:
    """Draws of whole units, the same for every statistic, so that intervals compare."""

    def __init__(self, units: npt.NDArray[np.int64], n: int, seed: int) -> None:
        self.units, self._n, self._seed = units, n, seed

    def weights(self, used: npt.NDArray[np.int64]) -> Array | None:
        """How often each of the `used` units counts [n, n_used]; None without an interval."""
        if self._n < 1 or len(used) < 2:
            return None
        generator = np.random.default_rng(self._seed)
        share = np.full(len(used), 1 / len(used))
        return generator.multinomial(len(used), share, size=self._n).astype(float)


def _as_valence(answer: str) -> str:
    if answer == NEUTRAL or answer in VALENCES:
        return answer
    sign = TAXONOMY[answer].valence if answer in TAXONOMY else 0
    return {1: "positive", -1: "negative", 0: OTHER}[sign]


def _compare(a: str, b: str, codes_a: Codes, codes_b: Codes, draw: _Bootstrap) -> Comparison:
    both = (codes_a >= 0) & (codes_b >= 0)
    used, unit = np.unique(draw.units[both], return_inverse=True)
    tables = np.zeros((len(used), _K, _K))
    np.add.at(tables, (unit, codes_a[both], codes_b[both]), 1)
    total = tables.sum(axis=0)
    n = int(total.sum())
    accuracy = np.array(np.trace(total) / n) if n else np.array(np.nan)
    weights = draw.weights(used)
    drawn = None
    if weights is not None:
        drawn = (weights @ tables.reshape(len(used), -1)).reshape(-1, _K, _K)
    hit = None if drawn is None else np.trace(drawn, axis1=1, axis2=2) / drawn.sum(axis=(1, 2))
    return Comparison(
        a=a,
        b=b,
        n=n,
        accuracy=_estimate(accuracy, hit),
        kappa=_estimate(cohen_kappa(total), None if drawn is None else cohen_kappa(drawn)),
        labels=LABELS,
        counts=tuple(tuple(int(c) for c in row) for row in total),
    )


def _fleiss(names: tuple[str, ...], codes: Codes, draw: _Bootstrap) -> Fleiss:
    shared = (codes >= 0).all(axis=0)
    n = int(shared.sum())
    if n == 0:
        return Fleiss(names, 0, Estimate(None, None, None))
    counts = np.stack([(codes[:, shared] == k).sum(axis=0) for k in range(_K)], axis=1)
    used, unit = np.unique(draw.units[shared], return_inverse=True)
    weights = draw.weights(used)
    drawn = None if weights is None else fleiss_kappa(counts, weights[:, unit])
    return Fleiss(names, n, _estimate(fleiss_kappa(counts), drawn))


def _estimate(value: Array, drawn: Array | None) -> Estimate:
    shown = float(value) if np.isfinite(value) else None
    # A resample in which everybody gave one label has no kappa; it cannot bound one.
    finite = drawn[np.isfinite(drawn)] if drawn is not None else np.empty(0)
    if shown is None or not len(finite):
        return Estimate(shown, None, None)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(shown, float(low), float(high))


def _units(items: Sequence[Stimulus], unit: Unit) -> npt.NDArray[np.int64]:
    if unit not in ("cluster", "item"):
        raise StimulusError(f"unit is {unit!r}; allowed: cluster, item")
    # An unpaired item without a domain shares its situation with nobody.
    names = [i.cluster if unit == "cluster" and i.domain else f"item {i.id}" for i in items]
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def _by_rater(battery: Battery, ratings: Sequence[Rating]) -> dict[str, dict[str, Rating]]:
    if not ratings:
        raise StimulusError("there are no ratings to compare; give a file that holds answers")
    known = {i.id: text_sha256(i.text) for i in battery.items}
    found: dict[str, dict[str, Rating]] = defaultdict(dict)
    for row in ratings:
        if known.get(row.item) != row.text_sha256:
            raise StimulusError(
                f"{row.rater!r} answered for item {row.item!r}, which battery {battery.name!r} "
                f"{'has with another text' if row.item in known else 'does not have'}; these "
                "answers belong to another battery or version"
            )
        if row.item in found[row.rater]:
            raise StimulusError(
                f"{row.rater!r} answered item {row.item!r} twice; is a file given twice?"
            )
        if row.rater == INTENT:
            raise StimulusError(f"a rater may not be called {INTENT!r}: that is the battery's own")
        found[row.rater][row.item] = row
    return dict(found)


def _intensities(battery: Battery, by_rater: dict[str, dict[str, Rating]]) -> list[MeanIntensity]:
    out = []
    for rater, answers in by_rater.items():
        for split in SPLITS:
            given = [
                value
                for i in battery.items
                if i.split == split
                and i.id in answers
                and (value := answers[i.id].intensity) is not None
            ]
            if given:
                out.append(MeanIntensity(rater, split, len(given), float(np.mean(given))))
    return out


def _differences(battery: Battery, by_rater: dict[str, dict[str, Rating]]) -> list[Difference]:
    meant = intents(battery)
    return [
        Difference(i.id, i.split, meant[i.id], rater, row.emotion, row.intensity, row.comment)
        for i in battery.items
        for rater, answers in by_rater.items()
        if (row := answers.get(i.id)) is not None
        and (_as_valence(row.emotion) if meant[i.id] in VALENCES else row.emotion) != meant[i.id]
    ]
