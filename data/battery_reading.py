"""What accumulates while the rows of files become items: problems, counts of what was left out."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Battery, Stimulus, make_battery, summarise
from affectlens.data.table_files import Raw
from affectlens.data.taxonomy import (
    LABELS,
    NEUTRAL,
    SCHEMES,
    map_label,
    normalise_label,
    scheme_names,
)

NO_COUNTERPART = "whose label has no counterpart among the emotions"
SEVERAL_LABELS = "with several labels"
NO_LABEL = "without a label"

_LOG = logging.getLogger("affectlens")
_SHOWN = 30


@dataclass(frozen=True)
class LabelReader:
    """From a label of a file to one of `LABELS`, 'neutral', or None (no fair counterpart).

    `scheme` None means that the labels are names of our own taxonomy. An alias may mean a label of
    the scheme or a name of the taxonomy.
    """

    scheme: str | None
    aliases: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.scheme is not None:
            scheme_names(self.scheme)

    def read(self, label: str) -> str | None:
        """Map one label.

        Raises:
            StimulusError: the label is unknown; schemes that know it are named.
        """
        if self.scheme is None:
            try:
                return normalise_label(label, self.aliases)
            except StimulusError as error:
                raise StimulusError(f"{error}{_schemes_with(label)}") from None
        declared = {a.strip().casefold(): b.strip().casefold() for a, b in self.aliases.items()}
        alias = declared.get(label.strip().casefold())
        if alias is not None and (alias in LABELS or alias == NEUTRAL):
            return alias
        return map_label(label if alias is None else alias, self.scheme, "plutchik")


def _schemes_with(label: str) -> str:
    key = label.strip().casefold()
    found = [s for s in SCHEMES if s != "plutchik" and key in scheme_names(s)]
    return f"; or name the scheme it comes from (scheme={' or '.join(found)})" if found else ""


@dataclass
class Reading:
    """Items so far, where each stands, what is wrong, and what was corrected or left out."""

    items: list[Stimulus] = field(default_factory=list)
    where: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    recounted: list[str] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    notes: list[str] = field(default_factory=list)

    def add(self, where: str, *items: Stimulus) -> None:
        """Append items of the row at `where`."""
        for item in items:
            self.where[len(self.items)] = where
            self.items.append(item)

    def problem(self, raw: Raw, name: str, *problems: str) -> None:
        """Note what is wrong with a row; `name` is its id or ''."""
        at = f"{raw.where}, id {name!r}" if name else raw.where
        self.problems += [f"{at}: {p}" for p in problems]

    def warnings(self) -> list[str]:
        """One line for each kind of thing that was corrected, left out or not used."""
        notes = []
        if self.recounted:
            notes.append(
                f"{len(self.recounted)} items state another word_count than their text has; the "
                f"count of the text is used (first: {self.recounted[0]})"
            )
        for reason, counts in self.left_out.items():
            notes.append(f"{counts.total()} rows {reason} were left out: {_listed(counts)}")
        if self.unused:
            names = ", ".join(f"{name} ({n} items)" for name, n in sorted(self.unused.items()))
            notes.append(f"columns that are not part of a battery were not used: {names}")
        return [*notes, *self.notes]

    def battery(self, name: str, source: str, licence: str) -> Battery:
        """Check and pair the items.

        Raises:
            StimulusError: rows had problems, nothing is left, or the pairing does not hold.
        """
        if self.problems:
            raise StimulusError(summarise(source, self.problems))
        notes = self.warnings()
        if not self.items and self.left_out:
            raise StimulusError(f"{source}: no item is left. " + "; ".join(notes))
        for note in notes:
            _LOG.warning("battery %s: %s", name, note)
        return make_battery(name, self.items, source, licence, notes, self.where)


def _listed(counts: Counter[str]) -> str:
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    rest = sum(n for _, n in ranked[_SHOWN:])
    more = f", {len(ranked) - _SHOWN} others ({rest})" if rest else ""
    return ", ".join(f"{label} ({n})" for label, n in ranked[:_SHOWN]) + more
