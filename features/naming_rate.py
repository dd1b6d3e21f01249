"""How often generated text names an emotion outright.

A lever that makes a model say "angry" is weaker evidence than one that makes it tell of anger, and
a scorer that counts words cannot tell them apart. So naming is counted by itself, and scores are
also taken with the words masked (`text_scoring.MaskedScorer`).
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.taxonomy import EMOTION_WORDS, EMOTIONS
from affectlens.features._words import tokens, visible

ANY = "any"
"""Any of the eight emotions, or a word of emotion in general."""

_VOWELS = "aeiou"


@dataclass(frozen=True)
class NamingRate:
    """Share of texts that name an emotion.

    Attributes:
        emotion: one of the eight, or 'any'.
        n: texts, blank ones included (they name nothing).
        n_naming: texts that hold a word of the emotion which their prompt does not hold.
        n_blank: texts without a word.
        rate: n_naming / n; NaN without texts.
        low: lower end of the interval (`wilson`).
        high: upper end.
        level: its confidence level.
        words: texts that hold each word, most frequent first.
    """

    emotion: str
    n: int
    n_naming: int
    n_blank: int
    rate: float
    low: float
    high: float
    level: float
    words: Mapping[str, int]

    def __float__(self) -> float:
        return self.rate


def naming_rate(
    texts: Sequence[str],
    emotion: str,
    prompts: Sequence[str] | None = None,
    *,
    level: float = 0.95,
) -> NamingRate:
    """Count the texts that hold a word naming an emotion.

    Args:
        texts: continuations.
        emotion: one of the eight, or 'any'.
        prompts: the prompt of each text; words that it holds in the same form do not count.
        level: confidence level of the Wilson interval.

    Raises:
        ConfigError: an unknown emotion, another number of prompts than of texts, or a bad level.
    """
    found = named_words(texts, emotion, prompts)
    n, k = len(found), sum(map(bool, found))
    low, high = wilson(k, n, level)
    counts = Counter(word for words in found for word in words)
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return NamingRate(
        emotion=emotion,
        n=n,
        n_naming=k,
        n_blank=sum(not tokens(text) for text in texts),
        rate=k / n if n else math.nan,
        low=low,
        high=high,
        level=level,
        words=MappingProxyType(ordered),
    )


def names_emotion(
    texts: Sequence[str], emotion: str, prompts: Sequence[str] | None = None
) -> npt.NDArray[np.bool_]:
    """bool [n_texts]: whether each text names the emotion; see `naming_rate`."""
    return np.array([bool(w) for w in named_words(texts, emotion, prompts)], dtype=bool)


def named_words(
    texts: Sequence[str], emotion: str, prompts: Sequence[str] | None = None
) -> list[tuple[str, ...]]:
    """The words of each text that name the emotion and are not in its prompt, each once.

    Words are runs of letters: "grief-stricken" holds "grief", "therefore" does not hold "fear".
    Case, full-width letters and characters without width (soft hyphens, direction marks) make no
    difference. A negated word ("not angry") counts: it names the emotion.

    Raises:
        ConfigError: an unknown emotion, or another number of prompts than of texts.
        StimulusError: a single string where a list is needed.
    """
    if isinstance(texts, str) or isinstance(prompts, str):
        raise StimulusError("a list of texts is needed, got a single string; write [text]")
    wanted = naming_words(emotion)
    if prompts is not None and len(prompts) != len(texts):
        raise ConfigError(f"{len(texts)} texts but {len(prompts)} prompts; give each text its own")
    out = []
    for i, text in enumerate(texts):
        given = frozenset(_plain_tokens(prompts[i])) if prompts is not None else frozenset()
        words = (w for w in _plain_tokens(text) if w in wanted and w not in given)
        out.append(tuple(dict.fromkeys(words)))
    return out


@cache
def naming_words(emotion: str) -> frozenset[str]:
    """Words that name an emotion: our lexicon's, and regular inflections of the readout words.

    An inflected form that the lexicon lists under another emotion is left to that one.

    Raises:
        ConfigError: neither one of the eight nor 'any'.
    """
    lexicon = own_lexicon()
    if emotion == ANY:
        every = (naming_words(e) for e in EMOTIONS)
        return frozenset().union(*every, *lexicon.words.values())
    if emotion not in EMOTION_WORDS:
        raise ConfigError(
            f"unknown emotion {emotion!r}; allowed: {', '.join(EMOTIONS)}, or {ANY!r}"
        )
    formed = {form for word in EMOTION_WORDS[emotion] for form in _inflected(word)}
    return lexicon.words[emotion] | {f for f in formed if f not in lexicon.index}


def _inflected(word: str) -> tuple[str, ...]:
    """Regular endings of an English word; forms that no one writes do no harm."""
    stem = word.removesuffix("e")
    if word.endswith("y") and word[-2] not in _VOWELS:
        base = word[:-1]
        return (f"{base}ies", f"{base}ied", f"{word}ing", f"{base}ily", f"{base}ier", f"{base}iest")
    plural = f"{word}es" if word.endswith(("s", "sh", "ch", "x")) else f"{word}s"
    return (plural, f"{stem}ed", f"{stem}ing", f"{word}ly", f"{word}ness")


def _plain_tokens(text: str) -> list[str]:
    """Words of a text after compatibility normalisation, characters without width taken out."""
    plain = visible(unicodedata.normalize("NFKC", text))
    return [w.removesuffix("'s") for w in tokens(plain)]


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927): bounds in [0, 1]; (0, 1) without any trial.

    Raises:
        ConfigError: k outside 0..n, or a level outside (0, 1).
    """
    if not 0 <= k <= n or not 0 < level < 1:
        raise ConfigError(
            f"an interval of {k} out of {n} at level {level}: needs 0 <= k <= n, 0 < level < 1"
        )
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri((1 + level) / 2))
    p, weight = k / n, z * z / n
    centre = (p + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(p * (1 - p) / n + weight / (4 * n))
    low = 0.0 if k == 0 else max(0.0, centre - half)
    return low, 1.0 if k == n else min(1.0, centre + half)
