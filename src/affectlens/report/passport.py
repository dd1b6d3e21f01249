"""The passport: one row a found feature, one mark a test, so that one sees what survives what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from affectlens.display.words import contrast_label, number, plural, probability, share

from .classes import CONTROLS, named, reason
from .loading import RunData, best_first
from .tables import Cell, Head, Mark, Row, Table, mark_of, tally

SAME_BUDGET = "same budget"
"""An SAE of the run's own place beside the null ones; it is no null."""

PAGES_SHOWN = 100
"""Features with a page of their own on the report, the confirmed ones first."""


@dataclass(frozen=True)
class Check:
    """A column of the passport.

    Attributes:
        title: its head.
        unit: what its number is.
        question: what it asks.
        cells: (contrast, feature) to the cell.
    """

    title: str
    unit: str
    question: str
    cells: Mapping[tuple[str, int], Cell]


@dataclass(frozen=True)
class Passport:
    """All found features against all tests that were run.

    Attributes:
        checks: the tests, in the order of the columns.
        confirmed: the features that the scenes kept aside confirmed; None without any.
        others: the other candidates; None without any.
        best: sentence on the feature that holds in most tests; '' without a confirmed one.
    """

    checks: tuple[Check, ...]
    confirmed: Table | None
    others: Table | None
    best: str


def passport(data: RunData) -> Passport | None:
    """Build the passport; None without a search or without anything retained."""
    if data.features is None or not data.features.retained.any():
        return None
    checks = tuple(check for make in _CHECKS if (check := make(data)) is not None)
    found = retained(data)
    sure, rest = ([r for r in found if r[2] is flag] for flag in (True, False))
    links = with_page(data)
    return Passport(
        checks,
        _table("Confirmed on scenes kept aside", sure, checks, links) if sure else None,
        _table("Candidates that were not confirmed", rest, checks, links) if rest else None,
        _best(sure, checks),
    )


def retained(data: RunData) -> list[tuple[str, int, bool]]:
    """(contrast, feature, confirmed) of retained features, contrasts in the order of the search."""
    if data.features is None:
        return []
    table = data.features[data.features.retained]
    rows = []
    for name in dict.fromkeys(table.contrast):
        own = best_first(table[table.contrast == name])
        pairs = zip(own.feature, own.confirmed, strict=True)
        rows += [(str(name), int(feature), bool(sure)) for feature, sure in pairs]
    return rows


def with_page(data: RunData) -> frozenset[int]:
    """Features with a page on the report, which has the id `feature-` and their number."""
    found = retained(data)
    sure = {feature for _, feature, confirmed in found if confirmed}
    order = sorted(dict.fromkeys(f for _, f, _ in found), key=lambda f: f not in sure)
    return frozenset(order[:PAGES_SHOWN])


def interval(low: float, high: float, digits: int = 2) -> str:
    """'(+0.10 to +0.30)'; says so where the design allows no bounds, '' where none are given."""
    if pd.isna(low) or pd.isna(high):
        return ""
    if low == -float("inf") and high == float("inf"):
        return "(no bounds)"
    return f"({number(low, digits, sign=True)} to {number(high, digits, sign=True)})"


def rows_of(table: pd.DataFrame, test: str) -> dict[tuple[str, int, str], Any]:
    """Rows of one test of `validity/tests` by contrast, feature and group."""
    own = table[table.test == test]
    return {(str(r.contrast), int(r.feature), str(r.group)): r for r in own.itertuples()}


def verdict_title(row: Any) -> str:
    """What a pointer over a verdict shows."""
    found = f"{number(row.estimate, sign=True)} {interval(row.low, row.high)}".strip()
    p = "" if pd.isna(row.p) else f"p = {probability(row.p)}"
    n = f"n = {int(row.n)}"
    return "; ".join(part for part in (found, p, n, str(row.note)) if part and part != "–")


def _table(
    caption: str,
    found: list[tuple[str, int, bool]],
    checks: tuple[Check, ...],
    links: frozenset[int],
) -> Table:
    none = Cell("", "this test is not made for this search", "none")
    rows = tuple(
        Row(
            str(feature),
            tuple(check.cells.get((contrast, feature), none) for check in checks),
            below=contrast_label(contrast),
            link=f"feature-{feature}" if feature in links else "",
        )
        for contrast, feature, _ in found
    )
    foot = tuple(Cell(tally(row.cells[i].mark for row in rows)) for i in range(len(checks)))
    heads = (Head("Feature", "found for", num=False), *(Head(c.title, c.unit) for c in checks))
    return Table(f"{caption}: {plural(len(rows), 'feature')}", heads, rows, Row("All", foot))


