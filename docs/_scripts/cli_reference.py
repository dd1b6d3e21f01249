"""Directive `affectlens-commands`: every command with its help, taken from the program itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_DEFAULT = re.compile(r"\s*\[default: (?P<value>.*)\]\s*$", re.DOTALL)
_NAMES = re.compile(r"-[^\s,/]+(?:(?:, | ?/ ?)-[^\s,/]+)*")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group with its path, groups before their commands."""
    for name, command in group.commands.items():
        here = (*path, name)
        yield here, command
        if hasattr(command, "commands"):
            yield from commands(command, here)


def program() -> Any:
    """The command line as one group."""
    from affectlens.cli import build_app

    return typer.main.get_command(build_app())


class AffectlensCommands(SphinxDirective):
    """One section for each command."""

    def run(self) -> list[nodes.Node]:
        """Build the sections."""
        root = program()
        context = root.make_context("affectlens", [], resilient_parsing=True)
        return [self._section(path, command, context) for path, command in commands(root)]

    def _section(self, path: tuple[str, ...], command: Any, parent: Any) -> nodes.section:
        title = " ".join(("affectlens", *path))
        label = "-".join(("command", *path))
        section = nodes.section(ids=[label], names=[label])
        section += nodes.title(title, "", nodes.literal(title, title))
        self.state.document.note_explicit_target(section)
        context = command.make_context(title, [], parent=parent, resilient_parsing=True)
        for text in _paragraphs(command.help or ""):
            section += nodes.paragraph(text, "", *_coded(text))
        section += _literal(" ".join(command.collect_usage_pieces(context)), title)
        rows = [_row(option, context) for option in command.get_params(context)]
        rows = [row for row in rows if row[0] != "-h, --help"]
        if rows:
            section += _table(rows)
        examples = inspect.cleandoc((command.epilog or "").replace("\b", ""))
        examples = inspect.cleandoc(examples.partition("Examples:")[2])
        if examples:
            block = nodes.literal_block(examples, examples)
            block["language"] = "console"
            section += block
        return section


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n") if part]


def _coded(text: str) -> list[nodes.Node]:
    """Text whose parts in backticks are code."""
    parts = text.split("`")
    return [nodes.literal(p, p) if i % 2 else nodes.Text(p) for i, p in enumerate(parts)]


def _literal(usage: str, title: str) -> nodes.literal_block:
    text = f"{title} {usage}"
    block = nodes.literal_block(text, text)
    block["language"] = "text"
    return block


def _row(parameter: Any, context: Any) -> tuple[str, str, str, str]:
    """Name, value, default and meaning of an option or argument."""
    head, text = parameter.get_help_record(context) or (parameter.human_readable_name, "")
    names = _NAMES.match(head)
    kind = head[names.end() :].strip() if names else ""
    default = _DEFAULT.search(text)
    shown = "required" if "[required]" in text else (default["value"] if default else "")
    meaning = _DEFAULT.sub("", text).replace("[required]", "")
    return names[0] if names else head, kind, shown.strip('"'), " ".join(meaning.split())


def _table(rows: list[tuple[str, str, str, str]]) -> nodes.container:
    """A table of options; the wrapper scrolls on a narrow page."""
    group = nodes.tgroup(cols=4)
    for width in (22, 14, 18, 46):
        group += nodes.colspec(colwidth=width)
    head = nodes.thead()
    head += _cells(("option", "value", "default", "meaning"), code=())
    body = nodes.tbody()
    for row in rows:
        body += _cells(row, code=(0, 1, 2))
    group += head
    group += body
    table = nodes.table(classes=["options"])
    table += group
    return nodes.container("", table, classes=["table-wrapper", "docutils"])


def _cells(values: tuple[str, ...], *, code: tuple[int, ...]) -> nodes.row:
    row = nodes.row()
    for i, value in enumerate(values):
        text: list[nodes.Node] = _coded(value)
        if i in code and value and value != "required":
            text = [nodes.literal(value, value)]
        row += nodes.entry("", nodes.paragraph("", "", *text))
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("affectlens-commands", AffectlensCommands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
