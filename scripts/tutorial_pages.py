"""A tutorial page: prose, cells that are run, and the outputs below them.

A page is Markdown. Its ```python and ```console fences are cells. What a cell prints stands in the
```text fence right below it, a figure in an image line. Words behind the language change what is
done with a fence:

- `norun`: shown, never run;
- `varies`: run, but what it prints is not compared (which latents lead, and what is written under
  a clamp, differ between processors);
- `raises`: has to end with an error, whose message is its output.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

RTOL, ATOL = 0.02, 0.02
"""What a number with a decimal point may differ by; whole numbers have to be equal."""
WIDTH = 86
"""Longer lines of an output are broken; a comparison does not see where."""
FLAGS = frozenset({"norun", "varies", "raises"})
FOLDER = "/home/you/tutorials"
"""What stands for the working folder in an output."""

_FENCE = re.compile(r"```(?P<language>\w+)(?P<flags>[ \w]*)")
_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<file>[\w.-]+)\)")
_SECONDS = re.compile(r"\b\d+(\.\d+)? (s|seconds|min|minutes)\b")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NUMBER = re.compile(r"[-+−]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class TutorialError(Exception):
    """A page cannot be read, a fence failed, or an output is not what the page says."""


@dataclass(frozen=True)
class Cell:
    """A fence that is run, or the text between two of them.

    Attributes:
        source: prose as it is, or the code within the fence.
        line: line of the page on which it starts, from 1.
        language: "python", "console", or "" for prose (which holds fences that are not run).
        flags: the words behind the language.
        output: the text fence below it, without the fence; None if there is none.
        images: (alt text, file) of the image lines below it.
    """

    source: str
    line: int
    language: str = ""
    flags: frozenset[str] = frozenset()
    output: str | None = None
    images: tuple[tuple[str, str], ...] = ()

    @property
    def runs(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.language)


@dataclass
class _Reader:
    """The lines of a page, and how far they have been read."""

    lines: list[str]
    at: int = 0
    prose: list[str] = field(default_factory=list)

    def fence(self) -> tuple[str, frozenset[str], str] | None:
        """Read a fence if one starts here: language, flags, body."""
        found = _FENCE.fullmatch(self.lines[self.at]) if self.at < len(self.lines) else None
        if found is None:
            return None
        end = self.at + 1
        while end < len(self.lines) and self.lines[end] != "```":
            end += 1
        if end == len(self.lines):
            raise TutorialError(f"line {self.at + 1}: the fence is never closed")
        body = "\n".join(self.lines[self.at + 1 : end])
        self.at = end + 1
        return found["language"], frozenset(found["flags"].split()), body

    def after_blanks(self) -> int:
        """The next line that is not empty."""
        at = self.at
        while at < len(self.lines) and not self.lines[at].strip():
            at += 1
        return at


def read_page(text: str) -> list[Cell]:
    """Cut a page into prose and cells.

    Raises:
        TutorialError: a fence that is not closed, or has words behind its language that mean
            nothing.
    """
    reader, cells, start = _Reader(text.split("\n")), [], 1
    while reader.at < len(reader.lines):
        first = reader.at
        fence = reader.fence()
        if fence is None:
            reader.prose.append(reader.lines[reader.at])
            reader.at += 1
            continue
        language, flags, body = fence
        if language not in ("python", "console") or "norun" in flags:
            reader.prose += reader.lines[first : reader.at]
            continue
        if flags - FLAGS:
            raise TutorialError(f"line {first + 1}: unknown {', '.join(sorted(flags - FLAGS))}; "
                                f"known: {', '.join(sorted(FLAGS))}")  # fmt: skip
        if reader.prose:
            cells.append(Cell("\n".join(reader.prose), start))
            reader.prose = []
        output, images = _output_below(reader)
        cells.append(Cell(body, first + 1, language, flags, output, images))
        start = reader.at + 1
    if reader.prose:
        cells.append(Cell("\n".join(reader.prose), start))
    return cells


def _output_below(reader: _Reader) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """Take the text fence and the image lines right below a cell."""
    output, images = None, []
    ahead = reader.after_blanks()
    if ahead < len(reader.lines) and reader.lines[ahead] == "```text":
        reader.at = ahead
        _, _, output = reader.fence() or ("", frozenset(), "")
        ahead = reader.after_blanks()
    while ahead < len(reader.lines) and (found := _IMAGE.fullmatch(reader.lines[ahead])):
        images.append((found["alt"], found["file"]))
        reader.at = ahead + 1
        ahead = reader.after_blanks()
    return output, tuple(images)


def write_page(cells: Sequence[Cell]) -> str:
    """The text of a page; `read_page` gives its cells back."""
    parts = []
    for cell in cells:
        if not cell.runs:
            parts.append(cell.source)
            continue
        flags = "".join(f" {flag}" for flag in sorted(cell.flags))
        lines = [f"```{cell.language}{flags}", cell.source, "```"]
        if cell.output is not None:
            lines += ["", "```text", cell.output, "```"]
        for alt, file in cell.images:
            lines += ["", f"![{alt}]({file})"]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def masked(text: str, folder: Path) -> str:
    """An output without colours, seconds and the working folder, long lines broken at blanks."""
    text = _ANSI.sub("", text).replace(str(folder), FOLDER).replace("```", "'''")
    text = _SECONDS.sub(r"… \2", text)
    lines = (part for line in text.split("\n") for part in _broken(line.rstrip()))
    return "\n".join(lines).strip("\n")


def _broken(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, break_long_words=False) if len(line) > WIDTH else [line]


def difference(expected: str | None, got: str | None) -> str:
    """What differs between two outputs beyond the tolerance; empty if nothing does."""
    old, new = (text or "" for text in (expected, got))
    for a, b in zip(_pieces(old), _pieces(new), strict=False):
        if not _same(a, b):
            return f"the page says {a!r}, this run {b!r}"
    if len(_pieces(old)) != len(_pieces(new)):
        return f"the page has {len(_pieces(old))} words and numbers, this run {len(_pieces(new))}"
    return ""


def _pieces(text: str) -> list[str]:
    """Numbers, and the words between them; table widths follow the numbers and do not count."""
    words = re.sub(r"[-─=]{3,}", " ", text).split()
    return [p for word in words for p in re.split(f"({_NUMBER.pattern})", word) if p]


def _same(a: str, b: str) -> bool:
    if a == b:
        return True
    if not (_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)):
        return False
    if not any(mark in a + b for mark in ".eE"):
        return False
    x, y = (float(number.replace("−", "-")) for number in (a, b))
    return abs(x - y) <= max(ATOL, RTOL * max(abs(x), abs(y)))
