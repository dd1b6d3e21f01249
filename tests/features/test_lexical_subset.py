"""Pairs that words give away are dropped until a bag of words is at chance; none may be left."""

import pytest

from affectlens.data.errors import StimulusError
from affectlens.features.config import AuditConfig
from affectlens.features.lexical_subset import chance_subset
from tests.features.test_lexical import battery

FAST = AuditConfig(n_repeats=1)


def test_marked_pairs_go_and_the_others_stay():
    made = battery(lambda c, n, i: (f"{c} dagger" if i % 3 == 0 else c, n))
    found = chance_subset(made, FAST)
    assert found.reached
    assert {p.id for i, p in enumerate(made.pairs) if i % 3} <= set(found.ids)
    assert found.history[0].words > 0.6
    assert found.history[-1].words <= 0.5
    kept = found.apply(made)
    assert [p.id for p in kept.pairs] == list(found.ids)
    assert kept.name == "made~chance"


def test_nothing_is_left_of_a_battery_whose_register_differs():
    found = chance_subset(battery(lambda c, n, i: (f"{c} dagger", n)), FAST)
    assert (found.reached, found.ids) == (False, ())
    assert [s.n_pairs for s in found.history] == sorted(
        (s.n_pairs for s in found.history), reverse=True
    )
    with pytest.raises(StimulusError, match="no pair of 'made' is left"):
        found.apply(battery())


def test_equal_members_keep_all():
    made = battery()
    assert chance_subset(made, FAST).ids == tuple(p.id for p in made.pairs)


def test_refusals():
    with pytest.raises(StimulusError, match=r"target is 0\.4"):
        chance_subset(battery(), FAST, target=0.4)
    with pytest.raises(StimulusError, match="fewer than two clusters"):
        chance_subset(battery().select(clusters=["rage/1"]), FAST)
