"""Run the tutorials and write what they print back into their pages, or check that it still holds.

    python scripts/tutorials.py                         # run all, write outputs and figures
    python scripts/tutorials.py --check                 # run all, compare with the pages
    python scripts/tutorials.py --quick PAGE            # on a tiny random model, compare nothing
    python scripts/tutorials.py --notebooks build/      # the pages as .ipynb, nothing is run

What a page is stands in `tutorial_pages`. The cells of a page run in order, in one namespace and in
a process of their own; the working folder is shared by all pages of a call (the third tutorial
opens the SAE that the first one trains). `--check` wants the same words, and numbers within the
tolerances of `tutorial_pages`; seconds and the working folder are masked. `--quick` replaces parts
of the code by what `docs/tutorials/quick.yaml` says, so that a page runs on a tiny model.
"""

import argparse
import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutorial_pages import Cell, TutorialError, difference, masked, read_page, write_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "tutorials"
ORDER = ("first-search", "public-sae", "own-battery")


def run_python(code: str, names: dict[str, Any], where: str) -> str:
    """Run a fence and return what it prints, the value of a last expression included."""
    tree = ast.parse(code, where)
    shown = tree.body[-1:] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
    plain = ast.Module(tree.body[: len(tree.body) - len(shown)], [])
    out, hook = io.StringIO(), sys.displayhook
    sys.displayhook = _show
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(plain, where, "exec"), names)
            exec(compile(ast.Interactive(shown), where, "single"), names)
    finally:
        sys.displayhook = hook
    return out.getvalue()


def _show(value: object) -> None:
    import matplotlib.artist
    import pandas as pd

    drawn = isinstance(value, matplotlib.artist.Artist)
    if value is None or drawn:
        return
    if isinstance(value, pd.Series):
        value = value.to_frame()
    if isinstance(value, pd.DataFrame):
        value = value.to_string(index=value.index.name is not None or not _counted(value))
    print(value)


def _counted(frame: Any) -> bool:
    """Whether a table's index only counts its rows."""
    return all(isinstance(label, int) for label in frame.index)


def run_console(code: str, folder: Path) -> str:
    """Run each line behind a `$` by bash; lines that end in a backslash go on."""
    printed = []
    for command in _commands(code):
        # The commands of this checkout's environment come first, as in an activated one.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise TutorialError(f"{command!r} ended with {done.returncode}:\n{done.stdout}"
                                f"{done.stderr}")  # fmt: skip
        printed.append(done.stdout)
    return "".join(printed)


def _commands(code: str) -> Iterator[str]:
    for command in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        yield command.strip()


def run_cell(cell: Cell, names: dict[str, Any], folder: Path, where: str) -> str | None:
    """Run one cell in `folder`; what it prints, or None for nothing."""
    error = ""
    try:
        if cell.language == "console":
            printed = run_console(cell.source, folder)
        else:
            printed = run_python(cell.source, names, where)
    except Exception as failure:
        if "raises" not in cell.flags:
            raise TutorialError(f"{where}: {type(failure).__name__}: {failure}") from failure
        printed, error = "", f"{type(failure).__name__}: {failure}"
    if "raises" in cell.flags and not error:
        raise TutorialError(f"{where}: should have ended with an error and did not")
    return masked(printed + error, folder) or None


def save_figures(stem: str, target: Path, cell: Cell, n_before: int) -> tuple[tuple[str, str], ...]:
    """Save the open figures as PNG beside the page; the alt text is the title, or stays."""
    import matplotlib.pyplot as plt

    images = []
    for i, number in enumerate(plt.get_fignums()):
        name = f"{stem}-{n_before + i + 1}.png"
        figure = plt.figure(number)
        figure.savefig(target / name, dpi=120, bbox_inches="tight", metadata={"Software": None})
        kept = cell.images[i][0] if i < len(cell.images) else "Figure"
        alt = next((a.get_title() for a in figure.axes if a.get_title()), kept)
        images.append((alt, name))
    plt.close("all")
    return tuple(images)


