"""Short labelled passages: what a classifier of generated text is fitted to.

Every setting (hospital, kitchen, ...) occurs equally often under every emotion, so the subject does
not give the label away, and `group` names it so that folds can keep a setting together. Half of the
passages of an emotion hold a word that names it, half hold no word of any emotion at all.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from affectlens.data.artifacts import sha256_json
from affectlens.data.battery_rows import show
from affectlens.data.table_files import Raw
from affectlens.data.taxonomy import EMOTIONS, NEUTRAL
from affectlens.data.text_sets import Row, read_set, required_texts

EMBEDDED = "affectlens-passages"
"""The set that ships with the package."""

PASSAGE_LABELS: tuple[str, ...] = (*EMOTIONS, NEUTRAL)
"""Labels of a passage, in order."""

_FIELDS = ("id", "label", "names_it", "group", "text")


@dataclass(frozen=True)
class Passage:
    """One passage.

    `label` is one of `PASSAGE_LABELS`; `names_it` says whether a word of the text names the
    emotion; `group` is the setting.
    """

    id: str
    text: str
    label: str
    names_it: bool
    group: str


@dataclass(frozen=True)
class Passages:
    """A set of passages; `source` says where they were read, `licence` under what terms."""

    name: str
    items: tuple[Passage, ...]
    source: str
    licence: str
    warnings: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hex checksum of the items, independent of line ends and the order of keys."""
        return sha256_json([astuple(p) for p in self.items])

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The texts, in order."""
        return tuple(p.text for p in self.items)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Passages of each label that occurs, in the order of `PASSAGE_LABELS`."""
        found = Counter(p.label for p in self.items)
        return MappingProxyType({e: found[e] for e in PASSAGE_LABELS if found[e]})


def load_passages(name: str | Path = EMBEDDED) -> Passages:
    """Load the embedded set, or a .jsonl file with `id`, `label`, `names_it`, `group` and `text`.

    Outer blanks of a text are taken off; a byte order mark and CRLF line ends are accepted.

    Raises:
        StimulusError: unknown name, unreadable file, no passage, or lines with missing, empty,
            mistyped or repeated fields; all are counted and the first ones named by line.
    """
    read = read_set(name, EMBEDDED, "passages", _row)
    return Passages(read.name, read.items, read.source, read.licence, read.warnings)


def _row(raw: Raw) -> Row[Passage]:
    texts, problems = required_texts(raw, ("id", "label", "group", "text"))
    label = texts["label"]
    if label and label not in PASSAGE_LABELS:
        near = difflib.get_close_matches(label, PASSAGE_LABELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        allowed = ", ".join(PASSAGE_LABELS)
        problems.append(f"unknown label {label[:60]!r}; allowed: {allowed}{hint}")
    names_it = raw.values.get("names_it")
    if not isinstance(names_it, bool):
        problems.append(f"'names_it' must be true or false, got {show(names_it)}")
    elif names_it and label == NEUTRAL:
        problems.append("'names_it' is true, but a neutral passage has no emotion to name")
    return Row(
        Passage(texts["id"], texts["text"], label, names_it is True, texts["group"]),
        tuple(problems),
        {"id": texts["id"], "text": texts["text"]},
        tuple(str(k) for k in raw.values if k not in _FIELDS),
    )
