"""'Is it the words?': the class of every candidate, and the numbers that put it there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.words import (
    ALL,
    capital,
    contrast_label,
    count,
    listing,
    number,
    plural,
    probability,
    sentence,
    share,
    spread,
)
from affectlens.features.validation_records import ControlsSummary

from .classes import (
    CONTROLS,
    GRAINS,
    KINDS,
    STRICT,
    counted,
    counts,
    named,
    reason,
    strict_lines,
)
from .loading import RunData
from .tables import Block, Cell, Head, Mark, Row, Table

OUTCOMES: dict[str, Mark] = {
    "holds": "holds",
    "opposite": "fails",
    "not shown": "open",
    "low power": "cannot",
    "not testable": "cannot",
}
"""Outcomes on a strict battery, best first, with their marks."""

GRAIN_NAMES = {
    "words": "all words",
    "within_sentences": "words within each sentence",
    "sentences": "order of sentences",
}


@dataclass(frozen=True)
class LexicalSection:
    """The section; `gaps` says what could not be tested and why."""

    lines: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]
    overview: Table
    blocks: tuple[Block, ...]
    grains: Table | None
    gaps: tuple[str, ...]
    how: tuple[tuple[str, str], ...]


def lexical_section(data: RunData) -> LexicalSection | None:
    """The section; None if the controls were not run."""
    table = data.table(CONTROLS)
    if table is None:
        return None
    names = list(dict.fromkeys(table["contrast"].astype(str)))
    return LexicalSection(
        lines=tuple(_lines(data, table)),
        kinds=tuple(KINDS.items()),
        overview=_overview(table, names),
        blocks=tuple(_block(data, table, name) for name in names),
        grains=_grains(data.table(GRAINS), table, _alpha(data)),
        gaps=tuple(_gaps(data, table)),
        how=tuple(_how(data.controls_summary)),
    )


def _lines(data: RunData, table: pd.DataFrame) -> list[str]:
    """The result in a few sentences."""
    n = int(table["confirmed"].sum())
    if n == 0:
        return ["No feature was confirmed, so there is no effect that words could explain."]
    lines = []
    for label, rows in (
        ("for any emotion", table[table["contrast"] == ALL]),
        ("for single emotions", table[table["contrast"] != ALL]),
    ):
        found = {kind: int((rows["class"] == kind).sum()) for kind in KINDS}
        total = int(rows["confirmed"].sum())
        if total:
            lines.append(f"{plural(total, 'confirmed feature')} {label}: {counted(found)}.")
    return [*lines, *strict_lines(data)]


def _overview(table: pd.DataFrame, names: Iterable[str]) -> Table:
    heads = (Head("Contrast", num=False), *(Head(kind.capitalize()) for kind in KINDS))
    rows = []
    for name in names:
        part = table[table["contrast"] == name]
        cells = [Cell(count(int((part["class"] == kind).sum()))) for kind in KINDS]
        rows.append(Row(contrast_label(name), tuple(cells)))
    return Table("Candidates by class", heads, tuple(rows))


def _block(data: RunData, table: pd.DataFrame, name: str) -> Block:
    part = named(table[table["contrast"] == name])
    part = part.sort_values("confirmed", ascending=False, kind="stable")
    confirmed = int(part["confirmed"].sum())
    found = counts(data, name)
    summary = (
        f"{confirmed:,} confirmed: {counted(found)}"
        if confirmed
        else f"none confirmed of {plural(len(part), 'candidate')}"
    )
    strict = _strict_cells(data.table(STRICT), name)
    batteries = list(dict.fromkeys(b for cells in strict.values() for b in cells))
    rows = tuple(_row(r, strict.get(int(r.feature), {}), batteries) for r in part.itertuples())
    return Block(capital(contrast_label(name)), summary, Table("", _heads(batteries), rows))


def _heads(batteries: list[str]) -> tuple[Head, ...]:
    return (
        Head("Feature", num=False),
        Head("Effect", "SD of pairs"),
        Head("Kept when words are shuffled", "share, 95% interval"),
        Head("Shuffling changes it", "p, adjusted"),
        Head("Predicted from words", "share, 95% interval"),
        Head("Words explain", "R², other text"),
        Head("Rest without words", "p, adjusted"),
        Head("Shared words only", "p, adjusted"),
        Head("On words the twin lacks", "activation / tokens"),
        Head("On emotion words", "activation / tokens"),
        *(Head(_short(b), "same words in both") for b in batteries),
    )


def _short(battery: str) -> str:
    return battery.removeprefix("affectlens-")


def _row(r: Any, strict: dict[str, Cell], batteries: list[str]) -> Row:
    cells = (
        Cell(number(r.d, sign=True)),
        Cell(spread(r.kept, r.kept_low, r.kept_high), _off(r)),
        Cell(probability(r.did_p_holm)),
        Cell(spread(r.predicted, r.predicted_low, r.predicted_high)),
        Cell(number(r.r2), f"active in {count(r.n_active)} passages"),
        Cell(probability(r.residual_p_holm)),
        Cell(probability(r.shared_p_holm), str(r.shared_status)),
        Cell(_against(r.mass_only_clinical, r.tokens_only_clinical)),
        Cell(_against(r.mass_emotion, r.tokens_emotion)),
        *(strict.get(b, Cell("–")) for b in batteries),
    )
    why = reason(str(r.why)) if r.confirmed else ""
    return Row(str(int(r.feature)), cells, below=why, badge=str(r.kind))


def _off(r: Any) -> str:
    return "its firing rate changes more than twofold under shuffling" if r.off_distribution else ""


def _against(mass: float, tokens: float) -> str:
    return f"{share(mass)} / {share(tokens)}"


def _strict_cells(table: pd.DataFrame | None, contrast: str) -> dict[int, dict[str, Cell]]:
    found: dict[int, dict[str, Cell]] = {}
    if table is None:
        return found
    for r in table[table["contrast"] == contrast].itertuples(index=False):
        outcome = str(r.outcome)
        text = f"{outcome}, d = {number(r.d, sign=True)}" if pd.notna(r.d) else outcome
        title = (
            f"{plural(int(r.n_pairs), 'pair')}, p adjusted {probability(r.p_holm)}, an effect of "
            f"{number(r.min_detectable)} is seen with power .8"
        )
        cell = Cell(text, title, OUTCOMES.get(outcome))
        found.setdefault(int(r.feature), {})[str(r.battery)] = cell
    return found


def _alpha(data: RunData) -> float:
    """Level of the controls' tests, or of the search."""
    return data.level if data.controls_summary is None else data.controls_summary.alpha


