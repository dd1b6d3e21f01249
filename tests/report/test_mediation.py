from dataclasses import replace

import pandas as pd

from affectlens.report.damage import damage_view
from affectlens.report.loading import RunData
from affectlens.report.mediation import mediation_view, share_through


def _with(data: RunData, name: str, table: pd.DataFrame) -> RunData:
    return replace(data, tables={**data.tables, name: table})


def test_above_random_needs_the_interval_and_every_random_set(causal: RunData) -> None:
    table = causal.tables["effects/mediation"]
    own, above = share_through(table, "necessity")
    assert len(own) == 7 and len(above) == 7
    rival = (table.arm == "random") & (table.emotion == "grief")
    beaten = table.assign(value=table.value.mask(rival & (table["set_index"] == 2), 0.9))
    assert "grief" not in set(share_through(beaten, "necessity")[1].emotion)
    wide = table.assign(value_low=table.value_low.mask(table.emotion == "rage", -0.1))
    assert "rage" not in set(share_through(wide, "necessity")[1].emotion)


def test_the_view_says_what_has_no_value_and_why(causal: RunData) -> None:
    view = mediation_view(causal)
    assert view is not None
    assert view.reasons == (("vigilance", "the interval of the denominator, -0.3 to 0.3, holds 0"),)
    row = next(r for r in view.table.rows if r.name == "vigilance")
    assert row.cells[0].text == "no value" and "holds 0" in row.cells[0].title
    leads = dict(view.leads)
    assert "median over 7 emotions" in leads["Through the features"]
    assert "0.35 of the difference is still there" in leads["What the SAE misses"]
    first = view.table.rows[0]
    assert first.below == "5 features" and "random" in first.cells[0].below


def test_nothing_through_the_features_is_said_of_no_emotion(causal_null: RunData) -> None:
    view = mediation_view(causal_null)
    assert view is not None
    assert "for no emotion its interval lies above 0" in view.leads[0][1]


def test_no_value_at_all(causal: RunData) -> None:
    table = causal.tables["effects/mediation"].assign(value=float("nan"))
    view = mediation_view(_with(causal, "effects/mediation", table))
    assert view is not None
    assert view.leads == (("Through the features", "No share could be measured for any emotion."),)


def test_damage_is_shown_or_not_shown_never_absent(causal: RunData) -> None:
    view = damage_view(causal)
    assert view is not None
    assert "8 of 16 edits are shown to do no more damage than the margins allow" in view.line
    assert "For the other 8 it is not shown, which by itself is no proof of harm" in view.line
    assert "for 8 the loss is shown to change by more than its margin" in view.line
    words = {cell.text for row in view.table.rows for cell in row.cells if cell.mark}
    assert words == {"shown", "not shown"}
    table = causal.tables["effects/damage"].assign(no_damage=False, ce_low=0.0, ce_high=0.1)
    none = damage_view(_with(causal, "effects/damage", table))
    assert none is not None
    assert "none of 16 edits is shown" in none.line and "no proof of harm." in none.line


def test_without_the_tables_nothing_is_shown(positive: RunData) -> None:
    assert mediation_view(positive) is None and damage_view(positive) is None
