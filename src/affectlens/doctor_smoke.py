"""Small real calculations whose right results are known: does what is installed compute?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from affectlens.doctor_checks import Check, Status

if TYPE_CHECKING:
    import torch

    from affectlens.sae.model import SparseAutoencoder

PARITY_LIMIT = 1e-4
"""Float rounding over a few blocks; a wrong block differs by about one."""
_DTYPES = ("float32", "bfloat16", "float16")
_REINSTALL = "install the tested versions: pip install -c constraints.txt affectlens"


def torch_state() -> Iterator[Check]:
    """Threads and accelerators as torch sees them, each number format tried out on each."""
    import torch

    yield Check("torch threads", "ok", str(torch.get_num_threads()))
    yield _formats("cpu")
    n_gpus = torch.cuda.device_count()
    for index in range(n_gpus):
        name = torch.cuda.get_device_name(index)
        free, total = torch.cuda.mem_get_info(index)
        room = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        yield Check(f"cuda:{index}", "ok", f"{name}, {room}")
        yield _formats(f"cuda:{index}")
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple GPU; float32 and float16 only")
        yield _formats("mps")
    elif not n_gpus:
        built = torch.version.cuda
        why = f"torch is built for CUDA {built}" if built else "this torch is built for CPUs"
        yield Check("accelerator", "ok", f"none ({why}); everything runs on the CPU")
    yield from _triton(n_gpus)


def _formats(device: str) -> Check:
    """Which number formats multiply matrices on a device."""
    import torch

    works: list[str] = []
    broken: list[str] = []
    for name in _DTYPES:
        try:
            ones = torch.ones(8, 8, dtype=getattr(torch, name), device=device)
            right = float((ones @ ones).float().sum()) == 512.0
        except (RuntimeError, TypeError, NotImplementedError):
            right = False
        (works if right else broken).append(name)
    status: Status = "ok" if "float32" in works else "fail"
    detail = f"{', '.join(works)} work" + (f"; {', '.join(broken)} do not" if broken else "")
    cure = (
        "" if not broken else f"load models with dtype {works[0] if works else 'of another device'}"
    )
    return Check(f"formats on {device}", status, detail, cure)


def _triton(n_gpus: int) -> Iterator[Check]:
    import importlib.util

    here = importlib.util.find_spec("triton") is not None
    if n_gpus and not here:
        cure = "pip install triton: training on this GPU then uses the sparse kernels"
        yield Check("triton", "warn", "not installed", cure)
    else:
        said = "installed" if here else "not installed"
        yield Check("triton", "ok", said if n_gpus else f"{said}; used on a CUDA device only")


def numba_state() -> Iterator[Check]:
    """Numba's threads, and a kernel of the statistics against the same sum in NumPy."""
    import numba
    import numpy as np

    start = time.perf_counter()

    @numba.njit(cache=False)  # type: ignore[untyped-decorator,unused-ignore]
    def summed(x):  # type: ignore[no-untyped-def]
        total = 0.0
        for value in x:
            total += value
        return total

    x = np.arange(1000, dtype=np.float64)
    right = summed(x) == x.sum()
    took = time.perf_counter() - start
    detail = f"{numba.get_num_threads()} threads; compiles ({took:.1f} s)"
    if right:
        yield Check("numba", "ok", detail)
    else:
        yield Check("numba", "fail", "a compiled sum differs from NumPy's", _REINSTALL)


def smoke_test() -> Iterator[Check]:
    """A tiny model: capture a layer, splice an SAE without change, compare the logits' bits."""
    start = time.monotonic()
    import torch

    from affectlens.data.hooks import EditContext, capture, edit
    from affectlens.data.tiny import tiny_model
    from affectlens.sae.splice import splice_delta

    lm = tiny_model("llama")
    batch = lm.encode(["The day began like any other.", "Rain."])
    sae = random_sae(lm.d_model)
    seen = capture(lm, [1], batch)["blocks.1.hook_resid_post"]
    plain = lm.forward_logits(batch)

    def unchanged(resid: torch.Tensor, _: EditContext) -> torch.Tensor:
        z = sae.encode(resid)
        return resid + splice_delta(sae, z, z)

    def ablated(resid: torch.Tensor, _: EditContext) -> torch.Tensor:
        z = sae.encode(resid)
        return resid + splice_delta(sae, z, torch.zeros_like(z))

    with edit(lm, {"blocks.1.hook_resid_post": unchanged}):
        spliced = lm.forward_logits(batch)
    with edit(lm, {"blocks.1.hook_resid_post": ablated}):
        changed = lm.forward_logits(batch)
    right = (
        bool(torch.isfinite(seen).all())
        and torch.equal(plain, spliced)
        and not torch.equal(plain, changed)
        and torch.equal(plain, lm.forward_logits(batch))
    )
    seconds = f"{time.monotonic() - start:.1f} s"
    if right:
        yield Check("smoke test", "ok", f"empty splice leaves the logits bit-equal ({seconds})")
    else:
        said = "an empty splice changes the logits, or an edit does not"
        yield Check("smoke test", "fail", said, _REINSTALL)


def hook_parity() -> Iterator[Check]:
    """Do our hooks read what TransformerLens reads? On a tiny model of each family."""
    from affectlens.data.parity import largest_difference
    from affectlens.data.tiny import FAMILIES, tiny_model

    worst = max(largest_difference(tiny_model(f), "A door, a key.") for f in FAMILIES)
    equal = worst < PARITY_LIMIT
    detail = f"{', '.join(FAMILIES)}: largest difference {worst:.1e}"
    cure = "" if equal else _REINSTALL
    yield Check("hooks as TransformerLens", "ok" if equal else "fail", detail, cure)


def random_sae(d_in: int) -> SparseAutoencoder:
    """A TopK SAE of random weights; the global random state stays as it was."""
    import torch
    from sae_lens import TopKSAE, TopKSAEConfig

    from affectlens.sae.model import SparseAutoencoder

    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=4 * d_in, k=4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return SparseAutoencoder(sae)
