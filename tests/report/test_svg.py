"""Smaller pictures are the same pictures."""

import io
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from affectlens.report.svg import adaptive, smaller
from affectlens.report.theme import _style

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


def _raw(*, image: bool = False) -> bytes:
    with _style():
        figure = Figure(figsize=(4, 3))
        FigureCanvasAgg(figure)
        for axes in figure.subplots(1, 2).flat:
            axes.plot([0, 1, 2], [0.5, 0.25, 0.125], "o-", color="#0b5cad")
            axes.set_title("the same words")
            if image:
                axes.imshow(np.eye(2))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@pytest.fixture(scope="module")
def raw() -> bytes:
    return _raw()


def _drawn(svg: bytes) -> dict[str, int]:
    """How often each shape is drawn, with references followed."""
    root = ET.fromstring(svg)
    parents = {child: parent for parent in root.iter() for child in parent}
    by_id = {node.get("id"): node for node in root.iter() if node.get("id")}

    def in_defs(node: ET.Element) -> bool:
        while node in parents:
            node = parents[node]
            if node.tag == f"{SVG}defs":
                return True
        return False

    def count(node: ET.Element) -> int:
        if node.tag == f"{SVG}use":
            target = by_id[node.get(LINK, "").removeprefix("#")]
            return sum(map(count, target)) if target.tag == f"{SVG}g" else 1
        return 0 if node.tag == f"{SVG}defs" else sum(map(count, node))

    paths = [n for n in root.iter(f"{SVG}path") if not in_defs(n)]
    return {"uses": count(root), "paths": len(paths)}


def test_the_same_shapes_in_fewer_bytes(raw: bytes) -> None:
    small = smaller(raw)
    assert len(small) < 0.6 * len(raw)
    assert _drawn(small) == _drawn(raw)


def test_every_reference_has_its_target(raw: bytes) -> None:
    root = ET.fromstring(smaller(raw))
    ids = {node.get("id") for node in root.iter()}
    assert all(n.get(LINK, "").removeprefix("#") in ids for n in root.iter(f"{SVG}use"))
    clips = {n.get("clip-path") for n in root.iter() if n.get("clip-path")}
    assert clips and all(clip.removeprefix("url(#").removesuffix(")") in ids for clip in clips)


def test_text_that_stands_twice_is_drawn_once(raw: bytes) -> None:
    assert smaller(raw).count(b'<use xlink:href="#t') >= 1


def test_colours_follow_the_theme(raw: bytes) -> None:
    small = smaller(raw)
    both = adaptive(small, {"#0b5cad": "#6fb3ff", "#ffffff": "#171c24"})
    light, dark = both.split(b"@media (prefers-color-scheme: dark)")
    assert b"#0b5cad" in light and b"#6fb3ff" in dark.split(b"</style>")[0]
    assert b"#0b5cad" not in dark
    assert _drawn(both) == _drawn(small)


def test_pixels_are_made_lighter() -> None:
    both = adaptive(smaller(_raw(image=True)), {"#0b5cad": "#6fb3ff"})
    light, dark = both.split(b"@media (prefers-color-scheme: dark)")
    assert b"filter" not in light
    assert b"image{filter:brightness(" in dark.split(b"</style>")[0]


def test_settings_of_the_library_are_left_alone(raw: bytes) -> None:
    before = dict(mpl.rcParams)
    smaller(raw)
    assert dict(mpl.rcParams) == before
