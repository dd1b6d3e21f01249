"""A run folder: which stages are finished, with which settings, and whether their files are intact.

A stage's key is a hash of its settings, of what identifies its inputs and of the keys above it. It
is written to `stages/<name>.json` after the stage's files are complete, beside the size and hash of
each file.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from affectlens import __version__
from affectlens.data.artifacts import (
    atomic_path,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from affectlens.data.errors import ArtifactError, ConfigError

_HASHED_UP_TO = 64 * 2**20
_SHOWN = 6


@dataclass
class StageRecord:
    """How a stage ended: seconds it took and whether it was reused."""

    seconds: float
    reused: bool


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write `config.yaml`, the settings that a run folder was made with."""
    with atomic_path(folder / "config.yaml") as tmp:
        tmp.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


class RunFolder:
    """The book-keeping of one run folder. Hold its lock while writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: dict[str, StageRecord] = {}
        self.keys: dict[str, str] = {}

    def finished(self, name: str, key: Any) -> StageRecord | None:
        """The record of a stage if it is complete with this key and its files are intact."""
        self.keys[name] = sha256_json({"affectlens": __version__, "stage": name, "key": key})
        try:
            record = read_json(self._record(name))
        except ArtifactError:
            return None
        if not isinstance(record, dict) or not {"key", "seconds", "outputs"} <= set(record):
            return None
        if record["key"] != self.keys[name] or not self._intact(record["outputs"]):
            return None
        return StageRecord(record["seconds"], reused=True)

    @contextmanager
    def stage(self, name: str, key: Any, outputs: Sequence[str]) -> Iterator[bool]:
        """Yield True if the body must run; afterwards record the stage as complete.

        Raises:
            ArtifactError: the body did not write one of `outputs`.
        """
        done = self.finished(name, key)
        if done is not None:
            self.stages[name] = done
            self.log(name, "reused")
            yield False
            return
        record = self._record(name)
        record.parent.mkdir(exist_ok=True)
        record.unlink(missing_ok=True)
        self.log(name, "started")
        start = time.monotonic()
        yield True
        seconds = round(time.monotonic() - start, 3)
        stamps = {path: _stamp(self.folder / path) for path in self._files(outputs)}
        write_json(record, {"key": self.keys[name], "seconds": seconds, "outputs": stamps})
        self.stages[name] = StageRecord(seconds, reused=False)
        self.log(name, "finished", seconds=seconds)

    def drop(self, name: str, outputs: Sequence[str]) -> None:
        """Remove what a stage wrote, so that nobody takes it for a result of these settings."""
        self._record(name).unlink(missing_ok=True)
        for output in outputs:
            place = self.folder / output
            for path in [place] if place.is_file() else sorted(place.rglob("*"), reverse=True):
                if path.is_file():
                    path.unlink()

    def log(self, stage: str, event: str, **more: Any) -> None:
        """Append one line to log.jsonl."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        line = {"time": now, "stage": stage, "event": event, **more}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def claim(self, wanted: dict[str, Any], *, overwrite: bool) -> None:
        """Write config.yaml; refuse a folder that was made with other settings.

        Raises:
            ConfigError: the settings differ and `overwrite` is off.
        """
        path = self.folder / "config.yaml"
        if path.exists() and not overwrite:
            present = yaml.safe_load(path.read_text(encoding="utf-8"))
            differing = _differences(present if isinstance(present, dict) else {}, wanted)
            if differing:
                raise ConfigError(
                    f"{self.folder} was made with other settings "
                    f"({', '.join(differing[:_SHOWN])}); give --overwrite to rebuild what depends "
                    "on them, or choose another folder"
                )
        write_settings(self.folder, wanted)

    def drop_stale(self, name: str, key: Any) -> None:
        """Remove an artefact folder of another configuration; keep one that can be resumed."""
        marker = self.folder / "stages" / f"{name}.begun"
        digest = sha256_json(key)
        begun = marker.read_text(encoding="utf-8") if marker.exists() else None
        if begun == digest:
            return
        for place in (self.folder / name, *self.folder.glob(f"{name}.*")):
            shutil.rmtree(place, ignore_errors=True)
        marker.parent.mkdir(exist_ok=True)
        with atomic_path(marker) as tmp:
            tmp.write_text(digest, encoding="utf-8")

    def _record(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"

    def _files(self, outputs: Sequence[str]) -> list[str]:
        paths: list[str] = []
        for output in outputs:
            place = self.folder / output
            whole = [place] if place.is_file() else sorted(place.rglob("*"))
            found = [p for p in whole if p.is_file() and not p.name.startswith(".")]
            if not found:
                raise ArtifactError(f"stage output {place} was not written")
            paths += [str(p.relative_to(self.folder)) for p in found]
        return paths

    def _intact(self, outputs: Mapping[str, Mapping[str, Any]]) -> bool:
        places = {self.folder / path: stamp for path, stamp in outputs.items()}
        return all(place.is_file() and _stamp(place) == s for place, s in places.items())


def _stamp(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"size": size, "sha256": sha256_file(path) if size <= _HASHED_UP_TO else None}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], where: str = "") -> list[str]:
    out: list[str] = []
    for key in sorted(set(a) | set(b)):
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            out += _differences(x, y, f"{where}{key}.")
        elif x != y:
            out.append(f"{where}{key}")
    return out
