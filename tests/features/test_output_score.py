"""Output score by its definition, a planted latent, the mask, and input scores by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from affectlens.data.errors import ConfigError
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.features.logit_lens import Lens, TokenLogit
from affectlens.features.output_score import PREFIXES, input_scores, output_scores
from affectlens.features.results import Context
from affectlens.sae.model import SparseAutoencoder

from .made_saes import HOOK, planted_lm, topk_sae, unit_rows

WORDS = ("tears", "loss", "sorrow", "wrath")
OPENINGS = ("The shop opens at", "On it lay", "We looked at the map and")
PLANTED = 7


def make_sae(
    lm: LanguageModel,
    direction: torch.Tensor,
    *,
    hook: str = HOOK,
    norm_limit: float | None = None,
    norm: str = "none",
) -> SparseAutoencoder:
    rows = unit_rows(24, lm.d_model)
    rows[PLANTED] = direction
    return topk_sae(lm, rows, k=4, hook=hook, norm_limit=norm_limit, norm=norm)


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.0.hook_resid_pre"])
@pytest.mark.parametrize("norm", ["none", "layer_norm"])
def test_score_by_its_definition(hook: str, norm: str) -> None:
    lm, direction = planted_lm(WORDS, WORDS)
    sae = make_sae(lm, direction, hook=hook, norm=norm)
    features, maxima = (3, PLANTED, 11), (0.7, 0.5, 1.1)
    found = output_scores(
        lm, sae, features, maxima, strength=2.0, prefixes=OPENINGS, n_tokens=4, batch_size=5
    )
    assert found.n_prefixes == 3
    for row, (feature, top) in enumerate(zip(features, maxima, strict=True)):
        tokens = [t.token for t in found.promoted[feature].promoted]
        assert len(tokens) == 4
        by_hand = []
        for text in OPENINGS:

            def add(x: torch.Tensor, _: object, f: int = feature, m: float = top) -> torch.Tensor:
                x = x.clone()
                x[:, -1] += 2.0 * m * sae.output_scale(x[:, -1]) * sae.W_dec[f]
                return x

            with edit(lm, {hook: add}):
                logits = lm.forward_logits(lm.encode([text]))[0].double()
            p = torch.softmax(logits, -1).numpy()
            rank = min(int((p > p[t]).sum()) for t in tokens)
            best = max(p[t] for t in tokens)
            by_hand.append(((1 - rank / len(p)) * best, rank, best))
        got = found.table.loc[row, ["output_score", "output_rank", "output_probability"]]
        np.testing.assert_allclose(got.astype(float), np.mean(by_hand, axis=0), rtol=1e-4)
    assert found.table["feature"].tolist() == list(features)


def test_the_planted_latent_stands_out() -> None:
    lm, direction = planted_lm(WORDS, WORDS)
    sae = make_sae(lm, direction)
    found = output_scores(lm, sae, range(24), [2.0] * 24, n_tokens=4)
    assert found.n_prefixes == len(PREFIXES) >= 20
    scores = found.table.set_index("feature")["output_score"]
    texts = {t.text for t in found.promoted[PLANTED].promoted}
    assert texts == {f" {w}" for w in WORDS}
    assert scores.idxmax() == PLANTED
    assert scores[PLANTED] > 0.9 * found.table["output_probability"].max() > 0.2
    assert scores.drop(PLANTED).max() < 0.6 * scores[PLANTED]
    assert found.table.set_index("feature").loc[PLANTED, "output_rank"] == 0


def test_masked_openings_are_counted_and_all_masked_are_refused() -> None:
    lm, direction = planted_lm(WORDS, WORDS)
    sae = make_sae(lm, direction)
    found = output_scores(lm, sae, [1], [1.0], prefixes=["A", *OPENINGS])
    assert (found.n_prefixes, found.n_masked) == (3, 1)
    alone = output_scores(lm, sae, [1], [1.0], prefixes=OPENINGS)
    np.testing.assert_allclose(
        found.table.drop(columns="feature"), alone.table.drop(columns="feature"), rtol=1e-4
    )
    blind = make_sae(lm, direction, norm_limit=1e-9)
    with pytest.raises(ConfigError, match="last token of all 3 openings"):
        output_scores(lm, blind, [1], [1.0], prefixes=OPENINGS)


def test_latents_without_a_unit_are_refused() -> None:
    lm, direction = planted_lm(WORDS, WORDS)
    sae = make_sae(lm, direction)
    with pytest.raises(ConfigError, match=r"latents \[2\] never fire"):
        output_scores(lm, sae, [1, 2], [1.0, 0.0], prefixes=OPENINGS)
    with pytest.raises(ConfigError, match="not finite"):
        output_scores(lm, sae, [1], [1.0], strength=1e39, prefixes=OPENINGS)
    none = output_scores(lm, sae, [], [], prefixes=OPENINGS)
    assert none.table.empty
    assert list(none.table) == ["feature", "output_score", "output_rank", "output_probability"]


def test_openings_are_distinct_and_open() -> None:
    assert len(set(PREFIXES)) == len(PREFIXES)
    assert not any(p.endswith((" ", ".", "!", "?")) for p in PREFIXES)


def test_input_score_by_hand() -> None:
    lens = Lens((TokenLogit(4, " tears", 2.0), TokenLogit(5, " loss", 1.0)), ())
    context = Context(3, "d", 0, 1, ["the", " tears", "."], [0.0, 2.0, 0.0])
    others = [dataclasses.replace(context, peak=0), dataclasses.replace(context, feature=9)]
    found = input_scores({3: lens, 4: lens}, [context, *others, context])
    assert found == {3: pytest.approx(2 / 3)}
