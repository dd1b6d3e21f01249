"""The emotions of the batteries, their coarse place on other scales, and the words of the readout.

Names are the eight peak emotions of Plutchik's wheel (R. Plutchik, *Emotion: A Psychoevolutionary
Synthesis*, 1980), in the order in which the published batteries list them. The mapping to Ekman's
six basic emotions (P. Ekman, *An argument for basic emotions*, 1992) follows the family that
Plutchik puts each peak in; trust and anticipation have no counterpart there. Signs of valence and
arousal are a coarse reading of the circumplex (J. Russell, *A circumplex model of affect*, 1980):
-1, 0 or +1, for ordering only, never for arithmetic. The word sets are our own list.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from affectlens.data.errors import StimulusError

NEUTRAL = "neutral"
"""The label of an item that is meant to carry no emotion and belongs to no pair."""


@dataclass(frozen=True)
class Emotion:
    """One peak emotion.

    `family` is Plutchik's primary emotion, `opposite` the peak across the wheel, `ekman` the basic
    emotion or None, `valence` and `arousal` coarse signs in {-1, 0, 1}, `words` lower-case single
    words that name the emotion or the state of having it, no word in two emotions.
    """

    name: str
    family: str
    opposite: str
    ekman: str | None
    valence: int
    arousal: int
    words: tuple[str, ...]


_ALL = (
    Emotion(
        "rage", "anger", "terror", "anger", -1, 1,
        ("anger", "angry", "rage", "fury", "furious", "outrage", "outraged", "wrath", "mad",
         "enraged", "resentment", "hostility", "frustration", "frustrated", "angrily"),
    ),
    Emotion(
        "grief", "sadness", "ecstasy", "sadness", -1, -1,
        ("grief", "sadness", "sad", "sorrow", "mourning", "loss", "heartbreak", "heartbroken",
         "despair", "misery", "grieving", "depressed", "depression", "devastated", "sadly"),
    ),
    Emotion(
        "terror", "fear", "rage", "fear", -1, 1,
        ("terror", "fear", "afraid", "scared", "terrified", "frightened", "panic", "dread",
         "horror", "fright", "anxiety", "anxious", "fearful", "terrifying", "scary"),
    ),
    Emotion(
        "ecstasy", "joy", "grief", "happiness", 1, 1,
        ("joy", "happiness", "happy", "delight", "ecstasy", "joyful", "ecstatic", "bliss",
         "euphoria", "excitement", "excited", "thrilled", "delighted", "pleasure", "overjoyed"),
    ),
    Emotion(
        "loathing", "disgust", "admiration", "disgust", -1, 0,
        ("disgust", "disgusted", "loathing", "revulsion", "hatred", "hate", "contempt", "repulsed",
         "nausea", "sickened", "disgusting", "revolting", "aversion", "repulsive", "distaste"),
    ),
    Emotion(
        "amazement", "surprise", "vigilance", "surprise", 0, 1,
        ("amazement", "amazed", "surprise", "surprised", "astonishment", "astonished", "shock",
         "shocked", "stunned", "wonder", "awe", "disbelief", "startled", "amazing", "astounded"),
    ),
    Emotion(
        "admiration", "trust", "loathing", None, 1, 0,
        ("admiration", "admire", "respect", "trust", "reverence", "esteem", "appreciation", "proud",
         "pride", "inspired", "inspiration", "honor", "impressed", "devotion", "gratitude"),
    ),
    Emotion(
        "vigilance", "anticipation", "amazement", None, 0, 1,
        ("vigilance", "vigilant", "alert", "alertness", "watchful", "anticipation", "caution",
         "cautious", "wary", "attentive", "attention", "suspicion", "suspicious", "expectation",
         "readiness"),
    ),
)  # fmt: skip

TAXONOMY: Mapping[str, Emotion] = MappingProxyType({e.name: e for e in _ALL})
"""Every emotion by name, in order."""

EMOTIONS: tuple[str, ...] = tuple(TAXONOMY)
"""The names, in the order used by every table and figure."""

EMOTION_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType({e.name: e.words for e in _ALL})
"""The readout word set of each emotion (15 words each, disjoint)."""

CALM_WORDS: tuple[str, ...] = (
    "calm", "calmness", "ease", "quiet", "routine", "normal", "ordinary", "peace", "peaceful",
    "comfort", "comfortable", "relaxed", "neutral", "boredom", "stillness",
)  # fmt: skip
"""Words of an unexcited state, our own list; the readout of emotion in general is read against
them."""

LABEL_ALIASES: Mapping[str, str] = MappingProxyType(
    {"none": NEUTRAL, "no_emotion": NEUTRAL, "no-emotion": NEUTRAL}
)
"""Spellings of a label that are accepted without being declared; all mean the same thing.

Related but different emotions (joy, anger, ...) are never mapped unless the battery declares it.
"""


def emotion(name: str) -> Emotion:
    """Look an emotion up.

    Raises:
        StimulusError: the name is not one of the eight; the nearest is suggested.
    """
    found = TAXONOMY.get(name)
    if found is None:
        raise StimulusError(unknown_emotion(name))
    return found


def normalise_label(label: str, aliases: Mapping[str, str] | None = None) -> str:
    """Turn an emotion label of a file into a name of the taxonomy or `NEUTRAL`.

    Case and outer blanks are ignored; `aliases` are those that the battery itself declares.

    Raises:
        StimulusError: the label is unknown; the nearest name is suggested.
    """
    key = label.strip().casefold()
    declared = {a.strip().casefold(): b.strip().casefold() for a, b in (aliases or {}).items()}
    key = declared.get(key, LABEL_ALIASES.get(key, key))
    if key != NEUTRAL and key not in TAXONOMY:
        raise StimulusError(unknown_emotion(label))
    return key


def unknown_emotion(label: str) -> str:
    """Message for a label that is not in the taxonomy: what came, what is allowed, what to do."""
    key = label.strip().casefold()
    related = [e.name for e in _ALL if key in (e.family, e.ekman) or key in e.words]
    near = related or difflib.get_close_matches(key, EMOTIONS, n=1)
    hint = f"; nearest: {near[0]!r}" if near else ""
    return (
        f"unknown emotion {label!r}{hint}; allowed: {', '.join(EMOTIONS)}, {NEUTRAL}. Correct the "
        "label or declare an alias for it (docs/battery-format.md, Aliases)"
    )
