"""Readouts, measurement from a stored residual, matched controls, the study on tiny models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch

from affectlens.data.errors import ConfigError
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel, load_model
from affectlens.data.stimuli import Battery, load_battery
from affectlens.features import effects, readouts
from affectlens.features.controls import clamp_targets, matched_targets, random_sets
from affectlens.features.effects import intervene
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.interventions import Clamp, residual_edit
from affectlens.features.measure import Meter
from affectlens.features.readouts import WordSets, readout_scores, unedited_readout, word_sets
from affectlens.features.results import EffectsSummary, read_generations, read_table
from affectlens.features.selection import FeatureSet
from affectlens.features.steering import steer
from affectlens.sae.model import SparseAutoencoder

TEMPLATES = (" It felt", "\nAll in all it was")
TEXTS = ["She read the letter twice.", "The boat left.", "He folded the map and went on."]


def words_for(lm: LanguageModel) -> WordSets:
    """Word sets of single byte tokens, since the tiny tokenizer knows no words."""
    ids = {e: tuple(range(10 * i, 10 * i + 3)) for i, e in enumerate(("grief", "rage", "calm"))}
    names = {e: tuple(map(str, t)) for e, t in ids.items()}
    return WordSets(ids, names, dict.fromkeys(ids, ()))


def make_sae(lm: LanguageModel, layer: int = 1, d_sae: int = 96) -> SparseAutoencoder:
    sae = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(
            d_in=lm.d_model,
            d_sae=d_sae,
            k=8,
            metadata=sae_lens.saes.sae.SAEMetadata(
                hook_name=f"blocks.{layer}.hook_resid_post",
                model_name=lm.name,
                model_fingerprint=lm.fingerprint,
                skip_first=True,
                norm_limit=None,
            ),
        )
    )
    rows = torch.randn(d_sae, lm.d_model, generator=torch.Generator().manual_seed(5))
    rows /= rows.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return SparseAutoencoder(sae)


def make_stats(d_sae: int = 96, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rate = 10 ** rng.uniform(-3, -0.5, d_sae)
    return pd.DataFrame(
        {
            "feature": range(d_sae),
            "firing_rate": rate,
            "mean_active": rng.uniform(0.2, 1, d_sae),
            "max_active": rng.uniform(1, 3, d_sae),
        }
    )


def test_readout_by_hand() -> None:
    p = torch.tensor([[0.1, 0.3, 0.2, 0.15, 0.25]]).log()
    sets = WordSets({"a": (0, 1), "b": (2,), "calm": (3,)}, {}, {})
    got = readout_scores(p, sets)[0]
    assert got == pytest.approx([np.log(0.4 / 0.2), np.log(0.2 / 0.4), np.log(0.6 / 0.15)])


def test_split_words_are_counted_and_too_few_are_refused(tiny_llama: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="'grief' keeps 0 of 2 readout words"):
        word_sets(tiny_llama, {"grief": ["sorrow", "grief"]})
    lm = load_model("tiny:llama")
    sets = word_sets(lm, {"grief": ["grief", "loss", "sorrow", "zzz"]})
    assert sets.words == {"grief": ("grief", "loss", "sorrow")}
    assert sets.dropped == {"grief": ("zzz",)}
    with pytest.raises(ConfigError, match="stands in 'a' and 'b'"):
        word_sets(lm, {"a": ["grief", "loss", "sorrow"], "b": ["loss"]})


def test_meter_equals_a_full_edited_pass(lm: LanguageModel) -> None:
    sae, sets = make_sae(lm), words_for(lm)
    meter = Meter(lm, sae, TEXTS, sets, TEMPLATES, batch_size=2)
    np.testing.assert_allclose(
        meter.unedited, unedited_readout(lm, TEXTS, sets, TEMPLATES), atol=1e-4
    )
    specs = [Clamp((3, 4), (3.0, 1.0))]
    measured = meter.measure(lambda _start, _stop: specs)
    fn, _ = residual_edit(sae, specs)
    with edit(lm, {sae.info.hook_name: fn}):
        full = unedited_readout(lm, TEXTS, sets, TEMPLATES)
    np.testing.assert_allclose(meter.unedited + measured.effect, full, atol=1e-4)
    assert (measured.kl > 0).all()
    assert measured.tally.calls == 4  # two templates of two batches


def test_an_edit_that_changes_nothing_has_exactly_no_effect(lm: LanguageModel) -> None:
    meter = Meter(lm, make_sae(lm), TEXTS, words_for(lm), TEMPLATES)
    measured = meter.measure(lambda _start, _stop: [])
    assert not measured.effect.any()
    assert not measured.kl.any()
    assert measured.tally.tokens == 0


def test_meter_reads_the_input_of_block_zero(tiny_llama: LanguageModel) -> None:
    sae = make_sae(tiny_llama)
    sae.sae.cfg.metadata.hook_name = "blocks.0.hook_resid_pre"
    sae = SparseAutoencoder(sae.sae)
    meter = Meter(tiny_llama, sae, TEXTS, words_for(tiny_llama), TEMPLATES)
    assert meter.measure(lambda _start, _stop: [Clamp((1,), (9.0,))]).effect.any()


def test_random_sets_are_matched_disjoint_and_seeded() -> None:
    stats, chosen = make_stats(), (3, 40, 77)
    sets = random_sets(stats, chosen, chosen, 30, np.random.default_rng(1))
    again = random_sets(stats, chosen, chosen, 30, np.random.default_rng(1))
    assert sets == again
    assert len(set(sets)) > 1
    for one in sets:
        assert len(set(one)) == 3
        assert not set(one) & set(chosen)
    few = stats.copy()
    few.loc[few["feature"] > 4, "firing_rate"] = 0.0
    with pytest.raises(ConfigError, match="only 2 live latents"):
        random_sets(few, (1, 2, 3), (1, 2, 3), 1, np.random.default_rng(1))


def test_random_sets_follow_the_firing_rate() -> None:
    stats = make_stats(2000)
    chosen = (int(stats["firing_rate"].idxmax()),)
    drawn = random_sets(stats, chosen, chosen, 40, np.random.default_rng(0))
    rates = stats["firing_rate"].to_numpy()
    assert min(rates[f] for (f,) in drawn) > 0.5 * rates[chosen[0]]


def test_matched_targets_have_the_norm_of_the_chosen(tiny_llama: LanguageModel) -> None:
    sae, stats = make_sae(tiny_llama), make_stats()
    reference = clamp_targets(stats, (1, 2), 1.5)
    other = clamp_targets(stats, (8, 9), 1.5)
    scaled = matched_targets(other, sae.W_dec, (8, 9), (1, 2), reference)
    rows = sae.W_dec.numpy()
    assert np.linalg.norm(scaled @ rows[[8, 9]]) == pytest.approx(
        np.linalg.norm(reference @ rows[[1, 2]]), rel=1e-5
    )


@pytest.fixture
def study(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> tuple[LanguageModel, SparseAutoencoder, list[FeatureSet], Battery]:
    places = [f"{e}/{d}" for e in ("grief", "rage") for d in "123"]
    battery = load_battery().select(clusters=places, limit=12)
    monkeypatch.setattr(effects, "word_sets", lambda lm, _words: words_for(lm))
    parts = {c: "confirmation" if c.endswith("/3") else "discovery" for c in battery.clusters}
    stats = make_stats()
    sets = [
        FeatureSet(e, features, parts, stats, "a test")
        for e, features in (("all", (1, 2)), ("grief", (3, 4)), ("rage", (5,)))
    ]
    return tiny_llama, make_sae(tiny_llama), sets, battery


def test_study_has_every_arm_and_round_trips(study, tmp_path: Path) -> None:
    lm, sae, sets, battery = study
    config = InterveneConfig(
        n_random_sets=3,
        interventions=("ablate_zero", "ablate_neutral", "clamp", "scale"),
        templates=TEMPLATES,
        n_bootstrap=100,
    )
    result = intervene(lm, sae, sets, battery, config, out=tmp_path, quiet=True)
    table = result.table
    counts = table.groupby(["intervention", "arm"]).size()
    assert counts["clamp", "chosen"] == 3
    assert counts["clamp", "random"] == 9
    assert counts["clamp", "diff_of_means"] == counts["clamp", "random_direction"] == 3
    assert counts["ablate_zero", "random"] == 9
    grief = table[(table["emotion"] == "grief") & (table["arm"] == "chosen")]
    by_name = grief.set_index("intervention")
    assert by_name.loc["ablate_zero", "n_items"] == 2  # own confirmation items
    assert by_name.loc["clamp", "n_items"] == 4  # every confirmation neutral
    assert (table["hook_calls"] > 0).all()
    assert len(result.verdicts) == 12
    pd.testing.assert_frame_equal(read_table(tmp_path, "effects/effects"), table)
    assert EffectsSummary.read(tmp_path) == result.summary
    again = intervene(lm, sae, sets, battery, config, quiet=True)
    pd.testing.assert_frame_equal(again.table, table)


def test_clamp_arms_write_about_the_same_norm(study) -> None:
    lm, sae, sets, battery = study
    config = InterveneConfig(n_random_sets=4, interventions=("clamp",), n_bootstrap=100)
    table = intervene(lm, sae, sets[1], battery, config, quiet=True).table.set_index("arm")
    chosen = float(table.loc["chosen", "delta_norm"])
    assert table.loc["random_direction", "delta_norm"] == pytest.approx(chosen, rel=1e-3)
    assert table.loc["random", "delta_norm"].mean() == pytest.approx(chosen, rel=0.25)


def test_bad_calls_are_refused(study) -> None:
    lm, sae, sets, battery = study
    empty = FeatureSet("grief", (), sets[0].parts, sets[0].stats)
    with pytest.raises(ConfigError, match=r"no features to intervene on for \['grief'\]"):
        intervene(lm, sae, empty, battery, quiet=True)
    other = load_battery().select(emotions=["terror"])
    with pytest.raises(ConfigError, match="use the battery that was searched"):
        intervene(lm, sae, sets, other, quiet=True)


def test_steering_writes_each_arm(study, tmp_path: Path) -> None:
    lm, sae, sets, _ = study
    config = SteerConfig(prompts=("One.", "Two, three."), strengths=(4.0,), max_new_tokens=5)
    rows = steer(lm, sae, sets[:2], config, out=tmp_path, quiet=True)
    assert read_generations(tmp_path) == rows
    assert [r.strength for r in rows] == [0.0, 0.0, 4.0, 4.0] * 2
    assert rows[0].text == rows[4].text  # unedited text does not depend on the set


def test_readout_words_are_disjoint() -> None:
    words = [w for group in readouts.READOUT_WORDS.values() for w in group]
    assert len(words) == len(set(words))


def test_fewer_pairs_are_spread_over_emotions(study) -> None:
    lm, sae, sets, battery = study
    config = InterveneConfig(
        n_random_sets=1, interventions=("ablate_zero", "clamp"), templates=TEMPLATES[:1],
        n_bootstrap=100, max_pairs=2,
    )  # fmt: skip
    table = intervene(lm, sae, sets, battery, config, quiet=True).table
    chosen = table[table["arm"] == "chosen"].set_index(["intervention", "emotion"])
    assert chosen.loc[("clamp", "all"), "n_items"] == 2
    assert chosen.loc[("ablate_zero", "grief"), "n_items"] == 1
    assert chosen.loc[("ablate_zero", "rage"), "n_items"] == 1


def test_an_emotion_without_a_readout_is_refused(study) -> None:
    lm, sae, sets, battery = study
    unread = [FeatureSet("positive", (1,), sets[0].parts, sets[0].stats, "a test")]
    with pytest.raises(ConfigError, match="there is no readout for 'positive'"):
        intervene(lm, sae, unread, battery, InterveneConfig(), quiet=True)
