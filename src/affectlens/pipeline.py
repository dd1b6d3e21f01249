"""The stages in order: each reads artefacts, writes its own, and is skipped when it is already
built.

A stage's key is a hash of its settings, of what identifies its inputs and of the keys above it. It
is written to `stages/<name>.json` after the stage's files are complete, so a run that is killed
anywhere is finished by the same command: finished stages are reused, a half-done harvest or
training resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from affectlens import __version__
from affectlens.data.artifacts import (
    atomic_path,
    clear_staged,
    folder_lock,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from affectlens.data.config import HarvestConfig, StageConfig
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.features.config import SearchConfig
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.training.config import TrainConfig

if TYPE_CHECKING:
    from affectlens.data.activations import ActivationStore
    from affectlens.data.models import LanguageModel
    from affectlens.data.stimuli import Battery
    from affectlens.features.search import SearchResult
    from affectlens.features.selection import FeatureSet
    from affectlens.sae.model import SparseAutoencoder

_HASHED_UP_TO = 64 * 2**20


class RunConfig(StageConfig):
    """A whole run: which model, texts and battery, and the settings of each stage."""

    model: str = Field(
        default="smollm2-135m-instruct", description="name, hub id, folder or GGUF file"
    )
    revision: str | None = Field(default=None, description="pinned revision of a hub model")
    device: str = Field(default="cpu", description="torch device")
    dtype: str = Field(default="float32", description="number format of the model's weights")
    corpus: str = Field(
        default="default",
        description="text for SAE training: default, file, folder, FILE.jsonl:FIELD or "
        "hub:ORG/SET[@REVISION][:SPLIT][:FIELD]",
        json_schema_extra={"alias_flag": "--text"},
    )
    battery: str = Field(
        default="affectlens-vignettes", description="name, file or folder of the battery"
    )
    seed: int = Field(default=0, ge=0, description="seed of every stage that does not set its own")
    harvest: HarvestConfig = Field(default=HarvestConfig(), description="texts to activations")
    train: TrainConfig = Field(default=TrainConfig(), description="activations to an SAE")
    search: SearchConfig = Field(default=SearchConfig(), description="battery to features")
    intervene: InterveneConfig = Field(default=InterveneConfig(), description="features to effects")
    steer: SteerConfig = Field(default=SteerConfig(), description="features to texts")

    def resolved(self) -> RunConfig:
        """The same with the run's seed filled in where a stage does not set one."""
        changed = {}
        for name in ("train", "search", "intervene", "steer"):
            stage = getattr(self, name)
            if "seed" not in stage.model_fields_set:
                changed[name] = stage.model_copy(update={"seed": self.seed})
        return self.model_copy(update=changed)


@dataclass
class StageRecord:
    """How a stage ended: seconds it took and whether it was reused."""

    seconds: float
    reused: bool


@dataclass
class RunResult:
    """A finished run."""

    folder: Path
    report: Path
    findings: list[str]
    stages: dict[str, StageRecord] = field(default_factory=dict)


