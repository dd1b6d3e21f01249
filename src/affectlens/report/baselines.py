"""'What simpler methods reach': dense probes, means, neurons and words beside the best feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.words import (
    ALL,
    bounds,
    capital,
    contrast_label,
    count,
    listing,
    number,
    plural,
    spread,
)
from affectlens.features.baseline_columns import (
    EMBEDDING_LAYER,
    LAYERED_METHODS,
    REFERENCE,
    SAE_METHODS,
)
from affectlens.features.validation_records import BaselinesSummary

from .loading import RunData
from .tables import Block, Cell, Head, Mark, Row, Table

BASELINES = "search/baselines"
FOLDS, CONFIRMATION = "folds", "confirmation"

NAMES: dict[str, str] = {
    "sae_latent": "SAE: best single feature",
    "sae_top5": "SAE: mean of five best features",
    "sae_probe_5": "SAE: probe on five best features",
    "sae_probe": "SAE: probe on all features",
    "dense_probe": "dense probe on the activations",
    "dense_probe_chosen_layer": "dense probe, layer chosen inside",
    "difference_of_means": "difference of means",
    "single_neuron": "best single neuron",
    "random_direction": "random direction",
    "tfidf_words": "words alone (TF-IDF)",
    "dense_probe_random_weights": "dense probe, random weights",
    "difference_of_means_random_weights": "difference of means, random weights",
}
"""Methods in the words of the page; an unknown one keeps its own name."""

WORSE, BETTER, SAME = "SAE latent worse", "SAE latent better", "not distinguishable"
TOO_FEW = "too few clusters"

MARKS: dict[str, Mark] = {
    BETTER: "holds",
    WORSE: "fails",
    SAME: "open",
    TOO_FEW: "cannot",
}
"""The verdict as seen by the best feature: it holds against the method, or does not."""

STANDS = {
    WORSE: "separates the texts better",
    BETTER: "separates them less well",
    SAME: "is not shown to separate them better or worse",
}
"""A method against the best feature, in words."""

SIGNS = {WORSE: "▲", BETTER: "▼", SAME: "≈"}
"""Where a method stands against the best feature, in a sign."""

VERDICTS = {
    "reference": "reference",
    BETTER: "below",
    WORSE: "above",
    SAME: "not distinguishable",
    TOO_FEW: "too few scene groups",
}
"""Verdicts as the reader meets them: where the method stands."""

SHOWN = (
    ("tfidf_words", None),
    ("dense_probe", EMBEDDING_LAYER),
    ("single_neuron", "sae"),
    ("difference_of_means", "sae"),
    ("dense_probe", "sae"),
    ("sae_probe", "sae"),
)
"""Columns of the overview: method, and the layer it is read at."""


@dataclass(frozen=True)
class BaselinesSection:
    """The section; `lines` say first where the SAE adds nothing."""

    lines: tuple[str, ...]
    overview: Table
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]


def baselines_section(data: RunData) -> BaselinesSection | None:
    """The section; None if the baselines were not run."""
    table = data.rows(BASELINES)
    if table is None:
        return None
    layer = sae_layer(table)
    targets = list(dict.fromkeys(table["target"].astype(str)))
    return BaselinesSection(
        lines=tuple(_lines(data, targets)),
        overview=_overview(table, targets, layer),
        blocks=tuple(_block(table, target, layer) for target in targets),
        notes=tuple(_notes(data.baselines_summary, table)),
    )


def sae_layer(table: pd.DataFrame) -> int:
    """The block whose output the SAE reads."""
    return int(table.loc[table["method"] == REFERENCE, "layer"].iloc[0])


def main_evaluation(table: pd.DataFrame) -> str:
    """The evaluation with the more clusters: 'folds' if it was made."""
    return FOLDS if (table["evaluated_on"] == FOLDS).any() else CONFIRMATION


def against(data: RunData, target: str, method: str) -> Any:
    """The row of a method at the SAE's layer (or without one) on a target; None if there is none.

    Taken from the evaluation over all clusters, or the one that has an interval.
    """
    table = data.rows(BASELINES)
    if table is None:
        return None
    rows = table[(table["target"] == target) & (table["method"] == method)]
    if method in LAYERED_METHODS:
        rows = rows[rows["layer"] == sae_layer(table)]
    rows = rows[rows["evaluated_on"] == main_evaluation(table[table["target"] == target])]
    return next(rows.itertuples(index=False), None)


def remark(data: RunData, target: str) -> str:
    """How words and a dense probe fare beside the best feature of a target; '' if not run."""
    best, parts = against(data, target, REFERENCE), []
    for method, name in (("tfidf_words", "words alone"), ("dense_probe", "a dense probe")):
        row = against(data, target, method)
        if row is not None and row.verdict in STANDS:
            parts.append(f"{name} {STANDS[row.verdict]} (AUROC {number(row.auroc)})")
    if best is None or not parts:
        return ""
    return f"{listing(parts)} than the best single feature ({number(best.auroc)})"


def verdicts_on(data: RunData, method: str) -> dict[str, str]:
    """Verdict of a method by target; empty if not run."""
    table = data.rows(BASELINES)
    if table is None:
        return {}
    targets = dict.fromkeys(table["target"].astype(str))
    found = {target: against(data, target, method) for target in targets}
    return {target: str(row.verdict) for target, row in found.items() if row is not None}


def _lines(data: RunData, targets: Sequence[str]) -> list[str]:
    lines = []
    if ALL in targets:
        lines.append(_line_all(data))
    emotions = [t for t in targets if t != ALL]
    return [line for line in [*lines, *_lines_emotions(data, emotions)] if line]


def _line_all(data: RunData) -> str:
    best = against(data, ALL, REFERENCE)
    if best is None:
        return ""
    above = _where(data, ALL, WORSE)
    same = _where(data, ALL, SAME)
    text = (
        "Telling emotional from neutral texts, the best single feature reaches AUROC "
        f"{spread(best.auroc, best.low, best.high)}."
    )
    if above:
        text += (
            f" Methods that need no SAE separate better: {listing(above)}. "
            "For telling these texts apart the SAE adds nothing; what a feature may add is a name "
            "and a handle."
        )
    if same:
        text += f" Not distinguishable from it: {listing(same)}."
    open_ = _where(data, ALL, TOO_FEW)
    if open_:
        text += f" Too few scene groups to say: {listing(open_)}."
    if not above and not same and not open_ and _where(data, ALL, BETTER):
        text += " No method without the SAE reaches as much."
    return text


def _where(data: RunData, target: str, verdict: str) -> list[str]:
    """The methods without SAE that have this verdict on a target, with their AUROC."""
    found = []
    for method in ("dense_probe", "difference_of_means", "single_neuron", "tfidf_words"):
        row = against(data, target, method)
        if row is not None and row.verdict == verdict:
            found.append(f"{NAMES[method]} ({number(row.auroc)})")
    return found


def _lines_emotions(data: RunData, emotions: Sequence[str]) -> list[str]:
    if not emotions:
        return []
    lines = []
    for method in ("tfidf_words", "dense_probe"):
        rows = {e: against(data, e, method) for e in emotions}
        verdicts = [r.verdict for r in rows.values() if r is not None]
        if not verdicts:
            continue
        better = [e for e, r in rows.items() if r is not None and r.verdict == BETTER]
        untold = sum(v not in (WORSE, SAME, BETTER) for v in verdicts)
        name = NAMES[method] if method == "tfidf_words" else "a dense probe"
        counted = {
            f"better than the best feature of that emotion for {verdicts.count(WORSE):,}": WORSE,
            f"with no difference shown for {verdicts.count(SAME):,}": SAME,
            f"less well for {len(better):,} ({listing(better)})": BETTER,
        }
        said = [text for text, verdict in counted.items() if verdict in verdicts]
        said += [f"too few scene groups to say for {untold:,}"] if untold else []
        line = (
            f"Telling one emotion from the others, {name} separate"
            f"{'' if method == 'tfidf_words' else 's'} the texts {listing(said)} of "
            f"{plural(len(verdicts), 'emotion')}"
        )
        lines.append(line + ".")
    return lines


def _overview(table: pd.DataFrame, targets: Sequence[str], layer: int) -> Table:
    on = main_evaluation(table)
    rows = table[table["evaluated_on"] == on]
    methods = (_head(method, at, layer) for method, at in SHOWN)
    heads = (Head("Task", num=False), Head("SAE: best single feature", "AUROC"), *methods)
    shown = []
    for target in targets:
        part = rows[rows["target"] == target]
        best = part[part["method"] == REFERENCE]
        if best.empty:
            continue
        cells = [_cell(best.iloc[0]), *(_find(part, m, at, layer) for m, at in SHOWN)]
        shown.append(Row(contrast_label(target), tuple(cells)))
    return Table("AUROC on texts that were not fitted", heads, tuple(shown))


def _head(method: str, at: object, layer: int) -> Head:
    name = {"dense_probe": "Dense probe", "tfidf_words": "Words alone (TF-IDF)"}.get(
        method, f"{NAMES[method][:1].upper()}{NAMES[method][1:]}"
    )
    unit = {"sae": f"layer {layer}", EMBEDDING_LAYER: "embedding"}.get(at, "")
    return Head(name, unit)


def _find(part: pd.DataFrame, method: str, at: object, layer: int) -> Cell:
    rows = part[part["method"] == method]
    if at is not None:
        rows = rows[rows["layer"] == (layer if at == "sae" else at)]
    return Cell("–") if rows.empty else _cell(rows.iloc[0])


def _cell(row: Any) -> Cell:
    title = f"{bounds(row.low, row.high).strip()} {VERDICTS.get(row.verdict, row.verdict)}"
    sign = SIGNS.get(row.verdict, "")
    text = f"{number(row.auroc)}\xa0{sign}" if sign else number(row.auroc)
    return Cell(text, title.strip(), MARKS.get(row.verdict))


def _block(table: pd.DataFrame, target: str, layer: int) -> Block:
    on = main_evaluation(table[table["target"] == target])
    part = table[(table["target"] == target) & (table["evaluated_on"] == on)]
    other = CONFIRMATION if on == FOLDS else FOLDS
    beside = table[(table["target"] == target) & (table["evaluated_on"] == other)]
    index = {_key(r): r for r in beside.itertuples(index=False)}
    rows = [
        _method_row(r, index.get(_key(r))) for r in part.itertuples(index=False) if _shown(r, layer)
    ]
    first = next(part.itertuples(index=False))
    without = part[~part["method"].isin(SAE_METHODS)]
    above = int((without["verdict"] == WORSE).sum())
    summary = (
        f"{count(first.n_pairs)} pairs in {count(first.n_clusters)} scene groups; "
        f"{above:,} of {len(without):,} readings without the SAE lie above its best feature"
    )
    heads = (
        Head("Method", num=False),
        Head("AUROC", "95% interval"),
        Head("Pairs higher", "share, 95% interval"),
        Head("Minus best feature", "AUROC, 95% interval"),
        Head("Verdict", num=False),
        Head("AUROC, confirmation", "the very features of this run"),
    )
    return Block(capital(contrast_label(target)), summary, Table("", heads, tuple(rows)))


def _key(row: Any) -> tuple[str, str]:
    return str(row.method), str(row.layer)


def _shown(row: Any, layer: int) -> bool:
    """Layered methods at the SAE's layer and at the embedding; the figure shows the others."""
    return row.method not in LAYERED_METHODS or row.layer in (layer, EMBEDDING_LAYER)


