"""Training an SAE on stored activations.

1. A sample of the training rows gives the mean, for the decoder bias, and the scale: rows are
   multiplied so that their mean distance from the mean is sqrt(d_in) (the input scaling of
   Conerly et al. 2024, with the mean left out because one direction can hold most of the norm).
2. Adam steps with the gradients of a backend, clipped to norm one as sae-lens does; the learning
   rate rises, stays and decays linearly to zero.
3. Scale and decoder norms are folded into the weights, so the saved SAE reads raw residuals and its
   decoder rows have norm one. BatchTopK gets its inference threshold from held-out rows.
4. The state is written by time, on Ctrl-C, and never half; the same call continues from it and ends
   with the same weights as an uninterrupted run on the same machine.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.artifacts import (
    atomic_folder,
    clear_staged,
    folder_lock,
    read_json,
    sha256_json,
)
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.progress import Progress, track
from affectlens.sae.convert import inference_form
from affectlens.sae.loading import load_sae
from affectlens.sae.metrics import QualityMeter
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.checkpoints import (
    CHECKPOINT,
    TrainState,
    load_checkpoint,
    refuse_other_run,
    save_checkpoint,
)
from affectlens.training.config import TrainConfig
from affectlens.training.evaluate import Store, evaluate, write_metrics
from affectlens.training.steps import Backend, build_training_sae, choose_backend
from affectlens.training.thresholds import calibrate_threshold

_CALIBRATION_ROWS = 32_768
_CURVE_POINTS = 20
_CURVE_ROWS = 2048
_THRESHOLD_ROWS = 16_384
_BETAS = (0.9, 0.999)
_CLIP_NORM = 1.0


@dataclass
class _Interrupt:
    """Which signal asked for an end, 0 for none; the loop looks at it between two steps."""

    requested: int = 0
    previous: dict[int, Any] = field(default_factory=dict)

    def act(self, number: int, frame: FrameType | None = None) -> NoReturn:
        """Do what the signal would have done before it was deferred."""
        self.previous[number](number, frame)
        raise KeyboardInterrupt


def train(
    store: Store,
    config: TrainConfig,
    out: Path,
    *,
    lm: LanguageModel | None = None,
    quiet: bool | None = None,
    device: str = "cpu",
) -> SparseAutoencoder:
    """Train an SAE on `store` and save it to `out` in sae-lens form, with `metrics.json`.

    A finished SAE of the same settings and activations at `out` is returned as it is; an
    interrupted run (its state lies in `<out>.training`) is continued.

    Args:
        store: activations, with held-out documents.
        config: settings.
        out: folder of the SAE; it appears complete or not at all.
        lm: the model, for the loss-recovered metrics; may be left out.
        quiet: no progress.
        device: where to train.

    Raises:
        ConfigError: sizes that do not go together, or no such layer in the store.
        ArtifactError: `out` belongs to a run with other settings.
        MachineError: another process trains there, or the disk is full.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    out = Path(out)
    hook = resolve_hook(store, config)
    _check_sizes(config)
    identity = _identity(store, config, hook)
    work = out.with_name(out.name + ".training")
    with folder_lock(work):
        clear_staged(work)
        clear_staged(out.parent, out.name)
        finished = _finished(out, identity)
        if finished is None:
            state = _fresh_state(store, config, hook, device)
            if (work / CHECKPOINT).exists():
                load_checkpoint(work / CHECKPOINT, state, identity)
            _run(store, config, hook, state, work / CHECKPOINT, identity, quiet=quiet)
            finished = _finish(store, config, hook, state, out, identity, lm)
        (work / CHECKPOINT).unlink(missing_ok=True)
    (work / ".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        work.rmdir()
    return finished


def resolve_hook(store: Store, config: TrainConfig) -> str:
    """The hook name that `config.layer` means in `store`.

    Raises:
        ConfigError: no layer given and several stored, or a layer that is not stored.
    """
    names = list(store.hook_names)
    if config.layer is None:
        if len(names) == 1:
            return names[0]
        raise ConfigError(f"the store holds {', '.join(names)}; say which by `layer`")
    name = Address.parse(config.layer).name
    if name not in names:
        raise ConfigError(
            f"layer {config.layer} is not in the store, which holds {', '.join(names)}"
        )
    return name


def learning_rate(config: TrainConfig, step: int, n_steps: int) -> float:
    """Rate of step 0..n_steps-1: linear rise, plateau, linear decay to zero after the last step."""
    warmup = round(config.lr_warmup_share * n_steps)
    decay = round(config.lr_decay_share * n_steps)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (n_steps - step) / decay) if decay else 1.0
    return config.lr * min(rise, fall)


