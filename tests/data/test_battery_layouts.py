"""Layouts of battery files: recognition, SEV, plain pairs, and the published files themselves."""

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.battery_layouts import LAYOUTS
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import load_battery

EVENTS = {
    "positive": "The jury gave it the first prize.",
    "neutral": "The jury put it on the second table.",
    "negative": "The jury threw it out unread.",
}
SEV = [
    {"theme": "Baking", "scenario": "I took a loaf to the fair", "event": EVENTS,
     "skeleton_id": "fair_00"},
    {"theme": "Garden", "scenario": "I sowed beans along the wall!",
     "event": {k: f"{v} Twice." for k, v in EVENTS.items()}, "skeleton_id": "fair_01"},
]  # fmt: skip
PAIRS = [
    ("p1", "He kicked the door in.", "He pushed the door open.", "rage", "doors"),
    ("p2", "He smashed the plate.", "He dried the plate.", "anger", "plates"),
    ("p3", "She hid the letter from him.", "She gave the letter to him.", "shame", "letters"),
]

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30
).filter(str.strip)


def lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def table(path, header, rows):
    mark = "\t" if path.suffix == ".tsv" else ","
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=mark, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return path


def test_sev_gives_two_pairs_of_each_scenario(tmp_path):
    battery = load_battery(lines(tmp_path / "sev.jsonl", SEV))
    assert [p.id for p in battery.pairs] == [
        "fair_00-positive", "fair_00-negative", "fair_01-positive", "fair_01-negative",
    ]  # fmt: skip
    assert battery.emotions == ("positive", "negative")
    assert battery.clusters[:2] == ("positive/Baking", "negative/Baking")
    assert battery.pairs[0].clinical.text == (
        "I took a loaf to the fair. The jury gave it the first prize."
    )
    assert battery.pairs[2].clinical.text.startswith("I sowed beans along the wall! The jury")
    assert battery.pairs[0].neutral.text == battery.pairs[1].neutral.text
    assert battery.pairs[0].neutral.id != battery.pairs[1].neutral.id
    assert {i.intensity for i in battery.items} == {"unrated", "none"}
    assert "2 neutral texts" in battery.warnings[0]
    assert "occur twice, under two ids" in battery.warnings[0]


BAD_SEV = {
    "no event": ({**SEV[0], "event": None}, "'event' must be an object with positive"),
    "text event": ({**SEV[0], "event": "x"}, "'event' must be an object.* got 'x' \\(str\\)"),
    "no neutral": (
        {**SEV[0], "event": {**EVENTS, "neutral": " "}},
        "line 1, id 'fair_00': the neutral event must be a text",
    ),
    "no theme": ({**SEV[0], "theme": ""}, "the field 'theme' is missing"),
    "no id": ({**SEV[0], "skeleton_id": None}, "line 1: the field 'skeleton_id' is missing"),
    "twice": (SEV[1], "this id was used before .*line 1"),
}


@pytest.mark.parametrize("case", BAD_SEV)
def test_bad_sev_rows_name_the_line(tmp_path, case):
    row, message = BAD_SEV[case]
    path = lines(tmp_path / "sev.jsonl", [row, SEV[1]])
    with pytest.raises(StimulusError, match=message) as caught:
        load_battery(path)
    assert str(path) in str(caught.value)


