"""The emotions of the batteries, their counterparts in other schemes, and the words of the readout.

Names are the eight peak emotions of Plutchik's wheel (R. Plutchik, *Emotion: A Psychoevolutionary
Synthesis*, 1980), in the order in which the published batteries list them. The mapping to Ekman's
six basic emotions (P. Ekman, *An argument for basic emotions*, 1992) follows the family that
Plutchik puts each peak in; trust and anticipation have no counterpart there. Signs of valence and
arousal are a coarse reading of the circumplex (J. Russell, *A circumplex model of affect*, 1980):
-1, 0 or +1, for ordering only, never for arithmetic. The word sets are our own list.

Labels of other schemes are mapped by `map_label`. Only the grouping of GoEmotions into Ekman's six
is published (D. Demszky et al., *GoEmotions*, 2020, `ekman_mapping.json`). Every other table here
is our own reading, made by one rule: a label has a counterpart if it names one primary emotion, at
whatever intensity. It has none (None) if it is a blend (love, optimism, remorse, ...), about the
self (guilt, shame, pride), or placed differently by the sources. Names that Plutchik calls blends
but that Parrott's tree and our own words place alike (contempt, despair, outrage) follow these.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from affectlens.data.errors import StimulusError
from affectlens.data.parrott import PARROTT, PARROTT_NAMES, parrott_path

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

VALENCES: tuple[str, ...] = ("positive", "negative")
"""Labels of a battery whose contrast is valence and not one emotion."""

LABELS: tuple[str, ...] = (*EMOTIONS, *VALENCES)
"""Every label that an emotional item may carry, in the order used by every table and figure."""

EKMAN: tuple[str, ...] = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""Ekman's six basic emotions; 'joy' is read as 'happiness'."""

GOEMOTIONS: tuple[str, ...] = (
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion",
    "curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment",
    "excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism", "pride",
    "realization", "relief", "remorse", "sadness", "surprise", NEUTRAL,
)  # fmt: skip
"""The 27 labels of GoEmotions and neutral; the place in this list is the number in its files."""

CROWD_ENVENT: tuple[str, ...] = (
    "anger", "boredom", "disgust", "fear", "guilt", "joy", "pride", "relief", "sadness", "shame",
    "surprise", "trust", NEUTRAL,
)  # fmt: skip
"""The 13 labels of crowd-enVENT (E. Troiano, L. Oberlaender and R. Klinger, *Dimensional modeling
of emotions in text with appraisal theories*, 2023); 'no-emotion' is read as neutral."""

SCHEMES: tuple[str, ...] = (
    "plutchik", "plutchik_family", "ekman", "parrott", "goemotions", "crowd-envent",
)  # fmt: skip
"""Schemes that `map_label` maps from."""

TARGETS: tuple[str, ...] = ("plutchik", "plutchik_family", "ekman")
"""Schemes that `map_label` maps any other scheme to."""

EMOTION_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType({e.name: e.words for e in _ALL})
"""The readout word set of each emotion (15 words each, disjoint)."""

CALM_WORDS: tuple[str, ...] = (
    "calm", "calmness", "ease", "quiet", "routine", "normal", "ordinary", "peace", "peaceful",
    "comfort", "comfortable", "relaxed", "neutral", "boredom", "stillness",
)  # fmt: skip
"""Words of an unexcited state, our own list; the readout of emotion in general is read against
them."""

VALENCE_WORDS: Mapping[str, float] = MappingProxyType(
    {
        "terrible": -1.0, "awful": -1.0, "horrible": -1.0, "bad": -0.5, "unpleasant": -0.5,
        "neutral": 0.0, "ordinary": 0.0, "good": 0.5, "pleasant": 0.5, "wonderful": 1.0,
        "excellent": 1.0, "fantastic": 1.0,
    }
)  # fmt: skip
"""Answers of the valence scale and their values on [-1, 1], our own list."""

AROUSAL_WORDS: Mapping[str, float] = MappingProxyType(
    {
        "calm": 0.0, "quiet": 0.0, "relaxed": 0.0, "mild": 0.25, "moderate": 0.5, "strong": 0.75,
        "intense": 1.0, "extreme": 1.0, "overwhelming": 1.0,
    }
)  # fmt: skip
"""Answers of the arousal scale and their values on [0, 1], our own list."""

