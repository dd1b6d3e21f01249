"""The comparison as a whole: what is said where the answer is known, and that nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Battery, make_battery
from affectlens.features.baseline_columns import BASELINE_COLUMNS, METHODS, RANDOM_METHODS
from affectlens.features.baseline_methods import (
    PairItems,
    confirmation,
    cross_validation,
    score_all,
    targets_of,
)
from affectlens.features.baselines import Baselines, BaselinesSummary, compare, searched_ranks
from affectlens.features.design import PairDesign
from affectlens.features.pooled_residuals import Place, PooledResidual
from affectlens.features.search import SearchResult, search_activations
from affectlens.features.simple_directions import Ranked
from affectlens.features.validation_config import BaselineConfig

from .made_pairs import EMOTIONS, FAST, SEARCH, make_pairs

PLACES = (Place(-1, "blocks.0.hook_resid_pre"), Place(1, "blocks.1.hook_resid_post"))
D = 10


def make_items(battery: Battery, seed: int = 0) -> PairItems:
    """Noise everywhere, latents zero half of the time."""
    rng = np.random.default_rng(seed)
    ids = [m.id for p in battery.pairs for m in (p.clinical, p.neutral)]
    design = PairDesign.from_battery(battery, ids)
    n = 2 * len(design)
    latents = rng.exponential(size=(n, 30)) * (rng.random((n, 30)) < 0.5)
    residuals = tuple(
        PooledResidual(place, rng.normal(size=(n, D)).astype(np.float32)) for place in PLACES
    )
    documents = tuple(tuple(t.split()) for t in battery.pair_texts)
    return PairItems(design, residuals, latents.astype(np.float32), np.arange(30) * 2, documents)


def searched(items: PairItems) -> SearchResult:
    """A search on the same latents, by their SAE index."""
    n = items.n_pairs
    pooled = np.zeros((2 * n, 60), np.float32)
    pooled[:, items.latent_ids] = items.latents
    design = replace(items.design, clinical=np.arange(n), neutral=np.arange(n, 2 * n))
    return search_activations(pooled, design, SEARCH)


def run(battery: Battery, items: PairItems, config: BaselineConfig = FAST) -> Baselines:
    return compare(items, battery, searched(items), PLACES[-1], config, SEARCH)


def only(found: Baselines, **wanted: object) -> pd.Series:
    rows = found.table
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.fixture(scope="module")
def battery() -> Battery:
    return make_pairs()


@pytest.fixture(scope="module")
def noise(battery: Battery) -> Baselines:
    return run(battery, make_items(battery))


# ---------------------------------------------------------------- the table
def test_every_method_target_and_layer_has_a_row(noise: Baselines) -> None:
    table = noise.table
    assert list(table.columns) == list(BASELINE_COLUMNS)
    assert set(table["method"]) == set(METHODS) - set(RANDOM_METHODS)
    assert set(table["target"]) == {"all", *EMOTIONS}
    assert set(table["evaluated_on"]) == {"confirmation", "folds"}
    # 4 of the SAE, 4 at each of two places, words, the chosen layer.
    assert (table.groupby(["evaluated_on", "target"]).size() == 4 + 4 * 2 + 2).all()
    layered = table[table["method"] == "difference_of_means"]
    assert set(zip(layered["layer"], layered["hook"], strict=True)) == {
        (p.layer, p.hook) for p in PLACES
    }
    words = table[table["method"] == "tfidf_words"]
    assert words["layer"].isna().all() and (words["hook"] == "").all()
    assert table[["auroc", "paired_accuracy", "minus_sae"]].notna().all(axis=None)
    reference = table[table["method"] == "sae_latent"]
    assert (reference["verdict"] == "reference").all() and (reference["minus_sae"] == 0).all()
    folds = table[table["evaluated_on"] == "folds"]
    assert (folds.loc[folds["target"] == "all", "n_pairs"] == 72).all()
    assert (folds.loc[folds["target"] == "grief", "n_clusters"] == 12).all()


def test_noise_is_chance_for_every_method(noise: Baselines) -> None:
    folds = noise.table[noise.table["evaluated_on"] == "folds"]
    # 72 pairs: the sd of an AUROC under the null is about 0.05, of 24 own against 48, 0.07.
    assert folds["auroc"].between(0.5 - 4 * 0.07, 0.5 + 4 * 0.07).all()
    assert abs(folds["auroc"].mean() - 0.5) < 0.06
    assert (folds["verdict"] == "not distinguishable").mean() > 0.7


def test_it_is_written_and_read(noise: Baselines, tmp_path: Path, monkeypatch) -> None:
    from affectlens.features.columns import TABLES
    from affectlens.features.results import read_table

    monkeypatch.setitem(TABLES, "search/baselines", BASELINE_COLUMNS)
    noise.write(tmp_path)
    pd.testing.assert_frame_equal(read_table(tmp_path, "search/baselines"), noise.table)
    assert BaselinesSummary.read(tmp_path) == noise.summary
    csv = pd.read_csv(tmp_path / "search/baselines.csv")
    assert csv["layer"].isna().sum() == noise.table["layer"].isna().sum()


def test_the_same_seed_gives_the_same_table(battery: Battery, noise: Baselines) -> None:
    again = run(battery, make_items(battery))
    pd.testing.assert_frame_equal(again.table, noise.table)
    assert again.summary == noise.summary


# ---------------------------------------------------------------- known answers
def test_a_signal_only_in_the_stream_is_said_to_beat_the_latent(battery: Battery) -> None:
    items = make_items(battery)
    n = items.n_pairs
    items.residuals[1].values[:n, 3] += 3
    found = run(battery, items)
    for on in ("confirmation", "folds"):
        for method in ("dense_probe", "difference_of_means", "single_neuron"):
            row = only(found, evaluated_on=on, target="all", method=method, layer=1)
            assert row["verdict"] == "SAE latent worse" and row["auroc"] > 0.9
        assert found.summary.chosen_layers[on]["all"] == [1] * (1 if on == "confirmation" else 3)
        chosen = only(
            found, evaluated_on=on, target="all", method="dense_probe_chosen_layer", layer=1
        )
        assert chosen["auroc"] > 0.9
    assert found.summary.verdicts["folds"]["dense_probe"]["SAE latent worse"] >= 1
    assert sum(found.summary.verdicts["folds"]["dense_probe_embedding"].values()) == 4


def test_a_signal_only_in_a_latent_is_said_to_be_the_latents(battery: Battery) -> None:
    items = make_items(battery)
    n = items.n_pairs
    grief = np.array(items.design.emotions) == "grief"
    items.latents[:n, 7] += 4
    items.latents[:n, 8] += 4 * grief
    found = run(battery, items)
    for method in ("dense_probe", "difference_of_means", "single_neuron"):
        row = only(found, evaluated_on="folds", target="all", method=method, layer=1)
        assert row["verdict"] == "SAE latent better"
    for target, latent in (("all", 14), ("grief", 16)):
        best = found.summary.best_latents["folds"][target]
        assert all(fold[0] == latent for fold in best)
        assert only(found, evaluated_on="folds", target=target, method="sae_latent")["auroc"] > 0.9
    words = only(found, evaluated_on="folds", target="grief", method="tfidf_words")
    assert words["verdict"] == "SAE latent better"


def test_a_model_with_random_weights_has_rows_of_its_own(
    battery: Battery, noise: Baselines
) -> None:
    items = make_items(battery)
    blank = np.random.default_rng(5).normal(size=(2 * items.n_pairs, D)).astype(np.float32)
    blank[: items.n_pairs, 2] += 3
    found = run(battery, replace(items, random_residual=PooledResidual(PLACES[1], blank)))
    for on in ("confirmation", "folds"):
        for method in RANDOM_METHODS:
            row = only(found, evaluated_on=on, target="all", method=method)
            assert (row["layer"], row["hook"]) == (1, PLACES[1].hook)
            assert row["auroc"] > 0.9 and row["verdict"] == "SAE latent worse"
            assert found.summary.verdicts[on][method]["SAE latent worse"] >= 1
    # Nothing of the model itself moves, the layer that folds choose included.
    rest = found.table[~found.table["method"].isin(RANDOM_METHODS)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, noise.table)
    assert found.summary.chosen_layers == noise.summary.chosen_layers


def test_a_latent_that_falls_counts_by_its_side(battery: Battery) -> None:
    items = make_items(battery)
    items.latents[items.n_pairs :, 7] += 4
    row = only(run(battery, items), evaluated_on="confirmation", target="all", method="sae_latent")
    assert row["auroc"] > 0.9 and row["paired_accuracy"] > 0.9


# ---------------------------------------------------------------- no leakage
def test_shuffled_members_give_chance(battery: Battery) -> None:
    """A strong difference, but which member is clinical is drawn for whole clusters."""
    clusters = [p.cluster for p in battery.pairs]
    areas = []
    for seed in range(3):
        items = make_items(battery, seed)
        n = items.n_pairs
        rng = np.random.default_rng([seed, 1])
        side = {c: rng.random() < 0.5 for c in sorted(set(clusters))}
        up = np.array([side[c] for c in clusters])
        items.residuals[1].values[np.where(up, np.arange(n), np.arange(n, 2 * n)), 3] += 3
        evaluation = cross_validation(items.design, battery.pair_texts, 3, seed)
        assert evaluation is not None
        scored = score_all(items, evaluation, FAST, SEARCH)
        held = {
            k.method: h for k, h in scored.held_out.items() if (k.layer, k.target) == (1, "all")
        }
        for method in ("dense_probe", "single_neuron", "difference_of_means"):
            s = held[method].scores[0]
            areas.append((s[:, 0] > s[:, 1]).mean())
    # 36 clusters, each wholly right or wrong: sd 1/12 a run, three runs.
    assert abs(np.mean(areas) - 0.5) < 4 / 12 / np.sqrt(3)


def test_scores_do_not_depend_on_the_pairs_that_are_scored(battery: Battery) -> None:
    items = make_items(battery)
    found = searched(items)
    evaluation = confirmation(items.design, found.parts, battery.pair_texts)
    assert evaluation is not None
    fitted = np.tile(evaluation.train[0], 2)
    other = make_items(battery)
    for residual in other.residuals:
        residual.values[~fitted] *= -3
    ranks = {t.name: Ranked(np.array([0]), np.array([1.0])) for t in targets_of(items.design)}
    one, two = (score_all(i, evaluation, FAST, SEARCH, ranks=ranks) for i in (items, other))
    assert one.chosen_layers == two.chosen_layers
    for key, held in one.held_out.items():
        if key.method == "difference_of_means":
            # Linear in the item with weights from fitted items alone.
            assert np.allclose(
                two.held_out[key].scores, -3 * held.scores, atol=1e-4, equal_nan=True
            )


def test_a_copied_pair_is_never_on_both_sides() -> None:
    battery = make_pairs(copies=True)
    items = make_items(battery)
    texts = np.array(battery.pair_texts)
    n = items.n_pairs
    parts = {c: "confirmation" if c.endswith("/1") else "discovery" for c in items.design.clusters}
    held = confirmation(items.design, parts, battery.pair_texts)  # type: ignore[arg-type]
    assert held is None  # every confirmation pair has a copied neutral
    parts = {
        c: "confirmation" if c.endswith(("/1", "/5")) else "discovery"
        for c in items.design.clusters
    }
    held = confirmation(items.design, parts, battery.pair_texts)  # type: ignore[arg-type]
    folds = cross_validation(items.design, battery.pair_texts, 4, 0)
    assert held is not None and held.n_left_out == 6 and folds is not None
    for evaluation in (held, folds):
        for fold, train in enumerate(evaluation.train):
            test = evaluation.folds == fold
            assert not (test & train).any()
            seen, new = (
                set(np.tile(texts.reshape(2, n)[:, rows], 1).ravel()) for rows in (train, test)
            )
            assert not seen & new
            clusters = np.array(items.design.clusters)
            assert not set(clusters[train]) & set(clusters[test])


# ---------------------------------------------------------------- degenerate and refused
def test_one_cluster_is_refused_and_one_emotion_has_one_target() -> None:
    battery = make_pairs(n_domains=1, emotions=("grief",))
    with pytest.raises(StimulusError, match="has 1 cluster of pairs"):
        run(battery, make_items(battery))
    battery = make_pairs(n_domains=3, n_per=1, emotions=("grief",))
    found = run(battery, make_items(battery))
    assert set(found.table["target"]) == {"all"}
    assert set(found.table["verdict"]) == {"reference", "too few clusters"}
    assert found.table["low"].isna().all() and found.table["auroc"].notna().all()


def test_constant_numbers_are_chance(battery: Battery) -> None:
    items = make_items(battery)
    items.latents[:] = 1
    for residual in items.residuals:
        residual.values[:] = 2
    table = run(battery, replace(items, documents=((),) * len(items.documents))).table
    assert (table["auroc"] == 0.5).all() and (table["paired_accuracy"] == 0.5).all()


def test_an_emotion_that_cannot_be_tested_is_named() -> None:
    emotions = ("rage", "grief")
    battery = make_pairs(n_domains=6, emotions=emotions)
    battery = make_battery(
        "made", [i for i in battery.items if i.emotion == "rage" or i.domain == "1"], "test"
    )
    found = run(battery, make_items(battery))
    assert "confirmation: grief" in found.summary.untested
    rows = found.table[found.table["evaluated_on"] == "confirmation"]
    assert set(rows["target"]) == {"all"}  # rage has no other emotion to be told from


def test_a_search_of_other_latents_is_refused() -> None:
    with pytest.raises(StimulusError, match="1 latents of the search are silent"):
        searched_ranks({"all": Ranked(np.array([3]), np.array([1.0]))}, np.array([2, 4]))
