"""Drawings of a feature page: what lies where, and nothing outside its box."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.report.feature_drawings import (
    HISTOGRAM,
    PANEL,
    STRIP,
    height,
    histogram,
    rate_strip,
    slopes,
    strip,
)
from affectlens.report.feature_names import Density

FINITE = st.floats(-1e6, 1e6)


def test_histogram_is_as_tall_as_its_counts() -> None:
    drawn = histogram(Density((0.0, 0.1, 0.2, 0.3), (1, 0, 20)))
    assert drawn is not None
    bars = re.findall(r"M(\d+) 70v-(\d+)h(\d+)", drawn.bars)
    assert [(int(x), int(tall)) for x, tall, _ in bars] == [(0, 4), (173, 70)]
    assert drawn.top == 20
    assert [t.label for t in drawn.ticks] == ["1", "2"] or len(drawn.ticks) == 2


def test_ticks_stand_at_their_values() -> None:
    drawn = histogram(Density(tuple(i / 10 for i in range(11)), (3,) * 10))
    assert drawn is not None
    assert [(t.label, t.at) for t in drawn.ticks] == [
        ("1", 0), ("2", 78), ("5", 182), ("10", HISTOGRAM[0])
    ]  # fmt: skip


def test_no_histogram_of_a_feature_that_never_fires() -> None:
    assert histogram(Density((), ())) is None


def test_rates_are_placed_on_their_own_axis() -> None:
    drawn = rate_strip([0.0, 0.001, 0.01, 0.01, 0.1])
    assert drawn is not None
    assert (drawn.low, drawn.high) == (-3.0, -1.0)
    assert [drawn.place(r) for r in (0.001, 0.01, 0.1, 0.0)] == [0, 130, 260, None]
    assert [t.label for t in drawn.ticks] == ["0.1%", "1%", "10%"]
    assert rate_strip([0.0]) is None
    assert rate_strip([0.01]) is not None


def test_slopes_go_from_neutral_to_clinical() -> None:
    assert slopes([0, 1], [2, 0.5], 2) == "M0 80l80-80M0 40l80 20"
    assert slopes([0, 0, 0], [0, 0, 0], 2) == "M0 80l80 0", "equal lines are drawn once"
    assert slopes([], [], 2) == ""


@settings(deadline=None)
@given(st.floats(), st.floats(0, 1e9))
def test_heights_stay_in_the_box(value: float, top: float) -> None:
    assert 0 <= height(value, top) <= PANEL


def test_more_activation_is_higher() -> None:
    assert [height(v, 4) for v in (0, 1, 4)] == [80, 60, 0]


@settings(deadline=None)
@given(FINITE, st.lists(FINITE | st.just(math.nan), max_size=5), st.tuples(FINITE, FINITE))
def test_strips_keep_order_and_hold_zero(
    value: float, controls: list[float], ends: tuple[float, float]
) -> None:
    drawn = strip(value, controls, ends)
    assert drawn is not None and drawn.ends is not None
    places = [int(x) for x in re.findall(r"M(\d+) 4v10", drawn.controls)]
    assert places == sorted(set(places))
    for at in (*places, drawn.zero, drawn.value, *drawn.ends):
        assert 0 <= at <= STRIP
    assert (drawn.value - drawn.zero) * value >= 0


@pytest.mark.parametrize("ends", [None, (math.nan, 1.0), (-math.inf, math.inf)])
def test_strips_without_bounds(ends: tuple[float, float] | None) -> None:
    drawn = strip(0.0, [], ends)
    assert drawn is not None
    assert (drawn.ends, drawn.controls, drawn.zero) == (None, "", drawn.value)
    assert strip(float(np.nan), [1.0]) is None
