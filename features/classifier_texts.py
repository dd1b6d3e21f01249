"""Texts that the offline judge of generated text is trained on, and how they are cut and varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from affectlens.data.corpus import load_corpus
from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.passages import load_passages
from affectlens.data.stimuli import load_battery
from affectlens.data.taxonomy import EMOTIONS, NEUTRAL
from affectlens.features._words import tokens
from affectlens.features.incoherence import cut, rule_breaks
from affectlens.features.text_scoring import mask_emotion_words

SOUND_LABELS: tuple[str, ...] = (*EMOTIONS, NEUTRAL)
"""Labels of sound text, in the order of the classifier's columns."""

N_CALM = 120
"""Corpus documents used as neutral text."""

_WINDOW = (15, 60)
_BACKGROUND = (8, 30)
_WINDOWS_PER_TEXT = 3
_MOST_NAMED = 1


@dataclass(frozen=True)
class Labelled:
    """A training text.

    `label` is one of `SOUND_LABELS`; texts of one `group` are never split between training and
    held-out; `source` is 'keyword_rich', 'passages' or 'corpus'; `names_it` says whether a word of
    the text names an emotion, for passages only.
    """

    text: str
    label: str
    group: str
    source: str
    names_it: bool = False


@dataclass(frozen=True)
class TrainingTexts:
    """What a classifier is made from.

    Attributes:
        items: labelled texts.
        plain: running text without a label: background of windows, and sound text for the measures
            of form.
        form: more of it, for the counts of `FormModel` alone, so that texts measured against these
            counts are not in them.
        left_out: corpus documents not used as neutral text, by reason.
    """

    items: tuple[Labelled, ...]
    plain: tuple[str, ...]
    form: tuple[str, ...]
    left_out: Mapping[str, int]


@lru_cache(maxsize=1)
def training_texts() -> TrainingTexts:
    """Texts that the package holds; no member of a battery's pairs is among them.

    These are the keyword-rich items of the default battery, the embedded passages, and documents of
    the default corpus that hold one word of emotion at most and break no rule of fluency, as
    neutral text. Few of the latter are used: the corpus was written by a model, and a classifier
    that sees only neutral text in a model's style takes the style for the absence of emotion.
    """
    items = [
        Labelled(i.text, i.emotion, i.id, "keyword_rich")
        for i in load_battery().items
        if i.split == "keyword_rich"
    ]
    items += [
        Labelled(p.text, p.label, f"setting {p.group}", "passages", p.names_it)
        for p in load_passages().items
    ]
    documents = load_corpus("default").documents
    form, rest = documents[::2], documents[1::2]
    reasons = {d.id: _not_calm(d.text) for d in rest}
    calm = [d for d in rest if not reasons[d.id]]
    items += [Labelled(d.text, NEUTRAL, f"corpus {d.id}", "corpus") for d in calm[:N_CALM]]
    left_out = {
        "for the counts of form": len(form),
        **{reason: list(reasons.values()).count(reason) for reason in _REASONS},
        "more than needed": len(calm[N_CALM:]),
    }
    return TrainingTexts(
        tuple(items),
        tuple(d.text for d in rest if reasons[d.id] != _SHORT),
        tuple(d.text for d in form),
        MappingProxyType(left_out),
    )


_SHORT, _BROKEN, _NAMES = "under 15 words", "breaks a rule of fluency", "names emotions"
_REASONS = (_SHORT, _BROKEN, _NAMES)


def _not_calm(text: str) -> str:
    """Why a document is not taken for neutral; '' if it is."""
    words = tokens(text)
    if len(words) < _WINDOW[0]:
        return _SHORT
    if rule_breaks(text):
        return _BROKEN
    return _NAMES if len(own_lexicon().hits(words)) > _MOST_NAMED else ""


@dataclass(frozen=True, eq=False)
class Windows:
    """Training texts as they are fitted: `texts`, `labels` (places in `SOUND_LABELS`, int [n]) and
    the item each came from (`item`, int [n])."""

    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]


def training_windows(
    items: Sequence[Labelled], plain: Sequence[str], rng: np.random.Generator
) -> Windows:
    """Cut and vary texts: whole, and in three windows of 15 to 60 words; corpus texts in one.

    Half of the windows stand before or after 8 to 30 words of running text, so that neither a
    change of tone nor a model's style says that there is no emotion. Half of all have their emotion
    words taken out, if anything is left then.
    """
    texts: list[str] = []
    source: list[int] = []
    behind = [t.split() for t in plain]
    for index, item in enumerate(items):
        words = item.text.split()
        pieces = [] if item.source == "corpus" else [words]
        for _ in range(1 if item.source == "corpus" else _WINDOWS_PER_TEXT):
            piece = cut(words, rng, *_WINDOW)
            if item.source != "corpus" and behind and rng.random() < 0.5:
                other = cut(behind[int(rng.integers(len(behind)))], rng, *_BACKGROUND)
                piece = other + piece if rng.random() < 0.5 else piece + other
            pieces.append(piece)
        for piece in pieces:
            text = " ".join(piece)
            texts.append((mask_emotion_words(text) or text) if rng.random() < 0.5 else text)
            source.append(index)
    labels = np.array([SOUND_LABELS.index(items[i].label) for i in source], dtype=np.int64)
    return Windows(tuple(texts), labels, np.array(source, dtype=np.int64))
