"""Held-out evaluations on the way: the curve, where it goes, and whether training still gains."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from affectlens.sae.metrics import QualityMeter
from affectlens.training.checkpoints import TrainState
from affectlens.training.config import TrainConfig
from affectlens.training.thresholds import (
    BATCH_ARCHS,
    batch_keys,
    encode_for_inference,
    mean_l0_threshold,
    rows_at_once,
)
from affectlens.training.trackers import Tracker

_CALIBRATION_STRIDE = 4
"""Every so manieth held-out row sets the threshold of an evaluation; the others measure."""


@dataclass
class Watch:
    """Evaluates at evenly spread sample counts and tells the trackers.

    Attributes:
        config: the run's settings.
        rows: held-out activations [n, d_in] in stored units; empty for none.
        trackers: take every evaluation.
    """

    config: TrainConfig
    rows: Tensor
    trackers: list[Tracker] = field(default_factory=list)
    _mark: tuple[float, int] | None = None

    def start(self, state: TrainState) -> None:
        """Begin to measure the throughput of this part of the run."""
        self._mark = (time.monotonic(), state.n_samples)

    def due(self, before: int, after: int, *, last: bool) -> bool:
        """Whether an evaluation falls between two sample counts."""
        n, total = self.config.watch.n_evals, self.config.n_samples
        if not n or len(self.rows) < 2:
            return False
        return last or before * n // total < after * n // total

    def evaluate(self, state: TrainState, loss: float | None, lr: float) -> None:
        """Measure, add to the history, and tell the trackers.

        `loss` is None where a continued run makes no step any more; it is left out then.
        """
        quality = held_out_quality(state, self.config, self.rows)
        quality = quality if loss is None else {"loss": loss, **quality}
        state.history.append({"n_samples": float(state.n_samples), **quality})
        self.tell(
            {
                "step": state.step,
                "n_samples": state.n_samples,
                **quality,
                "lr": lr,
                "tokens_per_s": round(self._throughput(state), 1),
                "seconds": round(state.seconds, 3),
            }
        )

    def finish(self, state: TrainState, loss: float | None, lr: float) -> None:
        """Evaluate once more where the data ended, unless that was just done."""
        done = state.history[-1]["n_samples"] if state.history else 0
        if state.n_samples > done and self.due(0, 0, last=True):
            self.evaluate(state, loss, lr)

    def tell(self, point: Mapping[str, Any]) -> None:
        """Hand one line to every tracker."""
        for tracker in self.trackers:
            tracker.log(point)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self.trackers:
            tracker.close()

    def _throughput(self, state: TrainState) -> float:
        now = time.monotonic()
        then, before = self._mark or (now, state.n_samples)
        self._mark = (now, state.n_samples)
        return (state.n_samples - before) / (now - then) if now > then else 0.0


@torch.no_grad()
def held_out_quality(state: TrainState, config: TrainConfig, rows: Tensor) -> dict[str, float]:
    """`fvu`, `l0` and `dead_share` so far, as the inference form would have them.

    The batch architectures get a threshold from a quarter of the rows and are measured on the rest.
    A latent counts as dead after `dead_window` samples without firing.
    """
    sae, device = state.sae, state.since_fired.device
    threshold = None
    if config.arch in BATCH_ARCHS and len(rows) >= 2 * _CALIBRATION_STRIDE:
        sample = rows[::_CALIBRATION_STRIDE].to(device) * state.scale
        threshold = mean_l0_threshold(batch_keys(sae), config.d_sae, sample, config.k)
        chosen = torch.ones(len(rows), dtype=torch.bool)
        chosen[::_CALIBRATION_STRIDE] = False
        rows = rows[chosen]
    meter = QualityMeter(config.d_sae)
    for chunk in rows.split(rows_at_once(config.d_sae)):
        scaled = chunk.to(device) * state.scale
        z = encode_for_inference(sae, scaled, threshold)
        meter.add(scaled, sae.decode(z), z)
    dead = state.since_fired > config.dead_window
    return {"fvu": meter.fvu, "l0": meter.l0, "dead_share": float(dead.double().mean())}


def no_more_gain(history: list[dict[str, float]], patience: int, min_gain: float) -> bool:
    """Whether the last `patience` evaluations all failed to lower the best FVU by `min_gain`.

    Args:
        history: evaluations, each with `fvu`.
        patience: how many in a row; 0 never ends a run.
        min_gain: share of the best FVU so far by which a lower one must undercut it.
    """
    best, stale = math.inf, 0
    for point in history:
        lower = point["fvu"] < best * (1 - min_gain) if math.isfinite(best) else True
        best, stale = (point["fvu"], 0) if lower else (best, stale + 1)
    return 0 < patience <= stale
