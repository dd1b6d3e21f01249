"""Error rates of the search's tests on simulated data: 1,000 data sets of each kind; slow.

Limits are binomial: the number of data sets with a false claim lies below the 99.9% quantile of
its distribution at the nominal rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as sp

from affectlens.features import stats

pytestmark = pytest.mark.slow

N_SETS, N_FEATURES, N_FLIPS = 1000, 40, 499
N_CLUSTERS, SIZE = 24, 4
FWER, FDR = 0.05, 0.1
TRUE = 8
"""Features with an effect, in the data sets that have any."""

Simulator = Callable[[np.random.Generator], np.ndarray]


def independent(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_t(5, size=(N_CLUSTERS, N_FEATURES))


def correlated(rng: np.random.Generator) -> np.ndarray:
    """Two blocks, correlation 0.7 within and -0.7 between them."""
    shared = rng.normal(size=(N_CLUSTERS, 1)) * np.where(np.arange(N_FEATURES) % 2, 1, -1)
    return np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=(N_CLUSTERS, N_FEATURES))


def clustered(rng: np.random.Generator) -> np.ndarray:
    """Pairs with intraclass correlation 0.5, tested as totals of their clusters."""
    shared = np.repeat(rng.normal(size=(N_CLUSTERS, N_FEATURES)), SIZE, axis=0)
    pairs = shared + rng.normal(size=shared.shape)
    return stats.cluster_totals(pairs, [f"{i // SIZE:02d}" for i in range(len(pairs))])


def zero_inflated(rng: np.random.Generator) -> np.ndarray:
    """Each feature fires in 2 to 50% of the units, log-normal in size, sign by chance."""
    fires = rng.random((N_CLUSTERS, N_FEATURES)) < np.linspace(0.02, 0.5, N_FEATURES)
    size = rng.lognormal(size=fires.shape) * rng.choice([-1.0, 1.0], size=fires.shape)
    return np.where(fires, size, 0.0)


KINDS = [independent, correlated, clustered, zero_inflated]


def with_effects(x: np.ndarray) -> np.ndarray:
    """The last TRUE features shifted by 1.2 of their standard deviation, where they have one."""
    out = x.copy()
    out[:, -TRUE:] += 1.2 * x[:, -TRUE:].std(axis=0)
    return out


def limit(rate: float) -> int:
    return int(sp.binom.ppf(0.999, N_SETS, rate))


@pytest.mark.parametrize("simulate", KINDS)
def test_error_rates_without_any_effect(simulate: Simulator) -> None:
    family, discovery, alone = 0, 0, []
    for seed in range(N_SETS):
        found = stats.sign_flip(simulate(np.random.default_rng(seed)), N_FLIPS, seed=seed)
        family += bool((found.p_fwer <= FWER).any())
        # Without any effect every discovery is false: the false discovery proportion is 0 or 1.
        discovery += bool((stats.bh(found.p) <= FDR).any())
        alone.append((found.p <= 0.05).mean())
    assert family <= limit(FWER)
    assert discovery <= limit(FDR)
    if simulate is not zero_inflated:
        # Continuous data: the test is exact, so it may not be conservative either.
        assert family >= sp.binom.ppf(0.001, N_SETS, FWER)
        assert np.mean(alone) == pytest.approx(0.05, abs=0.006)
    else:
        assert np.mean(alone) <= 0.05


@pytest.mark.parametrize("simulate", KINDS)
def test_error_rates_beside_true_effects(simulate: Simulator) -> None:
    family, single, proportions, power, power_single = 0, 0, [], [], []
    for seed in range(N_SETS):
        x = with_effects(simulate(np.random.default_rng([seed, 1])))
        found = stats.sign_flip(x, N_FLIPS, seed=seed)
        null = np.arange(N_FEATURES) < N_FEATURES - TRUE
        family += bool((found.p_fwer[null] <= FWER).any())
        single += bool((found.p_single_step[null] <= FWER).any())
        called = stats.bh(found.p) <= FDR
        proportions.append((called & null).sum() / max(called.sum(), 1))
        power.append((found.p_fwer[~null] <= FWER).mean())
        power_single.append((found.p_single_step[~null] <= FWER).mean())
    assert family <= limit(FWER)
    assert single <= family
    # The proportion lies within 0..1, so its variance is below that of a binomial with its mean.
    assert np.mean(proportions) <= limit(FDR) / N_SETS
    assert np.mean(power) >= np.mean(power_single) > 0.1


EMOTIONS = tuple(f"emotion {i}" for i in range(4))
OF_CLUSTER = [EMOTIONS[i % len(EMOTIONS)] for i in range(N_CLUSTERS)]
"""Six clusters an emotion. Of clusters of one size, totals are tested as their means are."""


@pytest.mark.parametrize("simulate", KINDS)
def test_error_rates_of_emotions_without_any_effect(simulate: Simulator) -> None:
    """Labels exchanged between clusters: each emotion, and all together by `p_family`."""
    own, together, alone = np.zeros(len(EMOTIONS)), 0, []
    for seed in range(N_SETS):
        x = simulate(np.random.default_rng([seed, 2]))
        found = stats.label_permutation(x, OF_CLUSTER, EMOTIONS, N_FLIPS, seed=seed)
        own += (found.p_fwer <= FWER).any(axis=1)
        together += bool((found.p_fwer * len(EMOTIONS) <= FWER).any())
        alone.append((found.p <= 0.05).mean())
    assert own.max() <= limit(FWER)
    assert together <= limit(FWER)
    if simulate is not zero_inflated:
        assert own.min() >= sp.binom.ppf(0.001, N_SETS, FWER)
        assert np.mean(alone) == pytest.approx(0.05, abs=0.006)
    else:
        assert np.mean(alone) <= 0.05


@pytest.mark.parametrize("simulate", KINDS)
def test_error_rates_of_an_emotion_beside_its_true_effects(simulate: Simulator) -> None:
    """Of an emotion with effects in some features, the other features must not be called."""
    family = 0
    for seed in range(N_SETS):
        x = simulate(np.random.default_rng([seed, 3]))
        first = np.array(OF_CLUSTER) == EMOTIONS[0]
        x[np.ix_(first, np.arange(N_FEATURES) >= N_FEATURES - TRUE)] += 1.5 * x.std()
        found = stats.label_permutation(x, OF_CLUSTER, EMOTIONS[:1], N_FLIPS, seed=seed)
        family += bool((found.p_fwer[0, : N_FEATURES - TRUE] <= FWER).any())
    assert family <= limit(FWER)


CLUSTERS = [f"{i // SIZE:02d}" for i in range(N_CLUSTERS * SIZE)]


def pairs_of(simulate: Simulator, rng: np.random.Generator) -> np.ndarray:
    """Independent pairs, SIZE in a cluster."""
    return np.concatenate([simulate(rng) for _ in range(SIZE)])


@pytest.mark.parametrize("simulate", [independent, correlated, zero_inflated])
def test_error_rates_of_hierarchical_flips_without_any_effect(simulate: Simulator) -> None:
    """Pairs flipped and studentised by clusters: exact where pairs are independent."""
    family, alone = 0, []
    for seed in range(N_SETS):
        x = pairs_of(simulate, np.random.default_rng([seed, 4]))
        found = stats.cluster_flip(x, CLUSTERS, N_FLIPS, seed=seed)
        family += bool((found.p_fwer <= FWER).any())
        alone.append((found.p <= 0.05).mean())
    assert family <= limit(FWER)
    if simulate is not zero_inflated:
        assert family >= sp.binom.ppf(0.001, N_SETS, FWER)
        assert np.mean(alone) == pytest.approx(0.05, abs=0.006)
    else:
        assert np.mean(alone) <= 0.05


def test_error_rates_of_hierarchical_flips_where_pairs_of_a_cluster_correlate() -> None:
    """Intraclass correlation one half. The level holds in the limit of many clusters only."""
    family, pairs, alone = 0, 0, []
    for seed in range(N_SETS):
        rng = np.random.default_rng([seed, 5])
        shared = np.repeat(rng.normal(size=(N_CLUSTERS, N_FEATURES)), SIZE, axis=0)
        x = shared + rng.normal(size=shared.shape)
        found = stats.cluster_flip(x, CLUSTERS, N_FLIPS, seed=seed)
        family += bool((found.p_fwer <= FWER).any())
        alone.append((found.p <= 0.05).mean())
        pairs += bool((stats.sign_flip(x, N_FLIPS, seed=seed).p_fwer <= FWER).any())
    assert family <= limit(FWER)
    assert np.mean(alone) == pytest.approx(0.05, abs=0.006)
    # The same data flipped pair by pair without studentising: far too often.
    assert pairs > 3 * limit(FWER)
