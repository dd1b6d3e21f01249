"""Which latents act on which rows: the selections of TopK and of BatchTopK.

Both encode a chunk of rows at a time into one buffer, so memory does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affectlens.training import selection_kernels as kernels
from affectlens.training.memory import CHUNK_ROWS

BATCH_CHUNK_ROWS = 128
"""As `CHUNK_ROWS`, for BatchTopK, which also holds its candidates."""
_GUESS_ROWS = 32
_TINY = 1e-6
_MARGIN = 0.95
"""The last batch's threshold times this bounds the candidates of the next."""


@dataclass(frozen=True)
class Entries:
    """Active latents in row order: row i owns `bounds[i]:bounds[i + 1]`."""

    bounds: NDArray[np.int64]
    latents: NDArray[np.int32]
    values: NDArray[np.float32]

    def of(self, start: int, stop: int) -> Entries:
        """The entries of rows [start, stop)."""
        return Entries(self.bounds[start : stop + 1], self.latents, self.values)


class HiddenChunks:
    """The hidden layer a chunk of rows at a time, always in the same buffer.

    Buffers are kept between steps because memory that is given back and asked for again fragments.
    """

    def __init__(self, sae: Any, chunk_rows: int) -> None:
        self.sae = sae
        self.chunk_rows = chunk_rows
        self._buffer = torch.empty(0, sae.cfg.d_sae)

    def __call__(self, centred: Tensor) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Pairs (first row, hidden [rows, d_sae]); the array is overwritten by the next chunk."""
        size = min(self.chunk_rows, len(centred))
        if len(self._buffer) < size:
            self._buffer = torch.empty(size, self.sae.cfg.d_sae)
        for start in range(0, len(centred), self.chunk_rows):
            rows = centred[start : start + self.chunk_rows]
            out = self._buffer[: len(rows)]
            torch.addmm(self.sae.b_enc, rows, self.sae.W_enc, out=out)
            yield start, out.numpy()


class TopKSelection:
    """The k largest pre-activations of each row."""

    def __init__(self, sae: Any) -> None:
        self.k = int(sae.cfg.k)
        self._chunks = HiddenChunks(sae, CHUNK_ROWS)
        self._latents = np.empty((0, self.k), np.int32)
        self._values = np.empty((0, self.k), np.float32)

    def __call__(self, centred: Tensor, norms: NDArray[np.float32]) -> Entries:
        """Entries of rows [n, d_in] (decoder bias removed); negative winners have value 0.

        They are overwritten by the next call.
        """
        n = len(centred)
        if len(self._latents) < n:
            self._latents = np.empty((n, self.k), np.int32)
            self._values = np.empty((n, self.k), np.float32)
        latents, values = self._latents[:n], self._values[:n]
        for start, hidden in self._chunks(centred):
            stop = start + len(hidden)
            kernels.select_topk(hidden, norms, self.k, latents[start:stop], values[start:stop])
        return Entries(np.arange(0, n * self.k + 1, self.k), latents.ravel(), values.ravel())


class BatchTopKSelection:
    """The k n largest positive pre-activations of n rows together.

    Exact: candidates above a guessed bound are gathered, and the smallest of the k n largest is
    found among them; where the guess was too high, the batch is encoded again with a lower one. The
    guess changes the time only, never the result, so it is no part of a checkpoint.
    """

    def __init__(self, sae: Any) -> None:
        self.k = float(sae.cfg.k)
        self._chunks = HiddenChunks(sae, BATCH_CHUNK_ROWS)
        self._guess: float | None = None
        self._latents = np.empty(1, np.int32)
        self._keys = np.empty(1, np.float32)

    def __call__(self, centred: Tensor, norms: NDArray[np.float32]) -> Entries:
        """Entries of rows [n, d_in] (decoder bias removed), all of positive value.

        They are overwritten by the next call.
        """
        wanted = int(self.k * len(centred))
        self._reserve(0, wanted)
        bound = self._first_guess(centred, norms) if self._guess is None else self._guess
        bounds = self._above(centred, norms, bound)
        while bounds[-1] < wanted and bound > 0:
            bound = bound / 2 if bound > _TINY else 0.0
            bounds = self._above(centred, norms, bound)
        found = int(bounds[-1])
        threshold, n_ties = -np.inf, 0
        if found > wanted:
            keys = self._keys[:found]
            threshold = float(np.partition(keys, found - wanted)[found - wanted])
            n_ties = wanted - int((keys > np.float32(threshold)).sum())
        bounds, kept = kernels.keep_largest(
            bounds, self._latents, self._keys, norms, threshold, n_ties
        )
        self._guess = max(threshold * _MARGIN, 0.0) if found > wanted else bound
        return Entries(bounds, self._latents[:kept], self._keys[:kept])

    def _first_guess(self, centred: Tensor, norms: NDArray[np.float32]) -> float:
        """The bound that the first rows alone would need."""
        _, hidden = next(self._chunks(centred[:_GUESS_ROWS]))
        keys = np.maximum(hidden * norms, 0).ravel()
        place = max(0, len(keys) - int(self.k * len(hidden)))
        return float(np.partition(keys, place)[place]) * _MARGIN

    def _above(
        self, centred: Tensor, norms: NDArray[np.float32], bound: float
    ) -> NDArray[np.int64]:
        """Gather all entries above `bound` into the buffers; the bounds of the rows [n + 1]."""
        bounds = np.zeros(len(centred) + 1, np.int64)
        for start, hidden in self._chunks(centred):
            stop = start + len(hidden)
            counts = np.empty(len(hidden), np.int64)
            kernels.count_above(hidden, norms, bound, counts)
            bounds[start + 1 : stop + 1] = bounds[start] + np.cumsum(counts)
            self._reserve(int(bounds[start]), int(bounds[stop]))
            own = bounds[start : stop + 1]
            kernels.gather_above(hidden, norms, bound, own, self._latents, self._keys)
        return bounds

    def _reserve(self, used: int, size: int) -> None:
        """Make room for `size` entries; pages that are never written to take no memory."""
        if len(self._keys) < size:
            latents, keys = np.empty(4 * size, np.int32), np.empty(4 * size, np.float32)
            latents[:used], keys[:used] = self._latents[:used], self._keys[:used]
            self._latents, self._keys = latents, keys
