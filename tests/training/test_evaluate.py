import math

import pytest
import sae_lens
import torch

from affectlens.data.activations import harvest
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import load_corpus
from affectlens.data.masking import MaskRule
from affectlens.features.results import SAEMetrics
from affectlens.sae.errors import SAEError
from affectlens.sae.loading import load_sae
from affectlens.sae.metrics import fvu
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.config import TrainConfig
from affectlens.training.evaluate import cross_entropy, evaluate, write_metrics
from affectlens.training.trainer import train

HOOK = "blocks.1.hook_resid_post"
RULE = MaskRule(skip_first=True, norm_limit=None)


@pytest.fixture(scope="module")
def real_store(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(40):
        words = " ".join(f"word{(i * j) % 17} and thing{j % (i + 2)}" for j in range(12))
        (folder / f"doc{i:02d}.txt").write_text(f"Text {i} tells of {words}.")
    config = HarvestConfig(layers=(1,), context_length=64, tokens_per_batch=1024)
    out = tmp_path_factory.mktemp("acts") / "store"
    return harvest(tiny_llama, load_corpus(folder), config, out, quiet=True)


def identity_sae(d=32, *, scale=1.0, hook=HOOK):
    """Reconstructs every residual: latents are the positive and the negative parts."""
    cfg = sae_lens.StandardSAEConfig(d_in=d, d_sae=2 * d, apply_b_dec_to_input=False)
    cfg.metadata.hook_name = hook
    sae = sae_lens.StandardSAE(cfg)
    eye = torch.eye(d)
    sae.W_enc.data = torch.cat([eye, -eye], 1)
    sae.W_dec.data = torch.cat([eye, -eye], 0) * scale
    sae.b_enc.data.zero_()
    sae.b_dec.data.zero_()
    return SparseAutoencoder(sae)


def test_perfect_sae_loses_nothing(real_store, tiny_llama):
    result = evaluate(identity_sae(), real_store, tiny_llama, max_ce_tokens=2000)
    assert result.fvu < 1e-10
    assert result.ce_spliced == pytest.approx(result.ce_clean, abs=1e-5)
    assert result.n_heldout_tokens > 0
    assert result.n_masked_tokens > 0
    assert len({result.ce_clean, result.ce_mean_ablated, result.ce_zero_ablated}) == 3


def test_zero_sae_equals_zero_ablation(real_store, tiny_llama):
    result = evaluate(identity_sae(scale=0.0), real_store, tiny_llama, max_ce_tokens=2000)
    assert result.ce_spliced == pytest.approx(result.ce_zero_ablated, abs=1e-5)
    if not math.isnan(result.ce_recovered_zero):
        assert result.ce_recovered_zero == pytest.approx(0, abs=1e-3)


def test_cross_entropy_equals_transformers(real_store, tiny_llama):
    windows = [w.token_ids for w in real_store.token_windows("heldout", 500)]
    ce = cross_entropy(identity_sae(), tiny_llama, HOOK, windows, torch.zeros(32), RULE)
    total = n = 0.0
    for window in windows:
        ids = torch.tensor([window])
        with torch.no_grad():
            total += float(tiny_llama.model(ids, labels=ids).loss) * (len(window) - 1)
        n += len(window) - 1
    assert ce.n_tokens == n
    assert ce.clean == pytest.approx(total / n, rel=1e-5)


@pytest.mark.parametrize("limited", [False, True])
def test_masked_tokens_keep_their_residual_in_every_arm(real_store, tiny_llama, limited):
    """Against a hand-made hook that replaces content tokens only, text by text."""
    windows = [w.token_ids for w in real_store.token_windows("heldout", 500)]
    mean, sae = torch.linspace(-1, 1, 32), identity_sae(scale=0.5)
    limit = float(real_store.heldout(HOOK).acts.norm(dim=-1).median()) if limited else None
    ce = cross_entropy(sae, tiny_llama, HOOK, windows, mean, MaskRule(True, limit))

    def change(replace):
        def hook(module, args, output):
            resid = output[0] if isinstance(output, tuple) else output
            content = torch.ones(resid.shape[:2], dtype=torch.bool)
            content[:, 0] = False
            if limit is not None:
                content &= resid.norm(dim=-1) <= limit
            changed = torch.where(content[..., None], replace(resid), resid)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    arms = {"spliced": lambda x: x * 0.5, "mean_ablated": lambda x: mean.expand_as(x)}
    for name, replace in (arms | {"zero_ablated": torch.zeros_like}).items():
        handle = tiny_llama.model.model.layers[1].register_forward_hook(change(replace))
        try:
            with torch.no_grad():
                losses = [
                    float(tiny_llama.model(ids, labels=ids).loss) * (ids.shape[1] - 1)
                    for ids in (torch.tensor([window]) for window in windows)
                ]
        finally:
            handle.remove()
        wanted = sum(losses) / ce.n_tokens
        assert getattr(ce, name) == pytest.approx(wanted, rel=1e-5)
        assert abs(wanted - ce.clean) > 1e-3


def test_where_everything_is_masked_no_arm_differs(real_store, tiny_llama):
    windows = [w.token_ids for w in real_store.token_windows("heldout", 500)]
    sae, rule = identity_sae(scale=0.0), MaskRule(skip_first=True, norm_limit=1e-9)
    ce = cross_entropy(sae, tiny_llama, HOOK, windows, torch.ones(32), rule)
    assert ce.spliced == ce.mean_ablated == ce.zero_ablated == ce.clean


def test_resid_pre_of_a_block_equals_resid_post_of_the_one_below(real_store, tiny_llama):
    windows = [w.token_ids for w in real_store.token_windows("heldout", 500)]
    mean = torch.ones(32)
    post = cross_entropy(identity_sae(scale=0.5), tiny_llama, HOOK, windows, mean, RULE)
    pre = cross_entropy(
        identity_sae(scale=0.5), tiny_llama, "blocks.2.hook_resid_pre", windows, mean, RULE
    )
    for name in ("clean", "spliced", "mean_ablated", "zero_ablated"):
        assert getattr(pre, name) == pytest.approx(getattr(post, name), rel=1e-5)


def test_fvu_and_l0_by_hand(real_store):
    sae = identity_sae(scale=0.5)
    rows = real_store.heldout(HOOK, 100).acts
    result = evaluate(sae, real_store, max_tokens=100)
    assert result.n_heldout_tokens == 100
    assert result.fvu == pytest.approx(fvu(rows, rows * 0.5), rel=1e-6)
    assert result.l0 == pytest.approx(float((rows != 0).sum(1).double().mean()))
    assert math.isnan(result.ce_clean)


def test_another_model_or_width_is_refused(real_store, tiny):
    with pytest.raises(SAEError, match=r"d_in=16.*d_model=32"):
        evaluate(identity_sae(16), real_store)
    sae = identity_sae()
    sae.sae.cfg.metadata.model_fingerprint = "0" * 64
    with pytest.raises(SAEError, match="fingerprint"):
        evaluate(SparseAutoencoder(sae.sae), real_store, tiny("llama"))


def test_metrics_open_as_the_result_record(real_store, tmp_path):
    sae = identity_sae()
    (tmp_path / "sae").mkdir()
    result = evaluate(sae, real_store, max_tokens=100)
    write_metrics(tmp_path / "sae" / "metrics.json", sae, result, n_training_samples=7)
    read = SAEMetrics.read(tmp_path)
    assert (read.n_training_samples, read.history, read.ce_clean) == (7, [], None)
    assert read.fvu == result.fvu


@pytest.mark.parametrize("arch", ["topk", "batchtopk"])
def test_train_on_the_real_store_with_the_model(real_store, tiny_llama, tmp_path, arch):
    config = TrainConfig(arch=arch, d_sae=64, k=8, n_samples=8_000, batch_size=128, lr=1e-2)
    sae = train(real_store, config, tmp_path / "sae", lm=tiny_llama, quiet=True)
    read = SAEMetrics.read(tmp_path)
    assert read.fvu < 0.6
    assert read.l0 == pytest.approx(8, rel=0.05)
    for value in (read.ce_clean, read.ce_spliced, read.ce_mean_ablated, read.ce_zero_ablated):
        assert isinstance(value, float)
    info = load_sae(tmp_path / "sae").info
    assert info == sae.info.__class__(**{**sae.info.__dict__, "source": info.source})
    assert info.model_fingerprint == tiny_llama.fingerprint
    assert info.norm_limit == real_store.mask_rule(HOOK).norm_limit
