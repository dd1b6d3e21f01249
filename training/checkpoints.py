"""The state of a training run as one safetensors file, complete or absent.

Weights, Adam's moments and the dead-latent counters are tensors; step, scale, history and the
identity of the run are JSON in the file's header. The data order needs no state of its own: it is
a function of the seed, and the store skips to any batch.
"""

from __future__ import annotations

import json
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

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_VERSION = 1


@dataclass
class TrainState:
    """Everything that a step changes."""

    sae: Any
    optimizer: torch.optim.Optimizer
    scale: float
    """Factor from stored activations to the units of training."""
    since_fired: Tensor
    """long [d_sae]: samples seen since the latent last fired."""
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(path: Path, state: TrainState, identity: Mapping[str, Any]) -> None:
    """Write `state` to `path`; a crash leaves the older file.

    Raises:
        MachineError: the disk is full.
    """
    tensors = {f"sae.{name}": value for name, value in state.sae.state_dict().items()}
    for name, parameter in state.sae.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = value
    tensors["since_fired"] = state.since_fired
    header = {
        "format_version": CHECKPOINT_VERSION,
        "identity": dict(identity),
        "step": state.step,
        "scale": state.scale,
        "history": state.history,
    }
    with atomic_path(path) as staged:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            staged,
            metadata={"affectlens": json.dumps(header, allow_nan=False)},
        )


def load_checkpoint(path: Path, state: TrainState, identity: Mapping[str, Any]) -> None:
    """Put what `path` holds into `state`.

    Raises:
        ArtifactError: damaged, of another version, or of a run with other settings (named).
    """
    try:
        with safe_open(path, framework="pt") as handle:
            header = json.loads((handle.metadata() or {})["affectlens"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{path} cannot be read as a checkpoint ({error}); delete {path.parent} to start anew"
        ) from error
    if header.get("format_version") != CHECKPOINT_VERSION:
        raise ArtifactError(
            f"{path} has format version {header.get('format_version')!r}; "
            f"this release reads {CHECKPOINT_VERSION}; delete {path.parent} to start anew"
        )
    refuse_other_run(header["identity"], identity, path.parent)
    _restore(state, tensors)
    state.step, state.scale = header["step"], header["scale"]
    state.history = header["history"]


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


def _restore(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    prefix = "sae."
    state.sae.load_state_dict(
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    )
    for name, parameter in state.sae.named_parameters():
        moments = {
            key.split(".")[1]: tensor
            for key, tensor in tensors.items()
            if key.startswith("adam.") and key.split(".", 2)[2] == name
        }
        if moments:
            state.optimizer.state[parameter] = moments
    state.since_fired = tensors["since_fired"]
