"""Mediation: ratios with intervals by hand, and shares known from a model made for the purpose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch

from affectlens.data.hooks import capture, edit
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, load_battery
from affectlens.data.taxonomy import CALM_WORDS, EMOTION_WORDS
from affectlens.data.tiny import tiny_model
from affectlens.features.effect_study import EffectStudy
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.mediation import Mediation, ratio_of_means
from affectlens.features.readouts import readout_of
from affectlens.features.selection import FeatureSet
from affectlens.sae.model import SparseAutoencoder

WORDS = [w for words in (*EMOTION_WORDS.values(), CALM_WORDS) for w in words]
D_MODEL = 16


def test_a_ratio_has_parts_and_an_interval(rng: np.random.Generator) -> None:
    clusters = [f"c{i // 2}" for i in range(12)]
    denominator = 4 + rng.normal(0, 0.5, 12)
    r = ratio_of_means(denominator / 2 + rng.normal(0, 0.1, 12), denominator, clusters)
    assert r.value == pytest.approx(r.numerator / r.denominator)
    assert r.low < 0.5 < r.high
    assert 0 < r.denominator_low < r.denominator < r.denominator_high
    assert r.reason == ""


def test_equal_parts_give_one_and_no_part_gives_zero(rng: np.random.Generator) -> None:
    x, clusters = rng.normal(3, 1, 30), [f"c{i // 3}" for i in range(30)]
    same = ratio_of_means(x, x, clusters)
    assert (same.value, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))
    none = ratio_of_means(0 * x, x, clusters)
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_a_denominator_near_zero_gives_no_ratio(rng: np.random.Generator, scale: float) -> None:
    x = scale * rng.normal(0, 1, 40)
    r = ratio_of_means(np.ones(40), x, [f"c{i // 2}" for i in range(40)])
    assert np.isnan([r.value, r.low, r.high]).all()
    assert "cannot be told from 0" in r.reason
    assert r.numerator == 1


@pytest.mark.parametrize("n_clusters", [1, 4])
def test_few_clusters_give_no_ratio(n_clusters: int) -> None:
    r = ratio_of_means(np.ones(8), np.ones(8), [f"c{i % n_clusters}" for i in range(8)])
    assert np.isnan(r.value)
    assert f"{n_clusters} clusters" in r.reason


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_model("llama", n_layers=2, d_model=D_MODEL, words=WORDS)


def complete_sae(lm: LanguageModel) -> SparseAutoencoder:
    """Two latents for each coordinate, one a side: x = sum z W_dec without error."""
    config = sae_lens.StandardSAEConfig(
        d_in=D_MODEL,
        d_sae=2 * D_MODEL,
        metadata=sae_lens.saes.sae.SAEMetadata(
            hook_name="blocks.0.hook_resid_post",
            model_name=lm.name,
            model_fingerprint=lm.fingerprint,
            skip_first=False,
            norm_limit=None,
        ),
    )
    sae = sae_lens.StandardSAE(config)
    sides = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])
    with torch.no_grad():
        sae.W_dec.copy_(sides)
        sae.W_enc.copy_(sides.T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return SparseAutoencoder(sae)


def study_of(lm: LanguageModel, features: tuple[int, ...]) -> tuple[EffectStudy, Battery]:
    battery = load_battery().select(clusters=[f"grief/{d}" for d in range(1, 6)], limit=5)
    parts = {c: "discovery" if c.endswith("/1") else "confirmation" for c in battery.clusters}
    stats = pd.DataFrame(
        {"feature": range(32), "firing_rate": 0.5, "mean_active": 1.0, "max_active": 2.0}
    )
    config = InterveneConfig.parse(
        {
            "templates": (" It felt",),
            "measures": {"set_sizes": (2,), "mediation_random": 2, "calibrate": False},
        }
    )
    chosen = FeatureSet("grief", features, parts, stats, "a test")
    return EffectStudy(lm, complete_sae(lm), [chosen], battery, config), battery


def test_every_latent_together_is_faithful_and_nothing_is_left(lm: LanguageModel) -> None:
    """Of a set with every latent but a few, moving it is nearly all of the edit of all latents."""
    study, _ = study_of(lm, tuple(range(30)))
    settings = {"mediation_random": 0, "set_sizes": ()}
    config = study.config.model_copy(
        update={"measures": study.config.measures.model_copy(update=settings)}
    )
    study.config = config
    table = Mediation(study).table().set_index("measure")
    parts = table["numerator"] / table["denominator"]
    assert parts["faithfulness"] == pytest.approx(1, abs=0.35)
    assert parts["completeness"] == pytest.approx(0, abs=0.35)


def test_the_parts_are_those_of_edits_made_by_hand(lm: LanguageModel) -> None:
    study, battery = study_of(lm, (3, 20))
    table = Mediation(study).table()
    own = [p for p in battery.pairs if not p.cluster.endswith("/1")]
    column = study.column("grief")

    def means(texts: list[str]) -> np.ndarray:
        hook, found = study.sae.info.hook_name, []
        for text in texts:
            x = capture(lm, [hook], lm.encode([text]))[hook][0]
            found.append(torch.cat([x.clamp(min=0), (-x).clamp(min=0)], -1).mean(0).numpy())
        return np.stack(found)

    def read(texts: list[str], change) -> float:
        total = 0.0
        for i, text in enumerate(texts):
            with edit(lm, {study.sae.info.hook_name: lambda x, _, i=i: change(x, i)}):
                total += float(readout_of(lm, [text], study.readout)[0, column])
        return total / len(texts)

    clinical = [p.clinical.text for p in own]
    neutral = [p.neutral.text for p in own]
    up, down = means(clinical), means(neutral)
    sides = np.concatenate([np.eye(D_MODEL), -np.eye(D_MODEL)])

    def moved(which: list[int]):
        return lambda x, i: (
            x + torch.tensor(((down[i] - up[i])[which] @ sides[which]).astype(np.float32))
        )

    def put(values: np.ndarray):
        def change(x: torch.Tensor, i: int) -> torch.Tensor:
            x = x.clone()
            z3, z4 = x[..., 3].clamp(min=0), (-x[..., 4]).clamp(min=0)
            x[..., 3] += float(values[i, 3]) - z3
            x[..., 4] -= float(values[i, 20]) - z4
            return x

        return change

    everything = list(range(32))
    full, low = read(clinical, lambda x, _: x), read(neutral, lambda x, _: x)
    empty = read(clinical, moved(everything))
    wanted = {
        "remainder": (empty - low, full - low),
        # The made SAE has no error: its reconstruction is the stream, and the rest is nothing.
        "reconstruction_share": (full - low, full - low),
        "error_share": (
            read(clinical, lambda x, _: 0 * x) - read(neutral, lambda x, _: 0 * x),
            full - low,
        ),
        "necessity": (full - read(clinical, put(down)), full - low),
        "sufficiency": (read(neutral, put(up)) - low, full - low),
        "faithfulness": (
            read(clinical, moved([f for f in everything if f not in (3, 20)])) - empty,
            full - empty,
        ),
        "completeness": (read(clinical, moved([3, 20])) - empty, full - empty),
    }
    found = table[table["arm"].isin(["chosen", "all"])].set_index("measure")
    for measure, (numerator, denominator) in wanted.items():
        assert found.loc[measure, "numerator"] == pytest.approx(numerator, abs=2e-4), measure
        assert found.loc[measure, "denominator"] == pytest.approx(denominator, abs=2e-4), measure


def test_sets_are_named_and_sized(lm: LanguageModel) -> None:
    study, _ = study_of(lm, (3, 20, 7))
    table = Mediation(study).table()
    sizes = table[table["measure"] == "necessity"].set_index(["arm", "set_index"])["n_features"]
    assert sizes.to_dict() == {
        ("chosen", 0): 3, ("random", 0): 3, ("random", 1): 3, ("ranked", 0): 2
    }  # fmt: skip
    told = table["reason"].eq("") == table["value"].notna()
    assert told.all()
