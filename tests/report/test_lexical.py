from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from affectlens.report.build import render_page
from affectlens.report.classes import counts, feature_classes, reason, spread, strict_lines
from affectlens.report.contrasts import contrast_blocks
from affectlens.report.figures_lexical import lexical_figure
from affectlens.report.lexical import lexical_section
from affectlens.report.loading import RunData
from affectlens.report.theme import _style, to_bytes


def _with(data: RunData, name: str, table: pd.DataFrame) -> RunData:
    return replace(data, tables={**data.tables, name: table})


def test_classes_by_contrast_and_feature(validated: RunData) -> None:
    table = validated.tables["search/controls"]
    found = feature_classes(validated)
    assert len(found) == len(table)
    first = table.iloc[0]
    got = found[("all", int(first.feature))]
    assert got.kind == first["class"]
    assert dict(got.outcomes) == {
        "affectlens-balanced": "not shown",
        "affectlens-isolexical": "low power",
    }
    assert "pairs of equal words: affectlens-balanced not shown" in got.strict


def test_reasons_use_the_numbers_of_the_page() -> None:
    said = "word order (p=0.006) and stays (p=0.0198, shared tokens p=3e-05; R2 0.23)."
    assert reason(said) == (
        "word order (p = 0.0060) and stays (p = 0.020, shared tokens p = 3.0×10⁻⁵; R² 0.23)."
    )
    assert reason("at least -0.22, TF-IDF") == "at least −0.22, TF-IDF"
    assert reason("Ends in p=0.5.") == "Ends in p = 0.50."


def test_the_level_of_the_run_decides_what_changes(validated: RunData) -> None:
    assert validated.controls_summary is not None
    strict = replace(validated, controls_summary=replace(validated.controls_summary, alpha=0.001))
    section = lexical_section(strict)
    assert section is not None and section.grains is not None
    assert "p ≤ 0.001" in section.grains.heads[2].unit


def test_only_confirmed_features_are_counted(validated: RunData) -> None:
    assert counts(validated, "all") == {
        "contextual": 2,
        "lexical": 2,
        "mixed": 2,
        "unsupported": 0,
    }


def test_without_controls_nothing_is_said(positive: RunData) -> None:
    assert feature_classes(positive) == {} and counts(positive, "all") == {}
    assert lexical_section(positive) is None and lexical_figure(positive) is None
    assert strict_lines(positive) == []
    assert all(row.verdict is None for block in contrast_blocks(positive) for row in block.rows)


def test_every_candidate_has_a_row_with_its_numbers(validated: RunData) -> None:
    section = lexical_section(validated)
    assert section is not None
    assert sum(len(b.table.rows) for b in section.blocks) == 180
    row = section.blocks[0].table.rows[0]
    assert len(row.cells) == len(section.blocks[0].table.heads) - 1
    assert row.badge == "contextual" and row.below.startswith("Words carry it")
    last = section.blocks[0].table.rows[-1]
    assert last.badge == "unsupported" and last.below == ""


def test_the_lines_name_the_classes_and_the_strict_pairs(validated: RunData) -> None:
    section = lexical_section(validated)
    assert section is not None
    words = " ".join(section.lines)
    assert "6 confirmed features for any emotion: 2 contextual, 2 mixed and 2 lexical." in words
    assert "7 confirmed features for single emotions" in words
    assert "the effect of 0 of 13 confirmed features holds (13 could have shown it" in words
    assert "none was shown to tell emotion apart" in words


def test_a_feature_that_holds_on_equal_words_is_counted_once(validated: RunData) -> None:
    strict = validated.tables["search/strict"].copy()
    feature = validated.tables["search/controls"].iloc[0].feature
    strict.loc[(strict.contrast == "all") & (strict.feature == feature), "outcome"] = "holds"
    (line,) = strict_lines(_with(validated, "search/strict", strict), ["all"])
    assert "effect of 1 of 6 confirmed features holds" in line and "So none" not in line


def test_what_could_not_be_tested_says_why(validated: RunData) -> None:
    section = lexical_section(validated)
    assert section is not None
    gaps = " ".join(section.gaps)
    assert "Shared words: all 180 candidates: not applicable: equal tokens" in gaps
    assert "active (or silent) in too few passages" in gaps
    assert "cannot tell a need for meaning from a need for fluent text" in gaps
    assert "Battery affectlens-isolexical: too few pairs" in gaps
    assert "3 pairs left out" in gaps


def test_nothing_confirmed_leaves_nothing_to_explain(validated: RunData) -> None:
    table = validated.tables["search/controls"].assign(confirmed=False, **{"class": "unsupported"})
    data = _with(validated, "search/controls", table)
    section = lexical_section(data)
    assert section is not None and "No feature was confirmed" in section.lines[0]
    assert section.grains is None and lexical_figure(data) is None


def test_no_candidate_at_all(validated: RunData) -> None:
    data = validated
    for name in ("search/controls", "search/control_grains", "search/strict"):
        data = _with(data, name, data.tables[name].iloc[:0])
    section = lexical_section(data)
    assert section is not None and section.blocks == () and section.gaps[-1].startswith("Shuffling")
    assert "Is it the words?" in render_page(data, {})


@pytest.mark.parametrize("narrow", [True, False])
def test_the_figure_draws_values_beyond_its_edges_and_gaps(
    validated: RunData, *, narrow: bool
) -> None:
    table = validated.tables["search/controls"].copy()
    at = table.index[table.confirmed]
    table.loc[at[0], ["kept", "kept_low", "kept_high"]] = [40.0, np.nan, np.nan]
    table.loc[at[1], ["kept", "predicted"]] = [-9.0, np.nan]
    spec = lexical_figure(_with(validated, "search/controls", table))
    assert spec is not None
    with _style():
        assert b"<svg" in to_bytes(spec.draw(narrow=narrow), "svg")


def test_the_class_stands_in_the_feature_table(validated: RunData) -> None:
    block = contrast_blocks(validated)[0]
    kinds = {row.verdict.kind for row in block.rows if row.verdict and row.confirmed}
    assert kinds == {"contextual", "mixed", "lexical"}
    assert "2 contextual" in block.summary
    page = render_page(validated, {})
    assert 'class="badge kind-lexical">lexical' in page


def test_spread_without_an_interval() -> None:
    nan = float("nan")
    assert spread(0.5, nan, nan) == "0.50"
    assert spread(nan, 0.1, 0.2) == "–"
    assert spread(0.5, -0.1, 0.9) == "0.50 (−0.10\xa0to\xa00.90)"
