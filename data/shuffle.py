"""Shuffling rows that do not fit into memory: pure functions on indices and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def group_chunks(
    chunks: Iterable[NDArray[np.int64]], capacity: int
) -> Iterator[list[NDArray[np.int64]]]:
    """Gather chunks into groups of at most `capacity` rows, but of one chunk at least."""
    group: list[NDArray[np.int64]] = []
    count = 0
    for chunk in chunks:
        if group and count + len(chunk) > capacity:
            yield group
            group, count = [], 0
        group.append(chunk)
        count += len(chunk)
    if group:
        yield group


def rebatch(pieces: Iterable[tuple[Tensor, Tensor]], batch_size: int) -> Iterator[Tensor]:
    """Cut a stream of rows into batches; the last one may be smaller.

    Args:
        pieces: pairs (rows [n, d], order [m]); the stream is rows[order] of each in turn. A batch
            may join the end of one piece and the beginning of the next. Batches are copies: a
            piece may be overwritten once the next is asked for.
        batch_size: rows in a batch.
    """
    rest: Tensor | None = None
    for rows, order in pieces:
        begin = 0
        if rest is not None:
            begin = batch_size - len(rest)
            rest = torch.cat([rest, rows[order[:begin]]])
            if len(rest) == batch_size:
                yield rest
                rest = None
        for start in range(begin, len(order), batch_size):
            batch = rows[order[start : start + batch_size]]
            if len(batch) == batch_size:
                yield batch
            else:
                rest = batch
    if rest is not None:
        yield rest
