"""Which stages a run would do, worked out from the keys of a run folder; nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from affectlens.run_config import RunConfig
from affectlens.run_state import Run
from affectlens.steps import STEPS


class _Plan(Run):
    """Walks the stages like a run, but never asks for one to be done."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        super().__init__(config, folder, quiet=True)
        self.reused: dict[str, bool] = {}

    @contextmanager
    def stage(self, name: str, key: Any, outputs: Sequence[str]) -> Iterator[bool]:  # noqa: ARG002
        """Note whether the stage is finished with this key; never run it."""
        done = self.finished(name, key) is not None
        if done or name not in self.config.skip:
            self.reused[name] = done
        yield False


def plan(config: RunConfig, folder: Path) -> dict[str, bool]:
    """Stage name -> whether it would be reused, in the order of the run; without those left out.

    The report is made again whenever a stage before it is.
    """
    state = _Plan(config.resolved(), Path(folder))
    for step in STEPS:
        step(state)
    with state.stage("report", state.report_key, []):
        pass
    return state.reused
