"""A table of the page: formatted cells, and marks that can be told apart without colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from affectlens.display.words import number

Mark = Literal["holds", "fails", "open", "cannot", "none"]

MARKS: dict[Mark, tuple[str, str]] = {
    "holds": ("✓", "holds"),
    "fails": ("✗", "fails"),
    "open": ("?", "not shown"),
    "cannot": ("–", "too few texts"),
    "none": ("", "does not apply"),
}
"""Sign and words of each mark. 'open' had the data and did not decide, 'cannot' had too few."""

_SHORT = 16
"""Characters of a note that is kept on one line."""

TOO_FEW = "smallest attainable p"
"""Stands in the note of a verdict that no data of this size could have decided."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what a pointer shows, its mark if a verdict, and a small second line."""

    text: str
    title: str = ""
    mark: Mark | None = None
    num: bool = True
    below: str = ""

    @property
    def sign(self) -> str:
        """The mark's sign; '' without a mark."""
        return MARKS[self.mark][0] if self.mark else ""

    @property
    def words(self) -> str:
        """The mark in words; '' without a mark."""
        return MARKS[self.mark][1] if self.mark else ""


@dataclass(frozen=True)
class Head:
    """Head of a column; `unit` says what its numbers are."""

    text: str
    unit: str = ""
    num: bool = True


@dataclass(frozen=True)
class Row:
    """A row: its name, what stands below the name, a badge, and the id it links to."""

    name: str
    cells: tuple[Cell, ...]
    below: str = ""
    badge: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table; `heads` names the first column and then one for each cell of a row.

    A table that is too wide for a phone is stacked there, a row as a block.
    """

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    foot: Row | None = None
    stack: bool = True


@dataclass(frozen=True)
class Block:
    """A table that is folded below its title; `summary` stands beside the title."""

    title: str
    summary: str
    table: Table


def estimate(shown: str, low: float, high: float, *, note: str = "", title: str = "") -> Cell:
    """A number with its interval, and what stands beside it, on the second line."""
    # A line may break after the interval, not within it.
    ends = "\xa0to\xa0".join(number(v) for v in (low, high))
    note = note.replace(" ", "\xa0") if len(note) <= _SHORT else note
    return Cell(shown, title, below=", ".join(t for t in ("" if "–" in ends else ends, note) if t))


def words(text: str, title: str = "") -> Cell:
    """A cell of words."""
    return Cell(text, title, num=False)


def mark_of(verdict: str, note: str, n: int = 1) -> Mark:
    """The mark of a verdict of the result tables.

    Args:
        verdict: 'holds', 'fails' or 'unknown'.
        note: why; it names the smallest attainable p where the design is too small.
        n: units that were tested.
    """
    if verdict == "holds" or verdict == "fails":
        return "holds" if verdict == "holds" else "fails"
    return "cannot" if n == 0 or TOO_FEW in note else "open"


def tally(marks: Iterable[Mark | None]) -> str:
    """How often each mark was given, as '3 ✓ 1 ✗'; marks that were not given are left out."""
    counts = Counter(mark for mark in marks if mark not in (None, "none"))
    return " ".join(f"{counts[m]}\u00a0{MARKS[m][0]}" for m in MARKS if counts[m])
