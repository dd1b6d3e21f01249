"""Makes matplotlib's SVG a good deal smaller without changing the picture.

A page holds every figure several times, so each byte counts. Text that stands several times in a
figure (labels of repeated axes) is drawn once and referred to, equal style attributes become
classes, and names and coordinates get shorter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

_RUN = re.compile(rb"(?:<defs>.*?</defs>)?(?:<use xlink:href=\"#g[^>]*/>)+")
_GLYPH = re.compile(rb"<defs>.*?</defs>", re.DOTALL)
_STYLE = re.compile(rb' style="([^"]*)"')
_NAME = re.compile(rb'id="([mpCD][0-9a-f_]{6,})"')
_FEWEST = 3
"""Uses from which on a style becomes a class."""


def smaller(svg: bytes) -> bytes:
    """The same picture in fewer bytes; transforms (glyph scales) stay exact.

    Names of groups, which nothing refers to, go.
    """
    svg = re.sub(rb"<!--.*?-->\s*", b"", svg, flags=re.DOTALL)
    svg = re.sub(rb">\s+<", b"><", svg.replace(b"DejaVuSans-", b"g"))
    svg = re.sub(rb'<g id="[^"]*"', b"<g", svg)
    svg = re.sub(
        rb'(<use xlink:href="#g[^"]*") transform="translate\(([-\d]+)[.\d]* 0\)"',
        rb'\1 x="\2"',
        svg,
    )  # a letter's place, in units of 1/100 of its size
    svg = re.sub(rb'\b(?:d|x|y)="[^"]*"', _rounded, svg)
    return _classes(_names(_texts(_groups(svg))))


def _rounded(attribute: re.Match[bytes]) -> bytes:
    """Coordinates to 1/100 point, without spaces around the letters of a path."""
    value = re.sub(rb"\s+", b" ", re.sub(rb"(\.\d\d)\d+", rb"\1", attribute[0]))
    return re.sub(rb" ?([MLCQzHV]) ?", rb"\1", value)


def _groups(svg: bytes) -> bytes:
    """Groups without attributes, and empty ones, do nothing."""
    kept: list[bool] = []

    def replaced(match: re.Match[bytes]) -> bytes:
        tag = match[0]
        if tag == b"<g/>":
            return b""
        if tag == b"</g>":
            return tag if kept.pop() else b""
        kept.append(tag != b"<g>")
        return tag if kept[-1] else b""

    return re.sub(rb"</?g\b[^>]*>", replaced, svg)


def _texts(svg: bytes) -> bytes:
    """Every text of two or more letters is drawn once; where it stands again it is referred to."""
    runs = Counter(_GLYPH.sub(b"", m[0]) for m in _RUN.finditer(svg))
    known: dict[bytes, bytes] = {}

    def replaced(match: re.Match[bytes]) -> bytes:
        run = _GLYPH.sub(b"", match[0])
        if runs[run] < 2 or len(run) < 60:
            return match[0]
        if run in known:
            # A glyph that is defined here is defined for the first time, so the run is new.
            return b'<use xlink:href="#%s"/>' % known[run]
        known[run] = b"t%d" % len(known)
        return b'<g id="%s">%s</g>' % (known[run], match[0])

    return _RUN.sub(replaced, svg)


def _names(svg: bytes) -> bytes:
    """Hashes that name markers and clips become numbers."""
    short = {name: b"n%d" % i for i, name in enumerate(dict.fromkeys(_NAME.findall(svg)))}
    pattern = re.compile(rb"(?<=[\"#])(?:%s)(?=[\")])" % b"|".join(short)) if short else None
    return pattern.sub(lambda m: short[m[0]], svg) if pattern else svg


def _classes(svg: bytes) -> bytes:
    """Style attributes that stand often become classes."""
    counts = Counter(_STYLE.findall(svg))
    names = {s: b"s%d" % i for i, (s, n) in enumerate(counts.most_common()) if n >= _FEWEST}
    if not names:
        return svg
    rules = b"".join(b".%s{%s}" % (name, style) for style, name in names.items())

    def replaced(match: re.Match[bytes]) -> bytes:
        return b' class="%s"' % names[match[1]] if match[1] in names else match[0]

    return _STYLE.sub(replaced, svg).replace(b"</style>", rules + b"</style>", 1)


def adaptive(svg: bytes, colours: Mapping[str, str]) -> bytes:
    """The same picture, which follows the reader's wish for a dark page.

    Pixels (clouds of many dots) keep their colours and are made lighter.

    Args:
        svg: what `smaller` returned.
        colours: colour of the light theme, '#rrggbb', to that of the dark one.
    """
    known = {light.encode(): dark.encode() for light, dark in colours.items()}
    pattern = re.compile(b"|".join(map(re.escape, known)))
    named: dict[bytes, bytes] = {}

    def replaced(match: re.Match[bytes]) -> bytes:
        if not pattern.search(match[1]):
            return match[0]
        return b' class="%s"' % named.setdefault(match[1], b"d%d" % len(named))

    svg = _STYLE.sub(replaced, svg)
    rules = b"".join(b".%s{%s}" % (name, style) for style, name in named.items())
    svg = svg.replace(b"</style>", rules + b"</style>", 1)
    head = svg[: svg.index(b"</style>")]
    dark = b"".join(
        pattern.sub(lambda m: known[m[0]], rule)
        for rule in re.findall(rb"\.[sd]\d+\{[^}]*\}", head)
        if pattern.search(rule)
    )
    dark += b"image{filter:brightness(1.4)}" * (b"<image" in svg)
    return svg.replace(
        b"</style>", b"@media (prefers-color-scheme: dark){" + dark + b"}</style>", 1
    )
