"""Activations on disk: a manifest and HDF5 shards (see `shards`), read without loading everything.

    folder/manifest.json    written last: what made the store, masks, means, documents, hashes
    folder/shard-00000.h5   ...
    folder/plan.json        written first by harvest: which store is being made here

Whole documents are held out by the hash of their id (`corpus.held_out`), so training and evaluation
never share a document, whatever the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affectlens.data.artifacts import sha256_file
from affectlens.data.corpus import TokenWindow, document_hash, held_out
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.manifest import MANIFEST, read_manifest
from affectlens.data.masking import MaskRule
from affectlens.data.shards import CHUNK_ROWS, decode
from affectlens.data.shuffle import group_chunks, rebatch
from affectlens.data.store_views import StoreViews

BUFFER_BYTES = 2 * 2**30
"""Rows held in memory for shuffling by default. A constant, not a share of what the machine has
free: the order of the rows must not depend on the machine."""

MAX_OPEN_FILES = 64
Part = Literal["train", "heldout", "all"]


@dataclass(frozen=True)
class Rows:
    """Activations and where they come from.

    Attributes:
        acts: float32 [n, d_model].
        keep: bool [n]; True for content tokens.
        doc: int32 [n], index into the store's `documents`.
        position: int32 [n], position in the model's window.
        token: int32 [n], token id.
    """

    acts: Tensor
    keep: NDArray[np.bool_]
    doc: NDArray[np.int32]
    position: NDArray[np.int32]
    token: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.doc)


@dataclass(eq=False)
class ActivationStore(StoreViews):
    """Reads a finished store; open it with `ActivationStore.open`."""

    folder: Path
    manifest: dict[str, Any]

    def __post_init__(self) -> None:
        self._files: dict[int, h5py.File] = {}
        self._columns: dict[str, NDArray[Any]] = {}
        ends = np.cumsum([shard["rows"] for shard in self.manifest["shards"]])
        self._starts = np.concatenate([[0], ends]).astype(np.int64)

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> Self:
        """Open a store; with `verify`, hash every shard.

        Raises:
            ArtifactError: no store, another version, or a shard absent, cut short or changed.
        """
        folder = Path(folder)
        return cls(folder, read_manifest(folder, verify=verify))

    @property
    def hook_names(self) -> list[str]:
        """The hooks whose residuals are stored."""
        return list(self.manifest["hooks"])

    @property
    def d_model(self) -> int:
        """Width of a row."""
        return int(self.manifest["d_model"])

    @property
    def n_rows(self) -> int:
        """Tokens stored, masked ones included."""
        return int(self._starts[-1])

    @property
    def documents(self) -> tuple[str, ...]:
        """Document ids; `Rows.doc` indexes them."""
        return tuple(self.manifest["documents"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the store: model, tokenizer, corpus, settings, versions."""
        return dict(self.manifest["provenance"])

    @cached_property
    def held_out(self) -> NDArray[np.bool_]:
        """bool [n documents]: which are never trained on."""
        return np.array(held_out(self.documents), dtype=bool)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the manifest, which holds the hash of every shard."""
        return sha256_file(self.folder / MANIFEST)

    def n_kept(self, hook: str, part: Part = "all") -> int:
        """Content tokens of a hook, in all documents or in one part."""
        return int(self._selection(hook, part, kept_only=True).sum())

    def mask_rule(self, hook: str) -> MaskRule:
        """The rule by which the hook's rows were masked."""
        return MaskRule(**self._hook(hook)["mask_rule"])

    def mean(self, hook: str) -> Tensor:
        """Mean kept residual over all documents, float32 [d_model] (added up in float64)."""
        return torch.tensor(self._hook(hook)["mean"], dtype=torch.float32)

    def rows(self, hook: str, start: int = 0, stop: int | None = None) -> Rows:
        """Rows [start, stop) in corpus order, masked ones included."""
        start, stop, _ = slice(start, stop).indices(self.n_rows)
        return self._gather(hook, np.arange(start, max(start, stop)))

    def heldout(self, hook: str, max_rows: int | None = None, *, kept_only: bool = True) -> Rows:
        """Rows of held-out documents, in corpus order.

        At most `max_rows`, taken as whole documents chosen by hash (the last one may be cut), so
        that a small sample does not come from the first texts of the corpus alone.

        Raises:
            ArtifactError: no document is held out, or none of its rows is kept.
        """
        chosen = self._sample_documents("heldout", max_rows)
        selected = np.isin(self._column("doc"), chosen)
        if kept_only:
            selected &= self._column(f"keep/{self._known(hook)}")
        indices = np.flatnonzero(selected)[:max_rows]
        if not len(indices):
            raise ArtifactError(
                f"{self.folder}: no content token of {hook} is held out; use more text"
            )
        return self._gather(hook, indices)

    def token_windows(
        self, part: Part = "heldout", max_tokens: int | None = None
    ) -> list[TokenWindow]:
        """The token windows as the model saw them, whole ones, about `max_tokens` tokens.

        Raises:
            ArtifactError: the part holds no document.
        """
        docs, tokens = self._column("doc"), self._column("token")
        begins = np.flatnonzero(self._column("position") == 0)
        ends = np.append(begins[1:], self.n_rows)
        chosen = set(self._sample_documents(part, max_tokens).tolist())
        found: list[TokenWindow] = []
        total = 0
        offsets: dict[int, int] = {}
        for begin, end in zip(begins, ends, strict=True):
            doc = int(docs[begin])
            start = offsets.get(doc, 0)
            offsets[doc] = start + int(end - begin) - self.manifest["n_prefix"]
            if doc not in chosen or (max_tokens is not None and total >= max_tokens):
                continue
            found.append(TokenWindow(doc, start, tuple(tokens[begin:end].tolist())))
            total += int(end - begin)
        return found

    def iter_batches(
        self,
        hook: str,
        batch_size: int,
        *,
        generator: np.random.Generator,
        part: Part = "train",
        kept_only: bool = True,
        epochs: int | None = None,
        buffer_chunks: int | None = None,
        buffer_share: float = 1.0,
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Shuffled batches float32 [batch_size, d_model]; the last of a finite run may be smaller.

        Chunks of 1,024 rows are drawn in random order into a buffer whose rows are then shuffled;
        what fits into one buffer is shuffled perfectly and stays in memory between epochs. The
        buffer holds `buffer_share` of the selected rows, but no more than 2 GiB of them. Memory:
        the buffer, one chunk as stored and two batches.

        Args:
            hook: hook name.
            batch_size: rows in a batch.
            generator: draws the order; the order depends on it and on the buffer's size only.
            part: documents to take.
            kept_only: leave masked tokens out.
            epochs: passes over the part; None never ends.
            buffer_chunks: chunks shuffled together; overrides `buffer_share`.
            buffer_share: share of the selected rows in the buffer, above 0 and at most 1.
            skip: batches to pass over without reading; with a fresh generator of the same seed the
                rest is what an uninterrupted run would have given.

        Raises:
            ConfigError: a size is below one.
            ArtifactError: the part holds no row, or a shard is damaged.
        """
        if batch_size < 1 or (buffer_chunks is not None and buffer_chunks < 1):
            raise ConfigError(
                f"batch_size {batch_size} and buffer_chunks {buffer_chunks} must be at least 1"
            )
        if not 0 < buffer_share <= 1:
            raise ConfigError(f"buffer_share {buffer_share} must lie above 0 and at most at 1")
        selected = np.flatnonzero(self._selection(hook, part, kept_only=kept_only))
        if not len(selected):
            raise ArtifactError(
                f"{self.folder}: no row of {hook} in the part {part!r}; use more text"
            )
        most = min(int(buffer_share * len(selected)), BUFFER_BYTES // (4 * self.d_model))
        capacity = buffer_chunks * CHUNK_ROWS if buffer_chunks else most
        pieces = self._shuffled(
            hook, selected, generator, epochs, max(capacity, 1), skip * batch_size
        )
        return rebatch(pieces, batch_size)

    def first_not_finite(self, hook: str) -> tuple[str, int] | None:
        """Document id and position of the first row that holds NaN or inf; reads the whole hook."""
        for start in range(0, self.n_rows, CHUNK_ROWS):
            rows = self.rows(hook, start, start + CHUNK_ROWS)
            bad = np.flatnonzero(~torch.isfinite(rows.acts).all(-1).numpy())
            if len(bad):
                return self.documents[int(rows.doc[bad[0]])], int(rows.position[bad[0]])
        return None

    def close(self) -> None:
        """Close the shard files; they are opened again when needed."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"ActivationStore({str(self.folder)!r}, {self.n_rows:,} rows, hooks {self.hook_names})"
        )

    def _shuffled(
        self,
        hook: str,
        selected: NDArray[np.int64],
        generator: np.random.Generator,
        epochs: int | None,
        capacity: int,
        skip: int,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs (rows, order): the stream is rows[order] of each in turn, after `skip` rows."""
        chunks = self._chunks(selected)
        # One buffer for all groups: batches are copies, so it may be overwritten between them.
        buffer = torch.empty(min(len(selected), max(capacity, CHUNK_ROWS)), self.d_model)
        rows, whole = buffer, False
        epoch = 0
        while epochs is None or epoch < epochs:
            epoch += 1
            for group in group_chunks(
                [chunks[i] for i in generator.permutation(len(chunks))], capacity
            ):
                indices = np.sort(np.concatenate(group))
                order = generator.permutation(len(indices))
                if skip >= len(indices):
                    skip -= len(indices)
                    continue
                if not whole:
                    rows = self._read(hook, indices, buffer)
                    whole = len(indices) == len(selected)
                yield rows, torch.from_numpy(order[skip:])
                skip = 0

    def _chunks(self, selected: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Split ascending row indices at the chunk borders of the shards."""
        borders = [
            border
            for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True)
            for border in range(start, stop, CHUNK_ROWS)
        ]
        parts = np.split(selected, np.searchsorted(selected, borders[1:]))
        return [part for part in parts if len(part)]

    def _sample_documents(self, part: Part, max_rows: int | None) -> NDArray[np.int64]:
        """Documents of a part, in the order of their hashes until they hold `max_rows` rows."""
        present = np.flatnonzero(self._part_documents(part))
        if not len(present):
            raise ArtifactError(
                f"{self.folder}: no document in the part {part!r}; the corpus has "
                f"{len(self.documents)} and documents are never divided, so give more of them"
            )
        if max_rows is None:
            return present
        sizes = np.bincount(self._column("doc"), minlength=len(self.documents))
        order = sorted(present.tolist(), key=lambda i: document_hash("sample:" + self.documents[i]))
        before = np.cumsum(sizes[order]) - sizes[order]
        return np.sort(np.array(order)[before < max_rows])

    def _part_documents(self, part: Part) -> NDArray[np.bool_]:
        marks = {"train": ~self.held_out, "heldout": self.held_out, "all": self.held_out | True}
        if part not in marks:
            raise ConfigError(f"unknown part {part!r}; known: train, heldout, all")
        return marks[part]

    def _selection(self, hook: str, part: Part, *, kept_only: bool) -> NDArray[np.bool_]:
        selected = self._part_documents(part)[self._column("doc")]
        return selected & self._column(f"keep/{self._known(hook)}") if kept_only else selected

    def _hook(self, hook: str) -> dict[str, Any]:
        return self.manifest["hooks"][self._known(hook)]

    def _known(self, hook: str) -> str:
        if hook not in self.manifest["hooks"]:
            raise ArtifactError(
                f"{self.folder} has no hook {hook!r}; it holds {', '.join(self.hook_names)}"
            )
        return hook

    def _gather(self, hook: str, indices: NDArray[np.int64]) -> Rows:
        columns = (
            self._column(c)[indices]
            for c in (f"keep/{self._known(hook)}", "doc", "position", "token")
        )
        return Rows(self._read(hook, indices), *columns)

    def _read(self, hook: str, indices: NDArray[np.int64], out: Tensor | None = None) -> Tensor:
        """Rows at ascending indices, float32 [n, d_model]; with `out`, its first n rows."""
        if out is None:
            out = torch.empty(len(indices), self.d_model)
        out = out[: len(indices)]
        done = 0
        for part in self._chunks(indices):
            shard = int(np.searchsorted(self._starts, part[0], side="right")) - 1
            local = part - self._starts[shard]
            first, last = int(local[0]), int(local[-1]) + 1
            array, encoding = self._dataset(shard, f"resid/{hook}", first, last)
            rows, place = decode(array, encoding), out[done : done + len(part)]
            if last - first > len(local):
                torch.index_select(rows, 0, torch.from_numpy(local - first), out=place)
            else:
                place.copy_(rows)
            done += len(part)
        return out

    def _column(self, name: str) -> NDArray[Any]:
        """A per-row column over all shards; a few bytes a row, so it stays in memory."""
        if name not in self._columns:
            shards = self.manifest["shards"]
            parts = [self._dataset(i, name, 0, s["rows"])[0] for i, s in enumerate(shards)]
            self._columns[name] = np.concatenate(parts)
        return self._columns[name]

    def _dataset(
        self, shard: int, name: str, start: int, stop: int
    ) -> tuple[NDArray[Any], str | None]:
        path = self.folder / self.manifest["shards"][shard]["file"]
        try:
            if shard not in self._files:
                if len(self._files) >= MAX_OPEN_FILES:
                    self._files.pop(next(iter(self._files))).close()
                self._files[shard] = h5py.File(path, "r")
            dataset = self._files[shard][name]
            array = dataset[start:stop]
            if len(array) != stop - start:
                raise ValueError(f"{len(dataset)} rows in {name}, {stop} expected")
            return array, dataset.attrs.get("encoding")
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"{path}, {name}: damaged or changed ({error}); harvest again"
            ) from error
