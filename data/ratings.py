"""Labels of a battery's items by human raters or other readers: rows, files, order of showing.

A ratings file is JSON lines, one answer a line, appended as it is given, so that a killed sitting
loses at most the answer being written. Every row carries the SHA-256 of the text it was given for;
a file of another battery, or of another version of a text, is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from affectlens.data.artifacts import disk_errors
from affectlens.data.errors import MachineError, StimulusError
from affectlens.data.pairing import retold
from affectlens.data.stimuli import Battery, summarise
from affectlens.data.taxonomy import NEUTRAL

OTHER = "other"
"""The answer 'another emotion, or unclear'."""

Answer = Literal[
    "rage", "grief", "terror", "ecstasy", "loathing", "amazement", "admiration", "vigilance",
    "neutral", "other",
]  # fmt: skip
ANSWERS: tuple[str, ...] = get_args(Answer)
"""What a rater may answer: the eight emotions, no emotion, other or unclear."""

KEYS: Mapping[str, str] = MappingProxyType(
    {**{str(k): e for k, e in enumerate(ANSWERS[:9], start=1)}, "0": OTHER}
)
"""The answers by number: 1 to 8 the emotions, 9 neutral, 0 other or unclear."""

GAP = 10
"""Items that lie at least between two tellings of a scene, where the battery is large enough."""

_TRIES = 20


def _utc(value: str) -> str:
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() is None or moment.utcoffset():
        raise ValueError("must be in UTC, such as 2026-01-31T12:00:00+00:00")
    return value


class Rating(BaseModel):
    """One answer.

    Attributes:
        item: id of the item in its battery.
        text_sha256: hex SHA-256 of the item's text in UTF-8.
        rater: who answered.
        emotion: one of `ANSWERS`.
        intensity: 0 (none) to 6 (strongest); None if not asked.
        seconds: time from showing to answer; None if not measured.
        time: when, ISO 8601 in UTC; None if not known.
        comment: free text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    item: str = Field(min_length=1)
    text_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    rater: str = Field(min_length=1)
    emotion: Answer
    intensity: int | None = Field(default=None, ge=0, le=6)
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    time: Annotated[str, AfterValidator(_utc)] | None = None
    comment: str = ""


@dataclass(frozen=True)
class RatingFile:
    """A ratings file as read.

    `lines` are the line numbers of `rows`. `n_torn` is 1 if the last line was cut short by a kill
    and left out, else 0; `n_bytes` is the length of the file without it.
    """

    path: Path
    rows: tuple[Rating, ...]
    lines: tuple[int, ...]
    n_torn: int
    n_bytes: int

    @property
    def raters(self) -> tuple[str, ...]:
        """Who answered, in order of first answer."""
        return tuple(dict.fromkeys(r.rater for r in self.rows))

    def check(self, battery: Battery, rater: str | None = None) -> None:
        """Make sure that the answers are about this battery, and by `rater` if given.

        Raises:
            StimulusError: items that the battery lacks, other texts, or another rater.
        """
        known = {i.id: text_sha256(i.text) for i in battery.items}
        problems = []
        for line, row in zip(self.lines, self.rows, strict=True):
            if row.item not in known:
                problems.append(f"line {line}: battery {battery.name!r} has no item {row.item!r}")
            elif row.text_sha256 != known[row.item]:
                problems.append(f"line {line}: the text of {row.item!r} is another one here")
        if problems:
            raise StimulusError(
                summarise(f"{self.path} does not belong to battery {battery.name!r}", problems)
                + "\nThese answers were given for other texts: rate this battery into another file"
            )
        others = [r for r in self.raters if rater is not None and r != rater]
        if others:
            raise StimulusError(
                f"{self.path} holds answers by {', '.join(map(repr, others))}, not by {rater!r}; "
                "one file holds one rater: give another file or the right name"
            )


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a text in UTF-8, as a row of a ratings file holds it."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def intents(battery: Battery) -> dict[str, str]:
    """What each item is meant to be, by id: its emotion (or valence), or 'neutral'.

    A paraphrase is meant to be what it retells.
    """
    items = {i.id: i for i in battery.items}
    found = {}
    for item in battery.items:
        origin = retold(item, items)
        calm = origin.split in ("neutral", "complex_neutral")
        found[item.id] = NEUTRAL if calm else origin.emotion
    return found


