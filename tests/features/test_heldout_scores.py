"""AUROC within folds, paired accuracy and their cluster bootstrap, against definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from affectlens.features.heldout_scores import (
    MIN_CLUSTERS,
    HeldOut,
    Judge,
    Target,
    difference,
    usable_folds,
)
from affectlens.features.intervals import resample_counts
from affectlens.features.permutation import StatisticsError

N_CLUSTERS, SIZE = 8, 3
N = N_CLUSTERS * SIZE
CLUSTERS = tuple(f"e{c // 4}/{c}" for c in range(N_CLUSTERS) for _ in range(SIZE))
ALL = Target("all", np.ones(N, dtype=bool), against_neutral=True)
GRIEF = Target("grief", np.arange(N) < N // 2, against_neutral=False)
ONE_FOLD = np.zeros(N, dtype=np.int64)


def held(scores: np.ndarray) -> HeldOut:
    return HeldOut(scores if scores.ndim == 3 else scores[None], 1.0)


def judge(target: Target = ALL, folds: np.ndarray = ONE_FOLD, n: int = 200) -> Judge:
    return Judge(target, CLUSTERS, folds, n_bootstrap=n, seed=0)


def test_one_fold_is_the_ordinary_auroc(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(N, 2)).round(1)  # with ties
    found = judge().judge(held(scores))
    labels = np.repeat([1, 0], N)
    assert found.auroc.estimate == pytest.approx(roc_auc_score(labels, scores.T.ravel()), abs=1e-12)
    wins = (scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])
    assert found.paired_accuracy.estimate == pytest.approx(wins.mean(), abs=1e-12)
    emotion = judge(GRIEF).judge(held(scores))
    assert emotion.auroc.estimate == pytest.approx(
        roc_auc_score(GRIEF.own, scores[:, 0]), abs=1e-12
    )
    assert emotion.paired_accuracy.estimate == pytest.approx(wins[GRIEF.own].mean(), abs=1e-12)


def test_folds_are_never_compared_with_each_other(rng: np.random.Generator) -> None:
    folds = np.repeat(np.arange(N_CLUSTERS) % 2, SIZE)
    scores = rng.normal(size=(N, 2))
    shifted = scores + 100.0 * folds[:, None]
    for target in (ALL, GRIEF):
        a, b = (judge(target, folds).judge(held(s)) for s in (scores, shifted))
        assert a.auroc == b.auroc
    wins = total = 0.0
    for fold in (0, 1):
        here = scores[folds == fold]
        wins += (here[:, :1] > here[:, 1][None]).sum()
        total += len(here) ** 2
    assert judge(ALL, folds).judge(held(scores)).auroc.estimate == pytest.approx(wins / total)


@pytest.mark.parametrize("target", [ALL, GRIEF], ids=lambda t: t.name)
def test_resamples_are_those_of_repeated_items(target: Target, rng: np.random.Generator) -> None:
    scores = rng.normal(size=(N, 2)).round(1)
    found = judge(target, n=20).judge(held(scores))
    if target.against_neutral:
        counts = resample_counts(20, N_CLUSTERS, 0)
    else:
        counts = np.concatenate([resample_counts(20, 4, 0), resample_counts(20, 4, 1)], axis=1)
    for b, drawn in enumerate(counts):
        rows = np.repeat(np.arange(N), np.repeat(drawn, SIZE))
        if target.against_neutral:
            labels, values = np.repeat([1, 0], len(rows)), scores[rows].T.ravel()
        else:
            labels, values = target.own[rows].astype(int), scores[rows, 0]
        assert found.replicates[b] == pytest.approx(roc_auc_score(labels, values), abs=1e-12)
    assert found.auroc.low == pytest.approx(np.quantile(found.replicates, 0.025))
    assert found.auroc.high == pytest.approx(np.quantile(found.replicates, 0.975))


def test_repeats_are_averaged(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(3, N, 2))
    together = judge().judge(held(scores))
    apart = [judge().judge(held(s)) for s in scores]
    assert together.auroc.estimate == pytest.approx(np.mean([j.auroc.estimate for j in apart]))
    assert np.allclose(together.replicates, np.mean([j.replicates for j in apart], axis=0))


def test_a_difference_is_taken_within_resamples(rng: np.random.Generator) -> None:
    good = rng.normal(size=(N, 2)) + np.array([1.5, 0])
    a, b = judge().judge(held(good)), judge().judge(held(rng.normal(size=(N, 2))))
    same = difference(a, a)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    found = difference(a, b)
    assert found.low == pytest.approx(np.quantile(a.replicates - b.replicates, 0.025))
    assert 0 < found.low < found.estimate < found.high


def test_ties_are_chance_and_have_no_width() -> None:
    found = judge(GRIEF).judge(held(np.zeros((N, 2))))
    assert (found.auroc.estimate, found.auroc.low, found.auroc.high) == (0.5, 0.5, 0.5)
    assert found.paired_accuracy.estimate == 0.5


def test_too_few_clusters_give_no_interval(rng: np.random.Generator) -> None:
    few = SIZE * (MIN_CLUSTERS - 1)
    target = Target("rare", np.arange(N) < few, against_neutral=False)
    found = judge(target).judge(held(rng.normal(size=(N, 2))))
    assert np.isfinite(found.auroc.estimate) and np.isnan(found.auroc.low)
    assert np.isnan(found.paired_accuracy.high) and np.isnan(difference(found, found).low)
    assert np.isnan(judge(n=0).judge(held(np.zeros((N, 2)))).auroc.low)


def test_untested_rows_are_ignored_and_nan_is_refused(rng: np.random.Generator) -> None:
    folds = np.where(np.arange(N) < 3, -1, 0)
    scores = rng.normal(size=(N, 2))
    scores[:3] = np.nan
    found = judge(ALL, folds).judge(held(scores))
    assert np.isfinite(found.auroc.estimate)
    scores[5, 1] = np.inf
    with pytest.raises(StatisticsError, match="1 held-out scores of target 'all'"):
        judge(ALL, folds).judge(held(scores))


def test_folds_without_both_classes_are_left_out() -> None:
    folds = np.where(np.arange(N) < N // 2, 0, 1)
    assert (usable_folds(GRIEF, folds) == -1).all()
    assert (usable_folds(ALL, folds) == folds).all()
    with pytest.raises(StatisticsError, match="'grief' has no fold"):
        judge(GRIEF, folds)


def test_resamples_that_compare_nothing_do_not_become_numbers(rng: np.random.Generator) -> None:
    # Own cluster c and other cluster c are alone in fold c: often no drawn pair shares a fold.
    folds = np.repeat(np.arange(N_CLUSTERS) % 4, SIZE)
    found = judge(GRIEF, folds, 1000).judge(held(rng.normal(size=(N, 2))))
    assert np.isnan(found.replicates).mean() > 0.01
    assert np.isnan(found.auroc.low) and np.isfinite(found.auroc.estimate)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_reversing_all_scores_reverses_the_auroc(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=(N, 2)).astype(float)
    folds = np.repeat(rng.integers(0, 2, N_CLUSTERS), SIZE)
    one = judge(ALL, folds, 50).judge(held(scores))
    two = judge(ALL, folds, 50).judge(held(-scores))
    assert one.auroc.estimate + two.auroc.estimate == pytest.approx(1)
    assert one.auroc.low + two.auroc.high == pytest.approx(1)
