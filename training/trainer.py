"""Training an SAE on stored activations, or on any iterator of them, into a folder.

1. A sample of the training rows gives the mean, for the decoder bias, and the scale: rows are
   multiplied so that their mean distance from the mean is sqrt(d_in) (the input scaling of
   Conerly et al. 2024, with the mean left out because one direction can hold most of the norm).
2. Adam steps with the gradients of a backend (`loop`); the learning rate rises, stays and decays
   linearly to zero.
3. Scale and decoder norms are folded into the weights, so the saved SAE reads raw residuals and its
   decoder rows have norm one (`finish`).
4. The state is written by time, on Ctrl-C, and never half; the same call continues from it and ends
   with the same weights as an uninterrupted run on the same machine.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectlens.data.artifacts import clear_staged, folder_lock, read_json, sha256_json
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.models import LanguageModel
from affectlens.sae.loading import load_sae
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.building import build_training_sae, choose_backend, column_mean
from affectlens.training.checkpoints import (
    TrainState,
    checkpoints,
    refuse_other_run,
    restore_newest,
    samples_in,
)
from affectlens.training.config import K_READ_BY, WITHOUT_EFFECT, TrainConfig
from affectlens.training.evaluate import Store
from affectlens.training.finish import finish
from affectlens.training.loop import Saver, fit, refuse_not_finite
from affectlens.training.memory import CURVE_ROWS, THRESHOLD_ROWS, check_machine, plan
from affectlens.training.sources import Source, iterator_source, resolve_hook, store_source
from affectlens.training.trackers import METRICS_LINES, LinesTracker, open_tracker
from affectlens.training.watch import Watch

_FEW_HELDOUT = 1000
"""Held-out rows below which the measures of two runs differ by chance alone."""

logger = logging.getLogger("affectlens")


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
        ConfigError: sizes that do not go together, no such layer in the store, no such device, or
            `lm` is not the model that the store was harvested from.
        ArtifactError: `out` belongs to a run with other settings, activations that are not finite,
            held-out ones that cannot measure anything, or damaged checkpoints.
        MachineError: not enough memory or disk, or another process trains there.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    source = store_source(store, config, resolve_hook(store, config), lm)
    return _to_folder(source, config, Path(out), quiet=quiet, device=device)


def train_on(
    batches: Iterable[Tensor],
    config: TrainConfig,
    out: Path,
    *,
    d_in: int,
    heldout: Tensor,
    start: int = 0,
    metadata: Mapping[str, Any] | None = None,
    quiet: bool | None = None,
    device: str = "cpu",
) -> SparseAutoencoder:
    """Train an SAE on any iterator of activations and save it to `out` as `train` does.

    The iterator may be finite or endless and its batches of any sizes; they are copied. It is not
    known here how to rewind it, so after an interruption the caller hands over the batches that
    follow the saved sample, none if there are no more: `samples_seen(out)` tells it, `start`
    confirms it.

    Args:
        batches: activations [b, d_in], any float type, masked rows left out.
        config: settings; `layer` and `buffer_share` are not read.
        out: folder of the SAE.
        d_in: width of the activations.
        heldout: activations [n, d_in] that do not occur in `batches`.
        start: samples that come before the first batch.
        metadata: what the SAE should say about its origin, such as `hook_name` and `model_name`;
            without `hook_name` no later stage knows where it belongs.
        quiet: no progress.
        device: where to train.

    Raises:
        ConfigError: sizes that do not go together, or `start` is not the saved sample.
        ArtifactError: as `train`.
        MachineError: as `train`.
    """
    out = Path(out)
    saved = samples_seen(out)
    if start != saved and not (out / "cfg.json").exists():
        raise ConfigError(
            f"the saved state of {out} is at sample {saved:,} and start is {start:,}; hand over "
            f"the batches from sample {saved:,} on with start={saved}, or delete {_work(out)}"
        )
    source = iterator_source(batches, config, d_in, heldout, metadata or {}, start=start)
    return _to_folder(source, config, out, quiet=quiet, device=device)


def samples_seen(out: Path) -> int:
    """Samples that the saved state of an unfinished run for `out` has seen; 0 without one."""
    return samples_in(_work(Path(out)))


def check_room(config: TrainConfig, out: Path, d_in: int, n_rows: int, device: str = "cpu") -> None:
    """Refuse a run that the machine cannot hold; reads no activation.

    Args:
        config: settings.
        out: folder of the SAE; checkpoints that lie there already count as part of the need.
        d_in: width of the activations.
        n_rows: stored training rows; 0 for a stream.
        device: where to train.

    Raises:
        ConfigError: no such device, or sizes that do not go together.
        MachineError: not enough memory or disk.
    """
    _check_k(config)
    saved = sum(path.stat().st_size for path in checkpoints(_work(Path(out))))
    check_machine(plan(config, d_in, n_rows, device), config, out, device, saved_bytes=saved)


def _check_k(config: TrainConfig) -> None:
    if config.arch in K_READ_BY and config.k >= config.d_sae:
        raise ConfigError(f"k ({config.k}) must be smaller than d_sae ({config.d_sae})")


def fresh_state(config: TrainConfig, rows: Tensor, device: str = "cpu") -> TrainState:
    """The state before the first step.

    Args:
        config: settings.
        rows: activations [n, d_in] in stored units, a sample of the training data.
        device: where to train.

    Raises:
        ArtifactError: the rows are constant or not finite.
        ConfigError: settings that do not go together.
    """
    mean = column_mean(rows)
    # In pieces: a float64 copy of the whole sample would take twice its memory.
    distances = (float((part.double() - mean).norm(dim=-1).sum()) for part in rows.split(1024))
    distance = sum(distances) / len(rows)
    if not math.isfinite(distance) or distance == 0:
        raise ArtifactError("the activations are constant or not finite; harvest again")
    scale = math.sqrt(rows.shape[1]) / distance
    sae = build_training_sae(config, rows * scale).to(device)
    counters = torch.zeros(config.d_sae, dtype=torch.long, device=device)
    return TrainState(backend=choose_backend(config, sae), scale=scale, since_fired=counters)


def _to_folder(
    source: Source, config: TrainConfig, out: Path, *, quiet: bool | None, device: str
) -> SparseAutoencoder:
    _check_k(config)
    identity = _identity(config, source)
    work = _work(out)
    with folder_lock(work):
        clear_staged(work)
        clear_staged(out.parent, out.name)
        finished = _finished(out, identity)
        if finished is None:
            check_room(config, out, source.d_in, source.n_rows, device)
            finished = _train(source, config, out, identity, quiet=quiet, device=device)
        for path in (*checkpoints(work), work / METRICS_LINES):
            path.unlink(missing_ok=True)
    (work / ".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        work.rmdir()
    return finished


def _train(
    source: Source,
    config: TrainConfig,
    out: Path,
    identity: Mapping[str, Any],
    *,
    quiet: bool | None,
    device: str,
) -> SparseAutoencoder:
    work = _work(out)
    _check_heldout(source, config)
    rows = source.calibration()
    refuse_not_finite(rows, "the sample for the starting values", source.explain)
    state = fresh_state(config, rows, device)
    del rows
    restore_newest(work, state, identity)
    watch = _open_watch(source, config, out, state, identity)
    try:
        ending = fit(
            source.batches(state.n_samples),
            config,
            state,
            watch=watch,
            saver=Saver(work, identity, config),
            explain=source.explain,
            quiet=quiet,
        )
    finally:
        watch.close()
    if not state.step:
        raise ArtifactError("the data holds no batch, so nothing was trained; give more of it")
    return finish(
        state,
        config,
        out,
        ending=ending,
        heldout=source.heldout,
        measure=source.measure,
        metadata={
            **source.metadata,
            "training_run": dict(identity),
            "training_run_sha256": sha256_json(dict(identity)),
        },
        lines=work / METRICS_LINES,
    )


def _check_heldout(source: Source, config: TrainConfig) -> None:
    """Refuse before the training what could not be measured after it; say if it will be rough."""
    for n in (config.watch.n_eval_rows, CURVE_ROWS, THRESHOLD_ROWS):
        rows = source.heldout(n)
        refuse_not_finite(rows, "the held-out part", source.explain)
        if len(rows) < 2 or torch.equal(rows, rows[:1].expand_as(rows)):
            raise ArtifactError(
                f"{len(rows)} held-out activations, no two of them different, cannot measure an "
                "SAE; harvest more text"
            )
    if len(rows) < _FEW_HELDOUT:
        logger.warning(
            "only %d held-out activations: FVU, L0 and dead share will be rough; harvest more text",
            len(rows),
        )


def _open_watch(
    source: Source, config: TrainConfig, out: Path, state: TrainState, identity: Mapping[str, Any]
) -> Watch:
    rows = source.heldout(CURVE_ROWS)
    tracker = open_tracker(
        config.watch.tracker,
        out.with_name(f"{out.name}.{config.watch.tracker}"),
        name=out.name,
        run_id=sha256_json([str(out.absolute()), dict(identity)])[:16],
        step=state.step,
        settings=config.model_dump(mode="json"),
    )
    lines = LinesTracker(_work(out) / METRICS_LINES, state.step)
    return Watch(config, rows, [lines, *([tracker] if tracker is not None else [])])


def _work(out: Path) -> Path:
    """Where the state of an unfinished run lies."""
    return out.with_name(out.name + ".training")


def _identity(config: TrainConfig, source: Source) -> dict[str, Any]:
    """What must be equal for a state to be continued, as flat JSON."""
    settings = config.model_dump(mode="json", exclude={"layer": True, **WITHOUT_EFFECT})
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= (
            {f"{name}.{k}": v for k, v in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "sae-lens")}
    return {**flat, **source.identity, **versions}


def _finished(out: Path, identity: Mapping[str, Any]) -> SparseAutoencoder | None:
    if not (out / "cfg.json").exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ArtifactError(f"{out} exists and holds no SAE; choose another folder")
        return None
    cfg = read_json(out / "cfg.json")
    metadata = cfg.get("metadata") if isinstance(cfg, dict) else None
    run = metadata.get("training_run") if isinstance(metadata, dict) else None
    if not isinstance(run, dict):
        raise ArtifactError(
            f"{out} holds an SAE that was not trained here (its cfg.json names no training run); "
            "choose another folder"
        )
    refuse_other_run(run, identity, out)
    return load_sae(out)