LABEL_ALIASES: Mapping[str, str] = MappingProxyType(
    {"none": NEUTRAL, "no_emotion": NEUTRAL, "no-emotion": NEUTRAL}
)
"""Spellings of a label that are accepted without being declared; all mean the same thing.

Related but different emotions (joy, anger, ...) are never mapped unless the battery declares it.
"""


_FAMILIES: Mapping[str, str] = MappingProxyType({e.family: e.name for e in _ALL})
_EKMAN_TO_PEAK: Mapping[str, str] = MappingProxyType({e.ekman: e.name for e in _ALL if e.ekman})

# The published grouping, without neutral.
_GOEMOTIONS_TO_EKMAN: Mapping[str, str] = MappingProxyType(
    {
        label: group
        for group, labels in {
            "anger": "anger annoyance disapproval",
            "disgust": "disgust",
            "fear": "fear nervousness",
            "happiness": "joy amusement approval excitement gratitude love optimism relief pride "
            "admiration desire caring",
            "sadness": "sadness disappointment embarrassment grief remorse",
            "surprise": "surprise realization confusion curiosity",
        }.items()
        for label in labels.split()
    }
)

# Our reading. Left out are Plutchik's blends (curiosity, disapproval, love, optimism, pride,
# remorse), feelings about oneself, and what names no primary emotion (approval, realization, ...).
_GOEMOTIONS_TO_PEAK: Mapping[str, str] = MappingProxyType(
    {
        "admiration": "admiration", "amusement": "ecstasy", "anger": "rage", "annoyance": "rage",
        "disgust": "loathing", "excitement": "ecstasy", "fear": "terror", "grief": "grief",
        "joy": "ecstasy", "nervousness": "terror", "sadness": "grief", "surprise": "amazement",
    }
)  # fmt: skip

# Our reading. Plutchik has boredom as mild disgust, but nobody who is bored loathes; trust is the
# name of the family that admiration is the peak of.
_CROWD_ENVENT_TO_PEAK: Mapping[str, str] = MappingProxyType(
    {
        "anger": "rage", "disgust": "loathing", "fear": "terror", "joy": "ecstasy",
        "sadness": "grief", "surprise": "amazement", "trust": "admiration",
    }
)  # fmt: skip

# Our reading: the primary name decides, save for these clusters and names. Parrott puts hate,
# dislike and scorn under rage where our words put hate under loathing, and shock under fear where
# they put it under amazement; such names are left open.
_PARROTT_OPEN_CLUSTERS = (
    "pride", "optimism", "relief", "envy", "torment", "disappointment", "shame", "neglect",
    "sympathy",
)  # fmt: skip
_PARROTT_OPEN_NAMES = ("hate", "dislike", "scorn", "shock", "mortification")
_PARROTT_OTHERWISE: Mapping[str, str] = MappingProxyType({"loathing": "loathing"})

_JOY = MappingProxyType({"joy": "happiness"})
_SPELLINGS: Mapping[str, Mapping[str, str]] = MappingProxyType({"ekman": _JOY})
_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "plutchik": EMOTIONS, "plutchik_family": tuple(_FAMILIES), "ekman": EKMAN,
        "parrott": PARROTT_NAMES, "goemotions": GOEMOTIONS, "crowd-envent": CROWD_ENVENT,
    }
)  # fmt: skip


def emotion(name: str) -> Emotion:
    """Look an emotion up.

    Raises:
        StimulusError: the name is not one of the eight; the nearest is suggested.
    """
    found = TAXONOMY.get(name)
    if found is None:
        raise StimulusError(unknown_emotion(name, EMOTIONS))
    return found


def normalise_label(label: str, aliases: Mapping[str, str] | None = None) -> str:
    """Turn an emotion label of a file into one of `LABELS` or `NEUTRAL`.

    Case and outer blanks are ignored; `aliases` are those that the battery itself declares.

    Raises:
        StimulusError: the label is unknown; the nearest name is suggested.
    """
    key = label.strip().casefold()
    declared = {a.strip().casefold(): b.strip().casefold() for a, b in (aliases or {}).items()}
    key = declared.get(key, LABEL_ALIASES.get(key, key))
    if key != NEUTRAL and key not in LABELS:
        raise StimulusError(unknown_emotion(label))
    return key


