import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams

from affectlens.display.look import THEME, Theme, drawable
from affectlens.display.maps import STRONGEST_TINT
from affectlens.report.figures import search_figures
from affectlens.report.figures_effects import at_reported_strength, forest
from affectlens.report.loading import RunData
from affectlens.report.theme import DARK, _style, render, to_bytes

NAMES = ["volcano", "best_feature", "specificity", "sae_training"]


def _svg(spec, *, narrow=True) -> bytes:
    with _style():
        return to_bytes(spec.draw(narrow=narrow), "svg")


def test_every_figure_is_offered_and_captioned(positive: RunData) -> None:
    specs = [*search_figures(positive), forest(positive)]
    assert [s.name for s in specs if s] == [*NAMES, "effects"]
    assert all(s and s.title and s.caption and s.alt for s in specs)


def test_axes_carry_titles_labels_and_n(positive: RunData) -> None:
    for spec in [*search_figures(positive), forest(positive)]:
        assert spec is not None
        with _style():
            figure = spec.draw(narrow=False)
        assert figure.get_suptitle()
        axes = figure.axes[0]
        assert "n = " in axes.get_title(loc="left")
        assert axes.get_xlabel() or spec.name == "specificity"


def test_no_data_no_figure(positive: RunData) -> None:
    assert search_figures(RunData(positive.path)) == []
    assert forest(RunData(positive.path)) is None
    table = positive.features
    assert table is not None and positive.specificity is not None
    nothing = replace(
        positive,
        features=table.assign(d_z=np.nan),
        specificity=positive.specificity.iloc[:0],
        pooled=None,
        metrics=None,
    )
    assert search_figures(nothing) == []


def test_unmeasured_cells_are_drawn_as_gaps(positive: RunData) -> None:
    assert positive.specificity is not None
    holes = positive.specificity.copy()
    holes.loc[holes.emotion == "rage", "mean_diff"] = np.nan
    spec = next(
        s for s in search_figures(replace(positive, specificity=holes)) if s.name == "specificity"
    )
    assert b"<pattern" in _svg(spec)


def test_hostile_names_are_drawn_as_text(positive: RunData, synthetic) -> None:
    name = synthetic.HOSTILE[:-1] + "悲" * 3
    summary, verdicts, effects = positive.summary, positive.verdicts, positive.effects
    assert summary is not None and verdicts is not None and effects is not None
    data = replace(
        positive,
        summary=replace(summary, emotions=[name, *summary.emotions[1:]]),
        features=positive.features.replace({"contrast": {"rage": name}}),  # type: ignore[union-attr]
        specificity=positive.specificity.replace(  # type: ignore[union-attr]
            {"selected_for": {"rage": name}, "emotion": {"rage": name}}
        ),
        verdicts=verdicts.replace({"emotion": {"rage": name}}),
        effects=effects.replace({"emotion": {"rage": name}}),
    )
    for spec in [*search_figures(data), forest(data)]:
        assert spec is not None
        assert b"<script" not in _svg(spec)


def test_the_same_figure_gives_the_same_bytes_and_leaves_no_state(positive: RunData) -> None:
    spec = search_figures(positive)[3]
    before = dict(rcParams)
    assert _svg(spec) == _svg(spec)
    assert dict(rcParams) == before


def test_pictures_follow_the_page_and_files_are_written(positive: RunData, tmp_path: Path) -> None:
    view = render(search_figures(positive)[3], tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sae_training.png", "sae_training.svg"]
    assert view.wide != view.narrow and view.size[0] > view.narrow_size[0] > 0
    for spec in search_figures(positive)[:3]:
        view = render(spec, tmp_path)
        for picture in (view.wide, view.narrow):
            head, _, data = picture.partition(",")
            assert head == "data:image/svg+xml;base64"
            assert b"@media (prefers-color-scheme: dark)" in base64.b64decode(data)


@pytest.mark.parametrize("theme", [THEME, DARK])
def test_text_stands_out_from_its_cell(theme: Theme) -> None:
    ink, paper = _luminance(theme.ink), _rgb(theme.paper)
    for colour in (theme.blue, theme.red):
        for value in np.linspace(0, STRONGEST_TINT, 11):
            cell = _luminance_rgb(value * _rgb(colour) + (1 - value) * paper)
            high, low = max(ink, cell), min(ink, cell)
            assert (high + 0.05) / (low + 0.05) >= 4.5


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _luminance(colour: str) -> float:
    return _luminance_rgb(_rgb(colour))


def _luminance_rgb(rgb) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_missing_glyphs_become_boxes() -> None:
    assert drawable("aé悲\x1b") == "aé□⟨U+001B⟩"


def test_only_the_reported_strength_is_drawn(positive: RunData) -> None:
    assert positive.effects is not None
    assert set(positive.effects.query("intervention == 'clamp'").strength) == {1.0, 2.0, 4.0}
    clamp = at_reported_strength(positive).query("intervention == 'clamp'")
    assert set(clamp.strength) == {2.0}
