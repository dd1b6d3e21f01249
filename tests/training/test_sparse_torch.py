"""The sparse torch backend against dense autograd through sae-lens' classes."""

import importlib.util
import os
import subprocess
import sys

import pytest
import sae_lens
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import ConfigError
from affectlens.training import sparse_ops, sparse_torch
from affectlens.training.sparse_ops import (
    ActiveEntries,
    entries_of_rows,
    entry_dots,
    sparse_decode,
    weight_gradients,
)
from affectlens.training.sparse_torch import SparseTorchBackend
from affectlens.training.steps import AutogradBackend

D_IN, D_SAE = 20, 70
K_AUX = D_IN // 2
ARCHS = ["topk", "batchtopk", "matryoshka"]
CLASSES = {
    "topk": (sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig),
    "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig),
    "matryoshka": (
        sae_lens.MatryoshkaBatchTopKTrainingSAE,
        sae_lens.MatryoshkaBatchTopKTrainingSAEConfig,
    ),
}


def make(arch="topk", k=6, seed=0, **settings):
    """An SAE with decoder rows of any norm and biases that are not zero."""
    if arch == "matryoshka":
        settings.setdefault("matryoshka_widths", [10, 33, D_SAE])
    kind, config = CLASSES[arch]
    settings = {"aux_loss_coefficient": 0.5, "rescale_acts_by_decoder_norm": True} | settings
    sae = kind(config(d_in=D_IN, d_sae=D_SAE, k=k, **settings))
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, scale in ((sae.W_enc, 0.3), (sae.W_dec, 1.0), (sae.b_dec, 0.4)):
            parameter.copy_(torch.randn(parameter.shape, generator=g) * scale)
        sae.W_dec.mul_(0.1 + torch.rand(D_SAE, 1, generator=g))
        sae.b_enc.copy_(torch.randn(D_SAE, generator=g) * 0.05)
    return sae


def rows_of(n, seed=1):
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed)) + 0.5


def dead_of(n_dead):
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[torch.randperm(D_SAE, generator=torch.Generator().manual_seed(3))[:n_dead]] = True
    return dead


def gradients(backend, rows, dead):
    result = backend.gradients(rows.clone(), dead)
    return result, {n: p.grad.clone() for n, p in backend.sae.named_parameters()}


def assert_same_step(found, expected, rel=1e-5):
    (result, got), (reference, wanted) = found, expected
    assert result.loss == pytest.approx(reference.loss, rel=rel)
    assert torch.equal(result.fired.cpu(), reference.fired.cpu())
    assert set(got) == set(wanted) == {"W_enc", "W_dec", "b_enc", "b_dec"}
    for name, grad in wanted.items():
        atol = rel * float(grad.abs().max())
        torch.testing.assert_close(got[name].to(grad), grad, rtol=rel, atol=atol)


@pytest.mark.parametrize("n_dead", [0, 1, K_AUX, K_AUX + 1, 60])
@pytest.mark.parametrize("n", [1, 33, 200])
@pytest.mark.parametrize("arch", ARCHS)
def test_loss_and_gradients_equal_dense_autograd(arch, n, n_dead):
    """60 dead latents take the sparse way of the auxiliary loss, fewer the dense one."""
    expected = gradients(AutogradBackend(make(arch), unit_rows=False), rows_of(n), dead_of(n_dead))
    found = gradients(SparseTorchBackend(make(arch)), rows_of(n), dead_of(n_dead))
    assert_same_step(found, expected)


@pytest.mark.parametrize("arch", ["batchtopk", "matryoshka"])
@pytest.mark.parametrize(("k", "n"), [(0.4, 2), (0.4, 33), (2.7, 1), (5.3, 77), (69.9, 5)])
def test_a_fractional_k_counts_over_the_batch(arch, k, n):
    """With (0.4, 2) nothing is active; with (69.9, 5) entries that are not positive are taken."""
    dense = AutogradBackend(make(arch, k=k), unit_rows=False)
    found = gradients(SparseTorchBackend(make(arch, k=k)), rows_of(n), dead_of(15))
    assert_same_step(found, gradients(dense, rows_of(n), dead_of(15)))