class _Run:
    """A run folder being filled; heavy inputs are loaded only when a stage really runs."""

    def __init__(self, config: RunConfig, folder: Path, *, quiet: bool) -> None:
        self.config, self.folder, self.quiet = config, folder, quiet
        self.stages: dict[str, StageRecord] = {}
        self.keys: dict[str, str] = {}

    @cached_property
    def lm(self) -> LanguageModel:
        from affectlens.data.models import load_model

        c = self.config
        return load_model(c.model, revision=c.revision, device=c.device, dtype=c.dtype)

    @cached_property
    def battery(self) -> Battery:
        from affectlens.data.stimuli import load_battery

        return load_battery(self.config.battery)

    @cached_property
    def store(self) -> ActivationStore:
        from affectlens.data.store import ActivationStore

        return ActivationStore.open(self.folder / "activations")

    @cached_property
    def sae(self) -> SparseAutoencoder:
        from affectlens.sae.loading import load_sae

        return load_sae(self.folder / "sae", device=self.config.device)

    @cached_property
    def found(self) -> SearchResult:
        from affectlens.features.stored import read_search

        return read_search(self.folder)

    def chosen(self) -> list[FeatureSet]:
        """The best live features of every contrast that has any."""
        n = self.config.intervene.features_per_emotion
        sets = [self.found.top(name, n) for name in self.found.contrasts]
        return [s for s in sets if len(s)]

    @contextmanager
    def stage(self, name: str, key: Any, outputs: list[str]) -> Iterator[bool]:
        """Yield True if the body must run; afterwards record the stage as complete."""
        digest = sha256_json({"affectlens": __version__, "stage": name, "key": key})
        self.keys[name] = digest
        record = self.folder / "stages" / f"{name}.json"
        previous = _read_record(record)
        if previous and previous["key"] == digest and _intact(self.folder, previous["outputs"]):
            self.stages[name] = StageRecord(previous["seconds"], reused=True)
            self.log(name, "reused")
            yield False
            return
        record.parent.mkdir(exist_ok=True)
        record.unlink(missing_ok=True)
        self.log(name, "started")
        start = time.monotonic()
        yield True
        seconds = round(time.monotonic() - start, 3)
        found = {path: _stamp(self.folder / path) for path in _files(self.folder, outputs)}
        write_json(record, {"key": digest, "seconds": seconds, "outputs": found})
        self.stages[name] = StageRecord(seconds, reused=False)
        self.log(name, "finished", seconds=seconds)

    def log(self, stage: str, event: str, **more: Any) -> None:
        """Append one line to log.jsonl."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "stage": stage,
            "event": event,
            **more,
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = read_json(path)
    except ArtifactError:
        return None
    whole = isinstance(record, dict) and {"key", "seconds", "outputs"} <= set(record)
    return record if whole else None


def _files(folder: Path, outputs: list[str]) -> list[str]:
    paths: list[str] = []
    for output in outputs:
        place = folder / output
        found = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
        if not found:
            raise ArtifactError(f"stage output {place} was not written")
        paths += [str(p.relative_to(folder)) for p in found if not p.name.startswith(".")]
    return paths


def _stamp(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"size": size, "sha256": sha256_file(path) if size <= _HASHED_UP_TO else None}


def _intact(folder: Path, outputs: dict[str, dict[str, Any]]) -> bool:
    return all((folder / p).is_file() and _stamp(folder / p) == s for p, s in outputs.items())


def input_identity(name: str) -> Any:
    """What identifies an input without loading it: its name, or the hash of a local file or folder.

    A part after a colon (`texts.jsonl:body`) is kept beside the hash of the file.
    """
    path = Path(name).expanduser()
    stem, _, rest = name.rpartition(":")
    if not path.exists() and stem and Path(stem).expanduser().is_file():
        return [sha256_file(Path(stem).expanduser()), rest]
    if path.is_file():
        return sha256_file(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return {str(p.relative_to(path)): sha256_file(p) for p in files}
    return name


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
        clear_staged(folder)
        _claim(config, folder, overwrite=overwrite)
        state = _Run(config, folder, quiet=quiet)
        for step in (_audit, _harvest, _train, _search, _intervene, _steer):
            step(state)
        _write_provenance(state)
        return _report(state)


def _claim(config: RunConfig, folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder made with other settings; otherwise write config.yaml."""
    path = folder / "config.yaml"
    wanted = config.model_dump(mode="json")
    if path.exists() and not overwrite:
        present = yaml.safe_load(path.read_text(encoding="utf-8"))
        differing = _differences(present if isinstance(present, dict) else {}, wanted)
        if differing:
            raise ConfigError(
                f"{folder} was made with other settings ({', '.join(differing[:6])}); give "
                "--overwrite to rebuild what depends on them, or choose another folder"
            )
    with atomic_path(path) as tmp:
        tmp.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")


def _differences(a: dict[str, Any], b: dict[str, Any], where: str = "") -> list[str]:
    out: list[str] = []
    for key in sorted(set(a) | set(b)):
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            out += _differences(x, y, f"{where}{key}.")
        elif x != y:
            out.append(f"{where}{key}")
    return out


def _audit(state: _Run) -> None:
    key = {"battery": input_identity(state.config.battery), "seed": state.config.seed}
    with state.stage("audit", key, ["battery/audit.json"]) as needed:
        if needed:
            from affectlens.features.lexical import AuditConfig, audit

            card = audit(state.battery, AuditConfig(seed=state.config.seed))
            card.write(state.folder / "battery/audit.json")


