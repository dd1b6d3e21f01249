"""Feature pages: what stands on them, their order and links, their size, and hostile text."""

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_effects
import synthetic_validity as made

from affectlens.data.errors import ArtifactError
from affectlens.features.results import Context, write_lines
from affectlens.report import feature_pages as pages
from affectlens.report.build import _environment
from affectlens.report.feature_contexts import place, ranged, shade, strongest
from affectlens.report.feature_effects import effect_sources, feature_effects
from affectlens.report.feature_names import FORMAT, Range
from affectlens.report.feature_slopes import Interval, Pairs, slope_plot
from affectlens.report.feature_words import drawn_token
from affectlens.report.loading import RunData

HOSTILE = synthetic_effects.HOSTILE
SECONDS_FOR_A_HUNDRED = 2.0
BYTES_A_PAGE = 20_000
"""A report of 100 features stays below 5 MB."""


def context(feature: int, token: str = " grief", value: float = 4.0) -> dict[str, object]:
    tokens = [" the", token, " came", " over", " her", "\n"] * 3 + [" then", " it", " went"]
    activations = [0.0] * len(tokens)
    activations[10:13] = [value / 2, value, 0.2]
    return {"feature": feature, "doc_id": "d-1", "position": 5, "peak": 11, "tokens": tokens,
            "activations": activations}  # fmt: skip


def name_line(feature: int, token: str = " grief", **changes: object) -> dict[str, object]:
    groups = [
        {"feature": feature, "low": 20.0 * g, "high": 20.0 * (g + 1), "n_tokens": 12,
         "share": 0.2, "contexts": [context(feature, token, 20.0 * g + 10)] * 5}
        for g in range(4, -1, -1)
    ]  # fmt: skip
    shares = [{"token": 7, "text": token, "mass_share": 0.14, "base_rate": 0.01, "lift": 14.0,
               "n_active": 9}] * 10  # fmt: skip
    logits = [{"token": 7, "text": token, "logit": 0.97}] * 10
    emotion = {"contrast": "all", "kind": "evokes", "own_mass": 0.02, "auroc": 0.63, "z": 3.2,
               "p_reference": 0.07, "n_words": 49}  # fmt: skip
    line = {
        "feature": feature,
        "firing_rate": 0.005,
        "max_active": 98.76,
        "density": {"log10_edges": [i / 10 for i in range(14)], "counts": list(range(13))},
        "groups": groups,
        "tokens": {"n_active": 48, "n_types": 40, "entropy_bits": 5.3, "effective_types": 39.5,
                   "base_entropy_bits": 8.9, "top": shares},
        "emotion_mass": 0.02,
        "lens": {"promoted": logits, "suppressed": logits},
        "emotions": [emotion],
        "nearest_decoder": [{"feature": f, "value": 0.26} for f in (feature, 4000)],
        "nearest_cofiring": [],
    }  # fmt: skip
    return {**line, **changes}


def head(n_names: int, **changes: object) -> dict[str, object]:
    about = {"format": FORMAT, "format_version": 1, "n_names": n_names, "n_tokens": 31_120,
             "n_masked": 156, "emotion_token_rate": 0.012, "lexicon": "own list",
             "n_reference": 500}  # fmt: skip
    return {**about, **changes}


def named(folder: Path, data: RunData, *lines: dict[str, object]) -> RunData:
    write_lines(folder / "naming/names.jsonl", [head(len(lines)), *lines])
    return replace(data, path=folder)


def view_of(data: RunData) -> pages.FeaturePages:
    view = pages.feature_pages(data)
    assert view is not None
    return view


def few(view: pages.FeaturePages, n: int = 2) -> pages.FeaturePages:
    """The first pages only: enough to look at, and quick to read."""
    return replace(view, pages=view.pages[:n])


def html(view: pages.FeaturePages | None) -> str:
    return _environment().get_template("features.html.j2").render(features_view=view)


def first(data: RunData) -> int:
    return view_of(data).pages[0].feature


@pytest.fixture
def one(causal: RunData, tmp_path: Path) -> pages.FeaturePages:
    """A run with all stages of which only the first feature is named."""
    return view_of(named(tmp_path, causal, name_line(first(causal))))


