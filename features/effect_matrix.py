"""Do an emotion's features move its own readout more than the others'? Edited x read emotions.

Diagonal dominance is the mean of the effects on the diagonal minus the mean of all others, signed
so that positive is the predicted side. Under the null the assignment of edited to read emotions is
arbitrary: exchanging the rows keeps what any edit does to every readout, and what any readout does
under every edit, and changes the diagonal alone. All k! assignments are enumerated where they are
few, else drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.features.cluster_t import cluster_mean
from affectlens.features.effect_columns import EFFECT_MATRIX_COLUMNS
from affectlens.features.stats import holm
from affectlens.features.verdicts import cluster_p

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cell:
    """Effect of one emotion's features on one readout.

    Attributes:
        effect: [n_items] edited minus unedited (nats).
        clusters: cluster of each item.
    """

    effect: Array
    clusters: tuple[str, ...]


def matrix_table(
    intervention: str,
    sign: int,
    cells: Mapping[tuple[str, str], Cell],
    *,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """One row for each cell with the columns `EFFECT_MATRIX_COLUMNS`.

    Args:
        intervention: its name.
        sign: +1 where the readout should rise, -1 where it should fall.
        cells: (edited, read) -> its items; every edited emotion with every read one.
        n_permutations: sign flips of a cell and assignments of the diagonal, at most.
        seed: of both.
    """
    emotions = list(dict.fromkeys(edited for edited, _ in cells))
    rows = []
    for (edited, read), cell in cells.items():
        interval = cluster_mean(cell.effect, cell.clusters)
        p, _ = cluster_p(sign * cell.effect, cell.clusters, n_permutations, seed)
        rows.append(
            {
                "intervention": intervention,
                "edited": edited,
                "read": read,
                "n_items": len(cell.effect),
                "n_clusters": interval.n_clusters,
                "effect": interval.estimate,
                "effect_low": interval.low,
                "effect_high": interval.high,
                "p": p,
            }
        )
    means = np.array([[cells[e, r].effect.mean() for r in emotions] for e in emotions])
    index, p_diagonal = diagonal_dominance(sign * means, n_permutations, seed)
    table = pd.DataFrame(rows).assign(diagonal_dominance=index, p_diagonal=p_diagonal)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    return table[list(EFFECT_MATRIX_COLUMNS)]


def diagonal_dominance(matrix: Array, n_permutations: int, seed: int) -> tuple[float, float]:
    """Mean of the diagonal minus mean off it, and its one-sided permutation p.

    Args:
        matrix: [k, k] signed effects, edited x read, k of at least 2.
        n_permutations: assignments drawn where k! is larger.
        seed: of the draws.
    """
    k = len(matrix)
    columns = np.arange(k)
    off = k * (k - 1)
    total = float(matrix.sum())

    def index(rows: npt.NDArray[np.int64]) -> float:
        own = float(matrix[rows, columns].sum())
        return own / k - (total - own) / off

    observed = index(columns)
    exact = math.factorial(k) <= n_permutations
    drawn = [index(np.asarray(rows)) for rows in _assignments(k, n_permutations, seed, exact=exact)]
    # Sums in another order differ in their last bits.
    hits = int(np.sum(np.array(drawn) >= observed - 1e-12 * max(1.0, abs(observed))))
    return observed, hits / len(drawn) if exact else (1 + hits) / (1 + len(drawn))


def _assignments(k: int, n: int, seed: int, *, exact: bool) -> Iterator[Sequence[int]]:
    if exact:
        yield from permutations(range(k))
        return
    rng = np.random.default_rng([seed, 6])
    for _ in range(n):
        yield rng.permutation(k).tolist()