@pytest.mark.parametrize("arch", ARCHS)
def test_double_precision_agrees_far_closer(arch):
    """What single precision leaves open is rounding, not a missing term."""
    dead, rows = dead_of(25), rows_of(60).double()
    dense = AutogradBackend(make(arch).double(), unit_rows=False)
    found = gradients(SparseTorchBackend(make(arch).double()), rows, dead)
    assert_same_step(found, gradients(dense, rows, dead), rel=1e-12)


@pytest.mark.parametrize("aux", [0.0, 1.7])
def test_the_auxiliary_coefficient_counts(aux):
    dense = AutogradBackend(make(aux_loss_coefficient=aux), unit_rows=False)
    sparse = SparseTorchBackend(make(aux_loss_coefficient=aux))
    expected = gradients(dense, rows_of(50), dead_of(40))
    assert_same_step(gradients(sparse, rows_of(50), dead_of(40)), expected)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("n_dead", [5, 60])
def test_many_chunks_equal_one(arch, n_dead, monkeypatch):
    expected = gradients(SparseTorchBackend(make(arch)), rows_of(200), dead_of(n_dead))
    monkeypatch.setattr(sparse_torch, "CHUNK_NUMBERS", 13 * D_SAE)
    monkeypatch.setattr(sparse_ops, "_GATHERED_NUMBERS", 100 * D_IN)
    found = gradients(SparseTorchBackend(make(arch)), rows_of(200), dead_of(n_dead))
    assert_same_step(found, expected)


@pytest.mark.parametrize("arch", ARCHS)
def test_results_repeat_and_steps_do_not_add_up(arch):
    backend = SparseTorchBackend(make(arch))
    first = gradients(backend, rows_of(150), dead_of(40))
    gradients(backend, rows_of(50, seed=9), dead_of(4))
    again = gradients(backend, rows_of(150), dead_of(40))
    assert first[0].loss == again[0].loss
    for name, grad in first[1].items():
        assert torch.equal(grad, again[1][name])


@pytest.mark.parametrize("arch", ARCHS)
def test_only_dead_latents_feel_the_auxiliary_loss(arch):
    _, without = gradients(SparseTorchBackend(make(arch)), rows_of(40), dead_of(0))
    _, with_dead = gradients(SparseTorchBackend(make(arch)), rows_of(40), dead_of(30))
    change = (with_dead["W_dec"] - without["W_dec"]).abs().sum(1)
    assert change[~dead_of(30)].max() == 0
    assert int((change > 0).sum()) > K_AUX


@pytest.mark.parametrize("arch", ARCHS)
def test_a_decoder_row_of_norm_zero_gives_finite_gradients(arch):
    """With k this large it is among the chosen, with an activation of zero."""
    sae = make(arch, k=65)
    with torch.no_grad():
        sae.W_dec[4] = 0
    result, found = gradients(SparseTorchBackend(sae), rows_of(30), dead_of(50))
    assert torch.isfinite(torch.tensor(result.loss))
    assert all(grad.isfinite().all() for grad in found.values())


@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("arch", ARCHS)
def test_updates_follow_dense_autograd(arch, unit_rows):
    dense = AutogradBackend(make(arch), unit_rows=unit_rows)
    sparse = SparseTorchBackend(make(arch), unit_rows=unit_rows)
    before = dense.sae.W_dec.detach().clone()
    for step in range(8):
        for backend in (dense, sparse):
            backend.gradients(rows_of(64, seed=step), dead_of(5))
            backend.update(1e-3)
    found = dict(sparse.sae.named_parameters())
    for name, wanted in dense.sae.named_parameters():
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=2e-5)
    assert (before - found["W_dec"]).abs().max() > 5e-3


@pytest.mark.parametrize("other", [SparseTorchBackend, AutogradBackend])
def test_state_comes_back_also_from_the_dense_backend(other):
    first, second = other(make(), unit_rows=True), SparseTorchBackend(make(), unit_rows=True)
    for step in range(3):
        first.gradients(rows_of(30, seed=step), dead_of(0))
        first.update(1e-3)
    second.sae.load_state_dict(first.sae.state_dict())
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for backend in (first, second):
        backend.gradients(rows_of(30, seed=7), dead_of(0))
        backend.update(1e-3)
    for a, b in zip(first.sae.parameters(), second.sae.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert set(first.state()) == set(second.state())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 40), st.integers(0, 99))
