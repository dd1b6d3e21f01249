"""The state of a training run as safetensors files, each complete or absent.

    <out>.training/checkpoint-<step>.safetensors   the newest few; a later one replaces the oldest

Weights, the optimiser's state and the dead-latent counters are tensors; step, samples seen, scale,
history and the identity of the run are JSON in the file's header, with a SHA-256 over header and
tensors. Random numbers need no state of their own: no architecture draws any in a step, the
starting weights are a function of the seed, and so is the order of the data, in which the store
skips to any batch; the samples seen are the position.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from affectlens.data.artifacts import atomic_path
from affectlens.data.errors import ArtifactError
from affectlens.training.steps import Backend

CHECKPOINT_VERSION = 2
_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")

logger = logging.getLogger("affectlens")


@dataclass
class TrainState:
    """Everything that a step changes."""

    backend: Backend
    """Gradients, optimiser and, as `backend.sae`, the weights."""
    scale: float
    """Factor from stored activations to the units of training."""
    since_fired: Tensor
    """long [d_sae]: samples seen since the latent last fired."""
    step: int = 0
    n_samples: int = 0
    """Samples trained on so far."""
    seconds: float = 0.0
    """Time spent training, over all parts of an interrupted run."""
    stopped_at: int | None = None
    """Samples seen when the run was found not to gain any more and its decay began."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Held-out quality at the evaluations so far."""

    @property
    def sae(self) -> Any:
        """The sae-lens training SAE."""
        return self.backend.sae


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Path(folder) / f"checkpoint-{step}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    found = [(m, p) for p in Path(folder).glob("checkpoint-*") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, key=lambda pair: -int(pair[0][1]))]


def save_checkpoint(path: Path, state: TrainState, identity: Mapping[str, Any]) -> None:
    """Write `state` to `path`; a crash leaves what was there before.

    Raises:
        MachineError: the disk is full.
    """
    tensors = {f"sae.{name}": value for name, value in state.sae.state_dict().items()}
    tensors |= {f"optimiser.{name}": value for name, value in state.backend.state().items()}
    tensors["since_fired"] = state.since_fired
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    header = {
        "format_version": CHECKPOINT_VERSION,
        "identity": dict(identity),
        "step": state.step,
        "n_samples": state.n_samples,
        "seconds": state.seconds,
        "stopped_at": state.stopped_at,
        "scale": state.scale,
        "history": state.history,
    }
    header["sha256"] = _digest(header, tensors)
    text = _text(header)
    with atomic_path(path) as staged:
        save_file(tensors, staged, metadata={"affectlens": text})


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for path in checkpoints(folder)[keep:]:
        path.unlink(missing_ok=True)


def restore_newest(folder: Path, state: TrainState, identity: Mapping[str, Any]) -> bool:
    """Put the newest good checkpoint of `folder` into `state`; False if there is none at all.

    A damaged one is passed over with a warning and removed once an older one has been read.

    Raises:
        ArtifactError: all are damaged, or the run has other settings.
    """
    bad: list[tuple[Path, ArtifactError]] = []
    for path in checkpoints(folder):
        try:
            header, tensors = _read(path)
        except ArtifactError as error:
            bad.append((path, error))
            continue
        refuse_other_run(header["identity"], identity, path.parent)
        _restore(path, state, header, tensors)
        for damaged, reason in bad:
            logger.warning("%s; training goes on from %s", reason, path.name)
            damaged.unlink(missing_ok=True)
        return True
    if bad:
        raise bad[0][1]
    return False


def load_checkpoint(path: Path, state: TrainState, identity: Mapping[str, Any]) -> None:
    """Put what `path` holds into `state`.

    Raises:
        ArtifactError: damaged, of another version, or of a run with other settings (named).
    """
    header, tensors = _read(path)
    refuse_other_run(header["identity"], identity, path.parent)
    _restore(path, state, header, tensors)


def samples_in(folder: Path) -> int:
    """Samples seen at the newest good checkpoint of a folder; 0 without one."""
    for path in checkpoints(folder):
        try:
            return int(_read(path)[0]["n_samples"])
        except ArtifactError:
            continue
    return 0


def refuse_other_run(found: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    """Raise if two identities differ.

    Raises:
        ArtifactError: the first differences, with both values.
    """
    keys = [k for k in sorted({*found, *wanted}) if found.get(k) != wanted.get(k)]
    if keys:
        some = "; ".join(f"{k} was {found.get(k)!r}, now {wanted.get(k)!r}" for k in keys[:3])
        raise ArtifactError(
            f"{where} belongs to a training run with other settings ({some}); "
            "use another folder, or delete it to start anew"
        )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a checkpoint whose bytes are as they were written."""
    cure = f"delete it to go on from an older one, or {path.parent} to start anew"
    try:
        with safe_open(path, framework="pt") as handle:
            text = (handle.metadata() or {})["affectlens"]
            header = json.loads(text)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        as_written = _text(header) == text and _padded_as_written(path)
        version, told = header["format_version"], header.pop("sha256", None)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read as a checkpoint ({error}); {cure}") from error
    if version != CHECKPOINT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version!r}; this release reads {CHECKPOINT_VERSION}; "
            f"{cure}"
        )
    if not as_written or told != _digest(header, tensors):
        raise ArtifactError(f"{path} was changed or damaged (its SHA-256 differs); {cure}")
    return header, tensors


def _text(header: Mapping[str, Any]) -> str:
    """The header as it is written; only this spelling is read back."""
    return json.dumps(header, allow_nan=False)


def _padded_as_written(path: Path) -> bool:
    """Whether the safetensors header ends in spaces only; its parser would let a tab pass."""
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        return handle.read(length).rstrip(b" ").endswith(b"}")


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # A scalar has no byte view of its own.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _restore(
    path: Path, state: TrainState, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    weights, optimiser = _below(tensors, "sae."), _below(tensors, "optimiser.")
    try:
        state.sae.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"{path} holds weights of another form ({error})") from error
    state.backend.restore(optimiser)
    state.since_fired = tensors["since_fired"].to(state.since_fired.device)
    state.step, state.n_samples = header["step"], header["n_samples"]
    state.seconds, state.stopped_at = header["seconds"], header["stopped_at"]
    state.scale, state.history = header["scale"], header["history"]


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