def _grains(table: pd.DataFrame | None, controls: pd.DataFrame, alpha: float) -> Table | None:
    """Median share kept over the confirmed features, by what was put in another order."""
    if table is None:
        return None
    confirmed = controls.loc[controls["confirmed"], ["contrast", "feature"]]
    rows = table.merge(confirmed, on=["contrast", "feature"])
    if rows.empty:
        return None
    heads = (
        Head("Put in another order", num=False),
        Head("Share of the effect kept", "median of confirmed"),
        Head("Effect changes", f"features with p ≤ {alpha:g}, adjusted"),
        Head("Fires more than twice as often or rarely", "features"),
    )
    shown = []
    for grain, part in rows.groupby("grain", sort=False):
        cells = (
            Cell(number(part["kept"].median())),
            Cell(f"{int((part['did_p_holm'] <= alpha).sum()):,} of {len(part):,}"),
            Cell(f"{int(part['off_distribution'].sum()):,} of {len(part):,}"),
        )
        shown.append(Row(GRAIN_NAMES.get(str(grain), str(grain)), cells))
    return Table("The confirmed features under each kind of shuffling", heads, tuple(shown))


def _gaps(data: RunData, table: pd.DataFrame) -> list[str]:
    """What could not be tested, with its reason."""
    lines = []
    for status, rows in table.groupby("shared_status"):
        if status != "tested":
            lines.append(f"Shared words: {_of(rows, table)}: {status}.")
    if len(rare := table[table["r2"].isna()]):
        lines.append(
            f"Regression on words: not possible for {_of(rare, table)}, which are active (or "
            "silent) in too few passages to fit words."
        )
    if len(none := table[table["kept_low"].isna()]):
        lines.append(
            f"Shares: no interval for {_of(none, table)}, whose own effect may be zero here, so a "
            "share of it says little."
        )
    if len(off := table[table["off_distribution"]]):
        lines.append(
            f"Shuffling: {_of(off, table)} fire more than twice as often, or rarely, on shuffled "
            "texts; there shuffling cannot tell a need for meaning from a need for fluent text."
        )
    return [*lines, *_strict_gaps(data.table(STRICT)), *_excluded(data.controls_summary)]


def _of(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    if len(rows) == len(table):
        return f"all {plural(len(table), 'candidate')}"
    return f"{len(rows):,} of {plural(len(table), 'candidate')}"


def _strict_gaps(strict: pd.DataFrame | None) -> list[str]:
    if strict is None or strict.empty:
        return []
    lines = []
    for battery, rows in strict.groupby("battery", sort=False):
        weak = rows[rows["outcome"] == "low power"]
        never = rows[rows["outcome"] == "not testable"]
        parts = []
        if len(weak):
            seen = weak["min_detectable"].replace(float("inf"), float("nan")).min()
            parts.append(
                f"too few pairs to show the effect seen on the battery for {_of(weak, rows)} "
                f"(smallest effect seen: {number(seen)})"
            )
        if len(never):
            parts.append(f"not testable for {_of(never, rows)}")
        if parts:
            lines.append(f"Battery {battery}: {listing(parts)}.")
    return lines


def _excluded(summary: ControlsSummary | None) -> list[str]:
    left = {} if summary is None else {g: n for g, n in summary.n_excluded.items() if n}
    return [
        f"Shuffling, {GRAIN_NAMES.get(grain, grain)}: {plural(n, 'pair')} left out, as a member "
        "has nothing to reorder."
        for grain, n in left.items()
    ]


def _how(s: ControlsSummary | None) -> list[tuple[str, str]]:
    if s is None:
        return []
    part = "scenes kept aside" if s.part == "confirmation" else "all scenes"
    return [
        ("Pairs", f"{count(s.n_pairs)} pairs, {part}"),
        ("Shuffles", f"{listing([GRAIN_NAMES.get(g, g) for g in s.grains])}; {s.n_shuffles} each"),
        (
            "Regression on words",
            f"{count(s.n_words)} words, fitted on {plural(s.n_passages, 'passage')} of corpus "
            f"{s.corpus}; {share(s.unseen_share)} of the battery’s words do not occur there",
        ),
        ("Batteries of equal words", listing(s.strict) or "none"),
        (
            "Limits of a class",
            sentence(
                f"contextual: words explain at most {s.max_r2:g} of the feature; lexical: the "
                f"share that words carry is at least {s.mostly:g} with 95% confidence; tests at "
                f"{s.alpha:g}, Holm-adjusted within a contrast"
            ),
        ),
    ]