def test_ragged_decode_equals_a_dense_product(lengths, d_in, seed):
    """Segments may be empty, entries may name a latent twice."""
    g = torch.Generator().manual_seed(seed)
    n_entries = sum(lengths)
    indices = torch.randint(0, 15, (n_entries,), generator=g)
    values, decoder = torch.randn(n_entries, generator=g), torch.randn(15, d_in, generator=g)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    dense = torch.zeros(len(lengths), 15).index_put_((rows, indices), values, accumulate=True)
    found = sparse_decode(indices, values, decoder, offsets)
    torch.testing.assert_close(found, dense @ decoder, rtol=1e-5, atol=1e-5)


def test_decode_of_rows_with_k_entries_each():
    found = sparse_decode(
        torch.tensor([[0, 2], [1, 1]]), torch.tensor([[1.0, 10.0], [2.0, 3.0]]), torch.eye(3)
    )
    assert found.tolist() == [[1, 0, 10], [0, 5, 0]]


def test_dots_of_entries():
    left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [1.0, 0.0]])
    found = entry_dots(left, torch.tensor([1, 0, 1]), right, torch.tensor([0, 0, 1]))
    assert found.tolist() == [39, 17, 3]


def test_weight_gradients_by_hand():
    """Two rows, latent 1 on both and latent 0 on the second, where it is off."""
    entries = ActiveEntries(
        latents=torch.tensor([1, 0, 1]),
        values=torch.tensor([2.0, 0.0, 5.0]),
        rows=torch.tensor([0, 1, 1]),
        slots=torch.tensor([0, 1, 1]),
        offsets=torch.tensor([0, 1, 3]),
    )
    decoder = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    gradient, centred = torch.tensor([[3.0, 1.0], [0.0, 4.0]]), torch.tensor([[1.0, 0], [0, 1.0]])
    found = weight_gradients(entries, decoder, gradient, centred, relu=True)
    assert found.decoder.tolist() == [[0, 0], [6, 22]]
    assert found.encoder.tolist() == [[0, 0], [2, -4]]
    assert found.bias.tolist() == [0, -2]
    signed = weight_gradients(entries, decoder, gradient, centred, relu=False)
    assert signed.bias.tolist() == [4, -2]


def test_entries_of_rows_name_row_and_segment():
    entries = entries_of_rows(torch.tensor([[4, 1], [0, 3], [2, 2]]), torch.ones(3, 2))
    assert entries.rows.tolist() == entries.slots.tolist() == [0, 0, 1, 1, 2, 2]
    assert entries.offsets.tolist() == [0, 2, 4, 6]
    assert entries.latents.tolist() == [4, 1, 0, 3, 2, 2]


