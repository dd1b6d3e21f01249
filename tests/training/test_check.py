"""A sound SAE passes every line, and each planted misfit fails the line that is meant to see it."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import sae_lens
import torch
from torch import Tensor

from affectlens.data.activations import harvest
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import Corpus, build_corpus
from affectlens.data.errors import ArtifactError
from affectlens.data.masking import MaskRule
from affectlens.sae.model import SparseAutoencoder
from affectlens.training import check as check_module
from affectlens.training.check import SAECheck, check_sae, with_nulls
from affectlens.training.check_latents import quantiles
from affectlens.training.check_lines import l0_line, loss_lines, place_line
from affectlens.training.check_measures import geometry, reconstruction
from affectlens.training.evaluate import CrossEntropy
from affectlens.training.nulls import NullResult

HOOK = "blocks.1.hook_resid_post"
D, N_TRUE, K = 32, 40, 3
OFFSET, SIZE = 5.0, 40.0
WINDOW = 20
PRINT = "f" * 64


def directions() -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.nn.functional.normalize(torch.randn(N_TRUE, D, generator=generator), dim=-1)


def planted(n: int = 2000) -> Tensor:
    """Sparse sums of three known directions, off centre; every twentieth row is an outlier."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(n, N_TRUE, generator=generator).topk(K).indices
    z = torch.zeros(n, N_TRUE).scatter(1, chosen, 1 + torch.rand(n, K, generator=generator))
    rows = SIZE * (z @ directions() + OFFSET)
    rows[::WINDOW, 0] = 1e5
    return rows


@dataclass
class Rows:
    acts: Tensor
    keep: Any
    position: Any


@dataclass
class FakeStore:
    """What a check asks of a store, over rows in memory."""

    acts: Tensor = field(default_factory=planted)
    hook_names: list[str] = field(default_factory=lambda: [HOOK])
    provenance: dict[str, Any] = field(
        default_factory=lambda: {"model": {"name": "m", "fingerprint": PRINT, "n_layers": 4}}
    )
    d_model: int = D

    def heldout(self, hook, max_rows=None, *, kept_only=True) -> Rows:
        position = np.arange(len(self.acts)) % WINDOW
        return Rows(self.acts, position > 0, position)

    def mask_rule(self, hook) -> MaskRule:
        return MaskRule(skip_first=True, norm_limit=1e4)

    def token_windows(self, part, max_tokens):
        return []


def planted_sae(centre: bool = False, **metadata: Any) -> SparseAutoencoder:
    """The SAE that knows the planted directions."""
    recorded = {
        "hook_name": HOOK,
        "model_name": "m",
        "model_fingerprint": PRINT,
        "skip_first": True,
        "norm_limit": 1e4,
    }
    cfg = sae_lens.TopKSAEConfig(d_in=D, d_sae=N_TRUE, k=K, apply_b_dec_to_input=True)
    cfg.metadata = sae_lens.saes.sae.SAEMetadata(**{**recorded, **metadata})
    raw = sae_lens.TopKSAE(cfg)
    raw.W_dec.data = directions().clone()
    raw.W_enc.data = directions().T.clone()
    raw.b_enc.data.zero_()
    raw.b_dec.data.fill_(SIZE * OFFSET)
    return SparseAutoencoder(raw, centre=centre)


def check(sae: SparseAutoencoder, store: Any = None, **more: Any) -> SAECheck:
    return check_sae(sae, None, store or FakeStore(), **more)


def test_a_sound_sae_has_no_failing_line():
    found = check(planted_sae())
    assert [line.name for line in found.lines if line.verdict == "fail"] == []
    for name in ("shape", "store hook", "fingerprint", "mask rule", "centring", "input scale"):
        assert found.line(name).verdict == "ok", found.line(name)
    assert found.line("FVU").verdict == "ok"
    assert found.line("L0").value == K
    assert found.n_tokens == 1900
    assert found.verdict in ("fits", "usable with care")
    assert "1,900 content tokens" in found.summary


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_rows_that_cannot_be_measured_are_a_misfit(bad):
    rows = planted()
    rows[7, 3] = rows[9, 1] = bad
    found = check(planted_sae(), FakeStore(rows))
    line = found.line("activations")
    assert (line.verdict, found.verdict) == ("fail", "misfit")
    assert line.value == 2 and "the first is row 7" in line.why
    assert found.n_tokens == 0 and not any(line.name == "FVU" for line in found.lines)


