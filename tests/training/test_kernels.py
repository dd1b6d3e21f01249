"""The sparse backend against dense autograd through sae-lens' classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.training.building import build_training_sae, choose_backend, matryoshka_widths
from affectlens.training.config import SPARSE_ARCHS, SparsityConfig, TrainConfig
from affectlens.training.entries import CHUNK_ROWS, BatchTopKSelection
from affectlens.training.kernels import adam
from affectlens.training.selection_kernels import keep_topk, select_topk
from affectlens.training.sparse_numba import NumbaBackend
from affectlens.training.steps import AutogradBackend

D_IN = 20
ARCHS = [*SPARSE_ARCHS]


def config_of(arch="topk", d_sae=70, k=6, aux=0.5, seed=0):
    sparsity = SparsityConfig(aux_loss_coefficient=aux, matryoshka_widths=(10, 33, d_sae))
    return TrainConfig(arch=arch, d_sae=d_sae, k=k, seed=seed, sparsity=sparsity)


def make(arch="topk", **settings):
    config = config_of(arch, **settings)
    sae = build_training_sae(config, rows_of(100, seed=5))
    g = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        sae.W_dec.mul_(0.5 + torch.rand(config.d_sae, 1, generator=g))
        sae.b_enc.copy_(torch.randn(config.d_sae, generator=g) * 0.05)
    return sae


def rows_of(n, seed=1):
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed)) + 0.5


def dead_of(n_dead, d_sae=70):
    dead = torch.zeros(d_sae, dtype=torch.bool)
    dead[torch.randperm(d_sae, generator=torch.Generator().manual_seed(3))[:n_dead]] = True
    return dead


def gradients(backend, rows, dead):
    result = backend.gradients(rows.clone(), dead)
    return result, {n: p.grad.clone() for n, p in backend.sae.named_parameters()}


@pytest.mark.parametrize("n_dead", [0, 1, 7, 10, 11, 60])
@pytest.mark.parametrize("n", [1, 33, 200])
@pytest.mark.parametrize("arch", ARCHS)
def test_loss_and_gradients_equal_dense_autograd(arch, n, n_dead):
    dead, rows = dead_of(n_dead), rows_of(n)
    expected, wanted = gradients(AutogradBackend(make(arch), unit_rows=False), rows, dead)
    found, got = gradients(NumbaBackend(make(arch)), rows, dead)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert torch.equal(found.fired, expected.fired)
    assert set(got) == set(wanted) == {"W_enc", "W_dec", "b_enc", "b_dec"}
    for name, grad in wanted.items():
        torch.testing.assert_close(got[name], grad, rtol=1e-5, atol=1e-5 * float(grad.abs().max()))


@pytest.mark.parametrize("arch", ARCHS)
def test_many_dead_latents_entry_by_entry_equal_dense_products(arch, monkeypatch):
    _, wanted = gradients(NumbaBackend(make(arch)), rows_of(90), dead_of(40))
    monkeypatch.setattr("affectlens.training.sparse_numba._DENSE_LIMITS", 1)
    _, got = gradients(NumbaBackend(make(arch)), rows_of(90), dead_of(40))
    for name, grad in wanted.items():
        torch.testing.assert_close(got[name], grad, rtol=1e-5, atol=1e-5 * float(grad.abs().max()))


@pytest.mark.parametrize("arch", ARCHS)
def test_many_chunks_of_rows_equal_one(arch, monkeypatch):
    """More rows than a chunk of the encoder and than a block of the backward pass."""
    n = CHUNK_ROWS + 77
    expected, wanted = gradients(NumbaBackend(make(arch)), rows_of(n), dead_of(20))
    monkeypatch.setattr("affectlens.training.entries.CHUNK_ROWS", 64)
    monkeypatch.setattr("affectlens.training.entries.BATCH_CHUNK_ROWS", 50)
    monkeypatch.setattr("affectlens.training.sparse_numba._BACKWARD_ROWS", 100)
    found, got = gradients(NumbaBackend(make(arch)), rows_of(n), dead_of(20))
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    for name, grad in wanted.items():
        torch.testing.assert_close(got[name], grad, rtol=1e-5, atol=1e-5 * float(grad.abs().max()))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("unit_rows", [True, False])
def test_many_updates_follow_torch(arch, unit_rows):
    dense = AutogradBackend(make(arch), unit_rows=unit_rows)
    fast = NumbaBackend(make(arch), unit_rows=unit_rows)
    before = dense.sae.W_dec.detach().clone()
    for step in range(12):
        rows = rows_of(64, seed=step)
        for backend in (dense, fast):
            backend.gradients(rows.clone(), dead_of(5))
            backend.update(1e-3)
    for name, wanted in dense.sae.named_parameters():
        got = dict(fast.sae.named_parameters())[name]
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-5)
    assert (before - dense.sae.W_dec).abs().max() > 5e-3
    norms = fast.sae.W_dec.norm(dim=-1)
    assert bool(((norms - 1).abs() < 1e-5).all()) == unit_rows


def test_the_gradient_along_a_unit_row_is_removed():
    backend = NumbaBackend(make(), unit_rows=True)
    with torch.no_grad():
        backend.sae.W_dec /= backend.sae.W_dec.norm(dim=-1, keepdim=True)
    backend.gradients(rows_of(50), dead_of(0))
    before = backend.sae.W_dec.detach().clone()
    along = (backend.sae.W_dec.grad * before).sum(-1).abs().max()
    backend.update(1e-4)
    left = (backend.sae.W_dec.grad * before).sum(-1).abs().max()
    assert along > 1e-3
    assert left < 1e-6


def test_adam_equals_torch():
    g = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(30, 7, generator=g))
    own = weight.detach().clone().numpy()
    mean, square = np.zeros_like(own), np.zeros_like(own)
    optimizer = torch.optim.Adam([weight], lr=0.01)
    for step in range(1, 30):
        weight.grad = torch.randn(30, 7, generator=g) * 10.0 ** (step % 5 - 3)
        adam(own, weight.grad.numpy(), mean, square, 1.0, 0.01 / (1 - 0.9**step),
             (1 - 0.999**step) ** 0.5, (0.9, 0.999), 1e-8, False)  # fmt: skip
        optimizer.step()
    np.testing.assert_allclose(own, weight.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_second_step_does_not_add_to_the_first(arch):
    backend = NumbaBackend(make(arch))
    _, first = gradients(backend, rows_of(50), dead_of(4))
    gradients(backend, rows_of(50, seed=9), dead_of(40))
    _, again = gradients(backend, rows_of(50), dead_of(4))
    for name, grad in first.items():
        assert torch.equal(grad, again[name])


def test_negative_winners_count_as_off():
    dense = AutogradBackend(make(k=60), unit_rows=False)
    expected, wanted = gradients(dense, rows_of(40), dead_of(0))
    found, got = gradients(NumbaBackend(make(k=60)), rows_of(40), dead_of(0))
    assert torch.equal(found.fired, expected.fired)
    torch.testing.assert_close(got["W_dec"], wanted["W_dec"], rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(2, 700), st.integers(1, 40), st.integers(0, 99))
def test_selection_equals_torch_topk(n, d, k, seed):
    k = min(k, d)
    g = torch.Generator().manual_seed(seed)
    hidden, norms = torch.randn(n, d, generator=g), torch.rand(d, generator=g) + 0.1
    latents, values = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    select_topk(hidden.numpy(), norms.numpy(), k, latents, values)
    expected = (hidden * norms).topk(k).indices
    found = torch.from_numpy(latents).long()
    assert torch.equal(found.sort(1).values, expected.sort(1).values)
    assert torch.equal(torch.from_numpy(values), hidden.gather(1, found).relu())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 69), st.integers(0, 99), st.floats(-1, 50))
def test_batch_selection_equals_torch_topk_whatever_the_guess(n, k, seed, guess):
    sae = make("batchtopk", k=k, seed=seed)
    selection = BatchTopKSelection(sae)
    selection._guess = guess if guess >= 0 else None
    with torch.no_grad():
        centred, norms = rows_of(n, seed) - sae.b_dec, sae.W_dec.norm(dim=-1)
        entries = selection(centred, norms.numpy())
        hidden = torch.addmm(sae.b_enc, centred, sae.W_enc)
        found = torch.zeros_like(hidden)
        for row in range(n):
            own = slice(entries.bounds[row], entries.bounds[row + 1])
            found[row, torch.from_numpy(entries.latents[own]).long()] = torch.from_numpy(
                entries.values[own]
            )
        expected = sae.activation_fn(hidden * norms) / norms
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_equal_candidates_at_the_threshold_are_taken_in_order():
    sae = make("batchtopk", d_sae=8, k=2)
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_enc.fill_(1.0)
        entries = BatchTopKSelection(sae)(rows_of(3), np.ones(8, np.float32))
    assert entries.bounds.tolist() == [0, 6, 6, 6]


def test_threads_do_not_change_the_result():
    import numba

    results = []
    before = numba.get_num_threads()
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            found = gradients(NumbaBackend(make("matryoshka")), rows_of(300), dead_of(20))
            results.append(found[1])
    finally:
        numba.set_num_threads(before)
    for name, grad in results[0].items():
        assert torch.equal(grad, results[-1][name])


@pytest.mark.parametrize("kind", [NumbaBackend, AutogradBackend])
def test_state_comes_back(kind):
    first, second = (kind(make(), unit_rows=True) for _ in range(2))
    for step in range(3):
        first.gradients(rows_of(30, seed=step), dead_of(0))
        first.update(1e-3)
    second.sae.load_state_dict(first.sae.state_dict())
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for backend in (first, second):
        backend.gradients(rows_of(30, seed=7), dead_of(0))
        backend.update(1e-3)
    for a, b in zip(first.sae.parameters(), second.sae.parameters(), strict=True):
        assert torch.equal(a, b)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    with pytest.raises(ArtifactError, match=r"exp_avg\.W_enc"):
        second.restore({n: t for n, t in state.items() if n != "exp_avg.W_enc"})
    with pytest.raises(ArtifactError, match="expected"):
        second.restore({**state, "exp_avg.W_enc": torch.zeros(2, 2)})


@pytest.mark.parametrize("kind", [NumbaBackend, AutogradBackend])
@pytest.mark.parametrize("arch", ARCHS)
def test_gradients_that_are_not_finite_change_nothing(kind, arch):
    backend = kind(make(arch), unit_rows=True)
    before = [p.detach().clone() for p in backend.sae.parameters()]
    rows = rows_of(30)
    rows[4] = 1e30
    backend.gradients(rows, dead_of(3))
    with pytest.raises(ArtifactError, match="norm became"):
        backend.update(1e-3)
    for a, b in zip(before, backend.sae.parameters(), strict=True):
        assert torch.equal(a, b)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6), st.integers(2, 300), st.integers(1, 60), st.booleans(), st.integers(0, 99)
)
def test_kept_entries_equal_torch_topk(n, d, k, ties, seed):
    k = min(k, d - 1)
    g = torch.Generator().manual_seed(seed)
    acts, norms = torch.randn(n, d, generator=g), torch.rand(d, generator=g) + 0.1
    if ties:
        acts, norms = (acts * 2).round(), torch.ones(d)
    found = acts.clone()
    keep_topk(found.numpy(), norms.numpy(), k)
    kept = found != 0
    assert torch.equal(found[kept], acts[kept])
    best = (acts * norms).topk(k).values
    expected = torch.where(best != 0, best, 0.0)  # a winner of value zero is as good as left out
    own = torch.where(kept, found * norms, -torch.inf).sort(descending=True).values[:, :k]
    own = torch.where(own.isinf(), 0.0, own)
    assert torch.equal(own.sort().values, expected.sort().values)


def test_rows_of_nan_are_selected_within_bounds():
    hidden = np.full((3, 80), np.nan, np.float32)
    latents, values = np.full((3, 5), -7, np.int32), np.empty((3, 5), np.float32)
    select_topk(hidden, np.ones(80, np.float32), 5, latents, values)
    assert (latents >= 0).all()
    assert (latents < 80).all()


@pytest.mark.parametrize("arch", ["topk", "batchtopk", "matryoshka"])
def test_who_computes_the_sparse_architectures(arch):
    kinds = {
        name: type(choose_backend(config_of(arch).model_copy(update={"backend": name}), make(arch)))
        for name in ("auto", "numba", "sae_lens", "torch")
    }
    names = {name: kind.__name__ for name, kind in kinds.items()}
    assert names == {"auto": "NumbaBackend", "numba": "NumbaBackend",
                     "sae_lens": "AutogradBackend", "torch": "SparseTorchBackend"}  # fmt: skip


@pytest.mark.parametrize("arch", ["standard", "gated", "jumprelu"])
def test_who_computes_the_others(arch):
    config = TrainConfig(arch=arch, d_sae=70, k=6)
    sae = build_training_sae(config, rows_of(100))
    assert type(choose_backend(config, sae)).__name__ == "AutogradBackend"
    with pytest.raises(ConfigError, match="trains topk, batchtopk, matryoshka"):
        choose_backend(config.model_copy(update={"backend": "numba"}), sae)


def test_nested_widths():
    def widths(d_sae, *given):
        sparsity = SparsityConfig(matryoshka_widths=given)
        return matryoshka_widths(TrainConfig(arch="matryoshka", d_sae=d_sae, sparsity=sparsity))

    assert widths(4608) == (288, 1152, 4608)
    assert widths(8) == (2, 8)
    assert widths(100, 10, 50) == (10, 50, 100)
    for wrong in [(0, 100), (50, 10), (10, 10), (200,)]:
        with pytest.raises(ConfigError, match="must rise"):
            widths(100, *wrong)
