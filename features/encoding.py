"""Latent activations of many texts, token by token, kept sparse.

One `TokenActivations` holds what one SAE gives on every token of every text, as a compressed
sparse row matrix (one row a token, one column a latent). An entry is kept if the latent's value is
not 0. For ReLU, JumpReLU and TopK that means above 0; an architecture whose latents can be
negative keeps those as well. Tokens that the SAE's mask leaves out have no entries.

Size: 8 bytes an entry (latent int32, value float32) and 13 bytes a token, before compression. It
does not grow with d_sae. 480 texts of 120 tokens with 64 active latents a token need 29 MB of
entries; with 500 active latents, 230 MB, for 24,576 latents as for 1,000,000.

File: a block of 512 bytes with kind, format version and the SHA-256 of all that follows, then HDF5
(whose readers skip such a block), one dataset an array, each with a Fletcher-32 checksum, shuffled
and deflated. The hash is compared before the HDF5 library sees a byte, because a single wrong byte
can make that library run for ever. No time stamps: equal content gives equal bytes. The file is
built in memory and written by Python: a disk that fills up is then an ordinary error.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt
import scipy.sparse

from affectlens.data.artifacts import atomic_path
from affectlens.data.errors import ArtifactError, StimulusError

FORMAT_VERSION = 1
_MAGIC = b"AffectLens token activations, format version "
_BLOCK = 512
_CHUNK = 65_536
_ARRAYS: dict[str, type[np.generic]] = {
    "first": np.int64,
    "tokens": np.int32,
    "keep": np.bool_,
    "indptr": np.int64,
    "latents": np.int32,
    "values": np.float32,
}


@dataclass(frozen=True)
class Reading:
    """What is put around every text before the model reads it.

    Attributes:
        prefix: goes before the text.
        suffix: goes after the text, with its leading space.
        name: what the reading is called: "text" for the bare text, "suffix" for a sentence that
            every text shares, else the name of a readout prompt.
    """

    prefix: str = ""
    suffix: str = ""
    name: str = "text"

    def around(self, text: str) -> str:
        """The text as the model reads it."""
        return self.prefix + text + self.suffix


@dataclass(frozen=True, eq=False)
class TokenActivations:
    """One SAE, many texts, token by token, sparse.

    Tokens of item i are rows `first[i]:first[i + 1]`; entries of row t are
    `indptr[t]:indptr[t + 1]`, with rising latents.

    Attributes:
        hook_name: where the SAE reads.
        sae_sha256: hash of the SAE's weights.
        d_sae: number of latents.
        reading: what was put around the texts.
        item_ids: [n_items] distinct ids.
        first: int64 [n_items + 1].
        tokens: int32 [n_tokens] token ids, those that the mask leaves out included.
        keep: bool [n_tokens]; False on the first token of a text and on norm outliers, as far as
            the SAE asks for it. Such tokens have no entries.
        n_tail: tokens at the end of every item that belong to the shared suffix; 0 for none.
        indptr: int64 [n_tokens + 1].
        latents: int32 [n_entries].
        values: float32 [n_entries]; finite and not 0.
        n_head: tokens at the start of every item that belong to the shared prefix; 0 for none.

    Raises:
        ArtifactError: the arrays do not fit together.
    """

    hook_name: str
    sae_sha256: str
    d_sae: int
    reading: Reading
    item_ids: tuple[str, ...]
    first: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    keep: npt.NDArray[np.bool_]
    n_tail: int
    indptr: npt.NDArray[np.int64]
    latents: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    n_head: int = 0

    def __post_init__(self) -> None:
        problem = _misfit(self)
        if problem:
            raise ArtifactError(f"these token activations do not fit together: {problem}")

    def __repr__(self) -> str:
        return (
            f"TokenActivations({self.hook_name}, {self.n_items:,} items, {self.n_tokens:,} tokens, "
            f"{len(self.values):,} entries, d_sae={self.d_sae:,}, reading {self.reading.name!r})"
        )

    @property
    def n_items(self) -> int:
        """Number of texts."""
        return len(self.item_ids)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all texts, those that the mask leaves out included."""
        return len(self.tokens)

    def matrix(self) -> scipy.sparse.csr_array:
        """Activations as float32 [n_tokens, d_sae]; shares memory with this object."""
        return scipy.sparse.csr_array(
            (self.values, self.latents, self.indptr), shape=(self.n_tokens, self.d_sae)
        )

    def items(self) -> npt.NDArray[np.int64]:
        """The item that each token belongs to, as an index into `item_ids`; [n_tokens]."""
        return np.repeat(np.arange(self.n_items), np.diff(self.first))

    def positions(self) -> npt.NDArray[np.int64]:
        """Position of each token in its text, from 0; [n_tokens]."""
        return np.arange(self.n_tokens) - np.repeat(self.first[:-1], np.diff(self.first))

    def tail(self) -> npt.NDArray[np.bool_]:
        """Tokens that belong to the shared suffix, masked ones included; [n_tokens]."""
        lengths = np.diff(self.first)
        return self.positions() >= np.repeat(lengths - self.n_tail, lengths)

    def content(self) -> npt.NDArray[np.bool_]:
        """Tokens of the text itself, without prefix and suffix, masked ones included; [n_tokens].

        A token in which the tokenizer merged the end of the text with the start of the suffix is
        the text's.
        """
        own: npt.NDArray[np.bool_] = (self.positions() >= self.n_head) & ~self.tail()
        return own

    def item(self, item_id: str) -> TokenActivations:
        """One item alone, in the same form.

        Raises:
            StimulusError: no item has this id.
        """
        if item_id not in self.item_ids:
            near = difflib.get_close_matches(item_id, self.item_ids, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise StimulusError(f"no item {item_id!r} among {self.n_items} encoded items{hint}")
        i = self.item_ids.index(item_id)
        rows = slice(self.first[i], self.first[i + 1])
        entries = slice(self.indptr[rows.start], self.indptr[rows.stop])
        return TokenActivations(
            hook_name=self.hook_name,
            sae_sha256=self.sae_sha256,
            d_sae=self.d_sae,
            reading=self.reading,
            item_ids=(item_id,),
            first=self.first[i : i + 2] - rows.start,
            tokens=self.tokens[rows],
            keep=self.keep[rows],
            n_tail=self.n_tail,
            indptr=self.indptr[rows.start : rows.stop + 1] - entries.start,
            latents=self.latents[entries],
            values=self.values[entries],
            n_head=self.n_head,
        )

    def require(self, sae_sha256: str, reading: Reading) -> None:
        """Refuse activations of another SAE, or of texts that were read in another way.

        Raises:
            ArtifactError: either differs.
        """
        if self.sae_sha256 != sae_sha256:
            raise ArtifactError(
                f"the encoded texts are of the SAE {self.sae_sha256[:12]}, the SAE given is "
                f"{sae_sha256[:12]}; encode them with the SAE that was searched"
            )
        if self.reading != reading:
            raise ArtifactError(
                f"the encoded texts were read as {self.reading}, this search needs {reading}; "
                "encode them so"
            )

    def write(self, path: Path | str) -> Path:
        """Write the HDF5 file, complete or not at all; missing folders are made.

        Raises:
            MachineError: the disk is full; what stood there before is untouched.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", libver=("v110", "v110"), userblock_size=_BLOCK) as file:
            for key, value in _header(self).items():
                file.attrs[key] = value
            _dataset(file, "item_ids", _packed(self.item_ids))
            for name in _ARRAYS:
                _dataset(file, name, self.__dict__[name])
        content = buffer.getbuffer()
        content[:_BLOCK] = _block(hashlib.sha256(content[_BLOCK:]).hexdigest())
        with atomic_path(path) as staged:
            staged.write_bytes(content)
        return path

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read what `write` wrote, and check all of it.

        Raises:
            ArtifactError: absent, cut short, damaged, of another kind or version.
        """
        path = Path(path)
        _check_bytes(path)
        try:
            with h5py.File(path, "r") as file:
                return cls(**_fields(file))
        except (OSError, KeyError, ValueError, TypeError, ArtifactError) as error:
            raise ArtifactError(f"{path} is damaged: {error}; {_CURE}") from error


_CURE = "delete it and encode the texts again"


def _block(sha256: str) -> bytes:
    """The first bytes of a file whose other bytes have this hash."""
    return (_MAGIC + f"{FORMAT_VERSION}\nSHA-256 {sha256}\n".encode()).ljust(_BLOCK, b"\0")


def _check_bytes(path: Path) -> None:
    """Raise unless the file is of this kind and version and holds the bytes that were written."""
    try:
        with path.open("rb") as handle:
            block = handle.read(_BLOCK)
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: encode the texts first") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error})") from error
    if not block.startswith(_MAGIC) or b"\n" not in block:
        raise ArtifactError(f"{path} is not a file of token activations, or cut short; {_CURE}")
    version = block[len(_MAGIC) :].partition(b"\n")[0].decode("ascii", "replace")
    if version != str(FORMAT_VERSION):
        raise ArtifactError(
            f"{path} has format version {version[:20]!r}; this release reads {FORMAT_VERSION}: "
            f"{_CURE}"
        )
    if block != _block(sha256):
        raise ArtifactError(f"{path} is damaged or cut short: its SHA-256 differs; {_CURE}")


