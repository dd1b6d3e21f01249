"""Figures of the validity section: emotion matrix, own against others, shrinkage."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from affectlens.display.look import THEME, axis_label
from affectlens.display.words import ALL, contrast_label, number, plural, probability

from .heat import Dot, MapRow, heat_map, shares_of_largest
from .loading import RunData
from .passport import last_part, retained
from .theme import FigureSpec, canvas, cloud, dress, legend, panels

ROWS_PER_CONTRAST = 3
"""Confirmed features come first; 'any emotion' may have `ROWS_OF_ALL`."""
ROWS_OF_ALL = 8


def validity_figures(data: RunData) -> list[FigureSpec]:
    """Every figure of the section that the run has data for."""
    specs = [emotion_matrix(data), own_others(data), shrinkage(data)]
    return [spec for spec in specs if spec is not None]


def emotion_matrix(data: RunData) -> FigureSpec | None:
    """Which emotions drive each found feature, with the family-wise test of each cell."""
    table = data.rows("validity/matrix")
    if table is None or data.summary is None:
        return None
    part = last_part(table)
    name = str(part.part.iloc[0])
    rows, hidden = matrix_rows(data, part)
    emotions = list(data.summary.emotions)
    if not rows or not emotions:
        return None
    grid = shares_of_largest(part, rows, emotions)
    found = {w: _significant(table[table.part == w], rows, emotions, data.level) for w in _WHERE}
    dots: dict[tuple[int, int], Dot] = dict.fromkeys(found["discovery"], "ring")
    dots |= dict.fromkeys(found["confirmation"], "dot")
    title = "A feature of one emotion would light up in one column"
    caption = (
        f"Rows: the found features, up to {ROWS_OF_ALL} for any emotion and {ROWS_PER_CONTRAST} "
        f"for each emotion (✓ confirmed{_hidden(hidden)}). Colour and number: emotional minus "
        f"neutral activation on that emotion’s pairs, as a share of the largest in the row, on "
        f"{_WHERE[name]} ({_units(part)} an emotion). Framed: the emotion that the feature was "
        f"chosen for. These pairs differ from all others, corrected over the table (max-T, "
        f"p ≤ {data.level:g}), in {plural(len(found['confirmation']), 'cell')} on the scenes kept "
        f"aside (dot) and in {len(found['discovery'])} on the discovery scenes (ring), which "
        f"also chose the features. {_out_of_reach(table, data.level)}A bright cell without a dot "
        "proves nothing."
    )

    def draw(*, narrow: bool) -> Figure:
        figure = canvas(title, narrow=narrow, height=1.7 + 0.25 * len(rows))
        axes = figure.add_subplot()
        subtitle = "" if narrow else f"{_WHERE[name]}; control: the neutral twin"
        dress(axes, subtitle=subtitle, grid="")
        heat_map(axes, grid, rows, emotions, narrow=narrow, dots=dots)
        return figure

    alt = f"Heat map of {len(rows)} features by {len(emotions)} emotions; {len(dots)} cells pass."
    return FigureSpec("emotion_matrix", title, caption, alt, draw)


_WHERE = {"confirmation": "the scenes kept aside", "discovery": "the discovery scenes"}


def matrix_rows(data: RunData, part: pd.DataFrame) -> tuple[list[MapRow], int]:
    """The rows that are drawn and how many are not; confirmed first within a contrast."""
    measured = set(zip(part.selected_for.astype(str), part.feature.astype(int), strict=True))
    found = [row for row in retained(data) if row[:2] in measured]
    rows: list[MapRow] = []
    for contrast in dict.fromkeys(c for c, _, _ in found):
        own = [row for row in found if row[0] == contrast]
        rows += own[: ROWS_OF_ALL if contrast == ALL else ROWS_PER_CONTRAST]
    return rows, len(found) - len(rows)


def own_others(data: RunData) -> FigureSpec | None:
    """Own emotion minus each other one with limits; None where the design gives no limits."""
    table = data.rows("validity/others")
    if table is None:
        return None
    part = last_part(table)
    leaders: dict[str, int] = {}
    for contrast, feature, _ in retained(data):
        if ((part.selected_for == contrast) & (part.feature == feature)).any():
            leaders.setdefault(contrast, feature)
    if not leaders or not np.isfinite(part.low.to_numpy(dtype=float)).any():
        return None
    where = _WHERE[str(part.part.iloc[0])]
    strict = float(part.level.max())
    title = "Own emotion against each other one"
    caption = (
        f"The leading feature of each emotion on {where}: its own mean difference minus that of "
        f"each other emotion, with limits at level {strict:.1%}, so strict that all of a panel may "
        "be read together. A feature is specific only if every line lies right of zero. A line "
        "with an arrow has no limit on that side: too few scenes."
    )

    def draw(*, narrow: bool) -> Figure:
        columns = min(2 if narrow else 4, len(leaders))
        lines = math.ceil(len(leaders) / columns)
        figure = canvas(title, narrow=narrow, height=0.9 + 1.85 * lines)
        grid = panels(figure, len(leaders), (lines, columns))
        for axes, (emotion, feature) in zip(grid, leaders.items()):
            own = part[(part.selected_for == emotion) & (part.feature == feature)]
            _against(axes, own, f"{axis_label(emotion)} · {feature}")
        return figure

    alt = f"Differences with limits for {plural(len(leaders), 'feature')}."
    return FigureSpec("own_others", title, caption, alt, draw)


def _against(axes: Axes, own: pd.DataFrame, name: str) -> None:
    dress(axes, subtitle=name, grid="x")
    axes.axvline(0, color=THEME.muted, linewidth=0.9)
    shown = own[["difference", "low", "high"]].to_numpy(dtype=float)
    finite = shown[np.isfinite(shown)]
    reach = 1.15 * max(float(np.abs(finite).max()) if len(finite) else 0.0, 1e-9)
    for y, r in enumerate(own.itertuples()):
        colour = THEME.red if r.low > 0 else THEME.blue if r.high < 0 else THEME.muted
        low, high = max(float(r.low), -reach), min(float(r.high), reach)
        axes.plot([low, high], [y, y], color=colour, linewidth=1.4)
        for open_, x, marker in ((r.low < -reach, low, "<"), (r.high > reach, high, ">")):
            if open_:
                axes.plot(x, y, marker, color=colour, markersize=4)
        filled = colour if r.low > 0 else THEME.paper
        axes.plot(r.difference, y, "o", markersize=5, color=colour, markerfacecolor=filled)
    axes.set_xlim(-1.04 * reach, 1.04 * reach)
    axes.set_yticks(range(len(own)), [axis_label(str(o)) for o in own.other])
    axes.set_ylim(len(own) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def shrinkage(data: RunData) -> FigureSpec | None:
    """Effect in discovery against confirmation: every feature, and the found ones by search."""
    table = data.rows("validity/shrinkage")
    if table is None or data.features is None:
        return None
    own = data.features[data.features.contrast == ALL]
    points = own[np.isfinite(own.d_z) & np.isfinite(own.confirm_d_z)]
    lines = table[np.isfinite(table.discovery_d_z) & np.isfinite(table.confirmation_d_z)]
    if points.empty and lines.empty:
        return None
    title = "What is left of an effect on scenes that did not choose it"
    caption = (
        "Left: every feature tested for any emotion, effect size on the discovery scenes against "
        "the scenes kept aside; on the dotted line nothing is lost. Right: median effect of the "
        "candidates of each search before and after. A line that falls to zero is a search that "
        "picked chance."
    )

    def draw(*, narrow: bool) -> Figure:
        shape = (2, 1) if narrow else (1, 2)
        figure = canvas(title, narrow=narrow, height=6.6 if narrow else 3.7)
        left, right = figure.subplots(*shape).flat
        _halves(left, points)
        _slopes(right, lines)
        legend(figure, left, narrow=narrow)
        return figure

    kept = ", ".join(
        f"{contrast_label(str(r.contrast))} {number(r.discovery_d_z)} to "
        f"{number(r.confirmation_d_z)}"
        for r in lines.itertuples()
    )
    return FigureSpec("shrinkage", title, caption, f"Median d_z before and after: {kept}.", draw)


def _halves(axes: Axes, points: pd.DataFrame) -> None:
    dress(axes, subtitle=f"n = {plural(len(points), 'feature')}, any emotion")
    groups = (
        (points[~points.retained], THEME.faint, "o", 9, "tested"),
        (points[points.retained & ~points.confirmed], THEME.blue, "o", 20, "candidate"),
        (points[points.retained & points.confirmed], THEME.red, "D", 26, "confirmed"),
    )
    for part, colour, marker, size, label in groups:
        cloud(axes, part.d_z, part.confirm_d_z, label, s=size, c=colour, marker=marker, alpha=0.85)
    ends = np.array(axes.get_xlim())
    axes.plot(ends, ends, color=THEME.muted, linestyle=":", linewidth=1)
    axes.axhline(0, color=THEME.faint, linewidth=0.8)
    axes.set_xlim(*ends)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("d_z, discovery")
    axes.set_ylabel("d_z, kept aside")


def _slopes(axes: Axes, lines: pd.DataFrame) -> None:
    dress(axes, subtitle="median of the candidates of each search", grid="y")
    axes.axhline(0, color=THEME.faint, linewidth=0.8)
    for r in lines.itertuples():
        colour = THEME.red if r.contrast == ALL else THEME.blue
        ends = (float(r.discovery_d_z), float(r.confirmation_d_z))
        axes.plot([0, 1], ends, "o-", color=colour, linewidth=1.4, markersize=4)
    ends_ = lines.confirmation_d_z.to_numpy(dtype=float)
    at = _apart(ends_, 0.085 * max(float(np.ptp(axes.get_ylim())), 1e-9))
    for r, end, y in zip(lines.itertuples(), ends_, at):
        axes.plot([1.02, 1.1], [end, y], color=THEME.faint, linewidth=0.6)
        colour = THEME.ink if r.contrast == ALL else THEME.muted
        axes.text(1.12, y, axis_label(str(r.contrast)), va="center", fontsize=8, color=colour)
    axes.set_xlim(-0.12, 1.75)
    axes.set_xticks([0, 1], ["discovery", "kept aside"])
    axes.set_ylabel("d_z")


def _apart(values: npt.NDArray[np.float64], gap: float) -> npt.NDArray[np.float64]:
    """Places as near to `values` as labels of height `gap` allow, in the same order."""
    order = np.argsort(values, kind="stable")
    placed = values[order].astype(float)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed -= float(np.mean(placed - values[order])) if len(placed) else 0.0
    out = np.empty_like(placed)
    out[order] = placed
    return out


def _significant(
    table: pd.DataFrame, rows: list[MapRow], emotions: list[str], alpha: float
) -> set[tuple[int, int]]:
    place = {(c, f): y for y, (c, f, _) in enumerate(rows)}
    hits = table[table.p_fwer <= alpha]
    found: set[tuple[int, int]] = set()
    for r in hits.itertuples():
        y = place.get((str(r.selected_for), int(r.feature)))
        if y is not None and str(r.emotion) in emotions:
            found.add((y, emotions.index(str(r.emotion))))
    return found


def _out_of_reach(table: pd.DataFrame, alpha: float) -> str:
    """Where so few scenes were kept aside that no effect could pass; '' where one could."""
    own = table[table.part == "confirmation"]
    least = float(own.min_p.min()) if len(own) else float("nan")
    if not least > alpha:
        return ""
    return (
        f"No cell can pass on the scenes kept aside, whatever its effect: the smallest p there is "
        f"{probability(least)}. "
    )


def _units(part: pd.DataFrame) -> str:
    seen = sorted({int(n) for n in part.n_pairs})
    return f"{' to '.join(str(n) for n in dict.fromkeys((seen[0], seen[-1])))} pairs"


def _hidden(n: int) -> str:
    return f"; {n} more in validity/matrix.csv" if n else ""
