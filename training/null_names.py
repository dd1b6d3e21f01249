"""Names of the nulls; light, for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from affectlens.data.errors import ConfigError

Null = Literal["random-model", "embedding"]
NULLS: tuple[str, ...] = get_args(Null)


def check_names(names: Sequence[str]) -> list[str]:
    """The names of nulls, each checked, in their order and once.

    Raises:
        ConfigError: an unknown name; the known ones are listed.
    """
    listed = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in listed if name not in NULLS]
    if unknown:
        raise ConfigError(f"unknown null {unknown[0]!r}; known: {', '.join(NULLS)}")
    return list(dict.fromkeys(listed))