def unknown_emotion(label: str, allowed: tuple[str, ...] = (*LABELS, NEUTRAL)) -> str:
    """Message for a label that is not in the taxonomy: what came, what is allowed, what to do."""
    key = label.strip().casefold()
    related = [e.name for e in _ALL if key in (e.family, e.ekman) or key in e.words]
    near = related or difflib.get_close_matches(key, allowed, n=1)
    hint = f"; nearest: {near[0]!r}" if near else ""
    return (
        f"unknown emotion {label!r}{hint}; allowed: {', '.join(allowed)}. Correct the "
        "label or declare an alias for it (docs/battery-format.md, Aliases)"
    )


def scheme_names(scheme: str) -> tuple[str, ...]:
    """The labels of a scheme, without spellings that are read as another.

    Raises:
        StimulusError: no such scheme; the nearest is suggested.
    """
    names = _NAMES.get(scheme)
    if names is None:
        raise StimulusError(_unknown("label scheme", scheme, SCHEMES))
    return names


def map_label(label: str, scheme: str, to: str) -> str | None:
    """The counterpart of a label of one scheme in another, or None where there is no fair one.

    Case and outer blanks are ignored; neutral is neutral in every scheme. A scheme maps to itself
    and to the `TARGETS`. The module docstring says which tables are published and which are ours.
    Maps to Ekman's six go through Plutchik's families, save GoEmotions' own.

    Args:
        label: a label of `scheme`.
        scheme: one of `SCHEMES`.
        to: one of `TARGETS`, or `scheme`.

    Raises:
        StimulusError: an unknown scheme or label (the nearest is suggested), or no map to `to`.
    """
    names = scheme_names(scheme)
    scheme_names(to)
    if to != scheme and to not in TARGETS:
        raise StimulusError(
            f"labels of {scheme!r} are not mapped to {to!r}; allowed: {', '.join(TARGETS)}"
        )
    key = label.strip().casefold()
    key = _SPELLINGS.get(scheme, {}).get(key, LABEL_ALIASES.get(key, key))
    if key == NEUTRAL:
        return NEUTRAL
    if key not in names:
        spelled = tuple(_SPELLINGS.get(scheme, ()))
        raise StimulusError(_unknown(f"label of {scheme}", label, names, spelled))
    if to == scheme:
        return key
    if (scheme, to) == ("goemotions", "ekman"):
        return _GOEMOTIONS_TO_EKMAN.get(key)
    peak = _peak(key, scheme)
    if peak is None or to == "plutchik":
        return peak
    return TAXONOMY[peak].family if to == "plutchik_family" else TAXONOMY[peak].ekman


def _peak(key: str, scheme: str) -> str | None:
    """Plutchik's peak of the family that a known label belongs to."""
    if scheme == "parrott":
        return _peak_of_parrott(key)
    tables: Mapping[str, Mapping[str, str]] = {
        "plutchik": {name: name for name in EMOTIONS},
        "plutchik_family": _FAMILIES,
        "ekman": _EKMAN_TO_PEAK,
        "goemotions": _GOEMOTIONS_TO_PEAK,
        "crowd-envent": _CROWD_ENVENT_TO_PEAK,
    }
    return tables[scheme].get(key)


def _peak_of_parrott(key: str) -> str | None:
    path = parrott_path(key)
    if key in _PARROTT_OPEN_NAMES or any(name in _PARROTT_OPEN_CLUSTERS for name in path[1:2]):
        return None
    if key in _PARROTT_OTHERWISE:
        return _PARROTT_OTHERWISE[key]
    # Disgust is a family of its own for Plutchik and Ekman, a kind of anger for Parrott.
    return _FAMILIES.get("disgust" if "disgust" in path[:2] else path[0])


def _unknown(what: str, came: str, allowed: tuple[str, ...], spelled: tuple[str, ...] = ()) -> str:
    near = difflib.get_close_matches(came.strip().casefold(), (*allowed, *spelled), n=1)
    hint = f"; nearest: {near[0]!r}" if near else ""
    shown = ", ".join(allowed if len(allowed) <= 30 else PARROTT)
    more = "" if len(allowed) <= 30 else f" and the names below them, {len(allowed)} in all"
    return f"unknown {what} {came!r}{hint}; allowed: {shown}{more}"
