"""Generating text with a KV cache, left padding and a random stream of its own for every row.

The loop is ours because the library's samples from the global random state, which would make the
result depend on whatever ran before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from affectlens.data.errors import ModelError, StimulusError
from affectlens.data.token_batches import Batch, real_positions

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel


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
    lm: LanguageModel, rows: Sequence[Sequence[int]], settings: Sampling
) -> list[str]:
    """Texts that follow the given prompts, without special tokens."""
    generated = generate_ids(lm, rows, settings)
    return [_decode(lm, list(row), ids) for row, ids in zip(rows, generated, strict=True)]


def generate_ids(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    settings: Sampling,
    *,
    use_cache: bool = True,
) -> list[list[int]]:
    """Token ids that follow each prompt, up to but not including the stop token.

    Args:
        lm: the model.
        rows: token ids of each prompt.
        settings: how tokens are chosen.
        use_cache: keep keys and values; False reads the whole text anew for each token, with the
            same result (for checks).

    Raises:
        StimulusError: a prompt and its continuation would exceed the context.
    """
    _check_room(lm, rows, settings.max_new_tokens)
    batch = lm.pad(rows, side="left")
    ids, mask = batch.input_ids, batch.attention_mask
    choose, stop_ids = _Chooser(settings, len(rows)), lm.stop_ids
    produced: list[list[int]] = [[] for _ in rows]
    running = [True] * len(rows)
    cache: Any = None
    width = ids.shape[1]
    with torch.no_grad():
        for _ in range(settings.max_new_tokens):
            logits, cache = _next_logits(lm, ids, mask, cache, width, use_cache=use_cache)
            tokens = choose(logits)
            for index, token in enumerate(tokens):
                if running[index] and token in stop_ids:
                    running[index] = False
                if running[index]:
                    produced[index].append(token)
            if not any(running):
                break
            # A row that has ended goes on as padding, so edits and attention leave it alone.
            step = [t if r else lm.pad_id for t, r in zip(tokens, running, strict=True)]
            ids = torch.cat([ids, torch.tensor(step, device=ids.device)[:, None]], dim=1)
            mask = torch.cat([mask, torch.tensor(running, device=mask.device)[:, None]], dim=1)
            width = 1 if use_cache else ids.shape[1]
    return produced


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

    def __init__(self, settings: Sampling, n_rows: int) -> None:
        self.settings = settings
        self.streams = [np.random.default_rng([settings.seed, row]) for row in range(n_rows)]

    def __call__(self, logits: Tensor) -> list[int]:
        """Token ids, one for each row of float [batch, d_vocab]."""
        if self.settings.temperature == 0:
            return [int(token) for token in logits.argmax(dim=-1)]
        scaled = logits.double().cpu() / self.settings.temperature
        probabilities, order = torch.softmax(scaled, dim=-1).sort(descending=True, stable=True)
        cumulative = probabilities.cumsum(dim=-1)
        # Keep tokens until the share is reached, the one that reaches it included.
        before = cumulative - probabilities
        kept = torch.where(before < self.settings.top_p, probabilities, 0.0).cumsum(dim=-1)
        draws = torch.tensor([[stream.random()] for stream in self.streams], dtype=torch.float64)
        picked = torch.searchsorted(kept, draws * kept[:, -1:], right=True)
        last = (before < self.settings.top_p).sum(dim=-1, keepdim=True) - 1
        return [int(token) for token in order.gather(1, torch.minimum(picked, last))[:, 0]]


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
