"""Page's trend test over three ordered doses, exact with ties."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

from affectlens.features.permutation import StatisticsError

Array = npt.NDArray[np.float64]

_SPAN = 8
"""Twice Page's score of a block lies within 20..28 for three doses."""


@dataclass(frozen=True, eq=False)
class Trend:
    """Result of `page_trend`; arrays are [n_features].

    Attributes:
        statistic: Page's L.
        p: one-sided, for a rise.
        n_blocks: blocks.
        min_p: the smallest p that so many blocks can give, 6**-n_blocks; ties make it larger.
    """

    statistic: Array
    p: Array
    n_blocks: int
    min_p: float


def page_trend(doses: npt.ArrayLike) -> Trend:
    """Test a rise over three doses within blocks (Page 1963).

    L = sum over blocks and doses j of j R_bj with R_bj the mid-rank of dose j within block b. Under
    the null the three values of a block are exchangeable and blocks are independent, so the null
    distribution is the convolution of six equally likely scores a block; it is exact with ties.

    L looks at the doses jointly: a latent that rises at the last dose alone raises it too. Read it
    beside the two steps.

    Args:
        doses: [3, n_blocks, n_features], from the lowest dose to the highest.

    Raises:
        StatisticsError: another shape, no block, or a value that is not finite.
    """
    x = np.asarray(doses, dtype=float)
    if x.ndim != 3 or x.shape[0] != 3 or x.shape[1] == 0:
        raise StatisticsError(f"doses have shape {x.shape}; need [3, n_blocks, n_features]")
    if not np.isfinite(x).all():
        raise StatisticsError("doses hold values that are NaN or infinite")
    # Twice the mid-ranks are integers, so ties in L are exact.
    ranks = np.rint(2 * scipy_stats.rankdata(x, axis=0)).astype(np.int64)
    score = np.tensordot(np.array([1, 2, 3]), ranks, axes=1)
    n_blocks, n_features = score.shape
    p = np.array([_tail(ranks[:, :, f].T, int(score[:, f].sum())) for f in range(n_features)])
    return Trend(score.sum(axis=0) / 2, p.reshape(n_features), n_blocks, 6.0**-n_blocks)


def _tail(ranks: npt.NDArray[np.int64], observed: int) -> float:
    """P(2 L >= observed) over all orders within the blocks [n_blocks, 3]."""
    chances = np.ones(1)
    for block in ranks:
        scores = [int(np.dot((1, 2, 3), order)) for order in itertools.permutations(block.tolist())]
        chances = np.convolve(chances, np.bincount(np.array(scores) - 20, minlength=_SPAN + 1) / 6)
    return float(min(1.0, chances[max(0, observed - 20 * len(ranks)) :].sum()))
