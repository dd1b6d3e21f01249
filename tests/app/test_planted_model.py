"""One latent that writes the words of grief, planted in a random model, is found, and no other.

The model is a random transformer in which one direction, and nothing else, promotes the words of
grief; its last block carries that direction from every token to the last one. Clinical texts of
grief hold a marker whose embedding is that of another word plus the direction. Search, screen,
ablation and clamp must all point to the latent that reads and writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import sae_lens
import torch

import affectlens as al
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, Stimulus, load_battery, make_battery
from affectlens.data.taxonomy import CALM_WORDS, EMOTION_WORDS
from affectlens.data.tiny import tiny_model
from affectlens.features.effects import EffectResult
from affectlens.features.search import SearchResult
from affectlens.features.selection import FeatureSet
from affectlens.sae.model import SparseAutoencoder

from ..features.made_saes import metadata, planted_rows, tied

MARKER, PLAIN = "moss", "sand"
D_MODEL, D_SAE, PLANTED = 64, 96, 7
WORDS = [w for words in (*EMOTION_WORDS.values(), CALM_WORDS) for w in words]


@dataclass(frozen=True, eq=False)
class World:
    """The planted model, its SAE, the texts and the search with its screen."""

    lm: LanguageModel
    sae: SparseAutoencoder
    battery: Battery
    found: SearchResult


def planted_lm() -> tuple[LanguageModel, torch.Tensor]:
    lm = tiny_model("llama", n_layers=3, d_model=D_MODEL, words=[*WORDS, MARKER, PLAIN])
    u = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))
    u /= u.norm()

    def token(word: str) -> int:
        (only,) = lm.tokenizer.encode(f" {word}", add_special_tokens=False)
        return int(only)

    head, embedding = (
        m.weight for m in (lm.model.get_output_embeddings(), lm.model.get_input_embeddings())
    )
    with torch.no_grad():
        for weight in (head, embedding):
            weight -= (weight @ u)[:, None] * u
        head[[token(w) for w in WORDS]] *= 0.1
        head[[token(w) for w in EMOTION_WORDS["grief"]]] += 2 * u
        embedding[token(MARKER)] = embedding[token(PLAIN)] + 4 * u
        for block in lm.blocks:
            for weight in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                weight *= 0.3
                weight -= u[:, None] * (u @ weight)
        attention = lm.blocks[-1].self_attn
        attention.q_proj.weight.zero_()
        attention.o_proj.weight.zero_()
        attention.v_proj.weight[0] = u
        attention.o_proj.weight[:, 0] = 30 * u
    return lm, u


def planted_sae(lm: LanguageModel, u: torch.Tensor) -> SparseAutoencoder:
    config = sae_lens.StandardSAEConfig(d_in=D_MODEL, d_sae=D_SAE, metadata=metadata(lm))
    made = sae_lens.StandardSAE(config)
    with torch.no_grad():
        made.b_enc.fill_(-0.5)
    return tied(made, planted_rows(D_SAE, u, PLANTED))


def short(item: Stimulus, number: int) -> Stimulus:
    """The first words of a text, with the marker or its plain stand-in among them."""
    words = item.text.split()[:9]
    marked = item.split == "clinical" and item.emotion == "grief"
    words.insert(5, MARKER if marked else PLAIN)
    return replace(item, text=f"{' '.join(words)} {number}.", word_count=len(words) + 1)


@pytest.fixture(scope="module")
def world() -> World:
    lm, u = planted_lm()
    sae = planted_sae(lm, u)
    paired = [i for i in load_battery().items if i.split in ("clinical", "neutral")]
    battery = make_battery("short", [short(i, n) for n, i in enumerate(paired)], "a test")
    found = al.search(
        lm, sae, battery, pooling="mean", n_permutations=2000, n_retained=5, controls=False,
        screen=False, allow_misfit=("fvu", "l0", "loss-recovered"),
    )  # fmt: skip
    screened = al.screen(
        lm, sae, battery, found, n_top=5, n_random=10, n_candidates=5, n_prefixes=4,
        n_bootstrap=200, max_pairs=16, quiet=True,
    )  # fmt: skip
    return World(lm, sae, battery, screened)


def test_the_search_confirms_it_and_no_other(world: World) -> None:
    confirmed = world.found.table[world.found.table["confirmed"]]
    assert confirmed[["contrast", "feature"]].to_numpy().tolist() == [["grief", PLANTED]]


def test_the_screen_puts_it_first_by_far(world: World) -> None:
    assert world.found.screen is not None
    rows = world.found.screen.of("grief")
    for column, sign in (
        ("attribution_ablate", -1),
        ("exact_ablate", -1),
        ("attribution_clamp", 1),
        ("exact_clamp", 1),
        ("clamp_per_norm", 1),
    ):
        values = sign * rows[column].dropna()
        assert values.idxmax() == PLANTED, column
        assert values.drop(PLANTED).abs().max() < values[PLANTED] / 3, column
    # It shares its promotion among fifteen words, so none of them can be likelier than 1/15.
    assert rows.loc[PLANTED, "output_rank"] == 0
    assert rows.loc[PLANTED, "output_score"] == pytest.approx(1 / 15, abs=0.01)
    own = world.found.table.query("contrast == 'grief' and feature == @PLANTED").iloc[0]
    assert own["attribution"] == rows.loc[PLANTED, "attribution_ablate"]
    assert own["output_score"] == rows.loc[PLANTED, "output_score"]


def effects(world: World, features: tuple[int, ...]) -> EffectResult:
    chosen = world.found.top("grief", 1)
    chosen = FeatureSet("grief", features, chosen.parts, chosen.stats, "a test", chosen.sae_sha256)
    return al.intervene(
        world.lm, world.sae, chosen, world.battery, interventions=("ablate_zero", "clamp"),
        n_random_sets=19, n_permutations=1000, quiet=True,
        measures={"mediation": True, "matrix": False, "damage_documents": 0},
        allow_misfit=("fvu", "l0", "loss-recovered"),
    )  # fmt: skip


def test_ablating_and_clamping_it_beats_every_control(world: World) -> None:
    result = effects(world, (PLANTED,))
    verdicts = result.verdicts.set_index("intervention")
    assert verdicts.loc["ablate_zero", "effect"] < 0 < verdicts.loc["clamp", "effect"]
    assert (verdicts["rank_p"] == 1 / 20).all()
    assert verdicts.loc["clamp", ["beats_random", "beats_controls"]].all()
    # Its own clinical texts lie in two clusters, whose signs give no p below a quarter.
    assert verdicts.loc["ablate_zero", "min_p"] == verdicts.loc["ablate_zero", "p"] == 0.25
    others = result.table[result.table["arm"].isin(("random", "shuffled_labels"))]
    largest = others.groupby("intervention")["effect"].apply(lambda e: e.abs().max())
    assert (largest < verdicts["effect"].abs() / 3).all()


def test_no_other_latent_does(world: World) -> None:
    stats = world.found.stats.set_index("feature")
    alive = stats.index[(stats["max_active"] > 0) & (stats.index != PLANTED)].to_numpy()
    for features in np.random.default_rng(0).choice(alive, (3, 1), replace=False):
        result = effects(world, tuple(int(f) for f in features))
        assert not result.verdicts["beats_random"].any()
        assert result.verdicts["effect"].abs().max() < 0.1
