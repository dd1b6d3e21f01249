from dataclasses import replace

import pandas as pd

from affectlens.features.baseline_columns import METHODS
from affectlens.report.baselines import (
    NAMES,
    against,
    baselines_section,
    remark,
    verdicts_on,
)
from affectlens.report.build import render_page
from affectlens.report.figures_baselines import baselines_figure
from affectlens.report.loading import RunData
from affectlens.report.theme import _style, to_bytes

TABLE = "search/baselines"


def _with(data: RunData, table: pd.DataFrame) -> RunData:
    return replace(data, tables={**data.tables, TABLE: table})


def test_without_baselines_nothing_is_said(positive: RunData) -> None:
    assert baselines_section(positive) is None and baselines_figure(positive) is None
    assert against(positive, "all", "tfidf_words") is None
    assert verdicts_on(positive, "tfidf_words") == {}
    page = render_page(positive, {})
    assert "What simpler methods reach" in page and "affectlens baselines RUN" in page


def test_every_method_is_named() -> None:
    assert set(NAMES) == set(METHODS)


def test_where_the_sae_adds_nothing_is_said_first(validated: RunData) -> None:
    section = baselines_section(validated)
    assert section is not None
    first = section.lines[0]
    assert "the best single feature reaches AUROC 0.72 (0.67\xa0to\xa00.77)" in first
    assert "dense probe on the activations (0.95)" in first
    assert "words alone (TF-IDF) (0.90)" in first
    assert "the SAE adds nothing" in first


def test_where_nothing_reaches_the_feature(validated: RunData) -> None:
    table = validated.tables[TABLE].copy()
    table.loc[table.method != "sae_latent", "verdict"] = "SAE latent better"
    section = baselines_section(_with(validated, table))
    assert section is not None
    assert "No method without the SAE reaches as much." in section.lines[0]
    assert "less well for 8 (rage, grief" in section.lines[1]


def test_too_few_scene_groups_are_no_lead_over_other_methods(validated: RunData) -> None:
    table = validated.tables[TABLE].copy()
    table.loc[table.method != "sae_latent", "verdict"] = "too few clusters"
    section = baselines_section(_with(validated, table))
    assert section is not None
    assert "No method without the SAE" not in section.lines[0]
    assert "Too few scene groups to say: dense probe" in section.lines[0]


def test_no_difference_shown_is_not_called_equality(validated: RunData) -> None:
    table = validated.tables[TABLE].copy()
    table.loc[table.method != "sae_latent", "verdict"] = "not distinguishable"
    section = baselines_section(_with(validated, table))
    assert section is not None
    assert "with no difference shown for 8 of 8 emotions" in section.lines[1]
    said = remark(_with(validated, table), "grief")
    assert "words alone is not shown to separate them better or worse (AUROC 0.90)" in said


def test_topics_and_boundary_intervals_are_noted(validated: RunData) -> None:
    table = validated.tables[TABLE]
    section = baselines_section(_with(validated, table))
    assert section is not None
    assert "their topic helps words and probes" in " ".join(section.notes)
    assert "1.00 to 1.00" not in " ".join(section.notes)
    whole = baselines_section(_with(validated, table.assign(low=1.0, high=1.0)))
    assert whole is not None and "1.00 to 1.00" in " ".join(whole.notes)
    alone = baselines_section(_with(validated, table[table.target == "all"]))
    assert alone is not None and "share topics" not in " ".join(alone.notes)


def test_the_evaluation_with_intervals_leads_and_the_other_stands_beside(
    validated: RunData,
) -> None:
    section = baselines_section(validated)
    assert section is not None and len(section.blocks) == 9
    grief = next(b for b in section.blocks if b.title == "Grief")
    row = next(r for r in grief.table.rows if r.name == f"{NAMES['tfidf_words']} · text")
    texts = [c.text for c in row.cells]
    assert texts[0] == "0.90 (0.85\xa0to\xa00.95)"
    assert texts[3] == "▲ above"
    assert texts[4] == "0.90"
    reference = grief.table.rows[0]
    assert reference.cells[2].text == "–" and reference.cells[3].text == "reference"


def test_confirmation_alone_gives_no_verdict_for_emotions(validated: RunData) -> None:
    table = validated.tables[TABLE]
    section = baselines_section(_with(validated, table[table.evaluated_on == "confirmation"]))
    assert section is not None
    assert "too few scene groups to say for 8 of 8 emotions" in section.lines[1]
    assert {c.text[-1] for c in section.overview.rows[1].cells} <= set("0123456789")


def test_a_target_that_the_folds_could_not_test_is_shown_from_confirmation(
    validated: RunData,
) -> None:
    table = validated.tables["search/baselines"]
    target = next(t for t in table["target"].unique() if t != "all")
    left = table[(table["target"] != target) | (table["evaluated_on"] == "confirmation")]
    section = baselines_section(_with(validated, left))
    assert section is not None
    (block,) = (b for b in section.blocks if b.title.lower() == target)
    assert block.table.rows


def test_equal_tokens_are_named_as_the_reason_for_chance_at_the_embedding(
    validated: RunData,
) -> None:
    section = baselines_section(validated)
    assert section is not None
    assert "0.50 by construction" in " ".join(section.notes)
    assert "2 pairs left out (folds)" in " ".join(section.notes)


def test_random_weights_stand_in_the_table_if_they_were_read(validated: RunData) -> None:
    section = baselines_section(validated)
    assert section is not None
    names = [r.name for r in section.blocks[0].table.rows]
    assert "dense probe, random weights · layer 18" in names
    unknown = validated.tables[TABLE].replace({"method": {"single_neuron": "a new method"}})
    section = baselines_section(_with(validated, unknown))
    assert section is not None
    assert "a new method · layer 18" in [r.name for r in section.blocks[0].table.rows]


def test_the_figure_has_a_panel_for_all_and_one_for_the_emotions(validated: RunData) -> None:
    spec = baselines_figure(validated)
    assert spec is not None
    for narrow in (True, False):
        with _style():
            figure = spec.draw(narrow=narrow)
            assert b"<svg" in to_bytes(figure, "svg")
        titles = [a.get_title(loc="left") for a in figure.axes]
        assert "n = 48 pairs" in titles[0] and "n = 8 emotions" in titles[1]


def test_one_target_alone_gives_one_panel(validated: RunData) -> None:
    table = validated.tables[TABLE]
    spec = baselines_figure(_with(validated, table[table.target == "all"]))
    assert spec is not None
    with _style():
        assert len(spec.draw(narrow=False).axes) == 1