def test_sev_counts_what_it_does_not_use_and_takes_no_scheme(tmp_path):
    rows = [{**SEV[0], "split": "x", "event": {**EVENTS, "mixed": "y"}}]
    path = lines(tmp_path / "sev.jsonl", rows)
    assert "event.mixed (1 items), split (1 items)" in load_battery(path).warnings[0]
    with pytest.raises(StimulusError, match="the layout sev has no labels"):
        load_battery(path, scheme="ekman")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_pairs_with_and_without_labels_of_a_scheme(tmp_path, suffix):
    header = ("id", "text_a", "text_b", "label", "domain")
    path = tmp_path / f"b.{suffix}"
    if suffix == "jsonl":
        lines(path, [dict(zip(header, row, strict=True)) for row in PAIRS])
    else:
        table(path, header, PAIRS)
    battery = load_battery(path, scheme="parrott")
    assert [p.id for p in battery.pairs] == ["p1", "p2"]
    assert battery.clusters == ("rage/doors", "rage/plates")
    assert battery.pairs[0].neutral.text == "He pushed the door open."
    assert battery.pairs[0].neutral.id == "p1-control"
    assert battery.warnings == (
        "1 rows whose label has no counterpart among the emotions were left out: shame (1)",
    )
    with pytest.raises(
        StimulusError, match=r"id 'p2': unknown emotion 'anger'.*scheme=plutchik_fam"
    ):
        load_battery(path)
    aliases = {"anger": "rage", "shame": "grief"}
    assert len(load_battery(path, aliases=aliases).pairs) == 3


def test_pairs_without_domains_are_clusters_of_their_own(tmp_path):
    rows = [(a, b, "negative", "1") for _, a, b, _, _ in PAIRS]
    path = table(tmp_path / "mine.csv", ("text_a", "text_b", "label", "rater"), rows)
    battery = load_battery(path)
    assert battery.clusters == tuple(f"negative/mine-{n}" for n in (1, 2, 3))
    assert battery.warnings[0] == (
        "columns that are not part of a battery were not used: rater (3 items)"
    )
    assert "each of its 3 pairs is a domain of its own" in battery.warnings[1]


