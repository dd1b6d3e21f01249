"""Commands made from functions and configs: their options, defaults and help have one source.

A stage's command takes its options from the fields of its config: name, type, description and
default. A field that is a config itself and is marked `flat` gives its own fields as options. Every
command also takes the global options (`Common`).
"""

from __future__ import annotations

import enum
import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
import yaml

from affectlens.cli_runtime import configure
from affectlens.console import Console
from affectlens.data.config import StageConfig
from affectlens.data.errors import ConfigError

Body = Callable[..., None]
_INNER = "__"
"""Between the names of a nested config and of its field in a parameter's name."""


@dataclass(frozen=True)
class Common:
    """The global options of a call.

    Attributes:
        quiet: no progress and no log.
        verbose: everything in the log, third-party warnings, tracebacks.
        seed: seed given on the command line.
        device: torch device given on the command line.
        limit: `--limit`, whose meaning the command's help states.
        console: where results go.
    """

    quiet: bool
    verbose: bool
    seed: int | None
    device: str | None
    limit: int | None
    console: Console


def verb(
    app: typer.Typer,
    name: str,
    *,
    examples: str,
    limit: str = "no effect here",
    config: type[StageConfig] | None = None,
    skip: tuple[str, ...] = (),
) -> Callable[[Body], Body]:
    r"""Register a function as a command.

    The function takes `common: Common`, with a `config` also `settings: dict` (the config's fields
    that were given), and any parameters of its own as typer options and arguments. A parameter
    whose type is a dataclass of options (`cli_arguments.Named`) stands for all of them.

    Args:
        app: the application or group.
        name: the command's name.
        examples: lines of the help's Examples block.
        limit: what `--limit` means for this command.
        config: the config whose fields become options.
        skip: fields, of the config or of a dataclass, that do not become options.
    """

    def register(body: Body) -> Body:
        signature = inspect.signature(body, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name not in ("common", "settings")]
        groups: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
        own = [option for p in own for option in _own_options(p, skip)]
        of_config = config_options(config, skip=(*skip, "seed", "device")) if config else []
        parameters = [*own, *of_config, *_common_options(limit)]

        def command(**values: Any) -> None:
            common = _take_common(values)
            configure(quiet=common.quiet, verbose=common.verbose)
            if config is not None:
                picked = {f.name: values.pop(f.name) for f in of_config}
                values["settings"] = given(config, picked)
                if "seed" in config.model_fields and common.seed is not None:
                    values["settings"]["seed"] = common.seed
            for name, kind in groups.items():
                there = [f.name for f in fields(kind) if f.name in values]
                values[name] = kind(**{n: values.pop(n) for n in there})
            body(common=common, **values)

        command.__name__ = body.__name__
        command.__doc__ = body.__doc__
        command.__annotations__ = {}
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        )
        app.command(name, epilog=example_block(examples))(command)
        return body

    return register


def group(help: str, examples: str) -> typer.Typer:
    """A group of commands that shows its help when called alone."""
    app = typer.Typer(
        help=help,
        rich_markup_mode=None,
        epilog=example_block(examples),
    )

    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            Console().say(context.get_help())
            raise typer.Exit

    app.callback(invoke_without_command=True, help=help)(alone)
    return app


