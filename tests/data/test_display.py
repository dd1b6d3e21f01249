"""A battery and a store at a prompt, in a notebook, as tables and as a figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from affectlens.data.corpus import load_corpus
from affectlens.data.masking import MaskRule
from affectlens.data.stimuli import Stimulus, load_battery, make_battery
from affectlens.data.store_writer import write_store
from affectlens.data.tiny import tiny_model

from ..display.test_cards import HOSTILE, TAGS, Page


def test_a_battery_shows_pairs_and_the_next_step() -> None:
    battery = load_battery().select(emotions=["grief"])
    text = repr(battery)
    assert text.startswith("Battery: affectlens-vignettes, ")
    assert "with 24 matched pairs" in text
    assert "al.audit(battery)" in text
    assert len(text) < 1000
    page = Page(battery._repr_html_())
    assert battery.pairs[0].id in page.text
    assert "first 3 of 24 rows" in page.text


def test_tables_hold_every_item_and_pair() -> None:
    battery = load_battery()
    assert list(battery.table["text"]) == list(battery.texts)
    pairs = battery.pairs_table
    assert list(pairs["id"]) == [p.id for p in battery.pairs]
    assert list(pairs["neutral"]) == [p.neutral.text for p in battery.pairs]
    assert (pairs["words_clinical"] == [p.clinical.word_count for p in battery.pairs]).all()


def test_lengths_are_drawn_pair_by_pair() -> None:
    battery = load_battery()
    axes = battery.plot.lengths(ax=Figure().add_subplot())
    assert len(axes.collections[0].get_offsets()) == len(battery.pairs)  # type: ignore[arg-type]
    assert "n = 192 pairs" in axes.texts[0].get_text().replace("\xa0", " ")


def test_a_hostile_battery_is_text() -> None:
    text = HOSTILE.replace("\ud800", "")
    item = Stimulus("a", "grief", "", "1", "", None, 3, text, "labelled")
    battery = make_battery("odd", [item], text, text)
    page = Page(battery._repr_html_())
    assert page.tags <= TAGS
    assert "without pairs" in page.text
    assert "\x1b" not in repr(battery)
    assert battery.plot.lengths(ax=Figure().add_subplot()).get_title(loc="left")


def test_a_store_shows_its_hooks(tmp_path: Path) -> None:
    hook = "blocks.1.hook_resid_post"
    store = write_store(
        tmp_path / "acts",
        {hook: torch.ones(40, 8)},
        np.repeat(np.arange(20), 2),
        documents=[f"d{i}" for i in range(20)],
        rule=MaskRule(norm_limit=2500.0),
    )
    assert "40 rows" in repr(store)
    row = store.table.iloc[0]
    assert row["hook"] == hook
    assert row["n_train"] + row["n_heldout"] + row["n_masked"] == 40
    page = Page(store._repr_html_())
    assert "40 rows of width 8" in page.text
    assert "2,500" in page.text


def test_a_model_shows_its_size_and_not_its_modules() -> None:
    lm = tiny_model("gpt2")
    text = repr(lm)
    assert "4 blocks, 32 wide" in text
    assert "Embedding(" not in text
    assert len(text) < 600
    assert "read from:</span> tiny" in lm._repr_html_()


def test_a_corpus_does_not_list_its_documents() -> None:
    corpus = load_corpus("default")
    assert corpus.documents[0].text not in repr(corpus)
    assert len(repr(corpus)) < 2000


def test_nothing_is_drawn_at_import() -> None:
    code = (
        "import sys\n"
        "import affectlens.data.stimuli, affectlens.display.look, affectlens.display.cards\n"
        "import affectlens.display.search_figures, affectlens.display.maps\n"
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
