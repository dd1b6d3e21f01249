"""Generating text with a KV cache, left padding and a random stream of its own for every row.

The loop is ours because the library's samples from the global random state, which would make the
result depend on whatever ran before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from affectlens.data.errors import ModelError, StimulusError
from affectlens.data.token_batches import Batch, real_positions

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel


_LIKELIEST = 1024
"""Tokens that are sorted for nucleus sampling; rarely is more needed."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: longest continuation.
        temperature: 0 for the likeliest token, else the softmax temperature.
        top_p: share of probability that is kept, likeliest tokens first.
        seed: seed of the random streams.
    """

    max_new_tokens: int = 60
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ModelError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ModelError(f"temperature must be 0 or a positive number, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ModelError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.seed < 0:
            raise ModelError(f"seed must be 0 or above, got {self.seed}")


def chat_prompt(lm: LanguageModel, prompt: str) -> str:
    """The prompt as a user's message in the model's chat template, ready for the answer.

    Raises:
        ModelError: the model has no chat template.
    """
    if not lm.tokenizer.chat_template:
        raise ModelError(f"{lm.name} has no chat template; call generate with chat=False")
    text = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return str(text)


def continuations(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    settings: Sampling,
    *,
    streams: Sequence[int] | None = None,
) -> list[str]:
    """Texts that follow the given prompts, without special tokens; see `generate_ids`."""
    generated = generate_ids(lm, rows, settings, streams=streams)
    return [_decode(lm, list(row), ids) for row, ids in zip(rows, generated, strict=True)]


def generate_ids(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    settings: Sampling,
    *,
    use_cache: bool = True,
    streams: Sequence[int] | None = None,
) -> list[list[int]]:
    """Token ids that follow each prompt, up to but not including the stop token.

    Args:
        lm: the model.
        rows: token ids of each prompt.
        settings: how tokens are chosen.
        use_cache: keep keys and values; False reads the whole text anew for each token, with the
            same result (for checks).
        streams: number of the random stream of each row; by default its place in the batch. Rows
            with one number draw the same, as copies of a prompt under different edits should.

    Raises:
        StimulusError: a prompt and its continuation would exceed the context.
        ModelError: another number of streams than of rows, or one below 0.
    """
    produced: list[list[int]] = [[] for _ in rows]
    for step in stream_ids(lm, rows, settings, use_cache=use_cache, streams=streams):
        for row, token in zip(produced, step, strict=True):
            if token is not None:
                row.append(token)
    return produced


def stream_ids(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    settings: Sampling,
    *,
    use_cache: bool = True,
    streams: Sequence[int] | None = None,
) -> Iterator[list[int | None]]:
    """The same token by token: yields, for each step, the new token of each row.

    None stands for a row that has ended. What was yielded is final, so a caller that stops early,
    or is stopped, keeps what it has; nothing is left behind in the model.

    Args:
        lm: the model.
        rows: token ids of each prompt.
        settings: how tokens are chosen.
        use_cache: see `generate_ids`.
        streams: see `generate_ids`.

    Raises:
        StimulusError, ModelError: see `generate_ids`; raised before the first step.
    """
    _check_room(lm, rows, settings.max_new_tokens)
    choose = _Chooser(settings, _streams(streams, len(rows)))
    return _steps(
        lm, lm.pad(rows, side="left"), settings.max_new_tokens, choose, use_cache=use_cache
    )


def _streams(streams: Sequence[int] | None, n_rows: int) -> list[int]:
    if streams is None:
        return list(range(n_rows))
    numbers = [int(stream) for stream in streams]
    if len(numbers) != n_rows or any(number < 0 for number in numbers):
        raise ModelError(
            f"got {len(numbers)} random streams, the lowest {min(numbers, default=0)}, for "
            f"{n_rows} prompts; give each prompt one number from 0 on"
        )
    return numbers


def _steps(
    lm: LanguageModel, batch: Batch, n_steps: int, choose: _Chooser, *, use_cache: bool
) -> Iterator[list[int | None]]:
    ids, mask, stop_ids = batch.input_ids, batch.attention_mask, lm.stop_ids
    running = [True] * len(batch)
    cache: Any = None
    width = ids.shape[1]
    for _ in range(n_steps):
        # Not around the loop: a generator that is paused must not leave gradients switched off.
        with torch.no_grad():
            logits, cache = _next_logits(lm, ids, mask, cache, width, use_cache=use_cache)
            tokens = choose(logits)
        running = [r and token not in stop_ids for r, token in zip(running, tokens, strict=True)]
        if not any(running):
            return
        yield [token if r else None for token, r in zip(tokens, running, strict=True)]
        # A row that has ended goes on as padding, so edits and attention leave it alone.
        step = [token if r else lm.pad_id for token, r in zip(tokens, running, strict=True)]
        ids = torch.cat([ids, torch.tensor(step, device=ids.device)[:, None]], dim=1)
        mask = torch.cat([mask, torch.tensor(running, device=mask.device)[:, None]], dim=1)
        width = 1 if use_cache else ids.shape[1]


def _next_logits(
    lm: LanguageModel, ids: Tensor, mask: Tensor, cache: Any, width: int, *, use_cache: bool
) -> tuple[Tensor, Any]:
    # The mask covers the cache too; tokens and positions are those of this step alone.
    inputs = lm.model_inputs(Batch(ids[:, -width:], mask, real_positions(mask)[:, -width:]))
    if "logits_to_keep" in lm.accepted_arguments:
        inputs["logits_to_keep"] = 1
    out = lm.model(**inputs, past_key_values=cache, use_cache=use_cache)
    return out.logits[:, -1].float(), out.past_key_values if use_cache else None


class _Chooser:
    """Picks the next token of each row: the likeliest, or by inverse CDF from one uniform draw."""

    def __init__(self, settings: Sampling, streams: Sequence[int]) -> None:
        self.settings = settings
        self.streams = [np.random.default_rng([settings.seed, stream]) for stream in streams]

    def __call__(self, logits: Tensor) -> list[int]:
        """Token ids, one for each row of float [batch, d_vocab]."""
        if self.settings.temperature == 0:
            return [int(token) for token in logits.argmax(dim=-1)]
        scaled = logits.float().cpu() / self.settings.temperature
        draws = torch.tensor([[stream.random()] for stream in self.streams], dtype=torch.float64)
        weights = (scaled - scaled.amax(dim=-1, keepdim=True)).exp()
        # Sums over a vocabulary in 32 bits would lose the rare tokens.
        total = weights.sum(dim=-1, keepdim=True, dtype=torch.float64)
        picked = _pick(weights, total, draws, self.settings.top_p, min(_LIKELIEST, scaled.shape[1]))
        return [int(token) for token in picked]


def _pick(weights: Tensor, total: Tensor, draws: Tensor, top_p: float, width: int) -> Tensor:
    """Tokens [batch] by inverse CDF among the likeliest, from weights [batch, d_vocab].

    Only `width` tokens are sorted; rows in which they do not reach `top_p` are done again with
    all, so the result is that of a full sort.
    """
    # Equal weights keep the order of their ids, whatever the width.
    values, order = _likeliest(weights, width)
    cumulative = (values.double() / total).cumsum(dim=-1)
    # Tokens are kept until the share is reached, the one that reaches it included.
    kept = torch.cat([torch.zeros_like(total), cumulative[:, :-1]], dim=-1) < top_p
    n_kept = kept.sum(dim=-1, keepdim=True)
    mass = cumulative.gather(1, n_kept - 1)
    place = torch.searchsorted(cumulative, draws * mass, right=True)
    picked = order.gather(1, torch.minimum(place, n_kept - 1))[:, 0]
    n_vocab = weights.shape[1]
    short = (mass[:, 0] < top_p) & (width < n_vocab)
    if bool(short.any()):
        picked[short] = _pick(weights[short], total[short], draws[short], top_p, n_vocab)
    return picked


def _likeliest(weights: Tensor, width: int) -> tuple[Tensor, Tensor]:
    if width == weights.shape[1]:
        return weights.sort(dim=-1, descending=True, stable=True)
    order = weights.topk(width, dim=-1).indices.sort(dim=-1).values
    values, place = weights.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return values, order.gather(1, place)


def _check_room(lm: LanguageModel, rows: Sequence[Sequence[int]], new_tokens: int) -> None:
    longest = max((len(row) for row in rows), default=0)
    if longest + new_tokens > lm.context_length:
        raise StimulusError(
            f"a prompt of {longest} tokens and {new_tokens} new ones exceed the context of "
            f"{lm.name}, {lm.context_length} tokens; shorten the prompt or lower max_new_tokens"
        )


def _decode(lm: LanguageModel, prompt: list[int], new: list[int]) -> str:
    # Decoded together, because some tokenizers drop the leading space of what they decode alone.
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = str(lm.tokenizer.decode(prompt, **options))
    whole = str(lm.tokenizer.decode(prompt + new, **options))
    if whole.startswith(before):
        return whole[len(before) :]
    return str(lm.tokenizer.decode(new, **options))
