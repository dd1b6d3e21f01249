"""Many L2-penalised logistic regressions on the same rows at once.

    min_w,b  |w|^2 / 2 + C sum_i s_i log(1 + exp(-y_i (w'x_i + b))),   s_i = n / (2 n_class(i)),

y_i = +-1, the intercept b unpenalised: the objective of scikit-learn's `LogisticRegression(C,
class_weight="balanced")`. Rows are turned to the principal axes of the fitted rows. This loses
nothing, since the penalty makes w a combination of these rows (representer theorem), leaves at most
as many columns as rows, and makes columns orthogonal. The Hessian then has the diagonal bound

    P_jj = 1 + C max(s) / 4 * sum_i x_ij^2         (Boehning and Lindsay 1988, logistic curvature)

so that w - g / P never overshoots and no line search is needed. Steps are accelerated (Nesterov
1983) with restarts on the gradient (O'Donoghue and Candes 2015). All labellings and penalties share
two products with the rows a step, which is what makes nested cross-validation of many probes cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from affectlens.features.permutation import StatisticsError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_RANK = 1e-10
"""Axes with a smaller share of the largest variance are rounding error."""
_TOLERANCE = 1e-6
_SMALL = 1e-3
_STEPS = 20_000


@dataclass(frozen=True, eq=False)
class Axes:
    """Items on the principal axes of the fitted ones.

    Attributes:
        items: [n_items, n_axes] coordinates of all items.
        train: [n_items] the fitted ones; their columns sum to zero and are orthogonal.
    """

    items: Array
    train: Mask


def principal_axes(values: Array, train: Mask) -> Axes:
    """Turn [n_items, d] values to the axes of the `train` rows, centred on them.

    Raises:
        StatisticsError: a value is not finite, or no row is fitted.
    """
    if not np.isfinite(values).all():
        raise StatisticsError("a representation holds NaN or infinity; check the model's numbers")
    if not train.any():
        raise StatisticsError("got no training items; a probe needs some to be fitted")
    if not values.shape[1]:
        return Axes(values, train)
    centred = values - values[train].mean(axis=0)
    rows = centred[train]
    wide = rows.shape[1] > len(rows)
    spread, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = spread > _RANK * max(float(spread[-1]), np.finfo(float).tiny)
    vectors = vectors[:, kept]
    if wide:
        return Axes((centred @ rows.T) @ (vectors / np.sqrt(spread[kept])), train)
    return Axes(centred @ vectors, train)


def fit_logistic(axes: Axes, labels: Mask, strengths: Sequence[float]) -> Array:
    """Decision scores (log odds) of every fit: [n_labellings, n_strengths, n_items].

    Args:
        axes: the items.
        labels: [n_labellings, n_items] True for positive; both classes among the fitted items.
        strengths: inverse penalties C.

    Raises:
        StatisticsError: the fitted items of a labelling are of one class, or no convergence.
    """
    y = labels[:, axes.train]
    if not (y.any(axis=1) & ~y.all(axis=1)).all():
        raise StatisticsError("a probe needs positive and negative training items")
    x = np.column_stack([axes.items, np.ones(len(axes.items))])
    columns = np.repeat(y, len(strengths), axis=0).T
    w = _minimise(x[axes.train], columns, np.tile(np.asarray(strengths, dtype=float), len(y)))
    return np.asarray((x @ w).T.reshape(len(y), len(strengths), len(x)))


def _minimise(x: Array, y: Mask, strengths: Array) -> Array:
    """Weights [n_axes + 1, n_fits]; x [n_rows, n_axes + 1] ends in ones, y [n_rows, n_fits]."""
    n = len(x)
    weight = np.where(y, n / (2 * y.sum(axis=0)), n / (2 * (~y).sum(axis=0))) * strengths
    penalty = np.ones((x.shape[1], 1))
    penalty[-1] = 0
    bound = penalty + weight.max(axis=0) / 4 * (x**2).sum(axis=0)[:, None]
    out = np.zeros((x.shape[1], y.shape[1]))
    open_ = np.arange(y.shape[1])
    w, v, speed = out.copy(), out.copy(), np.ones(len(open_))
    target = y.astype(float)
    for _ in range(_STEPS):
        gradient = x.T @ (weight * (expit(x @ v) - target)) + penalty * v
        new = v - gradient / bound
        done = _norm(gradient, 1 / bound) <= _TOLERANCE * np.maximum(_norm(new, bound), _SMALL)
        out[:, open_[done]] = new[:, done]
        if done.all():
            return out
        restart = (gradient * (new - w)).sum(axis=0) > 0
        faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2
        v = new + np.where(restart, 0.0, (speed - 1) / faster) * (new - w)
        w, speed = new, np.where(restart, 1.0, faster)
        if done.any():
            left = ~done
            open_, speed = open_[left], speed[left]
            w, v, bound = w[:, left], v[:, left], bound[:, left]
            weight, target = weight[:, left], target[:, left]
    raise StatisticsError(
        f"{len(open_)} probes did not converge in {_STEPS:,} steps, with strengths up to "
        f"{strengths[open_].max():g}; give smaller `strengths`"
    )


def _norm(a: Array, scale: Array) -> Array:
    return np.asarray(np.sqrt((a * a * scale).sum(axis=0)))
