"""The stages in order: each reads artefacts, writes its own, and is skipped if already built.

Heavy inputs are loaded only when a stage really runs. A run that is killed anywhere is finished by
the same command: finished stages are reused, a half-done harvest or training resumes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from affectlens.data.artifacts import clear_staged, folder_lock, write_json
from affectlens.result_views import RunViews
from affectlens.run_config import RunConfig
from affectlens.run_folder import StageRecord
from affectlens.run_state import Run
from affectlens.steps import STEPS


@dataclass(repr=False)
class RunResult(RunViews):
    """A finished run."""

    folder: Path
    report: Path
    findings: list[str]
    stages: dict[str, StageRecord] = field(default_factory=dict)


WRITTEN_HERE = (
    "battery",
    "check",
    "search",
    "validity",
    "naming",
    "effects",
    "figures",
    "stages",
)
"""Folders of a run that only the holder of the run's lock writes to."""


def run(
    config: RunConfig, folder: Path, *, overwrite: bool = False, quiet: bool = False
) -> RunResult:
    """Build `folder` from texts to report.

    Args:
        config: the run.
        folder: run folder; what it already holds of this configuration is reused.
        overwrite: rebuild stages whose settings differ from what the folder was made with.
        quiet: no progress.

    Raises:
        ConfigError: the folder was made with other settings and `overwrite` is off.
        MachineError: another run is writing to the folder, or the disk is full.
        AffectLensError: whatever a stage raises.
    """
    config, folder = config.resolved(), Path(folder)
    with folder_lock(folder):
        # The folders of the store and of the SAE have locks of their own and clear themselves.
        for place in (folder, *(folder / name for name in WRITTEN_HERE)):
            clear_staged(place)
        state = Run(config, folder, quiet=quiet)
        state.claim(config.model_dump(mode="json"), overwrite=overwrite)
        for step in STEPS:
            step(state)
        _write_provenance(state)
        return _report(state)


def _report(state: Run) -> RunResult:
    from affectlens.report import build_report, findings

    with state.stage("report", state.report_key, ["report.html", "figures"]) as needed:
        if needed:
            build_report(state.folder)
    return RunResult(
        state.folder, state.folder / "report.html", findings(state.folder), state.stages
    )


def _write_provenance(state: Run) -> None:
    from affectlens.provenance import provenance

    path = state.folder / "run.json"
    stages = {n: {"seconds": r.seconds, "reused": r.reused} for n, r in state.stages.items()}
    if path.exists() and all(r.reused for r in state.stages.values()):
        return
    write_json(path, provenance(state.folder, state.config.model_dump(mode="json"), stages))
