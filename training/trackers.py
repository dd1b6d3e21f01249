"""Where the numbers of a run go: JSON lines always, TensorBoard or wandb where asked for.

A tracker's library is imported when a run asks for it, never before.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from affectlens.data.artifacts import atomic_path, disk_errors
from affectlens.data.errors import ConfigError

METRICS_LINES = "metrics.jsonl"


class Tracker(Protocol):
    """Takes the numbers of one evaluation after the other."""

    def log(self, point: Mapping[str, Any]) -> None:
        """Take one evaluation; `point` holds `step` beside the measured numbers."""
        ...

    def close(self) -> None:
        """Write out what is pending."""
        ...


class LinesTracker:
    """Appends each evaluation to a JSON-lines file.

    Lines beyond `step`, a closing one, and a last one that was cut short come from a part of the
    run that will be done again; they are dropped, so that nothing occurs twice.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = Path(path)
        if self.path.exists():
            lines = read_lines(self.path)
            kept = [line for line in lines if "end" not in line and line.get("step", 0) <= step]
            with atomic_path(self.path) as staged:
                staged.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def log(self, point: Mapping[str, Any]) -> None:
        """See `Tracker.log`.

        Raises:
            MachineError: the disk is full.
        """
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(dict(point), allow_nan=False) + "\n")

    def close(self) -> None:
        """See `Tracker.close`."""


class TensorboardTracker:
    """Scalars for TensorBoard under `train/<name>`."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, point: Mapping[str, Any]) -> None:
        """See `Tracker.log`."""
        for name, value in point.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(f"train/{name}", value, int(point["step"]))

    def close(self) -> None:
        """See `Tracker.close`."""
        self.writer.close()


class WandbTracker:
    """One wandb run, continued after an interruption."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, point: Mapping[str, Any]) -> None:
        """See `Tracker.log`."""
        self.run.log(dict(point), step=int(point["step"]))

    def close(self) -> None:
        """See `Tracker.close`."""
        self.run.finish()


def open_tracker(
    kind: str, folder: Path, *, name: str, run_id: str, step: int, settings: Mapping[str, Any]
) -> Tracker | None:
    """The tracker of `watch.tracker`; None for "none".

    Args:
        kind: "none", "tensorboard" or "wandb".
        folder: where the tracker may keep its files.
        name: shown name of the run.
        run_id: the same for every part of an interrupted run.
        step: steps done so far; later ones are to be forgotten.
        settings: the run's settings, shown beside it.

    Raises:
        ConfigError: its package is not installed, or it cannot start.
    """
    if kind == "none":
        return None
    if kind == "tensorboard":
        writer = _needed("torch.utils.tensorboard", "tensorboard").SummaryWriter
        return TensorboardTracker(writer(log_dir=str(folder), purge_step=step + 1))
    wandb = _needed("wandb", "wandb")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            project="affectlens",
            name=name,
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=dict(settings),
        )
    except wandb.Error as error:
        raise ConfigError(
            f"watch.tracker is 'wandb', but wandb cannot start a run ({error}); run 'wandb login', "
            "set the variable WANDB_MODE to offline, or set watch.tracker to none"
        ) from error
    return WandbTracker(run)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; lines that are not JSON objects are passed over."""
    found = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _needed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"watch.tracker is {package!r}, but {package} cannot be imported ({error}); run "
            f"'pip install {package}', or set watch.tracker to none (metrics.jsonl is always "
            "written)"
        ) from error