def test_every_retained_feature_has_a_page_confirmed_ones_first(positive: RunData) -> None:
    assert positive.features is not None
    table = positive.features[positive.features.retained]
    view = view_of(positive)
    assert len(view.pages) == pages.PAGES_SHOWN
    assert view.n_hidden == table.feature.nunique() - pages.PAGES_SHOWN > 0
    flags = [page.confirmed for page in view.pages]
    assert flags == sorted(flags, reverse=True)
    assert {p.feature for p in view.pages if p.confirmed} == set(table[table.confirmed].feature)
    assert f"{view.n_hidden} more have no page" in made.Fragment(html(few(view))).words


def test_nothing_retained_gives_no_pages(positive: RunData) -> None:
    assert positive.features is not None
    none = replace(positive, features=positive.features.assign(retained=False))
    assert pages.feature_pages(none) is None
    assert pages.feature_pages(replace(positive, features=None)) is None
    assert "there are no pages" in made.Fragment(html(None)).words


def test_pages_are_linked_both_ways(positive: RunData) -> None:
    view = view_of(positive)
    got = made.Fragment(html(view))
    ids, links = got.values("id"), set(got.values("href"))
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [p.next for p in view.pages[:-1]] == [p.feature for p in view.pages[1:]]
    assert [p.previous for p in view.pages[1:]] == [p.feature for p in view.pages[:-1]]
    assert (view.pages[0].previous, view.pages[-1].next) == (None, None)
    assert [f"feature-{p.feature}" for p in view.pages] == [
        i for i in ids if re.fullmatch(r"feature-\d+", i)
    ]


def test_a_page_holds_every_part(one: pages.FeaturePages) -> None:
    page = one.pages[0]
    words = made.Fragment(html(replace(one, pages=(page,)))).words
    for part in (
        "Density: share of tokens it fires on",
        "highest bar 12 tokens",
        "Fires on 0.50% of 31,120 held-out tokens (one token in 200), at most 98.8.",
        "80.0 to 100.0 12 tokens, 20% of those it fires on",
        "Promotes: logit", "Suppresses: logit", "␣grief", "+0.97", "14%, 14×",
        "mean difference", "95% interval", "n 4+2",
        "d_z, kept aside", "over all searches",
        "Alone: the screen",
        "fires together (phi)", "4000 (0.26)",
        f"al.clamped(lm, sae, {{{page.feature}: 98.76}})", f"al.AddLatents(({page.feature},)",
    ):  # fmt: skip
        assert part in words, part


def test_neighbours_are_linked_where_they_have_a_page(one: pages.FeaturePages) -> None:
    words = one.pages[0].words
    assert words is not None
    assert [(n.feature, n.linked) for n in words.writes_alike] == [
        (one.pages[0].feature, True), (4000, False)
    ]  # fmt: skip


def test_without_names_the_stored_contexts_are_shown(positive: RunData) -> None:
    view = view_of(positive)
    page = view.pages[0]
    assert (page.words, page.histogram) == (None, None)
    assert page.places[0].title == "Strongest places" and page.places[0].places
    assert "affectlens name RUN" in made.Fragment(html(few(view))).words
    bare = view_of(replace(positive, stats=None, contexts=(), pooled=None))
    assert bare.rates is None and bare.pages[0].slopes is None
    assert "No place is stored." in made.Fragment(html(few(bare))).words


def test_without_interventions_the_page_says_so(positive: RunData) -> None:
    bare = replace(positive, effects=None, verdicts=None)
    assert "affectlens intervene RUN" in made.Fragment(html(few(view_of(bare)))).words
    assert "affectlens intervene RUN" not in made.Fragment(html(few(view_of(positive)))).words


def test_classes_and_tests_of_a_validated_run(validated: RunData) -> None:
    view = view_of(validated)
    kinds = {kind for page in view.pages for kind in page.classes}
    assert kinds & {"contextual", "mixed", "lexical"}
    tests = view.pages[0].scores[0].tests
    assert {"Kept aside", "More than words"} <= {t.title for t in tests}
    assert all(t.words for t in tests)


def test_a_feature_that_never_fires(positive: RunData, tmp_path: Path) -> None:
    silent = name_line(
        first(positive), firing_rate=0.0, max_active=0.0, groups=[],
        density={"log10_edges": [], "counts": []},
        tokens={"n_active": 0, "n_types": 0, "entropy_bits": None, "effective_types": None,
                "base_entropy_bits": 8.9, "top": []},
        emotions=[{"contrast": "grief", "kind": "not seen", "own_mass": None, "auroc": None,
                   "z": None, "p_reference": None, "n_words": 2}],
    )  # fmt: skip
    view = view_of(named(tmp_path, positive, silent))
    page = view.pages[0]
    assert page.seen == "It never fires on 31,120 held-out tokens."
    assert (page.histogram, page.rate_at) == (None, None)
    assert page.words is not None
    assert page.words.on_words == ("too few words of grief to score what it promotes.",)
    assert "a guess" in page.clamp
    assert "not seen" in made.Fragment(html(few(view))).words


