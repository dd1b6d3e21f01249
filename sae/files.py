"""Opening weight files without running anything in them, and turning failures into one error."""

from __future__ import annotations

import math
import pickle
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from affectlens.sae.errors import SAEError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FLOAT_NAMES = ("F16", "BF16", "F32", "F64")
_MAX_EXPANSION = 100
_SMALL = 16 * 2**20
_MAX_NPY_HEADER = 10_000


# Filters of warnings belong to the process: two threads that set and restore them would mix.
_FILTERS = threading.RLock()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever is raised on foreign files into one error of ours; silence advice.

    Raises:
        SAEError: in place of any other exception, which it names.
    """
    try:
        with _FILTERS, warnings.catch_warnings():
            # It advises to load the model through HookedTransformer; `SAEInfo.centre` does instead.
            warnings.filterwarnings("ignore", "(?s).*model_from_pretrained_kwargs.*", UserWarning)
            # `SAEInfo.notes` says it.
            warnings.filterwarnings("ignore", "(?s).*norm_scaling_factor not found.*", UserWarning)
            yield
    except SAEError:
        raise
    except Exception as error:  # the readers of foreign bytes raise whatever their parsers raise
        raise SAEError(f"{what}: {type(error).__name__}: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        SAEError: damaged, or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SAEError(f"{path} cannot be read as safetensors ({error}); it is cut short, damaged "
                       "or of another form: fetch it again") from error  # fmt: skip


def check_safetensors(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """Compare the header of a file with the shapes that its configuration implies.

    Raises:
        SAEError: damaged, a tensor is absent or of another shape, or does not hold floats.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            names = set(handle.keys())
            missing = [name for name in shapes if name not in names]
            if missing:
                raise SAEError(f"{path} has no tensor {missing[0]}; it holds {sorted(names)}")
            for name in (*shapes, *sorted(names - set(shapes))):
                part = handle.get_slice(name)
                got = part.get_shape()
                if name in shapes and got != list(shapes[name]):
                    raise SAEError(
                        f"{path}: {name} is {got}, but cfg.json says {list(shapes[name])}"
                    )
                if part.get_dtype() not in _FLOAT_NAMES:
                    raise SAEError(f"{path}: {name} holds {part.get_dtype()}, expected floats")
    except (SafetensorError, OSError) as error:
        raise SAEError(f"{path} cannot be read ({error}); it is cut short or damaged") from error


def read_torch(path: Path) -> dict[str, Any]:
    """The state dictionary of a `.pt` file, read without running anything in it.

    Raises:
        SAEError: damaged, holds more than tensors and plain values, or is not a dictionary.
    """
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SAEError(
            f"{path} is damaged, or holds more than tensors: it is not opened, since that could "
            "run code. Where it was made, save the state dictionary alone "
            "(torch.save(sae.state_dict(), 'ae.pt'))"
        ) from error
    except Exception as error:  # torch raises what its parsers raise on damaged files
        raise SAEError(f"{path} cannot be read as a torch file ({type(error).__name__}); it is cut "
                       "short, damaged or of another form: fetch it again") from error  # fmt: skip
    if not isinstance(found, Mapping):
        raise SAEError(f"{path} holds a {type(found).__name__}, expected a state dictionary; save "
                       "sae.state_dict()")  # fmt: skip
    return {str(name): value for name, value in found.items()}


def read_npz(path: Path) -> dict[str, Tensor]:
    """All arrays of an `.npz` file as float32 tensors.

    Raises:
        SAEError: damaged, holds objects, or would unpack to far more than its size.
    """
    try:
        # The handle is ours: NumPy leaves it open when the archive is damaged.
        with path.open("rb") as handle, zipfile.ZipFile(handle) as archive:
            _check_expansion(path, archive)
            return {
                info.filename.removesuffix(".npy"): _npy(path, archive, info)
                for info in archive.infolist()
            }
    except SAEError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise SAEError(f"{path} cannot be read as npz ({error}); fetch it again") from error


def take(
    state: Mapping[str, Any], name: str, shape: Sequence[int | None], where: Path | str
) -> Tensor:
    """A tensor of a state dictionary as float32, after a look at type, shape and storage.

    Args:
        state: the dictionary.
        name: its key.
        shape: expected sizes; None for any.
        where: for the messages.

    Raises:
        SAEError: absent, not a dense float tensor, of another shape, or larger than its data.
    """
    if name not in state:
        raise SAEError(f"{where} has no {name}; it holds {', '.join(sorted(state))}")
    value = state[name]
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.dtype not in _FLOATS:
        what = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise SAEError(f"{where}: {name} is {what}, expected a tensor of floats")
    got = tuple(value.shape)
    if len(got) != len(shape) or any(b not in (None, a) for a, b in zip(got, shape)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise SAEError(f"{where}: {name} is {list(got)}, expected [{wanted}]; the tensors do not "
                       "fit together")  # fmt: skip
    if 0 in got:
        raise SAEError(f"{where}: {name} is {list(got)}, which holds nothing; fetch it again")
    # A stored view can claim any shape over a few bytes; made dense, it would fill the memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise SAEError(f"{where}: {name} claims {list(got)} over fewer bytes; the file is damaged")
    return value.detach().to(torch.float32)


def _check_expansion(path: Path, archive: zipfile.ZipFile) -> None:
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > _MAX_EXPANSION * path.stat().st_size + _SMALL:
        raise SAEError(f"{path} would unpack to {unpacked:,} bytes; fetch it again")


def _npy(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}.get(version)  # fmt: skip
        if read is None:
            raise SAEError(f"{path}: {info.filename} has npy version {version}, expected 1 or 2")
        shape, _, dtype = read(member, max_header_size=_MAX_NPY_HEADER)
        # The shape is a claim of the file; the size of the member says what is really there.
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != info.file_size - member.tell():
            raise ValueError(f"{info.filename} claims {shape} of {dtype}, which its bytes are not")
        if dtype.kind not in "fiu":
            raise ValueError(f"{info.filename} holds {dtype}, expected numbers")
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
    return torch.from_numpy(np.array(array, np.float32))
