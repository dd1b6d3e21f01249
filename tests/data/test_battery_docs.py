"""The examples of docs/battery-format.md load as the page says."""

import json
import re
from pathlib import Path

import pytest

from affectlens.data.battery_files import write_battery
from affectlens.data.battery_layouts import LAYOUTS
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import load_battery
from affectlens.data.taxonomy import SCHEMES

PAGE = (Path(__file__).resolve().parents[2] / "docs/battery-format.md").read_text(encoding="utf-8")
# Suffix of the example, then pairs, items and rows left out.
EXPECTED = {
    "items": ("jsonl", 1, 3, 0),
    "sev": ("jsonl", 6, 12, 0),
    "pairs": ("csv", 2, 4, 0),
    "labels": ("csv", 0, 2, 0),
    "goemotions": ("tsv", 0, 2, 1),
    "appraisals": ("tsv", 0, 1, 1),
}


def example(layout):
    section = PAGE.split(f"\n### {layout}\n")[1].split("\n### ")[0]
    found = re.search(r"```(?:json|text)\n(.*?)```", section, flags=re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_examples_of_the_page_load(tmp_path, layout):
    suffix, n_pairs, n_items, left_out = EXPECTED[layout]
    path = tmp_path / f"example.{suffix}"
    path.write_text(example(layout), encoding="utf-8")
    assert len(example(layout).splitlines()) == 3
    scheme = "goemotions" if layout == "labels" else None
    battery = load_battery(path, scheme=scheme)
    assert (len(battery.pairs), len(battery.items)) == (n_pairs, n_items)
    assert sum("left out" in note for note in battery.warnings) == left_out
    assert load_battery(path, layout=layout, scheme=scheme).sha256 == battery.sha256
    again = load_battery(write_battery(battery, tmp_path / "again.csv"))
    assert again.sha256 == battery.sha256


def test_the_page_names_every_layout_and_scheme():
    for name in (*LAYOUTS[1:], *SCHEMES):
        assert f"| `{name}` |" in PAGE


def test_the_card_of_the_page_is_read(tmp_path):
    card = json.loads(PAGE.split("## Folder card")[1].split("```json\n")[1].split("```")[0])
    (tmp_path / "battery.json").write_text(json.dumps(card), encoding="utf-8")
    (tmp_path / "posts.tsv").write_text("text\tlabel\nNo!\tfurious\nGone.\tBereft\n")
    battery = load_battery(tmp_path)
    assert [i.emotion for i in battery.items] == ["rage", "grief"]
    assert (battery.name, battery.licence) == ("my-battery", "CC-BY-4.0")
    with pytest.raises(StimulusError, match="unknown label scheme 'ekmann'; nearest: 'ekman'"):
        load_battery(tmp_path, scheme="ekmann")
