"""The battery that a `battery` command works on: its argument, and reading it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.cli_options import Common

if TYPE_CHECKING:
    from affectlens.data.stimuli import Battery

DEFAULT = "affectlens-vignettes"
LIMIT = "first N pairs, spread over emotions"
Name = Annotated[
    str,
    typer.Argument(
        help="name, or a folder, .jsonl, .csv, .tsv or .parquet file", metavar="BATTERY"
    ),
]


def load_chosen(
    name: str,
    common: Common,
    emotions: list[str] | None = None,
    *,
    layout: str = "auto",
    scheme: str | None = None,
) -> Battery:
    """Read a battery; `--limit` and `emotions` narrow it."""
    from affectlens.data.stimuli import load_battery

    battery = load_battery(name, layout=layout, scheme=scheme)
    if emotions or common.limit is not None:
        return battery.select(emotions=emotions or None, limit=common.limit)
    return battery
