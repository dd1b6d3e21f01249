"""`affectlens doctor`: is this machine fit for a run? Nothing is sent or fetched."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import typer

from affectlens import __version__
from affectlens.cli_options import Common, verb
from affectlens.console import note
from affectlens.data.errors import AffectLensError, MachineError

Status = Literal["ok", "warn", "fail"]
_GIB = 2**30
_NEEDED_DISK = 2 * _GIB
_NEEDED_MEMORY = 3 * _GIB
PARITY_LIMIT = 1e-4
"""Float rounding over a few blocks; a wrong block differs by about one."""


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    status: Status
    detail: str


def register(app: typer.Typer) -> None:
    """Add `doctor` to the application."""
    verb(app, "doctor", examples="affectlens doctor\naffectlens doctor --json")(doctor)


def doctor(common: Common) -> None:
    """Check versions, machine, cache and, on tiny models, capture, splice and hook names.

    Ends with code 4 if something must be repaired first.
    """
    checks = [*packages(), *machine(), *cache()]
    checks += _guarded("torch", torch_state)
    checks += _guarded("smoke test", smoke_test)
    checks += _guarded("hooks as TransformerLens", hook_parity)
    common.console.table(
        ["check", "status", "detail"], [[c.name, c.status, c.detail] for c in checks]
    )
    failed = [c.name for c in checks if c.status == "fail"]
    common.console.result({"ok": not failed, "checks": [asdict(c) for c in checks]})
    if failed:
        note(f"error: not ready: {', '.join(failed)}")
        raise typer.Exit(MachineError.exit_code)
    common.console.say("\nready")


def packages() -> Iterator[Check]:
    """Versions against the ranges that were tested."""
    from packaging.requirements import Requirement

    yield Check("affectlens", "ok", __version__)
    yield Check("python", "ok", platform.python_version())
    for text in requires("affectlens") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Check(wanted.name, "fail", f"not installed; need {wanted.specifier}")
            continue
        fits = wanted.specifier.contains(found, prereleases=True)
        detail = found if fits else f"{found}, tested range is {wanted.specifier}"
        yield Check(wanted.name, "ok" if fits else "fail", detail)


def machine() -> Iterator[Check]:
    """Cores, memory and disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "ok" if (cores or 1) > 1 else "warn", str(cores))
    from affectlens.training.memory import available_bytes

    free = available_bytes()
    if free is not None:
        enough = free >= _NEEDED_MEMORY
        yield Check("memory", "ok" if enough else "warn", f"{free / _GIB:.1f} GiB available")
    room = shutil.disk_usage(Path.cwd()).free
    enough = room >= _NEEDED_DISK
    yield Check("disk", "ok" if enough else "warn", f"{room / _GIB:.1f} GiB free here")


def cache() -> Iterator[Check]:
    """The model cache: can it be written, and does it hold the default model?"""
    from affectlens.data.model_cache import DEFAULT, cache_root, is_cached

    root = cache_root()
    existing = next(p for p in (root, *root.parents) if p.exists())
    writable = os.access(existing, os.W_OK)
    detail = str(root) if writable else f"{root} cannot be written; set AFFECTLENS_CACHE"
    yield Check("cache folder", "ok" if writable else "fail", detail)
    ready = is_cached()
    detail = "cached" if ready else "not cached yet; fetched at the first use (93 MB)"
    yield Check(DEFAULT.name, "ok" if ready else "warn", detail)


def torch_state() -> Iterator[Check]:
    """Threads and accelerators as torch sees them."""
    import torch

    yield Check("torch threads", "ok", str(torch.get_num_threads()))
    n_gpus = torch.cuda.device_count()
    yield Check("accelerator", "ok", f"{n_gpus} CUDA device(s)" if n_gpus else "none, CPU is used")


def smoke_test() -> Iterator[Check]:
    """A tiny model: capture a layer, splice an SAE without change, compare the logits' bits."""
    start = time.monotonic()
    import torch

    from affectlens.data.hooks import EditContext, capture, edit
    from affectlens.data.tiny import tiny_model
    from affectlens.sae.splice import splice_delta

    lm = tiny_model("llama")
    batch = lm.encode(["The day began like any other.", "Rain."])
    sae = _random_sae(lm.d_model)
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
        yield Check("smoke test", "fail", "an empty splice changes the logits, or an edit does not")


def hook_parity() -> Iterator[Check]:
    """Do our hooks read what TransformerLens reads? On a tiny model of each family."""
    from affectlens.data.parity import largest_difference
    from affectlens.data.tiny import FAMILIES, tiny_model

    worst = max(largest_difference(tiny_model(f), "A door, a key.") for f in FAMILIES)
    equal = worst < PARITY_LIMIT
    detail = f"{', '.join(FAMILIES)}: largest difference {worst:.1e}"
    yield Check("hooks as TransformerLens", "ok" if equal else "fail", detail)


def _random_sae(d_in: int):  # type: ignore[no-untyped-def]
    import torch
    from sae_lens import TopKSAE, TopKSAEConfig

    from affectlens.sae.model import SparseAutoencoder

    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=4 * d_in, k=4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return SparseAutoencoder(sae)


def _guarded(name: str, checks: Callable[[], Iterator[Check]]) -> list[Check]:
    """The checks, or one failed line: a broken installation must not end the table."""
    try:
        return list(checks())
    except (AffectLensError, ImportError, RuntimeError, OSError, ValueError, AttributeError) as e:
        return [Check(name, "fail", f"{type(e).__name__}: {e}")]
