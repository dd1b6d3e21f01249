"""What follows a search: `controls`, `validity`, `baselines`, `name`, `calibrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_arguments import BatteryName, Named, Run
from affectlens.cli_inputs import load_pairs, load_searched, made_with, read_run_search
from affectlens.cli_options import Common, verb
from affectlens.data.errors import ConfigError
from affectlens.features.validation_config import (
    BaselineConfig,
    CalibrationConfig,
    ControlsConfig,
    NamingConfig,
    ValidityConfig,
)

if TYPE_CHECKING:
    from affectlens.features.calibration import Calibration

_LIMIT = "first N pairs, where the search took so many"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    verb(
        app,
        "controls",
        config=ControlsConfig,
        limit=_LIMIT,
        examples="""affectlens controls runs/a
        affectlens controls runs/a --grains words --n-shuffles 5""",
    )(controls)
    verb(
        app,
        "validity",
        config=ValidityConfig,
        limit=_LIMIT,
        examples="""affectlens validity runs/a
        affectlens validity runs/a --part both""",
    )(validity)
    verb(
        app,
        "baselines",
        config=BaselineConfig,
        limit=_LIMIT,
        examples="""affectlens baselines runs/a
        affectlens baselines runs/a --layers 0,7,15""",
    )(baselines)
    verb(
        app,
        "name",
        config=NamingConfig,
        skip=("battery",),
        examples="""affectlens name runs/a
        affectlens name runs/a --n-features 3""",
    )(name)
    verb(
        app,
        "calibrate",
        config=CalibrationConfig,
        limit=_LIMIT,
        examples="""affectlens calibrate runs/a
        affectlens calibrate runs/a --n-repeats 1000 --effects 0.5,1""",
    )(calibrate)


def controls(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
) -> None:
    """Ask of every retained feature whether it answers to words or to what they say."""
    config = ControlsConfig.parse(settings)
    loaded = load_searched(run, named, common, stage="controls")
    from affectlens.features.feature_classes import CLASSES

    result = loaded.after.controls(config)
    result.write(run)
    console = common.console
    console.table(
        ["contrast", *CLASSES],
        [[name, *counts.values()] for name, counts in result.summary.classes.items()],
    )
    console.say(f"tables: {run / 'search/controls.csv'}, control_grains.csv, strict.csv")
    console.result({"run": run, "summary": asdict(result.summary)})


def validity(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
) -> None:
    """Test retained features further: dose, discriminant, transfer, domains, person, wording."""
    config = ValidityConfig.parse(settings)
    loaded = load_searched(run, named, common, stage="validity")
    result = loaded.after.validity(config)
    result.write(run)
    judged = result.table[result.table["group"] == "verdict"]
    counts = judged.groupby(["contrast", "test", "verdict"], sort=False).size()
    columns = ["contrast", "test", "verdict", "features"]
    common.console.frame(counts.reset_index(name="features"), columns)
    if not len(judged):
        common.console.say(
            "no verdicts: the search kept no pairs for confirmation; `--part both` tests on those "
            "that chose the features"
        )
    common.console.say(f"tables: {run / 'validity'}")
    common.console.result({"run": run, "tests": result.table.to_dict("records")})


def baselines(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
) -> None:
    """Put probes, differences of means, neurons and words beside the features."""
    config = BaselineConfig.parse(settings)
    loaded = load_searched(run, named, common, stage="baselines")
    result = loaded.after.baselines(config)
    result.write(run)
    names = ["target", "method", "layer", "auroc", "low", "high", "minus_sae", "verdict"]
    for how, part in result.table.groupby("evaluated_on", sort=False):
        common.console.say(f"\nevaluated on {how}")
        common.console.frame(part, names)
    common.console.say(f"table: {run / 'search/baselines.csv'}")
    common.console.result({"run": run, "summary": asdict(result.summary)})


def name(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    named: Named,
    store: Annotated[
        Path | None,
        typer.Option(help="activations  [default: RUN/activations]", metavar="FOLDER"),
    ] = None,
) -> None:
    """Say of the retained features what can be said without a model that writes names."""
    config = NamingConfig.parse(settings)
    loaded = load_searched(run, named, common, store=store, stage="naming")
    if loaded.store is None:
        raise ConfigError(f"{run / 'activations'} does not exist; harvest there or give --store")
    names = loaded.after.naming(config, loaded.store)
    names.write(run)
    table = names.table()
    shown = ["contrast", "feature", "kind", "top_token", "promoted"]
    common.console.frame(table, shown)
    common.console.say(f"names: {run / 'naming'}")
    common.console.result({"run": run, "names": table[shown].to_dict("records")})


def calibrate(
    common: Common,
    settings: dict[str, Any],
    run: Run,
    battery: BatteryName = None,
) -> None:
    """Repeat the search where the answer is known: flipped labels, neutral pairs, plants."""
    show_calibration(run, battery, CalibrationConfig.parse(settings), common)


def show_calibration(
    run: Path, battery: str | None, config: CalibrationConfig, common: Common
) -> None:
    """Calibrate the search of a run folder on what it read; write and print the rates."""
    from affectlens.after_search import calibrate_search
    from affectlens.features.pooling import pool
    from affectlens.features.stored import read_encoded

    found = read_run_search(run)
    pairs = load_pairs(battery, made_with(run), common)
    pooled = pool(read_encoded(run), found.settings.pooling)
    result = calibrate_search(pairs, found, pooled, config, quiet=common.quiet)
    result.write(run)
    _show_rates(result, run, common)


def _show_rates(result: Calibration, run: Path, common: Common) -> None:
    console, s = common.console, result.summary
    names = ["null", "contrast", "measure", "rate", "low", "high", "allowed", "verdict"]
    console.frame(result.rates, names)
    console.say("\nSmallest d_z found with power .8:")
    names = ["contrast", "n_pairs_discovery", "n_clusters_discovery", "criterion", "detectable"]
    console.frame(result.detectable, names)
    console.say(f"{s.n_outside} of {s.n_rates} rates lie outside their limits.")
    console.say(f"tables: {run / 'calibration'}")
    console.result({"run": run, "summary": asdict(s)})
