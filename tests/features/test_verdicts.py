"""Verdicts: sign flips, bootstrap, Holm and the rule for beating random controls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from affectlens.data.errors import ConfigError
from affectlens.features.verdicts import (
    Comparison,
    bootstrap_interval,
    holm,
    one_sided_sign_flip,
    verdict_table,
)


def test_sign_flip_equals_scipys_exact_test(rng: np.random.Generator) -> None:
    values = rng.normal(0.4, 1, size=9)
    ours = one_sided_sign_flip(values, [str(i) for i in range(9)], 100, rng)
    theirs = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    ).pvalue
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_a_cluster_flips_as_one(rng: np.random.Generator) -> None:
    values = np.array([1.0, 2.0, 3.0, -0.5])
    clusters = ["a", "a", "b", "c"]
    sums = [3.0, 3.0, -0.5]
    by_hand = np.mean(
        [np.dot(signs, sums) >= sum(sums) - 1e-12 for signs in itertools.product((1, -1), repeat=3)]
    )
    assert one_sided_sign_flip(values, clusters, 100, rng) == by_hand == 2 / 8


def test_many_clusters_are_sampled_with_the_plus_one_rule() -> None:
    clusters = [str(i) for i in range(40)]
    p = one_sided_sign_flip(np.ones(40), clusters, 999, np.random.default_rng(0))
    assert p == 1 / 1000


def test_no_values_is_an_error(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="at least one value"):
        one_sided_sign_flip(np.array([]), [], 10, rng)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_and_bounded(p: list[float]) -> None:
    values = np.array(p)
    adjusted = holm(values)
    assert (adjusted >= values).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(values, kind="stable")]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(1.0, len(p) * values.min()))


def test_bootstrap_resamples_clusters_not_items(rng: np.random.Generator) -> None:
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 50)
    wide = bootstrap_interval(values, np.repeat(list("abcd"), 50).tolist(), 4000, rng)
    narrow = bootstrap_interval(values, [str(i) for i in range(200)], 4000, rng)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    single = bootstrap_interval(values, ["a"] * 200, 10, rng)
    assert np.isnan(single.low)


def _comparison(shift: float, seed: int, intervention: str = "clamp") -> Comparison:
    rng = np.random.default_rng(seed)
    clusters = tuple(f"c{i // 2}" for i in range(16))
    return Comparison(
        f"emotion{seed}",
        intervention,
        shift + rng.normal(0, 0.1, 16),
        rng.normal(0, 0.1, (19, 16)),
        clusters,
    )


def _table(comparisons: list[Comparison]):
    return verdict_table(
        comparisons,
        alpha=0.05,
        n_permutations=1000,
        n_bootstrap=200,
        rng=np.random.default_rng(0),
    )


def test_a_real_effect_beats_random_and_a_null_one_does_not() -> None:
    table = _table([_comparison(2.0, 1), _comparison(0.0, 2)])
    assert table["beats_random"].tolist() == [True, False]
    assert table["p"].iloc[0] == 1 / 256
    assert table["rank_p"].iloc[0] == 1 / 20
    assert table["advantage_low"].iloc[0] > 1.5


def test_the_predicted_side_follows_the_intervention() -> None:
    down = [_comparison(-2.0, 1, name) for name in ("ablate_zero", "clamp")]
    table = _table(down)
    assert table["direction"].tolist() == ["lower", "raise"]
    assert table["beats_random"].tolist() == [True, False]


def test_one_cluster_cannot_win() -> None:
    base = _comparison(5.0, 1)
    one = Comparison("grief", "ablate_zero", -base.chosen, base.random, ("only",) * 16)
    table = _table([one])
    assert table["p"].iloc[0] == 0.5
    assert not table["beats_random"].iloc[0]
