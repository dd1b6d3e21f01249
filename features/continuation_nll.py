"""How likely texts are after their prompts, what prompts share read once for many texts.

A study has a few prompts and hundreds of texts after each. The keys and values of a prompt are the
same for all of them, so they are computed once a batch and only the texts are run. Prompts with few
texts share batches; there, what all of them begin with is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.models import LanguageModel
from affectlens.data.token_batches import Batch

Array = npt.NDArray[np.float64]

_FEW = 4
"""Prompts with fewer texts than this share batches with others."""


@dataclass(frozen=True, eq=False)
class Continuations:
    """How long and how likely texts are after their prompts.

    Attributes:
        n_tokens: int64 [n_texts] tokens of each text.
        nll: float64 [n_texts] mean negative log-probability of a text's tokens (nats); NaN for an
            empty text.
    """

    n_tokens: npt.NDArray[np.int64]
    nll: Array


@dataclass(frozen=True)
class _Row:
    """Token ids of prompt and text; the text's are those from `start` on."""

    place: int
    ids: tuple[int, ...]
    start: int


def continuation_nll(
    lm: LanguageModel,
    prompts: Sequence[str],
    texts: Sequence[str],
    *,
    batch_size: int = 16,
    add_special_tokens: bool = True,
) -> Continuations:
    """Mean negative log-probability of each text's tokens after its prompt.

    Prompt and text are read in one piece, as a model would; a token across their border belongs
    to the text. The same as running each whole, up to the rounding of the model's arithmetic.

    Args:
        lm: the model, with no edit open.
        prompts: what each text follows; equal ones are read once a batch.
        texts: what follows it.
        batch_size: texts in one forward pass.
        add_special_tokens: False for prompts in a chat template.

    Raises:
        StimulusError: a single string for a list, an empty prompt, text that UTF-8 cannot hold,
            or prompt and text exceed the context.
        ConfigError: another number of prompts than of texts, or a batch size below 1.
    """
    if isinstance(prompts, str) or isinstance(texts, str):
        raise StimulusError("lists of prompts and texts are needed, got a string; write [text]")
    if len(prompts) != len(texts) or batch_size < 1:
        raise ConfigError(
            f"{len(prompts)} prompts and {len(texts)} texts at batch size {batch_size}; give each "
            "text its prompt, and a batch size of at least 1"
        )
    nll = np.full(len(texts), np.nan)
    n_tokens = np.zeros(len(texts), dtype=np.int64)
    groups: dict[str, list[_Row]] = {}
    known: dict[str, list[int]] = {}
    for place, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if prompt not in known:
            known[prompt] = lm.token_ids(
                prompt, add_special_tokens=add_special_tokens, label=f"prompt {place}"
            )
        if text:
            row = _row(lm, known[prompt], prompt, text, place, special=add_special_tokens)
            n_tokens[place] = len(row.ids) - row.start
            groups.setdefault(prompt, []).append(row)
    few = [row for rows in groups.values() if len(rows) < _FEW for row in rows]
    for rows in [*(rows for rows in groups.values() if len(rows) >= _FEW), few]:
        for batch in _batches(rows, batch_size):
            nll[[row.place for row in batch]] = _batch_nll(lm, batch)
    return Continuations(n_tokens, nll)


def _row(
    lm: LanguageModel, before: Sequence[int], prompt: str, text: str, place: int, *, special: bool
) -> _Row:
    label = f"prompt and text {place}"
    whole = lm.token_ids(prompt + text, add_special_tokens=special, label=label)
    shared = 0
    while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
        shared += 1
    # The first token of all has nothing to be predicted from.
    return _Row(place, tuple(whole), max(shared, 1))


def _batches(rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
    order = sorted(rows, key=lambda row: len(row.ids))
    for start in range(0, len(order), batch_size):
        batch = [row for row in order[start : start + batch_size] if len(row.ids) > row.start]
        if batch:
            yield batch


@torch.inference_mode()
def _batch_nll(lm: LanguageModel, rows: Sequence[_Row]) -> list[float]:
    # The token before the first scored one is run with the texts: its logits predict that token.
    shared = _shared(rows)
    prefix = rows[0].ids[:shared]
    cache = _prefix_cache(lm, prefix, len(rows)) if prefix else None
    tail = lm.pad([row.ids[shared:] for row in rows])
    before = torch.ones(len(rows), shared, dtype=torch.bool, device=lm.device)
    mask = torch.cat([before, tail.attention_mask], dim=1)
    batch = Batch(tail.input_ids, mask, tail.positions + shared)
    inputs = lm.model_inputs(batch)
    logits = lm.model(**inputs, past_key_values=cache, use_cache=cache is not None).logits
    return [_mean_nll(logits[i], row, shared) for i, row in enumerate(rows)]


def _shared(rows: Sequence[_Row]) -> int:
    """Tokens that all rows begin with, but for the one before the first that is scored."""
    most = min(row.start for row in rows) - 1
    columns = zip(*(row.ids[:most] for row in rows), strict=True)
    return next((n for n, column in enumerate(columns) if len(set(column)) > 1), most)


def _prefix_cache(lm: LanguageModel, prefix: Sequence[int], n_rows: int) -> object:
    batch = lm.pad([prefix])
    inputs = lm.model_inputs(batch)
    if "logits_to_keep" in lm.accepted_arguments:
        inputs["logits_to_keep"] = 1
    cache = lm.model(**inputs, use_cache=True).past_key_values
    cache.batch_repeat_interleave(n_rows)
    return cache


def _mean_nll(logits: Tensor, row: _Row, shared: int) -> float:
    """Of the row's text, from logits [seq, d_vocab] of the tokens after the shared ones."""
    first, stop = row.start - 1 - shared, len(row.ids) - 1 - shared
    wanted = torch.tensor(row.ids[row.start :], device=logits.device)
    mine = logits[first:stop].float()
    logp = mine.gather(1, wanted[:, None])[:, 0] - mine.logsumexp(-1)
    return -float(logp.double().mean())
