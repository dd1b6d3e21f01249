"""Draws every figure of a run; a second process takes half of them where a core is free.

The second process is a fresh interpreter, not a fork: whoever builds a report may hold threads of a
model. Its figures are the same bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

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

_CODE = "import sys; from affectlens.report.drawing import print_figures as f; f(*sys.argv[1:])"


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


def draw_figures(data: RunData) -> dict[str, FigureView]:
    """Draw all figures into the run's folder of figures; the views by name.

    Raises:
        MachineError: the disk is full.
    """
    specs = figure_specs(data)
    (data.path / FIGURE_FOLDER).mkdir(exist_ok=True)
    share = specs[1::2] if len(specs) >= FEWEST_SHARED and _cores() > 1 else []
    helper = _started(data.path, share) if share else None
    try:
        done = _drawn([s for s in specs if s not in share], data)
        done |= _collected(helper) if helper else {}
    finally:
        if helper is not None and helper.poll() is None:
            helper.kill()
            helper.wait()
    # What the other process could not draw is drawn here, where an error reaches the caller.
    done |= _drawn([s for s in specs if s.name not in done], data)
    return {spec.name: done[spec.name] for spec in specs}


def _drawn(specs: Sequence[FigureSpec], data: RunData) -> dict[str, FigureView]:
    return {spec.name: render(spec, data.path / FIGURE_FOLDER) for spec in specs}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _started(run: Path, specs: Sequence[FigureSpec]) -> subprocess.Popen[bytes] | None:
    if not sys.executable:
        return None
    # -P: nothing is imported from the folder that the user stands in.
    command = [sys.executable, "-P", "-c", _CODE, str(run), *(spec.name for spec in specs)]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def _collected(helper: subprocess.Popen[bytes]) -> dict[str, FigureView]:
    """What the other process drew; nothing if it failed."""
    said, _ = helper.communicate()
    if helper.returncode != 0:
        return {}
    rows = [json.loads(line) for line in said.decode("utf-8").splitlines()]
    for row in rows:
        row["size"], row["narrow_size"] = tuple(row["size"]), tuple(row["narrow_size"])
    return {row["name"]: FigureView(**row) for row in rows}


def print_figures(run: str, *names: str) -> None:
    """Draw the named figures and print each view as a line of JSON."""
    data = load_run(Path(run))
    for view in _drawn([s for s in figure_specs(data) if s.name in names], data).values():
        sys.stdout.write(json.dumps(asdict(view)) + "\n")
