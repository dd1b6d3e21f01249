"""The report in a browser: readable in both themes, on a phone, by keyboard and on paper."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectlens.display.words import visible
from affectlens.report.build import render_page
from affectlens.report.figures import search_figures
from affectlens.report.loading import load_run
from affectlens.report.theme import render

sys.path.append(str(Path(__file__).parents[1] / "report"))
synthetic = importlib.import_module("synthetic_run")

Open = Callable[..., Any]
Shot = Callable[..., Path]
PHONE = {"width": 390, "height": 844}

CONTRAST = r"""
() => {
  const channels = (text) => {
    const p = text.match(/[\d.]+/g).map(Number);
    return p.length < 4 ? [...p, 1] : p;
  };
  const over = (c, b) => [0, 1, 2].map((i) => c[3] * c[i] + (1 - c[3]) * b[i]);
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const chain = (e) => (e ? [...chain(e.parentElement), e] : []);
  const seen = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility()) { continue; }
    let paper = [255, 255, 255];
    let solid = 1;
    for (const part of chain(e)) {
      paper = over(channels(getComputedStyle(part).backgroundColor), paper);
      solid *= Number(getComputedStyle(part).opacity);
    }
    const ink = channels(getComputedStyle(e).color);
    ink[3] *= solid;
    const [a, b] = [light(over(ink, paper)), light(paper)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${e.tagName.toLowerCase()}.${e.className}`;
    if (ratio < 4.5 && !(seen.get(name) < ratio)) { seen.set(name, Number(ratio.toFixed(2))); }
  }
  return Object.fromEntries(seen);
}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    stages = ("run", "sae", "search", "reads", "controls", "baselines", "effects")
    settings = synthetic.Settings(hostile=True, n_tested=120, stages=stages)
    data = load_run(synthetic.write_run(tmp_path_factory.mktemp("report") / "run", settings))
    folder = data.path / "figures"
    folder.mkdir()
    figures = {spec.name: render(spec, folder) for spec in search_figures(data)}
    target = data.path / "report.html"
    target.write_text(render_page(data, figures), encoding="utf-8")
    return target.as_uri()


def shown(page: Any) -> int:
    return page.locator("#features tbody:visible").count()


def test_findings_stand_on_the_first_screen(open_page: Open, url: str, screenshot: Shot) -> None:
    page = open_page(url)
    screenshot(page, "report-desktop")
    places = page.locator(".findings h3").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect().bottom)"
    )
    assert sum(bottom < 800 for bottom in places) >= 2
    assert page.locator(".findings b", has_text="How sure:").count() >= 3
    assert "Controlled for:" in page.locator("#findings").inner_text()


def test_hostile_tokens_are_text(open_page: Open, url: str) -> None:
    page = open_page(url)
    wanted = re.sub(r"\s+", " ", visible(synthetic.HOSTILE[:-1]))
    assert wanted in re.sub(r"\s+", " ", page.locator("#features").inner_text())
    assert page.locator("script").count() == 1
    assert page.locator("img[onerror]").count() == 0


def test_tables_sort_by_click_and_by_key(open_page: Open, url: str) -> None:
    page = open_page(url)
    table = page.locator("table.features").first
    head = table.get_by_role("button", name="d_z, kept aside")

    def values() -> list[float]:
        keys = table.locator("tbody").evaluate_all("all => all.map((b) => b.dataset.keys)")
        found = [float(k.split()[2]) for k in keys]
        return [v for v in found if v == v]  # rows without a value stand at the end

    head.click()
    assert values() == sorted(values(), reverse=True)
    assert table.locator("th[aria-sort='descending']").count() == 1
    head.focus()
    page.keyboard.press("Enter")
    assert values() == sorted(values())
    assert table.locator("th[aria-sort='ascending']").count() == 1


def test_candidates_filter_by_emotion_class_and_word(open_page: Open, url: str) -> None:
    page = open_page(url)
    page.evaluate(
        "document.querySelectorAll('#features details').forEach((d) => { d.open = true; })"
    )
    everything = shown(page)
    page.locator("#of-emotion").select_option("grief")
    assert page.locator("#features details.contrast:visible").count() == 1
    assert 0 < shown(page) < everything
    page.locator("#of-emotion").select_option("")
    kind = page.locator("#of-kind")
    kind.select_option(index=1)
    chosen = kind.input_value()
    rows = page.locator("#features tbody:visible")
    assert set(rows.evaluate_all("all => all.map((b) => b.dataset.kind)")) == {chosen}
    kind.select_option("")
    number = page.locator("#features tbody th").first.inner_text().split()[0]
    page.locator("#wanted").fill(number)
    assert 0 < shown(page) <= everything
    page.locator("#wanted").fill("in no row at all")
    assert shown(page) == 0
    assert page.locator("#filter-status").inner_text() == "0 shown"
    page.locator("#wanted").fill("")
    assert shown(page) == everything


def test_the_keyboard_reaches_the_contents_and_follows_them(open_page: Open, url: str) -> None:
    page = open_page(url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('nav').id") == "contents"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.locator("#contents a[href='#provenance']").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**#provenance")
    head = page.locator("#provenance h2")
    for _ in range(50):
        if 0 <= head.bounding_box()["y"] < 800:
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("the link does not lead to its section")


def test_a_phone_does_not_scroll_sideways(open_page: Open, url: str, screenshot: Shot) -> None:
    page = open_page(url, viewport=PHONE)
    screenshot(page, "report-phone")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(open_page: Open, url: str, screenshot: Shot, scheme: str) -> None:
    page = open_page(url, color_scheme=scheme)
    screenshot(page, f"report-{scheme}")
    assert page.evaluate(CONTRAST) == {}


def test_nothing_moves_while_the_page_loads(open_page: Open, url: str) -> None:
    page = open_page(url)
    sizes = page.locator("figure img").evaluate_all(
        "all => all.map((i) => i.getAttribute('width') && i.getAttribute('height'))"
    )
    assert sizes and all(sizes)
    shift = page.evaluate(
        """() => new Promise((done) => {
          let sum = 0;
          new PerformanceObserver((list) => list.getEntries().forEach((e) => { sum += e.value; }))
            .observe({ type: "layout-shift", buffered: true });
          setTimeout(() => done(sum), 200);
        })"""
    )
    assert shift < 0.1


def test_every_field_has_a_name(open_page: Open, url: str) -> None:
    page = open_page(url)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, summary")]
          .filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"""
    )
    assert nameless == 0
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("h1").count() == 1


def test_paper_shows_what_is_folded(open_page: Open, url: str, tmp_path: Path) -> None:
    page = open_page(url)
    target = tmp_path / "report.pdf"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open]):not(.quiet)").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    assert len(page.pdf(path=target, format="A4")) > 50_000
    page.emulate_media(media="print")
    assert page.locator("#contents").is_hidden()
