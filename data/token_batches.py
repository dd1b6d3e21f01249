"""Token batches: texts of unequal length as one padded rectangle that still knows its padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from affectlens.data.errors import StimulusError

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Batch:
    """Padded token ids.

    Attributes:
        input_ids: long [batch, seq]; the pad id on padding.
        attention_mask: bool [batch, seq]; False on padding.
        positions: long [batch, seq]; 0 for the first real token of each row, whatever the side of
            the padding; on padding the nearest real position.
    """

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor

    @property
    def lengths(self) -> Tensor:
        """Number of real tokens in each row, long [batch]."""
        return self.attention_mask.sum(dim=1)

    @property
    def last_index(self) -> Tensor:
        """Column of the last real token of each row, long [batch]."""
        columns = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return (columns * self.attention_mask).amax(dim=1)

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.input_ids.to(device), self.attention_mask.to(device), self.positions.to(device)
        )


def real_positions(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only; long [batch, seq] from bool [batch, seq]."""
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def pad_rows(
    rows: Sequence[Sequence[int]],
    pad_id: int,
    *,
    side: Side = "right",
    device: torch.device | str = "cpu",
) -> Batch:
    """Pad rows of token ids into one batch.

    Args:
        rows: token ids of each text, at least one row, each at least one token.
        pad_id: the id written on padding; it is masked, so its value has no effect.
        side: on which side the padding goes.
        device: where the tensors go.

    Raises:
        StimulusError: no rows, an empty row, or an unknown side.
    """
    if side not in ("left", "right"):
        raise StimulusError(f"padding side must be 'left' or 'right', got {side!r}")
    if not rows:
        raise StimulusError("no texts were given; at least one is needed")
    for index, row in enumerate(rows):
        if not len(row):
            raise StimulusError(
                f"text {index} has no tokens; empty texts cannot be read by a model"
            )
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        ids[index, start : start + len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[index, start : start + len(row)] = True
    return Batch(ids.to(device), mask.to(device), real_positions(mask).to(device))
