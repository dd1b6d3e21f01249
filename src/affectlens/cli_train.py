"""The `train` command: one SAE, or one for every combination of settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from affectlens.cli_inputs import load_lm
from affectlens.cli_options import Common
from affectlens.data.errors import ConfigError
from affectlens.training.config import Arch, TrainConfig

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel
    from affectlens.data.store import ActivationStore

OWN_FIELDS = ("layer", "arch", "d_sae", "k")
"""Fields whose options here take several values."""
EXAMPLES = """affectlens train runs/a/activations --out runs/a/sae
        affectlens train acts --out sae --arch batchtopk --d-sae 2048 --k 16 --no-model
        affectlens train acts --out saes --layers 10,15 --d-sae 2048,4608 --k 16,32 --seeds 0,1,2
        affectlens train acts --out sae --d-sae 65536 --dry-run"""
_FIELDS = TrainConfig.model_fields


def _several(field: str, *names: str, metavar: str) -> Any:
    default = _FIELDS[field].get_default()
    shown = "" if default is None else f"  [default: {default}]"
    help = f"{_FIELDS[field].description}; several, comma-separated, train one SAE each{shown}"
    return typer.Option(*names, help=help, show_default=False, metavar=metavar)


def train(
    common: Common,
    settings: dict[str, Any],
    store: Annotated[Path, typer.Argument(help="folder of the activations", metavar="STORE")],
    out: Annotated[
        Path,
        typer.Option(help="folder of the SAE; of several, the folder above them", metavar="FOLDER"),
    ],
    layers: Annotated[
        str | None, _several("layer", "--layers", "--layer", metavar="N[,N...]")
    ] = None,
    arch: Annotated[
        str | None, _several("arch", "--arch", metavar="|".join(get_args(Arch)) + "[,...]")
    ] = None,
    d_sae: Annotated[str | None, _several("d_sae", "--d-sae", metavar="N[,N...]")] = None,
    k: Annotated[str | None, _several("k", "--k", metavar="N[,N...]")] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="seeds, comma-separated; one SAE each", metavar="N[,N...]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="model for cross-entropy recovered  [default: the store's]", metavar="MODEL"
        ),
    ] = None,
    no_model: Annotated[  # noqa: FBT002
        bool, typer.Option("--no-model", help="leave cross-entropy recovered out")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="print what memory and disk it needs, and stop")
    ] = False,
) -> None:
    """Train an SAE on stored activations; an interrupted training is resumed.

    With several layers, architectures, sizes or seeds one SAE is trained for every combination,
    each in a folder of its own below --out, with sweep.csv, sweep.json and a
    picture of L0 against quality beside them.
    """
    if common.limit is not None:
        settings["n_samples"] = common.limit
    values: dict[str, list[Any]] = {
        "layer": _numbers("--layers", layers),
        "arch": _parts("--arch", arch),
        "d_sae": _numbers("--d-sae", d_sae),
        "k": _numbers("--k", k),
        "seed": _numbers("--seeds", seeds),
    }
    settings |= {name: found[0] for name, found in values.items() if found}
    config = TrainConfig.parse(settings)
    several = any(len(found) > 1 for found in values.values())
    from affectlens.data.store import ActivationStore

    opened = ActivationStore.open(store)
    if dry_run:
        _show_plans(opened, config, values, out, common, several=several)
        return
    lm = None if no_model else _model(opened, model, common)
    if several:
        _train_several(opened, config, values, out, lm, common)
    else:
        _train_one(opened, config, out, lm, common)


def _train_one(
    store: ActivationStore, config: TrainConfig, out: Path, lm: LanguageModel | None, common: Common
) -> None:
    from affectlens.data.artifacts import read_json
    from affectlens.training.trainer import train as train_stage

    device = common.device or "cpu"
    sae = train_stage(store, config, out, lm=lm, quiet=common.quiet, device=device)
    metrics = read_json(out / "metrics.json")
    shown = {k: v for k, v in metrics.items() if k != "history"}
    common.console.table(["measure", "value"], [[k, v] for k, v in shown.items()])
    common.console.say(f"SAE: {out}")
    common.console.result({"sae": out, "sha256": sae.fingerprint, "metrics": shown})


def _train_several(
    store: ActivationStore,
    config: TrainConfig,
    values: dict[str, list[Any]],
    out: Path,
    lm: LanguageModel | None,
    common: Common,
) -> None:
    from dataclasses import asdict

    from affectlens.report.figures_sweep import write_sweep_figure
    from affectlens.training.sweep import train_many

    device = common.device or "cpu"
    grid = _grid(values)
    results = train_many(store, config, grid, out, lm=lm, quiet=common.quiet, device=device)
    columns = ("name", "fvu", "l0", "dead_share", "ce_recovered_mean", "seconds", "tokens_per_s")
    common.console.table(columns, [[getattr(r, c) for c in columns] for r in results])
    common.console.say(f"SAEs: {out}")
    picture = write_sweep_figure([asdict(r) for r in results], out)
    if picture is not None:
        common.console.say(f"picture: {picture}")
    failed = [result for result in results if result.error]
    common.console.result(
        {"sweep": out, "results": [asdict(r) for r in results], "n_failed": len(failed)}
    )
    for result in failed:
        common.console.say(f"failed: {result.name}: {result.error}")
    if failed:
        raise typer.Exit(3)


def _show_plans(
    store: ActivationStore,
    config: TrainConfig,
    values: dict[str, list[Any]],
    out: Path,
    common: Common,
    *,
    several: bool,
) -> None:
    """Print what each SAE needs; refuse as the training itself would."""
    from dataclasses import asdict

    from affectlens.training.memory import available_bytes, human, plan
    from affectlens.training.sources import resolve_hook
    from affectlens.training.sweep import named_configs
    from affectlens.training.trainer import check_room

    device = common.device or "cpu"
    plans = []
    for name, one in named_configs(store, config, _grid(values)).items():
        hook = resolve_hook(store, one)
        n_rows = store.n_kept(hook, "train")
        needed = plan(one, store.d_model, n_rows, device)
        common.console.say(f"{hook}, {one.arch}, d_sae {one.d_sae:,}, k {one.k}, seed {one.seed}")
        common.console.table(["what", "size"], needed.lines())
        plans.append({"hook_name": hook, "config": one.model_dump(mode="json"), **asdict(needed)})
        check_room(one, out / name if several else out, store.d_model, n_rows, device)
    free = available_bytes(device)
    common.console.say(f"free: {'unknown' if free is None else human(free)} on {device}")
    common.console.result({"plans": plans, "free": free})


def _grid(values: dict[str, list[Any]]) -> Any:
    from affectlens.training.sweep import Grid

    return Grid(*(tuple(values[name]) for name in ("layer", "arch", "d_sae", "k", "seed")))


def _model(store: ActivationStore, name: str | None, common: Common) -> LanguageModel:
    made = store.provenance["model"]
    revision = made.get("revision") if not name and made.get("kind") == "hub" else None
    return load_lm(name or made["name"], revision, common)


def _parts(option: str, text: str | None) -> list[str]:
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigError(f"{option} was given without a value")
    return list(dict.fromkeys(parts))


def _numbers(option: str, text: str | None) -> list[int]:
    parts = _parts(option, text)
    wrong = [part for part in parts if not part.removeprefix("-").isdecimal()]
    if wrong:
        raise ConfigError(f"{option} {text}: {wrong[0]!r} is not a whole number")
    if below := [part for part in parts if int(part) < 0]:
        raise ConfigError(f"{option} {text}: {below[0]} is below 0; it must be positive")
    return [int(part) for part in parts]
