"""The command line. `main` is the entry point; the commands live in the `cli_*` modules here.

Nothing here or there imports torch before a command's arguments are known to be good.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from affectlens import (
    __version__,
    cli_battery,
    cli_causal,
    cli_compare,
    cli_demo,
    cli_export,
    cli_models,
    cli_nulls,
    cli_run,
    cli_sae,
    cli_stages,
    cli_validation,
    doctor,
)
from affectlens.cli_options import example_block
from affectlens.cli_runtime import call
from affectlens.console import Console

_EXAMPLES = """
affectlens run
affectlens run --model tiny:llama --set harvest.layers=2 --out runs/trial
affectlens battery audit affectlens-vignettes
affectlens doctor
"""


def build_app() -> typer.Typer:
    """The application with all its commands."""
    app = typer.Typer(
        name="affectlens",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=example_block(_EXAMPLES),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_root)
    cli_run.register(app)
    for name, module in {"model": cli_models.MODEL, "battery": cli_battery.BATTERY}.items():
        app.add_typer(module(), name=name)
    cli_stages.register(app)
    cli_causal.register(app)
    cli_validation.register(app)
    cli_compare.register(app)
    cli_nulls.register(app)
    cli_export.register(app)
    cli_demo.register(app)
    app.add_typer(cli_sae.SAE(), name="sae")
    doctor.register(app)
    return app


def _root(
    context: typer.Context,
    version: Annotated[  # noqa: FBT002 - typer's way of declaring a flag
        bool, typer.Option("--version", help="print the version and stop", is_eager=True)
    ] = False,
) -> None:
    """Find the SAE features of a language model that carry emotion, and test what they do."""
    if version:
        Console().say(f"affectlens {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        Console().say(context.get_help())
        raise typer.Exit


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code (see `data/errors.py`)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    sys.exit(call(typer.main.get_command(build_app()), arguments))


if __name__ == "__main__":
    main()
