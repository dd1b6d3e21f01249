"""Tables of the validity section, formatted; every number is also in `validity/*.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from affectlens.display.words import contrast_label, number, plural, probability, share

from .loading import RunData
from .passport import interval, last_part, retained, rows_of, verdict_title
from .tables import Cell, Head, Row, Table, mark_of, words

DIRECTIONS = ("to_keywords", "from_keywords")
"""Ways in which features are carried between texts without and with emotion words."""

_VERDICT = Head("Verdict", num=False)


def specific_table(data: RunData) -> Table | None:
    """Own emotion against the closest other one, one row a feature of an emotion."""
    specific, others = data.rows("validity/specific"), data.table("validity/others")
    if specific is None or others is None:
        return None
    index = {
        (r.part, str(r.selected_for), int(r.feature), str(r.other)): r for r in others.itertuples()
    }
    found = {
        (str(r.selected_for), int(r.feature)): int(r.n_below)
        for r in specific[specific.part == "discovery"].itertuples()
    }
    rows = []
    for r in _in_order(data, last_part(specific), "selected_for"):
        key = (str(r.selected_for), int(r.feature))
        near = index.get((r.part, *key, str(r.closest)))
        rows.append(
            Row(
                str(key[1]),
                (
                    words(str(r.closest)),
                    Cell("–" if near is None else number(near.difference, sign=True)),
                    Cell("" if near is None else interval(near.low, near.high)),
                    Cell(f"{int(r.n_below)} of {int(r.n_others)}"),
                    Cell(f"{found[key]} of {int(r.n_others)}" if key in found else "–"),
                    _judged(r),
                ),
                below=key[0],
            )
        )
    heads = (
        Head("Feature", "chosen for", num=False),
        Head("Closest other emotion", num=False),
        Head("Own minus other", "activation"),
        Head("Limits"),
        Head("Others surely lower"),
        Head("In discovery"),
        _VERDICT,
    )
    part = "kept aside" if (specific.part == "confirmation").any() else "discovery"
    return Table(f"Own emotion against each other one, scenes {part}", heads, tuple(rows))


def _judged(row: Any) -> Cell:
    """Verdict on one emotion; none where the pairs that chose the feature would have to judge."""
    if row.part != "confirmation":
        return words("–", "these scenes chose the feature")
    return Cell("", str(row.note), mark_of(str(row.verdict), str(row.note)), num=False)


def lines_table(data: RunData, test: str) -> Table | None:
    """All lines of one test of `validity/tests` but the single domains.

    Features that so few texts cannot test are counted in the caption. None if no row is left.
    """
    tests = data.table("validity/tests")
    if tests is None or test not in _LINES:
        return None
    index = rows_of(tests, test)
    title, verdict, lines = _LINES[test]
    rows, left_out = [], 0
    for contrast, feature, _ in retained(data):
        row = index.get((contrast, feature, "verdict"))
        if row is None:
            continue
        mark = mark_of(str(row.verdict), str(row.note), int(row.n))
        if mark == "cannot":
            left_out += 1
            continue
        cells = [_estimate(row, digits=2)]
        cells += [_line(index.get((contrast, feature, group)), kind) for group, _, kind in lines]
        cells.append(Cell("", verdict_title(row), mark, num=False))
        rows.append(Row(str(feature), tuple(cells), below=contrast_label(contrast)))
    if not rows:
        return None
    heads = (
        Head("Feature", "found for", num=False),
        Head(verdict),
        *(Head(name) for _, name, _ in lines),
        _VERDICT,
    )
    if left_out:
        title += f"; {plural(left_out, 'feature')} with too few texts left out"
    return Table(title, heads, tuple(rows))


_LINES: dict[str, tuple[str, str, tuple[tuple[str, str, str], ...]]] = {
    "dose": (
        "Neutral, moderate and clinical telling of the same scene (activation)",
        "Rise per step",
        (
            ("neutral_to_moderate", "Neutral to moderate", "estimate"),
            ("moderate_to_clinical", "Moderate to clinical", "estimate"),
            ("monotone_share", "Scenes in order", "share"),
        ),
    ),
    "discriminant": (
        "Complex neutral texts against the neutral twins (activation)",
        "Rise on complex neutral",
        (("share_of_effect", "Of the emotional effect", "times"),),
    ),
    "person": (
        "Effect by person of the telling (activation)",
        "First minus third",
        (("first", "First person", "estimate"), ("third", "Third person", "estimate")),
    ),
    "paraphrase": (
        "Effect when both texts are told in other words (activation)",
        "Effect, paraphrased",
        (
            ("change", "Change", "estimate"),
            ("correlation", "Correlation over pairs", "number"),
            ("same_sign", "Same side", "share"),
        ),
    ),
    "domains": (
        "Effect over the domains of life that the scenes come from (activation)",
        "Smallest with one left out",
        (
            ("share_rising", "Domains that rise", "share"),
            ("weakest", "Weakest domain", "number"),
        ),
    ),
}
"""Test: caption, head of its verdict's estimate, and its other lines (group, head, how shown)."""


