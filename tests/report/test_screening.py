from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from affectlens.report.loading import RunData
from affectlens.report.screening import overlap_sentence, overlaps, screen_view


def _ranked(contrast: str, ranks: list[float], per_norm: list[float]) -> pd.DataFrame:
    n = len(ranks)
    return pd.DataFrame(
        {
            "contrast": contrast,
            "feature": np.arange(n) + 100,
            "input_rank": ranks,
            "clamp_per_norm": per_norm,
        }
    )


def test_both_sides_by_hand() -> None:
    # 40 latents: the leading ten by input are 100 to 109; by output 105 to 114.
    ranks = [float(i + 1) for i in range(40)]
    per_norm = [1.0 if 5 <= i < 15 else 0.1 - 0.01 * i for i in range(40)]
    table = pd.concat([_ranked("all", ranks, per_norm), _ranked("grief", ranks, per_norm)])
    every, grief = overlaps(table)
    assert every.contrast == "all"
    assert grief.by_input == tuple(range(100, 110))
    assert set(grief.by_output) == set(range(105, 115))
    assert grief.both == (105, 106, 107, 108, 109)
    assert grief.expected == pytest.approx(10 * 10 / 40)
    said = overlap_sentence([every, grief])
    assert "Of the 10 leading latents by response (10 an emotion, 1 emotion) 5 are also" in said
    assert "would share 2.5." in said


def test_a_latent_without_rank_or_that_lowers_leads_on_no_output_side() -> None:
    table = _ranked("grief", [1.0, 2.0, float("nan")], [-0.5, 0.2, 9.0])
    (found,) = overlaps(table)
    assert found.by_input == (100, 101) and found.by_output == (101,) and found.n_ranked == 2


def test_nothing_shared_is_said_plainly(causal_null: RunData) -> None:
    table = causal_null.tables["search/screen"].copy()
    table["clamp_per_norm"] = np.where(table.input_rank > 20, table.input_rank, -1.0)
    data = replace(causal_null, tables={**causal_null.tables, "search/screen": table})
    view = screen_view(data)
    assert view is not None
    assert "80 leading latents by response (10 an emotion, 8 emotions) none is" in view.leads[0][1]
    assert "tests nothing" in view.leads[0][1]


def test_the_section_shows_agreement_with_interval_and_n(causal: RunData) -> None:
    view = screen_view(causal)
    assert view is not None and view.agreement is not None
    row = view.agreement.rows[0]
    assert row.name == "Any emotion" and len(row.cells) == 4
    assert row.cells[0].text == "0.93"
    assert row.cells[0].below == "0.73\xa0to\xa00.95, n\xa0=\xa010"
    assert "Spearman" in row.cells[0].title
    leads = dict(view.leads)
    assert "median r 0.93" in leads["Can the estimates be trusted?"]
    assert "4,553 live latents estimated on 24 discovery pairs" in leads["How it was made"]


def test_leaders_tell_measured_from_estimated(causal: RunData) -> None:
    view = screen_view(causal)
    assert view is not None
    block = view.blocks[0]
    assert block.title == "Any emotion" and 5 <= len(block.table.rows) <= 10
    cells = [row.cells[3] for row in block.table.rows]
    assert {c.title for c in cells} <= {"measured", "not measured, only estimated"}
    assert all((c.text == "–") == c.title.startswith("not") for c in cells)


def test_what_could_not_be_read_or_scored_is_named(causal: RunData) -> None:
    assert causal.screen_summary is not None
    summary = replace(causal.screen_summary, unread={"awe": "no words"}, unscored="no unembedding")
    view = screen_view(replace(causal, screen_summary=summary))
    assert view is not None
    made = dict(view.leads)["How it was made"]
    assert "Not read: awe: no words." in made and "No output scores: no unembedding." in made


def test_no_screen_no_section(positive: RunData) -> None:
    assert screen_view(positive) is None
