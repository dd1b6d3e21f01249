"""`affectlens run`: a config file, overrides and flags to a finished run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer
import yaml

from affectlens.cli_options import Common, parse_change, verb
from affectlens.data.errors import ConfigError
from affectlens.run_config import RunConfig

_EXAMPLES = """
affectlens run
affectlens run --config study.yaml --seed 3 --out runs/study-3
affectlens run --set harvest.max_tokens=20000 --set train.k=16
affectlens run --config study.yaml --dry-run
"""


def register(app: typer.Typer) -> None:
    """Add `run` to the application."""
    verb(
        app,
        "run",
        examples=_EXAMPLES,
        limit="tokens of the corpus to use (sets harvest.max_tokens)",
        config=RunConfig,
    )(run)


def run(
    common: Common,
    settings: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings", metavar="FILE")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="one setting, such as train.k=16 (repeatable)", metavar="K=V"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="run folder  [default: runs/BATTERY-MODEL]", metavar="FOLDER"),
    ] = None,
    overwrite: Annotated[  # noqa: FBT002
        bool, typer.Option("--overwrite", help="rebuild what other settings made in the folder")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="show settings and stages; do nothing")
    ] = False,
) -> None:
    """Do everything: texts to activations, SAE, features, effects and report.

    What the folder already holds of the same settings is reused, so an interrupted run goes on.
    Flags win over --set, --set over the file, the file over the defaults.
    """
    chosen = resolve(config, changes or [], settings, common)
    folder = out or default_folder(chosen)
    if dry_run:
        _show_plan(chosen, folder, common)
        return
    check_inputs(chosen)
    from affectlens.pipeline import run as run_pipeline

    result = run_pipeline(chosen, folder, overwrite=overwrite, quiet=common.quiet)
    console = common.console
    stages = {n: {"seconds": r.seconds, "reused": r.reused} for n, r in result.stages.items()}
    console.table(
        ["stage", "seconds", "reused"],
        [[name, f"{s['seconds']:.1f}", s["reused"]] for name, s in stages.items()],
    )
    console.say()
    for number, finding in enumerate(result.findings, start=1):
        console.say(f"{number}. {finding}")
    console.say()
    console.say(f"report: {result.report}")
    console.result(
        {
            "folder": result.folder,
            "report": result.report,
            "findings": result.findings,
            "stages": stages,
        }
    )


def resolve(
    file: Path | None, changes: list[str], flags: Mapping[str, Any], common: Common
) -> RunConfig:
    """Settings from file, `--set` and flags, later ones winning.

    Raises:
        ConfigError: a file or change that cannot be read, an unknown key or a bad value.
    """
    values: dict[str, Any] = read_settings(file) if file else {}
    for change in changes:
        _merge(values, _listed(parse_change(change)))
    _merge(values, dict(flags))
    if common.device is not None:
        values["device"] = common.device
    if common.seed is not None:
        values["seed"] = common.seed
    if common.limit is not None:
        _merge(values, {"harvest": {"max_tokens": common.limit}})
    return RunConfig.parse(values).resolved()


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        ConfigError: absent, unreadable, not YAML, or not a mapping.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such config file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold settings as 'key: value', not a {_kind(loaded)}")
    return loaded


def default_folder(config: RunConfig) -> Path:
    """runs/BATTERY-MODEL, with what a folder name cannot hold replaced."""
    return Path("runs") / f"{_slug(config.battery)}-{_slug(config.model)}"


def check_inputs(config: RunConfig) -> None:
    """Refuse inputs that are not there before anything is computed.

    Raises:
        StimulusError: the battery is unknown or broken.
        CorpusError: the corpus is unknown.
    """
    from affectlens.data.corpus import load_corpus
    from affectlens.data.stimuli import list_batteries, load_battery

    offline = {info.name for info in list_batteries() if info.offline}
    if config.battery in offline or config.battery.partition("@")[0] not in {
        info.name for info in list_batteries()
    }:
        load_battery(config.battery)
    named = config.corpus == "default" or config.corpus.startswith("hub:")
    if not named and not Path(config.corpus).expanduser().exists():
        load_corpus(config.corpus)


def _show_plan(config: RunConfig, folder: Path, common: Common) -> None:
    from affectlens.plan import plan

    check_inputs(config)
    reused = plan(config, folder)
    settings = config.model_dump(mode="json")
    console = common.console
    console.say(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip())
    console.say()
    console.say(f"folder: {folder}")
    console.table(
        ["stage", "would"], [[name, "be reused" if r else "run"] for name, r in reused.items()]
    )
    console.result(
        {
            "folder": folder,
            "config": settings,
            "stages": {name: {"reused": r} for name, r in reused.items()},
        }
    )


def _listed(change: dict[str, Any], config: Any = RunConfig) -> dict[str, Any]:
    """Let `--set harvest.layers=2` stand for a list of one where the field is a list."""
    fields = getattr(config, "model_fields", {})
    for key, value in change.items():
        kind = fields[key].annotation if key in fields else None
        if isinstance(value, dict):
            _listed(value, kind)
        elif get_origin(kind) is tuple and not isinstance(value, list):
            change[key] = [value]
    return change


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        present = into.get(key)
        if isinstance(value, Mapping) and isinstance(present, dict):
            _merge(present, value)
        else:
            into[key] = value


def _slug(name: str) -> str:
    path = Path(name).expanduser()
    stem = path.stem if path.exists() else name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "unnamed"


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else type(value).__name__
