"""The documentation names everything that is public, links to what is there, shows code that runs.

The site as a whole is built by `make docs`; here only what takes seconds.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import affectlens

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in DOCS.rglob("*.md") if not p.relative_to(DOCS).parts[0].startswith("_")),
]
IDS = [str(p.relative_to(ROOT)) for p in PAGES]

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>```+|:::+)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)(?P=mark) *$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"!?\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\((?P<to>[^()\s]+)\)")


def _script(name: str) -> Any:
    """A module of docs/_scripts."""
    folder = str(DOCS / "_scripts")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return import_module(name)


def _blocks(page: Path) -> list[tuple[str, str]]:
    """Info string and text of every fenced block."""
    out = []
    for found in _FENCE.finditer(page.read_text(encoding="utf-8")):
        cut = len(found["indent"])
        body = "\n".join(line[cut:] for line in found["body"].splitlines())
        out.append((found["info"].strip(), body))
    return out


def _prose(page: Path) -> str:
    """The page without its code; pictures' captions stay."""

    def kept(found: re.Match[str]) -> str:
        return found["body"] if found["info"].strip().startswith("{picture}") else ""

    text = _FENCE.sub(kept, page.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]+`(?!\])", "code", text)


@cache
def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    slugs: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slugs.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return slugs


def _documented() -> list[str]:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    return re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)", page, re.MULTILINE)


def test_every_public_name_is_in_the_reference_once() -> None:
    public = sorted(set(affectlens.__all__) - {"__version__"})
    assert sorted(_documented()) == public
    assert "__version__" in (DOCS / "reference" / "python.md").read_text(encoding="utf-8")


def test_every_name_of_the_reference_has_a_docstring() -> None:
    own = [n for n in _documented() if not (getattr(affectlens, n).__doc__ or "").strip()]
    assert own == []


@pytest.mark.parametrize("name", ["types.md", "settings.md"])
def test_types_and_settings_of_the_reference_exist(name: str) -> None:
    text = (DOCS / "reference" / name).read_text(encoding="utf-8")
    paths = re.findall(r"(?:autoclass::|\{affectlens-settings\}) (affectlens[\w.]+)", text)
    assert len(paths) > 4
    for path in paths:
        module, _, attribute = path.rpartition(".")
        assert hasattr(import_module(module), attribute), path


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_resolve(page: Path) -> None:
    labels = {"#" + "-".join(("command", *path)) for path, _ in _commands()}
    broken = []
    for found in _LINK.finditer(_prose(page)):
        to = found["to"]
        if re.match(r"[a-z]+:", to) or to in labels:
            continue
        place, _, anchor = to.partition("#")
        target = (page.parent / place).resolve() if place else page
        known = target.exists() and ROOT in target.parents
        if not known or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(to)
    assert broken == []


def test_every_page_is_in_a_table_of_contents() -> None:
    listed: set[Path] = {DOCS / "index.md"}
    for page in PAGES[2:]:
        for info, body in _blocks(page):
            if not info.startswith("{toctree}"):
                continue
            for line in body.splitlines():
                if line.strip() and not line.startswith(":"):
                    listed.update(page.parent.glob(line.strip() + ".md"))
    missing = [str(p.relative_to(ROOT)) for p in PAGES[2:] if p not in listed]
    assert missing == []


@cache
def _commands() -> tuple[tuple[tuple[str, ...], Any], ...]:
    cli = _script("cli_reference")
    return tuple(cli.commands(cli.program()))


def test_every_command_and_option_gets_a_row() -> None:
    """The page is made from the program itself; this holds what is made of it."""
    cli = _script("cli_reference")
    assert "{affectlens-commands}" in (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    root = cli.program().make_context("affectlens", [], resilient_parsing=True)
    names = {" ".join(path) for path, _ in _commands()}
    assert {"run", "search", "battery audit", "sae check", "doctor"} <= names
    for path, command in _commands():
        assert command.help, path
        context = command.make_context(path[-1], [], parent=root, resilient_parsing=True)
        for parameter in command.get_params(context):
            name, _, _, meaning = cli._row(parameter, context)
            assert meaning, (path, name)
            assert parameter.param_type_name == "argument" or name.startswith("-"), (path, name)


def test_a_row_holds_name_value_default_and_meaning() -> None:
    cli = _script("cli_reference")
    (command,) = [c for path, c in _commands() if path == ("train",)]
    context = command.make_context("train", [], resilient_parsing=True)
    rows = {row[0]: row for row in (cli._row(p, context) for p in command.get_params(context))}
    assert rows["--k"][1:3] == ("N[,N...]", "32")
    assert rows["--out"][2] == "required"
    assert rows["--layers, --layer"][3].startswith("block output")


def _console_lines() -> list[tuple[str, list[str]]]:
    """Every `affectlens ...` line of the pages, split into words."""
    lines = []
    for page, name in zip(PAGES, IDS, strict=True):
        text = "\n".join(body for info, body in _blocks(page) if info in ("console", "bash", ""))
        text += "\n" + "\n".join(re.findall(r"^(?: {4}|\t)(affectlens .*)$", _prose(page), re.M))
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            found = re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?affectlens (\S.*)", line)
            if found:
                lines.append((name, shlex.split(found[1], comments=True)))
    return lines


def test_commands_in_the_pages_exist() -> None:
    cli = _script("cli_reference")
    root = cli.program().make_context("affectlens", [], resilient_parsing=True)
    by_path = dict(_commands())
    wrong = []
    for page, words in _console_lines():
        if "|" in words:  # a list of commands, not one call
            words = [w for w in words if w != "|"][:1]
        path = tuple(words[:2]) if tuple(words[:2]) in by_path else tuple(words[:1])
        if path not in by_path:
            wrong.append((page, words))
            continue
        context = by_path[path].make_context(path[-1], [], parent=root, resilient_parsing=True)
        known = {o for p in by_path[path].get_params(context) for o in (*p.opts, *p.secondary_opts)}
        options = [w.partition("=")[0] for w in words[len(path) :] if re.match(r"--?[a-z]", w)]
        wrong += [(page, words, o) for o in options if o not in known]
    assert wrong == []


def _python_blocks() -> list[Any]:
    return [
        pytest.param(body, id=f"{name}-{i}")
        for page, name in zip(PAGES, IDS, strict=True)
        for i, (info, body) in enumerate(_blocks(page))
        if info.split()[:1] == ["python"]
    ]


@pytest.mark.parametrize("code", _python_blocks())
def test_python_in_the_pages_compiles_and_uses_public_names(code: str) -> None:
    assert _unknown_names(ast.parse(code)) == []


def _unknown_names(tree: ast.Module) -> list[str]:
    """Names that the code takes from the package although it does not offer them."""
    public = set(affectlens.__all__)
    unknown = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("al", "affectlens") and node.attr not in public:
                unknown.append(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module == "affectlens":
            unknown += [a.name for a in node.names if a.name not in public]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("affectlens."):
            module = import_module(str(node.module))
            unknown += [a.name for a in node.names if not hasattr(module, a.name)]
    return unknown


def test_unknown_names_are_seen() -> None:
    code = "import affectlens as al\nfrom affectlens import Clamp, Clomp\nal.serch(al.search)\n"
    assert _unknown_names(ast.parse(code)) == ["Clomp", "serch"]


def test_a_page_of_the_site_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the documentation's tools are not installed")
    from sphinx.application import Sphinx

    source = tmp_path / "source"
    (source / "_static").mkdir(parents=True)
    (source / "index.md").write_text(
        "# A page\n\n```python\nx = 1\n```\n\n```{affectlens-settings} "
        "affectlens.features.config.SearchConfig search.\n```\n",
        encoding="utf-8",
    )
    built = tmp_path / "site"
    Sphinx(
        source, DOCS, built, tmp_path / "doctrees", "html", status=None, warningiserror=True,
        confoverrides={"html_static_path": [], "html_css_files": []},
    ).build()  # fmt: skip
    assert "search.min_items" in (built / "index.html").read_text(encoding="utf-8")
    assert _script("outside_requests").outside_requests(built) == []


def test_what_is_loaded_from_elsewhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://fine.example/">x</a><script src="//cdn.example/x.js"></script>'
        '<link rel="stylesheet" href="https://fonts.example/f.css"><img src="here.png">'
        '<div style="background: url(https://img.example/b.png)"></div>',
        encoding="utf-8",
    )
    (tmp_path / "b.css").write_text("@import 'https://c.example/s.css';", encoding="utf-8")
    found = _script("outside_requests").outside_requests(tmp_path)
    text = "\n".join(found)
    for host in ("cdn.example", "fonts.example", "img.example", "c.example"):
        assert host in text
    assert "fine.example" not in text


def test_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    """Drawn anew, every picture is the same to the byte: their numbers are the pages' numbers."""
    pictures = _script("pictures")
    pictures.main(tmp_path)
    drawn = {p.name: p.read_text(encoding="utf-8") for p in tmp_path.glob("*.svg")}
    kept = {p.name: p.read_text(encoding="utf-8") for p in pictures.FOLDER.glob("*.svg")}
    assert drawn == kept
    used = set(re.findall(r"\{picture\} (\w+)", "\n".join(p.read_text("utf-8") for p in PAGES)))
    assert used == set(pictures.DRAWINGS)
