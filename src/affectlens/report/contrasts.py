"""The feature tables: every contrast's candidates, with their class and shaded contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from affectlens.display.words import (
    ALL,
    capital,
    contrast_label,
    number,
    plural,
    probability,
    share,
)
from affectlens.features.results import Context

from .classes import FeatureClass, feature_classes
from .limits import limits
from .loading import RunData, best_first

ROWS_SHOWN = 4
SNIPPETS_SHOWN = 3
TOKENS_EACH_SIDE = 14
SHADES = 9
"""Steps of token shading: classes s0 (silent) to s9, as the policy allows no inline style."""


@dataclass(frozen=True)
class Token:
    """A token with its shade (0 to `SHADES`) and activation; its leading space is not shaded."""

    space: str
    text: str
    shade: int
    activation: str


@dataclass(frozen=True)
class Snippet:
    """A place in the corpus where a feature fires."""

    where: str
    tokens: tuple[Token, ...]
    cut_left: bool
    cut_right: bool


@dataclass(frozen=True)
class FeatureRow:
    """One feature of one contrast, formatted; `keys` are the raw values to sort by.

    `verdict` is its class in the lexical controls; None if these were not run.
    """

    feature: int
    confirmed: bool
    d_z: str
    confirm_d_z: str
    confirm_interval: str
    confirm_auroc: str
    confirm_p: str
    firing: str
    snippets: tuple[Snippet, ...]
    keys: tuple[float, ...]
    verdict: FeatureClass | None


@dataclass(frozen=True)
class ContrastBlock:
    """The retained features of one contrast; `limits` says what its tests could have seen."""

    name: str
    label: str
    title: str
    summary: str
    n_confirmed: int
    rows: tuple[FeatureRow, ...]
    note: str
    limits: tuple[str, ...]


def contrast_blocks(data: RunData) -> list[ContrastBlock]:
    """One block for 'all' and one for each emotion, in the order of the search."""
    if data.features is None or data.summary is None:
        return []
    snippets: dict[int, list[Snippet]] = {}
    for context in data.contexts:
        snippets.setdefault(context.feature, []).append(snippet(context))
    firing = {} if data.stats is None else dict(zip(data.stats.feature, data.stats.firing_rate))
    classes = feature_classes(data)
    return [_block(data, name, snippets, firing, classes) for name in [ALL, *data.summary.emotions]]


def _block(
    data: RunData,
    name: str,
    snippets: Mapping[int, list[Snippet]],
    firing: Mapping[int, float],
    classes: Mapping[tuple[str, int], FeatureClass],
) -> ContrastBlock:
    assert data.features is not None and data.summary is not None  # contrast_blocks checked
    own = data.features[(data.features.contrast == name) & data.features.retained]
    table = best_first(own)
    n_confirmed = int(table.confirmed.sum())
    rows = tuple(
        _feature_row(
            row,
            snippets.get(int(row.feature), []),
            firing.get(row.feature),
            classes.get((name, int(row.feature))),
        )
        for row in table.head(max(ROWS_SHOWN, n_confirmed)).itertuples()
    )
    hidden = len(table) - len(rows)
    note = (
        f"{plural(hidden, 'more candidate')}, none confirmed, in search/features.csv."
        if hidden
        else ""
    )
    status = f"{n_confirmed} confirmed" if n_confirmed else "none confirmed"
    label = contrast_label(name)
    title = capital(label) + ": emotional against neutral" * (name == ALL)
    summary = f"{status} of {plural(len(table), 'candidate')}{_kinds(rows)}"
    told = tuple(limits(data, name))
    return ContrastBlock(name, label, title, summary, n_confirmed, rows, note, told)


def _kinds(rows: tuple[FeatureRow, ...]) -> str:
    """', of these 3 contextual, 2 mixed': the confirmed by class; '' without classes."""
    kinds = [row.verdict.kind for row in rows if row.confirmed and row.verdict is not None]
    if not kinds:
        return ""
    named = [f"{kinds.count(kind):,} {kind}" for kind in dict.fromkeys(kinds)]
    return f": {', '.join(named)}"


def _feature_row(
    row: Any, snippets: list[Snippet], firing: float | None, verdict: FeatureClass | None
) -> FeatureRow:
    keys = (
        row.feature,
        row.d_z,
        row.confirm_d_z,
        row.confirm_auroc_paired,
        row.confirm_p_holm,
        float("nan") if firing is None else firing,
    )
    return FeatureRow(
        feature=int(row.feature),
        confirmed=bool(row.confirmed),
        d_z=number(row.d_z, sign=True),
        confirm_d_z=number(row.confirm_d_z, sign=True),
        confirm_interval=_interval(row.confirm_d_z_low, row.confirm_d_z_high),
        confirm_auroc=share(row.confirm_auroc_paired),
        confirm_p=probability(row.confirm_p_holm),
        firing=share(firing),
        snippets=tuple(snippets[:SNIPPETS_SHOWN]),
        keys=tuple(float(k) for k in keys),
        verdict=verdict,
    )


def _interval(low: float, high: float) -> str:
    """'0.41 to 1.13'; '' where a bound is missing or infinite."""
    ends = [number(v, sign=True) for v in (low, high)]
    return "" if "–" in ends else " to ".join(ends)


def snippet(context: Context) -> Snippet:
    """A context cut around its peak, tokens shaded by activation relative to the peak."""
    start = max(0, context.peak - TOKENS_EACH_SIDE)
    stop = min(len(context.tokens), context.peak + TOKENS_EACH_SIDE + 1)
    top = max([a for a in context.activations if a > 0], default=0.0)
    tokens = tuple(
        Token(
            " " if text.startswith(" ") and i else "",
            text.removeprefix(" ").replace("\n", "↵"),
            _shade(value, top),
            number(value),
        )
        for i, (text, value) in enumerate(
            zip(context.tokens[start:stop], context.activations[start:stop])
        )
    )
    where = f"{context.doc_id}, token {context.position}"
    return Snippet(where, tokens, start > 0, stop < len(context.tokens))


def _shade(value: float, top: float) -> int:
    return 0 if not value > 0 or top <= 0 else max(1, min(SHADES, round(SHADES * value / top)))
