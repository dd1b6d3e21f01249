"""Nested probes against scikit-learn, and that nothing leaks across folds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from affectlens.features import logistic, probes
from affectlens.features.permutation import StatisticsError
from affectlens.features.probes import Numbers, Words, deal, linked, nested_probes

STRENGTHS = (0.01, 1.0)
GROUPS = tuple(f"g{i // 4}" for i in range(48))
STRATA = ("s",) * 48
TRAIN = np.arange(48) < 32


def sample(d: int, effect: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.tile([True, False], 24)
    x = rng.normal(size=(48, d)) * rng.exponential(size=d)
    x[:, 0] += effect * y
    return x, y


def level(scores: np.ndarray) -> bool:
    """All items alike, with odds of one: ties, which count one half."""
    return bool(np.ptp(scores) == 0 and abs(scores[0]) < 1e-9)


def nested(x: probes.Representation, y: np.ndarray, **kwargs: object) -> probes.Probe | None:
    settings_ = {"strengths": STRENGTHS, "n_inner": 4, "seed": 3, **kwargs}
    (found,) = nested_probes(x, y[None], TRAIN, GROUPS, STRATA, **settings_)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("d", [5, 200])
def test_scores_are_those_of_scikit_learn(d: int) -> None:
    x, y = sample(d, effect=1.0)
    found = nested(Numbers(x), y, strengths=(0.1,))
    model = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-10, max_iter=10_000)
    expected = make_pipeline(StandardScaler(), model).fit(x[TRAIN], y[TRAIN]).decision_function(x)
    assert found is not None and np.allclose(found.scores, expected, atol=1e-4)


def test_the_penalty_has_the_least_loss_on_groups_left_out() -> None:
    x, y = sample(60, effect=1.0)
    found = nested(Numbers(x), y)
    folds = deal(GROUPS[:32], STRATA[:32], 4, 3)
    losses = {}
    for strength in STRENGTHS:
        p = np.zeros(32)
        for fold in range(4):
            model = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
            pipe = make_pipeline(StandardScaler(), model).fit(
                x[:32][folds != fold], y[:32][folds != fold]
            )
            p[folds == fold] = pipe.predict_proba(x[:32][folds == fold])[:, 1]
        losses[strength] = log_loss(y[:32], p)
    assert found is not None
    assert found.strength == min(losses, key=lambda s: losses[s])
    assert found.loss == pytest.approx(min(losses.values()), abs=1e-4)
    assert abs(losses[0.01] - losses[1.0]) > 0.01


def test_classes_count_alike_whatever_their_size() -> None:
    x, _ = sample(3)
    y = np.arange(48) % 8 == 0
    found = nested(Numbers(np.zeros_like(x)), y)
    assert found is not None and level(found.scores)
    assert found.loss == pytest.approx(np.log(2))


def test_test_items_do_not_touch_what_is_fitted() -> None:
    x, y = sample(100, effect=1.0)
    one = nested(Numbers(x), y)
    moved, flipped = x.copy(), y.copy()
    moved[~TRAIN] *= 7
    flipped[~TRAIN] = ~flipped[~TRAIN]
    two = nested(Numbers(moved), flipped)
    assert one is not None and two is not None
    assert np.allclose(one.scores[TRAIN], two.scores[TRAIN], atol=1e-9)
    assert (one.strength, one.loss) == (two.strength, two.loss)


def test_labels_without_meaning_give_chance() -> None:
    areas = []
    for seed in range(40):
        x, _ = sample(100, seed=seed)
        y = np.random.default_rng([seed, 1]).random(48) < 0.5
        found = nested(Numbers(x), y, strengths=(0.01,))
        assert found is not None
        areas.append(roc_auc_score(y[~TRAIN], found.scores[~TRAIN]))
    # AUROC of 16 items under the null: sd about .15; of the mean of 40, .024.
    assert abs(np.mean(areas) - 0.5) < 4 * 0.15 / np.sqrt(40)


def test_a_signal_is_found() -> None:
    x, y = sample(10, effect=6.0)
    found = nested(Numbers(x), y)
    assert found is not None
    assert roc_auc_score(y[~TRAIN], found.scores[~TRAIN]) > 0.9


def test_many_labellings_are_fitted_one_by_one() -> None:
    x, y = sample(60, effect=1.0)
    labels = np.array([y, np.arange(48) % 3 == 0, np.ones(48, dtype=bool)])
    found = nested_probes(
        Numbers(x), labels, TRAIN, GROUPS, STRATA, strengths=STRENGTHS, n_inner=4, seed=3
    )
    assert found[2] is None  # one class
    for i in (0, 1):
        alone, together = nested(Numbers(x), labels[i]), found[i]
        assert alone is not None and together is not None
        assert (alone.scores == together.scores).all()


def test_degenerate_input() -> None:
    x, y = sample(3)
    constant = nested(Numbers(np.full_like(x, 1e6 + 0.1)), y)
    assert constant is not None and level(constant.scores)
    # One training group: no inner fold, so the smallest strength is taken.
    (one,) = nested_probes(
        Numbers(x), y[None], TRAIN, ("g",) * 48, STRATA, strengths=STRENGTHS, n_inner=4, seed=0
    )
    assert one is not None and one.strength == 0.01 and one.loss == np.inf
    x[40, 1] = np.nan
    with pytest.raises(StatisticsError, match="NaN or infinity"):
        nested(Numbers(x), y)
    with pytest.raises(StatisticsError, match=r"strengths are \[0.0\]"):
        nested(Numbers(x), y, strengths=(0.0,))
    with pytest.raises(StatisticsError, match=r"labels \(1, 3\)"):
        nested(Numbers(x), y[:3])


def test_a_fit_that_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "_STEPS", 1)
    x, y = sample(20, effect=3.0)
    with pytest.raises(StatisticsError, match="1 probes did not converge in 1 steps"):
        nested(Numbers(x), y, strengths=(1.0,))


# ---------------------------------------------------------------- words
def test_idf_comes_from_the_training_texts() -> None:
    documents = [["a", "b"], ["a", "c"], ["a", "new"], ["new", "new"]]
    train = np.array([True, True, False, False])
    words = Words(documents)
    expected = TfidfVectorizer(analyzer=list, sublinear_tf=True).fit(documents[:2])
    found = words.prepared(train)
    assert np.allclose(found, expected.transform(documents).toarray())
    assert words.n_terms(train) == 3 and (found[3] == 0).all()


def test_texts_without_words() -> None:
    words = Words([[], [], []])
    train = np.array([True, True, False])
    assert words.n_items == 3 and words.n_terms(train) == 0
    y = np.array([[True, False, True]])
    (found,) = nested_probes(words, y, train, "abc", "sss", strengths=(1.0,), n_inner=2, seed=0)
    assert found is not None and level(found.scores)


# ---------------------------------------------------------------- folds
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(2, 6),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_folds_keep_groups_and_deal_strata_evenly(sizes: list[int], n: int, seed: int) -> None:
    strata = [f"s{s}" for s, k in enumerate(sizes) for _ in range(k) for _ in range(2)]
    groups = [f"s{s}/{g}" for s, k in enumerate(sizes) for g in range(k) for _ in range(2)]
    folds = deal(groups, strata, n, seed)
    assert all(len(set(folds[np.array(groups) == g])) == 1 for g in groups)
    assert set(folds) == set(range(min(n, sum(sizes))))
    for s in set(strata):
        counts = np.bincount(folds[np.array(strata) == s], minlength=n) / 2
        assert counts.max() - counts.min() <= 1
    assert (folds == deal(groups, strata, n, seed)).all()


def test_folds_refuse_bad_input() -> None:
    with pytest.raises(StatisticsError, match="n_folds=1"):
        deal(["a"], ["s"], 1, 0)
    with pytest.raises(StatisticsError, match="2 groups, 1 strata"):
        deal(["a", "b"], ["s"], 2, 0)


def test_groups_that_share_a_text_are_joined() -> None:
    groups = ["a", "b", "c", "d", "d"]
    clinical, neutral = ["1", "2", "3", "4", "5"], ["6", "7", "2", "9", "3"]
    assert linked(groups, clinical, neutral) == ["a", "b", "b", "b", "b"]
    assert linked(groups, ["1", "2", "3", "4", "5"]) == groups
    with pytest.raises(StatisticsError, match="texts of"):
        linked(groups, ["1"])
