"""The one place that writes to the terminal: text for people, or one JSON object with `--json`."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

_KEPT_CONTROLS = "\n\t"


@dataclass(frozen=True)
class Console:
    """Where a command's result goes.

    Attributes:
        json: results are one JSON object on standard output, and nothing else goes there.
    """

    json: bool = False

    def say(self, text: str = "") -> None:
        """A line for people; nothing with `--json`."""
        if not self.json:
            typer.echo(visible(text))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table for people: columns padded to their width, numbers to the right."""
        if not self.json:
            for line in table_lines(header, rows):
                typer.echo(line)

    def frame(self, table: pd.DataFrame, columns: Sequence[str]) -> None:
        """Some columns of a data frame as a table; a dash for what is missing."""
        part = table[list(columns)].astype(object)
        self.table(columns, part.where(part.notna(), None).to_numpy().tolist())

    def result(self, payload: Mapping[str, Any]) -> None:
        """The machine's answer; nothing without `--json`."""
        if self.json:
            typer.echo(json.dumps(plain(payload), ensure_ascii=False))


def note(text: str) -> None:
    """A line on standard error."""
    typer.echo(visible(text), err=True)


def visible(text: str) -> str:
    """`text` with control, bidirectional and surrogate characters spelled out."""
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char in _KEPT_CONTROLS or unicodedata.category(char) not in ("Cc", "Cf", "Cs"):
        return char
    return f"<U+{ord(char):04X}>"


def table_lines(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table: header, rule, rows."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(header)]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(header))
    ]

    def line(values: Sequence[str]) -> str:
        padded = [
            v.rjust(w) if right else v.ljust(w)
            for v, w, right in zip(values, widths, numeric, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return [line(list(header)), "  ".join("-" * w for w in widths), *map(line, cells)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return visible(str(value)).replace("\n", " ")


def plain(value: Any) -> Any:
    """A JSON-able copy: dataclasses and mappings as objects, paths as text, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, str):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
