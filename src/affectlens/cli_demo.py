"""`affectlens demo RUN`: a local page on which features are turned while the model writes."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.cli_arguments import Misfits, Model, Revision, Run, Sae
from affectlens.cli_inputs import (
    allowed_misfits,
    guard,
    load_run_lm,
    load_searched_sae,
    made_with,
    read_run_search,
    require_sae,
    require_search,
)
from affectlens.cli_options import Common, verb
from affectlens.console import note
from affectlens.demo.serve import LOCAL, bound, check_host, serve

if TYPE_CHECKING:
    from affectlens.demo.world import World


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "demo",
        examples="""affectlens demo runs/demo
        affectlens demo runs/demo --open
        affectlens demo runs/demo --port 0""",
    )(demo)


def demo(
    common: Common,
    run: Run,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, metavar="N", help="port; 0 takes a free one")
    ] = 8642,
    host: Annotated[
        str, typer.Option(metavar="NAME", help="address to listen at; needs --allow-remote")
    ] = LOCAL,
    allow_remote: Annotated[  # noqa: FBT002 - typer's way of declaring a flag
        bool, typer.Option("--allow-remote", help="let other machines use it, without a password")
    ] = False,
    open_browser: Annotated[  # noqa: FBT002
        bool, typer.Option("--open", help="open the page in a browser")
    ] = False,
    model: Model = None,
    revision: Revision = None,
    sae: Sae = None,
    allow_misfit: Misfits = None,
) -> None:
    """Turn features on a local page while the default and the steered text are written."""
    check_host(host, allow_remote=allow_remote)
    require_search(run)
    require_sae(sae, run)
    made_with(run)

    def load() -> World:
        return load_world(common, run, model, revision, sae, allow_misfit)

    with bound(host, port) as (sock, url):
        if allow_remote:
            note(
                f"warning: everyone who reaches {host} can use this page: there is no password, "
                "and what is written is not encrypted"
            )
        common.console.result({"run": run, "url": url})
        common.console.say(f"{url}  (Ctrl-C ends it; the model is being loaded)")
        if open_browser:
            webbrowser.open(url)
        serve(load, sock, host=host, remote=allow_remote)
    common.console.say("stopped")


def load_world(
    common: Common,
    run: Path,
    model: str | None = None,
    revision: str | None = None,
    sae_name: str | None = None,
    misfits: list[str] | None = None,
) -> World:
    """What the page works on, from a run's folder.

    Raises:
        ArtifactError: the run holds no search, or one of another SAE.
        SAEError: the SAE does not fit the model.
    """
    from affectlens.demo.presets import read_catalogue, with_lenses
    from affectlens.demo.world import world_of
    from affectlens.features.fit import require_fit
    from affectlens.features.stored import require_searched

    made = made_with(run)
    allowed = allowed_misfits(misfits, made)
    found = read_run_search(run)
    sae, _ = load_searched_sae(sae_name, run, found, common)
    lm = load_run_lm(model, revision, made, common)
    guard(sae, lm, None, run=None if sae_name else run)
    if misfits is None:
        allowed = sorted({*allowed, *require_searched(found, sae)})
    require_fit(sae, lm, allow=allowed)
    catalogue = read_catalogue(
        run,
        found,
        model=lm.name,
        hook=sae.info.hook_name,
        sae=sae.info.sha256,
        d_sae=sae.d_sae,
    )
    return world_of(lm, sae, with_lenses(catalogue, lm, sae))
