"""The training loop over any iterator of activations [b, d_in], and the schedules it follows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.progress import track
from affectlens.training.checkpoints import (
    TrainState,
    checkpoint_path,
    prune_checkpoints,
    save_checkpoint,
)
from affectlens.training.config import SPARSE_ARCHS, TrainConfig
from affectlens.training.interrupts import Interrupt, deferred_interrupt
from affectlens.training.watch import Watch, no_more_gain

Ending = Literal["n_samples", "data", "early_stop"]
_LAST_DECAY_SHARE = 0.2
"""Share of the samples seen that the decay after an early stop takes."""
_SHOWN_ROWS = 8


@dataclass
class Saver:
    """Writes checkpoints by time and by count.

    Attributes:
        folder: where they lie.
        identity: settings and data of the run, stored in each.
        config: how often, and how many stay.
    """

    folder: Path
    identity: Mapping[str, Any]
    config: TrainConfig

    def __post_init__(self) -> None:
        self._saved, self._cost = time.monotonic(), 0.0

    def due(self, before: int, after: int) -> bool:
        """Whether a checkpoint is due after the step that led from `before` samples to `after`."""
        watch, every = self.config.watch, self.config.watch.checkpoint_every_samples
        # Saving a very wide SAE takes long; no more than a tenth of the time goes into it.
        wait = max(watch.checkpoint_every_s, 10 * self._cost) if watch.checkpoint_every_s else 0
        late = time.monotonic() - self._saved >= wait
        return late or (every is not None and before // every < after // every)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, then remove the oldest.

        Raises:
            MachineError: the disk is full; the older ones are untouched.
        """
        begun = time.monotonic()
        save_checkpoint(checkpoint_path(self.folder, state.step), state, self.identity)
        prune_checkpoints(self.folder, self.config.watch.keep_checkpoints)
        self._saved = time.monotonic()
        self._cost = self._saved - begun


def fit(
    batches: Iterable[Tensor],
    config: TrainConfig,
    state: TrainState,
    *,
    watch: Watch | None = None,
    saver: Saver | None = None,
    explain: Callable[[], str] = lambda: "",
    quiet: bool | None = None,
) -> Ending:
    """Train `state` in place on `batches`, from the samples it has seen up to `config.n_samples`.

    Learning rate and sparsity follow the samples seen, so batches of any sizes give the same
    schedule. Data that ends earlier ends the training with what there was.

    Args:
        batches: activations [b, d_in] in stored units, finite or endless; float32 on the CPU. They
            are scaled in place and may be overwritten. Those without a row are passed over.
        config: settings.
        state: from `trainer.fresh_state`, or read from a checkpoint.
        watch: evaluates on the way; without it there is no curve and no early stop.
        saver: writes checkpoints; without it nothing is saved, on Ctrl-C neither.
        explain: where rows that are not finite come from, for the message.
        quiet: no progress.

    Returns:
        Why it ended: "n_samples", "data" or "early_stop".

    Raises:
        ArtifactError: rows that are not finite, or a loss that is not.
        ConfigError: batches of another width.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    source = iter(batches)
    watch = watch or Watch(config, torch.empty(0, 0))
    watch.start(state)
    begun, before_begin = time.monotonic(), state.seconds
    loss, lr = None, 0.0
    with (
        deferred_interrupt() as interrupt,
        track(
            config.n_samples, "activations", "train", start=state.n_samples, quiet=quiet
        ) as progress,
    ):
        while state.n_samples < run_length(config, state):
            rows = next(source, None)
            if rows is None:
                watch.finish(state, loss, lr)
                _end_if_asked(interrupt, saver, state)
                return "data"
            if rows.ndim == 2 and not len(rows):
                continue
            before, lr = state.n_samples, current_rate(config, state)
            loss = train_step(rows, config, state, lr, explain)
            state.seconds = before_begin + time.monotonic() - begun
            last = state.n_samples >= run_length(config, state)
            if watch.due(before, state.n_samples, last=last):
                watch.evaluate(state, loss, lr)
                _look_for_the_end(config, state)
            # The last batch may go beyond what was asked for.
            progress.update(min(len(rows), config.n_samples - before))
            _end_if_asked(interrupt, saver, state)
            if saver and not last and saver.due(before, state.n_samples):
                saver.save(state)
    return "n_samples" if state.stopped_at is None else "early_stop"


def _end_if_asked(interrupt: Interrupt, saver: Saver | None, state: TrainState) -> None:
    """After a signal: save, then do what the signal would have done."""
    if interrupt.requested:
        if saver:
            saver.save(state)
        interrupt.act(interrupt.requested)


def train_step(
    rows: Tensor,
    config: TrainConfig,
    state: TrainState,
    lr: float,
    explain: Callable[[], str] = lambda: "",
) -> float:
    """One step on rows [b, d_in] in stored units, which are overwritten; the loss."""
    _check_rows(rows, state, explain)
    rows = rows.to(state.since_fired.device, torch.float32).mul_(state.scale)
    weight = sparsity_factor(config, state.n_samples)
    result = state.backend.gradients(rows, state.since_fired > config.dead_window, weight)
    if not math.isfinite(result.loss):
        raise ArtifactError(
            f"the loss became {result.loss} at step {state.step}; lower lr ({config.lr}) "
            "or check the activations"
        )
    state.backend.update(lr)
    state.since_fired += len(rows)
    state.since_fired[result.fired] = 0
    state.step += 1
    state.n_samples += len(rows)
    return result.loss


def learning_rate(config: TrainConfig, step: float, n_steps: int) -> float:
    """Rate of step 0..n_steps-1: linear rise, plateau, linear decay to zero after the last step."""
    warmup = round(config.lr_warmup_share * n_steps)
    decay = round(config.lr_decay_share * n_steps)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (n_steps - step) / decay) if decay else 1.0
    return config.lr * min(rise, fall)


def current_rate(config: TrainConfig, state: TrainState) -> float:
    """Rate of the next step: the schedule's, or the short decay after an early stop."""
    n_steps = math.ceil(config.n_samples / config.batch_size)
    if state.stopped_at is None:
        return learning_rate(config, state.n_samples / config.batch_size, n_steps)
    peak = learning_rate(config, state.stopped_at / config.batch_size, n_steps)
    end = run_length(config, state)
    return peak * (end - state.n_samples) / (end - state.stopped_at)


