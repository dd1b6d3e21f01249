"""Names of the misfits that can be overridden; light, for configurations and the command line.

`fingerprint` and `hook` are seen without measuring. The others are failing lines of an SAE's check.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, get_args

from affectlens.data.errors import ConfigError

Misfit = Literal[
    "fingerprint",
    "hook",
    "mask-rule",
    "centring",
    "input-scale",
    "layer",
    "fvu",
    "l0",
    "loss-recovered",
]
MISFITS: tuple[str, ...] = get_args(Misfit)
"""What may be overridden by name."""


def misfit_of(line: str) -> str:
    """The name that overrides a failing line of a check: 'loss recovered (mean)' by its head."""
    head = line.partition(" (")[0]
    return {"store hook": "hook"}.get(head, head.lower().replace(" ", "-"))


def allowed_names(allow: Sequence[str]) -> list[str]:
    """The given names as a list, each checked.

    Raises:
        ConfigError: a name that is no misfit that can be overridden; the known ones are listed.
    """
    names = [allow] if isinstance(allow, str) else list(allow)
    for name in names:
        if name not in MISFITS:
            near = difflib.get_close_matches(name, MISFITS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"no misfit {name!r} can be overridden; known: {', '.join(MISFITS)}{hint} "
                "(the width never can, since the shapes do not go together)"
            )
    return names
