"""List what a built site would load from elsewhere.

    python docs/_scripts/outside_requests.py build/docs

Links that a reader may click are allowed; scripts, styles, fonts, pictures and frames are not.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_LOADED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src",
    "embed": "src", "object": "data", "image": "href", "use": "href",
}  # fmt: skip
_LOADING_RELS = {"stylesheet", "preload", "prefetch", "preconnect", "dns-prefetch", "icon", "font"}
_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
_OUTSIDE = re.compile(r"\s*(?:[a-z][a-z+.-]*:)?//", re.IGNORECASE)


class _Page(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = {name: value or "" for name, value in attrs}
        loaded = [values.get(_LOADED.get(tag, ""), ""), *values.get("srcset", "").split(",")]
        if tag == "link" and _LOADING_RELS & set(values.get("rel", "").lower().split()):
            loaded.append(values.get("href", ""))
        loaded += _CSS.findall(values.get("style", ""))
        self.found += [f"<{tag}> {address}" for address in loaded if _OUTSIDE.match(address)]


def outside_requests(folder: Path) -> list[str]:
    """One line for each address of another machine that a page or style sheet would load."""
    out = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".html", ".css", ".svg")):
        text = path.read_text(encoding="utf-8")
        found = _CSS.findall(text)
        if path.suffix != ".css":
            page = _Page()
            page.feed(text)
            found += page.found
        out += [f"{path.relative_to(folder)}: {address}" for address in found]
    return out


if __name__ == "__main__":
    lines = outside_requests(Path(sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in lines) or "nothing is loaded from elsewhere\n")
    sys.exit(1 if lines else 0)
