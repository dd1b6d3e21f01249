"""Steering vectors as files: GGUF control vectors for llama.cpp, and safetensors.

GGUF (`control_vector_gguf`): `direction.N` is the vector, and the text `affectlens.vector` is ours
and holds what `SteeringVector` records, as JSON.

Which layer N is. llama.cpp counts blocks from 0 and adds `direction.N` to the output of block N, so
`direction.N` belongs to `blocks.N.hook_resid_post` with the same N: nothing is shifted. In
transformers that is `hidden_states[N + 1]`, since `hidden_states[0]` is the embedding. llama.cpp
never has a direction for block 0, so the output of block 0 cannot be written, nor the input of the
blocks 0 and 1. The input of block N is the output of block N - 1 and is written as that.

llama.cpp adds the vector to every token, the first one too, where `al.applied` leaves out what the
SAE's mask leaves out: give it `scope="all"` to do the same.

safetensors: `vector` float32 [d_model], with the same record as metadata "affectlens.vector" and,
for people and other programs, in a JSON file beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectlens.data.addresses import Address
from affectlens.data.artifacts import atomic_path, write_json
from affectlens.data.errors import ArtifactError, ConfigError, HookError
from affectlens.features.control_vector_gguf import (
    HINT,
    read_control_vector,
    utf8,
    write_control_vector,
)
from affectlens.features.steering_vector import SteeringVector, VectorOrigin

RECORD = "affectlens.vector"
RECORD_VERSION = 1
TENSOR = "vector"


def write_vector(
    vector: SteeringVector, path: str | os.PathLike[str], *, force: bool = False
) -> Path:
    """Write a vector; the name decides the form: `.gguf` or `.safetensors`.

    Beside a safetensors file lies its record, under the same name with `.json`.

    Args:
        vector: what to write.
        path: the file; its folder is made if need be.
        force: replace a file of that name.

    Returns:
        The path.

    Raises:
        ConfigError: another ending, a file that is there already, or for GGUF a place that
            llama.cpp cannot add to.
        MachineError: the disk is full; what stood there before is untouched.
    """
    path = Path(path)
    writers = {".gguf": _write_gguf, ".safetensors": _write_safetensors}
    if path.suffix not in writers:
        raise ConfigError(f"{path} must end in {' or '.join(writers)}, which names the form")
    files = [path] if path.suffix == ".gguf" else [path, path.with_suffix(".json")]
    there = ", ".join(str(file) for file in files if file.exists())
    if any(file.is_dir() for file in files):
        raise ConfigError(f"{there} is a folder; give another name")
    if there and not force:
        raise ConfigError(f"{there} is there already; use force=True to replace it")
    if path.suffix == ".gguf":
        gguf_layer(vector.hook_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[path.suffix](vector, path)
    return path


def read_vectors(path: str | os.PathLike[str]) -> tuple[SteeringVector, ...]:
    """Read the vectors of a `.gguf` or `.safetensors` file, by layer; ours hold one.

    Control vectors of other programs have no record: they get the layer from the tensor's name and
    an origin of "other".

    Raises:
        ConfigError: another ending, or no such file.
        ArtifactError: not such a file, cut short, or a record that does not fit its tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    if path.suffix == ".gguf":
        return _read_gguf(path)
    if path.suffix == ".safetensors":
        return (_read_safetensors(path),)
    raise ConfigError(f"{path} must end in .gguf or .safetensors")


def gguf_layer(hook_name: str) -> int:
    """The N of `direction.N` for a place.

    Raises:
        ConfigError: llama.cpp has no such direction.
        HookError: not a place on the residual stream.
    """
    place = Address.parse(hook_name).as_output
    if place.site == "resid_post" and place.layer >= 1:
        return place.layer
    raise ConfigError(
        f"{hook_name} cannot be written as GGUF: llama.cpp adds direction.N to the output of block "
        "N for N from 1 on, and to nothing before that; write safetensors, or use an SAE of a "
        "later block"
    )


