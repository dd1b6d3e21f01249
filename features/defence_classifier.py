"""The contextual methods of the defence: an emotion classifier, or a language model's own readout.

A classifier is any Hugging Face text-classification model with a neutral label. P(emotional) is
1 - P(neutral); labels are taken for the eight emotions by `taxonomy.map_label`. Labels that fit
none are listed, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Stimulus
from affectlens.data.taxonomy import NEUTRAL, TAXONOMY
from affectlens.features.classification_models import (
    ClassificationModel,
    emotion_of,
    read_classification_model,
)
from affectlens.features.contrasts import ALL
from affectlens.features.defence import Measured
from affectlens.features.readout_words import READOUT_WORDS
from affectlens.features.readouts import build_readout, readout_of

_NO_EMOTION = "complex_neutral"
"""The split whose items name no emotion, not even that of a pair."""


@dataclass(frozen=True, eq=False)
class EmotionClassifier:
    """A text classifier with a neutral label.

    Attributes:
        model: what is asked.
        neutral: index of the neutral label.
        emotions: emotion of each label, None where it stands for none of the eight.
    """

    model: ClassificationModel
    neutral: int
    emotions: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """What it was loaded by, with the commit of a hub model."""
        return self.model.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each output."""
        return self.model.labels

    def probabilities(self, texts: Sequence[str], batch_size: int = 16) -> npt.NDArray[np.float64]:
        """Probability of every label: [n_texts, n_labels]; nothing is cut.

        Raises:
            StimulusError: a text is longer than the classifier's context.
        """
        return self.model.probabilities(texts, batch_size)


def load_classifier(
    name: str, *, neutral_label: str | None = None, device: str = "cpu"
) -> EmotionClassifier:
    """Load a classifier from a local folder or the Hugging Face hub.

    Args:
        name: see `read_classification_model`.
        neutral_label: the label that means no emotion, if it is not called neutral.
        device: torch device.

    Raises:
        ModelError: see `read_classification_model`.
        ConfigError: no neutral label; the message lists the labels.
    """
    model = read_classification_model(name, device=device)
    neutral = _neutral(model.labels, neutral_label, model.name)
    emotions = (None if i == neutral else emotion_of(n) for i, n in enumerate(model.labels))
    return EmotionClassifier(model, neutral, tuple(emotions))


def classifier_measures(
    classifier: EmotionClassifier, items: Sequence[Stimulus], batch_size: int
) -> tuple[list[Measured], list[str]]:
    """P(emotional) and right top-1 of every item, and remarks about the labels.

    A label of two emotions' kind counts for the one it is mapped to. An item whose emotion no
    label stands for cannot be right: it counts as wrong in `top1` and is left out of
    `top1_covered`.
    """
    p = classifier.probabilities([i.text for i in items], batch_size)
    named = [classifier.emotions[k] for k in p.argmax(axis=1)]
    covered = {e for e in classifier.emotions if e is not None}
    right = _right(items, named)
    known = np.array([v if i.emotion in covered else np.nan for v, i in zip(right, items)])
    measures = [
        Measured("classifier", "p_emotional", 1.0 - p[:, classifier.neutral], by_emotion=True),
        Measured("classifier", "top1", right),
        Measured("classifier", "top1_covered", known),
    ]
    return measures, _label_notes(classifier, items, covered)


def readout_measures(
    lm: LanguageModel, items: Sequence[Stimulus], templates: Sequence[str], batch_size: int
) -> tuple[list[Measured], list[str]]:
    """The model's own emotion-word readout of every item (see `readouts`).

    `top1` is among the eight emotions, chance 1/8, without any correction for words that the model
    likes to say after anything.
    """
    readout = build_readout(lm, READOUT_WORDS, templates, calibrate=False)
    scores = readout_of(lm, [i.text for i in items], readout, batch_size=batch_size)
    column = {name: k for k, name in enumerate(readout.names)}
    own = [
        scores[k, column[i.emotion]] if i.split != _NO_EMOTION and i.emotion in column
        else np.nan
        for k, i in enumerate(items)
    ]  # fmt: skip
    best = scores[:, [column[e] for e in readout.emotions]].argmax(axis=1)
    measures = [
        Measured("readout", "own", np.array(own), by_emotion=True),
        Measured("readout", "all", scores[:, column[ALL]]),
        Measured("readout", "top1", _right(items, [readout.emotions[k] for k in best])),
    ]
    n_labels = len(readout.emotions)
    dropped = sum(map(len, readout.describe()["dropped"].values()))
    note = (
        f"The emotion-word readout of {lm.name} stands in for a classifier; it is the "
        f"model's next word after {', '.join(repr(t) for t in templates)}, among "
        f"{n_labels} emotions (chance {1 / n_labels:.3f}); {dropped} words "
        "that the tokenizer splits were left out."
    )
    return measures, [note]


def _right(items: Sequence[Stimulus], named: Sequence[str | None]) -> npt.NDArray[np.float64]:
    """1 where the emotion named is the item's (for a neutral: its pair's), NaN without one."""
    return np.array(
        [
            float(name == i.emotion) if i.split != _NO_EMOTION and i.emotion in TAXONOMY else np.nan
            for i, name in zip(items, named, strict=True)
        ]
    )


def _label_notes(
    classifier: EmotionClassifier, items: Sequence[Stimulus], covered: set[str]
) -> list[str]:
    mapped: Mapping[str, str] = {
        n: e for n, e in zip(classifier.labels, classifier.emotions, strict=True) if e is not None
    }
    other = [
        n
        for k, (n, e) in enumerate(zip(classifier.labels, classifier.emotions, strict=True))
        if e is None and k != classifier.neutral
    ]
    absent = [e for e in TAXONOMY if e not in covered and any(i.emotion == e for i in items)]
    shown = ", ".join(f"{n} as {e}" for n, e in mapped.items()) or "none"
    notes = [
        f"Classifier {classifier.name}: neutral label {classifier.labels[classifier.neutral]!r}; "
        f"labels taken for emotions: {shown}."
    ]
    if other:
        notes.append(f"Labels that stand for none of the eight emotions: {', '.join(other)}.")
    if absent:
        notes.append(
            f"No label stands for {', '.join(absent)}: their items count as wrong in 'top1' and "
            "are left out of 'top1_covered'."
        )
    return notes


def _neutral(labels: Sequence[str], asked: str | None, name: str) -> int:
    wanted = (asked or NEUTRAL).strip().casefold()
    found = [k for k, label in enumerate(labels) if label.strip().casefold() == wanted]
    if not found:
        raise ConfigError(
            f"classifier {name} has no label {asked or NEUTRAL!r}; its labels: "
            f"{', '.join(labels)}. P(emotional) is 1 - P(neutral): name the label that means no "
            "emotion with --neutral-label, or take a classifier that has one"
        )
    return found[0]