def parse_change(text: str) -> dict[str, Any]:
    """`--set a.b=VALUE` as a nested dictionary; the value is read as YAML.

    Raises:
        ConfigError: no equals sign, an empty part of the key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text!r} is not KEY=VALUE, such as harvest.max_tokens=20000")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML ({error})") from error
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def example_block(examples: str) -> str:
    """The Examples block of a help text; the leading mark keeps its line breaks."""
    lines = [line.strip() for line in examples.strip().splitlines()]
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def config_options(
    config: type[StageConfig], *, skip: tuple[str, ...] = ()
) -> list[inspect.Parameter]:
    """One option for each plain field of a config; None means 'not given'.

    The fields of a nested config marked `flat` follow, their parameters named `outer__inner`; one
    that the outer config has as well is an option once, of the outer.
    """
    out = []
    for name, field in config.model_fields.items():
        kind = _unwrapped(field.annotation)
        if name in skip:
            continue
        if isinstance(kind, type) and issubclass(kind, StageConfig):
            if _is_flat(field):
                shared = (*skip, *config.model_fields)
                out += [
                    p.replace(name=f"{name}{_INNER}{p.name}")
                    for p in config_options(kind, skip=shared)
                ]
            continue
        flag = "--" + name.replace("_", "-")
        names = [f"{flag}/--no-{flag[2:]}" if kind is bool else flag]
        extra = field.json_schema_extra
        if isinstance(extra, dict):
            names += [str(alias) for alias in [extra.get("alias_flag")] if alias]
        default = field.get_default()
        shown = "" if default in (None, ()) else f"  [default: {_shown(default)}]"
        note = _repeat_note(kind)
        option = typer.Option(
            *names,
            help=f"{field.description}{note}{shown}",
            show_default=False,
            metavar=_metavar(kind),
        )
        annotation = Annotated[_option_type(name, kind) | None, option]  # type: ignore[valid-type]
        out.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
        )
    return out


def given(config: type[StageConfig], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were given on the command line, as the config takes them, nested ones too."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == []:
            continue
        outer, inner, rest = name.partition(_INNER)
        if inner:
            nested = config.model_fields[outer].annotation
            assert isinstance(nested, type) and issubclass(nested, StageConfig)
            out.setdefault(outer, {}).update(given(nested, {rest: value}))
            continue
        kind = _unwrapped(config.model_fields[name].annotation)
        if isinstance(value, enum.Enum):
            value = value.value
        elif get_origin(kind) is tuple:
            value = _items(value, free_text=get_args(kind)[0] is str)
        out[name] = value
    return out


def _own_options(parameter: inspect.Parameter, skip: tuple[str, ...]) -> list[inspect.Parameter]:
    """The parameter itself, or the fields of the dataclass that it is."""
    kind = parameter.annotation
    if not is_dataclass(kind):
        return [parameter]
    hints = get_type_hints(kind, include_extras=True)
    return [
        parameter.replace(name=f.name, default=f.default, annotation=hints[f.name])
        for f in fields(kind)
        if f.name not in skip
    ]


def _is_flat(field: Any) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("flat"))


def _items(values: list[str], *, free_text: bool) -> tuple[str, ...]:
    # A prompt may hold commas; numbers and choices never do.
    if free_text:
        return tuple(values)
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _unwrapped(annotation: Any) -> Any:
    """The type without an optional None."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [a for a in get_args(annotation) if a is not type(None)]
        return kinds[0] if len(kinds) == 1 else str
    return annotation


def _option_type(name: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return enum.Enum(name, {str(v): v for v in get_args(kind)})
    if get_origin(kind) is tuple:
        return list[str]
    return kind if kind in (int, float, bool, str) else str


def _metavar(kind: Any) -> str | None:
    if kind is bool:
        return None
    if get_origin(kind) is Literal:
        return "[" + "|".join(map(str, get_args(kind))) + "]"
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if get_origin(item) is Literal:
            return "|".join(map(str, get_args(item)))
        return {int: "N[,N...]", float: "X[,X...]"}.get(item, "TEXT")
    return {int: "N", float: "X"}.get(kind, "TEXT")


def _repeat_note(kind: Any) -> str:
    if get_origin(kind) is not tuple:
        return ""
    return " (repeatable)" if get_args(kind)[0] is str else " (repeatable, or comma-separated)"


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ", ".join(_shown(item) for item in default)
    return json.dumps(default, ensure_ascii=False) if isinstance(default, str) else f"{default}"


def _common_options(limit: str) -> list[inspect.Parameter]:
    options: list[tuple[str, Any, Any, Any]] = [
        ("quiet", bool, False, typer.Option("--quiet", "-q", help="no progress and no log")),
        ("verbose", bool, False, typer.Option("--verbose", "-v", help="full log, tracebacks")),
        ("as_json", bool, False, typer.Option("--json", help="one JSON object on standard output")),
        ("seed", int | None, None, typer.Option("--seed", min=0, metavar="N", help="random seed")),
        (
            "device",
            str | None,
            None,
            typer.Option("--device", metavar="NAME", help="torch device, such as cpu or cuda"),
        ),
        ("limit", int | None, None, typer.Option("--limit", min=1, metavar="N", help=limit)),
    ]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, option],
        )
        for name, kind, default, option in options
    ]


def _take_common(values: dict[str, Any]) -> Common:
    return Common(
        quiet=values.pop("quiet"),
        verbose=values.pop("verbose"),
        seed=values.pop("seed"),
        device=values.pop("device"),
        limit=values.pop("limit"),
        console=Console(json=values.pop("as_json")),
    )