def record_of(vector: SteeringVector) -> dict[str, Any]:
    """What is written beside the numbers, JSON-able."""
    return {
        "format_version": RECORD_VERSION,
        "name": utf8(vector.name),
        "hook_name": vector.hook_name,
        "layer": Address.parse(vector.hook_name).layer,
        "unit": "that of the residual stream; strength s adds s * vector at every token",
        "d_model": len(vector.values),
        "norm": vector.norm,
        "residual_norm": vector.residual_norm,
        "vector_sha256": vector.sha256,
        "origin": asdict(vector.origin),
        "made_with": f"affectlens {version('affectlens')}",
    }


def _write_gguf(vector: SteeringVector, path: Path) -> None:
    origin = vector.origin
    texts = {
        "general.name": vector.name,
        "general.license": origin.licence,
        RECORD: json.dumps(record_of(vector), sort_keys=True),
    }
    hint = origin.model_type or origin.model_name or "unknown"
    with atomic_path(path) as staged:
        write_control_vector(staged, {gguf_layer(vector.hook_name): vector.values}, hint, texts)


def _write_safetensors(vector: SteeringVector, path: Path) -> None:
    record = record_of(vector)
    metadata = {RECORD: json.dumps(record, sort_keys=True)}
    with atomic_path(path) as staged:
        save_file({TENSOR: vector.values}, staged, metadata=metadata)
    # Last: a killed writer leaves a complete tensor file without its copy for people.
    write_json(path.with_suffix(".json"), record)


def _read_gguf(path: Path) -> tuple[SteeringVector, ...]:
    found = read_control_vector(path)
    if RECORD in found.texts:
        if len(found.directions) != 1:
            raise ArtifactError(
                f"{path} has the record of one vector and {len(found.directions)} directions"
            )
        ((layer, values),) = found.directions.items()
        vector = _from_record(path, found.texts[RECORD], values)
        if Address.parse(vector.hook_name).as_output != Address(layer):
            raise ArtifactError(f"{path}: direction.{layer} does not fit {vector.hook_name}")
        return (vector,)
    origin = VectorOrigin(model_type=found.texts.get(HINT, ""))
    return tuple(
        _vector(path, values, Address(n).name, f"{path.stem} layer {n}", origin)
        for n, values in sorted(found.directions.items())
    )


def _read_safetensors(path: Path) -> SteeringVector:
    try:
        with safe_open(path, framework="numpy") as handle:
            text = (handle.metadata() or {}).get(RECORD)
            values = handle.get_tensor(TENSOR) if TENSOR in handle.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is not a safetensors file or is cut short ({error})") from None
    if text is None or values is None:
        raise ArtifactError(
            f"{path} is no steering vector: it needs the tensor {TENSOR!r} and the metadata "
            f"{RECORD!r}"
        )
    return _from_record(path, text, values)


def _from_record(path: Path, text: str, values: npt.NDArray[Any]) -> SteeringVector:
    try:
        record = json.loads(text)
        if not isinstance(record, Mapping) or record.get("format_version") != RECORD_VERSION:
            raise ArtifactError(f"{path}: the record is not of version {RECORD_VERSION}")
        unknown = sorted(set(record["origin"]) - {f.name for f in fields(VectorOrigin)})
        if unknown:
            raise ArtifactError(f"{path}: the record's origin names {unknown[0]!r}, unknown here")
        origin = TypeAdapter(VectorOrigin).validate_python(record["origin"])
        norm = TypeAdapter(float | None).validate_python(record["residual_norm"])
        name, hook, hashed = (str(record[k]) for k in ("name", "hook_name", "vector_sha256"))
    except (KeyError, TypeError, ValueError, RecursionError, ValidationError) as error:
        raise ArtifactError(f"{path}: the record cannot be read ({error})") from error
    vector = _vector(path, values, hook, name, origin, norm)
    if hashed != vector.sha256:
        raise ArtifactError(
            f"{path} does not hold the numbers of its record (SHA-256 {vector.sha256[:12]}, the "
            f"record says {hashed[:12]}); write it again"
        )
    return vector


def _vector(
    path: Path,
    values: npt.NDArray[Any],
    hook: str,
    name: str,
    origin: VectorOrigin,
    norm: float | None = None,
) -> SteeringVector:
    try:
        return SteeringVector(values, hook, name, origin, norm)
    except (ConfigError, HookError) as error:
        raise ArtifactError(f"{path}: {error}") from error
