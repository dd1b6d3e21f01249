"""Ridge on words against scikit-learn and brute force; R2 where words do and do not predict."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from affectlens.features.lexical_share import (
    MIN_ACTIVE,
    N_FOLDS,
    PENALTIES,
    fit_lexical,
    predictors,
    surface_types,
    unseen_share,
    vocabulary,
)
from affectlens.features.stats import StatisticsError


def test_words_marks_and_numbers() -> None:
    assert surface_types('He DIDN\u2019T say "12-ish".') == [
        *("he", "didn't", "say", '"', "12", "-", "ish", '"', ".")
    ]


def test_vocabulary_and_counts() -> None:
    texts = ["a b b.", "a b", "a c", "a"]
    assert vocabulary(texts, 2) == ("a", "b")
    assert vocabulary([]) == ()
    x = predictors(texts, ("a", "b"))
    np.testing.assert_allclose(x[0], [np.log(2), np.log(3)])
    assert x[3].tolist() == [np.log(2), 0]
    assert predictors(texts, ("a", "b"), presence=True)[0].tolist() == [1, 1]
    assert unseen_share(["a b c c"], ("a", "b")) == 0.5
    assert np.isnan(unseen_share([""], ()))


def drawn(n: int = 120, n_words: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.log1p(rng.poisson(0.3, size=(n, n_words)))


def test_equals_scikit_learn() -> None:
    x, rng = drawn(), np.random.default_rng(1)
    y = x[:, :2] @ np.array([[1.0, 0], [0, 2]]) + 0.3 * rng.normal(size=(120, 2))
    found = fit_lexical(x, y, np.arange(120))
    centred = x - x.mean(axis=0)
    scale = (centred**2).sum() / len(x)
    for column in range(2):
        model = Ridge(alpha=found.penalty[column] * scale).fit(x, y[:, column])
        np.testing.assert_allclose(found.weights[:, column], model.coef_, atol=1e-8)
        np.testing.assert_allclose(
            found.predict(drawn(seed=5))[:, column], model.predict(drawn(seed=5)), atol=1e-8
        )


def test_penalty_minimises_gcv_by_brute_force() -> None:
    x, rng = drawn(40, 60), np.random.default_rng(2)
    y = x[:, :1] + 0.2 * rng.normal(size=(40, 1))
    centred = x - x.mean(axis=0)
    scale = (centred**2).sum() / len(x)
    scores = []
    for penalty in PENALTIES:
        solved = np.linalg.solve(centred.T @ centred + penalty * scale * np.eye(60), centred.T)
        hat = centred @ solved + 1 / 40
        rest = y[:, 0] - hat @ y[:, 0]
        scores.append(40 * (rest**2).sum() / (40 - np.trace(hat)) ** 2)
    found = fit_lexical(x, y, np.arange(40))
    assert found.penalty[0] == PENALTIES[int(np.argmin(scores))]


def test_r2_tells_words_from_chance() -> None:
    x, rng = drawn(400, 100), np.random.default_rng(3)
    word = np.maximum(x[:, 0], 0)
    y = np.stack([word, rng.exponential(size=400), word + rng.normal(size=400) * word.std()], 1)
    found = fit_lexical(x, y, np.arange(400))
    assert found.r2[0] > 0.95 and found.r2[1] < 0.05 and 0.3 < found.r2[2] < 0.6


def test_columns_do_not_depend_on_each_other() -> None:
    x, rng = drawn(), np.random.default_rng(4)
    y = rng.exponential(size=(120, 3))
    both, one = fit_lexical(x, y, np.arange(120)), fit_lexical(x, y[:, 1:2], np.arange(120))
    np.testing.assert_allclose(both.r2[1], one.r2[0])
    np.testing.assert_allclose(both.weights[:, 1], one.weights[:, 0], atol=1e-12)


def test_passages_of_one_document_are_left_out_together() -> None:
    """What tells documents apart must not be learnt in one passage and tested in the next."""
    rng = np.random.default_rng(5)
    documents = np.repeat(np.arange(30), 4)
    x = np.repeat(rng.random((30, 40)) < 0.3, 4, axis=0).astype(float)
    y = np.repeat(rng.normal(size=30), 4)[:, None] + 0.01 * rng.normal(size=(120, 1))
    assert fit_lexical(x, y, np.arange(120)).r2[0] > 0.9
    assert fit_lexical(x, y, documents).r2[0] < 0.3


def test_too_little_to_tell_is_nan() -> None:
    n = 60
    x, y = drawn(n, 30), np.zeros((n, 5))
    y[: MIN_ACTIVE - 1, 1] = 1
    y[:MIN_ACTIVE, 2] = 1
    y[:, 3] = 2
    y[1:, 4] = np.arange(1, n)
    found = fit_lexical(x, y, np.arange(n))
    assert np.isnan(found.r2).tolist() == [True, True, False, True, True]
    assert found.n_active.tolist() == [0, 9, 10, 60, 59]
    np.testing.assert_allclose(found.predict(x)[:, [0, 3]], y[:, [0, 3]])
    few = fit_lexical(x[: N_FOLDS - 1], y[: N_FOLDS - 1], np.arange(N_FOLDS - 1))
    assert np.isnan(few.r2).all() and np.isfinite(few.weights).all()


def test_no_words_and_one_document() -> None:
    y = np.random.default_rng(0).exponential(size=(40, 1))
    empty = fit_lexical(np.zeros((40, 0)), y, np.zeros(40))
    assert empty.r2.tolist() == [0.0]
    np.testing.assert_allclose(empty.predict(np.zeros((2, 0))), y.mean())


def test_bad_input_is_refused() -> None:
    with pytest.raises(StatisticsError, match="3 documents"):
        fit_lexical(np.ones((4, 2)), np.ones((4, 1)), np.arange(3))
    with pytest.raises(StatisticsError, match="NaN"):
        fit_lexical(np.ones((4, 2)), np.full((4, 1), np.nan), np.arange(4))