def _check_sizes(config: TrainConfig) -> None:
    if config.k >= config.d_sae:
        raise ConfigError(f"k ({config.k}) must be smaller than d_sae ({config.d_sae})")
    if config.arch == "batchtopk" and config.backend == "numba":
        raise ConfigError("the numba backend trains topk; use backend 'auto' for batchtopk")


def _identity(store: Store, config: TrainConfig, hook: str) -> dict[str, Any]:
    """What must be equal for a state to be continued, as flat JSON."""
    settings = config.model_dump(mode="json", exclude={"checkpoint_every_s", "layer"})
    versions = {name: importlib.metadata.version(name) for name in ("torch", "sae-lens")}
    return {**settings, "hook_name": hook, "store_sha256": store.sha256, **versions}


def _finished(out: Path, identity: dict[str, Any]) -> SparseAutoencoder | None:
    if not (out / "cfg.json").exists():
        if out.exists() and any(out.iterdir()):
            raise ArtifactError(f"{out} exists and holds no SAE; choose another folder")
        return None
    metadata = read_json(out / "cfg.json").get("metadata", {})
    refuse_other_run(metadata.get("training_run", {}), identity, out)
    return load_sae(out)


def _fresh_state(store: Store, config: TrainConfig, hook: str, device: str) -> TrainState:
    rows = _calibration_rows(store, config, hook)
    mean = rows.double().mean(0)
    distance = float((rows.double() - mean).norm(dim=-1).mean())
    if not math.isfinite(distance) or distance == 0:
        raise ArtifactError(f"the activations at {hook} are constant or not finite; harvest again")
    scale = math.sqrt(store.d_model) / distance
    sae = build_training_sae(config, rows * scale).to(device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr, betas=_BETAS, fused=True)
    counters = torch.zeros(config.d_sae, dtype=torch.long, device=device)
    return TrainState(sae=sae, optimizer=optimizer, scale=scale, since_fired=counters)


def _calibration_rows(store: Store, config: TrainConfig, hook: str) -> Tensor:
    batches = store.iter_batches(
        hook, _CALIBRATION_ROWS, part="train", generator=_generator(config), epochs=1
    )
    return next(iter(batches))


def _generator(config: TrainConfig) -> np.random.Generator:
    return np.random.default_rng(config.seed)


