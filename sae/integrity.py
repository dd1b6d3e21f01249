"""A record of what `cfg.json` and the weights were when they were written.

`write_sae` adds `integrity` to `cfg.json`: the SHA-256 of the weights file, and that of the rest of
the configuration in canonical JSON (sorted keys, no spaces). Loading recomputes both. The record
lies at the top level, which sae-lens ignores: an SAE that sae-lens loads and saves again comes out
without it, as a plain folder, and not as one that looks damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affectlens.sae.cfg_checks import CFG_FILE, WEIGHTS_FILE
from affectlens.sae.errors import SAEError

RECORD = "integrity"


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def seal(cfg: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """`cfg` with a fresh record of itself and of the weights file."""
    record = {"weights_sha256": file_sha256(weights), "cfg_sha256": _cfg_sha256(cfg)}
    return {**cfg, RECORD: record}


def verify(cfg: Mapping[str, Any], folder: Path) -> bool:
    """Whether the folder carries a record; it then matches.

    Returns:
        True if the record was there and both hashes match, False for a folder without one.

    Raises:
        SAEError: a record that does not match, or is none.
    """
    if RECORD not in cfg:
        return False
    record = cfg[RECORD]
    path = folder / CFG_FILE
    if not isinstance(record, dict):
        raise SAEError(
            f"{path}: {RECORD} is {str(record)[:40]!r}, expected an object with two hashes; copy "
            f"the file again, or remove {RECORD!r} from it"
        )
    _compare(record.get("cfg_sha256"), _cfg_sha256(cfg), path)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise SAEError(f"{folder} has no {WEIGHTS_FILE}; copy it next to {CFG_FILE}")
    _compare(record.get("weights_sha256"), file_sha256(weights), weights)
    return True


def _compare(recorded: Any, found: str, path: Path) -> None:
    if recorded != found:
        raise SAEError(
            f"{path} is not what was written: its SHA-256 is {found[:12]}…, the record says "
            f"{str(recorded)[:12]}…. It is cut short, damaged or edited: copy the folder again, "
            f"or, if the change is yours, remove {RECORD!r} from {CFG_FILE}"
        )


def _cfg_sha256(cfg: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in cfg.items() if key != RECORD}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