BAD_PAIRS = {
    "no label": (("text_a", "text_b", "domain"), ("a", "b", "c"), "'label' is missing"),
    "neutral": (("text_a", "text_b", "label"), ("a", "b", "Neutral"), "text_a carries an emotion"),
    "no control": (("text_a", "text_b", "label"), ("a", "", "rage"), "'text_b' is missing"),
    "no domain": (
        ("id", "text_a", "text_b", "label", "domain"), ("x", "a", "b", "rage", " "),
        "line 2, id 'x': a clinical item needs a domain",
    ),
    "no id": (
        ("id", "text_a", "text_b", "label"), ("", "a", "b", "rage"), "line 2: .*'id' is missing"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs_name_the_line(tmp_path, case):
    header, row, message = BAD_PAIRS[case]
    with pytest.raises(StimulusError, match=message):
        load_battery(table(tmp_path / "b.csv", header, [row]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("id,text,emotion,label", r"fit several layouts: items, labels; say which"),
        ("text_a,text_b,text,labels", r"fit several layouts: pairs, labels; say which"),
        ("id;text", r"line 1: its columns \(id;text\) fit no layout.*separated by commas"),
        ("sentence,mood", r"\(sentence, mood\) fit no layout; items: id, text and emotion"),
    ],
)
def test_no_layout_is_guessed(tmp_path, columns, message):
    path = tmp_path / "b.csv"
    path.write_text(f"{columns}\n{','.join('abcd'[: columns.count(',') + 1])}\n")
    with pytest.raises(StimulusError, match=message):
        load_battery(path)


def test_the_caller_or_the_card_may_say_which_layout(tmp_path):
    path = table(tmp_path / "b.csv", ("id", "text", "emotion", "label"), [("1", "Oh.", "x", "joy")])
    assert load_battery(path, layout="labels", scheme="ekman").emotions == ("ecstasy",)
    card = {"layout": "labels", "scheme": "goemotions", "name": "mine"}
    (tmp_path / "battery.json").write_text(json.dumps(card))
    assert load_battery(tmp_path).emotions == ("ecstasy",)
    with pytest.raises(StimulusError, match="the split is not stated"):
        load_battery(tmp_path, layout="items", aliases={"x": "rage"})
    for wrong in (path, tmp_path):
        with pytest.raises(StimulusError, match=r"unknown layout 'label'; .*did you mean 'labels'"):
            load_battery(wrong, layout="label")


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_a_wrong_layout_is_refused_not_misread(tmp_path, layout):
    paths = {
        "items": lines(
            tmp_path / "i.jsonl", [{"id": "a", "text": "b", "split": "complex_neutral"}]
        ),
        "sev": lines(tmp_path / "s.jsonl", SEV),
        "pairs": table(tmp_path / "p.csv", ("text_a", "text_b", "label"), [("a", "b", "rage")]),
        "labels": table(tmp_path / "l.csv", ("text", "label"), [("a", "rage")]),
    }
    for kind, path in paths.items():
        if kind != layout:
            with pytest.raises(StimulusError):
                load_battery(path, layout=layout)


@settings(deadline=None, max_examples=40)
@given(scenario=TEXTS, events=st.tuples(TEXTS, TEXTS, TEXTS), theme=TEXTS, name=TEXTS)
def test_any_text_survives_sev(tmp_path_factory, scenario, events, theme, name):
    event = dict(zip(EVENTS, events, strict=True))
    row = {"theme": theme, "scenario": scenario, "event": event, "skeleton_id": name}
    battery = load_battery(lines(tmp_path_factory.mktemp("sev") / "b.jsonl", [row]))
    for pair in battery.pairs:
        assert pair.clinical.text.startswith(scenario)
        assert pair.clinical.text.endswith(event[pair.emotion])
        assert pair.neutral.text.endswith(event["neutral"])
        assert pair.clinical.domain == theme


@settings(deadline=None, max_examples=40)
@given(a=TEXTS, b=TEXTS)
def test_any_text_survives_pairs(tmp_path_factory, a, b):
    folder = tmp_path_factory.mktemp("pairs")
    header = ("text_a", "text_b", "label")
    for path in (
        table(folder / "b.csv", header, [(a, b, "rage")]),
        lines(folder / "b.jsonl", [{"text_a": a, "text_b": b, "label": "rage"}]),
    ):
        assert load_battery(path).texts == (a, b)


@settings(deadline=None, max_examples=40)
@given(
    data=st.one_of(st.binary(max_size=120), st.text(max_size=120).map(str.encode)),
    layout=st.sampled_from(LAYOUTS),
)
def test_arbitrary_bytes_are_refused_in_every_layout(tmp_path_factory, data, layout):
    folder = tmp_path_factory.mktemp("noise")
    for suffix in ("jsonl", "csv", "tsv"):
        path = folder / f"noise.{suffix}"
        path.write_bytes(data)
        try:
            load_battery(path, layout=layout)
        except StimulusError as error:
            assert "noise" in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
KEYS = ("id", "text", "text_a", "text_b", "label", "labels", "scenario", "event", "theme",
        "skeleton_id", "emotion", "generated_text", "effort", "domain")  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(KEYS), JSON), min_size=1, max_size=2),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_values_give_a_battery_or_a_stimulus_error(tmp_path_factory, rows, layout):
    path = lines(tmp_path_factory.mktemp("values") / "noise.jsonl", rows)
    try:
        battery = load_battery(path, layout=layout)
    except StimulusError as error:
        assert "noise" in str(error)
    else:
        assert all(i.text.strip() for i in battery.items)


REAL = os.environ.get("AFFECTLENS_TEST_DATA")
real = pytest.mark.skipif(
    REAL is None, reason="AFFECTLENS_TEST_DATA does not name a folder with the published batteries"
)


@real
@pytest.mark.parametrize("name", ["sev.jsonl", "test_set.jsonl"])
def test_published_sev_files(name):
    battery = load_battery(Path(str(REAL)) / "sev" / name)
    assert (len(battery.pairs), len(battery.clusters)) == (320, 16)
    assert "160 neutral texts" in battery.warnings[0]
    assert {i.person for i in battery.items} == {"first"}


@real
def test_published_forerunner():
    battery = load_battery(Path(str(REAL)) / "affect-reception")
    assert (len(battery.pairs), len(battery.clusters)) == (64, 16)
    splits = [i.split for i in battery.unpaired]
    assert (splits.count("keyword_rich"), splits.count("complex_neutral")) == (90, 12)
    assert battery.warnings == ()
