"""A tutorial page as a notebook: prose and cells, without outputs."""

import re
from pathlib import Path

import nbformat
from nbformat import v4
from tutorial_pages import Cell, read_page

_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)[\w./-]+\.md(?:#[\w-]+)?\)")


def export(page: Path, folder: Path) -> Path:
    """Write a page as `folder/<name>.ipynb` and return that path.

    Links to other pages become their names, since they lead nowhere beside a notebook. Commands
    become lines that a notebook hands to a shell. Nothing is run.
    """
    notebook = v4.new_notebook()
    for number, cell in enumerate(read_page(page.read_text(encoding="utf-8"))):
        made = _code(cell) if cell.runs else v4.new_markdown_cell(_prose(cell.source))
        made["id"] = f"cell-{number}"  # the default is random, so every export would differ
        if made["source"]:
            notebook.cells.append(made)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.validate(notebook)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{page.stem}.ipynb"
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return path


def _prose(text: str) -> str:
    return _LINK.sub(r"\1", text).strip("\n")


def _code(cell: Cell) -> nbformat.NotebookNode:
    source = cell.source
    if cell.language == "console":
        source = re.sub(r"^\$ ", "!", source, flags=re.MULTILINE)
    made = v4.new_code_cell(source)
    if "raises" in cell.flags:
        made["metadata"]["tags"] = ["raises-exception"]
    return made
