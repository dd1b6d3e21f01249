"""Texts prepared for many measurements: token rows, stored residuals, the unedited readout.

Texts are held in blocks of like length. What a block holds (residuals and the unedited next-token
distribution) is kept while it fits into a limit of bytes, else captured again when it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.features.readouts import Readout
from affectlens.features.resumed import (
    Branches,
    Stored,
    batches,
    branches,
    last_logits,
    layer_of,
)

Floats = npt.NDArray[np.float64]
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-8}
"""Relative difference of log-probabilities that rounding explains; 0.05 in half precision."""


@dataclass(frozen=True, eq=False)
class TextBlock:
    """Some texts and what is stored of them.

    Attributes:
        texts: indices of the texts, int64 [n].
        stored: tokens and residuals of each text's rows.
        main: [n, n_templates, d_vocab] unedited log-probabilities after each template's own row,
            float32.
        shares: whether the rows of a text can be run as branches.
    """

    texts: npt.NDArray[np.int64]
    stored: tuple[Stored, ...]
    main: Tensor
    shares: bool

    @property
    def n_bytes(self) -> int:
        """Memory of the tensors."""
        return sum(s.resid.nbytes for s in self.stored) + self.main.nbytes


class PreparedTexts:
    """Texts, their rows and residuals at one place of the model.

    Args:
        lm: the model.
        hook_name: where the residual is captured.
        readout: what is read.
        texts: the texts.
        batch_size: rows that are run together, and texts of a block.
        share_beginnings: run the rows of a text as branches where the model allows it.
        max_bytes: limit of what is kept over all blocks.

    Attributes:
        layer: block after which the residual is stored, -1 for the input of the first block.
        max_tokens: tokens of a batch, padding included.
        main: places of the rows that end with a bare template, one for each template.
        logp: float64 [n_texts, n_suffixes, n_tokens], unedited, what `readout.scores` takes.

    Raises:
        HookError: the place is outside the model.
        StimulusError: a text is empty or too long.
        ConfigError: a limit that is not positive.
    """

    def __init__(
        self,
        lm: LanguageModel,
        hook_name: str,
        readout: Readout,
        texts: Sequence[str],
        *,
        batch_size: int,
        share_beginnings: bool,
        max_bytes: int,
    ) -> None:
        if batch_size < 1 or max_bytes < 0:
            raise ConfigError(
                f"batch_size must be at least 1 and max_bytes at least 0, got {batch_size} and "
                f"{max_bytes}"
            )
        address = Address.parse(hook_name).check(lm.n_layers)
        self.layer, self._hook = layer_of(address.name), address.name
        self._lm, self._readout, self._share = lm, readout, share_beginnings
        rows = readout.rows(lm, texts)
        self.n_suffixes = n = rows.n_suffixes
        self._rows = [branches(rows.rows[i : i + n]) for i in range(0, len(rows.rows), n)]
        self.main = [readout.suffixes.index((template, ())) for template in readout.templates]
        lengths = rows.lengths
        self.max_tokens = batch_size * int(lengths.max())
        order = np.argsort(lengths, kind="stable")
        self._texts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self.logp = torch.zeros(len(texts), n, len(readout.tokens), dtype=torch.float64)
        self._kept: list[TextBlock | None] = []
        for part in self._texts:
            block, self.logp[torch.from_numpy(part)] = self._prepare(part)
            kept = sum(b.n_bytes for b in self._kept if b is not None)
            self._kept.append(block if kept + block.n_bytes <= max_bytes else None)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._texts)

    def is_kept(self, number: int) -> bool:
        """Whether a block stays in memory."""
        return self._kept[number] is not None

    def block(self, number: int) -> TextBlock:
        """A block, captured again where it was not kept."""
        return self._kept[number] or self._prepare(self._texts[number])[0]

    @torch.inference_mode()
    def _prepare(self, texts: npt.NDArray[np.int64]) -> tuple[TextBlock, Tensor]:
        """A block, and the unedited log-probabilities [n, n_suffixes, n_tokens] of its texts."""
        stored = self._capture([self._rows[i] for i in texts])
        n, tokens = self.n_suffixes, list(self._readout.tokens)
        alone = [s.only([j]) for s in stored for j in range(n)]
        logp = torch.empty(len(alone), len(tokens), dtype=torch.float64)
        main: dict[int, Tensor] = {}
        for places in batches([s.rows for s in alone], self.max_tokens):
            found = self._log_softmax([alone[i] for i in places])[:, 0]
            logp[places] = found[:, tokens].cpu()
            main |= {i: row.float() for i, row in zip(places, found) if i % n in self.main}
        logp = logp.unflatten(0, (len(stored), n))
        kept = torch.stack([main[i * n + j] for i in range(len(stored)) for j in self.main])
        shares = self._share and n > 1 and self._agrees(stored, logp)
        return TextBlock(texts, stored, kept.unflatten(0, (len(stored), -1)), shares), logp

    def _log_softmax(self, stored: Sequence[Stored]) -> Tensor:
        logits = last_logits(self._lm, self.layer, stored)
        return torch.log_softmax(logits.double(), dim=-1)

    def _capture(self, rows: Sequence[Branches]) -> tuple[Stored, ...]:
        flat = [(*row.shared, *end) for row in rows for end in row.ends]
        found: list[Any] = [None] * len(flat)
        singles = [Branches((), (row,)) for row in flat]
        for places in batches(singles, self.max_tokens):
            batch = self._lm.pad([flat[i] for i in places])
            resid = capture(self._lm, [self._hook], batch)[self._hook]
            for place, row in zip(places, resid, strict=True):
                found[place] = row[: len(flat[place])].clone()
        n = self.n_suffixes
        return tuple(Stored.cut(row, found[n * i : n * i + n]) for i, row in enumerate(rows))

    def _agrees(self, stored: Sequence[Stored], logp: Tensor) -> bool:
        """Whether branches give what rows run one by one do, for these very texts.

        A family may refuse such a mask, or leave out part of it (a sliding window).
        """
        limit = _TOLERANCE.get(self._lm.dtype, 0.05)
        every = range(self.n_suffixes)
        groups = [(i, list(g)) for i, s in enumerate(stored) for g in s.rows.groups(every)]
        parts = [stored[i].only(group) for i, group in groups]
        for places in batches([part.rows for part in parts], self.max_tokens):
            try:
                found = self._log_softmax([parts[k] for k in places])
            except Exception:  # noqa: BLE001 - whatever a family does here, rows still run alone
                return False
            for k, got in zip(places, found[..., list(self._readout.tokens)].cpu(), strict=True):
                expected = logp[groups[k]]
                off = (got - expected).norm(dim=-1)
                if not bool((off <= limit * expected.norm(dim=-1)).all()):
                    return False
        return True
