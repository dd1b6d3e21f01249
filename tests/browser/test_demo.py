"""The demo in a browser: it steers, it shows hostile text as text, it is usable by keyboard."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from affectlens.demo.settings import DemoSettings

from ..demo.demo_world import HOSTILE, LOUD, endless, made_world, until
from ..demo.served import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., Any]
Shot = Callable[..., Path]


@pytest.fixture(scope="module")
def url(chromium: Any) -> Iterator[str]:
    world = endless(made_world())
    # Slow enough that a text can be stopped before it is done.
    world.lm.model.register_forward_pre_hook(lambda *_: time.sleep(0.01))
    with served(world, DemoSettings()) as (address, engine):
        until(lambda: engine.status.state == "ready", 60)
        yield address


@pytest.fixture(scope="module")
def bare(url: str) -> str:
    """The page with no feature chosen; without a query it begins with one."""
    return f"{url}?f="


def ready(page: Page) -> Page:
    page.locator("#generate:not([disabled])").wait_for()
    return page


def text_of(page: Page, side: str) -> str:
    return "".join(page.locator(f"#text-{side} .tok:not(.opening)").all_inner_texts())


def wait_done(page: Page) -> None:
    page.locator("#status", has_text="Done").wait_for()


def slide(page: Page, key: str) -> None:
    page.get_by_role("slider").first.focus()
    page.keyboard.press(key)


def test_one_click_on_a_page_just_opened_steers(open_page: Open, url: str) -> None:
    page = ready(open_page(url))
    assert page.locator("#chosen > *").count() == 1
    assert page.locator("#contrast").input_value() != "all"
    assert "?" not in page.url
    page.locator("#generate").click()
    wait_done(page)
    assert text_of(page, "default") != text_of(page, "steered")


def test_a_slider_steers_and_0_does_not(open_page: Open, bare: str, screenshot: Shot) -> None:
    page = ready(open_page(bare))
    page.locator(f"#by-input [data-feature='{LOUD}']").click()
    slide(page, "End")
    assert page.locator("#chosen output").inner_text() == "1.00"
    assert "often break" in page.locator("#chosen .unit").inner_text()
    page.locator("#tokens").fill("12")
    page.locator("#generate").click()
    wait_done(page)
    assert text_of(page, "default") != text_of(page, "steered")
    assert "100 % as long" in page.locator("#status").inner_text()
    screenshot(page, "demo-light", full_page=True)
    page.emulate_media(color_scheme="dark")
    screenshot(page, "demo-dark", full_page=True)
    page.locator("#chosen select").select_option("clamp")
    page.locator("#chosen select").select_option("add")
    for _ in range(6):
        slide(page, "ArrowLeft")
    assert page.locator("#chosen output").inner_text() == "0.00"
    page.locator("#generate").click()
    page.locator("#status", has_text="Nothing was edited").wait_for()
    assert text_of(page, "default") == text_of(page, "steered")


def test_hostile_tokens_are_shown_as_text(open_page: Open, bare: str, screenshot: Shot) -> None:
    page = ready(open_page(bare))
    page.locator(f"#by-input [data-feature='{LOUD}']").click()
    page.locator("#chosen details summary").click()
    about = page.locator("#chosen details").inner_text()
    for token in HOSTILE[:3]:
        assert token in about
    assert "⟨U+202E⟩gnitrever⟨U+202C⟩" in about
    assert "⟨U+001B⟩[31mred" in about
    assert "<b>of</b>" in about
    page.locator("#prompt").fill("".join(HOSTILE))
    page.locator("#tokens").fill("3")
    page.locator("#prompt").press("Enter")
    wait_done(page)
    opening = "".join(page.locator("#text-default .tok.opening").all_inner_texts())
    assert all(token in opening for token in HOSTILE[:3])
    assert "U+202E" in opening
    assert "U+001B" in opening
    assert page.locator("#text-default img, #chosen img, main script").count() == 0
    screenshot(page, "demo-hostile", full_page=True)


def test_everything_can_be_done_by_keyboard(open_page: Open, bare: str) -> None:
    page = ready(open_page(bare))
    page.locator("#search").focus()
    page.keyboard.type("17")
    page.keyboard.press("Enter")
    page.locator("#hits [data-feature='17']").wait_for()
    page.locator("#hits button").focus()
    page.keyboard.press("Space")
    assert page.locator("#hits button").get_attribute("aria-pressed") == "true"
    assert page.locator("#chosen strong").inner_text() == "Feature 17"
    page.locator("#tokens").fill("200")
    page.locator("#prompt").focus()
    page.keyboard.press("Enter")
    page.locator("#text-steered .tok:not(.opening)").first.wait_for()
    page.keyboard.press("Escape")
    page.locator("#status", has_text="Stopped").wait_for()
    written = page.locator("#text-default .tok").count()
    page.locator("#text-default").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "feature 17" in page.locator("#detail-default").inner_text()
    assert page.locator("#text-default .tok").count() == written
    page.get_by_role("button", name="Remove feature 17").press("Enter")
    assert page.locator("#chosen li").count() == 0


def test_a_link_sets_the_page_and_runs_nothing(open_page: Open, url: str) -> None:
    query = f"?prompt=Hello%20%3Cb%3E&f={LOUD}:clamp:1.5,5:add:-0.2&sae=abab&t=0&seed=9&n=7"
    page = ready(open_page(url + query))
    assert page.locator("#prompt").input_value() == "Hello <b>"
    assert page.locator("#chosen output").all_inner_texts() == ["1.50 × max", "−0.20"]
    values = [page.locator(f"#{name}").input_value() for name in ("temperature", "seed", "tokens")]
    assert values == ["0", "9", "7"]
    assert page.locator(".tok").count() == 0
    assert (
        "al.Clamp((3,), (3,)), al.AddLatents((5,), (-0.2,))" in page.locator("#code").text_content()
    )
    page.locator("#seed").fill("10")
    page.locator("#seed").press("Tab")
    assert "seed=10" in page.url


@pytest.mark.parametrize(
    ("query", "word"),
    [
        (f"?f={LOUD}:add:0.3&sae=ffff", "another SAE"),
        (f"?f={LOUD}:add:0.3", "another SAE"),
        ("?f=999:add:0.3&sae=abab", "999:add:0.3"),
        ("?f=3:eval:1,3:add:1e9,<img>:add:1&sae=abab", "3:eval:1"),
    ],
)
def test_a_link_that_does_not_fit_says_so(open_page: Open, url: str, query: str, word: str) -> None:
    page = ready(open_page(f"{url}{query}&t=99&seed=-4&n=x"))
    assert word in page.locator("#problem").inner_text()
    assert page.locator("#chosen li").count() == 0
    values = [page.locator(f"#{name}").input_value() for name in ("temperature", "seed", "tokens")]
    assert values == ["2", "0", "60"]


def test_a_refusal_is_shown_in_words(open_page: Open, bare: str) -> None:
    page = ready(open_page(bare, expected="status of 400"))
    page.locator("#prompt").fill("   ")
    page.locator("#generate").click()
    page.locator("#problem:not([hidden])").wait_for()
    assert "opening is empty" in page.locator("#problem").inner_text()


def test_a_phone_scrolls_one_way_and_every_control_has_a_name(
    open_page: Open, url: str, bare: str, screenshot: Shot
) -> None:
    page = ready(open_page(bare, viewport={"width": 390, "height": 844}))
    page.locator(f"#by-input [data-feature='{LOUD}']").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    screenshot(page, "demo-phone", full_page=True)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea')].filter((c) =>
        !(c.labels?.length || c.getAttribute('aria-label') || c.textContent.trim())).length"""
    )
    assert unnamed == 0


