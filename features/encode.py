"""Read texts through a model and one or more SAEs, in one pass over the model.

Every text is put into the same surroundings (`Reading`), the residual streams of all SAEs are
captured together, and of each SAE's latents only those that are not 0 are kept. The default
reading of a search appends one sentence to every text and averages over that sentence's tokens.
Both members of a pair are then read at the same tokens, so that a difference can come from the
context alone, though that context still holds the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError, MachineError, StimulusError
from affectlens.data.hooks import capture
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.data.stimuli import Battery
from affectlens.data.token_batches import Batch
from affectlens.features.config import SearchConfig
from affectlens.features.encoding import Reading, TokenActivations
from affectlens.features.pooling import reading_for
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

DENSE_BYTES = 64 * 2**20
"""Most bytes of one dense [rows, d_sae] block of latents; a single row may be larger."""

MAX_ENTRIES = 2**28
"""Most entries of one SAE that are kept in memory: 2 GiB of latents and values."""


@torch.inference_mode()
def encode_items(
    lm: LanguageModel,
    saes: Sequence[SparseAutoencoder],
    items: Sequence[tuple[str, str]],
    reading: Reading | None = None,
    *,
    batch_size: int = 16,
    label: str = "",
    quiet: bool | None = None,
) -> tuple[TokenActivations, ...]:
    """Encode texts with several SAEs, whatever hooks they read, in one pass over the model.

    Texts of like length share a batch; beyond rounding the result does not depend on that. Memory
    is that of the entries (see `encoding`) and of one dense block of `DENSE_BYTES`.

    Args:
        lm: the model that all SAEs read.
        saes: one or more SAEs, which may share a hook.
        items: (id, text) of each text; ids are distinct.
        reading: what to put around every text; by default nothing.
        batch_size: texts in one forward pass.
        label: names the texts in messages, as in "battery 'x'".
        quiet: no progress; see `progress.track`.

    Returns:
        one `TokenActivations` an SAE, in the order of `saes`, each with the items in their order.

    Raises:
        StimulusError: no text, an empty one, one longer than the context, an id twice, or a prefix
            or suffix that no token of every text belongs to.
        SAEError: no SAE, one that does not say which hook it reads, that reads another width, or
            that gives values that are not finite.
        HookError: an SAE reads a layer that the model does not have.
        ConfigError: a batch size below 1.
        MachineError: an SAE is active on so many latents that the entries do not fit.
    """
    reading = reading or Reading()
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be 1 or more")
    collectors = _collectors(saes)
    rows = _token_rows(lm, items, reading, label)
    n_head = _shared(lm, rows, reading.prefix, "prefix")
    n_tail = _shared(lm, rows, reading.suffix, "suffix")
    hooks = list(dict.fromkeys(c.hook for c in collectors))
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    with track(len(rows), "texts", f"encoding {label}".rstrip(), quiet=quiet) as progress:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = lm.pad([rows[i] for i in chosen])
            resid = capture(lm, hooks, batch)
            for collector in collectors:
                collector.add(chosen, resid[collector.hook].float(), batch)
            progress.update(len(chosen))
    ids = tuple(name for name, _ in items)
    return tuple(c.finish(ids, rows, reading, n_head, n_tail) for c in collectors)


def encode_battery(
    lm: LanguageModel,
    saes: Sequence[SparseAutoencoder],
    battery: Battery,
    config: SearchConfig,
    *,
    pairs_only: bool = False,
    label: str = "",
    quiet: bool | None = None,
) -> tuple[TokenActivations, ...]:
    """Encode a battery as a search with these settings reads it.

    Args:
        lm: the model that all SAEs read.
        saes: one or more SAEs.
        battery: all its items are read.
        config: gives pooling, suffix and batch size.
        pairs_only: read the members of its pairs only, pair by pair, clinical first.
        label: added to the battery's name in messages.
        quiet: no progress; see `progress.track`.

    Raises:
        As `encode_items`.
    """
    items = battery.items
    if pairs_only:
        items = tuple(m for p in battery.pairs for m in (p.clinical, p.neutral))
    return encode_items(
        lm,
        saes,
        [(item.id, item.text) for item in items],
        reading_for(config.pooling, config),
        batch_size=config.batch_size,
        label=f"battery {battery.name!r}{label}",
        quiet=quiet,
    )


@dataclass(frozen=True, eq=False)
class _Entries:
    """One item: the mask [n_tokens], entries of each token [n_tokens], then the entries."""

    keep: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]
    latents: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]


@dataclass(eq=False)
class _Collector:
    """Gathers what one SAE gives, item by item."""

    sae: SparseAutoencoder
    hook: str
    rule: MaskRule
    found: dict[int, _Entries] = field(default_factory=dict)
    n_entries: int = 0
    n_tokens: int = 0

    def add(self, items: Sequence[int], resid: Tensor, batch: Batch) -> None:
        """Encode a right-padded batch; `resid` is float32 [batch, seq, d_model]."""
        kept = self.rule.keep(resid, batch.positions, batch.attention_mask)
        content = resid[kept]
        keep, lengths = kept.cpu().numpy(), batch.lengths.tolist()
        counts = np.zeros(keep.shape, dtype=np.int64)
        counts[keep], latents, values = self._encode(content)
        ends = np.cumsum(counts.sum(axis=1))
        for i, item in enumerate(items):
            part = slice(ends[i - 1] if i else 0, ends[i])
            self.found[item] = _Entries(
                keep[i, : lengths[i]], counts[i, : lengths[i]], latents[part], values[part]
            )

    def _encode(
        self, resid: Tensor
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Entries of each row [n], then latents and values, row by row, latents rising."""
        n_rows = max(1, DENSE_BYTES // (4 * self.sae.d_sae))
        counts, latents, values = [np.zeros(0, np.int64)], [], []
        for part in resid.split(n_rows):
            dense = self.sae.encode(part.to(self.sae.device))
            row, latent = dense.nonzero(as_tuple=True)
            value = dense[row, latent]
            if not bool(torch.isfinite(value).all()):
                raise SAEError(
                    f"the SAE at {self.hook} gives latents that are not finite; load the model "
                    "with dtype='float32' or 'bfloat16', and check the SAE's weights"
                )
            counts.append(torch.bincount(row, minlength=len(part)).cpu().numpy())
            latents.append(latent.to(torch.int32).cpu().numpy())
            values.append(value.cpu().numpy())
            self._account(len(part), len(value))
        none = (np.zeros(0, np.int32), np.zeros(0, np.float32))
        return (
            np.concatenate(counts),
            np.concatenate([none[0], *latents]),
            np.concatenate([none[1], *values]),
        )

    def _account(self, n_tokens: int, n_entries: int) -> None:
        self.n_tokens += n_tokens
        self.n_entries += n_entries
        if self.n_entries > MAX_ENTRIES:
            raise MachineError(
                f"the SAE at {self.hook} has {self.n_entries / self.n_tokens:,.0f} of "
                f"{self.sae.d_sae:,} latents active on a token, {self.n_entries:,} entries so far, "
                f"and at most {MAX_ENTRIES:,} are kept in memory; encode fewer texts at a time or "
                "take a sparser SAE"
            )

    def finish(
        self,
        ids: tuple[str, ...],
        rows: Sequence[Sequence[int]],
        reading: Reading,
        n_head: int,
        n_tail: int,
    ) -> TokenActivations:
        """All items in their order."""
        parts = [self.found[i] for i in range(len(ids))]
        return TokenActivations(
            hook_name=self.hook,
            sae_sha256=self.sae.info.sha256,
            d_sae=self.sae.d_sae,
            reading=reading,
            item_ids=ids,
            first=np.cumsum([0, *map(len, rows)], dtype=np.int64),
            tokens=np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]),
            keep=np.concatenate([p.keep for p in parts]),
            n_tail=n_tail,
            indptr=np.concatenate([[0], np.cumsum(np.concatenate([p.counts for p in parts]))]),
            latents=np.concatenate([p.latents for p in parts]),
            values=np.concatenate([p.values for p in parts]),
            n_head=n_head,
        )


