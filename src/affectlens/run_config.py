"""The settings of a whole run."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field

from affectlens.data.config import HarvestConfig, StageConfig
from affectlens.features.config import SearchConfig
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.misfits import Misfit
from affectlens.features.validation_config import ValidationConfig
from affectlens.training.config import TrainConfig

Skippable = Literal["screen", "controls", "validity", "baselines", "naming", "intervene", "steer"]
"""Stages that may be left out; without a screen the study has nothing to choose features by."""


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
    sae: str | None = Field(
        default=None,
        description="SAE to load instead of training one: a folder, or RELEASE:ID[@COMMIT] of "
        "sae-lens; its place is then harvested, and harvest.layers and train are not read",
    )
    seed: int = Field(default=0, ge=0, description="seed of every stage that does not set its own")
    skip: tuple[Skippable, ...] = Field(default=(), description="stages to leave out")
    allow_misfit: tuple[Misfit, ...] = Field(
        default=(),
        description="go on although the SAE does not fit in this respect; results record it",
    )
    harvest: HarvestConfig = Field(default=HarvestConfig(), description="texts to activations")
    train: TrainConfig = Field(default=TrainConfig(), description="activations to an SAE")
    search: SearchConfig = Field(default=SearchConfig(), description="battery to features")
    validation: ValidationConfig = Field(
        default=ValidationConfig(), description="features to controls, baselines and names"
    )
    intervene: InterveneConfig = Field(default=InterveneConfig(), description="features to effects")
    steer: SteerConfig = Field(default=SteerConfig(), description="features to texts")

    def resolved(self) -> RunConfig:
        """The same with the run's seed filled in where a stage does not set one."""
        return _seeded(self, self.seed)


C = TypeVar("C", bound=StageConfig)


def _seeded(config: C, seed: int) -> C:
    """A config whose nested configs have this seed wherever they have one and it was not given."""
    changed = {}
    for name in type(config).model_fields:
        inner = getattr(config, name)
        if not isinstance(inner, StageConfig):
            continue
        if "seed" in type(inner).model_fields and "seed" not in inner.model_fields_set:
            inner = inner.model_copy(update={"seed": seed})
        changed[name] = _seeded(inner, seed)
    return config.model_copy(update=changed)
