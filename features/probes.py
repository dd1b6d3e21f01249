"""Linear probes with nested, grouped cross-validation.

Outer: whole clusters are left out and scored. Inner: the penalty is chosen by the log loss on
clusters left out of the training part, then the probe is fitted to all of it. Whatever is learned
from items (means and spreads, idf weights) is learned on the items that are fitted, in the inner
folds too. A probe is an L2-penalised logistic regression with classes of equal total weight,

    min_w,b  |w|^2 / 2 + C sum_i s_i log(1 + exp(-y_i (w'x_i + b))),   s_i = n / (2 n_class(i)),

as in scikit-learn. With more numbers than items it is fitted in the span of the items: the penalty
makes w a combination of the training rows (representer theorem), so with Z = U S V' the rows US
give the same scores at n instead of d columns.

Nested choice after Varma and Simon 2006 (BMC Bioinformatics 7:91); log loss because it is proper
and does not saturate where AUROC is 1 for every penalty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from affectlens.features.logistic import fit_logistic, principal_axes
from affectlens.features.permutation import StatisticsError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_FLAT = 1e-9
"""Spread below this share of the largest magnitude is rounding error of equal values."""
_FLOOR = 1e-12


class Representation(Protocol):
    """Numbers that describe items."""

    @property
    def n_items(self) -> int:
        """Rows."""

    def prepared(self, train: Mask) -> Array:
        """All items [n_items, d] by what was learned on the items in `train`."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers [n_items, d]; prepared by mean and standard deviation of the training items.

    A column that does not vary over the training items becomes zero.
    """

    values: npt.NDArray[np.floating]

    @property
    def n_items(self) -> int:
        """Rows."""
        return len(self.values)

    def prepared(self, train: Mask) -> Array:
        """Standardised, float64 [n_items, d]."""
        x = np.asarray(self.values, dtype=float)
        mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
        flat = spread <= _FLAT * np.abs(x[train]).max(axis=0)
        return np.where(flat, 0.0, (x - mean) / np.where(flat, 1.0, spread))


class Words:
    """TF-IDF of words, sublinear and of unit length; idf is learned on the training items.

    Terms are collected over all items. A term that no training item holds has weight zero there.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        if any(documents):
            counts = CountVectorizer(analyzer=list).fit_transform(documents)
        else:
            counts = np.zeros((len(documents), 1))
        self._counts = csr_matrix(counts, dtype=np.float64)

    @property
    def n_items(self) -> int:
        """Rows."""
        return int(self._counts.shape[0])

    def n_terms(self, train: Mask) -> int:
        """Terms that the training items hold."""
        return int((self._counts[train].sum(axis=0) > 0).sum())

    def prepared(self, train: Mask) -> Array:
        """TF-IDF weights, float64 [n_items, n_terms of the training items]."""
        seen = np.asarray(self._counts[train].sum(axis=0) > 0).ravel()
        counts = self._counts[:, seen]
        if not seen.any():
            return np.zeros(counts.shape)
        fitted = TfidfTransformer(sublinear_tf=True).fit(counts[train])
        return np.asarray(fitted.transform(counts).toarray())


@dataclass(frozen=True, eq=False)
class Probe:
    """A probe fitted with the penalty that the inner folds chose.

    Attributes:
        scores: [n_items] decision scores (log odds) of all items.
        strength: chosen inverse penalty C.
        loss: log loss of the inner folds at it, nats an item, classes of equal weight; infinite
            where no inner fold could be formed (then `strength` is the smallest).
    """

    scores: Array
    strength: float
    loss: float


def deal(groups: Sequence[str], strata: Sequence[str], n_folds: int, seed: int) -> Rows:
    """Fold of each row [n]; rows of one group share a fold, each stratum is dealt out evenly.

    Groups of a stratum (an emotion) are put in random order and dealt in turn; the next stratum
    goes on where the last one stopped. A group takes the stratum of its first row. Fewer folds come
    out where there are fewer groups.

    Raises:
        StatisticsError: labels do not match, or fewer than two folds asked for.
    """
    if len(groups) != len(strata) or n_folds < 2:
        raise StatisticsError(
            f"got {len(groups)} groups, {len(strata)} strata, n_folds={n_folds}; need one of each "
            "for every row, and 2 folds or more"
        )
    owner = dict(zip(reversed(groups), reversed(strata), strict=True))
    rng = np.random.default_rng(seed)
    fold: dict[str, int] = {}
    for stratum in sorted(set(owner.values())):
        own = sorted(g for g, s in owner.items() if s == stratum)
        for i in rng.permutation(len(own)):
            fold[own[i]] = len(fold) % n_folds
    return np.array([fold[g] for g in groups], dtype=np.int64)


