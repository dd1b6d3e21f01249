"""Triton kernels of the sparse torch backend: sums over segments of entries, and dots of entries.

Imported only where Triton is installed and the tensors are on a GPU (or with TRITON_INTERPRET=1,
which runs the same kernels on the CPU, slowly, for tests). Both kernels take ragged entries: a
segment owns `offsets[i]:offsets[i + 1]` of the entries. No atomics: one program owns one piece of
the output and adds in the order of the entries, so results repeat exactly.

The fused decode follows Gao et al. 2024, arXiv:2406.04093, appendix D.2.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

_BLOCKS: dict[str, Any] = {"ENTRIES": 16, "COLUMNS": 128}
"""The tile that a program reads at once; a latent active on every row is read in tiles too."""


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _segment_sum(  # type: ignore[no-untyped-def]
    indices, weights, table, offsets, out, width, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr
):
    """Columns of one segment: the weighted sum of its rows of `table`."""
    segment = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.load(offsets + segment)
    stop = tl.load(offsets + segment + 1)
    total = tl.zeros((COLUMNS,), tl.float32)
    for at in range(start, stop, ENTRIES):
        entries = at + tl.arange(0, ENTRIES)
        inside = entries < stop
        row = tl.load(indices + entries, mask=inside, other=0)
        weight = tl.load(weights + entries, mask=inside, other=0.0)
        places = row[:, None] * width + columns[None, :]
        there = inside[:, None] & (columns < width)[None, :]
        tile = tl.load(table + places, mask=there, other=0.0)
        total += tl.sum(weight[:, None] * tile, axis=0)
    tl.store(out + segment * width + columns, total, mask=columns < width)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _entry_dots(  # type: ignore[no-untyped-def]
    left_rows,
    left,
    right_rows,
    right,
    out,
    n_entries,
    width,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Dot products of some entries: a row of `left` with a row of `right`."""
    entries = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    inside = entries < n_entries
    left_row = tl.load(left_rows + entries, mask=inside, other=0)
    right_row = tl.load(right_rows + entries, mask=inside, other=0)
    total = tl.zeros((ENTRIES,), tl.float32)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        there = inside[:, None] & (columns < width)[None, :]
        a = tl.load(left + left_row[:, None] * width + columns[None, :], mask=there, other=0.0)
        b = tl.load(right + right_row[:, None] * width + columns[None, :], mask=there, other=0.0)
        total += tl.sum(a * b, axis=1)
    tl.store(out + entries, total, mask=inside)


def segment_sum(indices: Tensor, weights: Tensor, table: Tensor, offsets: Tensor) -> Tensor:
    """`out[s] = sum of weights[e] * table[indices[e]]` over entries offsets[s] <= e < offsets[s+1].

    Args:
        indices: int64 [E], rows of `table`.
        weights: float32 [E].
        table: float32 [m, d].
        offsets: int64 [S + 1], rising from 0 to E.

    Returns:
        float32 [S, d]; empty segments are zero.
    """
    n_segments, width = len(offsets) - 1, table.shape[1]
    out = table.new_empty(n_segments, width)
    if out.numel():
        grid = (n_segments, triton.cdiv(width, _BLOCKS["COLUMNS"]))
        with torch.cuda.device_of(table):
            _segment_sum[grid](
                indices.contiguous(),
                weights.contiguous(),
                table.contiguous(),
                offsets.contiguous(),
                out,
                width,
                **_BLOCKS,
            )
    return out


def entry_dots(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
    """`out[e] = left[left_rows[e]] . right[right_rows[e]]`.

    Args:
        left: float32 [m, d].
        left_rows: int64 [E].
        right: float32 [p, d].
        right_rows: int64 [E].

    Returns:
        float32 [E].
    """
    n_entries, width = len(left_rows), left.shape[1]
    out = left.new_empty(n_entries)
    if n_entries:
        grid = (triton.cdiv(n_entries, _BLOCKS["ENTRIES"]),)
        with torch.cuda.device_of(left):
            _entry_dots[grid](
                left_rows.contiguous(),
                left.contiguous(),
                right_rows.contiguous(),
                right.contiguous(),
                out,
                n_entries,
                width,
                **_BLOCKS,
            )
    return out
