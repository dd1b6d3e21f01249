"""Reading small sets of texts, one JSON object a line: those that ship and the user's own.

What is wrong is collected over the whole file and reported at once, with the line of each.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Generic, TypeVar

from affectlens.data.battery_rows import Fields
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import character_problems, summarise
from affectlens.data.table_files import Raw, read_table

T = TypeVar("T")


@dataclass(frozen=True)
class Row(Generic[T]):
    """What one line gave.

    `item` is of no use where there are `problems`; `unique` maps what may not be repeated in the
    file ('id', 'text') to its value; `unused` names fields that were not read.
    """

    item: T
    problems: tuple[str, ...]
    unique: Mapping[str, str]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class TextSet(Generic[T]):
    """The items of a file in order, where they were read, and what was not used."""

    name: str
    items: tuple[T, ...]
    source: str
    licence: str
    warnings: tuple[str, ...]


def read_set(
    name: str | Path, embedded: str, what: str, build: Callable[[Raw], Row[T]]
) -> TextSet[T]:
    """Read the embedded set of that name, or a .jsonl file.

    Args:
        name: `embedded`, or a path.
        embedded: the name of the set that ships, `data/<what>/<embedded>.jsonl`.
        what: what the set holds, in the plural ('scenarios'); also the folder.
        build: one line to an item.

    Raises:
        StimulusError: unknown name, unreadable file, no item, lines with problems, or repeated
            values of `Row.unique`.
    """
    if str(name) == embedded:
        folder = resources.files("affectlens.data") / what
        with resources.as_file(folder / f"{embedded}.jsonl") as path:
            return _read(path, embedded, f"package:{embedded}", "CC-BY-4.0", what, build)
    path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(str(name), [embedded], n=1)
        hint = f"; did you mean {embedded!r}?" if near else ""
        raise StimulusError(
            f"no {what} {str(name)!r}: neither {embedded!r} nor an existing .jsonl file{hint}"
        )
    if path.suffix.lower() != ".jsonl":
        raise StimulusError(
            f"{path}: {what} are read from .jsonl files only (its suffix is {path.suffix!r})"
        )
    return _read(path, path.stem, str(path), "not stated", what, build)


def required_texts(raw: Raw, keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Texts of a row without outer blanks, and what is wrong: absent, blank, mistyped, no text."""
    fields = Fields(raw)
    texts = {}
    for key in keys:
        known = len(fields.problems)
        texts[key] = fields.text(key).strip()
        if not texts[key] and len(fields.problems) == known:
            fields.problems.append(f"the field {key!r} is blank")
    problems = [*fields.problems]
    for key, text in texts.items():
        problems += unfit_characters(key, text)
    return texts, problems


def unfit_characters(key: str, text: str) -> list[str]:
    """What makes a string no text (`stimuli.character_problems`), named after `key`."""
    return [f"{key}: {problem}" for problem in character_problems(text)]


def _read(
    path: Path, name: str, source: str, licence: str, what: str, build: Callable[[Raw], Row[T]]
) -> TextSet[T]:
    items: list[T] = []
    problems: list[str] = []
    unused: Counter[str] = Counter()
    first: dict[tuple[str, str], str] = {}
    for raw in read_table(path).rows:
        row = build(raw)
        problems += [f"{raw.where}: {p}" for p in row.problems]
        if row.problems:
            continue
        items.append(row.item)
        unused.update(row.unused)
        for kind, value in row.unique.items():
            before = first.setdefault((kind, value), raw.where)
            if before != raw.where:
                problems.append(f"{raw.where}: this {kind} was used before ({before})")
    if problems:
        raise StimulusError(summarise(source, problems))
    if not items:
        raise StimulusError(f"{source} has no {what}; it needs at least one line")
    listed = ", ".join(f"{key!r} ({n})" for key, n in sorted(unused.items()))
    notes = (f"fields of {what} that are not known were not used: {listed}",) if unused else ()
    return TextSet(name, tuple(items), source, licence, notes)