def _best(found: list[tuple[str, int, bool]], checks: tuple[Check, ...]) -> str:
    """Which confirmed feature holds in most tests; of equals the first."""
    scores = []
    for contrast, feature, _ in found:
        marks = [
            c.cells[(contrast, feature)].mark for c in checks if (contrast, feature) in c.cells
        ]
        held, judged = marks.count("holds"), sum(m in ("holds", "fails", "open") for m in marks)
        scores.append((held, judged, feature, contrast))
    if not scores:
        return ""
    held, judged, feature, contrast = max(scores, key=lambda s: s[0])
    whole = sum(h == j for h, j, _, _ in scores)
    every = (
        "No confirmed feature holds in every test that could be made."
        if not whole
        else f"{plural(whole, 'confirmed feature')} of {len(scores)} "
        f"{'holds' if whole == 1 else 'hold'} in every test that could be made."
    )
    return (
        f"{every} Feature {feature} ({contrast_label(contrast)}) holds in most: {held} of "
        f"{plural(judged, 'test')}."
    )


def _kept_aside(data: RunData) -> Check | None:
    assert data.features is not None  # `passport` checked
    tests = data.table("validity/tests")
    effect = {} if tests is None else rows_of(tests, "effect")
    cells = {}
    for r in data.features[data.features.retained].itertuples():
        key = (str(r.contrast), int(r.feature))
        row = effect.get((*key, "verdict"))
        mark: Mark = "holds" if r.confirmed else "open"
        if mark == "open" and row is not None:
            found = mark_of(str(row.verdict), str(row.note), int(row.n))
            mark = "open" if found == "holds" else found
        title = (
            f"d_z {number(r.confirm_d_z, sign=True)}; p, adjusted "
            f"{probability(r.confirm_p_holm)}, over all searches {probability(r.confirm_p_family)}"
        )
        cells[key] = Cell(number(r.confirm_d_z, sign=True), title, mark)
    question = "Is the effect there on scenes that did not choose the feature?"
    return Check("Kept aside", "d_z", question, cells)


def _specific(data: RunData) -> Check | None:
    table = data.rows("validity/specific")
    if table is None:
        return None
    cells = {}
    own = table[table.part == "confirmation"]
    if own.empty:  # the discovery pairs chose the features, so they cannot judge them
        return None
    for r in own.itertuples():
        text = f"{int(r.n_below)} of {int(r.n_others)}"
        title = f"{text} other emotions surely lower; {r.note}".rstrip("; ")
        cells[(str(r.selected_for), int(r.feature))] = Cell(
            text, title, mark_of(str(r.verdict), str(r.note))
        )
    question = "Does its own emotion raise it more than each other emotion does?"
    return Check("Own emotion only", "others lower", question, cells)


def last_part(table: pd.DataFrame) -> pd.DataFrame:
    """The confirmation part of a table, or discovery where nothing was kept aside."""
    own = table[table.part == "confirmation"]
    return table[table.part == "discovery"] if own.empty else own


def _told(
    test: str, title: str, unit: str, question: str, text: Callable[[dict[str, Any]], str]
) -> Callable[[RunData], Check | None]:
    """A check from `validity/tests`; `text` makes its number from the groups of one feature."""

    def make(data: RunData) -> Check | None:
        table = data.table("validity/tests")
        rows = {} if table is None else rows_of(table, test)
        groups: dict[tuple[str, int], dict[str, Any]] = {}
        for (contrast, feature, group), row in rows.items():
            groups.setdefault((contrast, feature), {})[group] = row
        cells = {}
        for key, own in groups.items():
            row = own["verdict"]
            mark = mark_of(str(row.verdict), str(row.note), int(row.n))
            cells[key] = Cell("" if int(row.n) == 0 else text(own), verdict_title(row), mark)
        return Check(title, unit, question, cells) if cells else None

    return make


def _dose(own: dict[str, Any]) -> str:
    return share(own["monotone_share"].estimate) if "monotone_share" in own else ""


def _discriminant(own: dict[str, Any]) -> str:
    value = own["share_of_effect"].estimate if "share_of_effect" in own else float("nan")
    return "" if pd.isna(value) else f"{number(value, 1, sign=True)}×"


