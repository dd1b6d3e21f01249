"""Parrott's tree of emotion names in three tiers.

The tree is the one that W. G. Parrott reprints (*Emotions in Social Psychology*, 2001) from the
cluster analysis of P. Shaver, J. Schwartz, D. Kirson and C. O'Connor (*Emotion knowledge: Further
exploration of a prototype approach*, 1987): 6 primary names, 25 secondary, and the 135 sorted
names as tertiary ones. A name may stand on several tiers: the cluster 'rage' holds the name 'rage'.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from affectlens.data.errors import StimulusError

_TREE: Mapping[str, Mapping[str, str]] = {
    "love": {
        "affection": "adoration affection love fondness liking attraction caring tenderness "
        "compassion sentimentality",
        "lust": "arousal desire lust passion infatuation",
        "longing": "longing",
    },
    "joy": {
        "cheerfulness": "amusement bliss cheerfulness gaiety glee jolliness joviality joy delight "
        "enjoyment gladness happiness jubilation elation satisfaction ecstasy euphoria",
        "zest": "enthusiasm zeal zest excitement thrill exhilaration",
        "contentment": "contentment pleasure",
        "pride": "pride triumph",
        "optimism": "eagerness hope optimism",
        "enthrallment": "enthrallment rapture",
        "relief": "relief",
    },
    "surprise": {"surprise": "amazement surprise astonishment"},
    "anger": {
        "irritation": "aggravation irritation agitation annoyance grouchiness grumpiness",
        "exasperation": "exasperation frustration",
        "rage": "anger rage outrage fury wrath hostility ferocity bitterness hate loathing scorn "
        "spite vengefulness dislike resentment",
        "disgust": "disgust revulsion contempt",
        "envy": "envy jealousy",
        "torment": "torment",
    },
    "sadness": {
        "suffering": "agony suffering hurt anguish",
        "sadness": "depression despair hopelessness gloom glumness sadness unhappiness grief "
        "sorrow woe misery melancholy",
        "disappointment": "dismay disappointment displeasure",
        "shame": "guilt shame regret remorse",
        "neglect": "alienation isolation neglect loneliness rejection homesickness defeat "
        "dejection insecurity embarrassment humiliation insult",
        "sympathy": "pity sympathy",
    },
    "fear": {
        "horror": "alarm shock fear fright horror terror panic hysteria mortification",
        "nervousness": "anxiety nervousness tenseness uneasiness apprehension worry distress dread",
    },
}

PARROTT: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        primary: MappingProxyType({name: tuple(leaves.split()) for name, leaves in below.items()})
        for primary, below in _TREE.items()
    }
)
"""Primary name -> secondary name -> tertiary names, in the published order."""


def _walk() -> Iterator[tuple[str, ...]]:
    """Yield every path of the tree, the highest tier first."""
    yield from ((primary,) for primary in PARROTT)
    yield from ((primary, name) for primary, below in PARROTT.items() for name in below)
    yield from (
        (primary, name, leaf)
        for primary, below in PARROTT.items()
        for name, leaves in below.items()
        for leaf in leaves
    )


def _highest() -> dict[str, tuple[str, ...]]:
    paths: dict[str, tuple[str, ...]] = {}
    for path in _walk():
        paths.setdefault(path[-1], path)
    return paths


_PATHS: Mapping[str, tuple[str, ...]] = MappingProxyType(_highest())

PARROTT_NAMES: tuple[str, ...] = tuple(_PATHS)
"""Every name of the tree once, the primary ones first."""


def parrott_path(name: str) -> tuple[str, ...]:
    """Names from the primary emotion down to `name`, one to three of them.

    A name that stands on several tiers gives the path of the highest: 'anger' is ('anger',),
    'revulsion' is ('anger', 'disgust', 'revulsion'). Case and outer blanks are ignored.

    Raises:
        StimulusError: the tree has no such name; the nearest is suggested.
    """
    key = name.strip().casefold()
    if key not in _PATHS:
        near = difflib.get_close_matches(key, PARROTT_NAMES, n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise StimulusError(
            f"Parrott's tree has no emotion {name!r}{hint}; its primary names are "
            f"{', '.join(PARROTT)}"
        )
    return _PATHS[key]


def parrott_below(name: str) -> tuple[str, ...]:
    """Names one tier below `name` (at the highest tier it stands on); none below a tertiary one.

    Raises:
        StimulusError: the tree has no such name.
    """
    path = parrott_path(name)
    if len(path) == 1:
        return tuple(PARROTT[path[0]])
    return PARROTT[path[0]][path[1]] if len(path) == 2 else ()
