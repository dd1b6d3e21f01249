"""The intervention study on tiny models: arms, lengths, doses, a planted latent, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch
import yaml

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, load_battery
from affectlens.data.taxonomy import EMOTION_WORDS
from affectlens.data.tiny import tiny_model
from affectlens.features.effect_arms import prompt_pair
from affectlens.features.effect_study import EffectStudy
from affectlens.features.effects import EffectResult, intervene
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.jobs import Job
from affectlens.features.latent_edits import LatentEdit
from affectlens.features.readout_check import check_readout
from affectlens.features.results import EffectsSummary, read_generations, read_table
from affectlens.features.selection import FeatureSet
from affectlens.features.steering import steer
from affectlens.features.text_means import text_means
from affectlens.sae.model import SparseAutoencoder

from .made_effects import WORDS, make_stats
from .made_saes import make_sae

FAST = {"mediation": False, "matrix": False, "damage_documents": 0, "calibrate": False}
KINDS = (
    "ablate_zero", "ablate_mean", "ablate_neutral", "project_out", "clamp", "min_clamp", "scale",
    "add", "patch_clinical",
)  # fmt: skip


@pytest.fixture(scope="module")
def worded() -> LanguageModel:
    """A tiny model that knows the emotion words as tokens."""
    return tiny_model("llama", n_layers=2, words=WORDS)


def make_battery(n_domains: int = 3) -> Battery:
    places = [f"{e}/{d + 1}" for e in ("grief", "rage") for d in range(n_domains)]
    return load_battery().select(clusters=places, limit=len(places))


def config(**values: object) -> InterveneConfig:
    base: dict[str, object] = {
        "n_random_sets": 2, "n_permutations": 100, "templates": (" It felt",),
        "measures": FAST,
    }  # fmt: skip
    given = values.pop("controls", {})
    assert isinstance(given, dict)
    return InterveneConfig.parse({**base, **values, "controls": {"doses": (1.0,), **given}})


Study = tuple[LanguageModel, SparseAutoencoder, list[FeatureSet], Battery]


@pytest.fixture(scope="module")
def study(worded: LanguageModel) -> Study:
    battery = make_battery()
    parts = {c: "confirmation" if c[-1] in "23" else "discovery" for c in battery.clusters}
    stats = make_stats()
    sets = [
        FeatureSet(e, features, parts, stats, "a test")
        for e, features in (("all", (1, 2)), ("grief", (3, 4)), ("rage", (5,)))
    ]
    return worded, make_sae(worded), sets, battery


@pytest.fixture(scope="module")
def everything(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[EffectResult, Path]:
    """Every intervention and arm, and every further table."""
    lm, sae, sets, battery = study
    out = tmp_path_factory.mktemp("run")
    settings = config(
        interventions=KINDS,
        controls={"n_shuffled": 1, "n_directions": 2},
        measures={"set_sizes": (1, 3), "mediation_random": 1, "damage_documents": 3,
                  "damage_tokens": 24, "calibrate": True},
    )  # fmt: skip
    return intervene(lm, sae, sets, battery, settings, out=out, quiet=True), out


def test_every_arm_is_there_with_equal_lengths(everything: tuple[EffectResult, Path]) -> None:
    table = everything[0].table
    counts = table[table["emotion"] == "grief"].groupby(["intervention", "arm"]).size()
    raised = {"prompt", "prompt_neutral"}
    single = {
        "no_edit", "chosen", "splice", "chosen_no_error", "error_only", "chosen_error_only",
        "diff_of_means", "dense_probe", "neurons", "shuffled_labels",
    }  # fmt: skip
    for kind in KINDS:
        wanted = dict.fromkeys(single, 1) | {"random": 2, "random_direction": 2}
        if not kind.startswith("ablate") and kind != "project_out":
            wanted |= dict.fromkeys(raised, 1)
        assert counts[kind].to_dict() == wanted
    nothing = table[table["arm"] == "no_edit"]
    assert not nothing[["effect", "kl", "delta_norm", "n_edited_tokens"]].to_numpy().any()
    directions = table[table["arm"].isin(["random_direction", "diff_of_means", "neurons"])]
    written = directions[directions["norm_ratio"] > 0]
    np.testing.assert_allclose(written["norm_ratio"], 1, rtol=1e-4)
    scaled = table[(table["arm"] == "random") & ~table["intervention"].isin(["project_out"])]
    np.testing.assert_allclose(scaled["norm_ratio"].dropna(), 1, atol=0.1)
    assert (table.loc[table["arm"] == "chosen", "hook_calls"] > 0).all()


def test_texts_follow_the_intervention(everything: tuple[EffectResult, Path]) -> None:
    table = everything[0].table
    grief = table[(table["emotion"] == "grief") & (table["arm"] == "chosen")]
    n_items = grief.set_index("intervention")["n_items"].to_dict()
    own = {k for k in KINDS if n_items[k] == 2}
    assert own == {
        "ablate_zero", "ablate_mean", "ablate_neutral", "project_out", "patch_clinical"
    }  # fmt: skip
    assert all(n_items[k] == 4 for k in set(KINDS) - own)


def test_net_effect_is_above_its_own_base(everything: tuple[EffectResult, Path]) -> None:
    table = everything[0].table
    rows = table[(table["emotion"] == "grief") & (table["intervention"] == "clamp")]
    by = rows.set_index("arm")
    assert by.loc["splice", "net_effect"] == 0
    assert by.loc["chosen_no_error", "net_effect"] == pytest.approx(
        by.loc["chosen_no_error", "effect"] - by.loc["splice", "effect"]
    )
    assert by.loc["chosen", "net_effect"] == by.loc["chosen", "effect"]


def test_tables_round_trip(everything: tuple[EffectResult, Path]) -> None:
    result, out = everything
    for name in ("table", "verdicts", "doses", "mediation", "matrix", "damage"):
        frame = getattr(result, name)
        file = "effects" if name == "table" else name
        assert len(frame)
        pd.testing.assert_frame_equal(read_table(out, f"effects/{file}"), frame)
    assert EffectsSummary.read(out) == result.summary
    assert result.summary.n_planned_rows > 0
    assert len(result.verdicts) == 3 * len(KINDS)
    assert result.summary.n_tests == 3 * len(KINDS)
    assert set(result.damage["arm"]) == {"splice", "chosen", "random"}


def test_equal_seeds_give_equal_tables(study: Study) -> None:
    lm, sae, sets, battery = study
    settings = config(interventions=("clamp",))
    first, again = (intervene(lm, sae, sets, battery, settings, quiet=True) for _ in range(2))
    pd.testing.assert_frame_equal(again.table, first.table)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_predicted_length_is_the_one_written(study: Study, kind: str, factor: float) -> None:
    lm, sae, sets, battery = study
    shared = EffectStudy(lm, sae, sets, battery, config())
    texts = shared.texts("neutral")
    edit = LatentEdit(shared, texts, kind, 1.5)
    rows = np.array([0, 2])
    job = Job(edit.specs((7, 30, 50), factor), texts=rows.tolist())
    measured = texts.meter.measure(job)
    if kind in ("add", "project_out"):
        factor = 1.0
    assert measured.tally.norm_sum == pytest.approx(edit.total((7, 30, 50), rows, factor), rel=1e-3)


def test_means_keep_the_order_of_the_pairs(study: Study) -> None:
    lm, sae, sets, battery = study
    shared = EffectStudy(lm, sae, sets, battery, config())
    want = text_means(lm, sae, [p.neutral.text for p in shared.confirm], batch_size=1)
    np.testing.assert_allclose(shared.neutral_means.latents, want.latents, atol=1e-5)
    np.testing.assert_allclose(shared.neutral_means.resid, want.resid, atol=1e-5)
    assert len({p.neutral.text for p in shared.confirm}) == 4


def test_one_dose_of_several_is_chosen_on_discovery_texts(study: Study) -> None:
    lm, sae, sets, battery = study
    settings = config(interventions=("clamp", "ablate_zero"), controls={"doses": (0.5, 1.0, 4.0)})
    result = intervene(lm, sae, sets[1:], battery, settings, quiet=True)
    doses = result.doses
    assert doses.groupby("emotion").size().tolist() == [3, 3]
    for _, own in doses.groupby("emotion"):
        best = own.loc[own["discovery_effect"].idxmax(), "strength"]
        assert own.loc[own["reported"], "strength"].tolist() == [best]
    chosen = result.table[(result.table["arm"] == "chosen")].groupby("intervention").size()
    assert chosen.to_dict() == {"ablate_zero": 2, "clamp": 6}
    assert result.summary.n_tests == 8
    assert "discovery" in result.summary.dose_rule
    verdict = result.verdicts.set_index("intervention").loc["clamp"]
    assert verdict["dose_slope"].notna().all()
    p = [*doses["p"], *result.verdicts.loc[result.verdicts["intervention"] == "ablate_zero", "p"]]
    assert doses["p_family"].min() == pytest.approx(min(1, 8 * min(p)))


def planted_sae(lm: LanguageModel, d_sae: int = 64) -> SparseAutoencoder:
    """Latents that are all active everywhere; latent 9 writes towards the words of grief."""
    config = sae_lens.StandardSAEConfig(
        d_in=lm.d_model,
        d_sae=d_sae,
        metadata=sae_lens.saes.sae.SAEMetadata(
            hook_name="blocks.1.hook_resid_post",
            model_name=lm.name,
            model_fingerprint=lm.fingerprint,
            skip_first=True,
            norm_limit=None,
        ),
    )
    sae = sae_lens.StandardSAE(config)
    rows = torch.randn(d_sae, lm.d_model, generator=torch.Generator().manual_seed(1))
    head = lm.model.get_output_embeddings().weight
    ids = {
        e: [lm.tokenizer.encode(" " + w, add_special_tokens=False)[0] for w in words]
        for e, words in EMOTION_WORDS.items()
    }
    others = torch.cat([head[ids[e]] for e in EMOTION_WORDS if e != "grief"])
    rows[9] = head[ids["grief"]].mean(0) - others.mean(0)
    rows /= rows.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.zero_()
        sae.b_enc.fill_(2.0)
        sae.b_dec.zero_()
    return SparseAutoencoder(sae)


@pytest.mark.parametrize("latent", [9, 20, 33])
def test_only_the_planted_latent_beats_every_control(worded: LanguageModel, latent: int) -> None:
    battery = make_battery(6)
    parts = {c: "discovery" if c.endswith("/1") else "confirmation" for c in battery.clusters}
    stats = pd.DataFrame(
        {"feature": range(64), "firing_rate": 1.0, "mean_active": 2.0, "max_active": 2.0}
    )
    chosen = FeatureSet("grief", (latent,), parts, stats, "planted")
    settings = config(
        interventions=("ablate_zero", "clamp"), n_random_sets=19, clamp_strength=3.0,
        controls={"n_directions": 19, "arms": ("random", "random_direction", "shuffled_labels",
                                               "diff_of_means", "dense_probe", "neurons")},
    )  # fmt: skip
    result = intervene(worded, planted_sae(worded), chosen, battery, settings, quiet=True)
    verdicts = result.verdicts.set_index("intervention")
    assert verdicts["beats_controls"].tolist() == [latent == 9] * 2
    if latent == 9:
        assert verdicts.loc["ablate_zero", "effect"] < 0 < verdicts.loc["clamp", "effect"]
        assert verdicts.loc["ablate_zero", "p"] == 1 / 32  # five clusters of its own


def test_without_random_sets_there_is_no_verdict(study: Study) -> None:
    lm, sae, sets, battery = study
    settings = config(interventions=("ablate_zero",), controls={"arms": ()})
    result = intervene(lm, sae, sets, battery, settings, quiet=True)
    assert set(result.table["arm"]) == {"chosen", "no_edit"}
    assert result.verdicts.empty
    assert result.summary.n_beating_random == {}
    assert result.summary.n_planned_rows == 4 + 2 + 2  # of 'all', grief and rage


def test_rows_are_planned_with_those_that_choose_doses(study: Study) -> None:
    lm, sae, sets, battery = study
    controls = {"arms": ("splice", "prompt"), "doses": (0.5, 1.0)}
    settings = config(interventions=("clamp",), controls=controls)
    summary = intervene(lm, sae, sets[:2], battery, settings, quiet=True).summary
    # Two sets at two doses on 2 discovery and 4 confirmation texts, one splice, three prompts
    # with the twin that both emotions share, or four.
    assert summary.n_planned_rows - (2 * 2 * (2 + 4) + 4) in (3 * 4, 4 * 4)


def test_words_of_a_file_are_read(study: Study, tmp_path: Path) -> None:
    lm, sae, sets, battery = study
    file = tmp_path / "words.yaml"
    some = {e: list(EMOTION_WORDS[e][:4]) for e in ("grief", "terror")}
    file.write_text(yaml.safe_dump(some), encoding="utf-8")
    settings = config(interventions=("ablate_zero",), measures={**FAST, "words": str(file)})
    result = intervene(lm, sae, sets[1], battery, settings, quiet=True)
    assert result.summary.words == str(file)
    with pytest.raises(ConfigError, match="no readout for 'rage'"):
        intervene(lm, sae, sets[1:], battery, settings, quiet=True)


def test_prompts_are_twins(tiny_llama: LanguageModel) -> None:
    named, twin = prompt_pair(tiny_llama, "grief")
    assert "grief" in named
    assert "grief" not in twin
    assert len(tiny_llama.token_ids(named)) == len(tiny_llama.token_ids(twin))


def test_readout_check_reads_scales_and_clusters(study: Study) -> None:
    lm, _, _, battery = study
    table = check_readout(lm, battery, config(measures={"scales": True})).set_index("emotion")
    assert table.index.tolist() == ["rage", "grief", "all", "valence", "arousal"]
    assert table.loc["all", "n_pairs"] == 6
    assert table.loc["grief", "n_pairs"] == 3
    assert table["calibrated"].all()
    assert 0 <= table.loc["grief", "auroc_own"] <= 1
    assert np.isnan(table.loc["all", "auroc_own"])
    plain = check_readout(lm, battery, config(measures={"calibrate": False}))
    assert "valence" not in set(plain["emotion"])
    assert not plain["calibrated"].any()


def test_fewer_pairs_are_spread_over_emotions(study: Study) -> None:
    lm, sae, sets, battery = study
    settings = config(n_random_sets=1, interventions=("ablate_zero", "clamp"), max_pairs=2)
    table = intervene(lm, sae, sets, battery, settings, quiet=True).table
    chosen = table[table["arm"] == "chosen"].set_index(["intervention", "emotion"])
    assert chosen.loc[("clamp", "all"), "n_items"] == 2
    assert chosen.loc[("ablate_zero", "grief"), "n_items"] == 1
    assert chosen.loc[("ablate_zero", "rage"), "n_items"] == 1


def test_bad_calls_are_refused(study: Study) -> None:
    lm, sae, sets, battery = study
    grief = sets[1]

    def refused(chosen: FeatureSet | list[FeatureSet], message: str, **values: object) -> None:
        pairs = values.pop("battery", battery)
        assert isinstance(pairs, Battery)
        with pytest.raises(ConfigError, match=message):
            intervene(lm, sae, chosen, pairs, config(**values), quiet=True)

    refused(replace(grief, features=()), r"no features to intervene on for \['grief'\]")
    refused(grief, "use the battery that was searched", battery=load_battery().select(
        emotions=["terror"]))  # fmt: skip
    refused(replace(grief, emotion="positive"), "there is no readout for 'positive'")
    refused(replace(grief, features=(96,)), "belong to another SAE: they name latent 96")
    refused(replace(grief, stats=make_stats(50)), "another SAE: they name statistics of 50")
    refused(replace(grief, sae_sha256="0" * 64), "another SAE: they name the SAE 000000000000")
    refused([grief, grief], "two sets of features for one emotion")
    refused([sets[0], replace(grief, parts={})], "different splits")
    refused(replace(grief, parts=dict.fromkeys(grief.parts, "discovery")), "confirmation")
    refused(replace(grief, stats=grief.stats.iloc[:0]), "no firing statistics")
    refused(replace(sets[2], emotion="terror"), "no pair of terror is among the 4 confirmation")
    dead = grief.stats.copy()
    dead.loc[3, "max_active"] = 0.0
    refused(replace(grief, stats=dead), "latent 3 never fired.*leave it out",
            interventions=("clamp",))  # fmt: skip
    refused(grief, "not finite|infinite", clamp_strength=1e300, interventions=("clamp",))
    with pytest.raises(ConfigError, match=r"clamp_strength: .*finite"):
        config(clamp_strength=float("inf"))
    with pytest.raises(ConfigError, match="given twice"):
        config(controls={"doses": (1.0, 1.0)})


def test_steering_writes_each_arm(study: Study, tmp_path: Path) -> None:
    lm, sae, sets, _ = study
    settings = SteerConfig(prompts=("One.", "Two, three."), strengths=(4.0,), max_new_tokens=5)
    rows = steer(lm, sae, sets[:2], settings, out=tmp_path, quiet=True)
    assert read_generations(tmp_path) == rows
    assert [r.strength for r in rows] == [0.0, 0.0, 4.0, 4.0] * 2
    assert rows[0].text == rows[4].text  # unedited text does not depend on the set
