"""The manifest of an activation store: written last, checked first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from affectlens.data.artifacts import read_json, sha256_file, write_json
from affectlens.data.errors import ArtifactError
from affectlens.data.shards import ShardInfo

STORE_FORMAT = "affectlens-activations"
STORE_VERSION = 1
MANIFEST = "manifest.json"
_KEYS = {"d_model", "documents", "hooks", "n_prefix", "n_rows", "provenance", "shards"}


def read_manifest(folder: Path, *, verify: bool = False) -> dict[str, Any]:
    """Read a manifest and check that its shards are there; with `verify`, hash them.

    Raises:
        ArtifactError: no store, another version, or a shard absent, cut short or changed.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise ArtifactError(
            f"{folder} holds no finished activation store; run harvest with it as `out`"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != STORE_FORMAT:
        raise ArtifactError(f"{path} is not the manifest of an activation store")
    version = manifest.get("format_version")
    if version != STORE_VERSION:
        raise ArtifactError(
            f"{path} has format version {version!r}; this release reads {STORE_VERSION}"
        )
    missing = sorted(_KEYS - set(manifest))
    if missing:
        raise ArtifactError(f"{path} lacks {', '.join(missing)}; harvest again")
    for shard in manifest["shards"]:
        _check_file(folder / shard["file"], shard, verify=verify)
    return manifest


def write_manifest(
    folder: Path,
    documents: Sequence[str],
    shards: Sequence[ShardInfo],
    provenance: Mapping[str, Any],
    *,
    n_prefix: int = 0,
) -> None:
    """Write the manifest over finished shards; a store exists from then on.

    `n_prefix` tokens at the head of each window do not belong to the document's text.
    """
    hooks: dict[str, Any] = {}
    for name, first in shards[0].hooks.items():
        n_kept = sum(s.hooks[name].n_kept for s in shards)
        total = np.sum([s.hooks[name].total for s in shards], axis=0)
        hooks[name] = {
            "mask_rule": asdict(first.rule),
            "n_kept": n_kept,
            "n_masked": sum(s.rows for s in shards) - n_kept,
            "max_abs": max(s.hooks[name].max_abs for s in shards),
            "mean": (total / max(n_kept, 1)).tolist(),
        }
    files = [{"file": s.file, "rows": s.rows, "bytes": s.bytes, "sha256": s.sha256} for s in shards]
    write_json(
        folder / MANIFEST,
        {
            "format": STORE_FORMAT,
            "format_version": STORE_VERSION,
            "d_model": len(next(iter(hooks.values()))["mean"]),
            "n_rows": sum(s.rows for s in shards),
            "documents": list(documents),
            "hooks": hooks,
            "shards": files,
            "n_prefix": n_prefix,
            "provenance": dict(provenance),
        },
    )


def _check_file(path: Path, shard: dict[str, Any], *, verify: bool) -> None:
    if not path.exists():
        raise ArtifactError(f"{path} is missing; harvest again to make it")
    size = path.stat().st_size
    if size != shard["bytes"]:
        raise ArtifactError(
            f"{path} has {size:,} bytes where the manifest says {shard['bytes']:,}; harvest again"
        )
    if verify and sha256_file(path) != shard["sha256"]:
        raise ArtifactError(
            f"{path} was changed since it was written (its SHA-256 differs); harvest again"
        )
