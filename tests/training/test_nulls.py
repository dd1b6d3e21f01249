"""Models with weights drawn anew, and the SAEs that are trained on them."""

import copy
import hashlib

import numpy as np
import pytest
import torch

from affectlens.data.activations import harvest
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import build_corpus
from affectlens.data.errors import ConfigError
from affectlens.data.hooks import capture
from affectlens.data.tiny import tiny_model
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.config import TrainConfig
from affectlens.training.null_names import check_names
from affectlens.training.nulls import EMBEDDING, plan_nulls, train_nulls
from affectlens.training.random_model import random_weights
from affectlens.training.trainer import train

HOOK = "blocks.1.hook_resid_post"


def weights_hash(lm):
    digest = hashlib.sha256()
    for name, tensor in sorted(lm.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loaded_model_stays_as_it_is(lm):
    before, state = weights_hash(lm), torch.random.get_rng_state()
    blank = random_weights(lm, generator())
    assert weights_hash(lm) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights_hash(blank) != before
    assert blank.fingerprint != lm.fingerprint
    assert blank.source.kind == "random"


def test_each_matrix_keeps_its_mean_and_spread():
    lm = tiny_model("llama", d_model=128)
    blank = random_weights(lm, generator())
    drawn = dict(blank.model.named_parameters())
    n_matrices = 0
    for name, weight in lm.model.named_parameters():
        new = drawn[name]
        assert not torch.equal(new, weight) or bool((weight == weight.flatten()[0]).all())
        if weight.ndim < 2:
            assert torch.equal(new.sort().values, weight.sort().values)
            continue
        n_matrices += 1
        error = 5 * float(weight.std()) / weight.numel() ** 0.5
        assert float(new.mean()) == pytest.approx(float(weight.mean()), abs=error)
        assert float(new.std()) == pytest.approx(float(weight.std()), rel=0.05)
    assert n_matrices > 10


def test_a_mean_off_zero_is_kept():
    lm = tiny_model("llama", d_model=64)
    lm.model.lm_head.weight.data += 3
    blank = random_weights(lm, generator())
    assert float(blank.model.lm_head.weight.mean()) == pytest.approx(3, abs=0.02)


def test_same_seed_same_model_other_seed_other_model(tiny_llama):
    first, again = (random_weights(tiny_llama, generator()) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert random_weights(tiny_llama, generator(1)).fingerprint != first.fingerprint


def test_tied_weights_stay_tied(tiny):
    lm = tiny("gpt2")
    assert lm.model.lm_head.weight is lm.model.transformer.wte.weight
    blank = random_weights(lm, generator())
    assert blank.model.lm_head.weight is blank.model.transformer.wte.weight


def test_the_forward_pass_stays_finite(lm):
    blank = random_weights(lm, generator())
    batch = blank.encode(["A first text.", "And another one, a little longer."])
    assert torch.isfinite(blank.forward_logits(batch)).all()


@pytest.fixture(scope="module")
def study(tiny_llama, tmp_path_factory):
    def text(i: int) -> str:
        return " ".join(f"word{(i * j) % 17} and thing{j % (i + 2)}" for j in range(12))

    corpus = build_corpus("texts", [(str(i), text(i)) for i in range(30)])
    folder = tmp_path_factory.mktemp("study")
    config = HarvestConfig(layers=(1,), context_length=64)
    store = harvest(tiny_llama, corpus, config, folder / "acts", quiet=True)
    settings = TrainConfig(d_sae=48, k=4, n_samples=2_000, batch_size=128, backend="sae_lens")
    return corpus, store, train(store, settings, folder / "sae", quiet=True)


def test_nulls_have_the_size_and_the_budget_of_the_sae(study, tiny_llama, tmp_path):
    corpus, store, sae = study
    names = ["random-model", "embedding"]
    found = train_nulls(
        sae, tiny_llama, names, store=store, corpus=corpus, work=tmp_path, quiet=True
    )
    assert [null.kind for null in found] == names
    for null in found:
        assert (null.arch, null.d_sae, null.k, null.n_samples) == ("topk", 48, 4, 2_000)
        assert null.l0 == pytest.approx(4, rel=0.05)
        assert 0 < null.fvu < 1
        assert 0 <= null.dead_share <= 1
    random, embedding = found
    assert (random.hook_name, embedding.hook_name) == (HOOK, EMBEDDING)
    assert random.model == "tiny:llama (random weights)"
    assert random.ce_recovered_mean is None
    assert "not comparable" in random.remark
    assert not list(tmp_path.iterdir())


def test_fewer_samples_add_the_fair_comparison(study, tiny_llama, monkeypatch):
    corpus, store, sae = study
    read = []

    def counted(lm, corpus, config, out, **more):
        read.append(config.layers)
        return harvest(lm, corpus, config, out, **more)

    monkeypatch.setattr("affectlens.data.activations.harvest", counted)
    found = train_nulls(
        sae, tiny_llama, ["embedding"], store=store, corpus=corpus, n_samples=500, quiet=True
    )
    assert [(null.kind, null.n_samples) for null in found] == [
        ("same budget", 500),
        ("embedding", 500),
    ]
    assert found[0].hook_name == HOOK
    assert found[0].model == "tiny:llama"
    assert read == [(EMBEDDING,)], "the store holds the SAE's own place already"


def test_nulls_have_the_settings_of_the_architecture(study):
    corpus, store, sae = study
    run = sae.sae.cfg.metadata.training_run
    own = {"sparsity.matryoshka_widths": [8, 48], "sparsity.aux_loss_coefficient": 0.5}
    changed = with_metadata(sae, training_run={**run, **own, "arch": "matryoshka"})
    train_config = plan_nulls(changed, store, corpus, None, 0).train
    assert train_config.arch == "matryoshka"
    assert train_config.sparsity.matryoshka_widths == (8, 48)
    assert train_config.sparsity.aux_loss_coefficient == 0.5


def test_an_early_end_of_the_sae_is_the_budget_and_is_said(study):
    corpus, store, sae = study
    whole = plan_nulls(sae, store, corpus, None, 0)
    assert (whole.train.n_samples, whole.comparable, whole.remarks) == (2_000, True, ())
    ended = with_metadata(sae, training_end={"reason": "early_stop", "n_samples": 640})
    plan = plan_nulls(ended, store, corpus, None, 0)
    assert (plan.train.n_samples, plan.comparable) == (640, False)
    assert "ended early" in plan.remarks[0]


def with_metadata(sae, **changes):
    raw = copy.deepcopy(sae.sae)
    for key, value in changes.items():
        raw.cfg.metadata[key] = value
    return SparseAutoencoder(raw)


def test_another_corpus_is_said(study, tiny_llama):
    _, store, sae = study
    other = build_corpus("other", [(str(i), f"Other text number {i}. " * 9) for i in range(12)])
    found = train_nulls(sae, tiny_llama, ["embedding"], store=store, corpus=other, quiet=True)
    assert "not that of the store" in found[0].remark


def test_the_embedding_is_the_input_of_the_first_block(tiny_llama, tmp_path):
    corpus = build_corpus("two", [("a", "One text of some length."), ("b", "And one more text.")])
    config = HarvestConfig(layers=(EMBEDDING,), context_length=64)
    store = harvest(tiny_llama, corpus, config, tmp_path / "acts", quiet=True)
    rows = store.rows(EMBEDDING)
    table = tiny_llama.model.get_input_embeddings().weight
    assert torch.allclose(rows.acts, table[torch.from_numpy(np.asarray(rows.token)).long()])
    batch = tiny_llama.encode(["One text of some length."])
    assert torch.equal(
        rows.acts[: batch.lengths[0]], capture(tiny_llama, [EMBEDDING], batch)[EMBEDDING][0]
    )


def test_unknown_names_are_refused(study, tiny_llama):
    with pytest.raises(ConfigError, match=r"'randm'; known: random-model, embedding"):
        check_names(["embedding", "randm"])
    assert check_names(["embedding", "embedding"]) == ["embedding"]
    assert train_nulls(study[2], tiny_llama, []) == []


@pytest.mark.parametrize("bad", ["one", "blocks.0.hook_mlp_out", "-1", ""])
def test_layers_are_numbers_or_hook_names(bad):
    assert HarvestConfig.parse({"layers": ("3", 4, EMBEDDING)}).layers == (3, 4, EMBEDDING)
    with pytest.raises(ConfigError, match="neither a block number"):
        HarvestConfig.parse({"layers": (bad,)})