@pytest.mark.parametrize(
    ("arch", "settings", "told"),
    [
        ("topk", {"rescale_acts_by_decoder_norm": False}, "rescale_acts_by_decoder_norm is False"),
        ("topk", {"apply_b_dec_to_input": False}, "apply_b_dec_to_input is False"),
        ("topk", {"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        ("matryoshka", {"use_matryoshka_aux_loss": True}, "use_matryoshka_aux_loss is True"),
    ],
)
def test_settings_with_other_gradients_are_refused(arch, settings, told):
    with pytest.raises(ConfigError, match=told):
        SparseTorchBackend(make(arch, **settings))


def test_other_architectures_are_refused():
    config = sae_lens.StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE)
    with pytest.raises(ConfigError, match="not standard"):
        SparseTorchBackend(sae_lens.StandardTrainingSAE(config))


class BrokenKernels:
    @staticmethod
    def segment_sum(*args):
        raise RuntimeError("no C compiler")


class WrongKernels:
    segment_sum = staticmethod(lambda *args: torch.zeros(1))
    entry_dots = staticmethod(lambda *args: torch.zeros(1))


@pytest.mark.parametrize(
    ("kernels", "told"), [(BrokenKernels, "no C compiler"), (WrongKernels, "results are wrong")]
)
def test_kernels_that_do_not_work_are_left_aside(kernels, told, monkeypatch):
    monkeypatch.setattr(sparse_ops, "_imported_kernels", lambda: kernels)
    with pytest.warns(UserWarning, match=told):
        assert sparse_ops._compiled_kernels.__wrapped__(torch.device("cpu")) is None


INTERPRETED = """
import torch
from affectlens.training import sparse_ops as ops

assert ops._kernels_for(torch.zeros(1)) is not None, "the interpreter is off"
assert ops._compiled_kernels(torch.device("cpu")) is not None
g = torch.Generator().manual_seed(0)
for lengths, d in [((3, 0, 17, 1, 40), 20), ((0, 0), 128), ((16, 33), 131), ((5,), 300)]:
    n = sum(lengths)
    table, other = torch.randn(9, d, generator=g), torch.randn(7, d, generator=g)
    index, second = (torch.randint(0, m, (n,), generator=g) for m in (9, 7))
    values, offsets = torch.randn(n, generator=g), torch.tensor([0, *lengths]).cumsum(0)
    strided = table.T.contiguous().T
    for rows in (table, strided):
        found = ops.sparse_decode(index, values, rows, offsets)
        exact = ops.sparse_decode(index, values.double(), rows.double(), offsets)
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
        dots = ops.entry_dots(rows, index, other, second)
        exact = ops.entry_dots(rows.double(), index, other.double(), second)
        torch.testing.assert_close(dots.double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(found, ops.sparse_decode(index, values, table, offsets))
print("equal")
"""


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from affectlens.training import triton_kernels as ours

integers, numbers = "*i64", "*fp32"
blocks = dict.fromkeys(ours._BLOCKS, "constexpr")
sums = {"indices": integers, "weights": numbers, "table": numbers, "offsets": integers}
dots = {"left_rows": integers, "left": numbers, "right_rows": integers, "right": numbers}
kernels = [
    (ours._segment_sum, {**sums, "out": numbers, "width": "i32", **blocks}),
    (ours._entry_dots, {**dots, "out": numbers, "n_entries": "i32", "width": "i32", **blocks}),
]
for capability in (80, 90):
    for kernel, signature in kernels:
        source = ASTSource(fn=kernel, signature=signature, constexprs=ours._BLOCKS)
        done = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert "atom." not in done.asm["ptx"] and done.asm["cubin"]
print("compiled")
"""


def run_with_triton(script, **environment):
    """In a process of its own: Triton reads its variables when the kernels are imported."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed; `pip install triton` lets its kernels be tried")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_interpreted_triton_kernels_equal_torch():
    assert run_with_triton(INTERPRETED, TRITON_INTERPRET="1") == "equal"


def test_triton_kernels_compile_without_a_gpu_and_use_no_atomics(tmp_path):
    cache = str(tmp_path)
    assert run_with_triton(COMPILED, TRITON_INTERPRET="0", TRITON_CACHE_DIR=cache) == "compiled"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """What follows is written for a GPU; on the CPU it shows that the tests are right."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return torch.device(request.param)


@pytest.mark.parametrize("n_dead", [0, 5, 60])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_device_gives_the_gradients_of_the_cpu(arch, n_dead, device):
    # With TF32, which torch leaves off, a GPU's products would be right to 1e-3 only.
    assert torch.get_float32_matmul_precision() == "highest"
    dead, rows = dead_of(n_dead), rows_of(200)
    expected = gradients(AutogradBackend(make(arch), unit_rows=False), rows, dead)
    backend = SparseTorchBackend(make(arch).to(device), unit_rows=True)
    first = gradients(backend, rows.to(device), dead.to(device))
    assert_same_step(first, expected, rel=1e-5)
    again = gradients(backend, rows.to(device), dead.to(device))
    for name, grad in first[1].items():
        assert torch.equal(grad, again[1][name])


def test_sums_and_dots_on_a_device_equal_double_precision(device):
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        assert sparse_ops._compiled_kernels(device) is not None
    g = torch.Generator().manual_seed(0)
    table, n = torch.randn(90, 300, generator=g), 5000
    indices, seconds = (torch.randint(0, 90, (n,), generator=g) for _ in range(2))
    values, offsets = torch.randn(n, generator=g), torch.tensor([0, 3, 3, 700, n])
    there = [tensor.to(device) for tensor in (indices, values, table, offsets)]
    expected = sparse_decode(indices, values.double(), table.double(), offsets)
    # Sums of thousands of terms that nearly cancel: measured against the largest.
    atol = 1e-5 * float(expected.abs().max())
    found = sparse_decode(*there).cpu().double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=atol)
    dots = entry_dots(there[2], there[0], there[2], seconds.to(device)).cpu().double()
    expected = entry_dots(table.double(), indices, table.double(), seconds)
    torch.testing.assert_close(dots, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
