"""Reads a run folder into one frozen object; a stage that was not run is None, not an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from affectlens.data.artifacts import read_json
from affectlens.data.errors import ArtifactError
from affectlens.features.columns import TABLES
from affectlens.features.lexical_card import LexicalCard
from affectlens.features.results import (
    Context,
    EffectsSummary,
    Generation,
    SAEMetrics,
    SearchSummary,
    read_contexts,
    read_generations,
    read_table,
)
from affectlens.features.screen_records import ScreenSummary
from affectlens.features.study_record import SteeringSummary
from affectlens.features.validation_records import (
    BaselinesSummary,
    CalibrationSummary,
    ControlsSummary,
)

CONFIG_LIMIT = 40_000
"""Characters of config.yaml shown on the page; a longer file is cut, and the page says so."""

ALPHA = 0.05
"""Level at which results are judged where the run recorded none."""

NAMED = {
    "features": "search/features",
    "stats": "search/feature_stats",
    "specificity": "search/specificity",
    "pooled": "search/pooled",
    "effects": "effects/effects",
    "verdicts": "effects/verdicts",
    "readout": "effects/readout_check",
}
"""Fields of `RunData` that hold a table, with its name in the run folder."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RunData:
    """Everything the report may show.

    `info` is run.json (empty if absent), `card` the lexical card of the battery. `features`,
    `stats`, `specificity` and `pooled` come from the search, `readout`, `effects` and `verdicts`
    from the interventions; each frame has the columns that `affectlens.features.columns` declares.
    `tables` holds every other table of the folder by its name, such as "search/controls".
    """

    path: Path
    info: Mapping[str, Any] = field(default_factory=dict)
    config_text: str = ""
    card: LexicalCard | None = None
    metrics: SAEMetrics | None = None
    summary: SearchSummary | None = None
    features: pd.DataFrame | None = None
    stats: pd.DataFrame | None = None
    specificity: pd.DataFrame | None = None
    pooled: pd.DataFrame | None = None
    contexts: tuple[Context, ...] = ()
    effects_summary: EffectsSummary | None = None
    effects: pd.DataFrame | None = None
    verdicts: pd.DataFrame | None = None
    readout: pd.DataFrame | None = None
    generations: tuple[Generation, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    controls_summary: ControlsSummary | None = None
    baselines_summary: BaselinesSummary | None = None
    calibration_summary: CalibrationSummary | None = None
    screen_summary: ScreenSummary | None = None
    study_summary: SteeringSummary | None = None

    def table(self, name: str) -> pd.DataFrame | None:
        """A table of `features.columns.TABLES` by name; None if its stage was not run."""
        held = {table: field_ for field_, table in NAMED.items()}
        return getattr(self, held[name]) if name in held else self.tables.get(name)

    def rows(self, name: str) -> pd.DataFrame | None:
        """A table by name if it holds rows; None if its stage was not run or found nothing."""
        table = self.table(name)
        return None if table is None or table.empty else table

    @property
    def level(self) -> float:
        """Level of the search's tests; `ALPHA` without a search."""
        return ALPHA if self.summary is None else self.summary.alpha

    def lookup(self, *keys: str) -> str:
        """A value of run.json as text; "not recorded" where it is missing or empty."""
        value: Any = self.info
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return "not recorded" if value in (None, "", [], {}) else str(value)


def best_first(features: pd.DataFrame) -> pd.DataFrame:
    """Rows of "search/features", the confirmed ones first, then by rank."""
    return features.sort_values(["confirmed", "rank"], ascending=[False, True])


def load_run(run: Path) -> RunData:
    """Read what there is of a run folder.

    Raises:
        ArtifactError: not a run folder, or a file in it is broken or of another format version.
    """
    run = Path(run)
    if not run.is_dir():
        raise ArtifactError(f"{run} is not a folder; give the folder that `affectlens run` wrote")
    data = RunData(
        path=run,
        info=_info(run),
        config_text=_config(run),
        card=_card(run / "battery/audit.json"),
        metrics=_record(run, SAEMetrics),
        summary=_record(run, SearchSummary),
        contexts=tuple(_if_there(run / "search/contexts.jsonl", lambda: read_contexts(run)) or ()),
        effects_summary=_record(run, EffectsSummary),
        generations=tuple(
            _if_there(run / "effects/generations.jsonl", lambda: read_generations(run)) or ()
        ),
        tables=_other_tables(run),
        controls_summary=_record(run, ControlsSummary),
        baselines_summary=_record(run, BaselinesSummary),
        calibration_summary=_record(run, CalibrationSummary),
        screen_summary=_record(run, ScreenSummary),
        study_summary=_record(run, SteeringSummary),
        **{name: _table(run, table) for name, table in NAMED.items()},
    )
    if (
        not data.info
        and data.metrics is None
        and data.summary is None
        and data.effects_summary is None
        and data.study_summary is None
    ):
        raise ArtifactError(
            f"{run} holds no results (no run.json, sae/metrics.json, search/search.json, "
            "effects/effects.json or steering/study.json); give the folder that `affectlens run` "
            "wrote"
        )
    return data


def _if_there(path: Path, read: Callable[[], T]) -> T | None:
    return read() if path.exists() else None


def _card(path: Path) -> LexicalCard | None:
    return _if_there(path, lambda: LexicalCard.read(path))


def _record(run: Path, kind: type[T]) -> T | None:
    path = run / kind.file  # type: ignore[attr-defined]
    return _if_there(path, lambda: kind.read(run))  # type: ignore[attr-defined]


def _table(run: Path, name: str) -> pd.DataFrame | None:
    return _if_there((run / name).with_suffix(".parquet"), lambda: read_table(run, name))


def _other_tables(run: Path) -> dict[str, pd.DataFrame]:
    found = {name: _table(run, name) for name in TABLES if name not in NAMED.values()}
    return {name: table for name, table in found.items() if table is not None}


def _info(run: Path) -> Mapping[str, Any]:
    path = run / "run.json"
    info = _if_there(path, lambda: read_json(path)) or {}
    if not isinstance(info, Mapping):
        raise ArtifactError(f"{path} holds a {type(info).__name__}, not a JSON object; run again")
    return info


def _config(run: Path) -> str:
    path = run / "config.yaml"
    text = _if_there(path, lambda: path.read_text(encoding="utf-8", errors="replace")) or ""
    if len(text) <= CONFIG_LIMIT:
        return text
    return (
        f"{text[:CONFIG_LIMIT]}\n# cut here: {len(text) - CONFIG_LIMIT} more characters in "
        "config.yaml"
    )
