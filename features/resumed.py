"""Next-token logits from stored residuals: only the blocks above a layer run.

Rows of one text that differ in their last tokens alone (one text, several suffixes) are run as one
branched row: the shared tokens once, then every end beside the others, each seeing the shared
tokens and itself (the tree attention of Miao et al. 2024, SpecInfer, arXiv:2305.09781). A causal
model gives the same logits as for rows run one by one, up to rounding, where it takes a
four-dimensional attention mask and positions as inputs; whether it does is the caller's to check
(`Meter` compares both on the unedited rows), since some families build masks in their own way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.hooks import EditContext, edit, resume_from
from affectlens.data.models import LanguageModel
from affectlens.data.token_batches import Batch, real_positions

MAX_BRANCHED_TOKENS = 512
"""Tokens of one branched row: attention grows with their square, though most pairs are masked."""


@dataclass(frozen=True)
class Branches:
    """Token rows that begin alike.

    Attributes:
        shared: the tokens all rows begin with.
        ends: what follows in each row, at least one token.
    """

    shared: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]

    @property
    def n_tokens(self) -> int:
        """Tokens that are run: the shared ones once, every end."""
        return len(self.shared) + sum(map(len, self.ends))

    def groups(self, places: Sequence[int]) -> list[tuple[int, ...]]:
        """Ends at `places` in groups of at most `MAX_BRANCHED_TOKENS` tokens, or of one end."""
        found: list[tuple[int, ...]] = []
        room = 0
        for place in places:
            if not found or len(self.ends[place]) > room:
                found.append(())
                room = MAX_BRANCHED_TOKENS - len(self.shared)
            found[-1] += (place,)
            room -= len(self.ends[place])
        return found

    def only(self, places: Sequence[int]) -> Branches:
        """The same with some of the ends."""
        return Branches(self.shared, tuple(self.ends[i] for i in places))


def branches(rows: Sequence[Sequence[int]]) -> Branches:
    """Split rows into their longest common beginning and their ends of at least one token."""
    n = min(map(len, rows)) - 1
    first = rows[0]
    shared = next((i for i in range(n) if any(row[i] != first[i] for row in rows)), n)
    return Branches(tuple(first[:shared]), tuple(tuple(row[shared:]) for row in rows))


@dataclass(frozen=True)
class Stored:
    """Branches and the residual of their tokens.

    Attributes:
        rows: the tokens.
        resid: [rows.n_tokens, d_model], the shared tokens first, then end after end.
    """

    rows: Branches
    resid: Tensor

    @classmethod
    def cut(cls, rows: Branches, each: Sequence[Tensor] | Tensor) -> Stored:
        """From the residual of each row by itself, [row length or more, d_model].

        The shared tokens are taken from the first row.
        """
        n = len(rows.shared)
        ends = [row[n : n + len(end)] for row, end in zip(each, rows.ends, strict=True)]
        return cls(rows, torch.cat([each[0][:n], *ends]))

    def unpacked(self) -> list[Tensor]:
        """Residual of each row by itself, [row length, d_model]."""
        shared, *ends = self._parts()
        return [torch.cat([shared, end]) for end in ends]

    def _parts(self) -> tuple[Tensor, ...]:
        return self.resid.split([len(self.rows.shared), *map(len, self.rows.ends)])

    def only(self, places: Sequence[int]) -> Stored:
        """The same with some of the ends."""
        shared, *ends = self._parts()
        return Stored(self.rows.only(places), torch.cat([shared, *(ends[i] for i in places)]))


def batches(rows: Sequence[Branches], max_tokens: int) -> Iterator[list[int]]:
    """Places of rows that are run together: equally many ends, alike in length.

    A batch holds at most `max_tokens` tokens, padding included, or one row.
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ends), rows[i].n_tokens))
    batch: list[int] = []
    for place in order:
        trial = [rows[i] for i in [*batch, place]]
        fits = len(trial[0].ends) == len(trial[-1].ends)
        if batch and not (fits and _width(trial) * len(trial) <= max_tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def last_logits(lm: LanguageModel, layer: int, stored: Sequence[Stored]) -> Tensor:
    """Logits after the last token of every end.

    Args:
        lm: the model.
        layer: block whose output is given; -1 for the input of the first block.
        stored: rows with equally many ends.

    Returns:
        float32 [n_rows, n_ends, d_vocab].
    """
    layout = _layout(lm, [s.rows for s in stored])
    resid = layout.ids.new_zeros((*layout.ids.shape, stored[0].resid.shape[-1]), dtype=lm.dtype)
    flat = torch.cat([s.resid for s in stored]).to(resid)
    resid[layout.real] = flat[layout.order]
    with torch.no_grad(), goes_on_from(lm, layer, resid):
        return _logits(lm, layout)


def layer_of(hook_name: str) -> int:
    """The block whose output a place is, to go on from; -1 for the input of the first block.

    Raises:
        HookError: no name of a place.
    """
    address = Address.parse(hook_name)
    return address.layer if address.site == "resid_post" else address.layer - 1


@contextlib.contextmanager
def goes_on_from(lm: LanguageModel, layer: int, resid: Tensor) -> Iterator[None]:
    """Run only the blocks above `layer`, on its output `resid`, in every forward meanwhile.

    Gradients reach `resid`.

    Args:
        lm: the model.
        layer: block whose output is given, see `layer_of`.
        resid: [batch, seq, d_model].

    Raises:
        HookError: as `resume_from` and `edit`.
    """
    if layer >= 0:
        with resume_from(lm, layer, resid):
            yield
        return

    def give(_: Tensor, __: EditContext) -> Tensor:
        return resid

    with edit(lm, {"blocks.0.hook_resid_pre": give}):
        yield


@dataclass(frozen=True)
class _Layout:
    """One rectangle of tokens.

    Attributes:
        ids: long [b, s].
        part: long [b, s]; 0 on shared tokens, j on end j - 1, -1 on padding.
        positions: long [b, s] of each token in its own row.
        last: columns of the last token of each end, long [n_ends].
        real: (row index, column) of each token, in reading order of the rectangle.
        order: for each of these tokens, its place in the concatenated rows.
    """

    ids: Tensor
    part: Tensor
    positions: Tensor
    last: Tensor
    real: tuple[Tensor, Tensor]
    order: Tensor


def _width(rows: Sequence[Branches]) -> int:
    if len(rows[0].ends) == 1:
        return max(row.n_tokens for row in rows)
    ends = zip(*(map(len, row.ends) for row in rows), strict=True)
    return max(len(row.shared) for row in rows) + sum(map(max, ends))


def _layout(lm: LanguageModel, rows: Sequence[Branches]) -> _Layout:
    """Each part is padded on its left, so that an end stops at the same column in every row.

    The head of the model is then run on as many columns as there are ends.
    """
    n_ends = len(rows[0].ends)
    if n_ends == 1:
        rows = [Branches((*row.shared, *row.ends[0]), ()) for row in rows]
    parts = [(row.shared, *row.ends) for row in rows]
    stops = torch.tensor([[len(p) for p in row] for row in parts]).amax(0).cumsum(0).tolist()
    ids = torch.full((len(rows), stops[-1]), lm.pad_id, dtype=torch.long)
    part, positions = torch.full_like(ids, -1), torch.zeros_like(ids)
    order = torch.zeros_like(ids)
    n_before = 0
    for i, row in enumerate(parts):
        for j, (tokens, stop) in enumerate(zip(row, stops, strict=True)):
            here = slice(stop - len(tokens), stop)
            begin = len(row[0]) if j else 0
            ids[i, here] = torch.tensor(tokens, dtype=torch.long)
            part[i, here] = j
            positions[i, here] = torch.arange(begin, begin + len(tokens))
            order[i, here] = torch.arange(n_before, n_before + len(tokens))
            n_before += len(tokens)
    real = part >= 0
    places = real.nonzero(as_tuple=True)
    last = torch.tensor(stops[-n_ends:]) - 1
    device = lm.device
    return _Layout(
        ids.to(device),
        part.to(device),
        positions.to(device),
        last.to(device),
        (places[0].to(device), places[1].to(device)),
        order[real].to(device),
    )


def _logits(lm: LanguageModel, layout: _Layout) -> Tensor:
    attention = layout.part >= 0
    if len(layout.last) == 1:
        inputs = lm.model_inputs(Batch(layout.ids, attention, real_positions(attention)))
    else:
        inputs = lm.model_inputs(Batch(layout.ids, attention, layout.positions))
        inputs["attention_mask"] = _tree_mask(layout, lm.dtype)
    selects = "logits_to_keep" in lm.accepted_arguments
    if selects:
        inputs["logits_to_keep"] = layout.last
    logits: Tensor = lm.model(**inputs, use_cache=False).logits
    return (logits if selects else logits[:, layout.last]).float()


def _tree_mask(layout: _Layout, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores [b, 1, s, s]: 0 where a token is seen, else the minimum."""
    part, positions = layout.part, layout.positions
    key, query = part[:, None, :], part[:, :, None]
    seen = (key == 0) | ((key == query) & (key > 0))
    seen &= positions[:, None, :] <= positions[:, :, None]
    # Padding sees itself, so that no softmax runs over nothing.
    seen |= torch.eye(part.shape[1], dtype=torch.bool, device=part.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=part.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
