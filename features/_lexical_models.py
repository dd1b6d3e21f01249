"""The classifiers behind `lexical`: small scikit-learn pipelines, scored on items left out.

Rows are ordered clinical 0..n-1, then neutral 0..n-1, so that item i belongs to pair i % n.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from vader import polarity_scores

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.features._lexical_scores import cluster_bootstrap, pair_scores
from affectlens.features._words import is_function_word, is_negator
from affectlens.features.effect_sizes import auroc

LAST = 20
"""Words that the control `ending` sees: what a reader at the end of a text sees best."""

_MANY = 4000
"""Rows above which the faster solver is used."""


class TermDesign:
    """Counts of terms, [2n, n_terms]; TF-IDF is fitted inside each fold.

    The columns are collected over all items. That leaks nothing: a term absent from the training
    part is constant there and gets weight zero.
    """

    def __init__(self, documents: Sequence[Sequence[str]], *, paired: bool = False) -> None:
        self._paired = paired
        self._counts = _counts(documents)

    def out_of_fold(self, folds: np.ndarray) -> np.ndarray:
        """Decision scores [2n] of each item by a model fitted without its fold."""
        if self._counts.shape[1] == 0:
            return np.zeros(self._counts.shape[0])
        fit = self._fit_paired if self._paired else self._fit_items
        return _out_of_fold(self._counts, folds, fit)

    def _fit_items(self, rows: csr_matrix) -> Pipeline:
        return make_pipeline(_tfidf(), _logistic(rows.shape[0])).fit(rows, _labels(rows.shape[0]))

    def _fit_paired(self, rows: csr_matrix) -> Pipeline:
        tfidf = _tfidf().fit(rows)
        values, half = tfidf.transform(rows), rows.shape[0] // 2
        difference = values[:half] - values[half:]
        # Both signs, no intercept: the classes are then each other's mirror image.
        model = _logistic(rows.shape[0], fit_intercept=False)
        model.fit(vstack([difference, -difference]), _labels(rows.shape[0]))
        return Pipeline([("tfidf", tfidf), ("logistic", model)])


@dataclass(frozen=True)
class NumberDesign:
    """Numbers per item, [2n, n_numbers]; standardised inside each fold.

    `strength` is scikit-learn's `C`, the inverse of the L2 penalty.
    """

    values: np.ndarray
    strength: float = 10.0

    def out_of_fold(self, folds: np.ndarray) -> np.ndarray:
        """Decision scores [2n] of each item by a model fitted without its fold."""
        return _out_of_fold(self.values, folds, self._fit)

    def _fit(self, rows: np.ndarray) -> Pipeline:
        model = _logistic(len(rows), strength=self.strength)
        return make_pipeline(StandardScaler(), model).fit(rows, _labels(len(rows)))


def designs(words: list[list[str]], texts: list[str]) -> dict[str, TermDesign | NumberDesign]:
    """The features of every control; `words` are the tokens of `texts`, both in row order."""
    return {
        "words": TermDesign(words),
        "words_paired": TermDesign(words, paired=True),
        "bigrams": TermDesign([[*ws, *map(" ".join, pairwise(ws))] for ws in words]),
        "ending": TermDesign([ws[-LAST:] for ws in words]),
        "function_words": TermDesign([[w for w in ws if is_function_word(w)] for ws in words]),
        "content_words": TermDesign([[w for w in ws if not is_function_word(w)] for ws in words]),
        "characters": TermDesign([character_ngrams(ws) for ws in words]),
        "surface": NumberDesign(
            np.array([_surface(t, ws) for t, ws in zip(texts, words, strict=True)])
        ),
        "negations": NumberDesign(np.array([[float(sum(map(is_negator, ws)))] for ws in words])),
        "length": NumberDesign(np.array([[float(len(t.split()))] for t in texts])),
        "valence": NumberDesign(np.array([[polarity_scores(t)["compound"]] for t in texts])),
        "emotion_words": NumberDesign(np.array([_emotion_counts(ws) for ws in words])),
    }


def grouped_folds(
    groups: Sequence[str], n_folds: int, generator: np.random.Generator
) -> np.ndarray:
    """Fold number of each pair [n]; pairs of one group share a fold, fold sizes differ least."""
    names = list(dict.fromkeys(groups))
    order = generator.permutation(len(names))
    n = min(n_folds, len(names))
    fold = {names[g]: place % n for place, g in enumerate(order)}
    return np.array([fold[g] for g in groups])


class Design(Protocol):
    """Features of items [2n, ...] that can be fitted and scored."""

    def out_of_fold(self, folds: np.ndarray) -> np.ndarray:
        """Decision scores [2n] of each item by a model fitted without its fold."""


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """Scores of one design on items left out, means over repeats.

    `scores` are the decision scores [2n] of every repeat; bounds are the 95 % interval of a
    bootstrap over clusters (None without one).
    """

    scores: tuple[np.ndarray, ...]
    auroc: float
    paired_accuracy: float
    bounds: tuple[float | None, float | None, float | None, float | None]

    @property
    def margins(self) -> np.ndarray:
        """Clinical minus neutral decision score of every pair [n], mean over repeats."""
        mean = np.mean(self.scores, axis=0)
        return mean[: len(mean) // 2] - mean[len(mean) // 2 :]


def cross_validated(
    design: Design,
    groups: Sequence[str],
    clusters: Sequence[str],
    *,
    n_folds: int,
    n_repeats: int,
    n_bootstrap: int,
    seed: int,
) -> CrossValidated:
    """Fit a design to all groups but some, score those, in `n_repeats` random divisions.

    Args:
        design: what is fitted.
        groups: [n] what is left out as a whole.
        clusters: [n] what the bootstrap draws.
        n_folds: parts of a division.
        n_repeats: divisions.
        n_bootstrap: resamples; 0 for no interval.
        seed: of divisions and resamples, which are the same for every design.
    """
    scores = tuple(
        design.out_of_fold(grouped_folds(groups, n_folds, np.random.default_rng([seed, repeat])))
        for repeat in range(n_repeats)
    )
    auroc, accuracy = np.mean([pair_scores(s) for s in scores], axis=0)
    found = cluster_bootstrap(scores, clusters, n_bootstrap, np.random.default_rng([seed, 2**31]))
    bounds: tuple[float | None, float | None, float | None, float | None] = (None,) * 4
    if found is not None:
        bounds = (found[0].low, found[0].high, found[1].low, found[1].high)
    return CrossValidated(scores, float(auroc), float(accuracy), bounds)


def emotion_auroc(
    documents: Sequence[Sequence[str]], labels: Sequence[str], turn: np.ndarray
) -> float:
    """Macro one-against-rest AUROC of TF-IDF words, with items of equal `turn` [n] left out."""
    names = np.array(labels)
    counts = _counts(documents)
    if counts.shape[1] == 0:
        return 0.5
    values = []
    for emotion in dict.fromkeys(labels):
        own = names == emotion
        for fold in np.unique(turn):
            test = turn == fold
            if not own[test].any() or own[test].all():
                continue
            model = make_pipeline(_tfidf(), _logistic(len(labels), class_weight="balanced"))
            model.fit(counts[~test], own[~test])
            scores = model.decision_function(counts[test])
            values.append(float(auroc(scores[own[test]], scores[~own[test]])))
    return float(np.mean(values))


def _counts(documents: Sequence[Sequence[str]]) -> csr_matrix:
    """Term counts [n_documents, n_terms]; no columns where no document has a term."""
    if not any(documents):
        return csr_matrix((len(documents), 0))
    return csr_matrix(CountVectorizer(analyzer=list).fit_transform(documents), dtype=np.float64)


def character_ngrams(words: Sequence[str]) -> list[str]:
    """Character 2- to 4-grams within words, their ends marked."""
    return [
        padded[i : i + n]
        for padded in (f" {w} " for w in words)
        for n in (2, 3, 4)
        for i in range(len(padded) - n + 1)
    ]


def _emotion_counts(words: Sequence[str]) -> list[float]:
    lexicon = own_lexicon()
    found = lexicon.count(words)
    return [float(found[c]) for c in lexicon.categories]


def _surface(text: str, words: Sequence[str]) -> list[float]:
    """Words, sentences, words per sentence, letters per word, type-token ratio, four marks."""
    n = max(len(words), 1)
    sentences = max(len(re.findall(r"[.!?]+", text)), 1)
    return [
        float(len(words)),
        float(sentences),
        n / sentences,
        sum(map(len, words)) / n,
        len(set(words)) / n,
        float(text.count(",")),
        float(len(re.findall(r"[\"\u201c\u201d]", text))),
        float(len(re.findall(r"[;:\u2013\u2014()-]", text))),
        float(len(re.findall(r"\d", text))),
    ]


def _out_of_fold(rows: Any, folds: np.ndarray, fit: Any) -> np.ndarray:
    both = np.concatenate([folds, folds])
    scores = np.zeros(len(both))
    for fold in np.unique(folds):
        test = both == fold
        scores[test] = fit(rows[~test]).decision_function(rows[test])
    return scores


def _labels(n_rows: int) -> np.ndarray:
    return np.repeat([1, 0], n_rows // 2)


def _tfidf() -> TfidfTransformer:
    return TfidfTransformer(sublinear_tf=True)


def _logistic(n_rows: int, *, strength: float = 10.0, **kwargs: Any) -> LogisticRegression:
    # Both solvers are deterministic here. liblinear needs no convergence settings at small sizes;
    # at large ones L-BFGS is three to eight times faster.
    if n_rows > _MANY:
        return LogisticRegression(solver="lbfgs", C=strength, tol=1e-3, max_iter=2000, **kwargs)
    return LogisticRegression(solver="liblinear", C=strength, random_state=0, **kwargs)
