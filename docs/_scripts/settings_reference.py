"""Directive `affectlens-settings`: the fields of a stage's settings, with type and default."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class AffectlensSettings(SphinxDirective):
    """A table for the class named by its dotted path and one for each part of it."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the tables; the second argument is the place in a run's configuration."""
        module, _, name = self.arguments[0].rpartition(".")
        config = getattr(import_module(module), name)
        prefix = self.arguments[1] if len(self.arguments) > 1 else ""
        return [node for part, kind in _parts(config, prefix) for node in _described(kind, part)]


def _parts(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The settings and, behind them, the settings that are one field of them."""
    yield prefix, config
    for name, field in config.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _parts(field.annotation, f"{prefix}{name}.")


def _described(config: Any, prefix: str) -> list[nodes.Node]:
    rows = [
        (prefix + name, type_name(field.annotation), _shown(field.default), field.description or "")
        for name, field in config.model_fields.items()
        if not hasattr(field.annotation, "model_fields")
    ]
    if not rows:
        return []
    name = config.__name__
    head = nodes.paragraph("", "", nodes.literal(name, name), classes=["settings-name"])
    head["ids"] = [f"settings-{name.lower()}"]
    group = nodes.tgroup(cols=4)
    for width in (24, 18, 16, 42):
        group += nodes.colspec(colwidth=width)
    group += nodes.thead("", _cells(("setting", "type", "default", "meaning"), code=()))
    group += nodes.tbody("", *(_cells(row, code=(0, 1, 2)) for row in rows))
    table = nodes.table("", group, classes=["options"])
    return [head, nodes.container("", table, classes=["table-wrapper", "docutils"])]


def type_name(kind: Any) -> str:
    """A type as a reader writes it: `int`, `tuple of text`, `"a" or "b"`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(k) for k in inner)
    if origin is tuple:
        return f"list of {type_name(inner[0])}"
    if kind is type(None):
        return "none"
    return {"str": "text", "bool": "true | false"}.get(
        getattr(kind, "__name__", ""), ""
    ) or getattr(kind, "__name__", re.sub(r"typing\.", "", str(kind)))


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(str(v) for v in value)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)


def _cells(values: tuple[str, ...], *, code: tuple[int, ...]) -> nodes.row:
    row = nodes.row()
    for i, value in enumerate(values):
        text: nodes.Node = nodes.literal(value, value) if i in code else nodes.Text(value)
        row += nodes.entry("", nodes.paragraph("", "", text))
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("affectlens-settings", AffectlensSettings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
