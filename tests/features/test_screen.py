"""The screen: a planted latent, estimates against measurements, what is kept, selection, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats

from affectlens.data.errors import ArtifactError, ConfigError, ModelError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, load_battery, make_battery
from affectlens.features.choosing import select
from affectlens.features.config import SearchConfig
from affectlens.features.jobs import Job
from affectlens.features.measure import Meter
from affectlens.features.readouts import Readout, build_readout
from affectlens.features.results import Context, read_table
from affectlens.features.screen import screen
from affectlens.features.screen_agreement import agreement
from affectlens.features.screen_columns import AGREEMENT_COLUMNS, SCREEN_COLUMNS
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.screened import Screen, read_screen, with_screen
from affectlens.features.search import SearchResult, search
from affectlens.features.specs import Ablate, Clamp
from affectlens.sae.model import SparseAutoencoder

from .made_saes import planted_lm, planted_rows, topk_sae
from .steered_model import D_SAE, DEAD, PLANTED, planted_stats

WORDS = {
    "grief": ("tears", "loss", "sorrow"),
    "rage": ("wrath", "fury", "anger"),
    "calm": ("quiet", "still", "even"),
}
CONFIG = ScreenConfig(
    max_pairs=4, n_top=6, n_random=8, n_steps=4, n_candidates=12, n_prefixes=6, n_bootstrap=200
)


Study = tuple[LanguageModel, SparseAutoencoder, Battery, SearchResult, Readout]


@pytest.fixture(scope="module")
def study() -> Study:
    lm, direction = planted_lm(sum(WORDS.values(), ()), WORDS["grief"], gain=4.0, last=0.2)
    sae = topk_sae(lm, planted_rows(D_SAE, direction, PLANTED))
    places = [f"{e}/{d}" for e in ("grief", "rage") for d in "123"]
    whole = load_battery().select(clusters=places, limit=12)
    # One token is one byte here: the first words of a text are enough.
    items = [
        replace(i, text=" ".join(i.text.split()[:12]) + f" {n}.", word_count=13)
        for n, i in enumerate(whole.items)
    ]
    battery = make_battery("short", items, "a test")
    config = SearchConfig(n_permutations=200, min_items=1, n_retained=3)
    found = search(lm, sae, battery, config)
    contexts = (Context(PLANTED, "d", 0, 1, ["a", " tears"], [0.0, 2.0]),)
    found = replace(found, stats=planted_stats(), contexts=contexts)
    return lm, sae, battery, found, build_readout(lm, WORDS, ("\nIt felt",))


@pytest.fixture(scope="module")
def done(study: Study) -> Screen:
    *inputs, readout = study
    return screen(*inputs, CONFIG, readout=readout, quiet=True)


def test_the_planted_latent_is_first_in_everything(done: Screen) -> None:
    rows = done.of("grief")
    for column in ("attribution_clamp", "exact_clamp", "clamp_per_norm", "output_score"):
        values = rows[column].dropna()
        assert values.idxmax() == PLANTED, column
        assert values.drop(PLANTED).abs().max() < 0.6 * values[PLANTED], column
    assert rows.loc[PLANTED, "verified_clamp"] in ("top", "both")
    assert rows.loc[PLANTED, "input_score"] == 1
    assert done.of("rage").loc[PLANTED, "exact_clamp"] < 0


def test_measured_effects_are_those_of_the_edits(study: Study, done: Screen) -> None:
    lm, sae, battery, found, readout = study
    discovery = [c for c, part in found.parts.items() if part == "discovery"]
    pairs = battery.select(clusters=discovery, limit=CONFIG.max_pairs).pairs
    assert done.summary.n_pairs == len(pairs) == 4
    own = [p.clinical.text for p in pairs if p.emotion == "grief"]
    column = readout.names.index("grief")
    rows = done.of("grief")
    ablated = Meter(lm, sae, own, readout)
    clamped = Meter(lm, sae, [p.neutral.text for p in pairs], readout)
    for feature in rows.index[rows["verified_ablate"] != ""][:4]:
        by_hand = ablated.measure(Job([Ablate((int(feature),))])).effect[:, column].mean()
        assert rows.loc[feature, "exact_ablate"] == pytest.approx(by_hand, abs=1e-5)
    for feature in rows.index[rows["verified_clamp"] != ""][:4]:
        value = float(found.stats.loc[feature, "max_active"])
        measured = clamped.measure(Job([Clamp((int(feature),), (value,))]))
        assert rows.loc[feature, "exact_clamp"] == pytest.approx(
            measured.effect[:, column].mean(), abs=1e-5
        )
    maxima = found.stats.set_index("feature")["max_active"]
    np.testing.assert_allclose(rows["clamp_norm"], maxima[rows.index], rtol=1e-6)  # unit rows


def test_estimates_are_shrunk_to_compare_with_measurements(done: Screen) -> None:
    rows = done.of("grief")
    known = rows[rows["exact_clamp"].notna()]
    slope = np.linalg.lstsq(
        known[["attribution_clamp"]].to_numpy(), known["exact_clamp"].to_numpy(), rcond=None
    )[0][0]
    assert 0 < slope < 1
    expected = rows["exact_clamp"].fillna(slope * rows["attribution_clamp"]) / rows["clamp_norm"]
    pd.testing.assert_series_equal(
        rows["clamp_per_norm"], expected, check_names=False, check_exact=False
    )
    steep = (rows["attribution_clamp"] / rows["clamp_norm"]).nlargest(CONFIG.n_top).index
    assert rows.loc[steep, "exact_clamp"].notna().all()


def test_confirmation_pairs_are_not_read(study: Study, done: Screen) -> None:
    lm, sae, battery, found, readout = study
    kept = [c for c, part in found.parts.items() if part == "discovery"]
    again = screen(
        lm, sae, battery.select(clusters=kept), found, CONFIG, readout=readout, quiet=True
    )
    pd.testing.assert_frame_equal(again.table, done.table)


def test_estimates_are_right_where_writes_are_small(study: Study) -> None:
    lm, sae, battery, found, readout = study
    weak = topk_sae(lm, planted_rows(D_SAE, sae.W_dec[PLANTED], PLANTED))
    with torch.no_grad():
        weak.sae.W_dec.mul_(0.003)
    config = CONFIG.model_copy(update={"n_steps": 0})
    found = replace(found, summary=replace(found.summary, sae_sha256=""))
    made = screen(
        lm, SparseAutoencoder(weak.sae), battery, found, config, readout=readout, quiet=True
    )
    assert (made.agreement[["pearson", "spearman"]] > 0.98).all(axis=None)
    assert made.agreement["slope"].between(0.95, 1.05).all()
    assert set(made.agreement["estimator"]) == {"gradient"}
    assert made.table["ig_ablate"].isna().all()
    assert made.summary.completeness["grief"]["integrated"] is None


def test_table_agreement_and_counts(study: Study, done: Screen) -> None:
    found = study[3]
    table = done.table
    assert list(table) == list(SCREEN_COLUMNS)
    assert list(done.agreement) == list(AGREEMENT_COLUMNS)
    assert done.summary.contrasts == ["all", "rage", "grief"]
    assert not table.duplicated(["contrast", "feature"]).any()
    assert done.summary.n_dead == 1
    assert done.summary.n_live == D_SAE - 1
    assert done.summary.n_left_out == dict.fromkeys(done.summary.contrasts, 0)
    assert DEAD not in table.loc[~table["candidate"], "feature"].to_numpy()
    for contrast in done.summary.contrasts:
        rows = done.of(contrast)
        assert rows["verified_clamp"].isin(["top", "both"]).sum() == CONFIG.n_top
        assert rows["verified_clamp"].isin(["random", "both"]).sum() == CONFIG.n_random
        assert (rows["exact_clamp"].notna() == (rows["verified_clamp"] != "")).all()
        assert (rows["exact_ablate"].notna() == (rows["verified_ablate"] != "")).all()
        top = rows.loc[rows["verified_ablate"].isin(["top", "both"]), "attribution_ablate"].abs()
        assert top.min() >= rows["attribution_ablate"].abs().nlargest(CONFIG.n_top).min()
        retained = found.table.query("contrast == @contrast and retained")["feature"]
        assert set(rows.index[rows["candidate"]]) == set(retained)
        live = [f for f in found.top(contrast, CONFIG.n_candidates) if f != DEAD]
        assert rows.loc[live, "output_score"].notna().all()
        one = done.agreement.query(
            "contrast == @contrast and intervention == 'ablate' and sample == 'top' "
            "and estimator == 'integrated'"
        ).iloc[0]
        some = rows[rows["verified_ablate"].isin(["top", "both"])]
        assert one["n"] == len(some)
        expected = scipy_stats.pearsonr(some["ig_ablate"], some["exact_ablate"]).statistic
        assert one["pearson"] == pytest.approx(expected)
    for values in done.summary.completeness.values():
        assert values["joint"] is not None
        assert values["integrated"] == pytest.approx(values["joint"], rel=0.3, abs=0.05)


def test_a_smaller_table_keeps_the_largest(study: Study) -> None:
    *inputs, readout = study
    config = CONFIG.model_copy(
        update={"max_latents": 3, "n_top": 1, "n_random": 3, "n_candidates": 1, "n_steps": 0}
    )
    small = screen(*inputs, config, readout=readout, quiet=True)
    assert PLANTED in small.of("grief").index
    for contrast, left_out in small.summary.n_left_out.items():
        assert left_out == D_SAE - 1 - len(small.of(contrast).drop(index=DEAD, errors="ignore"))
        assert left_out > 0


def test_selection(study: Study, done: Screen) -> None:
    found = study[3]
    by_input = select(found, None, "grief", 5)
    assert tuple(by_input) == tuple(f for f in found.top("grief", 6) if f != DEAD)[:5]
    assert by_input.chosen_by == "discovery score"
    by_output = select(found, done, "grief", 3, by="output")
    assert by_output[0] == PLANTED
    rows = done.of("grief")
    assert "(3 of 3 measured" in by_output.chosen_by
    assert list(by_output) == rows["clamp_per_norm"].nlargest(3).index.tolist()
    assert "per unit of norm" in by_output.chosen_by
    first = [f for f in found.top("grief", 12) if f != DEAD]
    by_score = select(found, done, "grief", 2, by="output_score")
    assert list(by_score) == rows.loc[first, "output_score"].nlargest(2).index.tolist()
    both = select(found, done, "grief", 100, by="both")
    assert set(both) <= set(found.top("grief", 1000))
    assert (rows.loc[list(both), "clamp_per_norm"] > 0).all()
    assert both.parts == found.parts
    ranks = {f: i for i, f in enumerate(f for f in found.top("grief", 1000) if f in set(both))}
    out = rows.loc[list(both), "clamp_per_norm"].rank(ascending=False)
    sums = [ranks[f] + out[f] for f in both]
    assert sums == sorted(sums)


def test_selection_refuses(study: Study, done: Screen) -> None:
    found = study[3]
    with pytest.raises(ConfigError, match="needs a screen"):
        select(found, None, "grief", 3, by="output")
    with pytest.raises(ConfigError, match="by 'luck' is unknown"):
        select(found, done, "grief", 3, by="luck")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n=0"):
        select(found, done, "grief", 0)
    with pytest.raises(ConfigError, match="'joy'"):
        select(found, done, "joy", 3, by="output")


def test_dead_latents_are_never_chosen(study: Study, done: Screen) -> None:
    found = study[3]
    best = found.top("grief", 1)[0]
    stats = found.stats.copy()
    stats.loc[stats["feature"] == best, "max_active"] = 0.0
    assert best not in select(replace(found, stats=stats), None, "grief", 5)
    table = done.table.copy()
    table.loc[table["feature"] == PLANTED, ["clamp_norm", "clamp_per_norm"]] = [0.0, np.nan]
    dead = replace(done, table=table)
    for by in ("output", "both", "output_score"):
        assert PLANTED not in select(found, dead, "grief", 100, by=by)


def test_columns_of_the_search(study: Study, done: Screen) -> None:
    found = study[3]
    joined = with_screen(found.table, done)
    assert len(joined) == len(found.table)
    assert {"attribution", "output_score"} <= set(joined)
    row = joined.query("contrast == 'grief'").set_index("feature")
    known = row.index.intersection(done.of("grief").index)
    expected = done.of("grief").loc[known, "attribution_ablate"]
    np.testing.assert_array_equal(row.loc[known, "attribution"], expected)
    pd.testing.assert_frame_equal(with_screen(joined, done), joined)
    assert with_screen(joined, None)["attribution"].isna().all()
    shared = [c for c in found.table if c not in ("attribution", "output_score")]
    pd.testing.assert_frame_equal(joined[shared], found.table[shared])


def test_files(study: Study, tmp_path: Path) -> None:
    *inputs, readout = study
    made = screen(*inputs, CONFIG, readout=readout, out=tmp_path, quiet=True)
    again = read_screen(tmp_path)
    pd.testing.assert_frame_equal(again.table, made.table)
    pd.testing.assert_frame_equal(read_table(tmp_path, "search/screen_agreement"), made.agreement)
    assert again.summary == made.summary
    with pytest.raises(ArtifactError, match="not been run"):
        read_screen(tmp_path / "other")


def test_bad_calls_are_refused(study: Study) -> None:
    lm, sae, battery, found, readout = study
    with pytest.raises(ConfigError, match="no firing statistics"):
        screen(lm, sae, battery, replace(found, stats=found.stats[:0]), CONFIG, readout=readout)
    other = load_battery().select(emotions=["terror"])
    with pytest.raises(ConfigError, match="use the battery that was searched"):
        screen(lm, sae, other, found, CONFIG, readout=readout)
    with pytest.raises(ConfigError, match="n_prefixes is 1000"):
        screen(lm, sae, battery, found, ScreenConfig(n_prefixes=1000), readout=readout)
    wide = replace(found, summary=replace(found.summary, n_features=D_SAE + 1))
    with pytest.raises(ArtifactError, match="give the SAE that was searched"):
        screen(lm, sae, battery, wide, CONFIG, readout=readout)


def test_a_contrast_without_a_readout_is_reported(study: Study) -> None:
    lm, sae, battery, found, _ = study
    words = {e: WORDS[e] for e in ("grief", "calm")} | {"joy": WORDS["rage"]}
    only = screen(
        lm,
        sae,
        battery,
        found,
        CONFIG,
        readout=build_readout(lm, words, ("\nIt felt",)),
        quiet=True,
    )
    assert list(only.summary.unread) == ["rage"]
    assert set(only.table["contrast"]) == {"all", "grief"}


def test_a_model_without_a_logit_lens_has_no_output_scores(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_lm: LanguageModel) -> None:
        raise ModelError("it projects in between")

    monkeypatch.setattr("affectlens.features.output_score.unembedding", refuse)
    *inputs, readout = study
    made = screen(*inputs, CONFIG, readout=readout, quiet=True)
    assert made.summary.unscored == "it projects in between"
    assert made.table[["output_score", "output_rank", "input_score"]].isna().all(axis=None)
    assert made.table["exact_clamp"].notna().any()
    assert len(select(study[3], made, "grief", 3, by="output_score")) == 0


def test_agreement_against_scipy() -> None:
    rng = np.random.default_rng(2)
    exact = rng.standard_normal(40)
    estimate = 0.5 * exact + 0.2 * rng.standard_normal(40)
    found = agreement(estimate, exact, n_bootstrap=500, seed=0)
    assert found["pearson"] == pytest.approx(scipy_stats.pearsonr(estimate, exact).statistic)
    assert found["spearman"] == pytest.approx(scipy_stats.spearmanr(estimate, exact).statistic)
    assert found["slope"] == pytest.approx(scipy_stats.linregress(estimate, exact).slope)
    assert found["pearson_low"] < found["pearson"] < found["pearson_high"]
    assert agreement(1e-30 * estimate, exact, n_bootstrap=100, seed=0)["pearson"] == pytest.approx(
        found["pearson"]
    )
    assert found == agreement(estimate, exact, n_bootstrap=500, seed=0)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_latents_have_no_correlation(n: int) -> None:
    found = agreement(np.arange(n) + 0.1, np.arange(n) + 0.2, n_bootstrap=100, seed=0)
    assert found["n"] == n
    assert np.isnan([found["pearson"], found["spearman_low"], found["slope"]]).all()


def test_equal_values_have_no_correlation() -> None:
    found = agreement(np.full(5, 0.1), np.arange(5.0), n_bootstrap=100, seed=0)
    assert np.isnan(found["pearson"])
    assert np.isnan(found["slope"])
