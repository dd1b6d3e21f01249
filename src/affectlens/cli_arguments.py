"""Arguments and options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from affectlens.features.misfits import MISFITS
from affectlens.features.screen_config import By

Run = Annotated[Path, typer.Argument(help="run folder", metavar="RUN")]
Model = Annotated[
    str | None,
    typer.Option(help="name, hub id, folder or GGUF file  [default: the run's]", metavar="MODEL"),
]
Revision = Annotated[
    str | None, typer.Option(help="pinned revision of a hub model", metavar="REVISION")
]
BatteryName = Annotated[
    str | None,
    typer.Option("--battery", help="name, file or folder  [default: the run's]", metavar="BATTERY"),
]
Sae = Annotated[
    str | None,
    typer.Option(
        help="SAE folder, or RELEASE:ID[@COMMIT] of sae-lens  [default: RUN/sae]", metavar="SAE"
    ),
]


@dataclass(frozen=True)
class Named:
    """What a command was given by name; None stands for the run's own.

    As the type of a command's parameter it stands for these four options (`cli_options.verb`).
    """

    model: Model = None
    revision: Revision = None
    battery: BatteryName = None
    sae: Sae = None


Misfits = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-misfit",
        help="go on although the SAE does not fit in this respect: "
        + ", ".join(MISFITS)
        + " (repeatable; results record it)  [default: the run's]",
        metavar="NAME",
    ),
]
Emotions = Annotated[
    list[str] | None,
    typer.Option("--emotion", help="only this emotion, or 'all' (repeatable)", metavar="NAME"),
]
ChosenBy = Annotated[
    By,
    typer.Option(
        help="how features are picked: by what they respond to, by output score among those, by "
        "what they do to the output, or by both; all but input need a screen",
    ),
]
