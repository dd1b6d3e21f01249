"""The map holds: rooms import in one direction, every module is packaged, names are safe."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "sae": ROOT / "sae",
    "data": ROOT / "data",
    "training": ROOT / "training",
    "features": ROOT / "features",
    "report": ROOT / "src/affectlens/report",
    "display": ROOT / "src/affectlens/display",
    "demo": ROOT / "src/affectlens/demo",
}
ALLOWED = {
    "display": {"display"},
    "sae": {"sae", "display"},
    "data": {"data", "display"},
    "training": {"training", "sae", "data", "display"},
    "features": {"features", "sae", "data", "display"},
    "demo": {"demo", "features", "sae", "data"},
    "report": {
        "report",
        "display",
        "features.results",
        "features.columns",
        "features.validation_records",
        "features.screen_records",
        "features.study_record",
        "features.effect_columns",
        "features.chance",
        "features.screen_columns",
        "features.study_columns",
        "features.baseline_columns",
        "features.testable",
        "features.lexical_card",
        "data.artifacts",
        "data.errors",
        "data.taxonomy",
    },
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.removeprefix("affectlens.") for n in names if n.startswith("affectlens.")}


@pytest.mark.parametrize("room", FOLDERS)
def test_imports_go_one_way(room: str) -> None:
    wrong = [
        f"{path.name} imports affectlens.{name}"
        for path in sorted(FOLDERS[room].glob("*.py"))
        for name in imported(path)
        if not any(name == ok or name.startswith(ok + ".") for ok in ALLOWED[room])
    ]
    assert not wrong


def test_every_package_folder_is_listed() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    listed = {ROOT / place for place in tools["setuptools"]["package-dir"].values()}
    found = {
        p.parent
        for top in ("data", "sae", "training", "features", "src")
        for p in (ROOT / top).rglob("__init__.py")
    }
    assert found == listed


@pytest.mark.parametrize("room", ["sae", "data", "training", "features"])
def test_a_room_refuses_its_bare_name(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {room}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"import affectlens.{room}, not {room}" in done.stderr


def test_public_names_exist_and_import_is_light() -> None:
    code = (
        "import sys, affectlens as al\n"
        "assert 'torch' not in sys.modules\n"
        "assert all(getattr(al, name) is not None for name in al.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_see_every_module() -> None:
    links = {p.name for p in (ROOT / "typings/affectlens").iterdir()}
    front = {p.name for p in (ROOT / "src/affectlens").glob("*.py")}
    assert links >= front | set(FOLDERS)


def test_modules_are_small() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for folder in (*FOLDERS.values(), ROOT / "src/affectlens")
        for p in folder.glob("*.py")
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_no_module_hides_a_function_of_the_package() -> None:
    """Importing `affectlens.x` sets the package's attribute x, whatever it meant before."""
    import affectlens

    modules = {path.stem for path in (ROOT / "src/affectlens").glob("*.py")}
    assert not modules & set(affectlens.__all__)
