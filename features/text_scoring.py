"""Scorers of generated text: which emotion does a text carry, is it neutral, is it still language?

A scorer never sees which emotion an intervention aimed at: it is given texts and answers with a
probability for each label. Three kinds share one protocol: the offline classifier
(`text_classifier.default_scorer`), the lexicon (`LexiconScorer`, which counts naming and nothing
else) and any published classifier (`hub_classifier.HubClassifier`). `MaskedScorer` takes the
emotion words out before it asks another scorer, so that evoking can be told from naming.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from affectlens.data.emotion_lexicon import GENERAL, EmotionLexicon, own_lexicon
from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.taxonomy import EMOTIONS, NEUTRAL
from affectlens.features._words import tokens, visible
from affectlens.features.incoherence import INCOHERENT, rule_breaks
from affectlens.features.naming_rate import ANY, naming_words

Array = npt.NDArray[np.float64]

SCORE_LABELS: tuple[str, ...] = (*EMOTIONS, NEUTRAL, INCOHERENT)
"""The labels of every scorer, in the order of its columns."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_BLANKS = re.compile(r"[^\S\n]{2,}")
_GAP = re.compile(r"\s+([,.;:!?])")


@runtime_checkable
class TextScorer(Protocol):
    """What the judges of generated text have in common."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of `probabilities`; always `SCORE_LABELS`."""
        ...

    def probabilities(self, texts: Sequence[str]) -> Array:
        """float64 [n_texts, n_labels], rows sum to 1; [0, n_labels] for no text.

        An empty or blank text is incoherent with probability 1.
        """
        ...

    def card(self) -> dict[str, Any]:
        """JSON-able facts: what it is, what it was made from, how well it does on held-out text."""
        ...


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        StimulusError: a single string, or an item that is no string.
    """
    if isinstance(texts, str):
        raise StimulusError("a list of texts is needed, got a single string; write [text]")
    listed = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise StimulusError(f"text {index} is {type(text).__name__}, not a string: {text!r}")
    return listed


def mask_emotion_words(text: str, words: Container[str] | None = None) -> str:
    """The text without words of emotion; all that name any (`naming_rate.naming_words`) by default.

    Words are runs of letters, case ignored: "joy-ride" loses "joy", "therefore" keeps its "fear".
    They are taken out, not replaced, since any stand-in is itself a word; the blanks left behind
    are closed. A text without such a word is returned as it is.

    Args:
        text: any text.
        words: lower-case words to take out.
    """
    listed = naming_words(ANY) if words is None else words
    seen = visible(text)
    gone = _WORD.sub(lambda m: "" if _is_listed(m.group(), listed) else m.group(), seen)
    return _GAP.sub(r"\1", _BLANKS.sub(" ", gone)).strip() if gone != seen else text


def _is_listed(word: str, listed: Container[str]) -> bool:
    lowered = word.lower().replace("\u2019", "'")
    return lowered in listed or lowered.removesuffix("'s") in listed


@dataclass(frozen=True)
class MaskedScorer:
    """Another scorer, asked about texts whose emotion words have been taken out.

    What it still finds is carried by the rest of the text: evoking, not naming.

    Attributes:
        scorer: the scorer that is asked.
        words: lower-case words taken out; by default all that name any emotion.
    """

    scorer: TextScorer
    words: frozenset[str] = field(default_factory=lambda: naming_words(ANY))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the scorer that is asked."""
        return self.scorer.labels

    def probabilities(self, texts: Sequence[str]) -> Array:
        """float64 [n_texts, n_labels]; a text of emotion words alone is blank afterwards."""
        return self.scorer.probabilities(
            [mask_emotion_words(text, self.words) for text in checked_texts(texts)]
        )

    def card(self) -> dict[str, Any]:
        """The card of the scorer that is asked, and how many words are masked."""
        card = self.scorer.card()
        return {
            "name": f"masked {card.get('name', '')}".strip(),
            "n_masked_words": len(self.words),
            "scorer": card,
        }


@dataclass(frozen=True)
class LexiconScorer:
    """Counts of emotion words: a measure of naming, and the weakest judge of emotion.

    With c_e words of emotion e in the text and C their sum, emotion e gets c_e / (C + 1) and
    neutral 1 / (C + 1): one count of nothing, so a text without any such word is neutral. A text
    that breaks a rule of fluency (`incoherence.rule_breaks`) is incoherent with probability 1.

    Attributes:
        lexicon: its categories must contain the eight emotions; others count as neutral.
    """

    lexicon: EmotionLexicon = field(default_factory=own_lexicon)

    def __post_init__(self) -> None:
        missing = [e for e in EMOTIONS if e not in self.lexicon.words]
        if missing:
            raise ConfigError(
                f"the lexicon {self.lexicon.name!r} has no words for {', '.join(missing)}; a "
                f"lexicon scorer needs the categories {', '.join(EMOTIONS)}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """`SCORE_LABELS`."""
        return SCORE_LABELS

    def probabilities(self, texts: Sequence[str]) -> Array:
        """float64 [n_texts, n_labels]."""
        listed = checked_texts(texts)
        out = np.zeros((len(listed), len(SCORE_LABELS)))
        for row, text in zip(out, listed, strict=True):
            row[:] = self._row(text)
        return out

    def _row(self, text: str) -> Array:
        row = np.zeros(len(SCORE_LABELS))
        if rule_breaks(text):
            row[SCORE_LABELS.index(INCOHERENT)] = 1.0
            return row
        counts = self.lexicon.count(tokens(text))
        named = np.array([counts[e] for e in EMOTIONS], dtype=float)
        row[: len(EMOTIONS)] = named / (named.sum() + 1)
        row[SCORE_LABELS.index(NEUTRAL)] = 1 / (named.sum() + 1)
        return row

    def card(self) -> dict[str, Any]:
        """What it is; it was fitted to nothing, so it has no held-out accuracy of its own."""
        return {
            "name": "lexicon",
            "kind": "shares of emotion words, incoherence by rule",
            "lexicon": self.lexicon.name,
            "n_words": {e: len(self.lexicon.words[e]) for e in EMOTIONS},
            "n_general": len(self.lexicon.words.get(GENERAL, ())),
            "fitted": False,
        }


def scorer_named(
    name: str | Path = "default",
    *,
    seed: int = 0,
    label_map: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> TextScorer:
    """A scorer by name.

    Args:
        name: "default" (the offline classifier), "lexicon", else a hub id ('ID' or 'ID@REVISION')
            or a folder of a text-classification model.
        seed: of the offline classifier.
        label_map: labels of a hub model to ours, see `HubClassifier`.
        device: torch device of a hub model.

    Raises:
        ConfigError: `label_map` with a scorer that has our labels already, or one that does not
            fit the model's labels.
        ModelError: a hub model that cannot be had or read.
    """
    spec = str(name)
    if spec in ("default", "lexicon"):
        if label_map is not None:
            raise ConfigError(
                f"scorer {spec!r} has our labels already; a label map goes with a hub id or folder"
            )
        if spec == "lexicon":
            return LexiconScorer()
        from affectlens.features.text_classifier import default_scorer

        return default_scorer(seed)
    from affectlens.features.hub_classifier import HubClassifier

    return HubClassifier(spec, label_map, device=device)
