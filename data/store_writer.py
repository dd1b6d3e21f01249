"""Writing a store of rows that are in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from affectlens.data.artifacts import folder_lock, sha256_json
from affectlens.data.errors import ArtifactError
from affectlens.data.manifest import MANIFEST, write_manifest
from affectlens.data.masking import MaskRule
from affectlens.data.shards import HookRows, TokenIndex, to_storage, write_shard
from affectlens.data.store import ActivationStore


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.h5"


def write_store(
    folder: str | Path,
    acts: Mapping[str, Tensor],
    doc: ArrayLike,
    *,
    documents: Sequence[str],
    position: ArrayLike | None = None,
    token: ArrayLike | None = None,
    rule: MaskRule | None = None,
    storage: str = "float32",
    rows_per_shard: int = 65_536,
    provenance: Mapping[str, Any] | None = None,
) -> ActivationStore:
    """Make a store of rows that are already in memory (planted data, activations made elsewhere).

    Args:
        folder: where to write; it may not hold a store yet.
        acts: float32 [n, d_model] for each hook name.
        doc: [n] index into `documents`, ascending.
        documents: document ids.
        position: [n] position in the window; by default rows count up within each document.
        token: [n] token ids; by default 0.
        rule: which rows are content; by default all but position 0.
        storage: "float32", "float16" or "bfloat16".
        rows_per_shard: rows in one file.
        provenance: what to note in the manifest.

    Raises:
        ArtifactError: a store is there already, or lengths disagree.
        MachineError: the disk is full, or the folder is in use.
    """
    folder = Path(folder)
    index = _index(doc, position, token)
    if any(len(rows) != len(index) for rows in acts.values()) or not len(index):
        sizes = {name: len(rows) for name, rows in acts.items()}
        raise ArtifactError(
            f"doc has {len(index)} rows, acts {sizes}; all need the same, at least one"
        )
    if not 0 <= int(index.doc.min()) <= int(index.doc.max()) < len(documents):
        raise ArtifactError(f"doc must lie in 0 to {len(documents) - 1}, the documents given")
    rule = rule or MaskRule()
    details = dict(provenance or {})
    with folder_lock(folder):
        if (folder / MANIFEST).exists():
            raise ArtifactError(f"{folder} already holds a store; choose another folder")
        shards = []
        for number, start in enumerate(range(0, len(index), rows_per_shard)):
            part = slice(start, start + rows_per_shard)
            at = TokenIndex(index.doc[part], index.position[part], index.token[part])
            hooks = {
                n: hook_rows(rows[part].float(), at, rule, storage, n) for n, rows in acts.items()
            }
            shards.append(write_shard(folder / shard_name(number), at, hooks, sha256_json(details)))
        write_manifest(folder, documents, shards, details)
    return ActivationStore.open(folder)


def hook_rows(
    acts: Tensor, index: TokenIndex, rule: MaskRule, storage: str, where: str
) -> HookRows:
    """Mask float32 rows [n, d_model] and convert them to the storage dtype."""
    positions = torch.from_numpy(index.position).long()
    keep = rule.keep(
        acts[None], positions[None], torch.ones_like(positions, dtype=torch.bool)[None]
    )
    return HookRows(to_storage(acts, storage, where), keep[0].numpy(), rule)


def _index(doc: ArrayLike, position: ArrayLike | None, token: ArrayLike | None) -> TokenIndex:
    docs = np.ascontiguousarray(doc, dtype=np.int32)
    if position is None:
        first = np.searchsorted(docs, docs)
        position = np.arange(len(docs)) - first
    if token is None:
        token = np.zeros(len(docs))
    index = TokenIndex(
        docs,
        np.ascontiguousarray(position, dtype=np.int32),
        np.ascontiguousarray(token, dtype=np.int32),
    )
    if not len(docs) == len(index.position) == len(index.token) or (np.diff(docs) < 0).any():
        raise ArtifactError("doc, position and token need equal lengths, and doc must be ascending")
    return index