@dataclass
class PageRun:
    """A page after a run: its cells with new outputs, and where they differ from the old ones."""

    cells: list[Cell] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def run_page(
    page: Path, folder: Path, *, figures: Path, edit: Callable[[str], str] = lambda code: code
) -> PageRun:
    """Run a page in `folder`; figures go to `figures`; `edit` may change the code that is run."""
    result, names = PageRun(), {"__name__": "__main__"}
    n_images = 0
    for cell in read_page(page.read_text(encoding="utf-8")):
        if not cell.runs:
            result.cells.append(cell)
            continue
        where = f"{page.name}:{cell.line}"
        done = replace(cell, source=edit(cell.source))
        output = run_cell(done, names, folder, where)
        images = save_figures(page.stem, figures, cell, n_images)
        n_images += len(images)
        result.cells.append(replace(cell, output=output, images=images))
        told = difference(cell.output, output)
        if "varies" in cell.flags:
            told = "" if (cell.output is None) == (output is None) else "an output came or went"
        if not told and len(images) != len(cell.images):
            told = f"the page has {len(cell.images)} figures here, this run {len(images)}"
        if told:
            result.differences.append(f"{where}: {told}")
    return result


def quick_edit(page: Path) -> Callable[[str], str]:
    """The replacements of `quick.yaml` for a page."""
    import yaml

    listed = yaml.safe_load((PAGES / "quick.yaml").read_text(encoding="utf-8"))
    pairs = listed.get(page.stem) or {}

    def edit(code: str) -> str:
        for old, new in pairs.items():
            code = code.replace(old, new)
        return code

    text = page.read_text(encoding="utf-8")
    lost = [old for old in pairs if old not in text]
    if lost:
        raise TutorialError(f"quick.yaml: {page.name} does not hold {', '.join(map(repr, lost))}")
    return edit


def run_here(page: Path, folder: Path, mode: str) -> int:
    """Run one page in this process."""
    os.environ |= {"MPLBACKEND": "Agg", "NO_COLOR": "1", "COLUMNS": "96", "TERM": "dumb"}
    if page.stem == "public-sae":
        from hub_stand_in import build

        build(folder / "hub")
    edit = quick_edit(page) if mode == "quick" else str
    before = Path.cwd()
    os.chdir(folder)
    try:
        ran = run_page(page, folder, figures=page.parent if mode == "write" else folder, edit=edit)
    finally:
        os.chdir(before)
    if mode == "write":
        page.write_text(write_page(ran.cells), encoding="utf-8")
    n_cells = sum(cell.runs for cell in ran.cells)
    differences = ran.differences if mode == "check" else []
    print(f"{page.name}: {n_cells} cells ran, {len(differences)} differ")
    print("".join(f"  {line}\n" for line in differences), end="")
    return 1 if differences else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, help="default: all, in order")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--check", action="store_true", help="compare, write nothing")
    modes.add_argument("--quick", action="store_true", help="tiny model, compare nothing")
    modes.add_argument("--notebooks", type=Path, metavar="DIR", help="write .ipynb files")
    parser.add_argument("--folder", type=Path, help="working folder; default: a temporary one")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    pages = [p.resolve() for p in args.pages] or [PAGES / f"{name}.md" for name in ORDER]
    if args.notebooks:
        from tutorial_notebooks import export

        for page in pages:
            print(export(page, args.notebooks))
        return 0
    mode = "check" if args.check else "quick" if args.quick else "write"
    if args.here:
        try:
            return run_here(pages[0], args.folder, mode)
        except TutorialError as error:
            print(error, file=sys.stderr)
            return 1
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        flag = [] if mode == "write" else [f"--{mode}"]
        command = [sys.executable, __file__, "--here", "--folder", str(folder), *flag]
        codes = [subprocess.run([*command, str(page)], check=False).returncode for page in pages]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
