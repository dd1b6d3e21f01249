"""Calibration and null SAEs: rates with limits, power, and what follows in plain words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_validity as made

from affectlens.features.calibration_columns import (
    DETECTABLE_COLUMNS,
    POWER_COLUMNS,
    RATES_COLUMNS,
)
from affectlens.features.null_columns import NULL_COLUMNS, NULL_LATENT_COLUMNS
from affectlens.features.validation_records import CalibrationSummary
from affectlens.report.build import _environment
from affectlens.report.calibration import calibration_section
from affectlens.report.calibration_figures import (
    _places,
    calibration_figures,
    error_rates,
    power_curves,
)
from affectlens.report.loading import RunData
from affectlens.report.nulls import nulls_section
from affectlens.report.passport import passport
from affectlens.report.theme import _style


def rates(outside: tuple[str, ...] = ()) -> pd.DataFrame:
    rows = [
        {"null": null, "contrast": contrast, "measure": measure, "n_sets": 30, "n_latents": 150.0,
         "rate": 0.3 if null in outside else 0.0, "low": 0.15 if null in outside else 0.0,
         "high": 0.49 if null in outside else 0.12, "allowed": 0.05, "p_excess": 0.5,
         "verdict": "outside" if null in outside else "inside"}
        for null in ("flip_cluster", "labels_cluster", "neutral_pair")
        for contrast in (("all",) if null == "flip_cluster" else ("grief", "rage", "family"))
        for measure in ("fwer", "confirmed")
    ]  # fmt: skip
    return made.checked(pd.DataFrame(rows), RATES_COLUMNS)


def power() -> pd.DataFrame:
    rows = [
        {"contrast": contrast, "d_z": d_z, "n_pairs": pairs, "n_clusters": pairs / 4,
         "n_pairs_discovery": pairs * 2 / 3, "n_clusters_discovery": pairs / 6, "n_sets": 12,
         "n_latents": 150.0, "n_planted": 20.0, "reached_d_z": d_z, "measure": f"{kind}_{name}",
         "value": min(1.0, d_z) if kind == "recall" else 0.04, "low": 0.0, "high": 1.0}
        for contrast, sizes in (("all", (192.0, 96.0)), ("emotion", (24.0,)))
        for pairs in sizes
        for d_z in (0.3, 0.8, 1.6)
        for kind in ("recall", "fdr")
        for name in ("fwer", "confirmed")
    ]  # fmt: skip
    return made.checked(pd.DataFrame(rows), POWER_COLUMNS)


def detectable() -> pd.DataFrame:
    rows = [
        {"contrast": contrast, "n_pairs_discovery": pairs, "n_clusters_discovery": pairs / 4,
         "criterion": name, "detectable": made.INF if name == "confirmed" else 0.8,
         "formula": 0.71 if contrast == "all" and name == "fwer" else np.nan, "icc": np.nan}
        for contrast, pairs in (("all", 128.0), ("all", 64.0), ("emotion", 16.0))
        for name in ("fwer", "confirmed")
    ]  # fmt: skip
    return made.checked(pd.DataFrame(rows), DETECTABLE_COLUMNS)


SUMMARY = CalibrationSummary(
    n_pairs=192, n_clusters=48, n_tested=4087, n_latents=150, n_repeats=30, n_planted=12,
    n_permutations=499, alpha=0.05, unit="cluster", unit_emotion="cluster", effects=[0.3, 0.8],
    n_rates=14, n_outside=0, outside=[], skipped={"labels_pair": "clusters change as a whole"},
    seed=0,
)  # fmt: skip


def run(outside: tuple[str, ...] = ()) -> RunData:
    names = {"rates": rates(outside), "power": power(), "detectable": detectable()}
    tables = {f"calibration/{name}": table for name, table in names.items()}
    return RunData(Path(), tables=tables, calibration_summary=SUMMARY)


def page(data: RunData, name: str) -> made.Fragment:
    sections = {"calibration": calibration_section(data), "nulls": nulls_section(data)}
    template = _environment().get_template(f"{name}.html.j2")
    return made.Fragment(template.render(**sections, figures={}, data=data))


@pytest.mark.parametrize(("name", "command"), [("calibration", "calibrate"), ("nulls", "nulls")])
def test_absence_is_said(name: str, command: str) -> None:
    words = page(RunData(Path()), name).words
    assert f"This stage has not been run: affectlens {command} RUN." in words
    assert calibration_figures(RunData(Path())) == []


def test_rates_that_hold() -> None:
    section = calibration_section(run())
    assert section is not None and section.outside is None
    said = dict(section.leads)
    assert said["False alarms"].startswith("None of 14 error rates on data without any effect is")
    assert "not one false alarm still allows a rate of 12%" in said["False alarms"]
    assert "150 of 4,087 features" in said["How"] and "499 permutations" in said["How"]
    assert said["What can be seen"] == (
        "Found four times in five: for any emotion d_z 0.80 (max-T) and not even 1.60 "
        "(confirmed); for a single emotion d_z 0.80 (max-T) and not even 1.60 (confirmed)."
    )
    skipped = (("emotions dealt anew, by pair", "Clusters change as a whole."),)
    assert section.skipped == skipped


def test_rates_that_are_too_high_are_named() -> None:
    section = calibration_section(run(("labels_cluster", "neutral_pair")))
    assert section is not None and section.outside is not None and section.rates is not None
    marks = [row.cells[-1].mark for row in section.rates.rows]
    assert (marks.count("fails"), marks.count("open")) == (12, 2)
    assert (len(section.outside.rows), len(section.rates.rows)) == (12, 14)
    said = dict(section.leads)["False alarms"]
    assert "12 of 14 error rates on data without any effect are shown to be too high" in said
    assert "emotions dealt anew, by scene group (grief, rage and all searches together)" in said
    assert "scatter more" not in said
    only = calibration_section(run(("neutral_pair",)))
    assert only is not None and "scatter more" in dict(only.leads)["False alarms"]
    got = page(run(("neutral_pair",)), "calibration")
    assert "Above allowed" in got.words and "30% (15% to 49%)" in got.words


def test_detectable_effects_in_a_table() -> None:
    section = calibration_section(run())
    assert section is not None and section.detectable is not None and section.false is not None
    rows = [[c.text for c in row.cells] for row in section.detectable.rows]
    assert rows[0] == ["128", "32", "0.80", "–", "none", "0.71"]
    assert rows[-1] == ["16", "4", "0.80", "–", "none", "–"]
    assert [c.text for c in section.false.rows[0].cells[:2]] == ["max-T", "4.0%"]


def test_calibration_without_power_or_rates() -> None:
    data = run()
    for kept in ("rates", "power"):
        tables = {f"calibration/{kept}": data.tables[f"calibration/{kept}"]}
        assert page(replace(data, tables=tables, calibration_summary=None), "calibration").words


@pytest.mark.parametrize("narrow", [False, True])
def test_every_rate_is_drawn_and_those_outside_crossed(narrow: bool) -> None:
    spec = error_rates(run(("neutral_pair",)))
    assert spec is not None and "(6 of 14)" in spec.caption
    with _style():
        panels = spec.draw(narrow=narrow).axes
    assert len(panels) == 2
    drawn = {
        marker: sum(
            len(line.get_xdata()) for line in panels[0].lines if line.get_marker() == marker
        )
        for marker in ("o", "s", "X")
    }
    assert drawn == {"o": 3, "s": 1, "X": 3}


def test_rates_of_a_null_stand_below_each_other_in_its_row() -> None:
    table = rates()
    own = table[table.measure == "fwer"]
    at = _places(own, ["flip_cluster", "labels_cluster", "neutral_pair"])
    assert at[own.null == "flip_cluster"].tolist() == [0.0]
    inside = at[own.null == "labels_cluster"].to_numpy()
    assert np.all(np.abs(inside - 1) < 0.5) and len(set(inside)) == 3


def test_power_has_a_panel_a_criterion_and_a_line_a_size() -> None:
    spec = power_curves(run())
    assert spec is not None
    with _style():
        panels = [a for a in spec.draw(narrow=False).axes if a.get_visible()]
    assert [a.get_title(loc="left") for a in panels] == [
        "any emotion, max-T", "any emotion, confirmed", "one emotion, max-T",
        "one emotion, confirmed",
    ]  # fmt: skip
    names = [t.get_label() for t in panels[0].lines if not t.get_label().startswith("_")]
    assert names == ["192 pairs, 48 scene groups", "96 pairs, 24 scene groups"]


def null_tables(confirmed: dict[str, int]) -> dict[str, pd.DataFrame]:
    rows = [
        {"sae": sae, "model": "m", "hook": "blocks.3.hook_resid_post", "pooling": pooling,
         "contrast": contrast, "status": "searched" if searched else "reads equal tokens",
         "n_samples": 1000.0, "d_sae": 64, "fvu": 0.3, "l0": 8.0, "dead_share": 0.1,
         "n_tested": 50.0 if searched else np.nan, "n_significant_fwer": 2.0,
         "n_retained": 3.0, "n_confirmed": n if contrast == "all" and searched else 0.0,
         "best_feature": 1.0, "best_d_z": 0.9, "best_confirm_d_z": 0.8,
         "best_confirm_auroc": 0.8, "max_confirm_d_z": 0.8, "remark": "read with care"}
        for sae, n in confirmed.items()
        for pooling in ("suffix", "mean")
        for searched in [not (sae == "embedding" and pooling == "suffix")]
        for contrast in ("all", "grief")
    ]  # fmt: skip
    return {"search/nulls": made.checked(pd.DataFrame(rows), NULL_COLUMNS)}


def null_latents(features: list[int], n_others: int) -> pd.DataFrame:
    rows = [
        {"contrast": "all", "feature": feature, "pooling": "suffix", "confirmed": True,
         "confirm_d_z": 1.0, "sae": sae, "n_others": n_others, "n_reaching": i,
         "share_reaching": i / n_others, "p_null": (1 + i) / (1 + n_others)}
        for i, feature in enumerate(features)
        for sae in ("same budget", "random-model")
    ]  # fmt: skip
    return made.checked(pd.DataFrame(rows), NULL_LATENT_COLUMNS)


@pytest.mark.parametrize(
    ("random", "sentence"),
    [
        (0, "Where there is nothing learned, nothing was confirmed."),
        (2, "So a part of such findings is there without anything learned."),
        (9, "So confirmation alone is no sign of anything that the model has learned."),
    ],
)
def test_nulls_are_set_beside_this_sae(random: int, sentence: str) -> None:
    tables = null_tables({"this SAE": 5, "random-model": random, "embedding": 0})
    data = RunData(Path(), tables=tables)
    section = nulls_section(data)
    assert section is not None and sentence in section.lead
    assert "“suffix”: 5 findings confirmed in this SAE" in section.lead
    assert f"{random} in a model with random weights" in section.lead
    words = page(data, "nulls").words
    assert "reads equal tokens" in words and "read with care" in words
    assert len(section.table.rows) == 12


def test_features_beyond_the_nulls_are_counted(positive: RunData) -> None:
    own = positive.features[(positive.features.contrast == "all") & positive.features.confirmed]  # type: ignore[index,union-attr]
    features = [int(f) for f in own.feature][:3]
    tables = null_tables({"this SAE": 5, "random-model": 1})
    for n_others, marks in ((20, ["holds", "open", "open"]), (3, ["cannot"] * 3)):
        latents = null_latents(features, n_others)
        data = replace(positive, tables={**tables, "search/null_latents": latents})
        section, book = nulls_section(data), passport(data)
        assert section is not None and section.reached is not None
        assert {row.cells[2].text for row in section.reached.rows} == {"1 of 3"}
        assert book is not None and book.confirmed is not None
        assert book.checks[-1].title == "Null SAEs"
        assert [row.cells[-1].mark for row in book.confirmed.rows[:3]] == marks
