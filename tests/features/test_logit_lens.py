"""Unembeddings of four families against their own forward pass; word scores against SciPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from affectlens.data.errors import ConfigError, ModelError
from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model
from affectlens.features import logit_lens
from affectlens.features.logit_lens import lens_logits, lenses, unembedding, word_scores

WORDS = ("joy", "anger", "fear", "table", "chair", "window", "house", "river")


@pytest.fixture(scope="module")
def worded() -> LanguageModel:
    return tiny_model("llama", words=WORDS)


def test_norm_and_gain_against_the_model(lm: LanguageModel) -> None:
    own = tiny_model({"Llama": "llama", "GPT2LM": "gpt2", "GPTNeo": "gpt_neox", "Gemma2": "gemma2"}[
        next(k for k in ("Llama", "GPT2LM", "GPTNeo", "Gemma2") if k in type(lm.model).__name__)
    ])  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    out = unembedding(own)
    norm = own.model.get_submodule(out.norm_name)
    norm.weight.data = torch.rand(own.d_model, generator=generator) + 0.5
    out = unembedding(own)
    head = own.model.get_output_embeddings()
    x = torch.randn(own.d_model, generator=generator)
    w = torch.randn(own.d_model, generator=generator)
    assert out.centred == isinstance(norm, torch.nn.LayerNorm)
    # Some norms compute in float32, so the step cannot be tiny.
    # With w across x (and free of a mean) the norm's scale stays the same to first order.
    for fixed in (x, torch.ones(own.d_model)) if out.centred else (x,):
        w = w - fixed * (w @ fixed) / (fixed @ fixed)
    if out.centred:
        x = x - x.mean()
        w = w - x * (w @ x) / (x @ x)
    x, w, step = x.double(), w.double(), 1e-2
    norm, head = norm.double(), head.double()
    with torch.no_grad():
        moved = (head(norm(x + step * w)) - head(norm(x - step * w))) / (2 * step)
    sigma = x.pow(2).mean().sqrt()
    moved = moved * sigma
    moved = moved - moved[torch.from_numpy(out.listed)].mean()
    got = lens_logits(out, w.float()[None])[0].double()
    torch.testing.assert_close(got, moved, rtol=1e-3, atol=1e-3)


def test_lenses_are_sorted_and_leave_special_tokens_out(worded: LanguageModel) -> None:
    out = unembedding(worded)
    direction = torch.randn(2, worded.d_model, generator=torch.Generator().manual_seed(2))
    logits = lens_logits(out, direction).numpy()
    special = set(worded.tokenizer.all_special_ids)
    for row, lens in zip(logits, lenses(out, direction, 4), strict=True):
        best = [t for t in np.argsort(-row, kind="stable") if int(t) not in special][:4]
        assert [t.token for t in lens.promoted] == best
        assert [t.logit for t in lens.promoted] == pytest.approx(row[best].tolist())
        assert lens.suppressed[0].logit == pytest.approx(row[out.listed].min())


def test_word_scores_against_scipy(worded: LanguageModel) -> None:
    out = unembedding(worded)
    assert sorted(out.texts[t] for t in np.flatnonzero(out.whole_words)) == sorted(
        " " + w for w in WORDS
    )
    ids = logit_lens.word_token_ids(worded, out, ["joy", "anger", "fear", "unseen"])
    assert len(ids) == 3
    directions = torch.randn(5, worded.d_model, generator=torch.Generator().manual_seed(3))
    (scores, none) = word_scores(out, directions, [ids, ids[:2]])
    assert none is None
    assert scores is not None
    others = np.setdiff1d(np.flatnonzero(out.whole_words), ids)
    for i, row in enumerate(lens_logits(out, directions).numpy()):
        test = mannwhitneyu(row[ids], row[others], use_continuity=False, method="asymptotic")
        assert scores.auroc[i] == pytest.approx(test.statistic / (len(ids) * len(others)))
        u = test.statistic - len(ids) * len(others) / 2
        assert abs(u) < 1e-9 or np.sign(scores.z[i]) == np.sign(u)
        from scipy.stats import norm as normal

        assert 2 * normal.sf(abs(scores.z[i])) == pytest.approx(test.pvalue)


def test_a_direction_of_zero_promotes_nothing(worded: LanguageModel) -> None:
    out = unembedding(worded)
    ids = logit_lens.word_token_ids(worded, out, ["joy", "anger", "fear"])
    (scores,) = word_scores(out, torch.zeros(1, worded.d_model), [ids])
    assert scores is not None
    assert scores.auroc.tolist() == [0.5]
    assert scores.z.tolist() == [0]


def test_promoted_words_are_found(worded: LanguageModel) -> None:
    out = unembedding(worded)
    ids = logit_lens.word_token_ids(worded, out, ["joy", "anger", "fear"])
    # The direction with equal effect 1 on the three and 0 on the other whole words.
    background = np.flatnonzero(out.whole_words)
    target = torch.from_numpy(np.isin(background, ids).astype(np.float32))
    direction = torch.linalg.pinv(out.weight[background]) @ target
    (scores,) = word_scores(out, direction[None], [ids])
    assert scores is not None
    assert scores.auroc[0] == 1


def test_reference_p() -> None:
    reference = np.array([0.1, 0.5, 0.9])
    assert logit_lens.reference_p(0.95, reference) == 0.25
    assert logit_lens.reference_p(0.5, reference) == 0.75
    assert logit_lens.reference_p(0.5, np.zeros(0)) == 1


def test_refusals(worded: LanguageModel) -> None:
    out = unembedding(worded)
    with pytest.raises(ModelError, match="this model needs"):
        lens_logits(out, torch.zeros(1, worded.d_model + 1))
    with pytest.raises(ConfigError, match="no whole word"):
        word_scores(out, torch.zeros(1, worded.d_model), [np.array([0])])


def test_a_model_without_unembedding(
    worded: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worded.model, "get_output_embeddings", lambda: None)
    with pytest.raises(ModelError, match="does not give its unembedding"):
        unembedding(worded)


def test_no_letters_no_words() -> None:
    out = unembedding(tiny_model("gpt2"))
    assert not out.whole_words.any()
    (score,) = word_scores(out, torch.zeros(1, 32), [np.zeros(0, dtype=np.int64)])
    assert score is None
    assert dataclasses.is_dataclass(out)
