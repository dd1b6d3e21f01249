"""Corrections for testing many features: Holm, Benjamini-Hochberg, Benjamini-Yekutieli.

Each takes p values of any shape and treats all entries as one family. The answer is an adjusted p
of the same shape: rejecting where it is at most alpha holds the stated error rate at alpha.

    holm  family-wise error, any dependence between the tests.
    bh    false discovery rate, tests independent or positively dependent (PRDS).
    by    false discovery rate, any dependence; costs a factor of about log(m) + 0.577.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from affectlens.features.permutation import StatisticsError

__all__ = ["bearable", "bh", "by", "holm"]

Array = npt.NDArray[np.float64]


def bh(p: npt.ArrayLike) -> Array:
    """Benjamini-Hochberg adjusted p over all entries (Benjamini and Hochberg 1995).

    q_(i) = min over k >= i of m p_(k) / k, at most 1.

    Raises:
        StatisticsError: an entry is not within 0..1 (NaN included).
    """
    values = _p_values(p)
    return _step_up(values, 1.0)


def by(p: npt.ArrayLike) -> Array:
    """Benjamini-Yekutieli adjusted p over all entries (Benjamini and Yekutieli 2001, theorem 1.3).

    As `bh` with p multiplied by 1 + 1/2 + ... + 1/m. Holds under any dependence, negative too.

    Raises:
        StatisticsError: an entry is not within 0..1 (NaN included).
    """
    values = _p_values(p)
    return _step_up(values, float((1 / np.arange(1, values.size + 1)).sum()))


def holm(p: npt.ArrayLike) -> Array:
    """Holm adjusted p over all entries (Holm 1979); controls the family-wise error.

    Raises:
        StatisticsError: an entry is not within 0..1 (NaN included).
    """
    values = _p_values(p)
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    adjusted = np.maximum.accumulate(flat[order] * (flat.size - np.arange(flat.size)))
    out = np.empty_like(flat)
    out[order] = np.minimum(adjusted, 1.0)
    return out.reshape(values.shape)


def bearable(min_p: float, alpha: float) -> int:
    """How many tests Holm can bear whose smallest attainable p is `min_p`; 1 or more.

    With alpha / min_p of them only the single most extreme arrangement could pass, and with more
    none; half as many leave room.
    """
    return max(1, math.floor(alpha / (2 * min_p)))


def _step_up(values: Array, factor: float) -> Array:
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    ranks = np.arange(1, flat.size + 1)
    adjusted = np.minimum.accumulate((flat[order] * flat.size * factor / ranks)[::-1])[::-1]
    out = np.empty_like(flat)
    out[order] = np.minimum(adjusted, 1.0)
    return out.reshape(values.shape)


def _p_values(p: npt.ArrayLike) -> Array:
    values = np.asarray(p, dtype=float)
    if values.size and not bool(np.all((values >= 0) & (values <= 1))):
        raise StatisticsError("p values must lie within 0..1; leave out untested entries (NaN)")
    return values
