"""The calibration section: how often the search errs on nothing, and what it can see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.words import (
    ALL,
    contrast_label,
    count,
    listing,
    number,
    plural,
    probability,
    sentence,
    share,
)

from .loading import RunData
from .tables import Cell, Head, Row, Table, words

NULLS = {
    "flip_cluster": "members swapped, by scene group",
    "flip_pair": "members swapped, by pair",
    "labels_cluster": "emotions dealt anew, by scene group",
    "labels_pair": "emotions dealt anew, by pair",
    "neutral_cluster": "neutral pairs, by scene group",
    "neutral_pair": "neutral pairs, by pair",
    "spread_cluster": "means taken away, spreads kept, by scene group",
}
"""Each null in words."""

MEASURES = {
    "fwer": "any feature passes max-T",
    "confirmed": "any feature is confirmed",
    "bh": "any feature passes BH",
    "per_test": "features with p at most alpha",
}
"""Each error rate in words."""

VERDICTS = {"outside": "shown", "inside": "not shown"}
"""Whether a rate is shown to be above what is allowed; that it is not shown proves nothing."""

CRITERIA = {"fwer": "max-T", "bh": "BH", "confirmed": "confirmed"}
"""Ways to count a feature as found."""

WHOLE = "family"
"""The contrast that stands for all searches of the run together."""


@dataclass(frozen=True)
class CalibrationSection:
    """What the section shows.

    Attributes:
        leads: what came out, a (title, sentences) each.
        outside: the error rates that are too high; None if none is.
        rates: every error rate.
        detectable: smallest effects found with power .8.
        false: false discovery rate with planted effects.
        skipped: nulls that were not possible, with the reason.
    """

    leads: tuple[tuple[str, str], ...]
    outside: Table | None
    rates: Table | None
    detectable: Table | None
    false: Table | None
    skipped: tuple[tuple[str, str], ...]


def calibration_section(data: RunData) -> CalibrationSection | None:
    """The section; None if no calibration was run."""
    rates, power = data.table("calibration/rates"), data.table("calibration/power")
    if rates is None and power is None:
        return None
    summary = data.calibration_summary
    bad = None if rates is None else rates[rates.verdict == "outside"]
    return CalibrationSection(
        leads=tuple(lead for lead in (_errors(rates), _seen(data), _made(data)) if lead),
        outside=None
        if bad is None or bad.empty
        else _rates("Error rates above what is allowed", bad),
        rates=None if rates is None else _rates("Every error rate", rates),
        detectable=_detectable(data),
        false=None if power is None else _false(power),
        skipped=tuple((null_words(name), sentence(why)) for name, why in summary.skipped.items())
        if summary is not None
        else (),
    )


def null_words(name: str) -> str:
    """A null in words; its name if it is not known."""
    return NULLS.get(name, name)


def where(contrast: str) -> str:
    """The contrast of an error rate in words."""
    return "all searches together" if contrast == WHOLE else contrast_label(contrast)


def effect_in(contrast: object) -> str:
    """Where an effect was planted, in words: the single emotions are taken together."""
    return contrast_label(ALL) if contrast == ALL else "one emotion"


def _errors(rates: pd.DataFrame | None) -> tuple[str, str] | None:
    if rates is None or rates.empty:
        return None
    bad = rates[rates.verdict == "outside"]
    n = len(rates)
    title = "False alarms"
    sets = int(rates.n_sets.max())
    none = rates[rates.rate == 0]
    limit = (
        f" With {plural(sets, 'data set')} of a kind, not one false alarm still allows a rate of "
        + (f"{share(float(none.high.max()))}." if len(none) else "several percent.")
    )
    if bad.empty:
        return (
            title,
            f"None of {n} error rates on data without any effect is shown to be above what is "
            f"allowed.{limit}",
        )
    named = []
    for null, part in bad.groupby("null", sort=False):
        searches = listing(list(dict.fromkeys(where(str(c)) for c in part.contrast)))
        named.append(f"{null_words(str(null))} ({searches})")
    said = (
        f"{len(bad)} of {n} error rates on data without any effect "
        f"{'is' if len(bad) == 1 else 'are'} shown to be too high: {'; '.join(named)}.{limit}"
    )
    if set(bad.null).issubset({"neutral_cluster", "neutral_pair", "spread_cluster"}):
        said += (
            " All of these keep every mean at zero but let one emotion scatter more than "
            "others. An emotion\u2019s test asks for equal distributions, so it is not protected "
            "there."
        )
    return (title, said)


def _seen(data: RunData) -> tuple[str, str] | None:
    table, power = data.rows("calibration/detectable"), data.table("calibration/power")
    if table is None:
        return None
    largest = float(power.d_z.max()) if power is not None and len(power) else float("nan")
    parts = []
    for contrast, part in table.groupby("contrast", sort=False):
        full = part[part.n_pairs_discovery == part.n_pairs_discovery.max()]
        full = full[full.n_clusters_discovery == full.n_clusters_discovery.max()]
        reached = [
            (number(r.detectable) if r.detectable < float("inf") else f"not even {number(largest)}")
            + f" ({CRITERIA.get(str(r.criterion), str(r.criterion))})"
            for r in full.itertuples()
        ]
        what = contrast_label(ALL) if contrast == ALL else "a single emotion"
        parts.append(f"for {what} d_z {listing(reached)}")
    return ("What can be seen", sentence(f"Found four times in five: {'; '.join(parts)}"))


def _made(data: RunData) -> tuple[str, str] | None:
    s = data.calibration_summary
    if s is None:
        return None
    return (
        "How",
        f"{plural(s.n_repeats, 'data set')} of each kind without effect and {s.n_planted} of each "
        f"planted size, {count(s.n_latents)} of {count(s.n_tested)} features drawn each time, "
        f"{count(s.n_permutations)} permutations a search, the same tests, split and correction as "
        f"in this run (alpha {s.alpha:g}).",
    )


def _rates(caption: str, rates: pd.DataFrame) -> Table:
    rows = tuple(
        Row(
            null_words(str(r.null)),
            (
                words(where(str(r.contrast))),
                words(MEASURES.get(str(r.measure), str(r.measure))),
                Cell(f"{share(r.rate)} ({share(r.low)} to {share(r.high)})"),
                Cell(share(r.allowed)),
                Cell(_excess(r)),
                Cell(f"{int(r.n_sets):,}"),
                Cell(
                    VERDICTS.get(str(r.verdict), str(r.verdict)),
                    "",
                    "fails" if r.verdict == "outside" else "open",
                    num=False,
                ),
            ),
        )
        for r in rates.itertuples()
    )
    heads = (
        Head("Data without effect", num=False),
        Head("Search", num=False),
        Head("Error", num=False),
        Head("Rate", "95% limits"),
        Head("Allowed"),
        Head("p of so many"),
        Head("Data sets"),
        Head("Above allowed", num=False),
    )
    return Table(caption, heads, rows)


def _excess(row: Any) -> str:
    return probability(getattr(row, "p_excess", None))


def _detectable(data: RunData) -> Table | None:
    table = data.rows("calibration/detectable")
    if table is None:
        return None
    rows = []
    keys = ["contrast", "n_pairs_discovery", "n_clusters_discovery"]
    for (contrast, pairs, clusters), part in table.groupby(keys, sort=False):
        found = {str(r.criterion): float(r.detectable) for r in part.itertuples()}
        formula = part.formula.dropna()
        cells = [Cell(count(pairs)), Cell(count(clusters))]
        cells += [Cell(_reach(found.get(name))) for name in CRITERIA]
        cells.append(Cell(number(float(formula.iloc[0])) if len(formula) else "–"))
        rows.append(Row(effect_in(contrast), tuple(cells)))
    heads = (
        Head("Effect in", num=False),
        Head("Own pairs", "discovery"),
        Head("Scene groups", "discovery"),
        *(Head(name, "d_z") for name in CRITERIA.values()),
        Head("By formula", "d_z, max-T"),
    )
    return Table("Smallest effect found with power .8", heads, tuple(rows))


def _reach(value: float | None) -> str:
    return "–" if value is None else number(value) if value < float("inf") else "none"


def _false(power: pd.DataFrame) -> Table | None:
    own = power[power.measure.str.startswith("fdr_")]
    if own.empty:
        return None
    rows = []
    for (contrast, measure), part in own.groupby(["contrast", "measure"], sort=False):
        worst = part.loc[part.value.idxmax()]
        criterion = str(measure).removeprefix("fdr_")
        rows.append(
            Row(
                effect_in(contrast),
                (
                    words(CRITERIA.get(criterion, criterion)),
                    Cell(share(part.value.mean())),
                    Cell(f"{share(worst.value)} ({share(worst.low)} to {share(worst.high)})"),
                    Cell(number(worst.d_z)),
                ),
            )
        )
    heads = (
        Head("Effect in", num=False),
        Head("Found by", num=False),
        Head("False share, mean"),
        Head("Worst", "95% limits"),
        Head("At d_z"),
    )
    return Table("Share of false features among those found, with planted effects", heads,
                 tuple(rows))  # fmt: skip


def sizes(power: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Each size of design of one contrast with its name, the largest first."""
    keys = ["n_pairs", "n_clusters"]
    order = power[keys].drop_duplicates().sort_values(keys[::-1], ascending=False)
    for r in order.itertuples():
        part = power[(power.n_pairs == r.n_pairs) & (power.n_clusters == r.n_clusters)]
        yield f"{count(r.n_pairs)} pairs, {count(r.n_clusters)} scene groups", part
