"""GGUF control vectors, the files that llama.cpp's `--control-vector` and repeng read.

    general.architecture        "controlvector"
    controlvector.model_hint    the model's architecture as transformers calls it, such as "llama"
    controlvector.layer_count   uint32, number of directions
    direction.N                 float32 [d_model], for N from 1 on

Written by the `gguf` package. Read by a reader of our own, since a control vector may come from
anywhere and the package believes the counts in a file: here every count and length is compared with
the bytes that are there, and nothing is read but texts and float32 rows. The layout is that of the
GGUF specification (ggml, docs/gguf.md), versions 2 and 3, little-endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ArtifactError

Floats = npt.NDArray[np.float32]

ARCHITECTURE = "controlvector"
HINT = f"{ARCHITECTURE}.model_hint"
MAX_BYTES = 1 << 28
"""Far above the 4 bytes x layers x d_model of any model."""
MAX_ENTRIES = 4096
"""Keys, or tensors, that a file may have."""

_DIRECTION = re.compile(r"direction\.([1-9]\d{0,5})")
_UNREADABLE = (ValueError, struct.error, IndexError, OverflowError, UnicodeDecodeError)
# Bytes of the scalar types, by their number in the specification; 8 is a text, 9 an array.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY, _F32 = 8, 9, 0
_MAX_DIMENSIONS = 4


@dataclass(frozen=True, eq=False)
class ControlVector:
    """What a file holds.

    Attributes:
        texts: its keys whose values are texts.
        directions: N -> float32 [d_model], all of one width.
    """

    texts: Mapping[str, str]
    directions: Mapping[int, Floats]


def write_control_vector(
    path: Path, directions: Mapping[int, Floats], hint: str, texts: Mapping[str, str]
) -> None:
    """Write directions and texts to `path`; not atomic: give a staged path."""
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        writer.add_string(HINT, utf8(hint))
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(directions))
        for key, value in texts.items():
            if value:  # the package leaves out an empty one, and says nothing
                writer.add_string(key, utf8(value))
        for layer, values in sorted(directions.items()):
            writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(values, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_control_vector(path: Path) -> ControlVector:
    """Read a control vector.

    Raises:
        ArtifactError: not a little-endian GGUF file, cut short, no control vector, or too large.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ArtifactError(f"{path} has more than 256 MiB, which no control vector has")
    try:
        texts, tensors = _Reader(path.read_bytes()).content()
    except _UNREADABLE as error:
        raise ArtifactError(f"{path} is not a GGUF file or is cut short ({error})") from error
    kind = texts.get("general.architecture")
    if kind != ARCHITECTURE:
        raise ArtifactError(f"{path} holds {str(kind)[:40]!r}, no control vector")
    found: dict[int, Floats] = {}
    for name, values in tensors.items():
        match = _DIRECTION.fullmatch(name)
        if match is None or values is None:
            raise ArtifactError(
                f"{path}: tensor {name[:40]!r} has no place in a control vector, which holds "
                "direction.N (N from 1 on), float32 of one dimension"
            )
        found[int(match[1])] = values
    if len({len(values) for values in found.values()}) != 1:
        raise ArtifactError(
            f"{path} holds {len(found)} directions of {len({len(v) for v in found.values()})} "
            "widths; a control vector has at least one direction, and one width"
        )
    return ControlVector(texts, found)


def utf8(text: str) -> str:
    """`text` with what UTF-8 cannot hold (half of a surrogate pair) written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _Reader:
    """Walks through the bytes of a file; no read goes beyond them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def content(self) -> tuple[dict[str, str], dict[str, Floats | None]]:
        """The texts, and the tensors: None for one that is not float32 of one dimension."""
        if self.take(4) != b"GGUF":
            raise ValueError("it does not begin with 'GGUF'")
        version = self.number("<I")
        if version not in (2, 3):
            raise ValueError(f"version {version}, known are 2 and 3 (little-endian)")
        n_tensors, n_keys = self.number("<Q"), self.number("<Q")
        if max(n_tensors, n_keys) > MAX_ENTRIES:
            raise ValueError(f"{n_keys} keys and {n_tensors} tensors; at most {MAX_ENTRIES}")
        texts: dict[str, str] = {}
        alignment = 32
        for _ in range(n_keys):
            key, kind = self.text(), self.number("<I")
            if kind == _TEXT:
                texts[key] = self.text()
            elif key == "general.alignment" and kind == 4:
                alignment = self.number("<I")
            else:
                self.skip(kind)
        if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"alignment {alignment} is no power of two")
        places = [self.tensor() for _ in range(n_tensors)]
        start = -(-self.at // alignment) * alignment
        found: dict[str, Floats | None] = {}
        for name, shape, kind, offset in places:
            if name in found:
                raise ValueError(f"two tensors {name[:40]!r}")
            plain = kind == _F32 and len(shape) == 1
            found[name] = self.row(start + offset, shape[0]) if plain else None
        return texts, found

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of a tensor."""
        name, n_dimensions = self.text(), self.number("<I")
        if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
            raise ValueError(f"tensor {name[:40]!r} has {n_dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(n_dimensions))
        return name, shape, self.number("<I"), self.number("<Q")

    def row(self, start: int, n: int) -> Floats:
        """Float32 [n] at a place."""
        end = start + 4 * n
        if end > len(self.data):
            raise ValueError(f"a tensor ends at byte {end} of {len(self.data)}")
        return np.frombuffer(self.data, "<f4", count=n, offset=start).astype(np.float32)

    def skip(self, kind: int) -> None:
        """Pass over a value that is not wanted."""
        if kind == _ARRAY:
            of, n = self.number("<I"), self.number("<Q")
            if of in _SIZES:
                self.take(n * _SIZES[of])
            elif of == _TEXT and n <= len(self.data):
                for _ in range(n):
                    self.text()
            else:
                raise ValueError(f"an array of {n} values of type {of}")
        elif kind == _TEXT:
            self.text()
        elif kind in _SIZES:
            self.take(_SIZES[kind])
        else:
            raise ValueError(f"a value of the unknown type {kind}")

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8")

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise ValueError(f"{n} bytes are said to follow byte {self.at} of {len(self.data)}")
        self.at += n
        return self.data[self.at - n : self.at]