def _method_row(row: Any, beside: Any) -> Row:
    own = row.method == REFERENCE
    minus = "–" if own else number(row.minus_sae, sign=True)
    cells = (
        Cell(spread(row.auroc, row.low, row.high)),
        Cell(spread(row.paired_accuracy, row.paired_low, row.paired_high)),
        Cell(minus + ("" if own else bounds(row.minus_sae_low, row.minus_sae_high))),
        Cell(_verdict(row.verdict), mark=MARKS.get(row.verdict), num=False),
        Cell("–" if beside is None else spread(beside.auroc, beside.low, beside.high)),
    )
    return Row(f"{NAMES.get(row.method, str(row.method))} · {_place(row)}", cells)


def _verdict(verdict: str) -> str:
    return f"{SIGNS.get(verdict, '')} {VERDICTS.get(verdict, verdict)}".strip()


def _place(row: Any) -> str:
    if pd.isna(row.layer):
        return "text" if row.method == "tfidf_words" else "several layers"
    return "embedding" if row.layer == EMBEDDING_LAYER else f"layer {int(row.layer)}"


def _notes(s: BaselinesSummary | None, table: pd.DataFrame) -> list[str]:
    notes = [
        "“Any emotion” is emotional against neutral texts; an emotion is its emotional texts "
        "against those of the other emotions. Intervals are from resampling scene groups; "
        "verdicts are at 95% each, not adjusted for their number.",
    ]
    if (table["target"] != ALL).any():
        notes.append(
            "The texts of one emotion also share topics. Methods here see whole texts, so their "
            "topic helps words and probes; the features were chosen on differences between twins, "
            "where it cancels."
        )
    if ((table["low"] == 1) & (table["high"] == 1)).any():
        notes.append(
            "An interval of 1.00 to 1.00 only says that no text was on the wrong side: resampling "
            "a handful of scene groups cannot show how sure that is."
        )
    if main_evaluation(table) == FOLDS:
        notes.append(
            "Numbers come from a cross-validation over all scene groups, in which features, "
            "probes and words are chosen and fitted anew in every fold. “Confirmation” is fitted "
            "on the discovery scenes alone and judges the features of this run."
        )
    probe = table[(table["method"] == "dense_probe") & (table["layer"] == EMBEDDING_LAYER)]
    if len(probe) and bool((probe["auroc"] == 0.5).all()):
        notes.append(
            "At the embedding every method is at 0.50 by construction: all texts are read at the "
            "same tokens. A feature above it has shown nothing yet."
        )
    if s is not None:
        left = {on: n for on, n in s.n_left_out.items() if n}
        notes += [
            f"{plural(n, 'pair')} left out ({on}), as a copy of a text is on the other side."
            for on, n in left.items()
        ]
        if s.untested:
            notes.append(f"Not tested for want of scene groups: {listing(s.untested)}.")
    return notes
