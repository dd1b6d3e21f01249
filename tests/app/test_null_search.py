"""The search in SAEs of nothing: what is trained and read where, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from scipy import sparse

import affectlens as al
from affectlens import cli_inputs, cli_nulls, null_search
from affectlens.cli_runtime import call
from affectlens.data.battery_files import write_battery
from affectlens.data.corpus import load_corpus
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.features.columns import TABLES
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.null_columns import NULL_COLUMNS, NULL_LATENT_COLUMNS
from affectlens.features.null_tables import oriented, reaching, search_rows
from affectlens.features.results import read_table
from affectlens.features.search import SearchResult, search, search_activations
from affectlens.features.validation_records import NullSearchSummary
from affectlens.null_search import NullSearch, search_nulls
from affectlens.sae.model import SparseAutoencoder

CONFIG = SearchConfig(n_permutations=100, min_items=2)
COUNTS = ["n_tested", "n_significant_fwer", "n_retained", "n_confirmed"]


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "search/nulls", NULL_COLUMNS)
    monkeypatch.setitem(TABLES, "search/null_latents", NULL_LATENT_COLUMNS)


@pytest.fixture(scope="module")
def study(inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tiny llama, its activations and SAE, and a search."""
    folder = tmp_path_factory.mktemp("nulls")
    lm = al.load_model(inputs.model)
    store = al.harvest(
        lm, str(inputs.corpus), layer=2, out=folder / "acts", context_length=64, quiet=True
    )
    sae = al.train(
        store, out=folder / "sae", d_sae=64, k=8, n_samples=1_000, batch_size=256, quiet=True
    )  # fmt: skip
    # Few emotions keep the searches short.
    some = al.load_battery().select(emotions=["grief", "rage"], limit=16)
    battery = al.load_battery(str(write_battery(some, folder / "pairs.jsonl")))
    found = search(lm, sae, battery, CONFIG)
    corpus = load_corpus(str(inputs.corpus))
    return SimpleNamespace(
        lm=lm, store=store, sae=sae, battery=battery, found=found, corpus=corpus, folder=folder
    )


@pytest.fixture(scope="module")
def read() -> list[tuple[str, str]]:
    """Model and place of each encoding of `made`."""
    return []


