"""`affectlens nulls`: a run's search again, in SAEs trained where there is nothing to find."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_arguments import Named, Run
from affectlens.cli_inputs import load_searched, require_search
from affectlens.cli_options import Common, verb

if TYPE_CHECKING:
    import pandas as pd

    from affectlens.null_search import NullSearch


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "nulls",
        limit="first N pairs, where the search took so many",
        examples="""affectlens nulls runs/a
        affectlens nulls runs/a --names random-model --null-samples 200000""",
    )(nulls)


def nulls(
    common: Common,
    run: Run,
    named: Named,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            help="where to train: random-model, embedding (repeatable, or comma-separated)  "
            "[default: both]",
            metavar="NAME",
        ),
    ] = None,
    null_samples: Annotated[
        int | None,
        typer.Option(min=1, help="activations for each null  [default: the SAE's]", metavar="N"),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="text to train on  [default: the run's]", metavar="CORPUS"),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="the SAE's activations  [default: RUN/activations]", metavar="FOLDER"),
    ] = None,
) -> None:
    """Train the SAE on a model with random weights and on the embedding, and search there too.

    Slow: a harvest and a training for each. Says how many features this search finds in SAEs of
    something that has learned nothing.
    """
    from affectlens.training.null_names import NULLS, check_names

    given = [part.strip() for value in names or [] for part in value.split(",") if part.strip()]
    chosen = check_names(given or NULLS)
    require_search(run)
    from affectlens.data.corpus import load_corpus
    from affectlens.null_search import search_nulls

    loaded = load_searched(run, named, common, store=store)
    result = search_nulls(
        *loaded.after.inputs,
        chosen,
        loaded.after.settings,
        encoded=loaded.after.encoded,
        store=loaded.store,
        corpus=load_corpus(corpus or loaded.made.corpus),
        n_samples=null_samples,
        seed=common.seed or 0,
        quiet=common.quiet,
        out=run,
    )
    _show(result, run, common)


def _show(result: NullSearch, run: Path, common: Common) -> None:
    console = common.console
    for pooling, part in result.table.groupby("pooling", sort=False):
        console.say(f"pooling {pooling}, clinical against neutral")
        console.table(*_counts(part[part["contrast"] == "all"]))
        rest = part[part["contrast"] != "all"]
        if len(rest):
            console.say(f"pooling {pooling}, all emotions together")
            console.table(*_sums(rest))
        console.say()
    s = result.summary
    for kind, by_pooling in s.n_beyond.items():
        for pooling, n in by_pooling.items():
            console.say(
                f"{kind}, pooling {pooling}: {n} of {s.n_compared[kind][pooling]} confirmed "
                "features of this SAE do better on confirmation than all that were retained there"
            )
    for kind, poolings in s.not_searched.items():
        console.say(
            f"{kind}, pooling {', '.join(poolings)}: not searched, since every text ends in the "
            "same tokens and gives the same numbers there"
        )
    for remark in dict.fromkeys(s.remarks.values()):
        console.say(remark)
    console.say(f"tables: {run / 'search/nulls.csv'}, null_latents.csv")
    rows = result.table.to_dict("records")
    console.result({"run": run, "summary": asdict(s), "nulls": [_plain(row) for row in rows]})


def _counts(rows: pd.DataFrame) -> tuple[list[str], list[list[Any]]]:
    header = {
        "sae": "SAE",
        "n_samples": "samples",
        "fvu": "FVU",
        "n_tested": "tested",
        "n_significant_fwer": "FWER <= alpha",
        "n_retained": "retained",
        "n_confirmed": "confirmed",
        "best_d_z": "best d_z",
        "best_confirm_d_z": "confirmation",
        "best_confirm_auroc": "AUROC",
        "status": "status",
    }
    cells = [list(_plain(row).values()) for row in rows[list(header)].to_dict("records")]
    return list(header.values()), cells


def _sums(rows: pd.DataFrame) -> tuple[list[str], list[list[Any]]]:
    names = ["n_significant_fwer", "n_retained", "n_confirmed"]
    sums = rows.groupby("sae", sort=False)[names].sum(min_count=1).reset_index()
    cells = [list(_plain(row).values()) for row in sums.to_dict("records")]
    return ["SAE", "FWER <= alpha", "retained", "confirmed"], cells


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A row with None for what is missing."""
    from pandas import isna

    return {str(name): None if isna(value) else value for name, value in row.items()}
