"""Reading and writing batteries: single files, folders of them, embedded ones, and the hub.

The layouts that are read are described in docs/battery-format.md. A file either becomes items, all
of them save what its layout leaves out and counts, or is refused with file, line and id of what is
wrong.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from affectlens.data.artifacts import atomic_path, read_json
from affectlens.data.battery_layouts import check_layout, read_file
from affectlens.data.battery_reading import LabelReader, Reading
from affectlens.data.battery_rows import read_items
from affectlens.data.errors import ArtifactError, StimulusError
from affectlens.data.stimuli import SPLITS, Battery, Stimulus
from affectlens.data.table_files import SUFFIXES, Raw, Table, first_line, read_table

Format = Literal["jsonl", "csv", "parquet"]

# Repository, licence, and the beginning of the pinned commit.
_HUB = {"aipsy-affect": ("keidolabs/aipsy-affect", "MIT", "1e24598")}
_HUB_SPLITS = ("clinical", "neutral", "moderate", "complex_neutral")
_COLUMNS = tuple(f.name for f in fields(Stimulus))
_OWN_LABELS = LabelReader(None, {})


def read_embedded(name: str) -> Battery:
    """Read a battery that ships with the package."""
    folder = resources.files("affectlens.data") / "batteries"
    with resources.as_file(folder / f"{name}.jsonl") as path:
        reading = Reading()
        read_items(read_table(path), reading, None, _OWN_LABELS)
    return reading.battery(name, f"package:{name}", "CC-BY-4.0")


def read_path(
    path: Path,
    *,
    layout: str = "auto",
    scheme: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Battery:
    """Read a battery from a file or a folder.

    A folder is read in the order of its file names, also below `data/`; a file named after a split
    (`clinical.parquet`) gives its items that split. `battery.json` may state name, licence, layout,
    scheme and aliases; see docs/battery-format.md. Arguments go before what it states.

    Raises:
        StimulusError: unreadable, of an unknown kind or layout, or breaking schema or pairing.
    """
    path = Path(path)
    reading = Reading()
    if not path.is_dir():
        read_file(path, reading, layout, scheme, aliases or {})
        return reading.battery(path.stem, str(path), "not stated")
    check_layout(layout)
    card = _card(path / "battery.json")
    files = sorted(p for d in (path, path / "data") for p in d.glob("*") if p.suffix in SUFFIXES)
    files = [p for p in files if not p.name.startswith(".")]
    if not files:
        allowed = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise StimulusError(f"{path} holds no {allowed} file; a battery needs one")
    layout = card.layout if layout == "auto" else layout
    for file in files:
        read_file(file, reading, layout, scheme or card.scheme, {**card.aliases, **(aliases or {})})
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
            f"{first_line(error)}); {help_text}"
        ) from error
    reading = Reading()
    labels = LabelReader(None, aliases or {})
    for split in (*_HUB_SPLITS, *sorted(set(loaded) - set(_HUB_SPLITS))):
        if split in loaded:
            rows = tuple(
                Raw(f"{repository}, {split}, row {n}", dict(row), typed=True)
                for n, row in enumerate(loaded[split], start=1)
            )
            table = Table(Path(repository), (), rows)
            read_items(table, reading, split if split in SPLITS else None, labels)
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


_WRITERS: dict[str, Callable[[list[dict[str, Any]], Path], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


@dataclass(frozen=True)
class _Card:
    """What a folder's battery.json states."""

    name: str = ""
    licence: str = "not stated"
    layout: str = "auto"
    scheme: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


def _card(path: Path) -> _Card:
    """Read the optional battery.json of a folder."""
    if not path.exists():
        return _Card()
    try:
        payload = read_json(path)
    except ArtifactError as error:
        raise StimulusError(f"{path} is not valid JSON; correct it or remove it") from error
    allowed = {"name": str, "licence": str, "layout": str, "scheme": str, "aliases": dict}
    if not isinstance(payload, dict):
        raise StimulusError(f"{path}: must be one JSON object with {', '.join(allowed)}")
    for key, value in payload.items():
        if key not in allowed:
            raise StimulusError(f"{path}: unknown key {key!r}; allowed: {', '.join(allowed)}")
        if not isinstance(value, allowed[key]):
            raise StimulusError(f"{path}: {key!r} must be a {allowed[key].__name__}")
    if not all(isinstance(v, str) for v in payload.get("aliases", {}).values()):
        raise StimulusError(f"{path}: every alias must map a label to a name of the taxonomy")
    return _Card(**payload)
