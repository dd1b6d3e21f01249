"""Draws every figure of a run; a second process takes a part of them where a core is free.

The second process is a fresh interpreter, not a fork: whoever builds a report may hold threads of a
model. Its figures are the same bytes.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any

from .calibration_figures import calibration_figures
from .effect_matrix import matrix_figure
from .figures import search_figures
from .figures_arms import arm_figures
from .figures_baselines import baselines_figure
from .figures_battery import battery_figure
from .figures_effects import forest
from .figures_lexical import lexical_figure
from .figures_screen import screen_figures
from .figures_study import study_figures
from .loading import RunData, load_run
from .mediation import mediation_figures
from .theme import FigureSpec, FigureView, render
from .validity_figures import validity_figures

FIGURE_FOLDER = "figures"
FEWEST_SHARED = 12
"""Figures from which on a second process saves more time than its start takes."""

_COLLECT_AFTER = 50_000
_CODE = "import sys; from affectlens.report.drawing import serve_figures as f; f(sys.argv[1])"


def figure_specs(data: RunData) -> list[FigureSpec]:
    """Every figure that the run has data for, in the order of the page."""
    battery = battery_figure(data.card) if data.card is not None else None
    others = [forest(data), battery, lexical_figure(data), baselines_figure(data)]
    others += [matrix_figure(data)]
    return [
        *search_figures(data),
        *filter(None, others),
        *validity_figures(data),
        *calibration_figures(data),
        *arm_figures(data),
        *screen_figures(data),
        *mediation_figures(data),
        *study_figures(data),
    ]


class Drawing:
    """The figures of a run while they are drawn; use as a context.

    Where a core is free, a second process takes them from the back, one at a time, from the start
    on; `views` takes them from the front. So the caller may do other work in between.

    Raises:
        MachineError: the disk is full.
    """

    def __init__(self, data: RunData) -> None:
        self._folder = data.path / FIGURE_FOLDER
        self._specs = figure_specs(data)
        self._waiting = deque(self._specs)
        self._done: dict[str, FigureView] = {}
        self._helper: subprocess.Popen[str] | None = None
        self._feeder: Thread | None = None
        self._folder.mkdir(exist_ok=True)
        if len(self._specs) >= FEWEST_SHARED and _cores() > 1:
            self._helper = _started(data.path)
        if self._helper is not None:
            self._feeder = Thread(target=self._feed, args=(self._helper,), daemon=True)
            self._feeder.start()

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._helper is not None:
            self._helper.kill()
            self._helper.communicate()
        if self._feeder is not None:
            self._feeder.join()

    def views(self) -> dict[str, FigureView]:
        """Draw what is left and return all views by name, in the order of the page."""
        with suppress(IndexError):
            while True:
                self._draw(self._waiting.popleft())
        if self._feeder is not None:
            self._feeder.join()
        # What the other process could not draw is drawn here, where an error reaches the caller.
        for spec in self._specs:
            if spec.name not in self._done:
                self._draw(spec)
        return {spec.name: self._done[spec.name] for spec in self._specs}

    def _draw(self, spec: FigureSpec) -> None:
        self._done[spec.name] = render(spec, self._folder)

    def _feed(self, helper: subprocess.Popen[str]) -> None:
        """Hand names to the other process until none is left or it fails."""
        assert helper.stdin is not None and helper.stdout is not None
        with suppress(IndexError, OSError, ValueError):
            while True:
                name = self._waiting.pop().name
                helper.stdin.write(f"{name}\n")
                helper.stdin.flush()
                self._done[name] = _view(json.loads(helper.stdout.readline()))


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for cyclic garbage less often: figures are made of very many small objects."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def draw_figures(data: RunData) -> dict[str, FigureView]:
    """Draw all figures into the run's folder of figures; the views by name.

    Raises:
        MachineError: the disk is full.
    """
    with Drawing(data) as drawing:
        return drawing.views()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _started(run: Path) -> subprocess.Popen[str] | None:
    if not sys.executable:
        return None
    # -P: nothing is imported from the folder that the user stands in.
    command = [sys.executable, "-P", "-c", _CODE, str(run)]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
    except OSError:
        return None


def _view(row: dict[str, Any]) -> FigureView:
    """A view as the other process printed it."""
    row["size"], row["narrow_size"] = tuple(row["size"]), tuple(row["narrow_size"])
    return FigureView(**row)


def serve_figures(run: str) -> None:
    """Draw the figures named on standard input and print each view as a line of JSON."""
    with rare_collections():
        data = load_run(Path(run))
        specs = {spec.name: spec for spec in figure_specs(data)}
        for line in sys.stdin:
            view = render(specs[line.strip()], data.path / FIGURE_FOLDER)
            sys.stdout.write(json.dumps(asdict(view)) + "\n")
            sys.stdout.flush()
