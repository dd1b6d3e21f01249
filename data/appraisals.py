"""Texts with appraisals: how the writer of a text judged the event, in the manner of crowd-enVENT.

The columns of that corpus are described in E. Troiano, L. Oberlaender and R. Klinger, *Dimensional
modeling of emotions in text with appraisal theories* (Computational Linguistics 49, 2023): 21
appraisals from 1 (not at all) to 5 (extremely), beside ratings of emotions, traits and the like.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.data.battery_reading import LabelReader, Reading
from affectlens.data.battery_rows import Fields, show
from affectlens.data.errors import StimulusError
from affectlens.data.labelled_files import add_labelled, row_id
from affectlens.data.stimuli import Battery
from affectlens.data.table_files import Raw, Table, read_table

if TYPE_CHECKING:
    import pandas as pd

APPRAISALS: tuple[str, ...] = (
    "suddenness", "familiarity", "predict_event", "pleasantness", "unpleasantness",
    "goal_relevance", "chance_responsblt", "self_responsblt", "other_responsblt",
    "predict_conseq", "goal_support", "urgency", "self_control", "other_control",
    "chance_control", "accept_conseq", "standards", "social_norms", "attention", "not_consider",
    "effort",
)  # fmt: skip
"""The 21 appraisals of crowd-enVENT by the names of their columns."""

LOWEST, HIGHEST = 1.0, 5.0
"""Ends of the rating scale."""

_TEXTS = ("generated_text", "text", "hidden_emo_text")
# Columns of the corpus that hold something else about the text, the event or the writer.
_METADATA = {
    "id", "text_id", "comment_id", "round_number", "timestamp", "prolific_id", "emotion",
    "original_emotion", "event_duration", "emotion_duration", "intensity", "confidence",
    "previous_participation", "age", "gender", "education", "ethnicity", "anger", "boredom",
    "disgust", "fear", "guilt", "joy", "pride", "relief", "sadness", "shame", "surprise", "trust",
    "extravert", "critical", "dependable", "anxious", "open", "quiet", "sympathetic",
    "disorganized", "calm", "conventional", *_TEXTS,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Appraised:
    """A battery of labelled texts and its ratings.

    `appraisals` is a frame [n_items, n_appraisals] of float64 on the file's scale (1 to 5), NaN
    where a rating is missing; its index holds the ids of `battery.items` in their order, its
    columns stand in the order of the file.
    """

    battery: Battery
    appraisals: pd.DataFrame


def load_appraised(
    path: str | Path, *, scheme: str = "crowd-envent", aliases: Mapping[str, str] | None = None
) -> Appraised:
    """Load a file of texts with an emotion and appraisals.

    The text is the column generated_text, else text, else hidden_emo_text; the label is emotion.
    The columns of `APPRAISALS` are ratings, and so is every other column whose values are all
    numbers from 1 to 5, unless the corpus is known to hold something else in it. Rows whose label
    has no counterpart (guilt, shame, ...) are left out and counted in `battery.warnings`.

    Args:
        path: a .tsv, .csv, .jsonl or .parquet file.
        scheme: the scheme of the labels (`taxonomy.map_label`).
        aliases: labels that mean another label of the scheme or a name of the taxonomy.

    Raises:
        StimulusError: an unreadable file, a missing column, a rating that is no number from 1 to 5;
            the message names file, line and id.
    """
    import pandas as pd

    path = Path(path)
    if path.is_dir():
        raise StimulusError(f"{path} is a folder; name the file with texts and appraisals")
    reading = Reading()
    columns, ratings = read_appraised(read_table(path), reading, LabelReader(scheme, aliases or {}))
    battery = reading.battery(path.stem, str(path), "not stated")
    index = pd.Index([item.id for item in battery.items], name="id")
    return Appraised(battery, pd.DataFrame(ratings, index=index, columns=columns, dtype="float64"))


def looks_appraised(columns: Set[str]) -> bool:
    """Whether the names of columns are those of a file with appraisals."""
    texts = {"generated_text", "hidden_emo_text"}
    known = len(columns & set(APPRAISALS))
    return "emotion" in columns and bool(columns & texts or ("text" in columns and known >= 3))


def read_appraised(
    table: Table, reading: Reading, labels: LabelReader
) -> tuple[list[str], list[list[float]]]:
    """Read items into `reading`; return the rated columns and the ratings of the items kept."""
    reading.notes += table.warnings
    text_column = next((c for c in _TEXTS if c in table.columns), None)
    if text_column is None or "emotion" not in table.columns:
        if not table.columns:
            return [], []
        raise StimulusError(
            f"{table.path}, line 1: no column emotion with one of {', '.join(_TEXTS)} (found: "
            f"{', '.join(table.columns)[:200]})"
        )
    columns = [c for c in table.columns if _is_rated(c, table.rows)]
    if not columns and table.rows:
        raise StimulusError(
            f"{table.path}: no column of appraisals; columns of numbers from 1 to 5 are, save "
            "those that say something else about the text or its writer"
        )
    ratings: list[list[float]] = []
    missing: Counter[str] = Counter()
    for number, raw in enumerate(table.rows, start=1):
        fields = Fields(raw)
        name, text = row_id(table, fields, number), fields.text(text_column)
        label = fields.text("emotion")
        rated = [_rating(raw.values.get(c), c, fields) for c in columns]
        names = [label.strip().casefold()] if label else []
        if add_labelled(raw, name, text, names, fields, reading, labels):
            ratings.append(rated)
            missing.update(c for c, value in zip(columns, rated) if math.isnan(value))
    _note_columns(table, columns, text_column, missing, reading)
    return columns, ratings


def _note_columns(
    table: Table, columns: Sequence[str], text: str, missing: Counter[str], reading: Reading
) -> None:
    used = {*columns, text, "emotion", "id", "text_id", "comment_id"}
    reading.unused.update({c: len(table.rows) for c in table.columns if c not in used})
    if missing:
        shown = ", ".join(f"{c} ({n})" for c, n in sorted(missing.items()))
        reading.notes.append(f"{missing.total()} ratings are missing: {shown}")


def _is_rated(column: str, rows: Sequence[Raw]) -> bool:
    if column in APPRAISALS:
        return True
    if column in _METADATA:
        return False
    values = [_number(raw.values.get(column)) for raw in rows]
    on_scale = [v for v in values if v is not None and LOWEST <= v <= HIGHEST]
    empty = sum(v is not None and math.isnan(v) for v in values)
    return bool(on_scale) and len(on_scale) + empty == len(values)


def _rating(value: Any, column: str, fields: Fields) -> float:
    number = _number(value)
    if number is None or not (math.isnan(number) or LOWEST <= number <= HIGHEST):
        fields.problems.append(
            f"{column!r} must be a number from {LOWEST:g} to {HIGHEST:g}, got {show(value)}"
        )
        return math.nan
    return number


def _number(value: Any) -> float | None:
    """The number, NaN for an empty cell, None for anything else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
