"""The validity section: which findings survive further tests, in sentences and tables."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from affectlens.display.words import contrast_label, listing, number, plural, sentence, share

from . import validity_tables as tables
from .loading import RunData
from .other_saes import comparison_table, stability_table
from .passport import Passport, last_part, passport, retained, rows_of
from .tables import TOO_FEW, Mark, Table, mark_of

_TABLES = ("tests", "shrinkage", "matrix", "specific", "dimensions", "rollups", "transfer_summary",
           "stability", "comparison")  # fmt: skip


@dataclass(frozen=True)
class FurtherTest:
    """One test: what it asks, what came out in a sentence, every feature in a table."""

    title: str
    question: str
    outcome: str
    table: Table | None


@dataclass(frozen=True)
class ValiditySection:
    """All that the section shows; a table is None where its part was not run.

    Attributes:
        leads: what came out, a (title, sentences) each.
        passport: one row a feature; None if nothing was retained.
        specific: own emotion against the others.
        tests: the tests on other texts.
        dimensions: valence and arousal, with its sentence.
        rollups: categories of other schemes.
        transfer: texts with and without emotion words.
        shrinkage: discovery against confirmation.
        stability: how often the found features come again in other SAEs.
        comparison: the same search in other SAEs.
        confounded: how far valence and arousal go together here; '' if not known.
    """

    leads: tuple[tuple[str, str], ...]
    passport: Passport | None
    specific: Table | None
    tests: tuple[FurtherTest, ...]
    dimensions: Table | None
    rollups: Table | None
    transfer: Table | None
    shrinkage: Table | None
    stability: Table | None
    comparison: Table | None
    confounded: str


def validity_section(data: RunData) -> ValiditySection | None:
    """The section; None if there is no search or no table of validity beside it."""
    if data.features is None or all(data.table(f"validity/{name}") is None for name in _TABLES):
        return None
    book = passport(data)
    leads = [_overall(book), _specific(data), _complex(data), _words(data), _shrunk(data)]
    return ValiditySection(
        leads=tuple(lead for lead in leads if lead is not None),
        passport=book,
        specific=tables.specific_table(data),
        tests=tuple(block for name in _TESTS if (block := _block(data, name)) is not None),
        dimensions=tables.dimension_table(data),
        rollups=tables.rollup_table(data),
        transfer=tables.transfer_table(data),
        shrinkage=tables.shrinkage_table(data),
        stability=stability_table(data),
        comparison=comparison_table(data),
        confounded=_confounded(data),
    )


_TESTS = {
    "dose": (
        "Dose: told neutrally, moderately, clinically",
        "The same scene in three strengths. A feature holds if it rises at both steps, and fails "
        "if one step surely holds less than a fifth of the whole rise.",
    ),
    "discriminant": (
        "Complex but neutral texts",
        "Long, involved texts without emotion should leave a feature down. It holds if they surely "
        "rise by less than a fifth of the emotional effect, and fails if they surely rise and not "
        "surely so little. Such texts are of another kind than the neutral twins, so a failure can "
        "mean that a feature answers to the kind of text.",
    ),
    "person": (
        "First and third person",
        "It holds if the effect is there in both.",
    ),
    "paraphrase": (
        "Told in other words",
        "Both texts of a pair are paraphrased. It holds if the effect is there again, and fails if "
        "surely less than a fifth of it is left.",
    ),
    "domains": (
        "Domains of life, one left out in turn",
        "It holds if it rises in most domains and still does with any one left out.",
    ),
}


def _block(data: RunData, name: str) -> FurtherTest | None:
    marks = _marks(data, name)
    if not marks:
        return None
    title, question = _TESTS[name]
    return FurtherTest(title, question, _outcome(marks), tables.lines_table(data, name))


def _marks(data: RunData, test: str) -> dict[tuple[str, int], Mark]:
    table = data.table("validity/tests")
    if table is None:
        return {}
    return {
        (contrast, feature): mark_of(str(r.verdict), str(r.note), int(r.n))
        for (contrast, feature, group), r in rows_of(table, test).items()
        if group == "verdict"
    }


def _outcome(marks: dict[tuple[str, int], Mark]) -> str:
    counts: dict[Mark, int] = {}
    for mark in marks.values():
        counts[mark] = counts.get(mark, 0) + 1
    words: tuple[tuple[Mark, str], ...] = (
        ("holds", "holds for {n}"),
        ("fails", "fails for {n}"),
        ("open", "not shown either way for {n}"),
        ("cannot", "cannot be tested for {n}"),
    )
    said = [text.format(n=counts[mark]) for mark, text in words if mark in counts]
    return sentence(f"{listing(said)}, of {plural(len(marks), 'feature')}")


def _sure(data: RunData) -> list[tuple[str, int]]:
    return [(c, f) for c, f, confirmed in retained(data) if confirmed]


def _overall(book: Passport | None) -> tuple[str, str]:
    if book is None:
        return ("Nothing to test", "The search carried no feature to confirmation.")
    n = len(book.confirmed.rows) if book.confirmed else 0
    if not n:
        return (
            "Nothing was confirmed",
            "The tests below are of candidates that the scenes kept aside did not confirm.",
        )
    return ("What survives", book.best)


def _specific(data: RunData) -> tuple[str, str] | None:
    table = data.rows("validity/specific")
    if table is None:
        return None
    own = table[table.part == "confirmation"]
    sure = [(contrast, feature) in set(_sure(data)) for contrast, feature in _keys(own)]
    own = own[sure]
    if own.empty:
        return None
    held = own[own.verdict == "holds"]
    title = "One emotion only"
    if len(held):
        named = [f"{int(r.feature)} ({r.selected_for})" for r in held.itertuples()]
        return (
            title,
            f"{plural(len(held), 'confirmed feature')} of {len(own)} "
            f"{'is' if len(held) == 1 else 'are'} raised by the own emotion more than by every "
            f"other one: {listing(named)}.",
        )
    said = (
        "No confirmed feature is shown to belong to one emotion: for none of "
        f"{len(own)} do the limits leave out every other emotion."
    )
    notes = own.note.astype(str)
    if notes.str.contains(TOO_FEW, regex=False).all():
        why = notes.iloc[0].rsplit("; ", 1)[-1].removeprefix("too few units: ")
        said += (
            f" These texts could not have shown it: with so few scene groups of each emotion, "
            f"{why}. This is no evidence that the features are general."
        )
    return (title, said)


def _keys(table: pd.DataFrame) -> list[tuple[str, int]]:
    """(contrast, feature) of each row of `validity/specific`."""
    return [(str(r.selected_for), int(r.feature)) for r in table.itertuples()]


def _complex(data: RunData) -> tuple[str, str] | None:
    marks = _marks(data, "discriminant")
    sure = [key for key in _sure(data) if key in marks]
    judged = sure or list(marks)
    if not judged:
        return None
    kind = "confirmed feature" if sure else "candidate"
    counts = {m: sum(marks[k] == m for k in judged) for m in ("fails", "holds")}
    title = "Emotion or kind of text"
    if not counts["fails"]:
        return (
            title,
            f"No {kind} of {len(judged)} surely fires on complex neutral texts; "
            f"{counts['holds']} surely {'stays' if counts['holds'] == 1 else 'stay'} down.",
        )
    return (
        title,
        f"{counts['fails']} of {plural(len(judged), kind)} also "
        f"{'fires' if counts['fails'] == 1 else 'fire'} on complex texts without any emotion: what "
        f"{'it answers' if counts['fails'] == 1 else 'they answer'} to is at least partly the kind "
        f"of text. {counts['holds']} surely {'stays' if counts['holds'] == 1 else 'stay'} down.",
    )


def _words(data: RunData) -> tuple[str, str] | None:
    table = data.rows("validity/transfer_summary")
    if table is None:
        return None
    parts = []
    for direction, text in (
        ("to_keywords", "found on texts without emotion words hold on texts with them"),
        ("from_keywords", "found on texts with them hold without"),
    ):
        own = table[(table.direction == direction) & (table.n_features > 0)]
        able = own[own.min_p * own.n_features <= data.level]
        if able.empty:
            parts.append(f"none {text.replace('hold', 'could be shown to hold')}")
            continue
        parts.append(f"{int(able.n_transfer.sum())} of {int(able.n_features.sum())} {text}")
    return (
        "With and without emotion words",
        sentence(f"Of single-emotion features {'; '.join(parts)}"),
    )


def _shrunk(data: RunData) -> tuple[str, str] | None:
    table = data.table("validity/shrinkage")
    own = None if table is None else table[table.kept.notna()]
    if own is None or own.empty:
        return None
    first = own.iloc[0]
    lost = own[own.kept < 0.5]
    said = (
        f"Of the median effect of the candidates for {contrast_label(str(first.contrast))}, "
        f"{share(float(first.kept))} is left on scenes kept aside (d_z "
        f"{number(float(first.discovery_d_z))} to {number(float(first.confirmation_d_z))})."
    )
    if len(lost):
        named = listing([contrast_label(str(c)) for c in lost.contrast])
        said += f" Less than half is left for {named}."
    return ("Shrinkage", said)


def _confounded(data: RunData) -> str:
    table = data.rows("validity/dimensions")
    if table is None:
        return ""
    r = float(last_part(table).correlation.iloc[0])
    return "" if pd.isna(r) else number(r, sign=True)
