"""Sums and dot products over active entries, by Triton on a GPU and by torch everywhere else.

An entry is a pair (row, latent) with the latent's activation; E of them in row order stand for the
activations [n, d_sae], which are zero elsewhere. A decode is a sum over a segment of entries, the
gradient of an activation a dot product of two rows, and both weight gradients are again sums over
segments, once the entries are sorted by latent (a stable sort, in place of atomic additions, so
that results repeat exactly on one machine).
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

_GATHERED_NUMBERS = 2**22
"""Numbers gathered at once where dot products have no kernel."""


@dataclass(frozen=True)
class ActiveEntries:
    """Active latents in the order of their slots; slot row * L + level owns a segment."""

    latents: Tensor
    """int64 [E]."""
    values: Tensor
    """Activations [E]."""
    rows: Tensor
    """int64 [E]."""
    slots: Tensor
    """int64 [E]: row * L + level of the latent."""
    offsets: Tensor
    """int64 [n * L + 1]: where the slots' entries begin, and E."""


@dataclass(frozen=True)
class WeightGradients:
    """Gradients of m latents."""

    decoder: Tensor
    """[m, d_in]."""
    encoder: Tensor
    """[m, d_in], the transpose of `W_enc`'s."""
    bias: Tensor
    """[m]."""


def sparse_decode(
    indices: Tensor, values: Tensor, W_dec: Tensor, offsets: Tensor | None = None
) -> Tensor:
    """`out[row] = sum of values[e] * W_dec[indices[e]]` over the entries e of a row.

    Args:
        indices: int64 [n, k], or [E] with `offsets`.
        values: like `indices`, of the type of `W_dec`.
        W_dec: rows [d_sae, d_in].
        offsets: int64 [n + 1], rising from 0 to E: where each row's entries begin.

    Returns:
        [n, d_in]; rows without entries are zero. No gradient flows through it.
    """
    if offsets is None:
        n, k = indices.shape
        offsets = torch.arange(n + 1, device=indices.device) * k
    indices, values = indices.flatten(), values.flatten()
    kernels = _kernels_for(W_dec)
    if kernels is not None:
        return kernels.segment_sum(indices, values, W_dec, offsets)
    return functional.embedding_bag(
        indices,
        W_dec.detach(),
        offsets,
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )


def entry_dots(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
    """`out[e] = left[left_rows[e]] . right[right_rows[e]]`.

    Args:
        left: [m, d].
        left_rows: int64 [E].
        right: [p, d].
        right_rows: int64 [E].

    Returns:
        [E]. No gradient flows through it.
    """
    kernels = _kernels_for(left)
    if kernels is not None:
        return kernels.entry_dots(left, left_rows, right, right_rows)
    out = left.new_empty(len(left_rows))
    step = max(1, _GATHERED_NUMBERS // left.shape[1])
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        torch.sum(left[left_rows[part]].mul_(right[right_rows[part]]), dim=1, out=out[part])
    return out


def weight_gradients(
    entries: ActiveEntries, decoder: Tensor, gradient: Tensor, centred: Tensor, *, relu: bool
) -> WeightGradients:
    """What entries contribute to the gradients of the weights of their latents.

    Args:
        entries: E active latents.
        decoder: rows of the latents [m, d_in].
        gradient: of the loss for the reconstruction of each slot [n * L, d_in].
        centred: input minus the decoder's bias [n, d_in].
        relu: no gradient passes to the encoder where the activation is not positive.
    """
    slopes = entry_dots(gradient, entries.slots, decoder, entries.latents)
    if relu:
        slopes = slopes.masked_fill_(entries.values <= 0, 0)
    latents, order = entries.latents.sort(stable=True)
    bounds = torch.arange(len(decoder) + 1, device=latents.device)
    offsets = torch.searchsorted(latents, bounds)
    slopes = slopes[order]
    return WeightGradients(
        decoder=sparse_decode(entries.slots[order], entries.values[order], gradient, offsets),
        encoder=sparse_decode(entries.rows[order], slopes, centred, offsets),
        bias=torch.segment_reduce(slopes, "sum", offsets=offsets, initial=0, unsafe=True),
    )


def entries_of_rows(latents: Tensor, values: Tensor) -> ActiveEntries:
    """Entries of rows that have k each, [n, k], on one level."""
    n, k = latents.shape
    rows = torch.arange(n, device=latents.device)
    of_entries = rows.repeat_interleave(k)
    offsets = torch.arange(n + 1, device=latents.device) * k
    return ActiveEntries(latents.flatten(), values.flatten(), of_entries, of_entries, offsets)


def _kernels_for(table: Tensor) -> ModuleType | None:
    """The Triton kernels if they can work on `table`, or None."""
    if table.dtype != torch.float32:
        return None
    if table.is_cuda:
        return _compiled_kernels(table.device)
    if table.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return _imported_kernels()
    return None


def _imported_kernels() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    from affectlens.training import triton_kernels

    return triton_kernels


@lru_cache
def _compiled_kernels(device: torch.device) -> ModuleType | None:
    """The kernels after a trial on `device`; None, with a warning, where they do not compile."""
    kernels = _imported_kernels()
    if kernels is None:
        return None
    ones = torch.ones(2, 3, device=device)
    places, offsets = torch.tensor([1, 0], device=device), torch.tensor([0, 2], device=device)
    try:
        total = kernels.segment_sum(places, ones[0, :2], ones, offsets).sum()
        works = float(total + kernels.entry_dots(ones, places, ones, places).sum()) == 12.0
        reason = "its results are wrong"
    except Exception as error:  # noqa: BLE001 - compilers raise anything, torch does the same work
        works, reason = False, f"{type(error).__name__}: {error}"
    if not works:
        warnings.warn(
            f"Triton does not work on {device} ({reason}); torch's own, slower operations are used",
            stacklevel=2,
        )
    return kernels if works else None