@pytest.fixture(scope="module")
def made(study: SimpleNamespace, read: list[tuple[str, str]]) -> NullSearch:
    true = null_search.encode_battery

    def watched(lm: LanguageModel, saes: list[SparseAutoencoder], *words: Any, **more: Any) -> Any:
        read.append((lm.name, saes[0].info.hook_name))
        return true(lm, saes, *words, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(null_search, "encode_battery", watched)
        return run(study, n_samples=500)


def run(study: SimpleNamespace, **changes: Any) -> NullSearch:
    settings: dict[str, Any] = {"config": CONFIG, "store": study.store, "corpus": study.corpus}
    settings |= {"quiet": True, "found": study.found, "sae": study.sae, "battery": study.battery}
    return search_nulls(study.lm, **{**settings, **changes})


def only(table: pd.DataFrame, **wanted: object) -> pd.Series:
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


# ---------------------------------------------------------------- what is trained and read where
def test_every_sae_has_a_row_a_pooling_and_contrast(
    study: SimpleNamespace, made: NullSearch
) -> None:
    table = made.table
    assert list(table.columns) == list(NULL_COLUMNS)
    saes = ["this SAE", "same budget", "random-model", "embedding"]
    assert list(dict.fromkeys(table["sae"])) == saes
    assert len(table) == 4 * 2 * len(study.found.contrasts)
    assert made.summary.poolings == ["suffix", "mean"]
    heads = table.drop_duplicates("sae").set_index("sae")
    assert heads["n_samples"].tolist()[1:] == [500] * 3
    assert (heads["n_samples"].iloc[0], made.summary.comparable) == (1_024, False)
    assert heads["fvu"].between(0, 2).all() and heads["l0"].between(1, 64).all()
    assert heads.loc["embedding", "hook"] == "blocks.0.hook_resid_pre"
    assert heads.loc["random-model", "model"] == "tiny:llama (random weights)"


def test_the_null_of_random_weights_is_read_through_random_weights(
    made: NullSearch, read: list[tuple[str, str]]
) -> None:
    own = "blocks.2.hook_resid_post"
    assert made.summary.names == ["random-model", "embedding"]
    assert read == [
        ("tiny:llama", own),  # the SAE itself, for 'mean'
        ("tiny:llama", own),
        ("tiny:llama (random weights)", own),
        ("tiny:llama", "blocks.0.hook_resid_pre"),
    ]


def test_the_saes_own_counts_are_those_of_its_search(
    study: SimpleNamespace, made: NullSearch
) -> None:
    s = study.found.summary
    for contrast in study.found.contrasts:
        row = only(made.table, sae="this SAE", pooling="suffix", contrast=contrast)
        assert row[COUNTS].tolist() == [
            s.n_tested,
            s.n_significant_fwer[contrast],
            s.n_retained[contrast],
            s.n_confirmed[contrast],
        ]
    mean = CONFIG.model_copy(update={"pooling": "mean"})
    again = search(study.lm, study.sae, study.battery, mean).summary
    row = only(made.table, sae="this SAE", pooling="mean", contrast="all")
    assert row["n_tested"] == again.n_tested
    assert row["n_confirmed"] == again.n_confirmed["all"]


def test_only_confirmed_latents_are_counted_as_beyond(made: NullSearch) -> None:
    rows = made.latents[made.latents["confirmed"] & made.latents["share_reaching"].notna()]
    for sae, by_pooling in made.summary.n_compared.items():
        for pooling, n in by_pooling.items():
            own = rows[(rows["sae"] == sae) & (rows["pooling"] == pooling)]
            assert n == len(own)
            assert made.summary.n_beyond[sae][pooling] == (own["n_reaching"] == 0).sum()
    assert set(made.summary.n_compared) == {"same budget", "random-model", "embedding"}


def test_equal_tokens_are_said_and_not_counted(made: NullSearch) -> None:
    rows = made.table[(made.table["sae"] == "embedding") & (made.table["pooling"] == "suffix")]
    assert (rows["status"] == "reads equal tokens").all()
    assert rows[[*COUNTS, "best_feature", "best_d_z"]].isna().all(axis=None)
    rest = made.table.drop(rows.index)
    assert (rest["status"] == "searched").all() and rest[COUNTS].notna().all(axis=None)
    assert made.summary.not_searched == {"embedding": ["suffix"]}
    assert "suffix" not in made.summary.n_confirmed["embedding"]
    assert (
        made.summary.n_confirmed["embedding"]["mean"].keys()
        == made.summary.n_confirmed["this SAE"]["mean"].keys()
    )
    pairs = set(zip(made.latents["sae"], made.latents["pooling"], strict=True))
    assert ("embedding", "suffix") not in pairs and ("embedding", "mean") in pairs


def test_alike_is_up_to_rounding() -> None:
    row = np.array([[0.0, 3.0, 1.0]], dtype=np.float32)
    same = np.repeat(row, 5, axis=0)
    same[2, 1] += 1e-5
    assert null_search._alike(sparse.csc_array(same))
    assert null_search._alike(sparse.csc_array((5, 3), dtype=np.float32))
    same[2, 0] = 0.01
    assert not null_search._alike(sparse.csc_array(same))


def test_the_full_budget_needs_no_further_sae(study: SimpleNamespace, made: NullSearch) -> None:
    found = run(study, names=["random-model"], seed=4)
    assert found.summary.comparable and found.summary.seed == 4
    assert found.summary.n_samples == {"this SAE": 1_024, "random-model": 1_000}
    assert list(dict.fromkeys(found.table["sae"])) == ["this SAE", "random-model"]
    own = made.table["sae"] == "this SAE"
    pd.testing.assert_frame_equal(found.table[own[: len(found.table)]], made.table[own])


def test_without_activations_the_saes_own_measures_are_missing_and_that_is_said(
    study: SimpleNamespace,
) -> None:
    arm = null_search._own_arm(study.lm, study.sae, None)
    assert np.isnan([arm.fvu, arm.l0, arm.dead_share]).all()
    assert (arm.remark, arm.n_samples) == ("no activations to measure it on", 1_024)


# ---------------------------------------------------------------- counting
def planted(battery: Battery, effects: dict[int, float], seed: int = 0) -> SearchResult:
    """A search of 8 latents of noise, some of which rise or fall on clinical members."""
    ids = [i.id for i in battery.items]
    design = PairDesign.from_battery(battery, ids)
    values = np.random.default_rng(seed).uniform(1, 2, (len(ids), 8)) + 10
    for latent, effect in effects.items():
        values[design.clinical, latent] += effect
    return search_activations(values, design, CONFIG)


def test_effects_are_positive_on_the_side_of_discovery(study: SimpleNamespace) -> None:
    found = planted(study.battery, {3: -4.0})
    row = only(oriented(found.table), contrast="all", feature=3)
    raw = only(found.table, contrast="all", feature=3)
    assert row["d_z"] == -raw["d_z"] > 5 and row["confirm_d_z"] == -raw["confirm_d_z"] > 5
    assert (row["confirm_auroc_paired"], raw["confirm_auroc_paired"]) == (1, 0)
    best = search_rows(found, "mean", ["all"])[0]
    assert best["best_feature"] == 3 and best["best_confirm_auroc"] == 1
    assert best["best_confirm_d_z"] == row["confirm_d_z"]
    assert best["max_confirm_d_z"] >= row["confirm_d_z"]  # type: ignore[operator]


def test_a_latent_is_ranked_among_the_retained_of_the_other_sae(study: SimpleNamespace) -> None:
    real = planted(study.battery, {3: -9.0, 5: 1.0})
    null = planted(study.battery, {1: 3.0, 2: -3.0, 4: 3.0}, seed=1)
    keep = {"all": [1, 2, 4]}
    table = null.table.assign(
        retained=[f in keep.get(c, []) for c, f in zip(*_names(null), strict=True)]
    )
    rows = reaching(_retaining(real, [3, 5]), replace(null, table=table), "mean")
    by_latent = {r["feature"]: r for r in rows if r["contrast"] == "all"}
    assert [by_latent[f]["n_reaching"] for f in (3, 5)] == [0, 3]
    assert [by_latent[f]["p_null"] for f in (3, 5)] == [1 / 4, 1]
    assert by_latent[5]["share_reaching"] == 1 and by_latent[3]["n_others"] == 3


def test_without_others_there_is_no_share(study: SimpleNamespace) -> None:
    real = planted(study.battery, {3: 5.0})
    none = replace(real, table=real.table.assign(retained=False))
    rows = reaching(_retaining(real, [3]), none, "mean")
    assert [r["n_others"] for r in rows] == [0]
    assert np.isnan(rows[0]["share_reaching"]) and np.isnan(rows[0]["p_null"])  # type: ignore[call-overload]


def _names(found: SearchResult) -> tuple[list[str], list[int]]:
    return found.table["contrast"].tolist(), found.table["feature"].tolist()


def _retaining(found: SearchResult, latents: list[int]) -> SearchResult:
    kept = [c == "all" and f in latents for c, f in zip(*_names(found), strict=True)]
    return replace(found, table=found.table.assign(retained=kept))


# ---------------------------------------------------------------- files and refusals
def test_it_is_written_and_read(made: NullSearch, tmp_path: Path) -> None:
    assert made.write(tmp_path) == tmp_path / "search/nulls.json"
    pd.testing.assert_frame_equal(read_table(tmp_path, "search/nulls"), made.table)
    pd.testing.assert_frame_equal(read_table(tmp_path, "search/null_latents"), made.latents)
    assert NullSearchSummary.read(tmp_path) == made.summary


def test_what_does_not_belong_together_is_refused(
    study: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be trained")

    monkeypatch.setattr(null_search, "null_saes", no_training)
    with pytest.raises(ConfigError, match="no null was named; known: random-model, embedding"):
        run(study, names=[])
    with pytest.raises(ConfigError, match="unknown null 'randm'"):
        run(study, names=["randm"])
    with pytest.raises(ConfigError, match="pooled by 'suffix', the settings say 'max'"):
        run(study, config=CONFIG.model_copy(update={"pooling": "max"}))
    with pytest.raises(ConfigError, match="split the clusters otherwise"):
        run(study, config=CONFIG.model_copy(update={"seed": 5}))
    with pytest.raises(ConfigError, match="give the battery that was searched"):
        run(study, battery=study.battery.select(limit=8))
    summary = replace(study.found.summary, n_features=99)
    with pytest.raises(ConfigError, match="the search was of 99 latents, the SAE has 64"):
        run(study, found=replace(study.found, summary=summary))


# ---------------------------------------------------------------- the command
@pytest.fixture
def nulls(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call `affectlens nulls`."""
    app = typer.Typer()
    app.callback()(lambda: None)
    cli_nulls.register(app)

    def invoke(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = call(typer.main.get_command(app), ["nulls", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


def test_the_command_searches_a_run(
    study: SimpleNamespace,
    inputs: Any,
    nulls: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So short a training reconstructs too little to pass the check.
    monkeypatch.setattr(cli_inputs, "guard", lambda *_a, **_k: None)
    search(study.lm, study.sae, study.battery, CONFIG, out=tmp_path)
    words = [
        "--model",
        inputs.model,
        "--battery",
        study.folder / "pairs.jsonl",
        "--sae",
        study.folder / "sae",
    ]
    words += ["--store", study.folder / "acts", "--corpus", inputs.corpus, "--null-samples", "300"]
    code, out, err = nulls(tmp_path, *words, "--names", "embedding", "--seed", "2", "-q")
    assert code == 0, err
    for said in ("this SAE", "same budget", "reads equal tokens", "pooling mean", "not searched"):
        assert said in out
    summary = NullSearchSummary.read(tmp_path)
    assert (summary.seed, summary.names) == (2, ["embedding"])
    assert summary.n_permutations == CONFIG.n_permutations
    table = read_table(tmp_path, "search/nulls")
    assert only(table, sae="embedding", pooling="mean", contrast="all")["n_samples"] == 300


def test_the_command_refuses_before_it_loads(nulls: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = nulls(tmp_path, "--names", "randm")
    assert code == 2 and "known: random-model, embedding" in err
    code, _, err = nulls(tmp_path)
    assert code != 0 and "holds no search" in err
