"""Shuffles depend on seed, item, grain and order alone, and keep what a word carries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import retest
from affectlens.features.pair_data import Members as PairValues
from affectlens.features.shuffle_control import (
    can_shuffle,
    shufflable,
    shuffle_control,
    shuffle_text,
)
from affectlens.features.stats import StatisticsError

from .test_effect_share import make_design

CONFIG = SearchConfig(n_permutations=500)
DESIGN = make_design(("a", "b"), domains=5, per=2)
N = len(DESIGN)


@pytest.mark.parametrize(
    ("text", "words", "within", "order"),
    [
        ("One two. Three four.", True, True, True),
        ("One two three.", True, True, False),
        ("One.", False, False, False),
        ("No no.", True, True, False),
        ("Go. Go.", False, False, False),
        ("Go. Stop.", True, False, True),
        ("no no no", False, False, False),
    ],
)
def test_what_has_another_order(text: str, words: bool, within: bool, order: bool) -> None:
    assert can_shuffle(text, "words") is words
    assert can_shuffle(text, "within_sentences") is within
    assert can_shuffle(text, "sentences") is order


GRAINS = st.sampled_from(["words", "within_sentences", "sentences"])


@given(
    st.lists(st.sampled_from(["red", "gate", "went.", "She", "it."]), min_size=1, max_size=12),
    GRAINS,
    st.integers(0, 20),
)
def test_a_shuffle_keeps_words_and_changes_order(words, grain, k) -> None:  # type: ignore[no-untyped-def]
    text = " ".join(words)
    found = shuffle_text(text, "x", grain, k, 0)
    assert sorted(found.split()) == sorted(words)
    assert (found != text) == can_shuffle(text, grain)


def test_orders_depend_on_item_grain_number_and_seed_alone() -> None:
    text = " ".join(f"w{i}" for i in range(30))
    first = shuffle_text(text, "x", "words", 0, 0)
    assert first == shuffle_text(text, "x", "words", 0, 0)
    others = [
        shuffle_text(text, "y", "words", 0, 0),
        shuffle_text(text, "x", "within_sentences", 0, 0),
        shuffle_text(text, "x", "words", 1, 0),
        shuffle_text(text, "x", "words", 0, 1),
    ]
    assert len({first, *others}) == 5


def values(seed: int = 0, shape: tuple[int, ...] = (N, 3)) -> PairValues:
    rng = np.random.default_rng(seed)
    return PairValues(rng.exponential(size=shape), rng.exponential(size=shape))


@pytest.mark.parametrize("name", ["all", "a"])
def test_definition(name: str) -> None:
    original, shuffled = values(), values(1, (4, N, 3))
    found = shuffle_control(original, shuffled, name, DESIGN, CONFIG, grain="words")
    d = original.clinical - original.neutral
    d_shuffled = (shuffled.clinical - shuffled.neutral).mean(axis=0)
    own = slice(0, N) if name == "all" else slice(0, 10)
    np.testing.assert_allclose(found.mean_diff, d[own].mean(axis=0))
    np.testing.assert_allclose(found.mean_diff_shuffled, d_shuffled[own].mean(axis=0))
    expected = retest(d - d_shuffled, name, DESIGN, CONFIG)
    assert found.did is not None and expected is not None
    np.testing.assert_allclose(found.did.p, expected.p)
    np.testing.assert_allclose(found.did.effects.specificity, found.effect - found.effect_shuffled)
    np.testing.assert_allclose(found.share.share, found.effect_shuffled / found.effect)
    assert (found.n_pairs, found.n_shuffles) == (N if name == "all" else 10, 4)


def test_words_keep_their_share_and_order_loses_it() -> None:
    rng = np.random.default_rng(0)
    clinical = np.stack([3 + 0.3 * rng.normal(size=N), 3 + 0.3 * rng.normal(size=N)], axis=1)
    neutral = 0.3 * rng.random((N, 2))
    after = np.stack([clinical, clinical])
    after[:, :, 1] = 0.3 * rng.random((2, N))
    after[:, :, 0] += 0.1 * rng.normal(size=(2, N))
    found = shuffle_control(
        PairValues(clinical, neutral),
        PairValues(after, np.stack([neutral] * 2)),
        "all",
        DESIGN,
        CONFIG,
        grain="words",
    )
    assert found.did is not None
    assert found.did.p_holm[0] > 0.05 and found.did.p_holm[1] < 0.01
    assert found.share.low[0] > 0.9 and found.share.high[1] < 0.2


def test_firing_rates_count_both_members_and_all_orders() -> None:
    zero, one = np.zeros((N, 1)), np.ones((N, 1))
    found = shuffle_control(
        PairValues(one, one),
        PairValues(np.stack([one, zero]), np.stack([zero, zero])),
        "all",
        DESIGN,
        CONFIG,
        grain="words",
    )
    assert found.firing_original.tolist() == [1.0]
    assert found.firing_shuffled.tolist() == [0.25]
    assert found.off_distribution.tolist() == [True]
    same = shuffle_control(
        PairValues(one, zero),
        PairValues(np.stack([one] * 2), np.stack([zero] * 2)),
        "all",
        DESIGN,
        CONFIG,
        grain="words",
    )
    assert same.off_distribution.tolist() == [False] and same.did is not None
    assert same.did.p.tolist() == [1.0]


def test_nothing_to_compare_and_bad_input() -> None:
    own = DESIGN.take(range(10))
    original, shuffled = values(shape=(10, 1)), values(1, (2, 10, 1))
    alone = shuffle_control(original, shuffled, "a", own, CONFIG, grain="words")
    assert alone.did is None and np.isnan(alone.effect).all() and alone.n_pairs == 10
    with pytest.raises(StatisticsError, match="n_shuffles"):
        shuffle_control(original, original, "all", own, CONFIG, grain="words")
    broken = PairValues(np.full((2, 10, 1), np.nan), shuffled.neutral)
    with pytest.raises(StatisticsError, match="NaN"):
        shuffle_control(original, broken, "all", own, CONFIG, grain="words")
    nobody = DESIGN.take([])
    none = shuffle_control(
        values(shape=(0, 2)), values(shape=(3, 0, 2)), "all", nobody, CONFIG, grain="sentences"
    )
    assert none.did is None and none.n_pairs == 0
    assert np.isnan(none.effect).all() and np.isnan(none.share.share).all()
    assert np.isnan(none.firing_original).all() and not none.off_distribution.any()


def test_pairs_with_a_member_of_one_sentence_are_left_out() -> None:
    from .test_lexical_controls import battery_of

    pairs = battery_of([("One. Two.", "Three. Four."), ("One. Two.", "One.")]).pairs
    assert shufflable(pairs, "sentences").tolist() == [0]
    assert shufflable(pairs, "words").tolist() == [0]
    assert stats.mean_diff(np.zeros((0, 1))).shape == (1,)