def _harvest(state: _Run) -> None:
    c = state.config
    key = {
        "model": input_identity(c.model),
        "revision": c.revision,
        "dtype": c.dtype,
        "corpus": input_identity(c.corpus),
        "battery": input_identity(c.battery),
        "config": c.harvest.model_dump(mode="json"),
    }
    with state.stage("harvest", key, ["activations"]) as needed:
        if needed:
            from affectlens.data.activations import harvest
            from affectlens.data.corpus import load_corpus

            _drop_stale(state, "activations", key)
            harvest(
                state.lm,
                load_corpus(c.corpus),
                c.harvest,
                state.folder / "activations",
                avoid=state.battery.texts,
                quiet=state.quiet,
            )


def _train(state: _Run) -> None:
    key = {"harvest": state.keys["harvest"], "config": state.config.train.model_dump(mode="json")}
    with state.stage("train", key, ["sae"]) as needed:
        if needed:
            from affectlens.training.trainer import train

            _drop_stale(state, "sae", key)
            train(
                state.store,
                state.config.train,
                state.folder / "sae",
                lm=state.lm,
                quiet=state.quiet,
                device=state.config.device,
            )


def _search(state: _Run) -> None:
    key = {
        "train": state.keys["train"],
        "audit": state.keys["audit"],
        "config": state.config.search.model_dump(mode="json"),
    }
    with state.stage("search", key, ["search"]) as needed:
        if needed:
            from affectlens.features.search import search

            card = read_json(state.folder / "battery/audit.json")
            search(
                state.lm,
                state.sae,
                state.battery,
                state.config.search,
                out=state.folder,
                store=state.store,
                lexical_warning=card["warning"],
            )


def _intervene(state: _Run) -> None:
    key = {"search": state.keys["search"], "config": state.config.intervene.model_dump(mode="json")}
    outputs = [
        "effects/effects.parquet",
        "effects/verdicts.parquet",
        "effects/effects.json",
        "effects/readout_check.parquet",
    ]
    with state.stage("intervene", key, outputs) as needed:
        if needed:
            from affectlens.features.effects import intervene
            from affectlens.features.readout_check import check_readout

            check_readout(state.lm, state.battery, state.config.intervene, out=state.folder)
            intervene(
                state.lm,
                state.sae,
                state.chosen(),
                state.battery,
                state.config.intervene,
                out=state.folder,
                quiet=state.quiet,
            )


def _steer(state: _Run) -> None:
    key = {
        "search": state.keys["search"],
        "config": state.config.steer.model_dump(mode="json"),
        "n": state.config.intervene.features_per_emotion,
    }
    with state.stage("steer", key, ["effects/generations.jsonl"]) as needed:
        if needed:
            from affectlens.features.steering import steer

            steer(
                state.lm,
                state.sae,
                state.chosen(),
                state.config.steer,
                out=state.folder,
                quiet=state.quiet,
            )


def _report(state: _Run) -> RunResult:
    from affectlens.report import build_report, findings

    key = {"keys": state.keys}
    with state.stage("report", key, ["report.html", "figures"]) as needed:
        if needed:
            build_report(state.folder)
    return RunResult(
        state.folder, state.folder / "report.html", findings(state.folder), state.stages
    )


def _drop_stale(state: _Run, name: str, key: Any) -> None:
    """Remove an artefact folder of another configuration; keep one that can be resumed."""

    import shutil

    marker = state.folder / "stages" / f"{name}.begun"
    digest = sha256_json(key)
    begun = marker.read_text(encoding="utf-8") if marker.exists() else None
    if begun != digest:
        for place in (
            state.folder / name,
            *state.folder.glob(f"{name}.*"),
            *state.folder.glob(f".{name}*"),
        ):
            shutil.rmtree(place, ignore_errors=True)
        marker.parent.mkdir(exist_ok=True)
        with atomic_path(marker) as tmp:
            tmp.write_text(digest, encoding="utf-8")


def _write_provenance(state: _Run) -> None:
    from affectlens.provenance import provenance

    path = state.folder / "run.json"
    stages = {n: {"seconds": r.seconds, "reused": r.reused} for n, r in state.stages.items()}
    if path.exists() and all(r.reused for r in state.stages.values()):
        return
    write_json(path, provenance(state.folder, state.config.model_dump(mode="json"), stages))


Step = Callable[[_Run], None]
