import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.training.config import TrainConfig
from affectlens.training.kernels import NumbaBackend, select_topk
from affectlens.training.steps import SAELensBackend, build_training_sae, choose_backend

D_IN = 20


def make(d_sae=70, k=6, aux=0.5, seed=0):
    config = TrainConfig(d_sae=d_sae, k=k, aux_loss_coefficient=aux, seed=seed)
    sae = build_training_sae(config, rows_of(100, seed=5))
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        sae.W_dec.mul_(0.5 + torch.rand(d_sae, 1, generator=g))
        sae.b_enc.copy_(torch.randn(d_sae, generator=g) * 0.05)
    return sae


def gradients(backend, sae, rows, dead):
    result = backend.step(rows, dead)
    return result, {name: p.grad.clone() for name, p in sae.named_parameters()}


def rows_of(n, seed=1):
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed)) + 0.5


@pytest.mark.parametrize("n_dead", [0, 1, 7, 10, 11, 60])
@pytest.mark.parametrize("n", [1, 33, 200])
def test_loss_and_gradients_equal_dense_autograd(n, n_dead):
    dead = torch.zeros(70, dtype=torch.bool)
    dead[torch.randperm(70, generator=torch.Generator().manual_seed(3))[:n_dead]] = True
    rows = rows_of(n)
    reference, fast = make(), make()
    expected, wanted = gradients(SAELensBackend(reference), reference, rows, dead)
    found, got = gradients(NumbaBackend(fast), fast, rows, dead)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert torch.equal(found.fired, expected.fired)
    assert set(got) == set(wanted) == {"W_enc", "W_dec", "b_enc", "b_dec"}
    for name, grad in wanted.items():
        torch.testing.assert_close(got[name], grad, rtol=1e-5, atol=1e-5 * float(grad.abs().max()))


def test_a_second_step_does_not_add_to_the_first():
    sae = make()
    backend = NumbaBackend(sae)
    dead = torch.zeros(70, dtype=torch.bool)
    _, first = gradients(backend, sae, rows_of(50), dead)
    gradients(backend, sae, rows_of(50, seed=9), dead)
    _, again = gradients(backend, sae, rows_of(50), dead)
    for name, grad in first.items():
        assert torch.equal(grad, again[name])


def test_negative_winners_count_as_off():
    reference, fast = make(k=60), make(k=60)
    dead = torch.zeros(70, dtype=torch.bool)
    expected, wanted = gradients(SAELensBackend(reference), reference, rows_of(40), dead)
    found, got = gradients(NumbaBackend(fast), fast, rows_of(40), dead)
    assert torch.equal(found.fired, expected.fired)
    torch.testing.assert_close(got["W_dec"], wanted["W_dec"], rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(2, 200), st.integers(1, 40), st.integers(0, 99))
def test_selection_equals_torch_topk(n, d, k, seed):
    k = min(k, d)
    g = torch.Generator().manual_seed(seed)
    hidden, norms = torch.randn(n, d, generator=g), torch.rand(d, generator=g) + 0.1
    indices, values = select_topk(hidden.numpy(), norms.numpy(), k)
    expected = (hidden * norms).topk(k).indices
    found = torch.from_numpy(indices).long()
    assert torch.equal(found.sort(1).values, expected.sort(1).values)
    assert torch.equal(torch.from_numpy(values), hidden.gather(1, found).relu())


def test_threads_do_not_change_the_result():
    import numba

    results = []
    before = numba.get_num_threads()
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            sae = make()
            results.append(gradients(NumbaBackend(sae), sae, rows_of(300), torch.ones(70) > 2)[1])
    finally:
        numba.set_num_threads(before)
    for name, grad in results[0].items():
        assert torch.equal(grad, results[-1][name])


def test_who_computes():
    sae = make()
    kinds = {
        name: type(choose_backend(TrainConfig(backend=name), sae)).__name__
        for name in ("auto", "numba", "sae_lens")
    }
    assert kinds == {"auto": "NumbaBackend", "numba": "NumbaBackend", "sae_lens": "SAELensBackend"}
    batch = TrainConfig(arch="batchtopk")
    assert type(choose_backend(batch, sae)).__name__ == "SAELensBackend"