def read_ratings(path: Path) -> RatingFile:
    """Read a ratings file, whoever wrote it.

    A last line without its line end that is no JSON was cut short by a kill: it is left out and
    counted.

    Raises:
        StimulusError: unreadable, a malformed line, or two answers by one rater for one item; the
            message names file and line.
    """
    return _read(Path(path), lambda value: value)


def read_answers(path: Path, battery: Battery, rater: str) -> RatingFile:
    """Read answers to import: rows as in a ratings file, of which `item` and `emotion` are enough.

    What a row lacks is filled in: the text of the item in `battery`, and `rater`. `emotion` may be
    a number of `KEYS`.

    Raises:
        StimulusError: as `read_ratings`, or answers about other texts or by another rater.
    """
    known = {i.id: text_sha256(i.text) for i in battery.items}

    def complete(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        item, emotion = value.get("item"), value.get("emotion")
        # An unknown item gets a hash of nothing, and is named by the check below.
        digest = known.get(item, text_sha256("")) if isinstance(item, str) else text_sha256("")
        filled = {"text_sha256": digest, "rater": rater, **value}
        return {**filled, "emotion": KEYS.get(str(emotion), emotion)}

    found = _read(Path(path), complete)
    found.check(battery, rater)
    return found


def second_reading(battery: str) -> Path | None:
    """The blind second reading by a language model that ships with a battery; None without one."""
    place = Path(__file__).parent / "batteries" / f"{Path(battery).name}.second-reading.jsonl"
    return place if place.is_file() else None


def _read(path: Path, complete: Callable[[Any], Any]) -> RatingFile:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StimulusError(f"{path} cannot be read ({error.strerror or error})") from error
    rows: list[Rating] = []
    lines: list[int] = []
    problems: list[str] = []
    place: dict[tuple[str, str], int] = {}
    n_torn, end = 0, len(data)
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if not line.strip():
            continue
        value, fault = _json(line)
        if fault and not line.endswith(b"\n"):
            n_torn, end = 1, len(data) - len(line)
            break
        row, faults = (None, [fault]) if fault else _row(complete(value))
        problems += [f"line {number}: {f}" for f in faults]
        if row is None:
            continue
        key = (row.rater, row.item)
        if key in place:
            problems.append(
                f"line {number}: {row.rater!r} answered item {row.item!r} before "
                f"(line {place[key]})"
            )
        place.setdefault(key, number)
        rows.append(row)
        lines.append(number)
    if problems:
        raise StimulusError(summarise(f"ratings file {path}", problems))
    return RatingFile(path, tuple(rows), tuple(lines), n_torn, end)


class RatingLog:
    """One rater's file, open for appending; use `open_log`.

    Every answer is on disk when `add` returns.
    """

    def __init__(self, descriptor: int, found: RatingFile) -> None:
        self._descriptor = descriptor
        self._rows = list(found.rows)
        self.path = found.path
        self.n_torn = found.n_torn

    @property
    def rows(self) -> tuple[Rating, ...]:
        """The answers so far."""
        return tuple(self._rows)

    def add(self, row: Rating) -> None:
        """Append one answer.

        Raises:
            MachineError: the disk is full.
        """
        rest = (json.dumps(row.model_dump(), ensure_ascii=False) + "\n").encode("utf-8")
        before = os.fstat(self._descriptor).st_size
        with disk_errors(self.path):
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError:
                # Half a line in the middle of the file would spoil all that follows.
                os.ftruncate(self._descriptor, before)
                raise
        self._rows.append(row)

    def undo(self) -> Rating | None:
        """Take the last answer back, out of the file too; None if there is none."""
        if not self._rows:
            return None
        data = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        os.ftruncate(self._descriptor, data.rstrip().rfind(b"\n") + 1)
        os.fsync(self._descriptor)
        return self._rows.pop()


@contextlib.contextmanager
def open_log(path: Path, battery: Battery, rater: str) -> Iterator[RatingLog]:
    """Open or begin a rater's file for a battery; a torn last line is cut off (`n_torn`).

    Raises:
        StimulusError: the file is of another battery or rater, or malformed.
        MachineError: another process holds the file.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError(
                f"{path} is open in another sitting; end that one, or give another file"
            ) from None
        found = read_ratings(path)
        found.check(battery, rater)
        os.ftruncate(descriptor, found.n_bytes)
        if found.n_bytes and os.pread(descriptor, 1, found.n_bytes - 1) != b"\n":
            os.write(descriptor, b"\n")
        yield RatingLog(descriptor, found)
    finally:
        os.close(descriptor)


def presentation_order(battery: Battery, generator: np.random.Generator) -> tuple[str, ...]:
    """Ids of all items, shuffled, tellings of one scene never close to each other.

    The two members of a pair and all that retell them are one scene. At least `GAP` other items
    lie between any two of its tellings if the battery is large enough; otherwise about as many as
    there are scenes.
    """
    scene = _scenes(battery)
    ids = [i.id for i in battery.items]
    for _ in range(_TRIES):
        order = _spaced([ids[k] for k in generator.permutation(len(ids))], scene)
        if order is not None:
            return tuple(order)
    return tuple(_in_rounds(scene, generator))


def _scenes(battery: Battery) -> dict[str, str]:
    """The scene of every item, named after the clinical member of its pair or its original."""
    items = {i.id: i for i in battery.items}
    owner = {p.neutral.id: p.clinical.id for p in battery.pairs}
    found = {}
    for item in battery.items:
        origin = item
        while origin.variant_of in items:
            origin = items[origin.variant_of]
        found[item.id] = owner.get(origin.id, origin.id)
    return found


def _spaced(shuffled: list[str], scene: dict[str, str]) -> list[str] | None:
    """The shuffled order with items put off while their scene is near; None if stuck."""
    order: list[str] = []
    while shuffled:
        near = {scene[name] for name in order[-GAP:]}
        at = next((k for k, name in enumerate(shuffled) if scene[name] not in near), None)
        if at is None:
            return None
        order.append(shuffled.pop(at))
    return order


def _in_rounds(scene: dict[str, str], generator: np.random.Generator) -> list[str]:
    """One telling of every scene, then the next ones in the same order: the largest distances."""
    told: dict[str, list[str]] = defaultdict(list)
    for name, place in scene.items():
        told[place].append(name)
    single = [names[0] for names in told.values() if len(names) == 1]
    scenes = [
        [names[k] for k in generator.permutation(len(names))]
        for names in told.values()
        if len(names) > 1
    ]
    scenes = [scenes[k] for k in generator.permutation(len(scenes))]
    # Scenes told most often come first, so that a later, shorter round is not near the one before.
    scenes.sort(key=len, reverse=True)
    rounds = max(map(len, scenes), default=0)
    order = [names[turn] for turn in range(rounds) for names in scenes if len(names) > turn]
    for name in single:
        order.insert(int(generator.integers(len(order) + 1)), name)
    return order


def _json(line: bytes) -> tuple[Any, str]:
    try:
        return json.loads(line.decode("utf-8")), ""
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return None, f"not one JSON object in UTF-8 ({error})"


def _row(value: Any) -> tuple[Rating | None, list[str]]:
    try:
        return Rating.model_validate(value), []
    except ValidationError as error:
        return None, [
            f"{'.'.join(map(str, e['loc'])) or 'the line'}: {e['msg']} (got {e['input']!r:.60})"
            for e in error.errors()
        ]
