"""Results of every kind with made-up tables, to be shown and drawn; no model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from affectlens.features.baselines import Baselines
from affectlens.features.effects import EffectResult
from affectlens.features.lexical_controls import LexicalControls
from affectlens.features.results import EffectsSummary, read_table
from affectlens.features.screened import Screen, read_screen
from affectlens.features.search import SearchResult
from affectlens.features.steering_study import SteeringStudy
from affectlens.features.stored import read_search
from affectlens.features.study_record import SteeringSummary
from affectlens.features.validation_records import BaselinesSummary, ControlsSummary

REPORT = Path(__file__).parents[1] / "report"
STAGES = (
    *("run", "sae", "search", "reads", "controls", "baselines", "effects", "screen", "mediation"),
    "study",
)
Shown = SearchResult | Screen | EffectResult | SteeringStudy | LexicalControls | Baselines


def written(run: Path, **settings: Any) -> Path:
    """A synthetic run folder."""
    if str(REPORT) not in sys.path:
        sys.path.append(str(REPORT))
    made = importlib.import_module("synthetic_run")
    return Path(made.write_run(run, made.Settings(n_tested=200, stages=STAGES, **settings)))


def results(run: Path) -> dict[str, Any]:
    """Every result that such a folder holds."""

    def tables(*names: str) -> tuple[Any, ...]:
        return tuple(read_table(run, name) for name in names)

    effects, verdicts, *rest = tables(
        *(f"effects/{n}" for n in ("effects", "verdicts", "doses", "mediation", "matrix", "damage"))
    )
    names = ("texts", "curves", "chosen", "ranking", "comparisons", "wins")
    return {
        "found": read_search(run),
        "screen": read_screen(run),
        "effect": EffectResult(effects, verdicts, EffectsSummary.read(run), *rest),
        "study": SteeringStudy(
            *tables(*(f"steering/{n}" for n in names)), SteeringSummary.read(run)
        ),
        "controls": LexicalControls(
            *tables("search/controls", "search/control_grains", "search/strict"),
            ControlsSummary.read(run),
        ),
        "baselines": Baselines(*tables("search/baselines"), BaselinesSummary.read(run)),
    }
