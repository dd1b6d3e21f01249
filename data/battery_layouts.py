"""Layouts of battery files other than our own, and how a file's layout is recognised.

A layout is recognised by the names of the columns alone. Nothing is guessed: a file that fits two
layouts is refused until the caller says which. Every reader turns all rows into items, or counts
what it left out by label, or notes what is wrong with file, line and id.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from affectlens.data.appraisals import looks_appraised, read_appraised
from affectlens.data.battery_reading import NO_COUNTERPART, LabelReader, Reading
from affectlens.data.battery_rows import Fields, read_items
from affectlens.data.errors import StimulusError
from affectlens.data.labelled_files import (
    emotion_of,
    is_goemotions,
    read_goemotions,
    read_labels,
    row_id,
)
from affectlens.data.scenarios import read_events, told, unused_fields
from affectlens.data.stimuli import SPLITS, Split, Stimulus
from affectlens.data.table_files import Table, read_table
from affectlens.data.taxonomy import NEUTRAL, VALENCES

LAYOUTS: tuple[str, ...] = (
    "auto", "items", "sev", "pairs", "labels", "goemotions", "appraisals",
)  # fmt: skip
"""Layouts that `load_battery` reads; 'auto' recognises one of the others."""

_ITEM_FIELDS = {"emotion", "split", "stimulus_set", "intensity", "matched_control_id"}
_SIGNS: Mapping[str, Callable[[Set[str]], bool]] = {
    "items": lambda has: {"id", "text"} <= has and bool(has & _ITEM_FIELDS),
    "sev": lambda has: {"scenario", "event"} <= has,
    "pairs": lambda has: {"text_a", "text_b"} <= has,
    "labels": lambda has: "text" in has and bool(has & {"label", "labels"}),
    "appraisals": looks_appraised,
}
_NEEDS = (
    "items: id, text and emotion or split; sev: theme, scenario, event, skeleton_id; pairs: "
    "text_a, text_b, label; labels: text and label or labels; goemotions: text, numbers and id in "
    "a .tsv file without header; appraisals: generated_text (or text, hidden_emo_text), emotion "
    "and ratings"
)
_SCHEMES = {"goemotions": "goemotions", "appraisals": "crowd-envent"}


def check_layout(layout: str) -> None:
    """Refuse an unknown layout.

    Raises:
        StimulusError: not one of `LAYOUTS`; the nearest is suggested.
    """
    if layout not in LAYOUTS:
        near = difflib.get_close_matches(layout, LAYOUTS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StimulusError(f"unknown layout {layout!r}; allowed: {', '.join(LAYOUTS)}{hint}")


def read_file(
    path: Path, reading: Reading, layout: str, scheme: str | None, aliases: Mapping[str, str]
) -> None:
    """Read one file of one layout into `reading`.

    Raises:
        StimulusError: the file is unreadable, fits no layout or several, or takes no scheme.
    """
    check_layout(layout)
    if layout == "goemotions" or (layout == "auto" and is_goemotions(path)):
        read_goemotions(path, reading, LabelReader(scheme or "goemotions", aliases))
        return
    table = read_table(path)
    found = recognise(table) if layout == "auto" else layout
    labels = LabelReader(scheme or _SCHEMES.get(found), aliases)
    if found == "sev":
        if scheme is not None:
            raise StimulusError(
                f"{path}: the layout sev has no labels; leave scheme {scheme!r} out"
            )
        _read_sev(table, reading)
    elif found == "items":
        read_items(table, reading, path.stem if path.stem in SPLITS else None, labels)
    else:
        {"pairs": _read_pairs, "labels": read_labels, "appraisals": read_appraised}[found](
            table, reading, labels
        )


def recognise(table: Table) -> str:
    """The layout of a table, by its columns.

    Raises:
        StimulusError: they fit no layout, or several.
    """
    has = set(table.columns)
    fits = [name for name, sign in _SIGNS.items() if sign(has)]
    if len(fits) == 1:
        return fits[0]
    shown = ", ".join(table.columns)[:200]
    if fits:
        raise StimulusError(
            f"{table.path}: its columns ({shown}) fit several layouts: {', '.join(fits)}; say "
            "which is meant: load_battery(path, layout=...), or layout in the folder's battery.json"
        )
    # Our own layout names what is missing line by line.
    if not has or has & {"id", "text"}:
        return "items"
    raise StimulusError(
        f"{table.path}, line 1: its columns ({shown}) fit no layout; {_NEEDS}. Columns of a .csv "
        "file are separated by commas, of a .tsv file by tabs"
    )


def _read_sev(table: Table, reading: Reading) -> None:
    """Two pairs of each scenario: positive and negative event against the neutral one."""
    twice = 0
    for raw in table.rows:
        fields = Fields(raw)
        name, theme = fields.text("skeleton_id"), fields.text("theme")
        scenario = fields.text("scenario")
        events = read_events(raw, fields.problems)
        if fields.problems:
            reading.problem(raw, name, *fields.problems)
            continue
        texts: dict[str, str] = {kind: told(scenario, text) for kind, text in events.items()}
        for valence in VALENCES:
            pair = f"{name}-{valence}"
            reading.add(
                raw.where,
                _pair_member(pair, valence, theme, theme, texts[valence], f"{pair}-neutral"),
                _pair_member(f"{pair}-neutral", valence, theme, theme, texts[NEUTRAL], None),
            )
        twice += 1
        reading.unused.update(unused_fields(raw))
    if twice:
        reading.notes.append(
            f"{twice} neutral texts of {table.path} occur twice, under two ids: each is the "
            "control of the positive and of the negative event of its scenario"
        )
    reading.notes += table.warnings


def _read_pairs(table: Table, reading: Reading, labels: LabelReader) -> None:
    """text_a carries the emotion `label`, text_b is its control."""
    own_domains = "domain" not in table.columns
    alone = 0
    for number, raw in enumerate(table.rows, start=1):
        fields = Fields(raw)
        name = row_id(table, fields, number)
        texts, label = (fields.text("text_a"), fields.text("text_b")), fields.text("label")
        domain = name if own_domains else fields.label("domain")
        domain_label = fields.text("domain_label", "")
        emotion = emotion_of(label, fields, labels) if label else None
        if emotion == NEUTRAL:
            fields.problems.append(f"the label {label!r} is neutral, but text_a carries an emotion")
        if fields.problems:
            reading.problem(raw, name, *fields.problems)
        elif emotion is None:
            reading.left_out[NO_COUNTERPART][label.strip()] += 1
        else:
            control = f"{name}-control"
            reading.add(
                raw.where,
                _pair_member(name, emotion, domain, domain_label, texts[0], control),
                _pair_member(control, emotion, domain, domain_label, texts[1], None),
            )
            alone += own_domains
        used = ("id", "text_a", "text_b", "label", "domain", "domain_label")
        reading.unused.update(str(k) for k in raw.values if k not in used)
    if alone:
        reading.notes.append(
            f"{table.path} has no column domain: each of its {alone} pairs is a domain of its own, "
            "so clusters are pairs"
        )
    reading.notes += table.warnings


def _pair_member(
    name: str, emotion: str, domain: str, domain_label: str, text: str, control: str | None
) -> Stimulus:
    """A clinical item, or without `control` a neutral one."""
    split: Split = "neutral" if control is None else "clinical"
    intensity = "none" if control is None else "unrated"
    words = len(text.split())
    return Stimulus(name, emotion, intensity, domain, domain_label, control, words, text, split)
