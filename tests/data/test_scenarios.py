"""Scenarios: the embedded set keeps its rules; SEV files are read; broken ones are refused."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import StimulusError
from affectlens.data.scenarios import EVENTS, Scenario, Scenarios, load_scenarios
from affectlens.data.stimuli import load_battery
from affectlens.data.taxonomy import EMOTIONS, VALENCES
from affectlens.features._words import tokens

ROW = {
    "theme": "Baking",
    "scenario": "I took a loaf to the fair",
    "event": {
        "positive": "The jury gave it the first prize.",
        "neutral": "The jury put it on the second table.",
        "negative": "The jury threw it out unread.",
    },
    "skeleton_id": "fair_00",
}


def row(**changes):
    return {**ROW, **changes}


def numbered(n, theme="Baking"):
    return row(skeleton_id=f"{theme}_{n}", scenario=f"I took {n} loaves to {theme}", theme=theme)


def lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def embedded() -> Scenarios:
    return load_scenarios()


def test_eight_themes_of_five(embedded):
    assert len(embedded.items) == 40
    assert len(embedded.themes) == 8
    assert set(embedded.themes.values()) == {5}
    assert embedded.licence == "CC-BY-4.0"
    assert embedded.warnings == ()
    assert len({s.id for s in embedded.items}) == 40


def test_no_text_holds_an_emotion_word(embedded):
    lexicon = own_lexicon()
    names = {*EMOTIONS, *VALENCES}
    for item in embedded.items:
        for text in (item.scenario, *item.events.values()):
            words = tokens(text)
            assert lexicon.hits(words) == (), (item.id, text)
            assert not names & set(words), (item.id, text)


def test_events_of_a_scenario_are_one_sentence_of_matched_length(embedded):
    lengths = {kind: [] for kind in EVENTS}
    for item in embedded.items:
        sizes = {kind: len(tokens(text)) for kind, text in item.events.items()}
        assert max(sizes.values()) - min(sizes.values()) <= 2, item.id
        assert all(12 <= n <= 25 for n in sizes.values()), item.id
        for kind, text in item.events.items():
            assert text.endswith("."), item.id
            assert text[:-1].replace("Mr", "").count(".") == 0, item.id
            assert text.isascii()
            lengths[kind].append(sizes[kind])
    means = [np.mean(v) for v in lengths.values()]
    assert max(means) - min(means) < 0.5


def test_events_of_a_scenario_begin_alike_or_share_words(embedded):
    for item in embedded.items:
        neutral = set(tokens(item.events["neutral"]))
        for valence in ("positive", "negative"):
            assert len(neutral & set(tokens(item.events[valence]))) >= 4, item.id


def test_scenes_are_told_in_the_first_person(embedded):
    assert all(s.scenario.startswith("I ") for s in embedded.items)


def test_embedded_file_is_a_sev_battery_too(embedded):
    path = Path(__file__).parents[2] / "data/scenarios/affectlens-scenarios.jsonl"
    battery = load_battery(path)
    assert len(battery.pairs) == 80
    assert battery.pairs[0].clinical.text == embedded.items[0].prompt("positive")
    assert battery.pairs[0].neutral.text == embedded.items[0].prompt()


def test_prompt_puts_a_full_stop_only_where_there_is_none():
    events = {"positive": "Good.", "neutral": "So.", "negative": "Bad."}
    assert Scenario("a", "t", "I went", events).prompt("negative") == "I went. Bad."
    assert Scenario("a", "t", "I went!", events).prompt() == "I went! So."
    with pytest.raises(StimulusError, match="no event 'mixed'; allowed: positive, neutral"):
        Scenario("a", "t", "I went", events).prompt("mixed")


def test_halves_are_stratified_disjoint_and_seeded(embedded):
    select, report = embedded.split(3)
    ids = [{s.id for s in half.items} for half in (select, report)]
    assert len(ids[0]) == len(ids[1]) == 20
    assert not ids[0] & ids[1]
    for theme in embedded.themes:
        assert {select.themes[theme], report.themes[theme]} == {2, 3}
    order = [s.id for s in embedded.items]
    assert [s.id for s in select.items] == [i for i in order if i in ids[0]]
    again, _ = embedded.split(3)
    assert again.items == select.items
    assert again.sha256 == select.sha256 != report.sha256
    assert embedded.split(4)[0].items != select.items
    assert (select.name, report.name) == (f"{embedded.name}/select", f"{embedded.name}/report")


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_halves_differ_by_at_most_one(sizes, seed):
    events = {"positive": "a", "neutral": "b", "negative": "c"}
    items = tuple(
        Scenario(f"{t}-{i}", f"theme {t}", f"text {t} {i}", events)
        for t, n in enumerate(sizes)
        for i in range(n)
    )
    whole = Scenarios("w", items, "here", "none")
    if len(items) < 2:
        with pytest.raises(StimulusError, match="two halves need at least two"):
            whole.split(seed)
        return
    select, report = whole.split(seed)
    assert Counter(s.id for s in select.items) + Counter(s.id for s in report.items) == Counter(
        s.id for s in items
    )
    assert abs(len(select.items) - len(report.items)) <= 1
    for theme in whole.themes:
        assert abs(select.themes.get(theme, 0) - report.themes.get(theme, 0)) <= 1


def test_every_scenario_is_in_either_half_under_some_seed(embedded):
    seen = Counter(s.id for seed in range(40) for s in embedded.split(seed)[0].items)
    assert all(5 < seen[s.id] < 35 for s in embedded.items)


def test_the_card_states_the_checksum(embedded):
    card = Path(__file__).parents[2] / "data/scenarios/affectlens-scenarios.md"
    assert f"`{embedded.sha256}`" in card.read_text(encoding="utf-8")


def test_hash_is_of_the_items_only(tmp_path):
    rows = [numbered(1), numbered(2)]
    one = load_scenarios(lines(tmp_path / "one.jsonl", rows))
    turned = [dict(reversed(r.items())) for r in rows]
    text = "\ufeff" + "\r\n".join(json.dumps(r, indent=None) for r in turned) + "\r\n\r\n"
    (tmp_path / "two.jsonl").write_bytes(text.encode())
    two = load_scenarios(tmp_path / "two.jsonl")
    assert one.sha256 == two.sha256
    assert one.items == two.items
    changed = load_scenarios(lines(tmp_path / "three.jsonl", [numbered(1), numbered(3)]))
    assert changed.sha256 != one.sha256
    assert (one.name, one.licence) == ("one", "not stated")


def test_blanks_round_texts_are_taken_off_and_other_fields_counted(tmp_path):
    event = {**ROW["event"], "neutral": "  So it was. ", "mixed": "Both."}
    path = lines(tmp_path / "a.jsonl", [row(event=event, author="x"), row(**numbered(1), author=2)])
    found = load_scenarios(path)
    assert found.items[0].events["neutral"] == "So it was."
    assert found.warnings == (
        "fields of scenarios that are not known were not used: 'author' (2), 'event.mixed' (1)",
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scenario": ""}, "line 2: the field 'scenario' is missing or empty"),
        ({"scenario": " \t"}, "line 2: the field 'scenario' is blank"),
        ({"theme": 3}, r"line 2: 'theme' must be a string, got 3 \(int\)"),
        ({"skeleton_id": None}, "line 2: the field 'skeleton_id' is missing"),
        ({"event": "x"}, "line 2: 'event' must be an object with positive, neutral, negative"),
        ({"event": {}}, r"(?s)line 2: the positive event must be a text, got None.*negative"),
        ({"event": {**ROW["event"], "neutral": 1}}, r"the neutral event must be a text, got 1 "),
        ({"event": dict.fromkeys(EVENTS, "Same.")}, "line 2: two of its events are the same text"),
        ({"scenario": "a\ud800b"}, r"line 2: scenario: lone surrogate U\+D800 at character 1"),
        ({"event": {**ROW["event"], "negative": "\udcff"}}, "negative event: lone surrogate U"),
        ({"theme": "a\x00"}, "line 2: theme: NUL at character 1"),
        (numbered(1), r"line 2: this id was used before \(.*line 1\)"),
        ({**numbered(1), "skeleton_id": "other"}, "line 2: this scenario was used before"),
    ],
)
def test_broken_lines_are_named(tmp_path, changed, message):
    path = lines(tmp_path / "bad.jsonl", [numbered(1), row(**changed)])
    with pytest.raises(StimulusError, match=message):
        load_scenarios(path)


def test_all_problems_are_counted(tmp_path):
    path = lines(tmp_path / "bad.jsonl", [row(theme=""), numbered(1), row(event=1, theme=[])])
    with pytest.raises(StimulusError, match=r"(?s)3 problems.*line 1: .*line 3: .*line 3: 'event'"):
        load_scenarios(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "has no scenarios; it needs at least one line"),
        (b"\n\r\n", "has no scenarios"),
        (b"[1]\n", "line 1: a JSON list; each line must be one JSON object"),
        (b'{"theme": "a",\n', "line 1: not a JSON object on one line"),
        (b'{"theme": "a", "theme": "b"}\n', "the key 'theme' occurs twice"),
        (b"\xff\n", "line 1: byte 0xff is not UTF-8"),
    ],
)
def test_files_that_hold_no_scenarios(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text)
    with pytest.raises(StimulusError, match=message):
        load_scenarios(path)


def test_names_and_suffixes(tmp_path):
    with pytest.raises(StimulusError, match="did you mean 'affectlens-scenarios'"):
        load_scenarios("affectlens-scenario")
    with pytest.raises(StimulusError, match="neither 'affectlens-scenarios' nor an existing"):
        load_scenarios(tmp_path / "absent.jsonl")
    path = tmp_path / "a.csv"
    path.write_text("theme\n")
    with pytest.raises(StimulusError, match=r"from \.jsonl files only \(its suffix is '\.csv'\)"):
        load_scenarios(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(EVENTS), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(tuple(ROW)), JSON, max_size=4), max_size=4)


@given(rows=ROWS)
@settings(max_examples=80, deadline=None)
def test_any_json_is_read_or_refused(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = lines(Path(folder) / "any.jsonl", rows)
        try:
            found = load_scenarios(path)
        except StimulusError:
            return
        assert len(found.items) == len(rows)
        assert all(t.strip() == t != "" for s in found.items for t in s.events.values())
        assert len(found.sha256) == 64


@given(data=st.binary(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_refused_in_words(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.jsonl"
        path.write_bytes(data)
        with pytest.raises(StimulusError, match=r"any\.jsonl"):
            load_scenarios(path)


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20
).filter(str.strip)


@given(texts=st.lists(TEXTS, min_size=6, max_size=6, unique_by=str.strip))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(texts):
    event = dict(zip(EVENTS, texts[:3]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        written = row(event=event, scenario=texts[3], theme=texts[4], skeleton_id=texts[5])
        text = json.dumps(written, ensure_ascii=False)
        path.write_bytes((text + "\n").encode())
        (item,) = load_scenarios(path).items
    assert item.events == {kind: text.strip() for kind, text in event.items()}
    assert (item.scenario, item.theme, item.id) == tuple(t.strip() for t in texts[3:])


def test_prompts_of_a_file_without_full_stops(tmp_path):
    rows = [numbered(n, theme) for theme in ("work", "health") for n in range(3)]
    found = load_scenarios(lines(tmp_path / "sev.jsonl", rows))
    assert dict(found.themes) == {"work": 3, "health": 3}
    assert found.prompts("positive")[0].endswith("to work. The jury gave it the first prize.")
