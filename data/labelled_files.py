"""Files of single texts with labels: text and label columns, and the original GoEmotions files.

A label is a name of some scheme (`taxonomy.map_label`). Rows without a label, with several, or with
one that has no counterpart among the emotions are left out and counted by label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affectlens.data.battery_reading import (
    NO_COUNTERPART,
    NO_LABEL,
    SEVERAL_LABELS,
    LabelReader,
    Reading,
)
from affectlens.data.battery_rows import Fields, default_intensity, show
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Stimulus
from affectlens.data.table_files import Raw, Table, read_text
from affectlens.data.taxonomy import GOEMOTIONS, NEUTRAL

_GOEMOTIONS_LINE = re.compile(r"[^\t]*\t[0-9]{1,2}(?:,[0-9]{1,2})*\t[^\t]*")
_IDS = ("id", "comment_id", "text_id")


def read_labels(table: Table, reading: Reading, labels: LabelReader) -> None:
    """Texts with one label each; several labels or none leave a row out."""
    columns = [c for c in ("label", "labels") if c in table.columns]
    if not columns and table.rows:
        raise StimulusError(
            f"{table.path}, line 1: no column label or labels (found: "
            f"{', '.join(table.columns)[:200]})"
        )
    if len(columns) == 2:
        raise StimulusError(f"{table.path}: it has both columns label and labels; keep one of them")
    for number, raw in enumerate(table.rows, start=1):
        fields = Fields(raw)
        name, text = row_id(table, fields, number), fields.text("text")
        names = _label_names(raw, columns[0], fields, labels.scheme)
        add_labelled(raw, name, text, names, fields, reading, labels)
        used = ("text", *columns, _id_column(table))
        reading.unused.update(str(k) for k in raw.values if k not in used)
    reading.notes += table.warnings


def read_goemotions(path: Path, reading: Reading, labels: LabelReader) -> None:
    """The original files: text, numbers of labels and comment id, tab-separated, no header."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        raw = Raw(f"{path}, line {number}", {}, typed=False)
        if not _GOEMOTIONS_LINE.fullmatch(line):
            reading.problem(
                raw, "", "not text, label numbers (0 to 27, with commas) and id between tabs"
            )
            continue
        text, numbers, name = line.split("\t")
        raw = Raw(raw.where, {"id": name, "text": _unquoted(text), "labels": numbers}, typed=False)
        fields = Fields(raw)
        found = [_numbered(n, fields) for n in numbers.split(",")]
        add_labelled(raw, fields.text("id"), fields.text("text"), found, fields, reading, labels)


def is_goemotions(path: Path) -> bool:
    """Whether the first line of a .tsv file is one of the original GoEmotions files."""
    if path.suffix.lower() != ".tsv":
        return False
    first = next((line for line in read_text(path).split("\n") if line.strip()), "")
    return _GOEMOTIONS_LINE.fullmatch(first.removesuffix("\r")) is not None


def add_labelled(
    raw: Raw,
    name: str,
    text: str,
    names: Sequence[str],
    fields: Fields,
    reading: Reading,
    labels: LabelReader,
) -> bool:
    """Add one text with the label(s) `names`, or note why not; whether it was added."""
    emotions = [emotion_of(label, fields, labels) for label in names]
    if fields.problems:
        reading.problem(raw, name, *fields.problems)
    elif not names:
        reading.left_out[NO_LABEL]["no label"] += 1
    elif len(names) > 1:
        reading.left_out[SEVERAL_LABELS][" + ".join(sorted(names))] += 1
    elif emotions[0] is None:
        reading.left_out[NO_COUNTERPART][names[0]] += 1
    else:
        words = len(text.split())
        intensity = default_intensity("labelled", emotions[0])
        item = Stimulus(name, emotions[0], intensity, "", "", None, words, text, "labelled")
        reading.add(raw.where, item)
        return True
    return False


def emotion_of(label: str, fields: Fields, labels: LabelReader) -> str | None:
    """One of our labels, or None where there is no counterpart or (noted) the label is unknown."""
    try:
        return labels.read(label)
    except StimulusError as error:
        fields.problems.append(str(error))
        return None


def _label_names(raw: Raw, column: str, fields: Fields, scheme: str | None) -> list[str]:
    """Distinct labels of a row, in order; `labels` may be a list or names between commas."""
    value: Any = raw.values.get(column)
    if column == "labels" and isinstance(value, str):
        value = [part.strip(" '\"") for part in value.strip().strip("[]").split(",")]
    values = value if isinstance(value, list) and column == "labels" else [value]
    names = []
    for one in values:
        if one is None or (isinstance(one, float) and math.isnan(one)) or one == "":
            continue
        number = isinstance(one, int) and not isinstance(one, bool)
        if number or (isinstance(one, str) and one.strip().isdecimal()):
            if scheme == "goemotions":
                names.append(_numbered(str(one).strip(), fields))
            else:
                fields.problems.append(
                    f"{column!r} holds the number {str(one)[:20]}; write the label's name (numbers "
                    "are read with scheme goemotions only)"
                )
        elif isinstance(one, str):
            names.append(one.strip().casefold())
        else:
            fields.problems.append(f"{column!r} must name a label, got {show(one)}")
    return list(dict.fromkeys(names))


def _numbered(number: str, fields: Fields) -> str:
    if number.isascii() and len(number) <= 2 and int(number) < len(GOEMOTIONS):
        return GOEMOTIONS[int(number)]
    fields.problems.append(f"label number {number[:20]} is not one of 0 to {len(GOEMOTIONS) - 1}")
    return NEUTRAL


def _id_column(table: Table) -> str | None:
    return next((c for c in _IDS if c in table.columns), None)


def row_id(table: Table, fields: Fields, number: int) -> str:
    """The row's id; where the file has no column of ids, its name and the number of the row."""
    column = _id_column(table)
    if column is None:
        return f"{table.path.stem}-{number}"
    name = fields.label(column)
    if not name and not fields.problems:
        fields.problems.append(f"the field {column!r} is missing or empty")
    return name


def _unquoted(text: str) -> str:
    """Take off the quotes that a spreadsheet put round a text and doubled within it."""
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
        return text[1:-1].replace('""', '"')
    return text
