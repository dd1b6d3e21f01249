"""What a feature fires on, writes and stands near, in words: tokens, shares, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectlens.display.words import ALL, count, drawn, number, plural, share, shorten

from .feature_names import (
    AboutNames,
    EmotionWords,
    FeatureName,
    Neighbour,
    TokenLogit,
    TokenShare,
    TokenSpread,
)

TOKENS_SHOWN = 10
NEIGHBOURS_SHOWN = 5
TOKEN_LIMIT = 24
"""Characters of a token shown; a run of blanks can be longer."""


@dataclass(frozen=True)
class Chip:
    """A token, blanks and line breaks drawn, and the number that stands by it."""

    text: str
    size: str


@dataclass(frozen=True)
class Near:
    """A neighbour; `linked` if it has a page of its own."""

    feature: int
    value: str
    linked: bool


def fired_tokens(tokens: Sequence[TokenShare]) -> tuple[Chip, ...]:
    """Token types with the largest share of the activation, and that over their share of text."""
    return tuple(
        Chip(drawn_token(t.text), f"{share(t.mass_share)}, {_lift(t.lift)}")
        for t in tokens[:TOKENS_SHOWN]
    )


def lens_tokens(logits: Sequence[TokenLogit]) -> tuple[Chip, ...]:
    """Tokens with what the decoder row adds to their logit."""
    return tuple(
        Chip(drawn_token(t.text), number(t.logit, sign=True)) for t in logits[:TOKENS_SHOWN]
    )


def seen(name: FeatureName, about: AboutNames) -> str:
    """How often and how strongly it fires on held-out text."""
    if not name.tokens.n_active:
        return f"It never fires on {count(about.n_tokens)} held-out tokens."
    once = f"one token in {count(1 / name.firing_rate)}" if name.firing_rate > 0 else "none"
    return (
        f"Fires on {share(name.firing_rate)} of {count(about.n_tokens)} held-out tokens "
        f"({once}), at most {number(name.max_active, 1)}."
    )


def spread(tokens: TokenSpread) -> str:
    """Over how many token types the activation is spread; '' if it never fires."""
    if tokens.effective_types is None:
        return ""
    return (
        f"Spread like {count(tokens.effective_types)} equal token types of "
        f"{count(tokens.n_types)} seen (entropy {number(tokens.entropy_bits, 1)} bits; all text "
        f"{number(tokens.base_entropy_bits, 1)})."
    )


def on_emotion_words(words: EmotionWords, about: AboutNames) -> str:
    """Whether it fires on, and promotes, the words of one contrast's emotion."""
    which = "emotion words" if words.contrast == ALL else f"words of {words.contrast}"
    fires = (
        f"{share(words.own_mass)} of its activation lies on {which}"
        + (f" ({share(about.emotion_token_rate)} of tokens are)" if words.contrast == ALL else "")
        + "; "
        if words.own_mass is not None
        else ""
    )
    if words.auroc is None:
        return f"{fires}too few {which} to score what it promotes."
    return (
        f"{fires}it promotes {which} with an AUROC of {number(words.auroc)}, reached by "
        f"{'–' if words.p_reference is None else share(words.p_reference)} of other features "
        f"({plural(words.n_words, 'word')})."
    )


def near(found: Sequence[Neighbour], pages: frozenset[int]) -> tuple[Near, ...]:
    """The nearest features; `pages` are those with a page of their own."""
    return tuple(
        Near(n.feature, number(n.value), n.feature in pages) for n in found[:NEIGHBOURS_SHOWN]
    )


def _lift(lift: float) -> str:
    return f"{number(lift, 0 if lift >= 10 else 1)}×"


def drawn_token(text: str) -> str:
    """A token with its blanks and line breaks drawn, cut to `TOKEN_LIMIT` characters."""
    return shorten(drawn(text), TOKEN_LIMIT)
