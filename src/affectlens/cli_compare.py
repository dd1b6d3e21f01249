"""`affectlens compare`: a run's findings looked for in other SAEs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.cli_arguments import Misfits, Named, Run
from affectlens.cli_inputs import (
    allowed_misfits,
    guard,
    load_searched,
    made_with,
    require_search,
)
from affectlens.cli_options import Common, verb
from affectlens.data.errors import ConfigError

if TYPE_CHECKING:
    from affectlens.sae.model import SparseAutoencoder
    from affectlens.sae_comparison import Comparison

_HEADER = (
    "SAE",
    "kind",
    "d_sae",
    "L0",
    "confirmed, all",
    "emotions",
    "first AUROC",
    "recur",
    "of tested",
    "match confirmed",
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "compare",
        limit="first N pairs, spread over emotions, as the search had them",
        examples="""affectlens compare runs/a --against runs/b/sae
        affectlens compare runs/a --against sweeps/seeds --against sweeps/widths""",
    )(compare)


def compare(
    common: Common,
    run: Run,
    against: Annotated[
        list[str],
        typer.Option(
            "--against",
            help="SAE folder, folder with SAEs below it (as of a sweep), or RELEASE:ID[@COMMIT] "
            "of sae-lens (repeatable)",
            metavar="SAE",
        ),
    ],
    named: Named,
    allow_misfit: Misfits = None,
) -> None:
    """Search other SAEs in the same way, and look there for the features that the run retained."""
    allowed = allowed_misfits(allow_misfit, made_with(run))
    require_search(run)
    places = sae_places(against)
    loaded = load_searched(run, named, common)

    from affectlens.sae.loading import load_sae_named
    from affectlens.sae_comparison import LoadedOnDemand, compare_saes

    def load(place: str) -> SparseAutoencoder:
        other = load_sae_named(place, common.device or "cpu")
        guard(other, loaded.after.lm, loaded.store, run=None)
        return other

    result = compare_saes(
        *loaded.after.inputs,
        LoadedOnDemand(places, load),
        loaded.after.settings,
        encoded=loaded.after.encoded,
        allow_misfit=allowed,
        out=run,
        quiet=common.quiet,
    )
    _show(result, run, common)


def sae_places(given: Sequence[str]) -> dict[str, str]:
    """Every SAE that was named or lies below a named folder: its name in tables -> its place.

    The name of a folder is as much of the end of its path as tells it from the others.

    Raises:
        ConfigError: neither a folder nor RELEASE:ID, or a folder without an SAE.
    """
    from affectlens.sae.cfg_checks import WEIGHTS_FILE
    from affectlens.sae.convert import convertible, saes_within

    folders: list[Path] = []
    registered: list[str] = []
    for name in given:
        folder = Path(name)
        if folder.is_dir():
            own = (folder / WEIGHTS_FILE).is_file() or convertible(folder)
            within = [folder] if own else [folder / inner for inner in saes_within(folder)]
            if not within:
                raise ConfigError(f"--against {name}: no SAE lies in or below this folder")
            folders += [path.resolve() for path in within]
        elif ":" in name:
            registered.append(name)
        else:
            raise ConfigError(
                f"--against {name}: no such folder; give an SAE folder, a folder with SAEs below "
                "it, or RELEASE:ID of sae-lens"
            )
    return _short(list(dict.fromkeys(folders))) | {name: name for name in registered}


def _short(folders: Sequence[Path]) -> dict[str, str]:
    """Folders by the shortest ends of their paths that differ."""
    n = 1
    longest = max((len(path.parts) for path in folders), default=1)
    while n < longest and len({path.parts[-n:] for path in folders}) < len(folders):
        n += 1
    return {Path(*path.parts[-n:]).as_posix(): str(path) for path in folders}


def _show(result: Comparison, run: Path, common: Common) -> None:
    console = common.console
    rows = []
    for _, own in result.table.groupby("sae", sort=False):
        total = own[own["contrast"] == "all"].iloc[0]
        sought = total["kind"] != "own"
        directions = sought and total["kind"] != "layer"
        n = int(own["n_sought"].sum())
        emotions = own[own["contrast"] != "all"]
        rows.append(
            [
                total["sae"],
                total["kind"],
                int(total["d_sae"]),
                round(float(total["l0"]), 1),
                f"{total['n_confirmed']} of {total['n_retained']}",
                f"{emotions['n_confirmed'].sum()} of {emotions['n_retained'].sum()}",
                round(float(total["first_auroc"]), 2),
                f"{own['n_recur'].sum():.0f} of {n}" if directions else None,
                f"{total['base_recur']:.0%}" if directions else None,
                f"{own['n_match_confirmed'].sum()} of {n}" if sought else None,
            ]
        )
    console.table(_HEADER, rows)
    for name, why in result.skipped.items():
        console.say(f"left out: {name}: {why}")
    console.say(f"\ntables: {run / 'validity/comparison.csv'}, {run / 'validity/stability.csv'}")
    console.result(
        {
            "run": run,
            "comparison": result.table.to_dict("records"),
            "skipped": dict(result.skipped),
            "n_passes": result.n_passes,
        }
    )
