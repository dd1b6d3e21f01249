"""The offline judge of generated text: a linear classifier of eight emotions, neutral and broken.

It is trained in seconds, in memory, from texts that the package holds, and never sees which emotion
an intervention aimed at. Two parts answer one after the other:

    p(incoherent) = sigmoid(logistic regression on measures of form, `incoherence.FormModel`)
    p(label)      = (1 - p(incoherent)) * softmax(scores of nine labels / temperature)

The first part sees form only and the second is fitted to sound text only, so a broken text about
grief is broken and not grief. The nine scores come from a multinomial logistic regression on TF-IDF
of words, word stems, word beginnings and pairs of words, on shares of emotion words
(`data.emotion_lexicon`) and on the valence of VADER (Hutto and Gilbert 2014). The temperature (Guo
et al. 2017) is fitted to windows held out by group.

It is a bag of words and no reader: `card()` says how well it does on held-out groups, with and
without the emotion words. Members of a battery's pairs are never trained on, since features are
searched on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from vader import polarity_scores

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import ConfigError
from affectlens.data.taxonomy import EMOTIONS
from affectlens.features._words import FUNCTION_WORDS, tokens
from affectlens.features.classifier_check import HeldOut, held_out_facts, held_out_lines
from affectlens.features.classifier_texts import (
    SOUND_LABELS,
    Labelled,
    TrainingTexts,
    training_texts,
    training_windows,
)
from affectlens.features.incoherence import Broken, FormModel, cut, make_incoherent
from affectlens.features.text_scoring import SCORE_LABELS, checked_texts, mask_emotion_words

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_FOLDS = 5
_PENALTY = 5.0
_FEW_WEIGHT = 2.0
_N_BROKEN = 1000
_PER_LABEL = 50
_SHORT_WORDS = 20
_SOUND_WINDOW = (8, 60)
_ENDINGS = (
    "ingly", "edly", "ings", "ing", "ies", "ied", "ers", "est", "ed", "es", "ly", "er", "s", "y",
    "e",
)  # fmt: skip


def default_scorer(seed: int = 0) -> TextClassifier:
    """The offline classifier, trained on what the package holds; the same for the same seed.

    It is trained in some seconds on the first call and kept in memory.

    Args:
        seed: of windows, masked words, folds and made incoherent texts.
    """
    return _trained(int(seed))


@lru_cache(maxsize=4)
def _trained(seed: int) -> TextClassifier:
    return TextClassifier(training_texts(), seed)


class TextClassifier:
    """A trained classifier; see the module for what it does.

    Args:
        given: the texts.
        seed: of windows, masked words, folds and made incoherent texts.

    Raises:
        ConfigError: a label without texts in at least five groups.
    """

    def __init__(self, given: TrainingTexts, seed: int = 0) -> None:
        self._given, self._seed = given, seed
        self._fold = _folds(given.items, seed)
        rng = np.random.default_rng([seed, 1])
        self._windows = training_windows(given.items, given.plain, rng)
        self._terms = _Terms(self._windows.texts)
        self._form = FormModel(given.form)
        self._sound, self._broken = _form_texts(given, rng)
        self._measures = self._form.features([*(t for t, _ in self._sound), *_texts(self._broken)])
        self._fits = [self._fitted(fold) for fold in range(_FOLDS)]
        self.temperature = self._fitted_temperature()
        """What scores are divided by."""
        self._final = self._fitted(None)

    def _fitted(self, fold: int | None) -> _Fit:
        """Both parts, fitted without the items of a fold."""
        kept = np.flatnonzero(self._fold[self._windows.item] != fold)
        label = LogisticRegression(C=_PENALTY, max_iter=150, tol=1e-3, class_weight="balanced")
        tfidf = TfidfTransformer(sublinear_tf=True).fit(self._terms.counts[kept])
        design = _joined(tfidf, self._terms.counts[kept], self._terms.few[kept])
        label.fit(design, self._windows.labels[kept])
        origin = np.array([i for _, i in self._sound] + [b.source for b in self._broken])
        # Running text without a label has no item, and is never held out.
        used = (origin < 0) | (self._fold[origin] != fold)
        wrong = np.arange(len(origin)) >= len(self._sound)
        form = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=1000))
        form.fit(self._measures[used], wrong[used])
        return _Fit(tfidf, label, form)

    def _fitted_temperature(self) -> float:
        """The temperature at which held-out windows are likeliest."""
        scores = np.zeros((len(self._windows.texts), len(SOUND_LABELS)))
        for fold, fit in enumerate(self._fits):
            out = np.flatnonzero(self._fold[self._windows.item] == fold)
            scores[out] = fit.scores(self._terms.counts[out], self._terms.few[out])
        rows = np.arange(len(scores))

        def loss(log_t: float) -> float:
            p = log_softmax(scores / np.exp(log_t), axis=1)
            return -float(p[rows, self._windows.labels].mean())

        return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))

    @property
    def labels(self) -> tuple[str, ...]:
        """`SCORE_LABELS`."""
        return SCORE_LABELS

    def probabilities(self, texts: Sequence[str]) -> Array:
        """float64 [n_texts, n_labels]; a text without a word is incoherent."""
        return self._read(self._final, checked_texts(texts))

    def _read(self, fit: _Fit, texts: list[str]) -> Array:
        out = np.zeros((len(texts), len(SCORE_LABELS)))
        out[:, -1] = 1.0
        full = [i for i, text in enumerate(texts) if tokens(text)]
        if full:
            kept = [texts[i] for i in full]
            wrong = expit(fit.form.decision_function(self._form.features(kept)))
            scores = fit.scores(self._terms.of(kept), _few(kept))
            out[full, :-1] = (1 - wrong)[:, None] * softmax(scores / self.temperature, axis=1)
            out[full, -1] = wrong
        return out

    @cached_property
    def held_out(self) -> HeldOut:
        """Answers about texts of groups that were not fitted, fold by fold.

        Whole keyword-rich items and passages, the same without emotion words, the same cut to 20
        words, and as many broken texts (made from held-out texts) as a label has passages.
        """
        items = self._given.items
        views: dict[str, Array] = {
            name: np.zeros((len(items), len(SCORE_LABELS))) for name in ("whole", "masked", "short")
        }
        rng = np.random.default_rng([self._seed, 2])
        broken: list[Array] = []
        for fold, fit in enumerate(self._fits):
            mine = [i for i in np.flatnonzero(self._fold == fold) if items[i].source != "corpus"]
            texts = [items[i].text for i in mine]
            views["whole"][mine] = self._read(fit, texts)
            views["masked"][mine] = self._read(fit, [mask_emotion_words(t) for t in texts])
            starts = [" ".join(cut(t.split(), rng, _SHORT_WORDS, _SHORT_WORDS)) for t in texts]
            views["short"][mine] = self._read(fit, starts)
            made = make_incoherent(texts, _PER_LABEL // _FOLDS, rng)
            broken.append(self._read(fit, list(_texts(made))))
        used = np.array([i for i, item in enumerate(items) if item.source != "corpus"])
        return HeldOut(
            labels=tuple(items[i].label for i in used),
            groups=tuple(items[i].group for i in used),
            named=np.array([items[i].names_it for i in used]),
            passages=np.array([items[i].source == "passages" for i in used]),
            views={name: values[used] for name, values in views.items()},
            broken=np.concatenate(broken),
        )

    def __str__(self) -> str:
        """Accuracy on held-out groups, in a few lines."""
        lines = held_out_lines(held_out_facts(self.held_out, self._seed))
        return "\n".join(["affectlens linear classifier, held-out groups", *lines])

    def card(self) -> dict[str, Any]:
        """Facts, and accuracy on held-out groups; the first call takes some seconds."""
        items = self._given.items
        sources = dict.fromkeys(i.source for i in items)
        return {
            "name": "affectlens linear classifier",
            "kind": "TF-IDF, emotion words and VADER, multinomial logistic regression; incoherence "
            "from measures of form",
            "seed": self._seed,
            "temperature": self.temperature,
            "n_texts": {s: sum(i.source == s for i in items) for s in sources},
            "n_texts_of_label": {k: sum(i.label == k for i in items) for k in SOUND_LABELS},
            "n_windows": len(self._windows.texts),
            "n_terms": self._terms.counts.shape[1],
            "n_broken": len(self._broken),
            "corpus_left_out": dict(self._given.left_out),
            "n_folds": _FOLDS,
            "held_out": held_out_facts(self.held_out, self._seed),
        }


class _Fit:
    """One fit of both parts."""

    def __init__(self, tfidf: TfidfTransformer, label: LogisticRegression, form: Pipeline) -> None:
        self._tfidf, self._label, self.form = tfidf, label, form

    def scores(self, counts: sparse.csr_matrix, few: Array) -> Array:
        """[n, 9] scores of `SOUND_LABELS` before the temperature."""
        design = _joined(self._tfidf, counts, few)
        return np.asarray(self._label.decision_function(design))


def _joined(tfidf: TfidfTransformer, counts: sparse.csr_matrix, few: Array) -> sparse.csr_matrix:
    return sparse.hstack([tfidf.transform(counts), few * _FEW_WEIGHT], format="csr")


class _Terms:
    """Counts of terms. The columns are collected over all windows, which leaks nothing: a term that
    is absent from the fitted ones has weight zero."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._vectorizer = CountVectorizer(analyzer=_analysed, min_df=2)
        self.counts: sparse.csr_matrix = self._vectorizer.fit_transform(texts).tocsr()
        self.few = _few(texts)

    def of(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Counts [n_texts, n_terms]."""
        return self._vectorizer.transform(texts).tocsr()


def _analysed(text: str) -> list[str]:
    """Words, stems ('~'), beginnings ('<') and pairs of neighbours."""
    words = tokens(text)
    return [
        *words,
        *(f"~{_stem(w)}" for w in words if w not in FUNCTION_WORDS),
        *(f"<{w[:5]}" for w in words if len(w) > 5),
        *(f"{a} {b}" for a, b in pairwise(words)),
    ]


def _stem(word: str) -> str:
    return next(
        (word[: -len(e)] for e in _ENDINGS if word.endswith(e) and len(word) - len(e) >= 3), word
    )


def _few(texts: Sequence[str]) -> Array:
    """[n, 11] roots of the shares of emotion words, and VADER's positive, negative, compound."""
    out = np.zeros((len(texts), len(EMOTIONS) + 3))
    lexicon = own_lexicon()
    for row, text in zip(out, texts, strict=True):
        words = tokens(text)
        counts = lexicon.count(words)
        row[: len(EMOTIONS)] = np.sqrt([counts[e] / max(len(words), 1) for e in EMOTIONS])
        valence = polarity_scores(text)
        row[len(EMOTIONS) :] = valence["pos"], valence["neg"], valence["compound"]
    return out


def _form_texts(
    given: TrainingTexts, rng: np.random.Generator
) -> tuple[list[tuple[str, int]], list[Broken]]:
    """Sound windows of 8 to 60 words and broken ones, each with its item; -1 for running text."""
    everything = [*(i.text for i in given.items), *given.plain]
    items = [*range(len(given.items)), *([-1] * len(given.plain))]
    sound = [
        (" ".join(cut(text.split(), rng, *_SOUND_WINDOW)), item)
        for text, item in zip(everything, items, strict=True)
    ]
    made = make_incoherent(everything, _N_BROKEN, rng)
    return sound, [Broken(b.text, b.kind, items[b.source]) for b in made]


def _texts(broken: Sequence[Broken]) -> tuple[str, ...]:
    return tuple(b.text for b in broken)


def _folds(items: Sequence[Labelled], seed: int) -> Indices:
    """Fold of each item; groups are kept together."""
    for label in SOUND_LABELS:
        of_label = {i.group for i in items if i.label == label}
        if len(of_label) < _FOLDS:
            raise ConfigError(
                f"the label {label!r} has texts of {len(of_label)} groups; a classifier needs "
                f"texts of at least {_FOLDS} groups for each of {', '.join(SOUND_LABELS)}"
            )
    groups = sorted({i.group for i in items})
    order = np.random.default_rng([seed, 0]).permutation(len(groups))
    fold = {groups[g]: place % _FOLDS for place, g in enumerate(order)}
    return np.array([fold[i.group] for i in items], dtype=np.int64)
