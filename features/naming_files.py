"""Names of latents as JSON lines: a first line about the run, then one line a latent.

Everything but ASCII is escaped: tokens can hold line separators, control characters and halves of
a surrogate pair, on any of which a reader of lines or of UTF-8 could stumble.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from affectlens.data.artifacts import atomic_path
from affectlens.data.errors import ArtifactError
from affectlens.features.naming import FeatureName, FeatureNames

FORMAT_VERSION = 1
_FORMAT = "affectlens feature names"


def write_names(path: Path, found: FeatureNames) -> Path:
    """Write names, atomically; missing folders are made.

    Raises:
        MachineError: the disk is full.
        ValueError: a number is NaN or infinite.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = asdict(found)
    names = about.pop("names")
    head = {"format": _FORMAT, "format_version": FORMAT_VERSION, "n_names": len(names)}
    lines = [{**head, **about}, *names]
    with atomic_path(path) as tmp, tmp.open("w", encoding="ascii", newline="\n") as handle:
        for line in lines:
            handle.write(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n")
    return path


def read_names(path: Path) -> FeatureNames:
    """Read what `write_names` wrote.

    Raises:
        ArtifactError: absent, cut off, not JSON, of another version, or with other fields.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: this stage has not been run") from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is damaged ({error}); run its stage again") from error
    rows = [_row(path, number, line) for number, line in enumerate(lines[:-1], start=1)]
    head = rows[0] if rows else {}
    kind, version = head.pop("format", None), head.pop("format_version", None)
    if kind != _FORMAT or version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} is {kind!r} of version {version!r}; this release reads {_FORMAT!r} of "
            f"version {FORMAT_VERSION}"
        )
    if lines[-1] or head.pop("n_names", None) != len(rows) - 1:
        raise ArtifactError(f"{path} is cut off; run its stage again")
    try:
        names = TypeAdapter(tuple[FeatureName, ...]).validate_python(rows[1:])
        return FeatureNames(names=names, **head)
    except (ValidationError, TypeError) as error:
        raise ArtifactError(f"{path} holds other fields than names have: {error}") from error


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}, line {number}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ArtifactError(f"{path}, line {number}: not an object")
    return row
