"""Cards: what they say, and that nothing hostile gets out of them."""

from __future__ import annotations

import unicodedata
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.display.cards import CELL_LIMIT, Card, Shown, cell, first_rows
from affectlens.display.words import counts, number, on_one_line, probability, share, span

HOSTILE = (
    "</script><script>alert(1)</script> <jupyter_script> {{ 7*7 }} \x1b[31mred\x1b[0m "
    "\u202egnp.exe\u202c <img src=x onerror=alert(1)> \" ' & \ud800"
)
TAGS = {
    *("div", "p", "strong", "ul", "li", "span", "table", "caption", "thead", "tbody", "tr"),
    *("th", "td", "code"),
}


class Page(HTMLParser):
    """Tags, attributes and text of a piece of HTML; fails where a tag is left open."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def everywhere(text: str) -> Card:
    frame = pd.DataFrame({"text": pd.Series([text], dtype=object), "n": [1]})
    rows = first_rows(frame, text, {"text": text, "n": "n"})
    return Card("Kind", text, {text: text}, text, rows, {text: text})


def test_hostile_text_is_text() -> None:
    page = Page(everywhere(HOSTILE).html())
    assert page.tags <= TAGS
    assert page.attributes <= {"style", "role", "scope"}
    assert "<jupyter_script>" in page.text
    assert "⟨U+001B⟩[31m" in page.text
    assert "⟨U+202E⟩" in page.text
    assert "⟨U+D800⟩" in page.text


@settings(deadline=None)
@given(st.text(min_size=1))
def test_any_text_is_text(text: str) -> None:
    card = everywhere(text)
    page = Page(card.html())
    assert page.tags <= TAGS
    assert on_one_line(text) in page.text
    lines = card.text().splitlines()
    assert len(lines) == 4  # title, fact, warning and next, or the text broke a line
    hidden = {c for c in card.text() if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"}
    assert hidden <= {"\u200c", "\u200d"}
    card.text().encode("utf-8")


@pytest.mark.parametrize("text", ["", "one"])
def test_a_warning_is_shown_only_where_there_is_one(text: str) -> None:
    card = Card("Kind", "title", warning=text)
    assert ("Warning." in card.html()) is bool(text)
    assert ("warning:" in card.text()) is bool(text)


def test_a_card_takes_no_colour_from_the_page_and_brings_none() -> None:
    html = everywhere("x").html()
    assert "background" not in html
    assert "color:#" not in html.replace("border", "")


def test_first_rows_count_what_they_leave_out() -> None:
    frame = pd.DataFrame({"a": range(12), "p_holm": [1e-6] * 12, "ok": [True] * 12})
    rows = first_rows(frame, "x.table", ["a", "p_holm", "ok", "absent"], 3)
    assert rows is not None
    assert rows.heads == ("a", "p_holm", "ok")
    assert rows.cells[2] == ("2", "1.0×10⁻⁶", "yes")
    assert rows.right == (True, True, False)
    assert "first 3 of 12 rows" in Card("Kind", "", rows=rows).html()
    assert first_rows(frame.head(0), "x.table", ["a"]) is None
    assert first_rows(frame, "x.table", ["absent"]) is None


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("effect", -0.12345, "−0.123"),
        ("confirm_p_holm", 0.00012, "1.2×10⁻⁴"),
        ("n_pairs", 64.0, "64"),
        ("feature", np.int64(2611), "2611"),
        ("effect", np.nan, "–"),
        ("confirmed", np.True_, "yes"),
        ("reason", "", "–"),
        ("reason", None, "–"),
        ("text", "x" * 200, "x" * (CELL_LIMIT - 1) + "…"),
    ],
)
def test_cells(column: str, value: object, said: str) -> None:
    assert cell(column, value) == said


def test_numbers_in_words() -> None:
    assert number(-0.0001) == "0.00"
    assert number(None) == number(float("inf")) == "–"
    assert number(1234.5, 1) == "1,234.5"
    assert probability(0.03) == "0.030"
    assert probability(0.0054) == "0.0054"
    assert share(0.0049) == "0.49%"
    assert span(8, 8) == "8"
    assert span(8, 12) == "8 to 12"
    assert counts({"all": 0, "grief": 0}) == "none"
    assert counts({"grief": 1, "all": 7, "rage": 0}) == "any emotion 7, grief 1, others 0"


def test_what_is_shown_is_the_card() -> None:
    class Thing(Shown):
        def _card(self) -> Card:
            return Card("Thing", "of nothing")

    assert repr(Thing()) == "Thing: of nothing"
    assert "of nothing" in Thing()._repr_html_()