def linked(groups: Sequence[str], *texts: Sequence[str]) -> list[str]:
    """Join groups that share a text: the group of each row, after joining.

    Two rows with one text in different groups would put a copy of a test text into the training
    part. Each of `texts` gives one text a row. A joined group has the name of its first member.

    Raises:
        StatisticsError: numbers of rows differ.
    """
    if any(len(t) != len(groups) for t in texts):
        raise StatisticsError(f"got {len(groups)} groups, texts of {[len(t) for t in texts]} rows")
    root = {g: g for g in groups}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    first: dict[str, str] = {}
    for column in texts:
        for group, text in zip(groups, column, strict=True):
            a, b = find(first.setdefault(text, group)), find(group)
            root[max(a, b)] = min(a, b)
    return [find(g) for g in groups]


def nested_probes(
    x: Representation,
    labels: Mask,
    train: Mask,
    groups: Sequence[str],
    strata: Sequence[str],
    *,
    strengths: Sequence[float],
    n_inner: int,
    seed: int,
) -> list[Probe | None]:
    """Fit a probe for each labelling of the same training items.

    Args:
        x: the items.
        labels: [n_labellings, n_items] True for positive.
        train: [n_items] items that may be fitted; only these labels are looked at.
        groups: [n_items] what stays together in the inner folds.
        strata: [n_items] dealt evenly to the inner folds.
        strengths: inverse penalties to choose from; ties go to the smallest.
        n_inner: inner folds.
        seed: of the inner folds.

    Returns:
        One probe a labelling; None where the training items are all of one class.

    Raises:
        StatisticsError: labels do not match, no strengths or one that is not above 0, values that
            are not finite, or a fit that does not converge.
    """
    _check(x, labels, train, strengths)
    folds = np.full(x.n_items, -1, dtype=np.int64)
    rows = np.flatnonzero(train)
    if len(rows):
        at = rows.tolist()
        folds[rows] = deal([groups[i] for i in at], [strata[i] for i in at], n_inner, seed)
    ordered = sorted(strengths)
    losses = _inner_losses(x, labels, folds, ordered)
    axes = principal_axes(x.prepared(train), train) if len(rows) else None
    found: list[Probe | None] = []
    for y, loss in zip(labels, losses, strict=True):
        if axes is None or not _mixed(y[train]):
            found.append(None)
            continue
        best = int(np.argmin(loss))
        scores = fit_logistic(axes, y[None], [ordered[best]])[0, 0]
        found.append(Probe(scores, float(ordered[best]), float(loss[best])))
    return found


def _mixed(y: Mask) -> bool:
    return bool(y.any() and not y.all())


def _check(x: Representation, labels: Mask, train: Mask, strengths: Sequence[float]) -> None:
    n = x.n_items
    if labels.ndim != 2 or labels.shape[1] != n or train.shape != (n,):
        raise StatisticsError(
            f"got labels {labels.shape} and train {train.shape} for {n} items; need "
            "[n_labellings, n_items] and [n_items]"
        )
    if not len(strengths) or min(strengths) <= 0:
        raise StatisticsError(f"strengths are {list(strengths)}; need one or more above 0")


def _inner_losses(
    x: Representation, labels: Mask, folds: Rows, strengths: Sequence[float]
) -> Array:
    """Mean balanced log loss [n_labellings, n_strengths] over the inner folds' test items.

    A fold whose fitted items are of one class is left out of that labelling; infinite where every
    fold is.
    """
    total = np.zeros((len(labels), len(strengths)))
    weight = np.zeros((len(labels), 1))
    for fold in np.unique(folds[folds >= 0]):
        test = folds == fold
        fitted = (folds >= 0) & ~test
        if not fitted.any():
            continue
        usable = np.flatnonzero([_mixed(y[fitted]) for y in labels])
        if not len(usable):
            continue
        axes = principal_axes(x.prepared(fitted), fitted)
        p = expit(fit_logistic(axes, labels[usable], strengths)[:, :, test])
        for i, right in zip(usable, np.where(labels[usable][:, None, test], p, 1 - p), strict=True):
            # Weights come from the fitted items, so that a test fold of one class counts too.
            share = labels[i, fitted].mean()
            w = np.where(labels[i, test], 0.5 / share, 0.5 / (1 - share))
            total[i] -= (w * np.log(np.clip(right, _FLOOR, 1))).sum(axis=1)
            weight[i] += w.sum()
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), math.inf)
