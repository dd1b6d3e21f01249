"""The matrix of edited and read emotions: cells, diagonal dominance and its permutation p."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from affectlens.features.effect_columns import EFFECT_MATRIX_COLUMNS
from affectlens.features.effect_matrix import Cell, diagonal_dominance, matrix_table


def test_index_and_p_by_hand() -> None:
    matrix = np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    index, p = diagonal_dominance(matrix, 100, 0)
    assert index == pytest.approx(6 / 3 - 1 / 6)
    # Six assignments with traces 6, 4 (rows 2 and 3 exchanged: 3 + 0 + 1), 2, 1, 0 and 0.
    traces = [matrix[list(rows), range(3)].sum() for rows in permutations(range(3))]
    assert p == np.mean(np.array(traces) >= 6) == 1 / 6


def test_main_effects_alone_do_not_dominate(rng: np.random.Generator) -> None:
    rows, columns = rng.normal(0, 3, (5, 1)), rng.normal(0, 3, (1, 5))
    index, p = diagonal_dominance(rows + columns, 1000, 0)
    assert index == pytest.approx(0, abs=1e-9)
    assert p == 1


def test_p_is_uniform_without_effect() -> None:
    """600 random matrices: at most 5% (and noise) have p of .05 or less."""
    rng = np.random.default_rng(3)
    found = [diagonal_dominance(rng.normal(0, 1, (4, 4)), 100, 0)[1] for _ in range(600)]
    assert np.mean(np.array(found) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_many_assignments_are_drawn() -> None:
    index, p = diagonal_dominance(np.eye(7), 200, 0)
    assert index == 1
    assert 1 / 201 <= p <= 4 / 201
    assert diagonal_dominance(np.eye(7), 200, 0) == (index, p)


def cells(sign: float) -> dict[tuple[str, str], Cell]:
    rng, names = np.random.default_rng(0), ("grief", "rage", "terror")
    clusters = tuple(f"c{i // 2}" for i in range(16))
    return {
        (e, r): Cell(sign * (2.0 * (e == r) + rng.normal(0, 0.3, 16)), clusters)
        for e in names
        for r in names
    }


@pytest.mark.parametrize(("intervention", "sign"), [("clamp", 1), ("ablate_zero", -1)])
def test_cells_of_the_diagonal_are_found(intervention: str, sign: int) -> None:
    table = matrix_table(intervention, sign, cells(sign), n_permutations=1000, seed=0)
    assert list(table.columns) == list(EFFECT_MATRIX_COLUMNS)
    own = table["edited"] == table["read"]
    assert len(table) == 9
    assert (table.loc[own, "p_holm"] <= 0.05).all()
    assert (table.loc[~own, "p_holm"] > 0.05).all()
    assert table.loc[own, "p"].tolist() == [1 / 256] * 3  # eight clusters
    assert table["diagonal_dominance"].iloc[0] == pytest.approx(2, abs=0.3)
    assert table["p_diagonal"].iloc[0] == 1 / 6
    assert (np.sign(table.loc[own, "effect"]) == sign).all()