def test_texts_move_nothing_around_them(open_page: Open, bare: str) -> None:
    page = ready(open_page(bare))
    page.locator(f"#by-input [data-feature='{LOUD}']").click()
    page.locator("#prompt").fill("word " * 79)
    page.locator("#tokens").fill("12")

    def tops() -> list[float]:
        read = "(e) => e.getBoundingClientRect().top + window.scrollY"
        return [page.locator(s).evaluate(read) for s in (".panes", "#bars", "#generate")]

    before = tops()
    page.locator("#generate").click()
    wait_done(page)
    assert tops() == before


def channel(part: float) -> float:
    part /= 255
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def luminance(colour: str) -> float:
    parts = [channel(float(n)) for n in re.findall(r"[\d.]+", colour)[:3]]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_text_has_contrast_enough(open_page: Open, bare: str, scheme: str) -> None:
    page = ready(open_page(bare, color_scheme=scheme))
    page.locator(f"#by-input [data-feature='{LOUD}']").click()
    read = """(e) => {
        const clear = 'rgba(0, 0, 0, 0)';
        let below = e;
        while (getComputedStyle(below).backgroundColor === clear) below = below.parentElement;
        return [getComputedStyle(e).color, getComputedStyle(below).backgroundColor];
    }"""
    places = ("#about", "#verdict", ".badge", "#generate", "#prompt-help", "thead th", ".words")
    for place in places:
        ink, paper = map(luminance, page.locator(place).first.evaluate(read))
        ratio = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert ratio >= 4.5, (place, ratio)
