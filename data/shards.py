"""One HDF5 shard of activations: what lies in it, and how it is written, checked and read.

Datasets, n rows (tokens) in document order, chunks of at most 1,024 rows, each with a Fletcher-32
checksum, no time stamps, so that equal content gives equal bytes:

    resid/<hook_name>  [n, d_model]  residual; bfloat16 as uint16, attribute encoding="bfloat16"
    keep/<hook_name>   [n] bool      True for content tokens (see `masking.MaskRule`)
    sum/<hook_name>    [d_model]     float64 sum of the kept rows as stored
    doc, position, token  [n] int32  document index, position in the window, token id

A shard is built in memory and written by Python: a disk that fills up is then an ordinary error,
where HDF5 itself would bring the process down when it closes the file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affectlens.data.artifacts import atomic_path
from affectlens.data.errors import ArtifactError, ConfigError, ModelError
from affectlens.data.masking import MaskRule

SHARD_VERSION = 1
CHUNK_ROWS = 1024
STORAGE: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_INDEX = ("doc", "position", "token")


@dataclass(frozen=True)
class TokenIndex:
    """Where rows come from; int32 arrays [n].

    Attributes:
        doc: index into the store's documents.
        position: position in the model's window; 0 begins a window.
        token: token id.
    """

    doc: NDArray[np.int32]
    position: NDArray[np.int32]
    token: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.doc)


@dataclass(frozen=True)
class HookRows:
    """One hook's part of a shard: `acts` [n, d_model] in a storage dtype, `keep` bool [n]."""

    acts: Tensor
    keep: NDArray[np.bool_]
    rule: MaskRule


@dataclass(frozen=True)
class HookSummary:
    """What the manifest needs of one hook of one shard."""

    n_kept: int
    total: NDArray[np.float64]
    max_abs: float
    rule: MaskRule


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard: its file, its size and the summaries by hook."""

    file: str
    rows: int
    bytes: int
    sha256: str
    hooks: dict[str, HookSummary]


def to_storage(acts: Tensor, storage: str, where: str) -> Tensor:
    """Convert float32 [..., d_model] to the storage dtype.

    Raises:
        ModelError: a value is not finite.
        ConfigError: a value does not fit into float16.
    """
    # The extremes of the tensor also show NaN, so one pass answers both questions.
    low, high = torch.aminmax(acts)
    peak = max(-float(low), float(high))
    if not np.isfinite(peak) or bool(torch.isnan(low)):
        raise ModelError(
            f"{where}: the model gives activations that are not finite; check its weights"
        )
    dtype = STORAGE[storage]
    if peak > torch.finfo(dtype).max:
        raise ConfigError(
            f"{where}: the activation {peak:,.0f} does not fit into {storage}, whose largest "
            f"value is {torch.finfo(dtype).max:,.0f}; set storage to bfloat16 or float32"
        )
    return acts.to(dtype)


def write_shard(
    path: Path, index: TokenIndex, hooks: Mapping[str, HookRows], identity: str
) -> ShardInfo:
    """Write one shard, complete or not at all, and return what the manifest needs.

    Raises:
        MachineError: the disk is full.
    """
    buffer = io.BytesIO()
    summaries = {name: _summary(rows) for name, rows in hooks.items()}
    with h5py.File(buffer, "w", libver=("v110", "v110"), track_order=False) as file:
        file.attrs["format_version"] = SHARD_VERSION
        file.attrs["identity"] = identity
        for column in _INDEX:
            _dataset(file, column, getattr(index, column))
        for name, rows in hooks.items():
            _write_hook(file, name, rows, summaries[name])
    content = buffer.getbuffer()
    with atomic_path(path) as staged:
        staged.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return ShardInfo(path.name, len(index), len(content), digest, summaries)


def check_shard(path: Path, index: TokenIndex, hook_names: list[str], identity: str) -> ShardInfo:
    """Read a whole shard (every checksum is checked) and compare it with what it must hold.

    Raises:
        ArtifactError: cut short, damaged, or of other text or settings.
    """
    content = path.read_bytes()
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            if file.attrs["format_version"] != SHARD_VERSION or file.attrs["identity"] != identity:
                raise ArtifactError(f"{path} was made with other settings")
            for column in _INDEX:
                if not np.array_equal(file[column][()], getattr(index, column)):
                    raise ArtifactError(f"{path} holds other tokens")
            hooks = {name: _check_hook(file, name, len(index)) for name in hook_names}
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} is damaged ({error})") from error
    return ShardInfo(
        path.name, len(index), len(content), hashlib.sha256(content).hexdigest(), hooks
    )


def decode(array: NDArray[Any], encoding: str | None) -> Tensor:
    """Rows as stored to float32 [n, d_model]."""
    if encoding == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(array).float()


def _summary(rows: HookRows) -> HookSummary:
    kept = torch.from_numpy(rows.keep)
    total = torch.zeros(rows.acts.shape[1], dtype=torch.float64)
    # In pieces: a float64 copy of a whole shard would double its memory.
    for start in range(0, len(kept), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        total += rows.acts[part][kept[part]].sum(0, dtype=torch.float64)
    low, high = torch.aminmax(rows.acts)
    return HookSummary(
        int(rows.keep.sum()), total.numpy(), max(-float(low), float(high)), rows.rule
    )


def _write_hook(file: h5py.File, name: str, rows: HookRows, summary: HookSummary) -> None:
    acts = rows.acts
    encoded = (
        acts.view(torch.int16).numpy().view(np.uint16)
        if acts.dtype == torch.bfloat16
        else acts.numpy()
    )
    dataset = _dataset(file, f"resid/{name}", encoded)
    dataset.attrs["encoding"] = str(acts.dtype).removeprefix("torch.")
    dataset.attrs["max_abs"] = summary.max_abs
    dataset.attrs["skip_first"] = rows.rule.skip_first
    if rows.rule.norm_limit is not None:
        dataset.attrs["norm_limit"] = rows.rule.norm_limit
    _dataset(file, f"keep/{name}", rows.keep)
    _dataset(file, f"sum/{name}", summary.total)


def _dataset(file: h5py.File, name: str, array: NDArray[Any]) -> h5py.Dataset:
    chunks = (min(CHUNK_ROWS, max(1, len(array))), *array.shape[1:])
    return file.create_dataset(name, data=array, chunks=chunks, fletcher32=True, track_times=False)


def _check_hook(file: h5py.File, name: str, n_rows: int) -> HookSummary:
    acts, keep = file[f"resid/{name}"], file[f"keep/{name}"][()]
    if len(acts) != n_rows or len(keep) != n_rows:
        raise ValueError(f"{name}: {len(acts)} rows where {n_rows} are expected")
    for start in range(0, n_rows, CHUNK_ROWS):
        acts[start : start + CHUNK_ROWS]
    return HookSummary(
        int(keep.sum()), file[f"sum/{name}"][()], float(acts.attrs["max_abs"]), read_rule(acts)
    )


def read_rule(dataset: h5py.Dataset) -> MaskRule:
    """The mask rule in the attributes of a `resid/` dataset."""
    limit = dataset.attrs.get("norm_limit")
    return MaskRule(bool(dataset.attrs["skip_first"]), None if limit is None else float(limit))
