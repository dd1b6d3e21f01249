"""How far words alone predict a latent: ridge regression on text that carries no labels.

Of unlabelled passages, read and pooled like the battery, let x be log(1 + count) of every word and
mark that stands in `MIN_PASSAGES` of them or more (for pooling 'max', its presence), and y the
pooled activation of a latent. Ridge regression (Hoerl and Kennard 1970) of y on x, intercept
unpenalised, gives

    R2 = 1 - sum (y - y')^2 / sum (y - mean)^2,

with y' and the mean from other documents (cross-validation), and a negative R2 set to 0: the words
then predict worse than the mean does. The penalty of each latent is chosen by generalised
cross-validation (Golub, Heath and Wahba 1979) within the fitting part. On the battery the fit gives
D' = y'(clinical) - y'(neutral); the residual difference D - D' is put to the contrast's own test.

Since no label enters, the fit cannot take emotion away because it goes with words in this battery;
it takes away what words predict elsewhere. It errs on the other side: words that the passages lack,
and shrinkage, leave part of the words' effect in the residual. The shuffles lack that fault.

Words and marks, not token ids: whole words are what a reader would name, and a rare word that the
tokenizer cuts up is still one predictor; marks and digits belong to the surface too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.features._words import WORD
from affectlens.features.permutation import StatisticsError, as_columns

MIN_PASSAGES = 3
"""Words in fewer passages are left out: with five parts, a fit could not use and test them both."""

MIN_ACTIVE = 10
"""A latent active (or silent) in fewer passages has no R2: two for each of five parts."""

N_FOLDS = 5

PENALTIES: tuple[float, ...] = tuple(10.0**e for e in np.arange(-3, 4.5, 0.5))
"""Candidates, in units of the mean squared length of a centred passage vector."""

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_TYPES = re.compile(rf"{WORD.pattern}|\d+|[^\w\s]|_")


@dataclass(frozen=True, eq=False)
class LexicalFit:
    """Ridge regressions of latents on words.

    Attributes:
        r2: [n_columns] out of fold, 0 or more; NaN where it cannot be told: fewer than
            `MIN_ACTIVE` passages in which the latent is active or in which it is silent (unless it
            is active in all), equal values everywhere, or fewer passages than folds.
        n_active: int64 [n_columns] passages with an activation that is not 0.
        penalty: [n_columns] chosen on all passages, in the units of `PENALTIES`.
        centre: [n_words] mean of each predictor.
        weights: [n_words, n_columns] coefficients of the fit to all passages.
        intercept: [n_columns] prediction at `centre`.
        n_passages: passages.
    """

    r2: Array
    n_active: Rows
    penalty: Array
    centre: Array
    weights: Array
    intercept: Array
    n_passages: int

    def predict(self, x: Array) -> Array:
        """Predicted activations [n_texts, n_columns] from predictors [n_texts, n_words]."""
        return np.asarray(self.intercept + (x - self.centre) @ self.weights)


def surface_types(text: str) -> list[str]:
    """Words (lower case), numbers and single marks of a text, in order."""
    return _TYPES.findall(text.lower().replace("\u2019", "'"))


def vocabulary(texts: Sequence[str], min_texts: int = MIN_PASSAGES) -> tuple[str, ...]:
    """Words and marks that stand in `min_texts` texts or more, sorted."""
    counts = Counter(t for text in texts for t in set(surface_types(text)))
    return tuple(sorted(t for t, n in counts.items() if n >= min_texts))


def predictors(texts: Sequence[str], words: Sequence[str], *, presence: bool = False) -> Array:
    """log(1 + count) of each word in each text: float64 [n_texts, n_words].

    With `presence`, 1 for a word that a text holds: what a maximum over tokens can depend on, since
    it does not grow when a word comes again.
    """
    place = {word: i for i, word in enumerate(words)}
    out = np.zeros((len(texts), len(words)))
    for row, text in zip(out, texts, strict=True):
        for word, n in Counter(surface_types(text)).items():
            if word in place:
                row[place[word]] = 1.0 if presence else np.log1p(n)
    return out


def unseen_share(texts: Sequence[str], words: Sequence[str]) -> float:
    """Share of running words and marks of `texts` that the vocabulary lacks; NaN without any."""
    known = set(words)
    held = [t not in known for text in texts for t in surface_types(text)]
    return float(np.mean(held)) if held else float("nan")


def fit_lexical(
    x: npt.ArrayLike, y: npt.ArrayLike, documents: npt.ArrayLike, seed: int = 0
) -> LexicalFit:
    """Fit every latent on words, and measure the fit on documents left out.

    One eigendecomposition of the passages' Gram matrix serves all latents and penalties; cost is
    cubic in passages and does not depend on the number of words beyond the Gram matrix itself.

    Args:
        x: [n_passages, n_words] predictors.
        y: [n_passages, n_columns] pooled activations.
        documents: [n_passages] where each passage comes from. Passages of one document are left
            out together; with fewer documents than folds, each passage stands for itself.
        seed: seed of the division into folds.

    Raises:
        StatisticsError: no passages, shapes that differ, or a value is not finite.
    """
    a = as_columns(np.asarray(x, dtype=float).reshape(len(np.asarray(x)), -1), "predictors")
    b = as_columns(np.asarray(y, dtype=float), "activations")
    groups = np.unique(np.asarray(documents), return_inverse=True)[1]
    if not len(a) == len(b) == len(groups):
        raise StatisticsError(
            f"got {len(a)} rows of predictors, {len(b)} of activations and {len(groups)} documents;"
            " need one of each for every passage"
        )
    if groups.max() + 1 < N_FOLDS:
        groups = np.arange(len(a))
    whole = _ridge(a, b)
    active = np.asarray((b != 0).sum(axis=0), dtype=np.int64)
    return LexicalFit(
        np.where(_told(b, active), _r2(a, b, groups, seed), np.nan),
        active,
        whole.penalty,
        a.mean(axis=0),
        (a - a.mean(axis=0)).T @ whole.dual,
        b.mean(axis=0),
        len(a),
    )


def _told(y: Array, active: Rows) -> npt.NDArray[np.bool_]:
    """Latents that vary enough for an R2."""
    silent = len(y) - active
    enough = (active >= MIN_ACTIVE) & ((silent >= MIN_ACTIVE) | (silent == 0))
    varies = np.ptp(y, axis=0) > 1e-12 * np.abs(y).max(axis=0)
    return np.asarray(enough & varies & (len(y) >= N_FOLDS))


def _r2(x: Array, y: Array, groups: Rows, seed: int) -> Array:
    """Share of the variance that fits to other documents predict, 0 or more: [n_columns]."""
    n_groups = int(groups.max()) + 1
    if n_groups < N_FOLDS:
        return np.full(y.shape[1], np.nan)
    order = np.random.default_rng([seed, 2]).permutation(n_groups)
    folds = (order % N_FOLDS)[groups]
    missed, total = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for fold in range(N_FOLDS):
        inside, outside = folds != fold, folds == fold
        mean, centre = y[inside].mean(axis=0), x[inside].mean(axis=0)
        dual = _ridge(x[inside], y[inside]).dual
        predicted = mean + (x[outside] - centre) @ (x[inside] - centre).T @ dual
        missed += ((y[outside] - predicted) ** 2).sum(axis=0)
        total += ((y[outside] - mean) ** 2).sum(axis=0)
    return np.where(total > 0, np.maximum(0.0, 1 - missed / np.where(total > 0, total, 1)), np.nan)


@dataclass(frozen=True, eq=False)
class _Ridge:
    """Dual coefficients [n, n_columns], (G + penalty)^-1 y, and the penalty of each column."""

    dual: Array
    penalty: Array


def _ridge(x: Array, y: Array) -> _Ridge:
    """Ridge of each centred column of y on centred x, its penalty chosen by GCV.

    GCV(c) = n sum (c / (s + c))^2 u^2 / (n - 1 - sum s / (s + c))^2 with s the eigenvalues of the
    Gram matrix and u the coordinates of y in its eigenvectors; the 1 is the intercept.
    """
    centred, target = x - x.mean(axis=0), y - y.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values = np.maximum(values, 0.0)
    scale = values.mean() if values.mean() > 0 else 1.0
    turned = vectors.T @ target
    n = len(x)
    scores = np.empty((len(PENALTIES), y.shape[1]))
    for i, penalty in enumerate(PENALTIES):
        left = penalty * scale / (values + penalty * scale)
        free = max(left.sum() - 1, 1e-12)
        scores[i] = n * (left[:, None] ** 2 * turned**2).sum(axis=0) / free**2
    # Of equal scores the largest penalty: nothing is predicted where nothing is there.
    best = len(PENALTIES) - 1 - np.argmin(scores[::-1], axis=0)
    penalty = np.asarray(PENALTIES)[best]
    dual = vectors @ (turned / (values[:, None] + penalty * scale))
    return _Ridge(dual, penalty)
