"""Strict batteries: one family over batteries, and silence that is not taken for absence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import retest
from affectlens.features.power import min_detectable_between
from affectlens.features.strict_pairs import StrictPairs, strict_tests

from .test_effect_share import make_design

CONFIG = SearchConfig(n_permutations=2000)
DESIGN = make_design(("a", "b", "c"), domains=6, per=2)


def pairs(effects: list[float], seed: int = 0, name: str = "x", design=DESIGN) -> StrictPairs:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    return StrictPairs(name, rng.normal(size=(len(design), len(effects))) + effects, design)


def test_outcomes() -> None:
    battery = pairs([2.0, -2.0, 0.0, 0.0])
    found = np.array([1.0, 1.0, 3.0, 0.2])
    (test,) = strict_tests("all", [battery], found, CONFIG)
    assert test.outcome == ("holds", "opposite", "not shown", "low power")
    assert test.test is not None and 0.3 < test.min_detectable < 3


def test_holm_is_over_latents_and_batteries() -> None:
    batteries = [pairs([0.5, 0.2], name="x"), pairs([0.4, 0.0], 1, "y")]
    tests = strict_tests("all", batteries, np.ones(2), CONFIG)
    single = [retest(b.differences, "all", b.design, CONFIG) for b in batteries]
    expected = stats.holm(np.stack([t.p for t in single if t is not None]))
    np.testing.assert_allclose([t.p_holm for t in tests], expected)
    assert [t.battery for t in tests] == ["x", "y"]


def test_an_emotion_without_pairs_there_is_not_testable() -> None:
    small = make_design(("b", "c"), domains=6, per=2)
    batteries = [pairs([3.0]), pairs([3.0], 1, "y", small)]
    batteries[0].differences[12:] -= 3
    held, missing = strict_tests("a", batteries, np.ones(1), CONFIG)
    assert held.outcome == ("holds",)
    assert missing.outcome == ("not testable",) and missing.test is None
    assert np.isnan(missing.p_holm).all() and np.isnan(missing.min_detectable)
    # A battery that cannot be tested does not weigh on the correction.
    assert held.test is not None and held.p_holm[0] == held.test.p[0]


def test_too_few_units_can_show_nothing() -> None:
    tiny = make_design(("a",), domains=3, per=1)
    (test,) = strict_tests("all", [pairs([5.0], design=tiny)], np.full(1, 50.0), CONFIG)
    assert test.min_detectable == np.inf and test.outcome == ("low power",)


def test_silent_latents_and_no_battery() -> None:
    silent = StrictPairs("x", np.zeros((len(DESIGN), 1)), DESIGN)
    for name in ("all", "a"):
        (test,) = strict_tests(name, [silent], np.ones(1), CONFIG)
        assert test.p_holm.tolist() == [1.0] and test.outcome[0] in ("not shown", "low power")
    assert strict_tests("all", [], np.ones(1), CONFIG) == ()


def test_detectable_difference_against_the_power_of_a_t_test() -> None:
    d = min_detectable_between(8, 56, 10)
    critical = scipy_stats.t.isf(0.05 / 20, 62)
    power = scipy_stats.nct.sf(critical, 62, d * np.sqrt(8 * 56 / 64))
    np.testing.assert_allclose(power, 0.8, atol=1e-4)
    # Golden value: two groups of 64 at alpha .05 find d = 0.5 (Cohen 1988, table 2.4.1).
    assert abs(min_detectable_between(64, 64, 1) - 0.5) < 0.005
    assert np.isnan(min_detectable_between(0, 5, 1)) and np.isnan(min_detectable_between(1, 1, 1))


@pytest.mark.parametrize("unit", ["pair", "cluster"])
def test_detectable_follows_the_unit(unit: str) -> None:
    config = SearchConfig(unit=unit, unit_emotion=unit, n_permutations=5000)  # type: ignore[arg-type]
    (whole,) = strict_tests("all", [pairs([0.0])], np.ones(1), config)
    (own,) = strict_tests("a", [pairs([0.0])], np.ones(1), config)
    expected = {
        "pair": min_detectable_between(12, 24, 1),
        "cluster": min_detectable_between(6, 12, 1),
    }
    assert own.min_detectable == expected[unit]
    assert whole.test is not None and whole.test.n_units == {"pair": 36, "cluster": 18}[unit]
    assert 0.2 < whole.min_detectable < 0.8
