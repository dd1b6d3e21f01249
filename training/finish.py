"""From a trained state to a folder: fold, calibrate, measure, write."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from affectlens.data.artifacts import atomic_folder
from affectlens.sae.convert import inference_form
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.saving import write_sae
from affectlens.training.checkpoints import TrainState
from affectlens.training.config import SPARSE_ARCHS, TrainConfig
from affectlens.training.evaluate import Evaluation, reconstruction, write_metrics
from affectlens.training.loop import Ending
from affectlens.training.memory import THRESHOLD_ROWS
from affectlens.training.thresholds import BATCH_ARCHS, calibrate_threshold
from affectlens.training.trackers import METRICS_LINES, LinesTracker

logger = logging.getLogger("affectlens")


def finish(
    state: TrainState,
    config: TrainConfig,
    out: Path,
    *,
    ending: Ending,
    heldout: Callable[[int], Tensor],
    measure: Callable[[SparseAutoencoder, int], Evaluation],
    metadata: Mapping[str, Any],
    lines: Path,
) -> SparseAutoencoder:
    """Write the trained SAE to `out`, complete or not at all.

    Args:
        state: the end of the training; its weights are folded in place.
        config: settings.
        out: folder of the SAE.
        ending: why training ended.
        heldout: at most so many held-out rows [n, d_in].
        measure: the final metrics.
        metadata: what `cfg.json` says about the origin.
        lines: the run's `metrics.jsonl`; a closing line is added and it goes into the folder.

    Raises:
        MachineError: the disk is full.
    """
    raw = to_inference(state, config)
    for key, value in metadata.items():
        raw.cfg.metadata[key] = value
    warnings = []
    if config.arch in BATCH_ARCHS:
        threshold = calibrate_threshold(raw, heldout(THRESHOLD_ROWS), config.k)
        if threshold == 0:
            warnings.append(f"no more than k = {config.k} latents are positive: L0 is below k")
    sae = SparseAutoencoder(raw, source=str(out))
    result = measure(sae, config.watch.n_eval_rows)
    raw.cfg.metadata.l0 = result.l0
    raw.cfg.metadata.training_end = {
        "reason": ending,
        "n_samples": state.n_samples,
        "stopped_at": state.stopped_at,
        "warnings": warnings,
    }
    if ending != "n_samples":
        logger.warning(
            "training ended after %s of %s samples: %s",
            f"{state.n_samples:,}",
            f"{config.n_samples:,}",
            {"data": "the data ended", "early_stop": "no more gain"}[ending],
        )
    tokens_per_s = state.n_samples / state.seconds if state.seconds else 0.0
    LinesTracker(lines, state.step).log(
        {
            "step": state.step,
            "n_samples": state.n_samples,
            "end": ending,
            "warnings": warnings,
            "fvu": result.fvu,
            "l0": result.l0,
            "dead_share": result.dead_share,
            "seconds": round(state.seconds, 3),
            "tokens_per_s": round(tokens_per_s, 1),
        }
    )
    with atomic_folder(out) as staged:
        write_sae(raw, staged)
        (staged / METRICS_LINES).write_bytes(lines.read_bytes())
        write_metrics(
            staged / "metrics.json",
            sae,
            result,
            n_training_samples=state.n_samples,
            history=state.history,
        )
    return sae


def to_inference(state: TrainState, config: TrainConfig) -> Any:
    """The sae-lens inference SAE that reads raw residuals, its decoder rows of norm one.

    The training SAE is changed in place.
    """
    state.sae.fold_activation_norm_scaling_factor(state.scale)
    raw = inference_form(state.sae.to("cpu"))
    if config.arch not in SPARSE_ARCHS:
        # `inference_form` has done it for the TopK family, whose selection counts the norms.
        raw.fold_W_dec_norm()
    return raw


def evaluate_rows(sae: SparseAutoencoder, rows: Tensor) -> Evaluation:
    """FVU, L0 and dead latents on rows [n, d_in] in stored units; no cross-entropies."""
    meter = reconstruction(sae, rows)
    return Evaluation(meter.n, 0, meter.fvu, meter.l0, meter.dead_share, *[math.nan] * 6)
