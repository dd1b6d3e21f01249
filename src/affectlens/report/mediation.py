"""How much of an emotion's difference runs through its features: sentences, table, figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.display.arms import EFFECT_ARMS, Arm
from affectlens.display.look import THEME, axis_label
from affectlens.display.words import contrast_label, listing, number, plural

from .forest import Point, draw_points
from .loading import RunData
from .tables import Cell, Head, Row, Table, estimate
from .theme import FigureSpec, canvas, dress, legend, panels

MEDIATION = "effects/mediation"

MEASURES = {
    "necessity": ("Necessity", "share of the difference that goes away without the features"),
    "sufficiency": ("Sufficiency", "share that appears where only they are changed"),
    "faithfulness": ("Faithfulness", "only they stay emotional, all others neutral; 1 is perfect"),
    "completeness": ("Completeness", "they are neutral, all others stay emotional; 0 is perfect"),
}
"""Measures of a set, with what they are."""

_CHOSEN = Arm("chosen features", "SAE", "o", "red", filled=True)
_LEFT = Arm("left in the SAE’s error", "SAE error", "s", "ink")


@dataclass(frozen=True)
class MediationView:
    """What the section shows: sentences, every measure of the chosen sets, and what has no value.

    `reasons` holds (emotions, why).
    """

    leads: tuple[tuple[str, str], ...]
    table: Table
    reasons: tuple[tuple[str, str], ...]


def mediation_view(data: RunData) -> MediationView | None:
    """The section; None where mediation was not measured."""
    table = data.rows(MEDIATION)
    if table is None:
        return None
    return MediationView(
        tuple(lead for lead in (_through(table), _random(table), _error(table)) if lead),
        _table(table),
        tuple(_reasons(table)),
    )


def share_through(table: pd.DataFrame, measure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the chosen sets that have a value, and of those that lie above all random sets.

    Above: the interval does not hold 0 and the value exceeds that of every random set.
    """
    own = table[(table.measure == measure) & (table.arm == "chosen") & table.value.notna()]
    random = table[(table.measure == measure) & (table.arm == "random")]
    best = dict(random.dropna(subset="value").groupby("emotion").value.max())
    above = [
        bool(r.value_low > 0 and r.value > best.get(r.emotion, -math.inf)) for r in own.itertuples()
    ]
    return own, own[np.array(above, dtype=bool)]


def _through(table: pd.DataFrame) -> tuple[str, str]:
    parts = []
    for measure, words in (
        ("necessity", "Without the chosen features"),
        ("sufficiency", "With their emotional values put into neutral text"),
    ):
        own, above = share_through(table, measure)
        if own.empty:
            continue
        verb = "goes away" if measure == "necessity" else "appears"
        ends = f"{number(own.value.min())} to {number(own.value.max())}"
        named = listing([contrast_label(str(e)) for e in above.emotion]) or "no emotion"
        parts.append(
            f"{words}, a share of {number(float(own.value.median()))} of the readout’s difference "
            f"{verb} (median over {plural(len(own), 'emotion')}, {ends}); for {named} its interval "
            "lies above 0 and the share above that of every random set."
        )
    if not parts:
        return "Through the features", "No share could be measured for any emotion."
    return "Through the features", " ".join(parts)


def _random(table: pd.DataFrame) -> tuple[str, str] | None:
    own, _ = share_through(table, "faithfulness")
    whole = table[(table.measure == "completeness") & (table.arm == "chosen")].value.dropna()
    if own.empty or whole.empty:
        return None
    return (
        "Are they the circuit?",
        f"Of what all features together add to the SAE’s error, these alone give "
        f"{number(float(own.value.median()))} (faithfulness; 1 would be all of it), and everything "
        f"but them still gives {number(float(whole.median()))} (completeness; 0 would mean that "
        "nothing else carries it; medians over emotions).",
    )


def _error(table: pd.DataFrame) -> tuple[str, str] | None:
    own = table[(table.measure == "error_share") & table.value.notna()]
    if own.empty:
        return None
    held = own[own.value_low > 0]
    bounded = own[own.value_low.notna()]
    return (
        "What the SAE misses",
        f"Where only the SAE’s error is left in the stream, {number(float(own.value.median()))} of "
        f"the difference is still there (median over {plural(len(own), 'emotion')}). Such a stream "
        "is unlike any that the model saw, and shares need not add up, so this is a sign of what "
        f"features miss and no measure of it. The interval lies above 0 for {len(held)} of "
        f"{len(bounded)}.",
    )


