"""Batched logistic regression against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from affectlens.features.logistic import fit_logistic, principal_axes
from affectlens.features.permutation import StatisticsError


@given(st.integers(0, 10_000), st.integers(1, 90), st.floats(0, 4))
@settings(max_examples=8, deadline=None)
def test_every_fit_is_that_of_scikit_learn(seed: int, d: int, effect: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, d)) * rng.exponential(size=d) + 3
    labels = rng.random((3, 60)) < np.array([[0.5], [0.2], [0.8]])
    labels[:, :2] = [True, False]
    x[:, 0] += effect * labels[0]
    train = np.arange(60) < 40
    strengths = (0.001, 0.1, 1.0)
    found = fit_logistic(principal_axes(x, train), labels, strengths)
    assert found.shape == (3, 3, 60)
    for y, rows in zip(labels, found, strict=True):
        for strength, scores in zip(strengths, rows, strict=True):
            model = LogisticRegression(
                C=strength, class_weight="balanced", tol=1e-9, max_iter=50_000
            ).fit(x[train], y[train])
            expected = model.decision_function(x)
            assert np.allclose(scores, expected, atol=2e-3 * max(1, np.abs(expected).max()))


def test_axes_keep_distances_and_are_orthogonal(rng: np.random.Generator) -> None:
    for d in (5, 80):
        x = rng.normal(size=(30, d))
        train = np.arange(30) < 20
        axes = principal_axes(x, train)
        rows = axes.items[train]
        assert axes.items.shape[1] <= min(19, d)
        assert np.allclose(rows.sum(axis=0), 0, atol=1e-9)
        gram = rows.T @ rows
        assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-8)
        far = np.linalg.norm(x[0] - x[1])
        assert np.linalg.norm(rows[0] - rows[1]) == pytest.approx(far)


def test_fits_do_not_depend_on_their_company(rng: np.random.Generator) -> None:
    x, train = rng.normal(size=(40, 10)), np.ones(40, dtype=bool)
    labels = rng.random((4, 40)) < 0.5
    axes = principal_axes(x, train)
    together = fit_logistic(axes, labels, (0.01, 1.0))
    for i in range(4):
        alone = fit_logistic(axes, labels[i : i + 1], (1.0,))
        assert np.allclose(together[i, 1], alone[0, 0], atol=1e-9)


def test_nothing_to_learn_from_is_a_score_of_zero() -> None:
    train = np.arange(6) < 4
    labels = np.array([[True, False, True, False, True, True]])
    for x in (np.zeros((6, 0)), np.full((6, 3), 5.0)):
        scores = fit_logistic(principal_axes(x, train), labels, (1.0,))
        assert np.abs(scores).max() < 1e-9


def test_bad_input_is_refused() -> None:
    train = np.arange(4) < 2
    with pytest.raises(StatisticsError, match="NaN or infinity"):
        principal_axes(np.full((4, 2), np.nan), train)
    with pytest.raises(StatisticsError, match="got no training items"):
        principal_axes(np.zeros((4, 2)), np.zeros(4, dtype=bool))
    axes = principal_axes(np.eye(4), train)
    with pytest.raises(StatisticsError, match="positive and negative"):
        fit_logistic(axes, np.ones((1, 4), dtype=bool), (1.0,))
