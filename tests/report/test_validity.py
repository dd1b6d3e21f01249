"""The validity section says plainly what survives, and what the texts could not have shown."""

from dataclasses import replace
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import synthetic_effects
import synthetic_validity as made

from affectlens.features.comparison_columns import COMPARISON_COLUMNS
from affectlens.report.build import _environment
from affectlens.report.loading import RunData, load_run
from affectlens.report.passport import interval, passport
from affectlens.report.tables import MARKS, Row, mark_of, tally
from affectlens.report.theme import _style, to_bytes
from affectlens.report.validity import validity_section
from affectlens.report.validity_figures import (
    _apart,
    emotion_matrix,
    own_others,
    shrinkage,
    validity_figures,
)

EMOTIONS = synthetic_effects.EMOTIONS
HOSTILE = synthetic_effects.HOSTILE[:-1]  # a table is parquet, which holds no lone surrogate


@pytest.fixture(scope="module")
def data(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunData:
    settings = synthetic.Settings(stages=("run", "search"), n_tested=60)
    found = load_run(synthetic.write_run(tmp_path_factory.mktemp("v") / "run", settings))
    # Fewer candidates than the search keeps, so that the tables stay small.
    keep = found.features["rank"] <= 3
    features = found.features.assign(retained=keep, confirmed=found.features.confirmed & keep)
    return replace(found, features=features, tables=made.tables(features, EMOTIONS))


def without(data: RunData, *names: str) -> RunData:
    return replace(data, tables={k: v for k, v in data.tables.items() if k not in names})


def changed(data: RunData, name: str, **columns: object) -> RunData:
    return replace(data, tables={**data.tables, name: data.tables[name].assign(**columns)})


def page(data: RunData) -> made.Fragment:
    template = _environment().get_template("validity.html.j2")
    return made.Fragment(template.render(validity=validity_section(data), figures={}, data=data))


def leads(data: RunData) -> dict[str, str]:
    section = validity_section(data)
    assert section is not None
    return dict(section.leads)


def by_name(rows: tuple[Row, ...]) -> dict[tuple[str, str], Row]:
    return {(row.below, row.name): row for row in rows}


def test_no_tables_or_no_search_is_said(data: RunData) -> None:
    assert validity_section(replace(data, tables={})) is None
    assert validity_section(replace(data, features=None)) is None
    words = page(replace(data, tables={})).words
    assert "This stage has not been run: affectlens validity RUN." in words
    why = {"validity": "the search retained no latent"}
    template = _environment().get_template("validity.html.j2")
    text = template.render(validity=None, figures={}, data=data, untestable=why)
    assert "Could not be done: the search retained no latent." in made.Fragment(text).words


def test_every_retained_feature_has_a_row_confirmed_ones_first(data: RunData) -> None:
    book = passport(data)
    assert book is not None and book.confirmed is not None and book.others is not None
    rows = [*book.confirmed.rows, *book.others.rows]
    assert len(rows) == int(data.features.retained.sum()) == 27  # type: ignore[union-attr]
    assert len(book.confirmed.rows) == int(data.features.confirmed.sum())  # type: ignore[union-attr]
    assert all(len(row.cells) == len(book.checks) for row in rows)
    assert [c.title for c in book.checks] == [
        "Kept aside", "Own emotion only", "Dose", "Complex neutral", "Person", "Paraphrase",
        "Domains", "Named emotion", "Other SAEs",
    ]  # fmt: skip


def test_cells_hold_mark_number_and_title(data: RunData) -> None:
    book = passport(data)
    assert book is not None and book.confirmed is not None
    row = book.confirmed.rows[0]
    cells = dict(zip([c.title for c in book.checks], row.cells))
    assert (row.below, cells["Kept aside"].mark) == ("any emotion", "holds")
    assert (cells["Dose"].mark, cells["Dose"].text) == ("open", "50%")
    assert (cells["Complex neutral"].mark, cells["Complex neutral"].text) == ("fails", "+4.0×")
    assert (cells["Person"].mark, cells["Person"].text) == ("holds", "50%")
    assert cells["Paraphrase"].text == "50%"  # 0.2 told otherwise, 0.2 more before
    assert (cells["Domains"].text, cells["Other SAEs"].text) == ("75%", "2 of 2")
    assert cells["Own emotion only"].mark == cells["Named emotion"].mark == "none"
    assert "+1.20 (+0.10 to +0.50)" in cells["Complex neutral"].title
    assert "p = 0.010" in cells["Complex neutral"].title and "n = 16" in cells["Person"].title
    grief = next(r for r in book.confirmed.rows if r.below == "grief")
    cells = dict(zip([c.title for c in book.checks], grief.cells))
    assert cells["Dose"].mark == cells["Own emotion only"].mark == "cannot"
    assert cells["Own emotion only"].text == "0 of 7"
    foot = book.confirmed.foot
    assert foot is not None
    said = [sum(int(t.split("\u00a0")[0]) for t in c.text.split(" ")) for c in foot.cells]
    given = [sum(r.cells[i].mark != "none" for r in book.confirmed.rows) for i in range(len(said))]
    assert said == given


@pytest.mark.parametrize(
    ("verdict", "note", "n", "mark"),
    [
        ("holds", "", 16, "holds"),
        ("fails", "the smallest attainable p is .5", 2, "fails"),
        ("unknown", "", 16, "open"),
        ("unknown", made.TOO_FEW, 2, "cannot"),
        ("unknown", "none of these pairs has a moderate telling", 0, "cannot"),
    ],
)
def test_unknown_is_split_into_open_and_untestable(
    verdict: str, note: str, n: int, mark: str
) -> None:
    assert mark_of(verdict, note, n) == mark


def test_marks_differ_without_colour() -> None:
    signs = [sign for sign, _ in MARKS.values()]
    assert len(set(signs)) == len(MARKS)
    assert tally(["holds", "fails", "holds", "none", None]) == "2\u00a0✓ 1\u00a0✗"


def test_not_confirmed_is_never_marked_as_holding(data: RunData) -> None:
    book = passport(data)
    assert book is not None and book.others is not None
    assert {row.cells[0].mark for row in book.others.rows} <= {"open", "cannot", "fails"}


def test_no_specific_feature_is_said_plainly_with_the_reason(data: RunData) -> None:
    said = leads(data)["One emotion only"]
    assert "No confirmed feature is shown to belong to one emotion: for none of 7" in said
    assert "could not have shown it" in said and "smallest attainable p is 0.33" in said
    enough = changed(data, "validity/specific", note="not surely below: joy")
    assert "could not have shown it" not in leads(enough)["One emotion only"]


def test_a_specific_feature_is_named(data: RunData) -> None:
    table = data.tables["validity/specific"].copy()
    at = table.index[(table.part == "confirmation") & (table.selected_for == "grief")][0]
    other = (table.part == "confirmation") & (table.selected_for == "vigilance")
    table.loc[other, ["verdict", "n_below"]] = ["holds", 7]  # a candidate, not confirmed
    table.loc[at, ["verdict", "n_below"]] = ["holds", 7]
    said = leads(replace(data, tables={**data.tables, "validity/specific": table}))
    assert "1 confirmed feature of 7 is raised by the own emotion" in said["One emotion only"]
    assert f"{table.loc[at, 'feature']} (grief)" in said["One emotion only"]


def test_pairs_that_chose_a_feature_do_not_judge_it(data: RunData) -> None:
    table = data.tables["validity/specific"]
    chose = table[table.part == "discovery"].assign(verdict="holds", n_below=7)
    only = replace(data, tables={**data.tables, "validity/specific": chose})
    assert "One emotion only" not in leads(only)
    book, section = passport(only), validity_section(only)
    assert book is not None and "Own emotion only" not in {c.title for c in book.checks}
    assert section is not None and section.specific is not None
    assert {row.cells[-1].mark for row in section.specific.rows} == {None}


def test_a_width_without_a_match_proves_nothing(data: RunData) -> None:
    for kind, mark in (("width", "open"), ("seed", "fails")):
        lost = changed(data, "validity/stability", kind=kind, recurs=False)
        book = passport(lost)
        assert book is not None
        check = next(c for c in book.checks if c.title == "Other SAEs")
        assert {cell.mark for cell in check.cells.values()} == {mark}


def test_cells_out_of_reach_are_said_to_be(data: RunData) -> None:
    spec = emotion_matrix(data)
    assert spec is not None
    assert "No cell can pass on the scenes kept aside, whatever its effect" in spec.caption
    assert "the smallest p there is 0.067." in spec.caption
    able = emotion_matrix(changed(data, "validity/matrix", min_p=0.01))
    assert able is not None and "No cell can pass" not in able.caption


def test_firing_on_complex_neutral_texts_is_said(data: RunData) -> None:
    said = leads(data)["Emotion or kind of text"]
    assert said.startswith("5 of 10 confirmed features also fire on complex texts")
    tests = data.tables["validity/tests"]
    calm = tests.assign(verdict=tests.verdict.where(tests.test != "discriminant", "holds"))
    good = replace(data, tables={**data.tables, "validity/tests": calm})
    assert leads(good)["Emotion or kind of text"] == (
        "No confirmed feature of 10 surely fires on complex neutral texts; 10 surely stay down."
    )


def test_nothing_confirmed_is_said(data: RunData) -> None:
    features = data.features.assign(confirmed=False)  # type: ignore[union-attr]
    none = replace(data, features=features)
    assert "Nothing was confirmed" in leads(none)
    book = passport(none)
    assert book is not None and book.confirmed is None and book.best == ""
    assert page(none).words
    nothing = replace(data, features=features.assign(retained=False))
    assert passport(nothing) is None and "Nothing to test" in leads(nothing)


def test_tables_of_tests_count_what_they_leave_out(data: RunData) -> None:
    section = validity_section(data)
    assert section is not None
    blocks = {block.title.split(":")[0]: block for block in section.tests}
    dose = blocks["Dose"]
    assert dose.table is not None and len(dose.table.rows) == 3
    assert dose.table.caption.endswith("24 features with too few texts left out")
    assert dose.outcome == "Not shown either way for 3 and cannot be tested for 24, of 27 features."
    kind = blocks["Complex but neutral texts"].table
    assert kind is not None and len(kind.rows) == 27 and "left out" not in kind.caption


def test_other_tables(data: RunData) -> None:
    section = validity_section(data)
    assert section is not None
    assert section.dimensions is not None and len(section.dimensions.rows) == 1
    assert section.rollups is not None
    assert [c.text for c in section.rollups.rows[0].cells][-2] == "0 of 27"
    rollups = data.tables["validity/rollups"]
    passed = {**data.tables, "validity/rollups": rollups.assign(p_holm=rollups.p_fwer)}
    once = validity_section(replace(data, tables=passed))
    assert once is not None and once.rollups is not None
    assert [c.text for c in once.rollups.rows[0].cells][-2] == "1 of 27"
    assert section.transfer is not None
    carried = by_name(section.transfer.rows)
    assert [c.text for c in carried["", "rage"].cells] == ["–", "–"]
    assert [c.text for c in carried["", "grief"].cells] == ["1 of 3, 0.60"] * 2
    few = validity_section(changed(data, "validity/transfer_summary", min_p=0.1))
    assert few is not None and few.transfer is not None
    carried = by_name(few.transfer.rows)
    assert [c.text for c in carried["", "grief"].cells] == ["too few texts"] * 2
    assert (
        "none found on texts with them could be shown"
        in dict(few.leads)["With and without emotion words"]
    )
    assert section.stability is not None
    again = {row.name: row.cells[0].text for row in section.stability.rows}
    assert again == {"seed 1": "18 of 27", "seed 2": "9 of 27", "layer 9": "–"}
    assert section.shrinkage is not None and len(section.shrinkage.rows) == 9
    assert "Less than half is left for admiration" not in leads(data)["Shrinkage"]
    assert "vigilance" in leads(data)["Shrinkage"]


@pytest.mark.parametrize("name", [
    "tests", "shrinkage", "matrix", "others", "specific", "dimensions", "rollups", "transfer",
    "transfer_summary", "stability",
])  # fmt: skip
def test_any_table_may_be_absent_or_empty(data: RunData, name: str) -> None:
    table = f"validity/{name}"
    empty = replace(data, tables={**data.tables, table: data.tables[table].iloc[:0]})
    for run in (without(data, table), empty):
        assert page(run).words.startswith("What survives further tests")
        assert len(validity_figures(run)) <= 3


def test_the_class_of_the_lexical_controls_stands_in_the_passport(data: RunData) -> None:
    columns = ["contrast", "feature", "class", "why"]
    feature = int(data.features.feature.iloc[0])  # type: ignore[union-attr]
    controls = pd.DataFrame([("all", feature, "lexical", "all of it")], columns=columns)
    book = passport(replace(data, tables={**data.tables, "search/controls": controls}))
    assert book is not None and book.confirmed is not None
    assert [c.title for c in book.checks][1] == "More than words"
    cell = book.confirmed.rows[0].cells[1]
    assert (cell.mark, cell.text, cell.title) == ("fails", "lexical", "lexical: all of it")


def test_page_holds_marks_as_sign_words_and_number(data: RunData) -> None:
    got = page(data)
    classes = {c for value in got.values("class") for c in value.split()}
    assert {"mark", "holds", "fails", "open", "cannot", "sr", "passport"} <= classes
    assert "style" not in {name for _, attrs in got.tags for name in attrs}
    assert any(title.startswith("fails: +1.20") for title in got.values("title"))
    boxes = [a for tag, a in got.tags if tag == "div" and a.get("class") == "scroll"]
    assert boxes and all(a["tabindex"] == "0" and a["aria-label"] for a in boxes)
    assert sum(tag == "table" for tag, _ in got.tags) == len(boxes)


def test_hostile_names_stay_text(data: RunData) -> None:
    bad = changed(data, "validity/tests", note=HOSTILE)
    bad = changed(bad, "validity/stability", other=HOSTILE)
    got = page(bad)
    assert not {"script", "img"} & {tag for tag, _ in got.tags}
    assert "⟨U+001B⟩[31mred" in got.words
    assert not any("\x1b" in value for value in got.values("title"))


@pytest.mark.parametrize("narrow", [False, True])
def test_matrix_marks_what_the_table_corrects(data: RunData, narrow: bool) -> None:
    spec = emotion_matrix(data)
    assert spec is not None
    assert "in 3 cells on the scenes kept aside (dot) and in 24 on the discovery" in spec.caption
    with _style():
        axes = spec.draw(narrow=narrow).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    hollow = [line for line in dots if line.get_markerfacecolor() == "none"]
    assert (len(dots), len(hollow)) == (24, 21)
    assert len(axes.get_yticklabels()) == 27
    assert [t.get_text() for t in axes.texts if t.get_text() == "0.0"] == []


def test_own_against_others_is_drawn_only_with_limits(data: RunData) -> None:
    assert own_others(data) is None
    table = data.tables["validity/others"]
    wide = table.assign(low=-0.1, high=np.where(table.other == "rage", made.INF, 0.4))
    spec = own_others(replace(data, tables={**data.tables, "validity/others": wide}))
    assert spec is not None
    with _style():
        drawn = spec.draw(narrow=True).axes
    assert len(drawn) == 8
    arrows = [line for axes in drawn for line in axes.lines if line.get_marker() == ">"]
    assert len(arrows) == 7  # every emotion but rage is held against rage


def test_shrinkage_draws_every_feature_and_every_search(data: RunData) -> None:
    features = data.features.assign(confirm_d_z=data.features.d_z * 0.5)  # type: ignore[union-attr]
    spec = shrinkage(replace(data, features=features))
    assert spec is not None
    with _style():
        left, right = spec.draw(narrow=False).axes[:2]
    assert sum(len(c.get_offsets()) for c in left.collections) == 60
    assert {t.get_text() for t in right.texts} == {"any emotion", *EMOTIONS}


def test_labels_keep_order_and_distance() -> None:
    values = np.array([0.5, 0.1, 0.11, 0.49])
    placed = _apart(values, 0.1)
    assert np.array_equal(np.argsort(placed), np.argsort(values))
    assert np.all(np.diff(np.sort(placed)) >= 0.1 - 1e-12)
    assert _apart(np.array([]), 0.1).shape == (0,)


def test_same_tables_same_bytes(data: RunData) -> None:
    spec = shrinkage(data)
    assert spec is not None
    with _style():
        drawn = {to_bytes(spec.draw(narrow=True), "svg") for _ in range(2)}
    assert len(drawn) == 1
    template = _environment().get_template("validity.html.j2")
    once, again = (
        template.render(validity=validity_section(data), figures={}, data=data) for _ in range(2)
    )
    assert once == again


def test_missing_bounds_are_named() -> None:
    assert interval(-made.INF, made.INF) == "(no bounds)"
    assert interval(float("nan"), 1.0) == ""
    assert interval(0.1, made.INF) == "(+0.10 to –)"


def test_the_same_search_in_other_saes(data: RunData) -> None:
    rows = [
        {"sae": sae, "kind": kind, "hook_name": "blocks.18.hook_resid_post", "layer": 18,
         "architecture": "topk", "d_sae": 64, "k": 8.0, "l0": 8.0, "seed": 0.0,
         "n_samples": 1000.0, "misfits": "", "contrast": contrast, "n_tested": 50, "n_fwer": 4,
         "n_retained": 3, "n_confirmed": 2, "first_auroc": 0.8, "first_d_z": 1.0,
         "best_auroc": 0.9, "best_d_z": 1.2, "n_sought": 0 if kind == "own" else 3,
         "n_recur": np.nan if kind == "own" else 1.0, "base_recur": 0.2,
         "median_correlation": 0.5, "base_correlation": 0.3, "n_match_retained": 1,
         "n_match_confirmed": 1}
        for sae, kind in (("this SAE", "own"), ("seed 1", "seed"))
        for contrast in ("all", "grief", "rage")
    ]  # fmt: skip
    table = made.checked(pd.DataFrame(rows), COMPARISON_COLUMNS)
    section = validity_section(replace(data, tables={"validity/comparison": table}))
    assert section is not None and section.comparison is not None and section.stability is None
    shown = [(row.name, row.below, [c.text for c in row.cells]) for row in section.comparison.rows]
    assert shown[0][2] == ["any emotion", "50", "4", "2 of 3", "0.80", "–", "–"]
    assert shown[3][:2] == ("seed 1", "another seed, layer 18")
    assert shown[3][2] == ["single emotions", "50", "8", "4 of 6", "0.80", "2 of 6", "20%"]
