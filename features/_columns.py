"""Features as sparse columns, and their fixed-point twins; private to the permutation tests.

SAE activations are sparse, and so are their differences. All sums of the tests run over the
non-zero entries of a column only, so a test costs in proportion to them.

Every number is derived from the entries of its own column, in their order: nothing depends on where
a column stands or on what stands beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from affectlens.data.errors import AffectLensError

Array = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Values: TypeAlias = npt.NDArray[Any]
Differences: TypeAlias = npt.ArrayLike | sparse.sparray | sparse.spmatrix
"""[n_units, n_features], dense or SciPy-sparse in any format; or [n_units], dense."""

SUM_LIMIT = 2.0**29
"""Sums of absolute 32-bit fixed-point values stay below this, so twice a sum fits."""
WIDE_SUM_LIMIT = 2.0**52
"""The same for integers held in float64, which is exact up to 2**53."""
_ZERO = 1e-14
"""Centred values below this share of the largest value are rounding error."""


class StatisticsError(AffectLensError):
    """The data do not allow the statistic: no rows, shapes that differ, values not finite."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Compressed sparse columns [n_units, n_features] without stored zeros, units ascending.

    Entries of feature j are indptr[j]:indptr[j + 1] of `units` (int32) and `values` (float64 or
    int32).
    """

    n_units: int
    indptr: Longs
    units: npt.NDArray[np.int32]
    values: Values

    @property
    def n_features(self) -> int:
        return len(self.indptr) - 1

    @property
    def counts(self) -> Longs:
        """Non-zero entries of each feature: [n_features]."""
        return np.diff(self.indptr)

    def spread(self, per_feature: Values) -> Values:
        """A value per feature, repeated for each of its entries: [nnz]."""
        return np.repeat(per_feature, self.counts)

    def replaced(self, values: Values) -> Columns:
        """The same places with other values [nnz]."""
        return Columns(self.n_units, self.indptr, self.units, values)

    def take(self, features: npt.NDArray[np.integer]) -> Columns:
        """These features, in this order."""
        counts = self.counts[features]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        source = np.arange(indptr[-1]) + np.repeat(self.indptr[:-1][features] - indptr[:-1], counts)
        return Columns(self.n_units, indptr, self.units[source], self.values[source])

    def reordered_units(self, units: npt.NDArray[np.integer]) -> Columns:
        """Unit i of the result is unit units[i] of this."""
        place = np.empty(self.n_units, dtype=np.int32)
        place[units] = np.arange(self.n_units, dtype=np.int32)
        shape = (self.n_units, self.n_features)
        moved = sparse.csc_array(
            (self.values.copy(), place[self.units], self.indptr.copy()), shape=shape
        )
        moved.sort_indices()
        return Columns(self.n_units, self.indptr, moved.indices.astype(np.int32), moved.data)

    def joined(self, other: Columns) -> Columns:
        """The features of this, then those of `other`."""
        return Columns(
            self.n_units,
            np.concatenate([self.indptr, self.indptr[-1] + other.indptr[1:]]),
            np.concatenate([self.units, other.units]),
            np.concatenate([self.values, other.values]),
        )

    def weighted_sums(self, weights: Values) -> Values:
        """Sums over units weighted by each row of `weights` [n_rows, n_units]: [n_rows, F]."""
        shape = (self.n_features, self.n_units)
        by_feature = sparse.csr_array((self.values, self.units, self.indptr), shape=shape)
        return np.ascontiguousarray((by_feature @ np.ascontiguousarray(weights.T)).T)

    def dense(self) -> Values:
        """[n_units, n_features]."""
        out = np.zeros((self.n_units, self.n_features), dtype=self.values.dtype)
        out[self.units, self.spread(np.arange(self.n_features))] = self.values
        return out


@dataclass(frozen=True, eq=False)
class Scaled:
    """Columns divided by their norm.

    Attributes:
        columns: float64 values; the norm that divides is over units, after centring if centred.
        norm: [n_features] that norm; 0 where nothing varies, and then the column is empty.
        centre: [n_features] mean over units on the scale of `columns` that is yet to be taken off;
            0 where it has been, or where nothing is to be taken off.
    """

    columns: Columns
    norm: Array
    centre: Array

    def dense(self) -> Array:
        """[n_units, n_features], less what is yet to be taken off."""
        return np.asarray(self.columns.dense() - self.centre)

    def fixed_point(self) -> Columns:
        """Values as int32 whose sums of absolute values stay below `SUM_LIMIT`.

        The sum of n values of norm 1 is at most sqrt(n); the rounding error of a value is one half.
        """
        scale = fixed_point_scale(self.columns.n_units)
        return self.columns.replaced(np.rint(self.columns.values * scale).astype(np.int32))

    def fixed_point_centre(self, n_own: int) -> npt.NDArray[np.int32]:
        """What a sum over `n_own` units of `fixed_point` expects of its mean: [n_features]."""
        scale = fixed_point_scale(self.columns.n_units)
        return np.rint(n_own * self.centre * scale).astype(np.int32)


def fixed_point_scale(n_units: int, limit: float = SUM_LIMIT) -> float:
    """Integers to a norm of 1: sums of absolute values then stay within `limit`."""
    return math.floor(limit / math.sqrt(n_units))


def as_columns(x: Array, name: str) -> Array:
    """`x` as [n_rows, n_columns].

    Raises:
        StatisticsError: no rows, more than two dimensions, or a value that is not finite.
    """
    table = _table(x, name)
    _check_finite(x, name)
    return table


def sparse_columns(x: Differences, name: str) -> Columns:
    """`x`, dense or SciPy-sparse in any format, as `Columns` in float64; `x` is left as it is.

    Raises:
        StatisticsError: as `as_columns`.
    """
    if not sparse.issparse(x):
        dense = np.asarray(x)
        return _from_dense(
            _table(dense if dense.dtype.kind == "f" else dense.astype(float), name), name
        )
    return _from_sparse(x, name)


def normalised(x: Columns) -> Scaled:
    """Each column over its norm; columns are not centred."""
    relative, top = _relative(x)
    root = np.sqrt(_sums(relative.replaced(relative.values**2)))
    norm = top * root
    unit = relative.values / relative.spread(np.where(root > 0, root, 1.0))
    return Scaled(x.replaced(unit), norm, np.zeros(x.n_features))


def centred(x: Columns) -> Scaled:
    """Each column, less its mean, over the norm of that.

    Columns with at most half their entries non-zero stay sparse and keep their mean as `centre`:
    their centred sum of squares is at least half the plain one, so values grow by at most sqrt(2)
    and sums of absolute values obey the same bound. The others are centred entry by entry.
    """
    few = 2 * x.counts <= x.n_units
    thin, full = np.flatnonzero(few), np.flatnonzero(~few)
    first, second = _centred_thin(x.take(thin)), _centred_full(x.take(full))
    back = np.argsort(np.concatenate([thin, full]))
    return Scaled(
        first.columns.joined(second.columns).take(back),
        np.concatenate([first.norm, second.norm])[back],
        np.concatenate([first.centre, second.centre])[back],
    )


def _centred_thin(x: Columns) -> Scaled:
    relative, top = _relative(x)
    mean = _sums(relative) / x.n_units
    root = np.sqrt(_sums(relative.replaced(relative.values**2)) - x.n_units * mean**2)
    safe = np.where(root > 0, root, 1.0)
    return Scaled(x.replaced(relative.values / x.spread(safe)), top * root, mean / safe)


def _centred_full(x: Columns) -> Scaled:
    dense = x.dense()
    rest = dense - dense.mean(axis=0)
    largest = np.abs(dense).max(axis=0, initial=0.0)
    noise = np.abs(rest).max(axis=0, initial=0.0) <= _ZERO * largest * x.n_units
    return normalised(_from_dense(np.where(noise, 0.0, rest), "differences"))


def _relative(x: Columns) -> tuple[Columns, Array]:
    """Entries over the largest of their column, so that squares neither vanish nor overflow."""
    top = np.zeros(x.n_features)
    filled = np.flatnonzero(x.counts)
    if len(filled):
        top[filled] = np.maximum.reduceat(np.abs(x.values), x.indptr[:-1][filled])
    return x.replaced(x.values / x.spread(top)), top


def _sums(x: Columns) -> Array:
    return np.asarray(x.weighted_sums(np.ones((1, x.n_units)))[0], dtype=float)


def _from_sparse(x: Any, name: str) -> Columns:
    if x.ndim != 2 or x.shape[0] == 0:
        raise StatisticsError(f"{name} has shape {x.shape}; need [n_units, n_features] with a unit")
    # SciPy tidies in place; the caller's matrix must not change.
    csc = sparse.csc_array(x, copy=x.format == "csc")
    csc.sum_duplicates()
    csc.eliminate_zeros()
    values = csc.data.astype(np.float64)
    _check_finite(values, name)
    return Columns(csc.shape[0], csc.indptr.astype(np.int64), csc.indices.astype(np.int32), values)


def _from_dense(x: Values, name: str) -> Columns:
    place = np.flatnonzero(x != 0)  # values that are not finite among them
    values = x.ravel()[place].astype(np.float64)
    _check_finite(values, name)
    first = np.searchsorted(place, np.arange(len(x) + 1) * x.shape[1])
    features = place % max(x.shape[1], 1)
    csc = sparse.csr_array((values, features, first), shape=x.shape).tocsc()
    return Columns(len(x), csc.indptr.astype(np.int64), csc.indices.astype(np.int32), csc.data)


def _table(x: Values, name: str) -> Values:
    if x.ndim not in (1, 2) or x.shape[0] == 0:
        raise StatisticsError(
            f"{name} has shape {x.shape}; need [n_units] or [n_units, n_features] with a unit"
        )
    return x.reshape(len(x), -1)


def _check_finite(x: Values, name: str) -> None:
    bad = int(x.size - np.isfinite(x).sum())
    if bad:
        raise StatisticsError(f"{name} holds {bad} values that are NaN or infinite")
