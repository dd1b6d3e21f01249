"""Reading the rows of a file, each with its place: JSON lines, CSV, tab-separated text, parquet."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.data.errors import StimulusError


@dataclass(frozen=True)
class Raw:
    """A row as read; `typed` is False where every value is text (CSV, tab-separated)."""

    where: str
    values: Mapping[str, Any]
    typed: bool


@dataclass(frozen=True)
class Table:
    """The rows of one file, the names of its columns in order, and what is odd about the file.

    Of JSON lines, whose rows may differ, the columns are the keys that occur in any row.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Raw, ...]
    warnings: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    """Read one file; the suffix says what it is.

    Raises:
        StimulusError: an unknown suffix, or a file that is not what its suffix says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise StimulusError(
            f"{path}: the suffix {path.suffix!r} is not known; allowed: {', '.join(_READERS)}"
        )
    return reader(path)


def _read_jsonl(path: Path) -> Table:
    rows = tuple(_json_rows(path))
    return Table(path, tuple(dict.fromkeys(key for row in rows for key in row.values)), rows)


def _json_rows(path: Path) -> Iterator[Raw]:
    # Not str.splitlines: U+2028, U+0085 and others are legal inside a JSON string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise StimulusError(
                f"{where}: not a JSON object on one line ({first_line(error)})"
            ) from error
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise StimulusError(f"{where}: a JSON {kind}; each line must be one JSON object")
        yield Raw(where, row, typed=True)


def _read_csv(path: Path) -> Table:
    header, rows = _separated(path, read_text(path), ",", quoted=True)
    return Table(path, header, rows)


def _read_tsv(path: Path) -> Table:
    """Quotes work as in CSV; where they cannot be meant so, they are characters like others.

    They are not meant so if they break a row, or if they join lines that have the right number of
    cells each: two lone quotes would otherwise swallow all rows between them.
    """
    text = read_text(path)
    why = "they join lines that are rows by themselves"
    try:
        header, rows = _separated(path, text, "\t", quoted=True)
        whole = [line for line in text.split("\n") if line.strip("\r")]
        joined = len(whole) > len(rows) + 1
        if not joined or any(line.count("\t") != len(header) - 1 for line in whole):
            return Table(path, header, rows)
    except _BadQuotesError as error:
        why = str(error)
    header, rows = _separated(path, text, "\t", quoted=False)
    return Table(path, header, rows, (f"{path}: quotation marks are read as characters ({why})",))


class _BadQuotesError(StimulusError):
    """Quotes that are no valid CSV."""


def _separated(
    path: Path, text: str, mark: str, *, quoted: bool
) -> tuple[tuple[str, ...], tuple[Raw, ...]]:
    # newline="" keeps line ends inside quoted cells as they are.
    handle = io.StringIO(text, newline="")
    reader = (
        csv.reader(handle, strict=True, delimiter=mark)
        if quoted
        else csv.reader(handle, strict=True, delimiter=mark, quoting=csv.QUOTE_NONE)
    )
    name = "tabs" if mark == "\t" else "commas"
    header: tuple[str, ...] | None = None
    rows = []
    done = 0
    try:
        for cells in reader:
            where = f"{path}, line {done + 1}"
            done = reader.line_num
            if not cells:
                continue
            if header is None:
                header = _header(path, cells)
                continue
            if len(cells) != len(header):
                # An opening quote may have swallowed line ends.
                kind = _BadQuotesError if quoted and mark == "\t" else StimulusError
                raise kind(
                    f"{where}: {len(cells)} cells under {len(header)} columns; quote texts that "
                    f"hold {name}"
                )
            rows.append(Raw(where, dict(zip(header, cells)), typed=False))
    except csv.Error as error:
        raise _BadQuotesError(
            f"{path}, line {done + 1}: not valid {'TSV' if mark != ',' else 'CSV'} ({error})"
        ) from error
    return header or (), tuple(rows)


def _header(path: Path, cells: list[str]) -> tuple[str, ...]:
    names = [c.strip() for c in cells]
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise StimulusError(f"{path}, line 1: columns named twice: {', '.join(twice)[:200]}")
    return tuple(names)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StimulusError(f"{path}: not a readable parquet file ({first_line(error)})") from error
    raws = tuple(Raw(f"{path}, row {n}", row, typed=True) for n, row in enumerate(rows, start=1))
    return Table(path, tuple(table.column_names), raws)


def read_text(path: Path) -> str:
    """Decode a UTF-8 file; a byte order mark is taken off."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StimulusError(f"{path} cannot be read ({error.strerror or error})") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StimulusError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as "
            "UTF-8"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = next(k for k, n in Counter(k for k, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON; use null")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to 200 characters."""
    return next(iter(str(error).splitlines()), "no details")[:200]


_READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
SUFFIXES: tuple[str, ...] = tuple(_READERS)
"""Suffixes of files that can be read."""
