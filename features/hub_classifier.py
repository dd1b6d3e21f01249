"""Any published text-classification model as a scorer of generated text.

Its labels are mapped to the eight emotions by `taxonomy.map_label` or by the user. What it says
about labels that fit none of them counts as neutral, which here means "none of the eight", and is
listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError, ModelError
from affectlens.data.taxonomy import LABEL_ALIASES, NEUTRAL
from affectlens.features.classification_models import emotion_of, read_classification_model
from affectlens.features.incoherence import INCOHERENT, rule_breaks
from affectlens.features.text_scoring import SCORE_LABELS, checked_texts

Array = npt.NDArray[np.float64]


class HubClassifier:
    """A text-classification model of the Hugging Face hub, or of a folder, with our labels.

    Incoherence comes from the rules of fluency (`incoherence.rule_breaks`), since such models know
    no such label: a text that breaks one is incoherent with probability 1. Texts longer than the
    model's context are cut at its end and counted.

    Args:
        name: an existing folder, else a hub id ('ID' or 'ID@REVISION').
        label_map: label of the model -> one of `SCORE_LABELS`; goes before the automatic map, and
            must fit: a label that the model lacks is an error.
        batch_size: texts in one forward pass.
        device: torch device.

    Raises:
        ModelError: not found, not fetchable, no safetensors, unreadable, or weights missing.
        ConfigError: `label_map` does not fit, or none of the labels stands for an emotion.
    """

    def __init__(
        self,
        name: str | Path,
        label_map: Mapping[str, str] | None = None,
        *,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        try:
            self._model = read_classification_model(str(name), device=device)
        except ModelError as error:
            raise ModelError(
                f"the scorer {str(name)!r} cannot be had: {error}. Scorers that need no model are "
                "'default' and 'lexicon'"
            ) from error
        self.targets = _targets(self._model.labels, label_map, self._model.name)
        """Our label of each output of the model; None where none fits."""
        self._batch_size = batch_size
        self._columns = [SCORE_LABELS.index(t or NEUTRAL) for t in self.targets]
        self.n_texts = 0
        """Texts that the model has been asked about."""
        self.n_truncated = 0
        """Texts among them that were cut."""
        self._unmapped_mass = 0.0

    @property
    def labels(self) -> tuple[str, ...]:
        """`SCORE_LABELS`."""
        return SCORE_LABELS

    def probabilities(self, texts: Sequence[str]) -> Array:
        """float64 [n_texts, n_labels].

        Independent outputs (a multi-label model) are divided by their sum.
        """
        listed = checked_texts(texts)
        out = np.zeros((len(listed), len(SCORE_LABELS)))
        sound = [i for i, text in enumerate(listed) if not rule_breaks(text)]
        out[:, SCORE_LABELS.index(INCOHERENT)] = 1.0
        out[sound] = 0.0
        asked = [listed[i] for i in sound]
        self.n_texts += len(asked)
        self.n_truncated += sum(n > self._model.context_length for n in self._model.n_tokens(asked))
        raw = self._model.probabilities(asked, self._batch_size, cut=True)
        raw /= np.maximum(raw.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        for k, column in enumerate(self._columns):
            out[sound, column] += raw[:, k]
        self._unmapped_mass += float(raw[:, [t is None for t in self.targets]].sum())
        return out

    def card(self) -> dict[str, Any]:
        """What it is, how its labels were read, and what was cut so far."""
        pairs = list(zip(self._model.labels, self.targets, strict=True))
        unmapped = [label for label, target in pairs if target is None]
        return {
            "name": self._model.name,
            "kind": "text-classification model, incoherence by rule",
            "labels": {label: target for label, target in pairs if target},
            "unmapped_labels": unmapped,
            "n_unmapped_labels": len(unmapped),
            "mean_unmapped_mass": self._unmapped_mass / self.n_texts if self.n_texts else None,
            "labels_without_output": [
                label for label in SCORE_LABELS if label not in (*self.targets, INCOHERENT)
            ],
            "context_length": self._model.context_length,
            "n_texts": self.n_texts,
            "n_truncated": self.n_truncated,
            "held_out": None,
        }


def _targets(
    labels: Sequence[str], asked: Mapping[str, str] | None, name: str
) -> tuple[str | None, ...]:
    """Our label of each output of the model."""
    given = {k.strip().casefold(): v for k, v in (asked or {}).items()}
    known = {label.strip().casefold() for label in labels}
    lost = sorted(set(given) - known)
    if lost:
        raise ConfigError(
            f"the label map names {', '.join(map(repr, lost))}, but {name} has the labels "
            f"{', '.join(labels)}"
        )
    wrong = sorted({v for v in given.values() if v not in SCORE_LABELS})
    if wrong:
        raise ConfigError(
            f"the label map leads to {', '.join(map(repr, wrong))}; allowed: "
            f"{', '.join(SCORE_LABELS)}"
        )
    out = tuple(given.get(label.strip().casefold(), _plain_target(label)) for label in labels)
    if all(t in (None, NEUTRAL, INCOHERENT) for t in out):
        raise ConfigError(
            f"none of the labels of {name} stands for one of the eight emotions: "
            f"{', '.join(labels)}. Give a label map from them to {', '.join(SCORE_LABELS)}"
        )
    return out


def _plain_target(label: str) -> str | None:
    key = label.strip().casefold()
    return NEUTRAL if LABEL_ALIASES.get(key, key) == NEUTRAL else emotion_of(label)
