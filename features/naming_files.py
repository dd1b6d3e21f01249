"""Names of latents as JSON lines: a first line about the run, then one line a latent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from affectlens.data.errors import ArtifactError
from affectlens.features.naming import FeatureName, FeatureNames
from affectlens.features.results import read_lines, write_lines

FORMAT_VERSION = 1
_FORMAT = "affectlens feature names"


def write_names(path: Path, found: FeatureNames) -> Path:
    """Write names, atomically; missing folders are made.

    Raises:
        MachineError: the disk is full.
        ValueError: a number is NaN or infinite.
    """
    about = asdict(found)
    names = about.pop("names")
    head = {"format": _FORMAT, "format_version": FORMAT_VERSION, "n_names": len(names)}
    return write_lines(Path(path), [{**head, **about}, *names])


def read_names(path: Path) -> FeatureNames:
    """Read what `write_names` wrote.

    Raises:
        ArtifactError: absent, cut off, not JSON, of another version, or with other fields.
    """
    rows = read_lines(Path(path))
    head = rows[0] if rows else {}
    kind, version = head.pop("format", None), head.pop("format_version", None)
    if kind != _FORMAT or version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} is {kind!r} of version {version!r}; this release reads {_FORMAT!r} of "
            f"version {FORMAT_VERSION}"
        )
    if head.pop("n_names", None) != len(rows) - 1:
        raise ArtifactError(f"{path} is cut off; run its stage again")
    try:
        names = TypeAdapter(tuple[FeatureName, ...]).validate_python(rows[1:])
        return FeatureNames(names=names, **head)
    except (ValidationError, TypeError) as error:
        raise ArtifactError(f"{path} holds other fields than names have: {error}") from error