def test_hostile_text_stays_text(hostile_run: Path, tmp_path: Path) -> None:
    from affectlens.report.loading import load_run

    data = load_run(hostile_run)
    line = name_line(first(data), HOSTILE)
    view = view_of(named(tmp_path, data, line))
    source = html(few(view, 12))
    got = made.Fragment(source)
    assert not {"script", "img", "style"} & {tag for tag, _ in got.tags}
    assert not any(name.startswith("on") or name == "style" for _, a in got.tags for name in a)
    assert "{{ 7*7 }}" in got.words and "⟨U+202E⟩gnp.exe" in got.words
    assert not any(mark in source for mark in ("\x1b", "\u202e", "\ud800"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([head(1, format_version=9), name_line(1)], "of version 9"),
        ([head(2), name_line(1)], "cut off"),
        ([head(1), name_line(1, density="none")], "other fields"),
        ([], "of version None"),
    ],
)
def test_broken_names_are_an_error(
    positive: RunData, tmp_path: Path, lines: list[dict[str, object]], message: str
) -> None:
    write_lines(tmp_path / "naming/names.jsonl", lines)
    with pytest.raises(ArtifactError, match=message):
        pages.feature_pages(replace(positive, path=tmp_path))


def test_a_hundred_pages_are_small_and_quick(causal: RunData, tmp_path: Path) -> None:
    features = [page.feature for page in view_of(causal).pages]
    data = named(tmp_path, causal, *(name_line(f) for f in features))
    html(view_of(data))
    start = time.process_time()
    source = html(view_of(data))
    spent = time.process_time() - start
    assert len(features) == 100
    assert spent < SECONDS_FOR_A_HUNDRED
    assert len(source.encode()) < 100 * BYTES_A_PAGE


def test_places_are_shaded_by_the_largest_activation_of_the_feature() -> None:
    weak, strong = (
        Range(low, low + 50, 12, 0.2, (Context(**context(1, value=v)),) * 9)  # type: ignore[arg-type]
        for low, v in ((0, 10.0), (50, 100.0))
    )
    groups = ranged([strong, weak])
    assert [len(g.places) for g in groups] == [5, 3]
    shades = [[r.shade for r in g.places[0].runs if r.shade] for g in groups]
    assert shades == [[4, 9, 1], [1, 1, 1]]
    assert [g.places[0].peak for g in groups] == ["100.0", "10.0"]


def test_silent_tokens_are_one_run_and_words_keep_their_blanks() -> None:
    found = place(Context(**context(1)), 4.0)  # type: ignore[arg-type]
    text = "".join(run.text for run in found.runs)
    assert text == "the grief came over her↵ the grief came over her↵ the grief came over her↵" \
        " then it went"  # fmt: skip
    shaded = [(r.text, r.activation) for r in found.runs if r.shade]
    assert shaded == [("her", "2.00"), ("↵", "4.00"), ("the", "0.20")]
    assert len(found.runs) <= 2 * len(shaded) + 1


def test_a_long_place_is_cut_around_its_peak() -> None:
    tokens = [f" {i}" for i in range(60)]
    long = Context(1, "d", 30, 30, tokens, [0.0] * 30 + [1.0] + [0.0] * 29)
    runs = place(long, 1.0).runs
    assert runs[0].text.startswith("… 16 17") and runs[-1].text.endswith("44 …")
    assert strongest([]) == ()


@pytest.mark.parametrize(("value", "want"), [(0, 0), (-1, 0), (np.nan, 0), (1e-9, 1), (9, 9)])
def test_shades(value: float, want: int) -> None:
    assert shade(value, 9.0) == want
    assert shade(value, 0.0) == 0


def test_tokens_show_their_blanks() -> None:
    assert [drawn_token(t) for t in (" a", "\n", "", "x" * 40)] == [
        "␣a", "↵", "(empty)", "x" * 23 + "…"
    ]  # fmt: skip


