"""The check of an SAE at a prompt and as a table."""

from __future__ import annotations

from affectlens.training.check import SAECheck
from affectlens.training.check_lines import CheckLine

from ..display.test_cards import HOSTILE, TAGS, Page

TEXT = HOSTILE.replace("\ud800", "")


def made(*lines: CheckLine) -> SAECheck:
    return SAECheck({}, "the corpus", 100, lines)


def test_a_check_puts_what_fails_first() -> None:
    check = made(
        CheckLine("files", "abc", "a hash", "ok", "fine"),
        CheckLine("layer", {"FVU here": 0.51234}, "here", "fail", f"another layer {TEXT}"),
    )
    assert list(check.table["name"]) == ["files", "layer"]
    assert check.table["value"][1] == "FVU here 0.512"
    page = Page(check._repr_html_())
    assert page.tags <= TAGS
    assert page.text.index("here 0.512") < page.text.index("a hash")
    assert "layer: another layer" in repr(check)
    assert "\x1b" not in repr(check)


def test_a_sound_check_warns_of_nothing() -> None:
    check = made(CheckLine("FVU", 0.2, "below 0.5", "ok", "fine"))
    assert "warning" not in repr(check)
    assert repr(check).startswith("SAECheck: ")
