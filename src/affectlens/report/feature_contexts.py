"""Places in the corpus where a feature fires: groups by strength, tokens shaded by activation.

The shade is the activation over the feature's largest, so a weak place looks weak. Tokens on which
the feature is silent are joined to plain text: a place costs the page little more than its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectlens.display.words import number, plural, share
from affectlens.features.results import Context

from .contrasts import SHADES, TOKENS_EACH_SIDE
from .feature_names import Range

STRONGEST_SHOWN = 5
"""Places shown of the strongest group."""
WEAKER_SHOWN = 3
"""Places shown of each other group; naming/names.jsonl holds more."""


@dataclass(frozen=True)
class Run:
    """Tokens side by side: one that fires, with its shade and activation, or silent ones."""

    text: str
    shade: int
    activation: str


@dataclass(frozen=True)
class Place:
    """A place with its document, its largest activation and its text in runs."""

    where: str
    peak: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class PlaceGroup:
    """Places whose activation lies in one range."""

    title: str
    detail: str
    places: tuple[Place, ...]


def ranged(groups: Sequence[Range]) -> tuple[PlaceGroup, ...]:
    """The groups of the naming stage, strongest first; groups without a place are named too."""
    top = max((group.high for group in groups), default=0.0)
    made = []
    for i, group in enumerate(groups):
        shown = group.contexts[: WEAKER_SHOWN if i else STRONGEST_SHOWN]
        made.append(
            PlaceGroup(
                f"{number(group.low, 1)} to {number(group.high, 1)}",
                f"{plural(group.n_tokens, 'token')}, {share(group.share)} of those it fires on",
                tuple(place(context, top) for context in shown),
            )
        )
    return tuple(made)


def strongest(contexts: Sequence[Context]) -> tuple[PlaceGroup, ...]:
    """One group of the strongest places, for a run whose naming stage was not run."""
    if not contexts:
        return ()
    top = max(max(context.activations, default=0.0) for context in contexts)
    found = tuple(place(context, top) for context in contexts[:STRONGEST_SHOWN])
    return (PlaceGroup("Strongest places", "at most one a document", found),)


def place(context: Context, top: float) -> Place:
    """One place, cut around its peak; `top` is the activation of the darkest shade."""
    start = max(0, context.peak - TOKENS_EACH_SIDE)
    stop = min(len(context.tokens), context.peak + TOKENS_EACH_SIDE + 1)
    inside = zip(context.tokens[start:stop], context.activations[start:stop], strict=True)
    runs = [Run("… " if start else "", 0, "")]
    for i, (token, value) in enumerate(inside):
        text = token.replace("\n", "↵")
        # The blank before a word is not shaded, and a place does not begin with one.
        blank = " " if text.startswith(" ") else ""
        _append(runs, Run(blank if i else "", 0, ""))
        _append(runs, _run(text.removeprefix(" "), value, top))
    _append(runs, Run(" …" if stop < len(context.tokens) else "", 0, ""))
    largest = max(context.activations, default=0.0)
    return Place(
        f"{context.doc_id}, token {context.position}",
        number(largest, 1),
        tuple(run for run in runs if run.text),
    )


def shade(value: float, top: float) -> int:
    """Class s1 to s9 of an activation, the largest being s9; 0 for a silent token."""
    return 0 if not value > 0 or top <= 0 else max(1, min(SHADES, round(SHADES * value / top)))


def _run(text: str, value: float, top: float) -> Run:
    step = shade(value, top)
    return Run(text, step, number(value) if step else "")


def _append(runs: list[Run], run: Run) -> None:
    """Add a run; text without shade is joined to such text before it."""
    if run.shade or runs[-1].shade:
        runs.append(run)
    else:
        runs[-1] = Run(runs[-1].text + run.text, 0, "")
