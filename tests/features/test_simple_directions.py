"""Single columns, means of columns, differences of means, random directions."""

from __future__ import annotations

import numpy as np
import pytest

from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign, Part
from affectlens.features.permutation import StatisticsError
from affectlens.features.search import search_activations
from affectlens.features.simple_directions import (
    Ranked,
    column_scores,
    difference_of_means,
    random_scores,
    rank_columns,
)

EMOTIONS = ("rage", "grief", "terror")
CONFIG = SearchConfig(n_permutations=200, min_items=1)
N_COLUMNS = 12


def make(seed: int = 0, emotions: tuple[str, ...] = EMOTIONS) -> tuple[np.ndarray, PairDesign]:
    """[2n, 12]: column 0 falls on clinical texts, column 1 rises for grief, column 2 falls."""
    labels = [(e, f"{e}/{d}") for e in emotions for d in range(6) for _ in range(2)]
    n = len(labels)
    x = np.random.default_rng(seed).normal(size=(2 * n, N_COLUMNS)) + 5
    grief = np.array([e == "grief" for e, _ in labels])
    x[:n, 0] -= 4
    x[:n, 1] += 3 * grief
    x[:n, 2] -= 5 * grief
    design = PairDesign(
        np.arange(n),
        np.arange(n, 2 * n),
        tuple(f"p{i}" for i in range(n)),
        tuple(e for e, _ in labels),
        tuple(c for _, c in labels),
        emotions,
    )
    return x, design


def split(design: PairDesign) -> dict[str, Part]:
    return {c: "confirmation" if c.endswith(("4", "5")) else "discovery" for c in design.clusters}


def ranked(
    x: np.ndarray, design: PairDesign, *, both_signs: bool = True, n_best: int = 3
) -> dict[str, Ranked]:
    n = len(design)
    columns = np.arange(x.shape[1])
    return rank_columns(
        x[:n],
        x[n:],
        columns,
        design,
        split(design),
        CONFIG,
        both_signs=both_signs,
        n_best=n_best,
    )


def test_neurons_are_taken_with_either_sign() -> None:
    x, design = make()
    found = ranked(x, design)
    assert set(found) == {"all", *EMOTIONS}
    assert (found["all"].columns[0], found["all"].signs[0]) == (0, -1)
    grief = found["grief"]
    assert grief.columns[:2].tolist() == [2, 1] and grief.signs[:2].tolist() == [-1, 1]
    assert all(len(set(r.columns)) == 3 for r in found.values())


def test_latents_are_ranked_as_the_search_ranks_them() -> None:
    x, design = make()
    n = len(design)
    search = search_activations(x, design, CONFIG)
    found = rank_columns(
        x[:n],
        x[n:],
        np.arange(N_COLUMNS),
        design,
        search.parts,
        CONFIG,
        both_signs=False,
        n_best=N_COLUMNS,
    )
    for name, own in found.items():
        rows = search.table[search.table["contrast"] == name].sort_values("rank")
        assert own.columns.tolist() == rows["feature"].tolist()
        assert own.signs.tolist() == np.where(rows["specificity"] < 0, -1, 1).tolist()


def test_the_confirmation_part_is_not_looked_at() -> None:
    x, design = make()
    one = ranked(x, design)
    rows = design.rows(split(design), "confirmation")
    x[rows] = np.random.default_rng(9).normal(size=(len(rows), N_COLUMNS)) * 100
    two = ranked(x, design)
    for name in one:
        assert one[name].columns.tolist() == two[name].columns.tolist()
        assert one[name].signs.tolist() == two[name].signs.tolist()


def test_columns_that_never_move_are_not_chosen() -> None:
    x, design = make()
    x[:] = 3.0
    assert all(len(r.columns) == 0 for r in ranked(x, design).values())
    x[: len(design), 7] += np.arange(len(design))
    assert all(r.columns.tolist() == [7] for r in ranked(x, design).values())


def test_one_emotion_has_one_contrast_and_no_discovery_is_an_error() -> None:
    x, design = make(emotions=("grief",))
    assert set(ranked(x, design)) == {"all"}
    parts: dict[str, Part] = dict.fromkeys(design.clusters, "confirmation")
    n = len(design)
    with pytest.raises(StatisticsError, match="no cluster is in the discovery part"):
        rank_columns(x[:n], x[n:], np.arange(3), design, parts, CONFIG, both_signs=True, n_best=1)


def test_scores_of_columns_by_hand() -> None:
    values = np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 10.0], [8.0, 10.0]])
    train = np.array([True, True, False, False])
    one = column_scores(values, Ranked(np.array([0]), np.array([-1.0])), train)
    assert one.tolist() == [1, -1, -3, -7]  # mean 1, sd 1 over the first two
    both = column_scores(values, Ranked(np.array([0, 1]), np.array([1.0, 1.0])), train)
    assert both.tolist() == [-0.5, 0.5, 1.5, 3.5]  # the constant column adds nothing
    none = column_scores(values, Ranked(np.zeros(0, np.int64), np.zeros(0)), train)
    assert none.tolist() == [0, 0, 0, 0]


def test_difference_of_means_by_hand() -> None:
    values = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [5.0, 7.0]])
    positive = np.array([True, True, False, False])
    train = np.array([True, True, True, False])
    # w = (2, 0) - (0, 2)
    assert difference_of_means(values, positive, train).tolist() == [2, 6, -4, -4]
    with pytest.raises(StatisticsError, match="2 positive and 0 negative"):
        difference_of_means(values, positive, positive)


def test_random_directions_point_the_right_way_on_training_items_only() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(40) % 2 == 0
    train = np.arange(40) < 20
    x = rng.normal(size=(40, 30))
    scores = random_scores(x, positive, train, 50, 0)
    assert scores.shape == (50, 40)
    own, rest = scores[:, train & positive], scores[:, train & ~positive]
    assert (own.mean(axis=1) >= rest.mean(axis=1)).all()
    held = scores[:, ~train & positive].mean(axis=1) > scores[:, ~train & ~positive].mean(axis=1)
    # In 30 dimensions the directions agree on noise by chance only, but not independently.
    assert 5 <= held.sum() <= 45
    assert (scores == random_scores(x, positive, train, 50, 0)).all()
    assert (random_scores(np.ones((40, 3)), positive, train, 2, 0) == 0).all()
    with pytest.raises(StatisticsError, match="needs both"):
        random_scores(x, positive, positive, 2, 0)