def dimension_table(data: RunData) -> Table | None:
    """Features that follow valence or arousal better than other orders of the emotions would."""
    table = data.rows("validity/dimensions")
    if table is None:
        return None
    own = last_part(table)
    own = own[own.p_emotions <= data.level]
    rows = tuple(
        Row(
            str(int(r.feature)),
            (
                words(str(r.dimension)),
                _estimate(r),
                Cell(probability(r.p_emotions)),
                Cell(probability(r.p)),
                Cell(share(r.share)),
            ),
            below=contrast_label(str(r.contrast)),
        )
        for r in own.sort_values("p_emotions", kind="stable").itertuples()
    )
    heads = (
        Head("Feature", "found for", num=False),
        Head("Dimension", num=False),
        Head("Per step", "activation"),
        Head("p over orders of emotions"),
        Head("p over scenes"),
        Head("Of what differs between emotions"),
    )
    caption = f"Features that follow valence or arousal (p ≤ {data.level:g}, not corrected)"
    return Table(caption, heads, rows)


def rollup_table(data: RunData) -> Table | None:
    """Categories of Ekman and Parrott, with the features that stand out in each."""
    table = data.rows("validity/rollups")
    if table is None:
        return None
    own, rows = last_part(table), []
    for (scheme, category), part in own.groupby(["scheme", "category"], sort=False):
        hits = part[(part.p_holm <= data.level) & (part.specificity > 0)]
        hits = hits.sort_values("p_holm", kind="stable").drop_duplicates("feature")
        named = ", ".join(str(int(f)) for f in hits.feature)
        rows.append(
            Row(
                str(category),
                (
                    words({"ekman": "Ekman", "parrott": "Parrott"}.get(str(scheme), str(scheme))),
                    words(str(part.emotions.iloc[0]).replace(",", ", ")),
                    Cell(f"{int(part.n_own.iloc[0])} / {int(part.n_rest.iloc[0])}"),
                    Cell(f"{len(hits)} of {part.feature.nunique()}"),
                    words(named or "none"),
                ),
            )
        )
    heads = (
        Head("Category", num=False),
        Head("Scheme", num=False),
        Head("Emotions", num=False),
        Head("Units in / out"),
        Head("Features above"),
        Head("Which", num=False),
    )
    caption = (
        "The same features by the categories of other schemes (above: p ≤ "
        f"{data.level:g}, corrected over all searches and categories)"
    )
    return Table(caption, heads, tuple(rows))


def transfer_table(data: RunData) -> Table | None:
    """Keyword transfer both ways, one row an emotion."""
    table = data.rows("validity/transfer_summary")
    if table is None:
        return None
    index = {(str(r.emotion), str(r.direction)): r for r in table.itertuples()}
    rows = tuple(
        Row(emotion, tuple(_carried(index.get((emotion, way)), data.level) for way in DIRECTIONS))
        for emotion in dict.fromkeys(str(e) for e in table.emotion)
    )
    heads = (
        Head("Emotion", num=False),
        Head("Without to with", "features that hold, mean AUROC"),
        Head("With to without", "features that hold, mean AUROC"),
    )
    caption = "From texts without emotion words to texts with them, and back"
    return Table(caption, heads, rows, stack=False)


def _carried(row: Any, alpha: float) -> Cell:
    if row is None or not int(row.n_features):
        return Cell("–", "" if row is None else str(row.note))
    if row.min_p * row.n_features > alpha:
        least = probability(row.min_p * row.n_features)
        return Cell("too few texts", f"the smallest adjusted p is {least}")
    said = f"{int(row.n_transfer)} of {int(row.n_features)}, {number(row.mean_auroc)}"
    return Cell(said, str(row.note))


def shrinkage_table(data: RunData) -> Table | None:
    """How much of an effect is left on the scenes kept aside, one row a search."""
    table = data.rows("validity/shrinkage")
    if table is None:
        return None
    rows = tuple(
        Row(
            contrast_label(str(r.contrast)),
            (
                Cell(number(r.discovery_d_z, sign=True)),
                Cell(number(r.confirmation_d_z, sign=True)),
                Cell(share(r.kept)),
                Cell(number(r.spearman)),
                Cell(f"{int(r.overlap)} of {int(r.k)}"),
                Cell(number(r.expected, 1)),
                Cell(probability(r.p)),
            ),
        )
        for r in table.itertuples()
    )
    heads = (
        Head("Search", num=False),
        Head("d_z, discovery"),
        Head("d_z, kept aside"),
        Head("Left"),
        Head("Rank correlation", "all tested"),
        Head("In both best lists"),
        Head("By chance"),
        Head("p"),
    )
    return Table("Median effect of the candidates, and agreement of the two parts", heads, rows)


def _in_order(data: RunData, table: pd.DataFrame, contrast: str) -> Sequence[Any]:
    """Rows of a table in the order of the passport; features that were not retained last."""
    place = {(c, f): i for i, (c, f, _) in enumerate(retained(data))}
    rows = list(table.itertuples())
    return sorted(
        rows, key=lambda r: place.get((str(getattr(r, contrast)), int(r.feature)), len(place))
    )


def _estimate(row: Any, digits: int = 2) -> Cell:
    limits = interval(row.low, row.high, digits)
    return Cell(f"{number(row.estimate, digits, sign=True)} {limits}".strip())


def _line(row: Any, kind: str) -> Cell:
    if row is None:
        return Cell("–")
    if kind == "estimate":
        return _estimate(row)
    shown = {"share": share, "times": _times}.get(kind, number)
    return Cell(shown(row.estimate), str(row.note))


def _times(value: float) -> str:
    return "–" if pd.isna(value) else f"{number(value, 1, sign=True)}×"
