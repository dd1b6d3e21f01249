"""Figures of results: on the axes given, named and counted, and without a trace elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affectlens.data.errors import ConfigError
from affectlens.data.stimuli import load_battery
from affectlens.features.lexical import AuditConfig, audit

from .shown_results import results, written

Draw = Callable[..., Axes]
FIGURES: dict[str, Callable[[dict[str, Any]], Draw]] = {
    "volcano": lambda r: r["found"].plot.volcano,
    "ranked": lambda r: r["found"].plot.ranked,
    "pairs": lambda r: lambda ax=None: r["found"].plot.pairs(pooled(r), ax=ax),
    "specificity": lambda r: r["found"].plot.specificity,
    "density": lambda r: r["found"].plot.density,
    "forest": lambda r: r["effect"].plot.forest,
    "clamp": lambda r: lambda ax=None: r["effect"].plot.forest("clamp", ax=ax),
    "effect doses": lambda r: lambda ax=None: r["effect"].plot.doses("clamp", ax=ax),
    "matrix": lambda r: r["effect"].plot.matrix,
    "tradeoff": lambda r: r["study"].plot.tradeoff,
    "doses": lambda r: r["study"].plot.doses,
    "doses of one": lambda r: (
        lambda ax=None: r["study"].plot.doses(
            r["study"].summary.emotions[0], score="concept", ax=ax
        )
    ),
    "agreement": lambda r: r["screen"].plot.agreement,
    "words": lambda r: r["card"].plot.words,
    "controls": lambda r: r["card"].plot.controls,
}


def pooled(shown: dict[str, Any]) -> int:
    return int(shown["found"].pooled["feature"].iloc[0])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = results(written(tmp_path_factory.mktemp("run") / "positive"))
    battery = load_battery().select(emotions=["grief", "rage"])
    return made | {"card": audit(battery, AuditConfig(n_repeats=1, n_bootstrap=50))}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_on_the_axes_given(shown: dict[str, Any], name: str) -> None:
    with mpl.rc_context({"font.size": 17, "text.color": "green"}):
        before = dict(mpl.rcParams)
        figure = Figure()
        axes = figure.add_subplot()
        assert FIGURES[name](shown)(ax=axes) is axes
        assert dict(mpl.rcParams) == before
    assert not plt.get_fignums()
    figure.canvas.draw()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_stands_on_its_own(
    shown: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("shown"))
    axes = FIGURES[name](shown)()
    assert plt.get_fignums() == [axes.figure.number]  # type: ignore[union-attr]
    assert axes.get_title(loc="left")
    below = " ".join(t.get_text() for t in axes.texts).replace("\xa0", " ")
    assert "n = " in below or "n ≤ " in below
    assert axes.get_xlabel() or name == "specificity"
    axes.figure.canvas.draw()


def test_what_is_not_there_is_refused_with_what_is(shown: dict[str, Any]) -> None:
    found, effect, study, screen = (shown[n] for n in ("found", "effect", "study", "screen"))
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: found.plot.volcano("gref"), "need one of .*all"),
        (lambda: found.plot.ranked(n=0), "at least 1"),
        (lambda: found.plot.pairs(-3), "leading ones"),
        (lambda: found.plot.specificity("neither"), "measured parts"),
        (lambda: effect.plot.forest("clmp"), "verdicts of ablate_zero"),
        (lambda: study.plot.doses("nobody"), "need one of"),
        (lambda: study.plot.doses(score="charm"), "overall, concept"),
        (lambda: screen.plot.agreement("scale"), "'ablate' or 'clamp'"),
        (lambda: screen.plot.agreement(contrast="nobody"), "was not screened"),
        (lambda: shown["card"].plot.words(0), "at least 1"),
        (lambda: shown["card"].plot.controls("row"), "the card has"),
    ]
    for call, said in refused:
        with pytest.raises(ConfigError, match=said):
            call()
    assert not plt.get_fignums()


def test_the_points_are_those_of_the_table(shown: dict[str, Any]) -> None:
    found = shown["found"]
    axes = found.plot.volcano("grief", ax=Figure().add_subplot())
    rows = found.table[found.table["contrast"] == "grief"]
    drawn = {len(c.get_offsets()): c.get_label() for c in axes.collections}
    held = int(rows["confirmed"].sum())
    assert held
    assert drawn[held] == f"confirmed on other scenes ({held})"
    assert sum(drawn) == len(rows)


def test_foreign_names_are_drawn_as_text(shown: dict[str, Any]) -> None:
    found = shown["found"]
    name = "$x^2$ \u202egnp \x1b[0m \U0001f600"
    table = found.specificity.assign(selected_for=name)
    emotions = found.summary.emotions
    from affectlens.display.search_figures import specificity

    own = table[table["part"] == "confirmation"]
    axes = specificity(own, emotions=emotions, part="confirmation", n_rows=2)
    axes.figure.canvas.draw()  # a glyph that the font lacks would warn, and warnings are errors
    said = axes.get_yticklabels()[0].get_text()
    assert said.startswith("$x^2$ ⟨U+202E⟩gnp")
