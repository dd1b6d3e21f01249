"""The stages in order: each reads artefacts, writes its own, and is skipped if already built.

Heavy inputs are loaded only when a stage really runs. A run that is killed anywhere is finished by
the same command: finished stages are reused, a half-done harvest or training resumes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from affectlens.data.artifacts import (
    clear_staged,
    folder_lock,
    read_json,
    sha256_file,
    write_json,
)
from affectlens.data.config import HarvestConfig, StageConfig
from affectlens.features.config import SearchConfig
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.misfits import Misfit
from affectlens.run_folder import RunFolder, StageRecord
from affectlens.training.config import WITHOUT_EFFECT, TrainConfig

if TYPE_CHECKING:
    from affectlens.data.activations import ActivationStore
    from affectlens.data.models import LanguageModel
    from affectlens.data.stimuli import Battery
    from affectlens.features.search import SearchResult
    from affectlens.features.selection import FeatureSet
    from affectlens.sae.model import SparseAutoencoder


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
    allow_misfit: tuple[Misfit, ...] = Field(
        default=(),
        description="go on although the SAE does not fit in this respect; results record it",
    )
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
class RunResult:
    """A finished run."""

    folder: Path
    report: Path
    findings: list[str]
    stages: dict[str, StageRecord] = field(default_factory=dict)


class Run(RunFolder):
    """A run folder being filled; heavy inputs are loaded only when a stage really runs."""

    def __init__(self, config: RunConfig, folder: Path, *, quiet: bool) -> None:
        super().__init__(folder)
        self.config, self.quiet = config, quiet

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded once."""
        from affectlens.data.models import load_model

        c = self.config
        return load_model(c.model, revision=c.revision, device=c.device, dtype=c.dtype)

    @cached_property
    def battery(self) -> Battery:
        """The battery."""
        from affectlens.data.stimuli import load_battery

        return load_battery(self.config.battery)

    @cached_property
    def store(self) -> ActivationStore:
        """The activations of this folder."""
        from affectlens.data.store import ActivationStore

        return ActivationStore.open(self.folder / "activations")

    @cached_property
    def sae(self) -> SparseAutoencoder:
        """The autoencoder of this folder, with what its check found."""
        from affectlens.guard import recall
        from affectlens.sae.loading import load_sae

        sae = load_sae(self.folder / "sae", device=self.config.device)
        recall(sae, self.folder / CHECK_FILE)
        return sae

    @cached_property
    def found(self) -> SearchResult:
        """The search of this folder."""
        from affectlens.features.stored import read_search

        return read_search(self.folder)

    @property
    def overridden(self) -> dict[str, Any]:
        """The part of a stage's key that says what is overridden; empty if nothing is."""
        allowed = sorted(set(self.config.allow_misfit))
        return {"allow_misfit": allowed} if allowed else {}

    def chosen(self) -> list[FeatureSet]:
        """The best live features of every contrast that has any."""
        n = self.config.intervene.features_per_emotion
        sets = [self.found.top(name, n) for name in self.found.contrasts]
        return [s for s in sets if len(s)]


CHECK_FILE = "check/check.json"
"""Where a run folder keeps the check of its SAE."""
WRITTEN_HERE = ("battery", "check", "search", "effects", "figures", "stages")
"""Folders of a run that only the holder of the run's lock writes to."""


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
        # The folders of the store and of the SAE have locks of their own and clear themselves.
        for place in (folder, *(folder / name for name in WRITTEN_HERE)):
            clear_staged(place)
        state = Run(config, folder, quiet=quiet)
        state.claim(config.model_dump(mode="json"), overwrite=overwrite)
        for step in STEPS:
            step(state)
        _write_provenance(state)
        return _report(state)


def _audit(state: Run) -> None:
    key = {
        "battery": input_identity(state.config.battery),
        "model": input_identity(state.config.model),
        "revision": state.config.revision,
        "dtype": state.config.dtype,
        "seed": state.config.seed,
    }
    with state.stage("audit", key, ["battery/audit.json"]) as needed:
        if needed:
            from affectlens.features.contextual import static_means
            from affectlens.features.lexical import AuditConfig, audit

            static = static_means(state.lm, state.battery)
            card = audit(state.battery, AuditConfig(seed=state.config.seed), static=static)
            card.write(state.folder / "battery/audit.json")


def _harvest(state: Run) -> None:
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

            state.drop_stale("activations", key)
            harvest(
                state.lm,
                load_corpus(c.corpus),
                c.harvest,
                state.folder / "activations",
                avoid=state.battery.texts,
                quiet=state.quiet,
            )


def _train(state: Run) -> None:
    settings = state.config.train.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    key = {"harvest": state.keys["harvest"], "config": settings}
    with state.stage("train", key, ["sae"]) as needed:
        if needed:
            from affectlens.training.trainer import train

            state.drop_stale("sae", key)
            train(
                state.store,
                state.config.train,
                state.folder / "sae",
                lm=state.lm,
                quiet=state.quiet,
                device=state.config.device,
            )


def _check(state: Run) -> None:
    key = {"train": state.keys["train"]}
    with state.stage("check", key, [CHECK_FILE]) as needed:
        if needed:
            from affectlens.guard import ensure_checked

            ensure_checked(state.sae, state.lm, state.store, file=state.folder / CHECK_FILE)


def _search(state: Run) -> None:
    key = {
        "check": state.keys["check"],
        "audit": state.keys["audit"],
        "config": state.config.search.model_dump(mode="json"),
        **state.overridden,
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
                allow_misfit=state.config.allow_misfit,
            )


def _intervene(state: Run) -> None:
    key = {
        "search": state.keys["search"],
        "config": state.config.intervene.model_dump(mode="json"),
        **state.overridden,
    }
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
                allow_misfit=state.config.allow_misfit,
            )


def _steer(state: Run) -> None:
    key = {
        "search": state.keys["search"],
        "config": state.config.steer.model_dump(mode="json"),
        "n": state.config.intervene.features_per_emotion,
        **state.overridden,
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
                allow_misfit=state.config.allow_misfit,
            )


def _report(state: Run) -> RunResult:
    from affectlens.report import build_report, findings

    key = {"keys": state.keys}
    with state.stage("report", key, ["report.html", "figures"]) as needed:
        if needed:
            build_report(state.folder)
    return RunResult(
        state.folder, state.folder / "report.html", findings(state.folder), state.stages
    )


STEPS = (_audit, _harvest, _train, _check, _search, _intervene, _steer)
"""The stages before the report, in order; each takes the run and does what is missing."""


def _write_provenance(state: Run) -> None:
    from affectlens.provenance import provenance

    path = state.folder / "run.json"
    stages = {n: {"seconds": r.seconds, "reused": r.reused} for n, r in state.stages.items()}
    if path.exists() and all(r.reused for r in state.stages.values()):
        return
    write_json(path, provenance(state.folder, state.config.model_dump(mode="json"), stages))
