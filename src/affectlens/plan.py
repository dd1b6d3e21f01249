"""Which stages a run would do, worked out from the keys of a run folder; nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from affectlens import __version__, pipeline
from affectlens.data.artifacts import sha256_json


class _Plan(pipeline._Run):
    """Walks the stages like a run, but never asks for one to be done."""

    def __init__(self, config: pipeline.RunConfig, folder: Path) -> None:
        super().__init__(config, folder, quiet=True)
        self.reused: dict[str, bool] = {}

    @contextmanager
    def stage(self, name: str, key: Any, outputs: list[str]) -> Iterator[bool]:  # noqa: ARG002
        """Note whether the stage is finished with this key; never run it."""
        digest = sha256_json({"affectlens": __version__, "stage": name, "key": key})
        self.keys[name] = digest
        record = pipeline._read_record(self.folder / "stages" / f"{name}.json")
        self.reused[name] = (
            record is not None
            and record["key"] == digest
            and pipeline._intact(self.folder, record["outputs"])
        )
        yield False


def plan(config: pipeline.RunConfig, folder: Path) -> dict[str, bool]:
    """Stage name -> whether it would be reused, in the order of the run.

    The report is made again whenever a stage before it is.
    """
    state = _Plan(config.resolved(), Path(folder))
    for step in (
        pipeline._audit,
        pipeline._harvest,
        pipeline._train,
        pipeline._search,
        pipeline._intervene,
        pipeline._steer,
    ):
        step(state)
    with state.stage("report", {"keys": dict(state.keys)}, []):
        pass
    return state.reused
