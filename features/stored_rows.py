"""Edits applied to stored residuals, outside any forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.hooks import EditContext, EditFn
from affectlens.data.token_batches import real_positions
from affectlens.features.prepared_texts import TextBlock
from affectlens.features.resumed import Stored
from affectlens.sae.model import SparseAutoencoder

LATENT_BYTES = 2**28
"""Dense latents that are held at once, at most (those of one row at least)."""

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class StoredRows:
    """The rows of a block's texts as one rectangle: every text with every suffix, right padded.

    Attributes:
        resid: [n_texts * n_suffixes, seq, d_model], text by text.
        sae: the autoencoder, which gives the latents of these rows without encoding them anew.
        n_suffixes: rows of a text.
    """

    def __init__(self, sae: SparseAutoencoder, block: TextBlock) -> None:
        self.n_suffixes = len(block.stored[0].rows.ends)
        rows = [row for stored in block.stored for row in stored.unpacked()]
        self.resid = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        self._attention = self._first([len(row) for row in rows])
        self._positions = real_positions(self._attention)
        self._shared = self._first([len(s.rows.shared) for s in block.stored])
        self.sae = _Remembering(sae)
        self._stored = block.stored
        self._per_call = max(1, LATENT_BYTES // (4 * sae.d_sae * self.resid.shape[1]))
        self._known: Tensor | None = None
        self._active: Tensor | None = None

    def fires(self, features: Sequence[int]) -> Flags:
        """Whether any of these latents is not zero somewhere in a text's rows, bool [n_texts]."""
        if self._active is None:
            rows = torch.arange(len(self.resid)).split(self._per_call)
            active = torch.cat([self._active_in(at) for at in rows])
            self._active = active.unflatten(0, (-1, self.n_suffixes)).any(1)
        return self._active[:, list(features)].any(1).cpu().numpy()

    def calls(self, places: Indices) -> list[tuple[Tensor, Indices]]:
        """Rows of the texts at `places`, and which of these texts each is, call by call."""
        owner = np.repeat(np.arange(len(places)), self.n_suffixes)
        rows = places[owner] * self.n_suffixes + np.tile(np.arange(self.n_suffixes), len(places))
        cuts = range(self._per_call, len(rows), self._per_call)
        parts = zip(np.split(rows, cuts), np.split(owner, cuts), strict=True)
        return [(torch.from_numpy(part), whose) for part, whose in parts]

    def edited(self, edit: EditFn, rows: Tensor) -> Tensor | None:
        """What an edit makes of some rows [n, seq, d_model]; None if it leaves them as they are."""
        everything = len(rows) == len(self.resid)
        x = self.resid if everything else self.resid[rows]
        if self._per_call >= len(self.resid):
            self.sae.remember(x, lambda: self._latents if everything else self._latents[rows])
        try:
            return edit(x, EditContext(self._positions[rows], self._attention[rows], "prompt"))
        finally:
            self.sae.forget()

    def compared(self, edited: Tensor, places: Indices) -> tuple[Flags, Flags]:
        """Which rows of [n, n_suffixes, seq, d_model] were changed, and begin as the first does.

        Only the tokens that all rows of a text begin with are compared for the latter.
        """
        at = torch.from_numpy(places)
        before = self.resid.unflatten(0, (-1, self.n_suffixes))[at]
        changed = (edited != before).flatten(2).any(-1)
        apart = (edited != edited[:, :1]).any(-1) & self._shared[at][:, None]
        return changed.cpu().numpy(), (~apart.any(-1)).cpu().numpy()

    def _first(self, lengths: Sequence[int]) -> Tensor:
        """Marks the first tokens of each row, bool [n, seq]."""
        columns = torch.arange(self.resid.shape[1], device=self.resid.device)
        return columns < torch.tensor(lengths, device=self.resid.device)[:, None]

    @property
    def _latents(self) -> Tensor:
        """Latents of every row [n_rows, seq, d_sae], the shared tokens of a text encoded once."""
        if self._known is None:
            known: list[Tensor] = []
            for stored in self._stored:
                known += Stored(stored.rows, self.sae.encode(stored.resid)).unpacked()
            self._known = torch.nn.utils.rnn.pad_sequence(known, batch_first=True)
        return self._known

    def _active_in(self, rows: Tensor) -> Tensor:
        fits = self._per_call >= len(self.resid)
        z = self._latents[rows] if fits else self.sae.encode(self.resid[rows])
        return ((z != 0) & self._attention[rows][..., None]).any(1)


class _Remembering(SparseAutoencoder):
    """An autoencoder that is told the latents of one residual, so that edits share the encoding."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.__dict__.update(sae.__dict__)
        self.forget()

    def remember(self, x: Tensor, latents: Callable[[], Tensor]) -> None:
        """Give these latents when this very tensor is encoded, or a view of all of it."""
        self._told: tuple[Tensor, Callable[[], Tensor]] | None = (x, latents)

    def forget(self) -> None:
        """Encode whatever comes."""
        self._told = None

    def encode(self, x: Tensor) -> Tensor:
        """Latents [..., d_sae] of residuals [..., d_in], see `SparseAutoencoder.encode`."""
        if self._told is not None and _is_all_of(x, self._told[0]):
            return self._told[1]()
        return super().encode(x)


def _is_all_of(view: Tensor, tensor: Tensor) -> bool:
    layouts = [(t.data_ptr(), t.shape, t.stride(), t.dtype) for t in (view, tensor)]
    return layouts[0] == layouts[1]
