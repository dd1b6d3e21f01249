"""Figures of the causal stages: what stands in them, and what is never cut off."""

import re
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from matplotlib.figure import Figure

from affectlens.display.arms import EFFECT_ARMS, STUDY_ARMS, in_order
from affectlens.report.effect_matrix import matrix_figure, matrix_lines
from affectlens.report.figures_arms import arm_figures
from affectlens.report.figures_effects import forest
from affectlens.report.figures_screen import screen_figures
from affectlens.report.figures_study import study_figures
from affectlens.report.forest import Point, draw_points, reach
from affectlens.report.loading import RunData
from affectlens.report.mediation import mediation_figures
from affectlens.report.theme import FigureSpec, _style, canvas


def _specs(data: RunData) -> list[FigureSpec]:
    matrix = matrix_figure(data)
    found = [*arm_figures(data), *screen_figures(data), *mediation_figures(data)]
    return [*found, *study_figures(data), *([matrix] if matrix else [])]


def _drawn(spec: FigureSpec, *, narrow: bool = False) -> Figure:
    with _style():
        return spec.draw(narrow=narrow)


def _words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_every_figure_stands_on_its_own(causal: RunData) -> None:
    specs = _specs(causal)
    assert [s.name for s in specs] == [
        "arms_ablate_zero",
        "arms_ablate_neutral",
        "arms_clamp",
        "screen",
        "screen_sides",
        "mediation",
        "mediation_size",
        "study_ranking",
        "study_curves",
        "effect_matrix",
    ]
    for spec in specs:
        assert spec.title and spec.alt and len(spec.caption) > 100
        words = _words(_drawn(spec)) + spec.caption
        assert re.search(r"\bn = |n:|pairs in brackets|scene groups a cell", words), spec.name
        assert re.search(r"[Cc]ontrol|random|no edit", words), spec.name


def test_nothing_run_gives_no_figure(positive: RunData) -> None:
    assert _specs(RunData(positive.path)) == []


def test_every_arm_of_the_run_has_a_row(causal: RunData) -> None:
    assert causal.effects is not None
    for spec in arm_figures(causal):
        own = causal.effects[causal.effects.intervention == spec.name.removeprefix("arms_")]
        labels = {t.get_text() for t in _drawn(spec).axes[0].get_yticklabels()}
        assert labels == {EFFECT_ARMS[a].label for a in own.arm}
    clamp = {t.get_text() for t in _drawn(arm_figures(causal)[2]).axes[0].get_yticklabels()}
    assert {"prompt naming it", "neutral prompt", "random features", "no edit"} <= clamp


def test_an_unknown_arm_is_drawn_under_its_own_name(causal: RunData) -> None:
    assert causal.effects is not None
    table = causal.effects.replace({"arm": {"neurons": "wildcard"}})
    spec = arm_figures(replace(causal, effects=table))[0]
    assert "wildcard" in _words(_drawn(spec))


def test_only_the_reported_dose_is_in_the_forest(causal: RunData) -> None:
    assert causal.effects is not None
    shown = arm_figures(causal)[2]
    others = causal.effects[causal.effects.reported]
    alone = arm_figures(replace(causal, effects=others))[2]
    with _style():
        one, two = (s.draw(narrow=False) for s in (shown, alone))
    assert [len(a.lines) for a in one.axes] == [len(a.lines) for a in two.axes]


def test_a_mark_beyond_the_axis_is_an_arrow_with_its_number() -> None:
    arm = EFFECT_ARMS["chosen"]
    usual = [Point(i, 0.1, 0.0, 0.2, arm) for i in range(9)]
    limit = reach([*usual, Point(9, 5.0, 4.0, 6.0, arm)])
    assert limit == pytest.approx(1.12 * 4 * 0.2)
    figure = canvas("t", narrow=False, height=2)
    axes = figure.add_subplot()
    draw_points(axes, [Point(0, -5.0, -6.0, -4.0, arm)], (-limit, limit))
    assert [t.get_text() for t in axes.texts] == ["−5.0"]
    assert axes.lines[0].get_marker() == "<" and axes.lines[0].get_xdata()[0] == -limit


