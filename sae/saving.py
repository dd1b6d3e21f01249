"""Writing SAEs as sae-lens folders with an integrity record."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import sae_lens

from affectlens.sae.cfg_checks import CFG_FILE, WEIGHTS_FILE
from affectlens.sae.errors import SAEError
from affectlens.sae.integrity import seal
from affectlens.sae.model import SparseAutoencoder

_KEPT = ("centre", "skip_first", "norm_limit", "k", "hook_name", "model_name",
         "release", "sae_id", "repo_id", "revision")  # fmt: skip


def save_sae(sae: SparseAutoencoder, folder: str | os.PathLike[str]) -> Path:
    """Write `sae` to `folder` in sae-lens form; an older SAE there is replaced as a whole.

    `sae_lens.SAE.load_from_disk` opens the result.

    Raises:
        SAEError: the folder holds something else.
    """
    folder = Path(folder)
    staged = folder.with_name(f".staged-{os.getpid()}-{folder.name}")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        metadata = sae.sae.cfg.metadata
        for key in _KEPT:
            metadata[key] = getattr(sae.info, key)
        write_sae(sae.sae, staged)
        if folder.exists():
            _refuse_to_replace_other(folder)
            shutil.rmtree(folder)
        staged.replace(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


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


def _refuse_to_replace_other(folder: Path) -> None:
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / CFG_FILE).is_file()):
        raise SAEError(f"{folder} exists and holds no SAE; choose another folder")