def _run(
    store: Store,
    config: TrainConfig,
    hook: str,
    state: TrainState,
    checkpoint: Path,
    identity: dict[str, Any],
    *,
    quiet: bool | None,
) -> None:
    n_steps = math.ceil(config.n_samples / config.batch_size)
    batches = store.iter_batches(
        hook, config.batch_size, part="train", generator=_generator(config), skip=state.step
    )
    backend = choose_backend(config, state.sae)
    curve_rows = store.heldout(hook, _CURVE_ROWS).acts
    every = max(1, n_steps // _CURVE_POINTS)
    saved = time.monotonic()
    start = state.step * config.batch_size
    with (
        _deferred_interrupt() as interrupt,
        track(n_steps * config.batch_size, "activations", "train", start=start, quiet=quiet) as bar,
    ):
        while state.step < n_steps:
            loss = _step(next(batches), config, state, backend, n_steps)
            if state.step % every == 0 or state.step == n_steps:
                state.history.append(_curve_point(state, config, curve_rows, loss))
            late = time.monotonic() - saved >= config.checkpoint_every_s
            if (late and state.step < n_steps) or interrupt.requested:
                save_checkpoint(checkpoint, state, identity)
                saved = time.monotonic()
            _advance(bar, config.batch_size)
            if interrupt.requested:
                interrupt.act(interrupt.requested)


def _advance(bar: Progress, n: int) -> None:
    bar.update(n)


def _step(
    rows: Tensor, config: TrainConfig, state: TrainState, backend: Backend, n_steps: int
) -> float:
    rows = rows.to(state.since_fired.device) * state.scale
    result = backend.step(rows, state.since_fired > config.dead_window)
    if not math.isfinite(result.loss):
        raise ArtifactError(
            f"the loss became {result.loss} at step {state.step}; lower lr ({config.lr}) "
            "or check the activations"
        )
    torch.nn.utils.clip_grad_norm_(state.sae.parameters(), _CLIP_NORM)
    state.optimizer.param_groups[0]["lr"] = learning_rate(config, state.step, n_steps)
    state.optimizer.step()
    state.since_fired += len(rows)
    state.since_fired[result.fired] = 0
    state.step += 1
    return result.loss


@torch.no_grad()
def _curve_point(
    state: TrainState, config: TrainConfig, rows: Tensor, loss: float
) -> dict[str, float]:
    """Held-out quality so far, with the training form of the SAE."""
    meter = QualityMeter(config.d_sae)
    scaled = rows.to(state.since_fired.device) * state.scale
    z = state.sae.encode(scaled)
    meter.add(scaled, state.sae.decode(z), z)
    return {
        "n_samples": float(state.step * config.batch_size),
        "loss": loss,
        "fvu": meter.fvu,
        "l0": meter.l0,
        "dead_share": float((state.since_fired > config.dead_window).double().mean()),
    }


def _finish(
    store: Store,
    config: TrainConfig,
    hook: str,
    state: TrainState,
    out: Path,
    identity: dict[str, Any],
    lm: LanguageModel | None,
) -> SparseAutoencoder:
    state.sae.fold_activation_norm_scaling_factor(state.scale)
    raw = inference_form(state.sae.to("cpu"))
    for key, value in _metadata(store, config, hook, identity, lm).items():
        raw.cfg.metadata[key] = value
    if config.arch == "batchtopk":
        calibrate_threshold(raw, store.heldout(hook, _THRESHOLD_ROWS).acts, config.k)
    sae = SparseAutoencoder(raw, source=str(out))
    result = evaluate(sae, store, lm, max_tokens=config.n_eval_rows)
    raw.cfg.metadata.l0 = result.l0
    n_samples = state.step * config.batch_size
    with atomic_folder(out) as staged:
        raw.save_model(staged)
        write_metrics(
            staged / "metrics.json",
            sae,
            result,
            n_training_samples=n_samples,
            history=state.history,
        )
    return sae


def _metadata(
    store: Store, config: TrainConfig, hook: str, identity: dict[str, Any], lm: LanguageModel | None
) -> dict[str, Any]:
    rule = store.mask_rule(hook)
    origin = store.provenance
    model = origin.get("model", {})
    return {
        "hook_name": hook,
        "model_name": model.get("name") or (lm.name if lm else ""),
        "model_fingerprint": model.get("fingerprint") or (lm.fingerprint if lm else None),
        "skip_first": rule.skip_first,
        "norm_limit": rule.norm_limit,
        "centre": False,
        "k": config.k,
        "context_size": origin.get("config", {}).get("context_length"),
        "training_run": identity,
        "training_run_sha256": sha256_json(identity),
    }


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[_Interrupt]:
    """Let Ctrl-C and a handled SIGTERM wait for the end of the step; a second one acts at once.

    An exception raised by a handler inside a compiled kernel would surface as a SystemError.
    """
    state = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if state.requested:
            state.act(number, frame)
        state.requested = number

    handled = [s for s in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(s))]
    state.previous = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield state
    finally:
        for number, handler in state.previous.items():
            signal.signal(number, handler)