def pairs(emotions: list[str], n: int = 3) -> Pairs:
    emotion = np.repeat(np.array(emotions, dtype=object), n)
    aside = np.tile(np.arange(n) == n - 1, len(emotions))
    neutral = np.tile(np.arange(n, dtype=np.float64), len(emotions))
    return Pairs(emotion, aside, neutral, neutral + 2)


def test_slopes_show_the_contrast_and_its_interval() -> None:
    interval = Interval("all", 2.0, 1.0, 3.0, 2)
    plot = slope_plot(pairs(["grief", "rage"]), ["rage", "grief"], [interval], "mean")
    assert [(p.label, p.colour, p.own) for p in plot.panels] == [
        ("rage", 0, False), ("grief", 1, False)
    ]  # fmt: skip
    assert [(p.difference, p.n) for p in plot.panels] == [("+2.00", "2+1")] * 2
    assert plot.panels[0].dark == "M0 40l80-40" and plot.panels[0].pale.count("M") == 2
    assert plot.overview is not None
    # Neutral mean 2; the interval ends at 5, the top of the panel, and begins at 3.
    assert (plot.overview.whisker, plot.overview.top) == ((0, 64), "5.00")
    assert plot.intervals == (
        "Any emotion: mean difference +2.000 on 2 pairs kept aside, "
        "95% interval +1.000 to +3.000.",
    )  # fmt: skip


def test_the_feature_s_own_emotion_stands_first_among_many() -> None:
    many = [f"e{i}" for i in range(20)]
    interval = Interval("e19", 2.0, np.nan, np.nan, 1)
    plot = slope_plot(pairs(many), many, [interval], "mean")
    assert (plot.panels[0].label, plot.panels[0].own) == ("e19", True)
    assert len(plot.panels) + plot.n_hidden == 20
    assert {p.colour for p in plot.panels} <= set(range(8))
    assert plot.overview is not None and plot.overview.whisker is None
    assert "no interval: too few scene groups" in plot.intervals[0]


def test_slopes_of_a_silent_feature() -> None:
    zero = np.zeros(3)
    silent = Pairs(np.array(["rage"] * 3, dtype=object), zero == 1, zero, zero)
    plot = slope_plot(silent, ["rage"], [Interval("all", np.nan, np.nan, np.nan, 0)], "mean")
    assert plot.overview is None
    assert plot.panels[0].pale == "M0 80l80 0"
    assert "In 3 of 3 pairs it is silent in both texts." in plot.note
    assert plot.intervals == ("Any emotion: no pair was kept aside.",)


def screen(**exact: list[float]) -> pd.DataFrame:
    columns = {
        "contrast": ["grief"] * 4, "feature": [1, 2, 3, 4],
        "verified_clamp": ["top", "random", "both", ""], "verified_ablate": [""] * 4,
        "exact_clamp": [2.0, -1.0, 1.0, np.nan], "exact_ablate": [np.nan] * 4,
        "attribution_clamp": [0.5] * 4, "attribution_ablate": [-0.004] * 4,
        "output_score": [0.25] * 4, "output_rank": [3.0] * 4,
    }  # fmt: skip
    return pd.DataFrame({**columns, **exact})


def test_effects_alone_stand_beside_random_features() -> None:
    data = RunData(path=Path(), tables={"search/screen": screen()})
    found = feature_effects(1, ["grief"], effect_sources(data, [1, 2]))
    off, up = found.alone
    assert (off.value, off.controls, off.strip) == (
        "−0.004", "estimated by gradient, not measured", None
    )  # fmt: skip
    assert (up.value, up.controls) == ("+2.00", "2 random features: −1.00 to +1.00")
    assert up.strip is not None and up.strip.controls.count("M") == 2
    assert "output score of 0.250" in found.writes
    # A feature is no control of itself, and none is read for a contrast that did not find it.
    itself = feature_effects(2, ["grief"], effect_sources(data, [1, 2])).alone[1]
    assert itself.controls == "1 random feature: +1.00 to +1.00"
    assert not feature_effects(1, ["rage"], effect_sources(data, [1, 2]))


def test_effects_in_a_set_stand_beside_random_sets(positive: RunData) -> None:
    assert positive.effects is not None
    row = positive.effects[positive.effects.arm == "chosen"].iloc[0]
    feature = int(str(row.features).split(",")[0])
    sources = effect_sources(positive, [feature])
    lines = feature_effects(feature, [], sources).together
    assert lines
    assert all("random set" in line.controls and "Strongest control" in line.note for line in lines)
    assert any(line.strip is not None and line.strip.controls for line in lines)
