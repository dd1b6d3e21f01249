"""Reading and writing batteries: JSON lines, CSV, parquet, folders of these, and the hub.

Three layouts of the same schema are read (docs/battery-format.md): our own, that of AIPsy-Affect
(arXiv 2604.23719) and that of its 96-pair forerunner (arXiv 2603.22295). A file either becomes
items, all of them, or is refused with file, line and id of what is wrong.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from affectlens.data.artifacts import atomic_path, read_json
from affectlens.data.battery_rows import Raw, build_item
from affectlens.data.errors import ArtifactError, StimulusError
from affectlens.data.stimuli import SPLITS, Battery, Stimulus, make_battery, summarise

Format = Literal["jsonl", "csv", "parquet"]

# Repository, licence, and the beginning of the pinned commit.
_HUB = {"aipsy-affect": ("keidolabs/aipsy-affect", "MIT", "1e24598")}
_HUB_SPLITS = ("clinical", "neutral", "moderate", "complex_neutral")
_COLUMNS = tuple(f.name for f in fields(Stimulus))
_LOG = logging.getLogger("affectlens")


@dataclass
class _Reading:
    """What accumulates while the rows of a battery are turned into items."""

    items: list[Stimulus] = field(default_factory=list)
    where: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    recounted: list[str] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)

    def add(self, rows: Iterable[Raw], split: str | None, aliases: Mapping[str, str]) -> None:
        for raw in rows:
            built = build_item(raw, split, aliases)
            self.problems += [f"{raw.where}{_named(raw)}: {p}" for p in built.problems]
            self.unused.update(built.unused)
            if built.item is None:
                continue
            if built.stated_words not in (None, built.item.word_count):
                self.recounted.append(
                    f"{raw.where}, id {built.item.id!r}: {built.stated_words} stated, "
                    f"{built.item.word_count} counted"
                )
            self.where[len(self.items)] = raw.where
            self.items.append(built.item)

    def warnings(self) -> list[str]:
        notes = []
        if self.recounted:
            notes.append(
                f"{len(self.recounted)} items state another word_count than their text has; the "
                f"count of the text is used (first: {self.recounted[0]})"
            )
        if self.unused:
            names = ", ".join(f"{name} ({n} items)" for name, n in sorted(self.unused.items()))
            notes.append(f"columns that are not part of a battery were not used: {names}")
        return notes

    def battery(self, name: str, source: str, licence: str) -> Battery:
        if self.problems:
            raise StimulusError(summarise(source, self.problems))
        notes = self.warnings()
        for note in notes:
            _LOG.warning("battery %s: %s", name, note)
        return make_battery(name, self.items, source, licence, notes, self.where)


def read_embedded(name: str) -> Battery:
    """Read a battery that ships with the package."""
    folder = resources.files("affectlens.data") / "batteries"
    with resources.as_file(folder / f"{name}.jsonl") as path:
        reading = _Reading()
        reading.add(read_rows(path), None, {})
    return reading.battery(name, f"package:{name}", "CC-BY-4.0")


def read_path(path: Path, *, aliases: Mapping[str, str] | None = None) -> Battery:
    """Read a battery from a file or a folder.

    A folder is read in the order of its file names, also below `data/`; a file named after a split
    (`clinical.parquet`) gives its items that split. `battery.json` may state name, licence and
    aliases; see docs/battery-format.md.

    Raises:
        StimulusError: unreadable, of an unknown kind, or breaking schema or pairing.
    """
    path = Path(path)
    if not path.is_dir():
        reading = _Reading()
        reading.add(read_rows(path), _split_of(path), aliases or {})
        return reading.battery(path.stem, str(path), "not stated")
    card = _card(path / "battery.json")
    files = sorted(p for d in (path, path / "data") for p in d.glob("*") if p.suffix in _READERS)
    files = [p for p in files if not p.name.startswith(".")]
    if not files:
        raise StimulusError(f"{path} holds no .jsonl, .csv or .parquet file; a battery needs one")
    reading = _Reading()
    for file in files:
        reading.add(read_rows(file), _split_of(file), {**card.aliases, **(aliases or {})})
    return reading.battery(card.name or path.resolve().name, str(path), card.licence)


def read_hub(
    name: str, revision: str | None, *, aliases: Mapping[str, str] | None = None
) -> Battery:
    """Fetch a published battery from the Hugging Face hub through `datasets`.

    `revision` None is the pinned commit; a branch or tag is resolved to its commit. Either way
    `Battery.source` records the full commit.

    Raises:
        StimulusError: `datasets` is not installed, the hub cannot be reached, or the items break
            the schema.
    """
    repository, licence, pin = _HUB[name]
    help_text = (
        f"download the parquet files of https://huggingface.co/datasets/{repository} on a "
        "connected machine and pass their folder instead, or use 'affectlens-vignettes'"
    )
    try:
        import datasets
    except ImportError as error:
        raise StimulusError(
            f"battery {name!r} lies on the Hugging Face hub and needs the package 'datasets' "
            f"(pip install datasets); or {help_text}"
        ) from error
    try:
        commit = _commit(repository, revision, pin)
        loaded = datasets.load_dataset(repository, revision=commit)
    except Exception as error:
        raise StimulusError(
            f"battery {name!r} could not be fetched from the hub ({type(error).__name__}: "
            f"{_first_line(error)}); {help_text}"
        ) from error
    reading = _Reading()
    for split in (*_HUB_SPLITS, *sorted(set(loaded) - set(_HUB_SPLITS))):
        if split in loaded:
            rows = (
                Raw(f"{repository}, {split}, row {n}", dict(row), typed=True)
                for n, row in enumerate(loaded[split], start=1)
            )
            reading.add(rows, split if split in SPLITS else None, aliases or {})
    return reading.battery(name, f"hub:{repository}@{commit}", licence)


def _commit(repository: str, revision: str | None, pin: str) -> str:
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision  # nothing to ask the hub, so a warm cache works without a network
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    # Asked first because it fails at once without a network; listing commits retries for long.
    newest = str(hub.dataset_info(repository, revision=revision).sha)
    if revision is not None or newest.startswith(pin):
        return newest
    commits = [c.commit_id for c in hub.list_repo_commits(repository, repo_type="dataset")]
    found = [str(c) for c in commits if c.startswith(pin)]
    if len(found) != 1:
        raise LookupError(f"the pinned commit {pin} is not in its history; '@main' is the newest")
    return found[0]


def read_rows(path: Path) -> Iterator[Raw]:
    """Yield the rows of one file with the place of each.

    Raises:
        StimulusError: an unknown suffix, or a file that is not what its suffix says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise StimulusError(
            f"{path}: the suffix {path.suffix!r} is not known; allowed: {', '.join(_READERS)}"
        )
    return reader(path)