def _person(own: dict[str, Any]) -> str:
    if not {"first", "third"} <= set(own):
        return ""
    low, high = sorted((own["first"].estimate, own["third"].estimate))
    return share(low / high) if high > 0 else ""


def _paraphrase(own: dict[str, Any]) -> str:
    if "change" not in own:
        return ""
    told = own["verdict"].estimate
    before = told - own["change"].estimate
    return share(told / before) if before > 0 else ""


def _domains(own: dict[str, Any]) -> str:
    return share(own["share_rising"].estimate) if "share_rising" in own else ""


def _transfer(data: RunData) -> Check | None:
    table = data.table("validity/transfer")
    own = None if table is None else table[table.direction == "to_keywords"]
    if own is None or own.empty:
        return None
    cells = {}
    for r in own.itertuples():
        mark: Mark = "holds" if r.transfers else "fails" if r.high < 0.5 else "open"
        title = (
            f"AUROC {number(r.auroc)} {interval(r.low, r.high)}; p, adjusted "
            f"{probability(r.p_holm)}; {int(r.n_own)} own texts against {int(r.n_other)}"
        )
        cells[(str(r.emotion), int(r.feature))] = Cell(number(r.auroc), title, mark)
    question = "Does it tell texts that name its emotion from texts that name others?"
    return Check("Named emotion", "AUROC", question, cells)


def _lexical(data: RunData) -> Check | None:
    table = data.rows(CONTROLS)
    if table is None:
        return None
    marks: dict[str, Mark] = {"contextual": "holds", "lexical": "fails"}
    cells = {
        (str(r.contrast), int(r.feature)): Cell(
            str(r.kind), f"{r.kind}: {reason(str(r.why))}", marks.get(str(r.kind), "open")
        )
        for r in named(table).itertuples()
    }
    question = "Is there more to it than the words, whatever their order?"
    return Check("More than words", "class", question, cells)


def _stability(data: RunData) -> Check | None:
    table = data.table("validity/stability")
    own = None if table is None else table[table.kind != "layer"]
    if own is None or own.empty:
        return None
    cells = {}
    for (contrast, feature), rows in own.groupby(["contrast", "feature"], sort=False):
        again, n = int(rows.recurs.sum()), len(rows)
        # A wider or otherwise made SAE may split a latent, so only a like one can speak against it.
        alike = rows.kind.isin(["seed", "training"]).any()
        mark: Mark = "holds" if again == n else "fails" if not again and alike else "open"
        best = f"best cosines {', '.join(number(c) for c in rows.cosine)}"
        cells[(str(contrast), int(feature))] = Cell(f"{again} of {n}", best, mark)
    question = "Is there the same feature in other SAEs read at the same place?"
    return Check("Other SAEs", "found again", question, cells)


def _null_saes(data: RunData) -> Check | None:
    table = data.table("search/null_latents")
    own = None if table is None else table[table.p_null.notna() & (table.sae != SAME_BUDGET)]
    if own is None or own.empty:
        return None
    cells = {}
    for (contrast, feature), rows in own.groupby(["contrast", "feature"], sort=False):
        cannot = (1 / (1 + rows.n_others) > data.level).any()
        mark: Mark = (
            "cannot" if cannot else "holds" if (rows.p_null <= data.level).all() else "open"
        )
        each = [
            f"{r.sae}, read by {r.pooling}: {int(r.n_reaching)} of {int(r.n_others)} reach it"
            for r in rows.itertuples()
        ]
        most = share(rows.share_reaching.max())
        cells[(str(contrast), int(feature))] = Cell(most, "; ".join(each), mark)
    question = (
        "Is its effect larger than those found in SAEs of a random model or of token embeddings?"
    )
    return Check("Null SAEs", "that reach it", question, cells)


_CHECKS: tuple[Callable[[RunData], Check | None], ...] = (
    _kept_aside,
    _lexical,
    _specific,
    _told("dose", "Dose", "scenes in order",
          "Does it rise from neutral to moderate and again to clinical tellings?", _dose),
    _told("discriminant", "Complex neutral", "rise / effect",
          "Does it stay down on texts that are complex but neutral?", _discriminant),
    _told("person", "Person", "weaker / stronger",
          "Is the effect there in the first and in the third person?", _person),
    _told("paraphrase", "Paraphrase", "effect left",
          "Is the effect there when the pair is told in other words?", _paraphrase),
    _told("domains", "Domains", "rising",
          "Does it rise in most domains, with none that carries it?", _domains),
    _transfer,
    _stability,
    _null_saes,
)  # fmt: skip
