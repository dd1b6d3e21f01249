"""Runs and comparisons at a prompt and in a notebook."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from affectlens.features.columns import TABLES
from affectlens.pipeline import RunResult
from affectlens.sae_comparison import Comparison

from ..display.test_cards import HOSTILE, TAGS, Page


def test_a_run_shows_its_findings() -> None:
    done = RunResult(Path("runs/mine"), Path("runs/mine/report.html"), ["One.", HOSTILE])
    page = Page(done._repr_html_())
    assert page.tags <= TAGS
    assert "finding 1: One." in page.text
    assert 'al.read_search("runs/mine")' in page.text
    assert "warning" not in repr(done)
    assert "no findings" in repr(RunResult(done.folder, done.report, []))


def test_a_comparison_names_what_it_left_out() -> None:
    empty = pd.DataFrame(columns=list(TABLES["validity/comparison"]))
    stability = pd.DataFrame(columns=list(TABLES["validity/stability"]))
    said = repr(Comparison(empty, stability, {"seed 1": HOSTILE}, 2))
    assert "Left out: seed 1: " in said
    assert "\x1b" not in said