def _collectors(saes: Sequence[SparseAutoencoder]) -> list[_Collector]:
    if not saes:
        raise SAEError("no SAE was given; at least one is needed to encode texts")
    if not all(sae.info.hook_name for sae in saes):
        raise SAEError(
            "this SAE does not say which hook it reads; load it with its metadata, or give "
            "hook_name when converting it"
        )
    return [
        _Collector(
            sae,
            Address.parse(sae.info.hook_name).name,
            MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit),
        )
        for sae in saes
    ]


def _token_rows(
    lm: LanguageModel, items: Sequence[tuple[str, str]], reading: Reading, label: str
) -> list[list[int]]:
    if not items:
        raise StimulusError("no texts were given; at least one is needed")
    seen: set[str] = set()
    rows = []
    for name, text in items:
        where = f"item {name!r}" + (f" of {label}" if label else "")
        if name in seen:
            raise StimulusError(f"{where} is given twice; ids must be distinct")
        if not text.strip():
            # What surrounds an empty text would be read in its place.
            raise StimulusError(f"{where} is empty or not a text: {text!r}")
        seen.add(name)
        rows.append(lm.token_ids(reading.around(text), label=where))
    return rows


def common_start(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens are the same at the start of every row."""
    common = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        common += 1
    return common


def _shared(lm: LanguageModel, rows: Sequence[Sequence[int]], added: str, what: str) -> int:
    """How many tokens at the start or end belong to what was added, the same in every row.

    A tokenizer may merge the character at the seam with the text; that token differs between texts
    and is not counted. The tokens of the added text alone are compared too, so that texts that are
    alike at the seam do not lend it theirs.
    """
    if not added:
        return 0
    step = 1 if what == "prefix" else -1
    alone = lm.token_ids(added, label=f"the {what}")
    common = common_start([row[::step] for row in (alone, *rows)])
    if common == 0:
        cure = (
            "begin it with a space and end it with a full stop, or use another pooling"
            if what == "suffix"
            else "end it with a line break"
        )
        raise StimulusError(
            f"the {what} {added!r} has no token that is the same in every text; {cure}"
        )
    return common