def test_a_point_without_value_draws_nothing_and_bands_are_clipped() -> None:
    figure = canvas("t", narrow=False, height=2)
    axes = figure.add_subplot()
    nan = float("nan")
    point = Point(0, nan, nan, nan, EFFECT_ARMS["random"], (-9.0, 0.5))
    draw_points(axes, [point], (-1.0, 1.0))
    assert not axes.lines
    assert axes.collections[0].get_segments()[0][:, 0].tolist() == [-1.0, 0.5]
    assert reach([]) == 1.0 and reach([Point(0, nan, nan, nan, EFFECT_ARMS["chosen"])]) == 1.0


@pytest.mark.parametrize("known", [EFFECT_ARMS, STUDY_ARMS])
def test_no_two_arms_differ_by_colour_alone(known) -> None:
    signs = [(a.marker, a.filled) for a in known.values()]
    assert len(set(signs)) == len(signs)
    labels = [a.label for a in known.values()]
    assert len(set(labels)) == len(labels)


def test_known_arms_come_first_and_in_order() -> None:
    assert in_order(["other", "random", "chosen", "random"], EFFECT_ARMS) == [
        "chosen",
        "random",
        "other",
    ]


def test_the_matrix_says_matched_only_with_a_small_p(causal: RunData, causal_null: RunData) -> None:
    assert all("are matched better than" in line for line in matrix_lines(causal))
    assert all("nor about any one emotion" in line for line in matrix_lines(causal))
    warned = ["on texts of their own emotion alone" in line for line in matrix_lines(causal)]
    assert warned == ["switched off" in line for line in matrix_lines(causal)]
    assert "1 cell of 8 on the diagonal passes" in matrix_lines(causal)[0]
    assert all("not shown to be matched" in line for line in matrix_lines(causal_null))
    table = causal.tables["effects/matrix"].assign(diagonal_dominance=-0.4)
    turned = replace(causal, tables={**causal.tables, "effects/matrix": table})
    assert all("not shown to be matched" in line for line in matrix_lines(turned))


def test_doses_of_a_curve_lie_in_order_on_the_reported_half(causal: RunData) -> None:
    curves = causal.tables["steering/curves"].copy()
    curves.loc[curves.half == "select", ["concept", "coherence"]] = 77.0
    spec = study_figures(replace(causal, tables={**causal.tables, "steering/curves": curves}))[1]
    axes = _drawn(spec).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 5  # one an arm with doses, random sets as one
    for line in lines:
        assert all(a >= b for a, b in pairwise(line.get_xdata()))
        assert max(line.get_ydata()) < 1


def test_sizes_of_sets_are_ticks_and_the_chosen_one_is_marked(causal: RunData) -> None:
    axes = _drawn(mediation_figures(causal)[1]).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "5", "10", "20"]
    single = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [float(np.asarray(line.get_xdata())[0]) for line in single] == [5.0]


def test_one_size_gives_no_curve_and_no_value_gives_no_figure(causal: RunData) -> None:
    table = causal.tables["effects/mediation"]
    one = table[table.arm != "ranked"]
    names = [s.name for s in mediation_figures(_with(causal, one))]
    assert names == ["mediation"]
    assert mediation_figures(_with(causal, table.assign(value=float("nan")))) == []


def _with(data: RunData, mediation) -> RunData:
    return replace(data, tables={**data.tables, "effects/mediation": mediation})


def test_figures_without_any_interval_are_drawn(causal: RunData) -> None:
    """Fewer than five groups of scenes have none."""
    tables = {
        name: table.assign(**{c: np.nan for c in table if c.endswith(("_low", "_high"))})
        for name, table in causal.tables.items()
    }
    assert causal.effects is not None and causal.verdicts is not None
    bare = replace(
        causal,
        tables=tables,
        effects=causal.effects.assign(effect_low=np.nan, effect_high=np.nan),
        verdicts=causal.verdicts.assign(advantage_low=np.nan, advantage_high=np.nan),
    )
    drawn = [forest(bare), *_specs(bare)]
    for spec, narrow in product([s for s in drawn if s is not None], (True, False)):
        assert _drawn(spec, narrow=narrow).axes
