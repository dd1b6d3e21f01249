"""One row of the layout 'items' to one `Stimulus`: our own fields or those of its published kin."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from affectlens.data.battery_reading import LabelReader, Reading
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import SPLITS, Split, Stimulus
from affectlens.data.table_files import Raw, Table
from affectlens.data.taxonomy import NEUTRAL

_SETS: Mapping[str, str] = {
    "A_standard": "keyword_rich",
    "B_clinical": "clinical",
    "neutral": "neutral",
    "C_complex_neutral": "complex_neutral",
}
"""`stimulus_set` of the 96-pair layout to our split."""

_SPLIT_OF_INTENSITY = {"peak": "clinical", "moderate": "moderate"}
_INTENSITY_OF_SPLIT = {
    "clinical": "peak", "moderate": "moderate", "keyword_rich": "high", "paraphrase": "unrated",
    "labelled": "unrated",
}  # fmt: skip
_NO_EMOTION_SPLITS = ("neutral", "complex_neutral")
_USED = {
    "id", "emotion", "intensity", "domain", "domain_label", "matched_control_id", "word_count",
    "text", "split", "stimulus_set", "variant_of",
}  # fmt: skip
# Columns of the published layouts that repeat what others say; not worth a warning.
_REDUNDANT = {"token_count", "has_emotion_keyword", "expected_class"}


@dataclass(frozen=True)
class Built:
    """The item (None if it cannot be built), what is wrong, and what was not used."""

    item: Stimulus | None
    problems: tuple[str, ...]
    stated_words: int | None
    unused: tuple[str, ...]


class Fields:
    """Typed access to a row; collects problems instead of stopping at the first."""

    def __init__(self, raw: Raw) -> None:
        self.problems: list[str] = []
        self._values = raw.values
        self._typed = raw.typed

    def text(self, key: str, default: str | None = None) -> str:
        """A string; without `default` the field is required."""
        value = self._get(key)
        if value is None:
            if default is None:
                self.problems.append(f"the field {key!r} is missing or empty")
            return default or ""
        if not isinstance(value, str):
            self.problems.append(f"{key!r} must be a string, got {show(value)}")
            return default or ""
        return value

    def label(self, key: str) -> str:
        """A string or whole number, as a string without outer blanks ('1.0' becomes '1')."""
        value = self._get(key)
        if value is None:
            return ""
        if isinstance(value, str):
            return _whole(value.strip())
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _whole(str(value))
        self.problems.append(f"{key!r} must be a string or a whole number, got {show(value)}")
        return ""

    def count(self, key: str) -> int | None:
        """A whole number of zero or more, or None."""
        value = self._get(key)
        if value is None:
            return None
        if not self._typed:
            value = _number(str(value))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        shown = show(self._values.get(key))
        self.problems.append(f"{key!r} must be a whole number, got {shown}")
        return None

    def _get(self, key: str) -> Any:
        """The value, or None where it is absent, empty or NaN."""
        value = self._values.get(key)
        if isinstance(value, float) and math.isnan(value):
            return None
        return None if value == "" else value


def read_items(table: Table, reading: Reading, split: str | None, labels: LabelReader) -> None:
    """Turn every row into an item.

    `split` is the split that the file's name states, used where the row has none.
    """
    reading.notes += table.warnings
    for raw in table.rows:
        built = build_item(raw, split, labels)
        name = raw.values.get("id")
        reading.problem(raw, name if isinstance(name, str) else "", *built.problems)
        reading.unused.update(built.unused)
        if built.item is None:
            continue
        if built.stated_words not in (None, built.item.word_count):
            reading.recounted.append(
                f"{raw.where}, id {built.item.id!r}: {built.stated_words} stated, "
                f"{built.item.word_count} counted"
            )
        reading.add(raw.where, built.item)


def build_item(raw: Raw, file_split: str | None, labels: LabelReader) -> Built:
    """Build one item.

    `file_split` is the split that the file's name states, used where the row has none.
    """
    fields = Fields(raw)
    name, text = fields.text("id"), fields.text("text")
    split = _split(raw, fields, file_split)
    emotion = _emotion(fields, split, labels)
    stated = fields.count("word_count")
    values: dict[str, Any] = {
        "intensity": fields.text("intensity", default_intensity(split, emotion)),
        "domain": fields.label("domain"),
        "domain_label": fields.text("domain_label", ""),
        "matched_control_id": fields.text("matched_control_id", "") or None,
        "variant_of": fields.text("variant_of", "") or None,
    }
    unused = tuple(str(key) for key in raw.values if key not in _USED and key not in _REDUNDANT)
    if fields.problems:
        return Built(None, tuple(fields.problems), stated, unused)
    words = len(text.split())
    item = Stimulus(
        id=name, emotion=emotion, word_count=words, text=text, split=cast(Split, split), **values
    )
    return Built(item, (), stated, unused)


def _split(raw: Raw, fields: Fields, file_split: str | None) -> str:
    """The split: stated, by stimulus_set, by the file's name, by intensity; in this order."""
    stated = fields.text("split", "")
    if stated:
        # 'train' and the like are splits of a hosting service, not of the battery's design.
        if stated in SPLITS:
            return stated
        near = difflib.get_close_matches(stated, SPLITS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        fields.problems.append(f"unknown split {stated!r}; allowed: {', '.join(SPLITS)}{hint}")
        return ""
    stimulus_set = fields.text("stimulus_set", "")
    if stimulus_set:
        if stimulus_set not in _SETS:
            fields.problems.append(
                f"unknown stimulus_set {stimulus_set!r}; allowed: {', '.join(_SETS)}"
            )
        return _SETS.get(stimulus_set, "")
    if file_split:
        return file_split
    intensity = raw.values.get("intensity")
    if isinstance(intensity, str) and intensity in _SPLIT_OF_INTENSITY:
        return _SPLIT_OF_INTENSITY[intensity]
    if intensity == "none":
        # Unpaired items without emotion must say 'complex_neutral': guessing would hide a pair
        # that lost its clinical member.
        return "neutral"
    fields.problems.append(
        "the split is not stated: add the field 'split' "
        f"({', '.join(SPLITS)}), name the file after it, or set intensity to peak, moderate or none"
    )
    return ""


def default_intensity(split: str, emotion: str) -> str:
    """The intensity of an item that states none."""
    return "none" if emotion == NEUTRAL else _INTENSITY_OF_SPLIT.get(split, "none")


def _emotion(fields: Fields, split: str, labels: LabelReader) -> str:
    label = fields.text("emotion", NEUTRAL if split in _NO_EMOTION_SPLITS else None)
    if not label:
        return NEUTRAL
    try:
        emotion = labels.read(label)
    except StimulusError as error:
        fields.problems.append(str(error))
        return NEUTRAL
    if emotion is None:
        fields.problems.append(
            f"the label {label!r} of {labels.scheme} has no counterpart among the emotions; remove "
            "the item or declare an alias"
        )
    return emotion or NEUTRAL


def _whole(value: str) -> str:
    number = _number(value)
    if isinstance(number, float) and math.isfinite(number) and number.is_integer():
        return str(int(number))
    return value


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def show(value: Any) -> str:
    """A value for a message: its beginning and its type."""
    text = repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"
