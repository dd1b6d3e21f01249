"""Writing SAEs as sae-lens folders with an integrity record."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import sae_lens
from safetensors import SafetensorError

from affectlens.sae.cfg_checks import CFG_FILE, WEIGHTS_FILE
from affectlens.sae.errors import SAEError
from affectlens.sae.integrity import seal
from affectlens.sae.model import SparseAutoencoder

_KEPT = ("centre", "skip_first", "norm_limit", "k", "hook_name", "model_name",
         "release", "sae_id", "repo_id", "revision")  # fmt: skip
# What may lie in the folder of an SAE, and is replaced with it: ours and what sae-lens adds.
_OWN = frozenset({CFG_FILE, WEIGHTS_FILE, "metrics.json", "metrics.jsonl", "sparsity.safetensors"})


def save_sae(sae: SparseAutoencoder, folder: str | os.PathLike[str]) -> Path:
    """Write `sae` to `folder` in sae-lens form; an older SAE there is replaced as a whole.

    `sae_lens.SAE.load_from_disk` opens the result.

    Raises:
        SAEError: the folder holds something else, or cannot be written.
        OSError: the disk is full; what stood there before is untouched.
    """
    check_target(folder)
    # Absolute, since "." has no name to put beside it; resolved, so that a link stays one.
    target = Path(folder).resolve()
    staged = target.with_name(f".staged-{os.getpid()}-{target.name}")
    shutil.rmtree(staged, ignore_errors=True)
    metadata = sae.sae.cfg.metadata
    for key in _KEPT:
        metadata[key] = getattr(sae.info, key)
    try:
        write_sae(sae.sae, staged)
        _put_in_place(staged, target)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _not_written(error, target) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Path(folder)


def check_target(folder: str | os.PathLike[str]) -> None:
    """Refuse to replace what is not an SAE, or an SAE with other files beside it.

    Raises:
        SAEError: `folder` is a file, or holds files that an SAE does not consist of.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SAEError(f"{folder} exists and holds no SAE: it is a file; choose another folder")
    names = {path.name for path in folder.iterdir()}
    if names and CFG_FILE not in names:
        raise SAEError(f"{folder} exists and holds no SAE; choose another folder")
    if others := sorted(names - _OWN):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise SAEError(f"{folder} holds {', '.join(others[:3])}{more} too, which would be lost "
                       "with the SAE that is replaced; choose another folder")  # fmt: skip


def write_sae(raw: sae_lens.SAE[Any], folder: str | os.PathLike[str]) -> Path:
    """Write a sae-lens SAE into `folder` and seal it (see `affectlens.sae.integrity`).

    Metadata must be complete before: an edit of `cfg.json` afterwards breaks the seal. The folder
    is made if need be; other files in it stay. Not atomic: give a staging folder.

    Returns:
        The folder.
    """
    folder = Path(folder)
    raw.save_model(folder)
    path = folder / CFG_FILE
    cfg = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(seal(cfg, folder / WEIGHTS_FILE)), encoding="utf-8")
    return folder


def _put_in_place(staged: Path, target: Path) -> None:
    """Rename `staged` to `target`; an older `target` is removed only once that has been done."""
    for path in staged.iterdir():
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    old = staged.with_name(f"{staged.name}-old")
    if target.exists():
        target.replace(old)
    try:
        staged.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _not_written(error: OSError | SafetensorError, target: Path) -> Exception:
    # safetensors has the system's words in an error of its own.
    if f"os error {errno.ENOSPC})" in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    return SAEError(f"{target} cannot be written ({error}); choose another folder")