def changed(**weights: Any) -> SparseAutoencoder:
    sae = planted_sae()
    for name, change in weights.items():
        parameter = getattr(sae.sae, name)
        parameter.data = change(parameter.data)
    return SparseAutoencoder(sae.sae)


MISFITS = {
    "scale lost": (lambda: changed(b_dec=lambda b: b / SIZE), "input scale"),
    "no better than the mean": (lambda: changed(W_dec=lambda w: w.roll(5, 0)), "FVU"),
    "masked tokens in": (lambda: planted_sae(skip_first=False, norm_limit=None), "mask rule"),
    "everything masked": (lambda: planted_sae(norm_limit=3.0), "mask rule"),
    "another model": (lambda: planted_sae(model_fingerprint="0" * 64), "fingerprint"),
    "another place": (lambda: planted_sae(hook_name="blocks.2.hook_resid_post"), "store hook"),
    "no such block": (lambda: planted_sae(hook_name="blocks.9.hook_resid_post"), "hook"),
    "no place": (lambda: planted_sae(hook_name=""), "hook"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_each_planted_misfit_fails_its_line(name):
    make, line = MISFITS[name]
    found = check(make())
    assert found.line(line).verdict == "fail", found.line(line)
    assert found.verdict == "misfit"
    assert found.line(line).why in found.summary


def test_lost_scale_is_named():
    found = check(changed(b_dec=lambda b: b / SIZE)).line("input scale")
    assert found.value["best factor"] == pytest.approx(1 / SIZE, rel=0.05)
    assert found.value["FVU as is"] > 1 > found.value["FVU there"]


def test_lost_centring_fails_and_the_other_way_fits():
    rows = planted()
    centred_stream = FakeStore(rows + 300 * torch.sin(torch.arange(len(rows)))[:, None])
    sae = planted_sae()
    sae.sae.W_dec.data -= sae.sae.W_dec.data.mean(-1, keepdim=True)
    sae.sae.W_enc.data = sae.sae.W_dec.data.T.clone()
    sae.sae.b_dec.data.zero_()
    lost = check(SparseAutoencoder(sae.sae, centre=False), centred_stream)
    kept = check(SparseAutoencoder(sae.sae, centre=True), centred_stream)
    assert lost.line("centring").verdict == "fail"
    assert "centre=True" in lost.line("centring").why
    assert kept.line("centring").verdict == "ok"
    assert kept.line("FVU").value < 0.2


def test_wrong_width_measures_nothing():
    found = check(planted_sae(), FakeStore(torch.randn(40, 16), d_model=16))
    assert found.line("shape").verdict == "fail"
    assert (found.verdict, found.n_tokens, found.measured_on) == ("misfit", 0, "")


def test_the_input_of_a_block_is_the_output_of_the_one_below():
    found = check(planted_sae(hook_name="blocks.2.hook_resid_pre"))
    assert found.line("store hook").verdict == "ok"
    assert "same place" in found.line("store hook").why
    assert found.line("FVU").verdict == "ok"


def test_nothing_given_means_nothing_measured():
    found = check_sae(planted_sae())
    assert (found.verdict, found.measured_on) == ("usable with care", "")
    assert "nothing was measured" in found.summary
    assert found.line("hook").verdict == "unknown"


def test_an_unrecorded_mask_is_unknown_not_ok():
    sae = planted_sae()
    sae.sae.cfg.metadata = sae_lens.saes.sae.SAEMetadata(hook_name=HOOK)
    line = check(SparseAutoencoder(sae.sae)).line("mask rule")
    assert line.verdict == "unknown"


@pytest.mark.parametrize(
    ("value", "fixed", "measured"),
    [
        (32, "ok", "ok"),
        (33.5, "ok", "ok"),
        (35, "warn", "warn"),
        (39, "fail", "warn"),
        (49, "fail", "fail"),
        (0, "fail", "fail"),
    ],
)
def test_l0_against_the_card(value, fixed, measured):
    assert l0_line(value, 32.0, "k").verdict == fixed
    assert l0_line(value, 32.0, "metadata").verdict == measured
    assert l0_line(value, None, "").verdict == ("unknown" if value else "fail")


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [(0.46, 0.14, "fail"), (0.46, 0.3, "warn"), (0.2, 0.09, "warn"), (0.46, 0.45, "ok")],
)
def test_a_layer_that_does_far_better_is_a_misfit(own, other, verdict):
    found = {HOOK: own, "blocks.3.hook_resid_post": other}
    assert place_line(planted_sae(), HOOK, found).verdict == verdict


def test_a_share_of_next_to_no_loss_is_not_judged():
    """The numbers are those of a good SAE of a model with random weights."""
    mean, zero = loss_lines(CrossEntropy(6.530, 6.544, 6.535, 7.530, 100), -1.8, 0.986)
    assert (mean.verdict, zero.verdict) == ("unknown", "ok")
    mean, _ = loss_lines(CrossEntropy(2.0, 3.1, 3.0, 7.0, 100), -0.1, 0.78)
    assert mean.verdict == "fail"


def test_geometry_by_hand():
    sae = changed(
        W_enc=lambda w: torch.cat([w[:, :1], -w[:, 1:2], w[:, 2:]], 1),
        W_dec=lambda w: torch.cat([w[:3], 2 * w[2:3], w[4:]]),
    )
    found = geometry(sae)
    assert found.encoder_decoder is not None
    assert found.encoder_decoder[:3].tolist() == pytest.approx([1, -1, 1], abs=1e-6)
    assert found.norms[3] == pytest.approx(2)
    assert sorted(found.nearest.tolist())[-2:] == pytest.approx([1, 1], abs=1e-6)


def test_quantiles_by_hand():
    assert quantiles(torch.arange(101.0).flip(0)) == {"5%": 5, "50%": 50, "95%": 95}


def test_few_tokens_do_not_make_latents_dead():
    found = check(planted_sae())
    assert found.line("rare latents").verdict == "unknown"
    assert "300,000" in found.line("rare latents").why
    silent = changed(b_enc=lambda b: b - 1e6 * (torch.arange(N_TRUE) == 0))
    assert check(silent).line("silent latents").verdict == "unknown"


def test_a_check_is_read_back_as_it_was_written(tmp_path):
    found = check(planted_sae())
    path = found.write(tmp_path / "deep" / "check.json")
    assert SAECheck.read(path).lines == found.lines
    assert SAECheck.read(path).verdict == found.verdict
    payload = json.loads(path.read_text())
    assert payload["format_version"] == check_module.CHECK_VERSION
    good = path.read_text()
    payload["lines"][0]["verdict"] = "FAIL"
    path.write_text(json.dumps(payload))
    with pytest.raises(ArtifactError, match="'FAIL'; known: ok, warn, fail, unknown"):
        SAECheck.read(path)
    payload = json.loads(good)
    payload["format_version"] = 99
    path.write_text(json.dumps(payload))
    with pytest.raises(ArtifactError, match="99"):
        SAECheck.read(path)


def null(kind: str, fvu: float) -> NullResult:
    return NullResult(
        kind, "m", HOOK, "topk", 3, 40, 100, 100, fvu, 3.0, 0.0, 0.0, None, "remark"
    )  # fmt: skip


def test_a_null_that_is_as_good_is_said_plainly():
    found = check(planted_sae())
    own = found.line("FVU").value
    good = with_nulls(found, [null("embedding", own)])
    assert good.line("null: embedding").verdict == "warn"
    assert "as good as the SAE" in good.summary
    assert good.verdict == "usable with care"
    bad = with_nulls(found, [null("embedding", 2 * own)])
    assert bad.line("null: embedding").verdict == "ok"


def test_nulls_are_compared_at_the_same_budget():
    found = check(planted_sae())
    own = found.line("FVU").value
    both = with_nulls(found, [null("same budget", 3 * own), null("embedding", 2 * own)])
    assert both.line("null: embedding").verdict == "warn"
    assert len(both.nulls) == 2


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    def text(i: int) -> str:
        return " ".join(f"word{(i * j) % 17} and thing{j % (i + 2)}" for j in range(30))

    return build_corpus("texts", [(str(i), text(i)) for i in range(40)])


@pytest.fixture(scope="module")
def real_store(tiny_llama, corpus, tmp_path_factory):
    config = HarvestConfig(layers=(0, 1, 3), context_length=64)
    out = tmp_path_factory.mktemp("acts") / "store"
    return harvest(tiny_llama, corpus, config, out, quiet=True)


def subspace_sae(store: Any, lm: Any, hook: str, recorded: str | None = None) -> SparseAutoencoder:
    """Reads and writes the twelve largest principal directions of one place, both ways."""
    rows = store.heldout(hook).acts
    mean = rows.mean(0)
    axes = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:12]
    rule = store.mask_rule(hook)
    cfg = sae_lens.StandardSAEConfig(d_in=D, d_sae=24, apply_b_dec_to_input=True)
    cfg.metadata = sae_lens.saes.sae.SAEMetadata(
        hook_name=recorded or hook,
        model_fingerprint=lm.fingerprint,
        skip_first=rule.skip_first,
        norm_limit=rule.norm_limit,
        l0=12.0,
    )
    raw = sae_lens.StandardSAE(cfg)
    raw.W_dec.data = torch.cat([axes, -axes])
    raw.W_enc.data = raw.W_dec.data.T.clone()
    raw.b_enc.data.zero_()
    raw.b_dec.data = mean
    return SparseAutoencoder(raw)