def write_battery(battery: Battery, path: Path, format: Format | None = None) -> Path:
    """Write all items as one file; `format` follows the suffix of `path` unless given.

    What is written reads back as an equal battery (same `sha256`). CSV cells are written as they
    are: a spreadsheet may take a text that begins with '=' for a formula, this reader never does.

    Raises:
        StimulusError: the format is unknown.
        MachineError: the disk is full.
    """
    path = Path(path)
    kind = format or path.suffix.lower().lstrip(".")
    writer = _WRITERS.get(kind)
    if writer is None:
        raise StimulusError(
            f"cannot write a battery as {kind!r} ({path}); allowed: {', '.join(_WRITERS)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as tmp:
        writer([asdict(item) for item in battery.items], tmp)
    return path


def _read_jsonl(path: Path) -> Iterator[Raw]:
    # Not str.splitlines: U+2028, U+0085 and others are legal inside a JSON string.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise StimulusError(
                f"{where}: not a JSON object on one line ({_first_line(error)})"
            ) from error
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise StimulusError(f"{where}: a JSON {kind}; each line must be one JSON object")
        yield Raw(where, row, typed=True)


def _read_csv(path: Path) -> Iterator[Raw]:
    # newline="" keeps line ends inside quoted cells as they are.
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    header: list[str] | None = None
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
                raise StimulusError(
                    f"{where}: {len(cells)} cells under {len(header)} columns; quote texts that "
                    "hold commas"
                )
            yield Raw(where, dict(zip(header, cells)), typed=False)
    except csv.Error as error:
        raise StimulusError(f"{path}, line {done + 1}: not valid CSV ({error})") from error


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [c.strip() for c in cells]
    if "id" not in names or "text" not in names:
        raise StimulusError(
            f"{path}, line 1: the header lacks 'id' or 'text' (found: {', '.join(names)[:200]}); "
            "columns are separated by commas"
        )
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise StimulusError(f"{path}, line 1: columns named twice: {', '.join(twice)}")
    return names


def _read_parquet(path: Path) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StimulusError(
            f"{path}: not a readable parquet file ({_first_line(error)})"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield Raw(f"{path}, row {number}", row, typed=True)


def _write_jsonl(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        # Every cell is quoted, or a lone carriage return in a text would end the record.
        writer = csv.DictWriter(handle, _COLUMNS, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"word_count": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in _COLUMNS])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


_READERS: dict[str, Callable[[Path], Iterator[Raw]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
_WRITERS: dict[str, Callable[[list[dict[str, Any]], Path], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


@dataclass(frozen=True)
class _Card:
    name: str
    licence: str
    aliases: dict[str, str]


def _card(path: Path) -> _Card:
    """Read the optional battery.json of a folder."""
    if not path.exists():
        return _Card("", "not stated", {})
    try:
        payload = read_json(path)
    except ArtifactError as error:
        raise StimulusError(f"{path} is not valid JSON; correct it or remove it") from error
    allowed = {"name": str, "licence": str, "aliases": dict}
    if not isinstance(payload, dict):
        raise StimulusError(f"{path}: must be one JSON object with {', '.join(allowed)}")
    for key, value in payload.items():
        if key not in allowed:
            raise StimulusError(f"{path}: unknown key {key!r}; allowed: {', '.join(allowed)}")
        if not isinstance(value, allowed[key]):
            raise StimulusError(f"{path}: {key!r} must be a {allowed[key].__name__}")
    aliases = payload.get("aliases", {})
    if not all(isinstance(v, str) for v in aliases.values()):
        raise StimulusError(f"{path}: every alias must map a label to a name of the taxonomy")
    return _Card(payload.get("name", ""), payload.get("licence", "not stated"), aliases)


def _text(path: Path) -> str:
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


def _split_of(path: Path) -> str | None:
    return path.stem if path.stem in SPLITS else None


def _named(raw: Raw) -> str:
    name = raw.values.get("id")
    return f", id {name!r}" if isinstance(name, str) and name else ""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "no details")[:200]