def _reasons(table: pd.DataFrame) -> list[tuple[str, str]]:
    lost = table[table.value.isna() & (table.arm == "chosen") & (table.reason != "")]
    by: dict[str, list[str]] = {}
    for r in lost.drop_duplicates(["emotion", "reason"]).itertuples():
        by.setdefault(str(r.reason), []).append(contrast_label(str(r.emotion)))
    return [(listing(list(dict.fromkeys(names))), why) for why, names in by.items()]


def _table(table: pd.DataFrame) -> Table:
    emotions = list(dict.fromkeys(table.emotion.astype(str)))
    rows = tuple(_row(e, table[table.emotion == e]) for e in emotions)
    heads = (
        Head("Emotion", num=False),
        *(Head(title, "95% interval; random sets") for title, _ in MEASURES.values()),
        Head("In the SAE’s error", "share left"),
        Head("Difference", "nats"),
        Head("Pairs", "scene groups"),
    )
    return Table("Every share of the difference", heads, rows)


def _row(emotion: str, own: pd.DataFrame) -> Row:
    chosen = own[own.arm == "chosen"]
    first: Any = next((chosen if len(chosen) else own).itertuples())
    cells = [_share(own, measure) for measure in MEASURES]
    error: Any = next(own[own.measure == "error_share"].itertuples(), None)
    ends = error if error is not None else first
    cells.append(
        Cell("–")
        if error is None
        else estimate(number(error.value), error.value_low, error.value_high)
    )
    gap = number(ends.denominator)
    cells.append(estimate(gap, ends.denominator_low, ends.denominator_high))
    cells.append(Cell(f"{int(first.n_items)} ({int(first.n_clusters)})"))
    below = plural(int(first.n_features), "feature")
    return Row(contrast_label(emotion), tuple(cells), below=below)


def _share(own: pd.DataFrame, measure: str) -> Cell:
    rows = own[own.measure == measure]
    chosen: Any = next(rows[rows.arm == "chosen"].itertuples(), None)
    if chosen is None:
        return Cell("–")
    if math.isnan(chosen.value):
        return Cell("no value", str(chosen.reason))
    random = rows[rows.arm == "random"].value.dropna()
    note = f"random {number(random.min())}\xa0to\xa0{number(random.max())}" if len(random) else ""
    return estimate(number(chosen.value), chosen.value_low, chosen.value_high, note=note)


def mediation_figures(data: RunData) -> list[FigureSpec]:
    """Measures of the chosen sets beside random ones, and the curve over set sizes."""
    table = data.rows(MEDIATION)
    if table is None or table.value.notna().sum() == 0:
        return []
    return [spec for spec in (_forest(table), _curve(table)) if spec is not None]


def _forest(table: pd.DataFrame) -> FigureSpec:
    emotions = list(dict.fromkeys(table.emotion.astype(str)))
    shown = list(dict.fromkeys(table[table.value.notna()].emotion.astype(str)))
    n = table.groupby("emotion").n_items.max()
    sets = int(table.loc[table["arm"] == "random", "set_index"].nunique())
    names = [*MEASURES, "error_share"]
    title = "How much of an emotion’s difference runs through its features"
    caption = (
        "Share of the readout’s difference between emotional and neutral texts, with its 95% "
        "interval over scene groups (Fieller). Red: chosen features. Grey band: smallest to "
        f"largest of {plural(sets, 'random set')} of as many matched features; its tick is their "
        "mean. 0: nothing runs through the set; 1: all of it (for completeness the reverse). Last "
        "panel: what is there where only the SAE’s error is left in the stream. No share: fewer "
        "than five scene groups, or the difference itself is not away from 0."
    )
    without = plural(len(emotions) - len(shown), "emotion") if len(shown) < len(emotions) else ""

    def draw(*, narrow: bool) -> Figure:
        columns = 2 if narrow else len(names)
        lines = math.ceil(len(names) / columns)
        height = 1.25 + lines * (0.55 + 0.24 * max(2, len(shown)))
        figure = canvas(title, narrow=narrow, height=height)
        grid = panels(figure, len(names), (lines, columns), sharey=True)
        points = {m: _points(table[table.measure == m], shown) for m in names}
        limits = _range([p for own in points.values() for p in own])
        for axes, measure in zip(grid, names):
            head = MEASURES[measure][0] if measure in MEASURES else "SAE’s error"
            dress(axes, subtitle=head, grid="x")
            for edge in (0, 1):
                axes.axvline(edge, color=THEME.muted, linewidth=0.9, linestyle="-:"[edge])
            axes.tick_params(axis="y", length=0)
            draw_points(axes, points[measure], limits)
            if not any(math.isfinite(p.value) for p in points[measure]):
                middle = (sum(limits) / 2, (len(shown) - 1) / 2)
                behind = {"facecolor": THEME.paper, "edgecolor": "none", "pad": 1.5}
                axes.text(
                    *middle, "no share", ha="center", va="center", color=THEME.muted, bbox=behind
                )
        labels = [f"{axis_label(e)} ({int(n[e])})" for e in shown]
        grid[0].set_yticks(range(len(shown)), labels)
        grid[0].set_ylim(len(shown) - 0.4, -0.6)
        said = [
            "share of the difference (pairs in brackets)",
            "line: 95% interval; grey: random sets" + f"; no share: {without}" * bool(without),
        ]
        figure.supxlabel("\n".join(said), fontsize=8.8, color=THEME.muted)
        return figure

    alt = f"Shares with intervals for {plural(len(emotions), 'emotion')}."
    return FigureSpec("mediation", title, caption, alt, draw)