def run_length(config: TrainConfig, state: TrainState) -> int:
    """Samples at which the run ends: `n_samples`, or a fifth beyond an early stop if it decays."""
    if state.stopped_at is None:
        return config.n_samples
    extra = math.ceil(_LAST_DECAY_SHARE * state.stopped_at) if config.lr_decay_share else 0
    return min(config.n_samples, state.stopped_at + extra)


def sparsity_factor(config: TrainConfig, n_samples: int) -> float:
    """Factor on the sparsity coefficient after `n_samples`: a linear rise from 0 to 1.

    The TopK family is sparse by its selection and has no such coefficient.
    """
    warmup = config.sparsity.warmup_share * config.n_samples
    if config.arch in SPARSE_ARCHS or not warmup:
        return 1.0
    return min(1.0, n_samples / warmup)


def _look_for_the_end(config: TrainConfig, state: TrainState) -> None:
    watch = config.watch
    if state.stopped_at is not None or state.n_samples >= config.n_samples:
        return
    if no_more_gain(state.history, watch.patience, watch.min_gain):
        state.stopped_at = state.n_samples


def _check_rows(rows: Tensor, state: TrainState, explain: Callable[[], str]) -> None:
    d_in = state.sae.cfg.d_in
    if rows.ndim != 2 or rows.shape[1] != d_in or not rows.is_floating_point():
        raise ConfigError(
            f"a batch is {tuple(rows.shape)} of {rows.dtype}, expected [n, {d_in}] of float32"
        )
    # One pass that allocates nothing; only if it is off are the rows looked at one by one.
    if math.isfinite(float(rows.sum())):
        return
    refuse_not_finite(rows, f"batch {state.step} (counted from 0)", explain)


def refuse_not_finite(rows: Tensor, where: str, explain: Callable[[], str]) -> None:
    """Raise if rows [n, d] hold NaN or inf.

    Raises:
        ArtifactError: how many rows, which ones, and where they come from.
    """
    bad = (~torch.isfinite(rows).all(-1)).nonzero().flatten().tolist()
    if bad:
        some = ", ".join(map(str, bad[:_SHOWN_ROWS])) + (", ..." if len(bad) > _SHOWN_ROWS else "")
        raise ArtifactError(
            f"{len(bad)} of {len(rows)} activations in {where} are not finite: rows {some}"
            f"{explain()}; the weights were not touched by them; harvest again, or mask these rows"
        )
