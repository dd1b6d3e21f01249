"""The tutorials: what runs them, what they say, and that they still run."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import affectlens as al

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
NAMES = ("first-search", "public-sae", "own-battery")

PAGE = """# Title

Words before.

```python
x = 2
print("two is", x, 2.0)
```

```text
two is 2 2.0
```

Words between, and code that is only shown:

```python norun
boom(
```

```console
$ echo "one"
$ echo two \\
  three
```

```text
one
two three
```

```python raises
raise ValueError("not so")
```

```text
ValueError: not so
```

The end.
"""


def module(name: str) -> ModuleType:
    """A script as a module; scripts import each other by bare name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    return module("tutorial_pages")


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    return module("tutorials")


@pytest.fixture
def run(runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the text of a page in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(text: str):
        page = tmp_path / "page.md"
        page.write_text(text, encoding="utf-8")
        return runner.run_page(page, tmp_path, figures=tmp_path)

    return call


def test_a_page_runs_and_says_what_it_said(run, pages):
    ran = run(PAGE)
    assert ran.differences == []
    assert pages.write_page(ran.cells) == PAGE


def test_outputs_are_written_where_there_are_none(run, pages):
    bare = PAGE
    for said in ("two is 2 2.0", "one\ntwo three", "ValueError: not so"):
        bare = bare.replace(f"\n```text\n{said}\n```\n", "")
    assert "text" not in bare
    assert pages.write_page(run(bare).cells) == PAGE


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("two is 2 2.0\n", "two is 3 2.0\n", "'3', this run '2'"),
        ("two is 2 2.0\n", "two is 2 2.3\n", "'2.3', this run '2.0'"),
        ("two is 2 2.0\n", "two was 2 2.0\n", "'was', this run 'is'"),
        ("two is 2 2.0\n", "two is 2 2.0 more\n", "has 5 words and numbers, this run 4"),
        ("two three\n", "two four\n", "page.md:20: the page says 'four'"),
        ("\n```text\none\ntwo three\n```\n", "", "has 0 words"),
    ],
)
def test_a_difference_is_told_with_its_place(run, old, new, told):
    assert old in PAGE
    (difference,) = run(PAGE.replace(old, new)).differences
    assert told in difference


def test_small_differences_pass(run):
    assert run(PAGE.replace("2 2.0", "2   2.01")).differences == []


def test_what_varies_is_not_compared_but_has_to_be_there(run):
    varies = PAGE.replace("```python\nx = 2", "```python varies\nx = 2")
    assert run(varies.replace("two is 2 2.0", "three")).differences == []
    gone = run(varies.replace("\n```text\ntwo is 2 2.0\n```\n", "")).differences
    assert gone == ["page.md:5: an output came or went"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x = 2", "x = 2 / 0", "page.md:5: ZeroDivisionError"),
        ('"two is"', '"two', "SyntaxError"),
        ('raise ValueError("not so")', "pass", "should have ended with an error"),
        ('echo "one"', "ls nowhere", "'ls nowhere' ended with 2"),
        ("python norun", "python nrun", "unknown nrun"),
        ("The end.", "```python\nx", "never closed"),
    ],
)
def test_what_does_not_run_is_an_error(run, runner, old, new, message):
    with pytest.raises(runner.TutorialError, match=message):
        run(PAGE.replace(old, new))


def test_figures_become_images_and_keep_their_words(run, pages, tmp_path):
    draws = "```python\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nax = plt.gca()\n```\n"
    first = run(draws)
    text = pages.write_page(first.cells)
    assert text.endswith("```\n\n![Figure](page-1.png)\n")
    assert (tmp_path / "page-1.png").read_bytes().startswith(b"\x89PNG")
    again = run(text.replace("![Figure]", "![A line]"))
    assert again.differences == []
    assert "![A line](page-1.png)" in pages.write_page(again.cells)
    assert "figures" in first.differences[0]


def test_values_are_shown_as_at_a_prompt(runner):
    code = "import pandas as pd\npd.DataFrame({'a': [1, 2]})"
    assert runner.run_python(code, {}, "here").split() == ["a", "1", "2"]
    assert runner.run_python("'word'", {}, "here") == "word\n"
    assert runner.run_python("None", {}, "here") == ""


def test_times_folders_and_colours_are_masked(pages, tmp_path):
    text = f"\x1b[31mdone\x1b[0m in 3.2 s: {tmp_path}/a  \n```"
    assert pages.masked(text, tmp_path) == "done in … s: /home/you/tutorials/a\n'''"


@settings(deadline=None)
@given(st.lists(st.sampled_from([*PAGE.split("\n"), "```text", "![a](b.png)"]), max_size=30))
def test_reading_and_writing_a_page_keeps_its_words(lines):
    pages = module("tutorial_pages")
    text = "\n".join(lines)
    try:
        cells = pages.read_page(text)
    except pages.TutorialError:
        return
    written = pages.write_page(cells)
    assert written.split() == text.split()
    assert pages.write_page(pages.read_page(written)) == written


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_tolerance_is_what_is_stated(x, y):
    pages = module("tutorial_pages")
    within = abs(x - y) <= max(pages.ATOL, pages.RTOL * max(abs(x), abs(y)))
    assert (pages.difference(f"p = {x!r}", f"p = {y!r}") == "") is within


# What the committed pages say.


@pytest.mark.parametrize("name", NAMES)
def test_every_page_was_run(pages, runner, name):
    cells = pages.read_page((runner.PAGES / f"{name}.md").read_text(encoding="utf-8"))
    asked = [c for c in cells if c.runs and ("print(" in c.source or c.language == "console")]
    assert len(asked) >= 4
    for cell in asked:
        assert cell.output or cell.images, f"{name}.md:{cell.line} has no output"
    for cell in cells:
        for alt, file in cell.images:
            assert (runner.PAGES / file).is_file()
            assert alt != "Figure", f"{file} needs words that say what it shows"


@pytest.mark.parametrize("name", NAMES)
def test_pages_use_public_names_only(pages, runner, name):
    cells = pages.read_page((runner.PAGES / f"{name}.md").read_text(encoding="utf-8"))
    used = set()
    for cell in cells:
        if cell.language != "python":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("affectlens")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used |= {node.attr} if node.value.id == "al" else set()
    assert used
    assert used <= set(al.__all__)


def test_all_pages_are_listed(runner):
    assert runner.ORDER == NAMES
    assert {p.stem for p in runner.PAGES.glob("*.md")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pages_become_notebooks(name, runner, tmp_path):
    export = module("tutorial_notebooks").export
    made = nbformat.read(export(runner.PAGES / f"{name}.md", tmp_path), as_version=4)
    nbformat.validate(made)
    assert made.cells[0].cell_type == "markdown"
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert any("import affectlens as al" in source for source in code)
    assert not any(source.startswith("$") for source in code)
    first = (tmp_path / f"{name}.ipynb").read_bytes()
    export(runner.PAGES / f"{name}.md", tmp_path)
    assert (tmp_path / f"{name}.ipynb").read_bytes() == first


# The pages themselves, on tiny random models.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One working folder, as the tutorials share it."""
    return tmp_path_factory.mktemp("tutorials")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_runs_on_a_tiny_model(name, folder):
    page = f"docs/tutorials/{name}.md"
    done = subprocess.run(
        [sys.executable, "scripts/tutorials.py", "--quick", "--folder", str(folder), page],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}.md: " in done.stdout
