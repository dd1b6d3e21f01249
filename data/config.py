"""The base of every stage's configuration, and the harvest's own.

A configuration is frozen, has at most fifteen fields, each with a description from which the
command line is built, and refuses unknown keys with their path and the nearest known name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from affectlens.data.errors import ConfigError

_HOOK_NAME = re.compile(r"blocks\.\d{1,6}\.hook_resid_(pre|post)")


class StageConfig(BaseModel):
    """Frozen settings of one stage; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from plain values.

        Raises:
            ConfigError: an unknown key (with its path and the nearest name) or a bad value.
        """
        known = list(cls.model_fields)
        for key in values:
            if key not in known:
                inside = [name for name in known if key in _fields_of(cls, name)]
                near = difflib.get_close_matches(str(key), known, n=1)
                near = [f"{name}.{key}" for name in inside] or near
                hint = (
                    f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
                )
                raise ConfigError(f"unknown config key {where + str(key)!r}{hint}")
        built: dict[str, Any] = {}
        for key, value in values.items():
            kind = cls.model_fields[key].annotation
            if (
                isinstance(kind, type)
                and issubclass(kind, StageConfig)
                and isinstance(value, Mapping)
            ):
                built[key] = kind.parse(value, f"{where}{key}.")
            else:
                built[key] = value
        try:
            return cls(**built)
        except ValidationError as error:
            lines = [
                f"{where}{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})"
                for e in error.errors()
            ]
            raise ConfigError("invalid configuration: " + "; ".join(lines)) from error

    @classmethod
    def given(cls, config: Self | None, settings: Mapping[str, Any], where: str = "") -> Self:
        """The config as it is, or one built from keywords.

        Raises:
            ConfigError: both were given, or as `parse`.
        """
        if config is not None and settings:
            raise ConfigError(
                f"got a {cls.__name__} and also {', '.join(settings)}; give the settings in one way"
            )
        return cls.parse(settings, where) if config is None else config


def _fields_of(config: type[StageConfig], name: str) -> list[str]:
    """The fields of a field that is itself a configuration; none for a plain one."""
    kind = config.model_fields[name].annotation
    if isinstance(kind, type) and issubclass(kind, StageConfig):
        return list(kind.model_fields)
    return []


class HarvestConfig(StageConfig):
    """Texts to activations."""

    layers: tuple[int | str, ...] = Field(
        default=(15,),
        description="block outputs to keep; layer n is the output of block n. A hook name is taken "
        "too: blocks.0.hook_resid_pre is the embedding",
    )
    context_length: int = Field(
        default=256, ge=8, description="longest token window; longer documents are cut into windows"
    )
    tokens_per_batch: int = Field(
        default=4096, ge=64, description="padded tokens in one forward pass"
    )
    tokens_per_shard: int = Field(
        default=65_536, ge=64, description="about how many tokens one HDF5 shard holds"
    )
    max_tokens: int | None = Field(
        default=None, ge=64, description="stop after about this many tokens of the corpus"
    )
    storage: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="number format on disk"
    )
    outlier_factor: float = Field(
        default=10.0, gt=1, description="mask tokens whose norm exceeds this many medians"
    )

    @field_validator("layers")
    @classmethod
    def _numbers_or_hook_names(cls, layers: tuple[int | str, ...]) -> tuple[int | str, ...]:
        """A number from a command line is text; both must name the same store."""
        known = tuple(int(x) if isinstance(x, str) and x.isdecimal() else x for x in layers)
        for layer in known:
            if isinstance(layer, str) and not _HOOK_NAME.fullmatch(layer):
                raise ValueError(
                    f"{layer!r} is neither a block number nor a name such as "
                    "blocks.0.hook_resid_pre"
                )
        return known