def test_a_fit_with_model_and_store(tiny_llama, real_store):
    sae = subspace_sae(real_store, tiny_llama, "blocks.3.hook_resid_post")
    found = check_sae(sae, tiny_llama, real_store, max_tokens=600)
    assert not [line for line in found.lines if line.verdict == "fail"]
    assert found.line("layer").verdict == "ok"
    assert found.line("L0").value == pytest.approx(12)
    assert found.line("loss recovered (mean)").verdict in ("ok", "warn", "unknown")


def test_the_wrong_layer_is_named(tiny_llama, real_store):
    sae = subspace_sae(
        real_store, tiny_llama, "blocks.3.hook_resid_post", "blocks.0.hook_resid_post"
    )
    found = check_sae(sae, tiny_llama, real_store, max_tokens=600)
    line = found.line("layer")
    assert line.verdict == "fail", line
    assert "blocks.3.hook_resid_post" in line.why


def test_without_a_store_the_corpus_is_read(tiny_llama, real_store):
    sae = subspace_sae(real_store, tiny_llama, HOOK)
    found = check_sae(sae, tiny_llama, max_tokens=400)
    assert "held-out documents of the corpus 'default'" in found.measured_on
    assert found.n_tokens > 300
    assert found.line("FVU").value > 0


def test_rows_of_a_capture_are_those_of_a_harvest(tiny_llama, corpus, real_store):
    from affectlens.training.samples import sample_model

    sample = sample_model(tiny_llama, HOOK, 500, corpus=corpus)
    marks = real_store.held_out
    first = next(i for i, mark in enumerate(marks) if mark)
    rows = real_store.heldout(HOOK, kept_only=False)
    theirs = rows.acts[torch.from_numpy(rows.doc == first)]
    # A window of the capture is longer than one of the store, so only the first one is the same.
    assert torch.allclose(sample.acts[:60], theirs[:60], atol=1e-4)
    assert sample.keep.sum() == len(sample.content)


def test_store_and_model_of_different_weights_fail(tiny, tiny_llama, real_store):
    sae = subspace_sae(real_store, tiny_llama, HOOK)
    sae = SparseAutoencoder(sae.sae)
    sae.info = replace(sae.info, model_fingerprint=None)
    found = check_sae(sae, tiny("gpt2"), real_store, max_tokens=300)
    assert found.line("fingerprint").verdict == "fail"


def test_reconstruction_by_hand():
    sae = planted_sae()
    rows = FakeStore().acts[1:20]
    meter = reconstruction(sae, rows)
    hat = sae.reconstruct(rows)
    cosines = (rows * hat).sum(1) / (rows.norm(dim=1) * hat.norm(dim=1))
    assert meter.cosine == pytest.approx(float(cosines.mean()), rel=1e-5)
    assert meter.relative_norm == pytest.approx(
        float((hat.norm(dim=1) / rows.norm(dim=1)).mean()), rel=1e-5
    )
    assert meter.density.sum() == pytest.approx(K)
