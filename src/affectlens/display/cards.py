"""A result in short: what it is, its numbers, its warning, its first rows, what comes next.

One card serves a prompt (`text`) and a notebook (`html`). All that comes from data is made
visible and escaped here and nowhere else. The HTML sets no colour of text or paper, so it reads on
light and dark pages, and it says everything in plain elements, so it survives viewers that drop
styles.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from .words import number, on_one_line, plural, probability, shorten

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 5
"""Rows of a table that a card shows."""
CELL_LIMIT = 60
"""Characters of a cell, and of a warning at a prompt four times as many."""

_LINE = "rgba(127,127,127,.45)"
_CELL = f"padding:.2em .7em;border-bottom:1px solid {_LINE}"
_WARNING = "#d0570f"


@dataclass(frozen=True)
class Rows:
    """The first rows of a table.

    Attributes:
        name: how a user calls the whole table, such as 'found.table'.
        heads: one a column.
        cells: [n_shown][n_columns], numbers already as text.
        right: columns that hold numbers.
        n: rows of the whole table.
    """

    name: str
    heads: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    n: int


def first_rows(
    frame: pd.DataFrame, name: str, columns: Sequence[str] | Mapping[str, str], n: int = ROWS_SHOWN
) -> Rows | None:
    """The first `n` rows of a table; None where it is empty.

    Args:
        frame: the table; columns that it lacks are left out.
        name: how a user calls it.
        columns: its columns to show, or column -> head.
        n: rows.
    """
    heads = dict(columns) if isinstance(columns, Mapping) else {c: c for c in columns}
    heads = {c: head for c, head in heads.items() if c in frame}
    if frame.empty or not heads:
        return None
    part = frame[list(heads)].head(n)
    cells = tuple(
        tuple(cell(column, value) for column, value in zip(heads, row, strict=True))
        for row in part.itertuples(index=False, name=None)
    )
    right = tuple(part[c].dtype.kind in "iuf" for c in heads)
    return Rows(name, tuple(heads.values()), cells, right, len(frame))


def cell(column: str, value: Any) -> str:
    """One value of a table as text; columns whose name says so hold a p."""
    if isinstance(value, str):
        return shorten(on_one_line(value), CELL_LIMIT) or "–"
    if value is None:
        return "–"
    if getattr(value, "dtype", type(value)) in (bool, "bool"):
        return "yes" if value else "no"
    if isinstance(value, float):
        is_p = not {"p", "q"}.isdisjoint(column.split("_"))
        whole = value.is_integer() and abs(value) >= 10
        return probability(value) if is_p else number(value, 0 if whole else 3)
    if isinstance(value, int) or hasattr(value, "bit_count"):
        return f"{value}"
    return shorten(on_one_line(str(value)), CELL_LIMIT)


@dataclass(frozen=True)
class Card:
    """What a result shows of itself; every string may be hostile.

    Attributes:
        kind: name of its class.
        title: what it is, in a phrase.
        facts: name -> value, the main numbers.
        warning: what a reader must know before using it; '' for nothing.
        rows: first rows of its main table.
        calls: code -> what it gives, the next steps.
    """

    kind: str
    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""
    rows: Rows | None = None
    calls: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """A few lines for a prompt or a log; no rows of tables."""
        lines = [f"{self.kind}: {on_one_line(self.title)}"]
        lines += [f"  {on_one_line(k)}: {on_one_line(v)}" for k, v in self.facts.items()]
        if self.warning:
            lines.append(f"  warning: {shorten(on_one_line(self.warning), 4 * CELL_LIMIT)}")
        if self.calls:
            lines.append(f"  next: {on_one_line(', '.join(self.calls))}")
        return "\n".join(lines)

    def html(self) -> str:
        """Escaped HTML of one element, without script and without anything fetched."""
        parts = [f"<p><strong>{escape(self.kind)}</strong>: {_safe(self.title)}</p>"]
        if self.facts:
            items = (
                f'<li><span style="opacity:.75">{_safe(k)}:</span> {_safe(v)}</li>'
                for k, v in self.facts.items()
            )
            parts.append(f'<ul style="margin:.3em 0">{"".join(items)}</ul>')
        if self.warning:
            parts.append(
                f'<p role="note" style="border-left:4px solid {_WARNING};padding:.1em .7em;'
                f'max-width:60em"><strong>Warning.</strong> {_safe(self.warning)}</p>'
            )
        if self.rows is not None:
            parts.append(_table(self.rows))
        if self.calls:
            steps = (
                f"<li><code>{_safe(code)}</code>{f' – {_safe(what)}' if what else ''}</li>"
                for code, what in self.calls.items()
            )
            parts.append(f'<p>Next:</p><ul style="margin:.3em 0">{"".join(steps)}</ul>')
        return f'<div style="line-height:1.45;overflow-x:auto">{"".join(parts)}</div>'


def _safe(text: str) -> str:
    return escape(on_one_line(text), quote=True)


def _table(rows: Rows) -> str:
    def line(tag: str, values: Iterable[str]) -> str:
        sides = ("right" if right else "left" for right in rows.right)
        scope = ' scope="col"' if tag == "th" else ""
        return "".join(
            f'<{tag}{scope} style="text-align:{side};{_CELL}">{_safe(v)}</{tag}>'
            for v, side in zip(values, sides, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows.cells)
    shown = f"first {len(rows.cells)} of " if rows.n > len(rows.cells) else ""
    return (
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f'<caption style="text-align:left;padding:.4em 0"><code>{_safe(rows.name)}</code>, '
        f"{shown}{plural(rows.n, 'row')}</caption>"
        f"<thead><tr>{line('th', rows.heads)}</tr></thead><tbody>{body}</tbody></table>"
    )


class Shown:
    """Shows itself as a card: text at a prompt, escaped HTML in a notebook."""

    @abstractmethod
    def _card(self) -> Card:
        """What is shown; must work for empty tables."""

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()