def _points(table: pd.DataFrame, emotions: Sequence[str]) -> list[Point]:
    out = []
    for y, emotion in enumerate(emotions):
        own = table[table.emotion == emotion]
        random = own[own.arm == "random"].value.dropna()
        if len(random):
            band = (float(random.min()), float(random.max()))
            middle = float(random.mean())
            out.append(Point(y, middle, math.nan, math.nan, EFFECT_ARMS["random"], band))
        for r in own[own.arm.isin(["chosen", "all"])].itertuples():
            arm = _LEFT if r.arm == "all" else _CHOSEN
            out.append(Point(y, float(r.value), float(r.value_low), float(r.value_high), arm))
    return out


def _range(points: Sequence[Point]) -> tuple[float, float]:
    """Axis that holds 0, 1 and every value, and intervals up to 1 beyond them."""
    known = [p for p in points if math.isfinite(p.value)]
    values = [p.value for p in known] + [0.0, 1.0]
    ends = [v for p in known for v in (p.low, p.high) if math.isfinite(v)]
    low = max(min([*values, *ends]), min(values) - 1)
    high = min(max([*values, *ends]), max(values) + 1)
    return low - 0.08, high + 0.08


def _curve(table: pd.DataFrame) -> FigureSpec | None:
    """Measures over the size of the set; None with one size."""
    own = table[table.arm.isin(["chosen", "ranked"]) & table.value.notna()]
    own = own[own.measure.isin(MEASURES)]
    if own.n_features.nunique() < 2:
        return None
    emotions = list(dict.fromkeys(own.emotion.astype(str)))
    sizes = sorted({int(n) for n in own.n_features})
    title = "Does a larger set carry more?"
    caption = (
        "Share of the difference over the number of features in the set, best first by the same "
        "contrast. Thin: single emotions (n). Thick: median over those that have a value. Dotted: "
        "1. Control: the random sets of the figure above, at the size of the chosen set (large dot "
        "on the median)."
    )

    def draw(*, narrow: bool) -> Figure:
        shape = (2, 2) if narrow else (1, 4)
        figure = canvas(title, narrow=narrow, height=4.4 if narrow else 2.7)
        for axes, measure in zip(panels(figure, 4, shape, sharey=True), MEASURES):
            _lines(axes, own[own.measure == measure], MEASURES[measure][0], sizes)
        grid = figure.axes
        for axes in grid[:: shape[1]]:
            axes.set_ylabel("share of the difference", fontsize=8.5)
        legend(figure, grid[0], narrow=narrow)
        return figure

    alt = f"Shares over {plural(len(sizes), 'set size')} for {plural(len(emotions), 'emotion')}."
    return FigureSpec("mediation_size", title, caption, alt, draw)


def _lines(axes: Axes, own: pd.DataFrame, head: str, sizes: Sequence[int]) -> None:
    emotions = list(dict.fromkeys(own.emotion))
    dress(axes, subtitle=f"{head} (n = {len(emotions)})")
    axes.axhline(0, color=THEME.muted, linewidth=0.9)
    axes.axhline(1, color=THEME.muted, linewidth=0.9, linestyle=":")
    for i, emotion in enumerate(emotions):
        part = own[own.emotion == emotion].sort_values("n_features")
        label = "one emotion" if i == 0 else "_"
        axes.plot(part.n_features, part.value, color=THEME.faint, linewidth=0.9, label=label)
    middle = own.groupby("n_features").value.median()
    axes.plot(
        middle.index, middle, "o-", color=THEME.red, linewidth=2, markersize=3.5,
        label="median of emotions",
    )  # fmt: skip
    chosen = own[own.arm == "chosen"]
    if len(chosen):
        size = int(chosen.n_features.mode().iloc[0])
        axes.plot([size], [middle[size]], "o", color=THEME.red, markersize=7, label="chosen set")
    axes.set_xlabel("features in the set (log)", fontsize=8.5)
    axes.set_xscale("log")
    axes.set_xticks(list(sizes), [str(s) for s in sizes])
    axes.minorticks_off()
