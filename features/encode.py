"""Read a battery through a model and an SAE: one vector of latent activations for each text.

The default pooling appends one sentence to every text and averages over that sentence's tokens.
Both members of a pair are then read at the same tokens, so that a difference can come from the
context alone, though that context still holds the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.errors import StimulusError
from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.config import Pooling, SearchConfig
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class BatteryActivations:
    """Pooled latent activations of a battery.

    Attributes:
        pooled: float32 [n_items, d_sae], items in the battery's order.
        item_ids: the id of each row.
        pooling: how tokens were pooled.
        read_tokens: for 'suffix', the tokens read; empty for the others.
        n_read: [n_items] tokens that entered each row.
        n_masked: tokens at read positions that the SAE's mask left out, in all.
    """

    pooled: npt.NDArray[np.float32]
    item_ids: tuple[str, ...]
    pooling: Pooling
    read_tokens: tuple[str, ...]
    n_read: npt.NDArray[np.int64]
    n_masked: int


def encode_battery(
    lm: LanguageModel, sae: SparseAutoencoder, battery: Battery, config: SearchConfig
) -> BatteryActivations:
    """Encode every item of a battery.

    Tokens that the SAE's mask leaves out (the first one, norm outliers) are never pooled.

    Raises:
        StimulusError: a text is empty or longer than the context, or no token of it can be read.
        SAEError: the SAE does not say which hook it reads.
    """
    if not sae.info.hook_name:
        raise SAEError(
            "this SAE does not say which hook it reads; load it with its metadata, or give "
            "hook_name when converting it"
        )
    suffix = config.suffix if config.pooling == "suffix" else ""
    rows = [
        lm.token_ids(item.text + suffix, label=f"item {item.id!r} of battery {battery.name!r}")
        for item in battery.items
    ]
    n_common = _common_tail(lm, rows, suffix) if suffix else 0
    reader = _Reader(lm, sae, config.pooling, n_common)
    pooled = np.zeros((len(rows), sae.d_sae), dtype=np.float32)
    n_read = np.zeros(len(rows), dtype=np.int64)
    masked = 0
    # Texts of like length share a batch; the result does not depend on it beyond rounding.
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    for start in range(0, len(order), config.batch_size):
        batch_rows = order[start : start + config.batch_size]
        values, counts, left_out = reader.read([rows[i] for i in batch_rows])
        pooled[batch_rows] = values.cpu().numpy()
        n_read[batch_rows] = counts.cpu().numpy()
        masked += left_out
    unread = [battery.items[i].id for i in np.flatnonzero(n_read == 0)]
    if unread:
        raise StimulusError(
            f"{len(unread)} of {len(rows)} items have no token to read, the first is "
            f"{unread[0]!r}: all its read tokens are masked (first token or norm outliers)"
        )
    tail = rows[0][len(rows[0]) - n_common :] if n_common else []
    tokens = tuple(str(lm.tokenizer.decode([t])) for t in tail)
    ids = tuple(item.id for item in battery.items)
    return BatteryActivations(pooled, ids, config.pooling, tokens, n_read, masked)


class _Reader:
    """Pools one batch of token rows."""

    def __init__(
        self, lm: LanguageModel, sae: SparseAutoencoder, pooling: Pooling, n_common: int
    ) -> None:
        self.lm, self.sae, self.pooling, self.n_common = lm, sae, pooling, n_common
        self.hook = Address.parse(sae.info.hook_name).name
        self.rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)

    @torch.inference_mode()
    def read(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, int]:
        """Pooled [n, d_sae], tokens read [n], and masked tokens among the read positions."""
        batch = self.lm.pad(rows)
        resid = capture(self.lm, [self.hook], batch)[self.hook].float()
        keep = self.rule.keep(resid, batch.positions, batch.attention_mask)
        wanted = batch.attention_mask
        if self.pooling == "suffix":
            lengths = batch.attention_mask.sum(1, keepdim=True)
            wanted = wanted & (batch.positions >= lengths - self.n_common)
        used = keep & wanted
        if self.pooling == "last":
            last = torch.where(used, batch.positions, -1).amax(1, keepdim=True)
            used = used & (batch.positions == last)
        pooled = torch.zeros(len(rows), self.sae.d_sae)
        for i in range(len(rows)):
            if bool(used[i].any()):
                latents = self.sae.encode(resid[i][used[i]].to(self.sae.device))
                pooled[i] = latents.amax(0) if self.pooling == "max" else latents.mean(0)
        n_masked = 0 if self.pooling == "last" else int((wanted & ~keep).sum())
        return pooled, used.sum(1), n_masked


def _common_tail(lm: LanguageModel, rows: Sequence[Sequence[int]], suffix: str) -> int:
    """How many tokens at the end belong to the suffix and are the same in every row.

    A tokenizer may merge the suffix's first character with the text before it; those tokens differ
    between texts and are not read.
    """
    alone = len(lm.token_ids(suffix, add_special_tokens=False, label="the suffix"))
    limit = min(alone, *(len(row) for row in rows)) if rows else 0
    common = 0
    while common < limit and len({row[-1 - common] for row in rows}) == 1:
        common += 1
    if common == 0:
        raise StimulusError(
            f"the suffix {suffix!r} has no token that is the same in every text; begin it with a "
            "space and end it with a full stop, or use another pooling"
        )
    return common
