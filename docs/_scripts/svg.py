"""A sheet to draw on: shapes and wrapped text as SVG, in a light and a dark palette."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

LIGHT = {
    "ink": "#1c2733",
    "soft": "#56626e",
    "line": "#8a96a3",
    "card": "#f2f5f8",
    "edge": "#c3ccd5",
    "blue": "#0b6aa8",
    "blue_soft": "#cfe4f3",
    "orange": "#b45309",
    "orange_soft": "#f8dfc4",
    "mark": "#ffffff",
}
DARK = {
    "ink": "#e8edf2",
    "soft": "#a9b5c1",
    "line": "#7d8a97",
    "card": "#1d252d",
    "edge": "#45515d",
    "blue": "#6db9ee",
    "blue_soft": "#18405c",
    "orange": "#f2a65a",
    "orange_soft": "#5a3a17",
    "mark": "#11181e",
}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass
class Sheet:
    """One drawing in one palette; colours are named as in `LIGHT`.

    Attributes:
        width: of the drawing, in its own units; at most about 480, so that text of 14 units can
            still be read on a phone.
        height: of the drawing.
        title: read out by screen readers.
        palette: colour of each name.
    """

    width: int
    height: int
    title: str
    palette: dict[str, str]
    parts: list[str] = field(default_factory=list)

    def rect(
        self, x: float, y: float, w: float, h: float, fill: str, *, edge: str = "", r: float = 4
    ) -> None:
        """A rectangle with rounded corners."""
        stroke = f' stroke="{self.palette[edge]}" stroke-width="1.2"' if edge else ""
        colour = self.palette[fill] if fill else "none"
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{r:g}" '
            f'fill="{colour}"{stroke}/>'
        )

    def line(
        self, a: tuple[float, float], b: tuple[float, float], colour: str, *,
        wide: float = 1.5, dashed: bool = False,
    ) -> None:  # fmt: skip
        """A straight line."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<line x1="{a[0]:g}" y1="{a[1]:g}" x2="{b[0]:g}" y2="{b[1]:g}" '
            f'stroke="{self.palette[colour]}" stroke-width="{wide:g}"{dash}/>'
        )

    def arrow(self, a: tuple[float, float], b: tuple[float, float], colour: str = "line") -> None:
        """A line with a head at `b`."""
        self.line(a, b, colour, wide=2)
        dx, dy = b[0] - a[0], b[1] - a[1]
        n = (dx * dx + dy * dy) ** 0.5
        ux, uy = dx / n, dy / n
        left = (b[0] - 9 * ux - 5 * uy, b[1] - 9 * uy + 5 * ux)
        right = (b[0] - 9 * ux + 5 * uy, b[1] - 9 * uy - 5 * ux)
        points = " ".join(f"{p[0]:.1f},{p[1]:.1f}" for p in (b, left, right))
        self.parts.append(f'<polygon points="{points}" fill="{self.palette[colour]}"/>')

    def dot(self, x: float, y: float, r: float, fill: str, *, edge: str = "") -> None:
        """A disc."""
        stroke = f' stroke="{self.palette[edge]}" stroke-width="1.6"' if edge else ""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{self.palette[fill]}"{stroke}/>'
        )

    def text(
        self, x: float, y: float, words: str, *, size: float = 14, colour: str = "ink",
        anchor: str = "start", bold: bool = False,
    ) -> None:  # fmt: skip
        """One line of text; `anchor` is start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{self.palette[colour]}"{weight}>{escape(words)}</text>'
        )

    def paragraph(
        self, x: float, y: float, words: str, *, chars: int, size: float = 14,
        colour: str = "ink", step: float = 19,
    ) -> float:  # fmt: skip
        """Text wrapped at `chars` letters; gives back the y below it."""
        for row in textwrap.wrap(words, chars):
            self.text(x, y, row, size=size, colour=colour)
            y += step
        return y

    def svg(self) -> str:
        """The whole drawing."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img" font-family="{FONT}">',
                f"<title>{escape(self.title)}</title>",
                *self.parts,
                "</svg>",
                "",
            ]
        )


def write(sheet: Sheet, folder: Path, name: str) -> None:
    """Write a drawing to `folder/name.svg`."""
    (folder / f"{name}.svg").write_text(sheet.svg(), encoding="utf-8")
