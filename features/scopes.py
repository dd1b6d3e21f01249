"""Which tokens an intervention edits.

Positions are those of the text itself: padding on either side and a KV cache do not move them.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from affectlens.data.errors import ConfigError, HookError
from affectlens.data.hooks import EditContext

NamedScope = Literal["all", "content", "prompt", "generated", "last"]


@dataclass(frozen=True)
class Positions:
    """Only these tokens of each text.

    Attributes:
        positions: 0 is the first real token of a text; -1 the last of the prompt. Each must lie
            in every text of the batch, so tokens that are written later are never among them.
    """

    positions: tuple[int, ...]


@dataclass(frozen=True)
class FromPosition:
    """Every token from this one on, also those that are written later.

    Attributes:
        start: 0 is the first real token of a text; -1 the last of the prompt. A start past the
            end of a prompt edits nothing until generation gets there.
    """

    start: int


Scope = NamedScope | Positions | FromPosition
"""Which real tokens are edited (padding never is):

- "content": every token that the mask rule of the SAE keeps;
- "all": every token, also those that the rule leaves out (the first, norm outliers);
- "prompt": content tokens while a text is read;
- "generated": content tokens while a KV cache is continued;
- "last": the last token of each text in each pass, that is in generation the newest one;
- `Positions`, `FromPosition`: those tokens.

All but "all" leave out what the mask rule leaves out. Prompt and generated text are told apart by
the KV cache, which `lm.generate` always keeps.
"""


def check_scope(scope: Scope) -> None:
    """Refuse what is not a scope.

    Raises:
        ConfigError: an unknown name, no position, or one that is not a whole number.
    """
    if isinstance(scope, Positions):
        if not scope.positions:
            raise ConfigError("Positions names no position; give at least one")
        given: tuple[object, ...] = tuple(scope.positions)
    elif isinstance(scope, FromPosition):
        given = (scope.start,)
    elif scope in get_args(NamedScope):
        return
    else:
        raise ConfigError(
            f"unknown scope {scope!r}; allowed are {', '.join(get_args(NamedScope))}, "
            "Positions(...) and FromPosition(...)"
        )
    for position in given:
        try:
            operator.index(position)  # type: ignore[arg-type]
        except TypeError as error:
            raise ConfigError(f"a position must be a whole number, got {position!r}") from error


def in_scope(scope: Scope, context: EditContext, lengths: Tensor | None) -> Tensor:
    """Mark the real tokens of a pass that a scope means, before the mask rule.

    Args:
        scope: which tokens.
        context: positions, padding and phase of the pass.
        lengths: real tokens of each prompt, long [batch]; None if no prompt was seen.

    Returns:
        bool [batch, seq].

    Raises:
        ConfigError: a position outside a text.
        HookError: a position counted from the end of a prompt that was not seen.
    """
    real = context.attention
    if isinstance(scope, Positions):
        wanted = _absolute(scope.positions, context, lengths)
        return real & (context.positions[..., None] == wanted[:, None, :]).any(-1)
    if isinstance(scope, FromPosition):
        if scope.start >= 0:
            return real & (context.positions >= scope.start)
        return real & (context.positions >= _absolute((scope.start,), context, lengths))
    if scope == "last":
        places = torch.where(real, context.positions, -1)
        return real & (places == places.amax(-1, keepdim=True))
    if scope in ("prompt", "generated") and context.phase != scope:
        return torch.zeros_like(real)
    return real


def _absolute(positions: tuple[int, ...], context: EditContext, lengths: Tensor | None) -> Tensor:
    """Positions counted from the first token of each text, long [batch, n]."""
    given = torch.tensor(positions, device=context.positions.device)
    n_texts = context.positions.shape[0]
    if lengths is None or len(lengths) != n_texts:
        if lengths is None and min(positions) >= 0:
            return given.expand(n_texts, -1)
        raise HookError(
            "the scope counts positions of a prompt that this edit has not seen "
            f"(it saw {'none' if lengths is None else len(lengths)}, now there are {n_texts} "
            "texts); open the edit before the prompt is read"
        )
    ends = lengths.to(given.device)[:, None]
    wanted = torch.where(given < 0, ends + given, given)
    outside = (wanted < 0) | (wanted >= ends)
    if bool(outside.any()):
        row, column = (int(i) for i in outside.nonzero()[0])
        raise ConfigError(
            f"position {positions[column]} lies outside text {row}, which has {int(ends[row])} "
            f"tokens: allowed are {-int(ends[row])} to {int(ends[row]) - 1}; for tokens that are "
            "written later use FromPosition or the scope 'generated'"
        )
    return wanted
