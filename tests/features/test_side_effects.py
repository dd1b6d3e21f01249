"""Costs on plain text against full edited passes, exact zeros, per-document values, wrong input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sae_lens
import torch

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.features.interventions import residual_edit
from affectlens.features.jobs import Job
from affectlens.features.side_effects import SIDE_EFFECT_COLUMNS, side_effects
from affectlens.features.specs import (
    Ablate,
    AddDirection,
    AddLatents,
    Clamp,
    PerRow,
    ProjectOut,
    Scale,
    SetRows,
    Spec,
)
from affectlens.sae.model import SparseAutoencoder

TEXTS = ["She read the letter twice.", "The boat left.", "He folded the map and went on.", "Z"]


def make_sae(lm: LanguageModel, hook: str = "blocks.1.hook_resid_post") -> SparseAutoencoder:
    sae = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(
            d_in=lm.d_model,
            d_sae=96,
            k=8,
            metadata=sae_lens.saes.sae.SAEMetadata(
                hook_name=hook,
                model_name=lm.name,
                model_fingerprint=lm.fingerprint,
                skip_first=True,
                norm_limit=None,
            ),
        )
    )
    rows = torch.randn(96, lm.d_model, generator=torch.Generator().manual_seed(5))
    rows /= rows.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return SparseAutoencoder(sae)


def by_hand(
    lm: LanguageModel, sae: SparseAutoencoder, job: Job, text: str, specs: list[Spec]
) -> tuple[float, float]:
    """KL and increase of cross-entropy of one document, two whole passes without padding."""
    batch = lm.encode([text])
    before = lm.forward_logits(batch, last_only=False)[0].double().log_softmax(-1)[:-1]
    function, _ = residual_edit(sae, specs, job.scope, job.error)
    with edit(lm, {sae.info.hook_name: function}):
        after = lm.forward_logits(batch, last_only=False)[0].double().log_softmax(-1)[:-1]
    wanted = batch.input_ids[0, 1:, None]
    kl = float((before.exp() * (before - after)).sum(-1).mean())
    return kl, float((before.gather(1, wanted) - after.gather(1, wanted)).mean())


JOBS: dict[str, Job] = {
    "clamp": Job([Clamp((3, 4), (3.0, 1.0))]),
    "direction": Job([AddDirection((0.3,) * 32)], scope="all"),
    "project": Job([ProjectOut(((1.0,) * 32,))]),
    "steer": Job([AddLatents((5,), (0.4,))], scope="last"),
    "no error": Job([], error="drop"),
}


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.0.hook_resid_pre"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_costs_are_those_of_whole_edited_passes(
    lm: LanguageModel, hook: str, batch_size: int
) -> None:
    sae = make_sae(lm, hook)
    table = side_effects(lm, sae, JOBS, TEXTS, batch_size=batch_size)
    assert list(table.columns) == list(SIDE_EFFECT_COLUMNS)
    assert table["job"].tolist() == [name for name in JOBS for _ in TEXTS]
    assert table["document"].tolist() == [0, 1, 2, 3] * len(JOBS)
    for row in table.itertuples():
        if row.n_tokens == 0:
            continue
        job = JOBS[row.job]
        kl, increase = by_hand(lm, sae, job, TEXTS[row.document], list(job.specs))  # type: ignore[arg-type]
        assert row.kl == pytest.approx(kl, abs=1e-5)
        assert row.ce_increase == pytest.approx(increase, abs=1e-5)
    real = table[table["n_tokens"] > 0]
    assert (real["kl"] >= 0).all()
    assert (real[real["job"].isin(["clamp", "direction", "project"])]["kl"] > 0).all()


def test_edits_without_content_cost_exactly_nothing(lm: LanguageModel) -> None:
    jobs = [
        Job([]),
        Job([Scale((1, 2, 3), 1.0)]),
        Job([AddDirection((0.5,) * 32, strength=0.0)]),
        Job([AddLatents((4,), (0.0,))]),
        Job([PerRow(((),) * len(TEXTS))]),
    ]
    table = side_effects(lm, make_sae(lm), jobs, TEXTS)
    assert table["job"].unique().tolist() == ["0", "1", "2", "3", "4"]
    assert not table[["kl", "ce_increase", "n_edited", "delta_norm"]].to_numpy().any()
    assert (table.loc[table["n_tokens"] > 0, "ce"] > 0).all()


def test_only_the_documents_that_change_have_costs(tiny_llama: LanguageModel) -> None:
    sae = make_sae(tiny_llama)
    rows = ((), (Clamp((7,), (5.0,)),), (), ())
    table = side_effects(tiny_llama, sae, {"one": Job([PerRow(rows)])}, TEXTS)
    assert (table["kl"] > 0).tolist() == [False, True, False, False]
    assert (table["n_edited"] > 0).tolist() == [False, True, False, False]
    alone = side_effects(tiny_llama, sae, [Job([Clamp((7,), (5.0,))])], [TEXTS[1]])
    assert table["kl"][1] == pytest.approx(alone["kl"][0], rel=1e-5)
    assert table["delta_norm"][1] == pytest.approx(alone["delta_norm"][0], rel=1e-5)


def test_rows_of_specs_go_to_their_own_documents(tiny_llama: LanguageModel) -> None:
    sae = make_sae(tiny_llama)
    values = np.array([[1.0], [2.0], [4.0], [8.0]], dtype=np.float32)
    asked: list[list[int]] = []

    def chosen(documents: np.ndarray) -> list[Spec]:
        asked.append(documents.tolist())
        return [SetRows((9,), values[documents])]

    jobs = {
        "rows": Job([SetRows((9,), values)]),
        "asked": Job(chosen),
        "some": Job([SetRows((9,), values[[2, 0]])], texts=[2, 0]),
    }
    table = side_effects(tiny_llama, sae, jobs, TEXTS, batch_size=3).set_index("job")
    assert table.loc["rows", "kl"].tolist() == table.loc["asked", "kl"].tolist()
    assert sorted(d for part in asked for d in part) == [0, 1, 2, 3]
    assert table.loc["some", "document"].tolist() == [2, 0]
    wanted = [table.loc["rows", "kl"].iloc[i] for i in (2, 0)]
    assert table.loc["some", "kl"].tolist() == pytest.approx(wanted, rel=1e-4)


def test_ablation_of_a_silent_latent_is_free(tiny_llama: LanguageModel) -> None:
    sae = make_sae(tiny_llama)
    z = [sae.encode(r) for r in _residuals(tiny_llama, sae)]
    fires = torch.stack([(v > 0).any(0) for v in z])  # [documents, latents]
    latent = int((fires[:3].sum(0) == 1).nonzero()[0])
    table = side_effects(tiny_llama, sae, [Job([Ablate((latent,))])], TEXTS[:3])
    assert (table["kl"] > 0).tolist() == fires[:3, latent].tolist()


def _residuals(lm: LanguageModel, sae: SparseAutoencoder) -> list[torch.Tensor]:
    from affectlens.data.hooks import capture

    hook = sae.info.hook_name
    return [capture(lm, [hook], lm.encode([t]))[hook][0, 1:].float() for t in TEXTS]


def test_a_document_of_one_token_predicts_nothing(tiny_llama: LanguageModel) -> None:
    table = side_effects(tiny_llama, make_sae(tiny_llama), [Job([])], ["Z"])
    assert table["n_tokens"].tolist() == [0]
    assert math.isnan(table["ce"][0])
    assert table["kl"][0] == 0


def test_progress_is_told(tiny_llama: LanguageModel) -> None:
    seen: list[int] = []
    side_effects(
        tiny_llama, make_sae(tiny_llama), [Job([])] * 3, TEXTS, batch_size=3,
        done=lambda n: seen.append(n),
    )  # fmt: skip
    assert seen == [1] * 6


def test_wrong_input_is_refused(tiny_llama: LanguageModel) -> None:
    sae = make_sae(tiny_llama)
    with pytest.raises(ConfigError, match="no job was given"):
        side_effects(tiny_llama, sae, [], TEXTS)
    with pytest.raises(ConfigError, match="job '0' is Ablate"):
        side_effects(tiny_llama, sae, [Ablate((1,))], TEXTS)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="batch_size"):
        side_effects(tiny_llama, sae, [Job([])], TEXTS, batch_size=0)
    with pytest.raises(ConfigError, match="allowed are 0 to 3"):
        side_effects(tiny_llama, sae, [Job([], texts=[4])], TEXTS)
    with pytest.raises(ConfigError, match="twice"):
        side_effects(tiny_llama, sae, [Job([], texts=[1, 1])], TEXTS)
    with pytest.raises(ConfigError, match="outside the SAE"):
        side_effects(tiny_llama, sae, [Job([Ablate((96,))])], TEXTS)
    with pytest.raises(ConfigError, match="PerRow holds 1 rows for 4 texts"):
        side_effects(tiny_llama, sae, [Job([PerRow(((Ablate((1,)),),))])], TEXTS)
    for texts in ([], "one text"):
        with pytest.raises(StimulusError, match="a list of at least one text"):
            side_effects(tiny_llama, sae, [Job([])], texts)
    with pytest.raises(StimulusError, match="document 1 is empty"):
        side_effects(tiny_llama, sae, [Job([])], ["a text", " "])