def _header(encoded: TokenActivations) -> dict[str, Any]:
    """What the file keeps as attributes."""
    return {
        "format_version": FORMAT_VERSION,
        "hook_name": encoded.hook_name,
        "sae_sha256": encoded.sae_sha256,
        "d_sae": int(encoded.d_sae),
        "n_head": int(encoded.n_head),
        "n_tail": int(encoded.n_tail),
        # As JSON, because HDF5 text cannot hold every character that a prompt can.
        "reading": json.dumps(asdict(encoded.reading), sort_keys=True),
    }


def _packed(item_ids: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """Ids as the bytes of a JSON list: HDF5 keeps text of varying length outside its checksums."""
    return np.frombuffer(json.dumps(item_ids).encode("ascii"), dtype=np.uint8)


def _dataset(file: h5py.File, name: str, array: npt.NDArray[Any]) -> None:
    if not array.size:
        file.create_dataset(name, data=array, track_times=False)
        return
    file.create_dataset(
        name,
        data=array,
        chunks=(min(_CHUNK, len(array)),),
        fletcher32=True,
        shuffle=True,
        compression="gzip",
        compression_opts=1,
        track_times=False,
    )


def _fields(file: h5py.File) -> dict[str, Any]:
    """Arguments of `TokenActivations` from an open file of the right kind."""
    attrs = file.attrs
    ids = json.loads(_array(file, "item_ids", np.uint8).tobytes())
    return {
        "hook_name": str(attrs["hook_name"]),
        "sae_sha256": str(attrs["sae_sha256"]),
        "d_sae": int(attrs["d_sae"]),
        "n_head": int(attrs["n_head"]),
        "n_tail": int(attrs["n_tail"]),
        "reading": Reading(**json.loads(attrs["reading"])),
        "item_ids": tuple(str(i) for i in ids),
        **{name: _array(file, name, dtype) for name, dtype in _ARRAYS.items()},
    }


def _array(file: h5py.File, name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    dataset = file[name]
    if dataset.dtype != dtype or dataset.ndim != 1:
        raise ArtifactError(f"{name} is {dataset.dtype} {dataset.shape}, not {dtype.__name__} [n]")
    array: npt.NDArray[Any] = dataset[()]
    return array


def _misfit(e: TokenActivations) -> str:
    """What is wrong with the arrays, in words; empty if nothing is."""
    for name, dtype in _ARRAYS.items():
        array = e.__dict__[name]
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
            return f"{name} is not a one-dimensional array of {dtype.__name__}"
    if not e.item_ids or len(set(e.item_ids)) != len(e.item_ids):
        return f"{len(e.item_ids)} items, which need to be at least one and of distinct ids"
    if e.d_sae < 1 or e.n_head < 0 or e.n_tail < 0:
        return f"d_sae={e.d_sae}, n_head={e.n_head}, n_tail={e.n_tail}"
    if not _pointers(e.first, e.n_items, e.n_tokens) or (np.diff(e.first) < 1).any():
        return f"first does not divide {e.n_tokens} tokens into {e.n_items} items of one or more"
    if int(np.diff(e.first).min()) < max(e.n_head, e.n_tail):
        return f"an item is shorter than the shared prefix ({e.n_head}) or suffix ({e.n_tail})"
    if len(e.keep) != e.n_tokens:
        return f"keep has {len(e.keep)} tokens, tokens {e.n_tokens}"
    return _entry_misfit(e)


def _entry_misfit(e: TokenActivations) -> str:
    if len(e.latents) != len(e.values) or not _pointers(e.indptr, e.n_tokens, len(e.values)):
        return (
            f"indptr does not divide {len(e.values)} values and {len(e.latents)} latents into "
            f"{e.n_tokens} tokens"
        )
    if (np.diff(e.indptr)[~e.keep] > 0).any():
        return "a token that the mask leaves out has entries"
    if not len(e.values):
        return ""
    if e.latents.min() < 0 or e.latents.max() >= e.d_sae:
        return f"latents lie in {e.latents.min()} to {e.latents.max()}, not 0 to {e.d_sae - 1}"
    rises = np.diff(e.latents) > 0
    starts = e.indptr[1:-1]
    rises[starts[(starts > 0) & (starts < len(e.values))] - 1] = True
    if not rises.all():
        return "the latents of a token do not rise"
    if not np.isfinite(e.values).all() or (e.values == 0).any():
        return "a value is 0, infinite or NaN"
    return ""


def _pointers(pointers: npt.NDArray[np.int64], n: int, last: int) -> bool:
    return bool(
        len(pointers) == n + 1
        and pointers[0] == 0
        and pointers[-1] == last
        and (np.diff(pointers) >= 0).all()
    )
