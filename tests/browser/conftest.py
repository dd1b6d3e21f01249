"""A page in headless Chromium that may speak to this machine only and must not complain.

Without Chromium the tests of this folder fail where CI is set, and are skipped with that reason
elsewhere. `AFFECTLENS_SCREENSHOTS` names a folder that keeps the screenshots.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_LOCAL = re.compile(r"^(file:|data:|blob:|about:|https?://127\.0\.0\.1(:\d+)?(/|$))")
_SIZE = (1280, 800)


def _refused(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"browser tests cannot run: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One headless Chromium for all tests of a process."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _refused("the Python package playwright is not installed")
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        _refused(f"none of {', '.join(_BROWSERS)} is installed")
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=found,
            # Chromium's own sandbox needs a user other than root; small /dev/shm in containers.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages by `open_page(url, **settings of a browser context)`.

    `expected` is a pattern of console errors that the test provokes. At its end the test fails if
    any other was written, a script raised, or anything outside this machine was asked for.
    """
    contexts: list[Any] = []
    complaints: list[str] = []
    allowed: list[str] = []

    def guard(route: Route) -> None:
        if _LOCAL.match(route.request.url):
            route.continue_()
            return
        complaints.append(f"request outside this machine: {route.request.url}")
        route.abort()

    def heard(kind: str, text: str) -> None:
        if not any(re.search(pattern, text) for pattern in allowed):
            complaints.append(f"{kind}: {text}")

    def open_(url: str, *, expected: str | None = None, **settings: Any) -> Page:
        allowed.extend([expected] if expected else [])
        settings.setdefault("viewport", {"width": _SIZE[0], "height": _SIZE[1]})
        context = chromium.new_context(**settings)
        contexts.append(context)
        context.route("**/*", guard)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda m: heard("console", m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: heard("script", str(error)))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def screenshot(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Keep a picture by `screenshot(page, name, **settings of page.screenshot)`; gives its path."""
    folder = Path(os.environ.get("AFFECTLENS_SCREENSHOTS") or tmp_path)

    def take(page: Page, name: str, **settings: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        page.screenshot(path=path, **settings)
        return path

    return take
