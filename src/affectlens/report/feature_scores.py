"""The scores of one feature in each contrast that found it: intervals, class, tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.words import capital, contrast_label, number, probability, share

from .classes import FeatureClass
from .feature_slopes import Interval
from .passport import Check
from .tables import MARKS, Mark


@dataclass(frozen=True)
class Score:
    """One number: what it is, its value, and the interval or note below it."""

    name: str
    value: str
    below: str = ""


@dataclass(frozen=True)
class Tested:
    """The outcome of one test: its mark (a class of the page), sign, words, name and number."""

    mark: str
    sign: str
    words: str
    title: str
    text: str


@dataclass(frozen=True)
class ContrastScores:
    """All of one contrast."""

    contrast: str
    title: str
    confirmed: bool
    kind: str
    why: str
    numbers: str
    scores: tuple[Score, ...]
    tests: tuple[Tested, ...]
    interval: Interval


@dataclass(frozen=True)
class ScoreSources:
    """What the scores of all features are made from, read once."""

    classes: Mapping[tuple[str, int], FeatureClass]
    checks: tuple[Check, ...]


def contrast_scores(row: Any, sources: ScoreSources) -> ContrastScores:
    """The scores in one contrast; `row` is the feature's row of `search/features` there."""
    key = (str(row.contrast), int(row.feature))
    verdict = sources.classes.get(key)
    return ContrastScores(
        contrast=key[0],
        title=capital(contrast_label(key[0])),
        confirmed=bool(row.confirmed),
        kind=verdict.kind if verdict else "",
        why=verdict.why if verdict else "",
        numbers=verdict.numbers if verdict else "",
        scores=_scores(row),
        tests=tuple(_tested(c, key) for c in sources.checks if key in c.cells),
        interval=Interval(
            key[0],
            float(row.confirm_mean_diff),
            float(row.confirm_mean_diff_low),
            float(row.confirm_mean_diff_high),
            _whole(row.confirm_n_pairs),
        ),
    )


def gist(scores: ContrastScores) -> str:
    """'d_z +0.77 (+0.51 to +1.06)' of the scenes kept aside, for the folded page."""
    kept = scores.scores[0]
    return f"d_z {kept.value}" + (f" ({kept.below})" if kept.below[:1] in "+−0" else "")


def _scores(row: Any) -> tuple[Score, ...]:
    aside = _whole(row.confirm_n_pairs)
    return (
        Score("d_z, kept aside", number(row.confirm_d_z, sign=True), _ends(row)),
        Score("d_z, discovery", number(row.d_z, sign=True), f"n = {int(row.n_pairs)}, chose it"),
        Score("pairs higher, kept aside", share(row.confirm_auroc_paired), f"n = {aside}"),
        Score(
            "p, adjusted",
            probability(row.confirm_p_holm),
            f"over all searches {probability(row.confirm_p_family)}",
        ),
        Score(
            "specificity, kept aside",
            number(row.confirm_specificity, 3, sign=True),
            "own minus other emotions" if row.contrast != "all" else "equals the difference",
        ),
        Score(
            "active in more of the texts",
            share(row.confirm_presence_diff),
            f"than of their twins; in {share(row.firing_rate_items)} of all",
        ),
    )


def _ends(row: Any) -> str:
    low, high = (number(v, sign=True) for v in (row.confirm_d_z_low, row.confirm_d_z_high))
    if "–" in (low, high):
        return "no interval: too few scene groups"
    return f"{low}\xa0to\xa0{high}"


def _whole(value: float) -> int:
    return 0 if pd.isna(value) else int(value)


def _tested(check: Check, key: tuple[str, int]) -> Tested:
    cell = check.cells[key]
    mark: Mark = cell.mark or "none"
    return Tested(mark, *MARKS[mark], check.title, f"{cell.text} {check.unit}" if cell.text else "")
