"""The slope plot of a feature: every pair from its neutral twin to the emotional text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.display.words import ALL, capital, contrast_label, number, plural, shorten

from .feature_drawings import OVERVIEW, PANEL, height, slopes

Values = npt.NDArray[np.float64]

COLOURS = 8
"""Colours of the panels (classes e0 to e7); more emotions begin again."""
PANELS_SHOWN = 16
"""Panels of one plot; a battery can have more emotions."""
LABEL_LIMIT = 14


@dataclass(frozen=True)
class Interval:
    """A contrast's mean difference on pairs kept aside, with its 95% interval if there is one."""

    contrast: str
    mean: float
    low: float
    high: float
    n_pairs: int

    @property
    def bounded(self) -> bool:
        """Whether both bounds are numbers."""
        return bool(np.isfinite([self.low, self.high]).all())

    @property
    def words(self) -> str:
        """The difference, its n and its interval as a sentence."""
        label = capital(contrast_label(self.contrast))
        n = f"on {plural(self.n_pairs, 'pair')} kept aside"
        if not np.isfinite(self.mean):
            return f"{label}: no pair was kept aside."
        bounds = (
            f"95% interval {number(self.low, 3, sign=True)} to {number(self.high, 3, sign=True)}"
            if self.bounded
            else "no interval: too few scene groups"
        )
        return f"{label}: mean difference {number(self.mean, 3, sign=True)} {n}, {bounds}."


@dataclass(frozen=True)
class Panel:
    """One emotion's pairs: `pale` chose the feature, `dark` were kept aside.

    `mean` and `difference` are of the dark, of all where there are none; `n` counts both.
    """

    label: str
    colour: int
    own: bool
    pale: str
    dark: str
    mean: str
    difference: str
    n: str


@dataclass(frozen=True)
class Overview:
    """Mean slopes of all emotions, that of the first contrast, and its interval at the right.

    `whisker` is where the emotional texts' mean would lie at the ends of the interval, the neutral
    texts' mean as it is. The scale goes from 0 to `top`.
    """

    means: tuple[tuple[int, str], ...]
    contrast: str
    label: str
    whisker: tuple[int, int] | None
    top: str
    alt: str


@dataclass(frozen=True)
class SlopePlot:
    """All panels on one scale from 0 to `top`."""

    overview: Overview | None
    panels: tuple[Panel, ...]
    n_hidden: int
    top: str
    note: str
    intervals: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of one feature as arrays [n]; `aside` marks those kept aside."""

    emotion: npt.NDArray[np.object_]
    aside: npt.NDArray[np.bool_]
    neutral: Values
    clinical: Values


def pairs_by_feature(pooled: pd.DataFrame | None, features: Sequence[int]) -> dict[int, Pairs]:
    """Pairs of the given features out of `search/pooled`; features without any are left out."""
    if pooled is None:
        return {}
    own = pooled[pooled.feature.isin(list(features))]
    return {
        int(feature): Pairs(
            rows.emotion.astype(str).to_numpy(dtype=object),
            (rows.part == "confirmation").to_numpy(dtype=bool),
            rows.neutral.to_numpy(dtype=np.float64),
            rows.clinical.to_numpy(dtype=np.float64),
        )
        for feature, rows in own.groupby("feature", sort=False)
    }


def slope_plot(
    pairs: Pairs, emotions: Sequence[str], intervals: Sequence[Interval], pooling: str
) -> SlopePlot:
    """The plot of one feature.

    Args:
        pairs: its pairs.
        emotions: in the order of the search, which also fixes their colours.
        intervals: one for each contrast that the feature was retained for, the first shown.
        pooling: how the activations of a text's tokens became one number.
    """
    top = float(max(pairs.neutral.max(initial=0), pairs.clinical.max(initial=0)))
    wanted = {i.contrast for i in intervals}
    there = [(k, e) for k, e in enumerate(emotions) if (pairs.emotion == e).any()]
    # The emotions that the feature was found for are shown, however many there are.
    there.sort(key=lambda pair: pair[1] not in wanted)
    silent = int(((pairs.neutral == 0) & (pairs.clinical == 0)).sum())
    note = f"Height: activation over a text’s tokens ({pooling}), 0 to {number(top)}." + (
        f" In {silent} of {plural(len(pairs.emotion), 'pair')} it is silent in both texts."
        if silent
        else ""
    )
    shown = there[:PANELS_SHOWN]
    return SlopePlot(
        _overview(pairs, shown, intervals[0]) if intervals and pairs.aside.any() else None,
        tuple(_panel(pairs, e, k, top, own=e in wanted) for k, e in shown),
        len(there) - len(shown),
        number(top),
        note,
        tuple(i.words for i in intervals),
    )


def _panel(pairs: Pairs, emotion: str, k: int, top: float, *, own: bool) -> Panel:
    mine = pairs.emotion == emotion
    dark, pale = mine & pairs.aside, mine & ~pairs.aside
    judged = dark if dark.any() else mine
    return Panel(
        label=shorten(contrast_label(emotion), LABEL_LIMIT),
        colour=k % COLOURS,
        own=own,
        pale=_lines(pairs, pale, top),
        dark=_lines(pairs, dark, top),
        mean=_mean(pairs, judged, top),
        difference=number(_difference(pairs, judged), sign=True),
        n=f"{int(pale.sum())}+{int(dark.sum())}",
    )


def _overview(pairs: Pairs, shown: Sequence[tuple[int, str]], interval: Interval) -> Overview:
    own = pairs.aside & ((pairs.emotion == interval.contrast) | (interval.contrast == ALL))
    means = {k: pairs.aside & (pairs.emotion == emotion) for k, emotion in shown}
    means = {k: mine for k, mine in means.items() if mine.any()}
    base = float(pairs.neutral[own].mean()) if own.any() else 0.0
    ends = [base + b for b in (interval.low, interval.high)] if interval.bounded else []
    # Means lie low where most pairs are silent, so this panel has a scale of its own.
    top = max(
        [base, *ends]
        + [
            float(side[m].mean())
            for m in means.values()
            for side in (pairs.neutral, pairs.clinical)
        ]
    )
    return Overview(
        tuple((k % COLOURS, _mean(pairs, mine, top, OVERVIEW)) for k, mine in means.items()),
        _mean(pairs, own, top, OVERVIEW) if own.any() else "",
        contrast_label(interval.contrast),
        (height(ends[1], top, OVERVIEW), height(ends[0], top, OVERVIEW)) if ends else None,
        number(top),
        interval.words,
    )


def _lines(pairs: Pairs, chosen: npt.NDArray[np.bool_], top: float) -> str:
    return slopes(pairs.neutral[chosen].tolist(), pairs.clinical[chosen].tolist(), top)


def _mean(pairs: Pairs, chosen: npt.NDArray[np.bool_], top: float, box: int = PANEL) -> str:
    left, right = pairs.neutral[chosen].mean(), pairs.clinical[chosen].mean()
    return slopes([float(left)], [float(right)], top, box)


def _difference(pairs: Pairs, chosen: npt.NDArray[np.bool_]) -> float:
    return float((pairs.clinical[chosen] - pairs.neutral[chosen]).mean())
