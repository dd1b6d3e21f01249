"""AUROC and paired accuracy equal scikit-learn's; the bootstrap equals one made by resampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from affectlens.features._lexical_scores import cluster_bootstrap, pair_scores


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=20).filter(lambda v: len(v) % 2 == 0))
def test_pair_scores_equal_scikit_learn(values):
    scores = np.array(values, float)
    half = len(scores) // 2
    auroc, accuracy = pair_scores(scores)
    assert auroc == pytest.approx(roc_auc_score([1] * half + [0] * half, scores))
    difference = scores[:half] - scores[half:]
    assert accuracy == pytest.approx(np.mean(np.sign(difference)) / 2 + 0.5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_bootstrap_equals_one_that_resamples_items(seed):
    generator = np.random.default_rng(seed)
    n, k, n_boot = 14, 4, 30
    place = np.concatenate([np.arange(k), generator.integers(0, k, n - k)])
    repeats = [generator.integers(-3, 4, 2 * n).astype(float) for _ in range(2)]
    found = cluster_bootstrap(repeats, [str(p) for p in place], n_boot, np.random.default_rng(seed))
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=n_boot)
    expected = []
    for counts in drawn:
        rows = np.concatenate(
            [np.flatnonzero(place == c) for c in range(k) for _ in range(counts[c])]
        )
        both = np.concatenate([rows, rows + n])
        expected.append(np.mean([pair_scores(s[both]) for s in repeats], axis=0))
    low, high = np.quantile(expected, [0.025, 0.975], axis=0)
    assert (found[0].low, found[1].low) == pytest.approx(tuple(low))
    assert (found[0].high, found[1].high) == pytest.approx(tuple(high))


def test_no_interval_without_two_clusters():
    scores = [np.arange(6.0)]
    generator = np.random.default_rng(0)
    assert cluster_bootstrap(scores, ["a", "a", "a"], 10, generator) is None
    assert cluster_bootstrap(scores, ["a", "b", "a"], 0, generator) is None
