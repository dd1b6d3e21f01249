"""Results at a prompt and in a notebook."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectlens.data.stimuli import load_battery
from affectlens.features.calibration import Calibration
from affectlens.features.columns import TABLES
from affectlens.features.lexical import AuditConfig, audit
from affectlens.features.naming import FeatureNames
from affectlens.features.validation_records import CalibrationSummary
from affectlens.features.validity import Validity

from ..display.test_cards import HOSTILE, TAGS, Page
from .shown_results import results, written

NAMES = ("found", "screen", "effect", "study", "controls", "baselines")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results(written(tmp_path_factory.mktemp("run") / "positive"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results(written(tmp_path_factory.mktemp("run") / "hostile", hostile=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_result_shows_itself_in_short(shown: dict[str, Any], name: str) -> None:
    text, html = repr(shown[name]), shown[name]._repr_html_()
    assert text.startswith(f"{type(shown[name]).__name__}: ")
    assert len(text.splitlines()) <= 16
    assert max(map(len, text.splitlines())) < 700
    assert len(html) < 16_000
    assert "first 5 of" in html or "<caption" in html
    assert "Next:" in html


@pytest.mark.parametrize("name", NAMES)
def test_hostile_results_stay_text(hostile: dict[str, Any], name: str) -> None:
    page = Page(hostile[name]._repr_html_())
    assert page.tags <= TAGS
    assert "\x1b" not in page.text + repr(hostile[name])
    assert "\u202e" not in page.text + repr(hostile[name])


def test_a_search_that_confirms_nothing_says_so_first(
    tmp_path: Path, shown: dict[str, Any]
) -> None:
    found = shown["found"]
    none = dict.fromkeys(found.summary.n_confirmed, 0)
    summary = replace(found.summary, n_confirmed=none, lexical_warning="Words tell them apart.")
    html = replace(found, summary=summary)._repr_html_()
    assert html.index("Nothing is confirmed") < html.index("Words tell them apart.")
    assert "Nothing is confirmed" not in found._repr_html_()


def test_a_card_asks_for_what_is_missing_and_counts_what_is_there(shown: dict[str, Any]) -> None:
    found = shown["found"]
    assert "al.lexical_controls" in repr(found)
    with_controls = replace(found, controls=shown["controls"])
    assert "al.lexical_controls" not in repr(with_controls)
    assert "confirmed latents by lexical controls" in repr(with_controls)
    best = repr(found).split('found.top("')[1].split('"')[0]
    assert len(found.top(best, 5))


def test_contexts_come_as_a_table(shown: dict[str, Any]) -> None:
    contexts = shown["found"].contexts
    table = shown["found"].contexts_table
    assert len(table) == len(contexts) > 0
    first = contexts[0]
    assert table["token"][0] == first.tokens[first.peak]
    assert table["activation"][0] == max(first.activations)
    assert table["text"][0] == "".join(first.tokens)


def test_effects_on_few_groups_are_warned_of(shown: dict[str, Any]) -> None:
    effect = shown["effect"]
    few = replace(effect, verdicts=effect.verdicts.assign(n_clusters=2))
    assert "rest on fewer than" in repr(few)
    lost = replace(effect, verdicts=effect.verdicts.assign(beats_random=False, n_clusters=20))
    assert "Nothing is shown" in repr(lost)


def test_empty_tables_can_be_shown(shown: dict[str, Any]) -> None:
    effect = shown["effect"]
    bare = replace(
        effect, table=effect.table.head(0), verdicts=effect.verdicts.head(0),
        doses=effect.doses.head(0),
    )  # fmt: skip
    assert "<table" not in bare._repr_html_()
    found = shown["found"]
    assert "<table" not in replace(found, table=found.table.head(0))._repr_html_()


def test_the_lexical_card_carries_its_warning() -> None:
    battery = load_battery().select(emotions=["grief", "rage"])
    card = audit(battery, AuditConfig(n_repeats=1, n_bootstrap=50))
    assert card.warning
    page = Page(card._repr_html_())
    assert card.warning in page.text
    assert "LexicalCard: what words alone tell of affectlens-vignettes" in repr(card)


def test_stages_after_a_search_can_be_shown_when_empty() -> None:
    def empty(name: str) -> pd.DataFrame:
        return pd.DataFrame(columns=list(TABLES[name]))

    names = ("tests", "shrinkage", "matrix", "others", "specific", "dimensions", "rollups")
    validity = Validity(*(empty(f"validity/{n}") for n in (*names, "transfer", "transfer_summary")))
    assert repr(validity).startswith("Validity: further tests")
    told = {"test": "dose", "group": "verdict", "verdict": "unknown", "note": HOSTILE[:-1]}
    row = pd.DataFrame([dict.fromkeys(TABLES["validity/tests"], np.nan) | told])
    page = Page(replace(validity, table=row)._repr_html_())
    assert page.tags <= TAGS
    assert "1 verdict of 1 unknown" in page.text

    summary = CalibrationSummary(
        48, 24, 100, 64, 200, 5, 1000, 0.05, "cluster", "cluster", [0.5], 40, 1,
        [f"flip_cluster all {HOSTILE}"], {}, 0,
    )  # fmt: skip
    tables = (empty(f"calibration/{n}") for n in ("rates", "power", "detectable"))
    said = repr(Calibration(*tables, summary))
    assert "39 of 40" in said
    assert "Outside what the level allows: flip_cluster all" in said
    assert "\x1b" not in said

    names_of = FeatureNames((), HOSTILE, HOSTILE, "ab", 10, 1, 0.01, "own", "rms", False, 99)
    assert "0 latents" in repr(names_of)
    assert Page(names_of._repr_html_()).tags <= TAGS
