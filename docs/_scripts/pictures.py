"""Draw the pictures of the concepts pages: python docs/_scripts/pictures.py

Each is written twice to docs/_static/pictures/, for a light and for a dark page. Numbers in them
are those of docs/batteries.md and docs/results.md, which are named beside each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from svg import DARK, LIGHT, Sheet, write

DOCS = Path(__file__).parents[1]
FOLDER = DOCS / "_static" / "pictures"
Palette = dict[str, str]


def stages(p: Palette) -> Sheet:
    """The way from texts to a report."""
    s = Sheet(460, 392, "From texts to a report in six steps", p)
    steps = [
        ("Texts", "ordinary prose the model reads"),
        ("Activations", "the numbers inside one layer, token by token"),
        ("SAE", "learns to write them as a few features each"),
        ("Search", "which features tell emotional texts from neutral twins?"),
        ("Effects", "switch them off, turn them up: what changes?"),
        ("Report", "one page: findings, controls, doubts"),
    ]
    for i, (name, what) in enumerate(steps):
        y = 8 + 64 * i
        s.rect(8, y, 444, 48, "card", edge="edge")
        s.text(20, y + 20, name, size=15, bold=True, colour="blue")
        s.text(20, y + 39, what, size=13.5, colour="ink")
        if i:
            s.arrow((40, y - 16), (40, y - 1))
    return s


def sae(p: Palette) -> Sheet:
    """What an SAE does to the numbers of one token."""
    s = Sheet(460, 430, "An SAE writes a dense vector as a few active features", p)
    s.text(12, 22, "One token inside the model: every number is used", bold=True)
    dense = (0.7, -0.4, 0.9, -0.8, 0.3, 0.6, -0.5, 0.8, -0.3, -0.7, 0.5, 0.4, -0.6, 0.9, -0.2, 0.6)
    _bars(s, dense, 78, "soft")
    s.arrow((230, 122), (230, 150))
    s.text(244, 141, "encode", size=13.5, colour="soft")
    s.text(12, 176, "The same token as features: nearly all are off", bold=True)
    lit = {7: ("blue", 1.0), 22: ("blue", 0.55), 29: ("blue", 0.8)}
    for i in range(40):
        x, y = 14 + 22 * (i % 20), 190 + 26 * (i // 20)
        colour, _ = lit.get(i, ("card", 0.0))
        s.rect(x, y, 17, 20, colour, edge="edge", r=3)
    s.text(12, 262, "32 of 4,608 on, in the embedded default", size=13.5, colour="soft")
    s.arrow((230, 272), (230, 300))
    s.text(244, 291, "decode", size=13.5, colour="soft")
    s.text(12, 326, "The vector again, nearly: what is missing is the error", bold=True)
    near = tuple(v * 0.9 + (0.08 if i % 3 else -0.07) for i, v in enumerate(dense))
    _bars(s, near, 380, "blue")
    return s


def _bars(s: Sheet, values: tuple[float, ...], zero: float, colour: str) -> None:
    s.line((12, zero), (448, zero), "line", wide=1)
    for i, value in enumerate(values):
        top = zero - 38 * max(value, 0)
        s.rect(20 + 27 * i, top, 18, 38 * abs(value), colour, r=2)


def pair(p: Palette) -> Sheet:
    """A matched pair of the isolexical battery (V-terror-d3-v1)."""
    s = Sheet(460, 326, "A matched pair: the same words, another order, another meaning", p)
    texts = [
        ("Emotional text (terror)", "orange", "four", "forty"),
        ("Neutral twin", "blue", "forty", "four"),
    ]
    for k, (name, colour, first, second) in enumerate(texts):
        y = 8 + 115 * k
        s.rect(8, y, 444, 101, f"{colour}_soft", edge=colour)
        s.text(22, y + 24, name, bold=True, colour=colour)
        words = (
            "Among the white columns of the flooded cave I turned my lamp on the gauge. There was "
            f"air in the bottle for {first} minutes. The way back out takes {second}."
        )
        s.paragraph(22, y + 47, words, chars=53)
    s.text(230, 262, "feature on the first   minus   feature on the second", anchor="middle")
    s.text(230, 284, "= one difference", anchor="middle", bold=True)
    s.text(230, 311, "The test asks whether such differences lean one way.", size=13.5,
           colour="soft", anchor="middle")  # fmt: skip
    return s


def keywords(p: Palette) -> Sheet:
    """How often words alone name the emotional text of a pair; numbers of docs/batteries.md."""
    s = Sheet(460, 262, "How often a bag of words picks the emotional text of a pair", p)
    s.text(12, 22, "A word counter guesses which twin is emotional", bold=True)
    row = re.search(r"\| TF-IDF words, paired accuracy \|(.*)\|", _page("batteries.md"))
    if row is None:
        raise ValueError("docs/batteries.md has no row of TF-IDF words")
    values = [float(v) for v in row[1].split("|")[:4]]
    names = ["published pairs", "vignettes", "balanced", "isolexical"]
    left, wide = 138, 262
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 44 + 42 * i
        s.text(12, y + 19, name)
        s.rect(left, y, wide * value, 28, "orange" if value > 0.6 else "blue", r=3)
        s.text(left + wide * value + 8, y + 19, f"{100 * value:.0f} %", bold=True)
    half = left + wide / 2
    s.line((half, 36), (half, 214), "ink", dashed=True)
    s.text(half, 232, "coin", size=13.5, anchor="middle")
    s.text(12, 254, "share of pairs guessed rightly, clusters left out", size=13.5, colour="soft")
    return s


def clusters(p: Palette) -> Sheet:
    """Discovery and confirmation on the default battery."""
    s = Sheet(460, 372, "48 clusters of texts: two thirds choose features, one third tests them", p)
    s.text(12, 22, "Each square is a cluster: 4 pairs that share a setting", bold=True)
    names = (
        "rage",
        "grief",
        "terror",
        "ecstasy",
        "loathing",
        "amazement",
        "admiration",
        "vigilance",
    )
    held = {0: (1, 4), 1: (0, 3), 2: (2, 5), 3: (1, 3), 4: (0, 5), 5: (2, 4), 6: (1, 5), 7: (0, 2)}
    for r, name in enumerate(names):
        y = 40 + 33 * r
        s.text(12, y + 18, name)
        for c in range(6):
            colour = "orange" if c in held[r] else "blue_soft"
            s.rect(116 + 54 * c, y, 44, 25, colour, edge="edge")
    s.rect(12, 314, 18, 16, "blue_soft", edge="edge")
    s.text(38, 327, "discovery: chooses the features (4 of each emotion)", size=13.5)
    s.rect(12, 340, 18, 16, "orange", edge="edge")
    s.text(38, 353, "confirmation: tests what was chosen, once (2 of each)", size=13.5)
    return s


def edit(p: Palette) -> Sheet:
    """An edit changes one feature and keeps the error."""
    s = Sheet(460, 318, "An edit changes one feature and leaves everything else", p)
    boxes = [
        (8, "card", "What the model had", "features + error"),
        (
            84,
            "blue_soft",
            "Set one feature: off, or to a fixed value",
            "only this difference is added",
        ),
        (160, "card", "What the model goes on with", "edited features + the same error"),
    ]
    for y, fill, name, what in boxes:
        s.rect(8, y, 444, 56, fill, edge="edge")
        s.text(22, y + 23, name, bold=True)
        s.text(22, y + 44, what, size=13.5, colour="soft")
    s.arrow((230, 64), (230, 83))
    s.arrow((230, 140), (230, 159))
    s.text(12, 246, "Then compare, on the same texts, with:", bold=True)
    for i, name in enumerate(
        (
            "random features of like firing and size",
            "directions found without an SAE",
            "a plain instruction",
        )
    ):
        s.dot(20, 265 + 20 * i, 3, "orange")
        s.text(32, 270 + 20 * i, name, size=13.5)
    return s


def effects(p: Palette) -> Sheet:
    """Clamping the best five latents against controls; the table of docs/results.md."""
    s = Sheet(460, 430, "Effect of clamping chosen features against random sets and a direction", p)
    s.text(12, 20, "Change of the emotion readout (nats), 10 neutral texts", bold=True)
    rows = _effect_rows()
    left, wide, low, high = 128, 316, -4.2, 5.8

    def x(value: float) -> float:
        return left + wide * (value - low) / (high - low)

    for tick in (-4, -2, 0, 2, 4):
        s.line((x(tick), 34), (x(tick), 348), "edge", wide=1)
        s.text(x(tick), 366, f"{tick:+d}" if tick else "0", size=13, anchor="middle", colour="soft")
    s.line((x(0), 34), (x(0), 348), "ink")
    for i, (name, chosen, lowest, highest, direction, beats) in enumerate(rows):
        y = 52 + 35 * i
        s.text(12, y + 5, name, bold=beats)
        s.line((x(lowest), y), (x(highest), y), "line", wide=9)
        s.rect(x(direction) - 5, y - 5, 10, 10, "mark", edge="orange", r=0)
        s.dot(x(chosen), y, 6.5, "blue")
    s.dot(20, 386, 6, "blue")
    s.text(32, 391, "five chosen features", size=13.5)
    s.rect(206, 382, 10, 10, "mark", edge="orange", r=0)
    s.text(224, 391, "difference of means, no SAE", size=13.5)
    s.line((12, 410), (28, 410), "line", wide=9)
    s.text(32, 415, "range of 7 random sets. Bold: beats random", size=13.5)
    return s


def _page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def _effect_rows() -> list[tuple[str, float, float, float, float, bool]]:
    """Name, chosen, lowest and highest random set, difference of means, beats random."""
    section = _page("results.md").partition("## Clamping")[2]
    number = r"([+-]\d+\.\d+)"
    found = re.findall(
        rf"\| (\w+) \| {number} \| {number} \({number} to {number}\) \| {number} "
        r"\| \S+ \| (\w+) \|",
        section,
    )
    if len(found) < 2:
        raise ValueError("docs/results.md has no table of clamped latents")
    return [
        (name, float(chosen), float(low), float(high), float(direction), beats == "yes")
        for name, chosen, _, low, high, direction, beats in found
    ]


DRAWINGS: dict[str, Callable[[Palette], Sheet]] = {
    "stages": stages,
    "sae": sae,
    "pair": pair,
    "keywords": keywords,
    "clusters": clusters,
    "edit": edit,
    "effects": effects,
}


def main(folder: Path = FOLDER) -> None:
    """Write every drawing in both palettes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        write(draw(LIGHT), folder, name)
        write(draw(DARK), folder, f"{name}-dark")


if __name__ == "__main__":
    main()
