"""The layout 'items': the published forms of it, what may be left out, every way to be wrong."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import load_battery

CLINICAL = {
    "id": "V-1", "emotion": "grief", "intensity": "peak", "domain": 1, "domain_label": "loss",
    "matched_control_id": "N-1", "word_count": 4, "split": "clinical",
    "text": "The bed stayed empty.",
}  # fmt: skip
NEUTRAL = {
    **CLINICAL, "id": "N-1", "intensity": "none", "matched_control_id": None, "split": "neutral",
    "text": "The bed stayed warm.",
}  # fmt: skip


def lines(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def without(row, *keys):
    return {k: v for k, v in row.items() if k not in keys}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from(sorted(CLINICAL)), JSON))
def test_wrong_values_never_escape_as_other_errors(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("values") / "b.jsonl"
    lines(path, {**CLINICAL, **changes}, NEUTRAL)
    try:
        battery = load_battery(path)
    except StimulusError as error:
        assert str(path) in str(error) or "battery 'b'" in str(error)
    else:
        assert all(isinstance(i.text, str) and i.text.strip() for i in battery.items)


def test_first_published_layout(tmp_path):
    extra = {"token_count": None, "has_emotion_keyword": None}
    clinical = {**without(CLINICAL, "split"), "id": "B-1", "stimulus_set": "B_clinical", **extra}
    neutral = {
        **without(NEUTRAL, "split"), "stimulus_set": "neutral", "emotion": "neutral", **extra,
    }  # fmt: skip
    rich = {
        **clinical, "id": "A-1", "stimulus_set": "A_standard", "intensity": "high",
        "matched_control_id": None, "domain": None, "domain_label": "", "text": "I was so sad.",
    }  # fmt: skip
    plain = {
        "id": "c-1", "text": "The dial read two.", "emotion": "neutral", "domain": "technical",
        "stimulus_set": "C_complex_neutral", "expected_class": "neutral",
    }  # fmt: skip
    battery = load_battery(lines(tmp_path / "set.jsonl", clinical, neutral, rich, plain))
    assert [i.split for i in battery.items] == [
        "clinical", "neutral", "keyword_rich", "complex_neutral",
    ]  # fmt: skip
    assert [i.intensity for i in battery.items] == ["peak", "none", "high", "none"]
    assert battery.items[1].emotion == "grief"
    assert battery.items[2].domain == ""
    assert battery.warnings == ()


def test_second_published_layout_as_parquet_folder(tmp_path):
    folder = tmp_path / "aipsy"
    (folder / "data").mkdir(parents=True)
    rows = {
        "clinical": [without(CLINICAL, "split")],
        "neutral": [
            {**without(NEUTRAL, "split"), "emotion": "neutral", "matched_control_id": "V-1"}
        ],
        "moderate": [
            {
                **without(CLINICAL, "split", "matched_control_id"),
                "id": "M-1", "intensity": "moderate",
            }
        ],
        "complex_neutral": [
            {"id": "c-1", "emotion": "neutral", "intensity": "none", "domain": float("nan"),
             "domain_label": "Acoustics", "word_count": 4, "text": "The meter read two."}
        ],
    }  # fmt: skip
    for name, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table), folder / "data" / f"{name}.parquet")
    (folder / "README.md").write_text("not a battery file")
    battery = load_battery(folder)
    assert battery.name == "aipsy"
    assert sorted(i.split for i in battery.items) == [
        "clinical", "complex_neutral", "moderate", "neutral",
    ]  # fmt: skip
    assert len(battery.pairs) == 1
    assert [i.domain for i in battery.items] == ["1", "", "1", "1"]


def test_combined_csv_copy_with_float_domains_and_further_columns(tmp_path):
    path = tmp_path / "all.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [*CLINICAL, "triplet_id"])
        writer.writeheader()
        writer.writerow({**CLINICAL, "domain": "1.0", "triplet_id": "T-1"})
        writer.writerow({**NEUTRAL, "domain": "1.0", "triplet_id": ""})
    battery = load_battery(path)
    assert battery.clusters == ("grief/1",)
    assert battery.warnings == (
        "columns that are not part of a battery were not used: triplet_id (2 items)",
    )


def test_wrong_word_count_is_corrected_and_counted(tmp_path, caplog):
    path = lines(tmp_path / "b.jsonl", {**CLINICAL, "word_count": 99}, NEUTRAL)
    battery = load_battery(path)
    assert battery.items[0].word_count == 4
    assert "1 items state another word_count" in battery.warnings[0]
    assert "line 1, id 'V-1': 99 stated, 4 counted" in battery.warnings[0]
    assert battery.warnings[0] in caplog.text


def test_word_count_and_split_may_be_left_out(tmp_path):
    rows = [without(r, "word_count", "split", "domain_label") for r in (CLINICAL, NEUTRAL)]
    battery = load_battery(lines(tmp_path / "b.jsonl", *rows))
    assert [i.word_count for i in battery.items] == [4, 4]
    assert [i.split for i in battery.items] == ["clinical", "neutral"]


BAD_ROWS = {
    "no id": (without(CLINICAL, "id"), "line 1: the field 'id' is missing"),
    "no text": (without(CLINICAL, "text"), "line 1, id 'V-1': the field 'text' is missing"),
    "blank text": ({**CLINICAL, "text": "  "}, "line 1, id 'V-1': the text is empty"),
    "number as id": ({**CLINICAL, "id": 7}, "'id' must be a string, got 7 \\(int\\)"),
    "bool as domain": ({**CLINICAL, "domain": True}, "'domain' must be a string or a whole"),
    "list as text": ({**CLINICAL, "text": ["a"]}, "'text' must be a string"),
    "word count": ({**CLINICAL, "word_count": "four"}, "'word_count' must be a whole number"),
    "negative count": ({**CLINICAL, "word_count": -1}, "'word_count' must be a whole number"),
    "emotion": ({**CLINICAL, "emotion": "joy"}, "unknown emotion 'joy'; nearest: 'ecstasy'"),
    "split": ({**CLINICAL, "split": "clinicl"}, "did you mean 'clinical'"),
    "set": (
        {**without(CLINICAL, "split"), "stimulus_set": "D"},
        "unknown stimulus_set 'D'; allowed: A_standard",
    ),
    "no split": (
        {**without(CLINICAL, "split"), "intensity": "strong"},
        "the split is not stated",
    ),
    "surrogate": ({**CLINICAL, "text": "a \ud800"}, "lone surrogate"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_name_file_line_and_id(tmp_path, case):
    row, message = BAD_ROWS[case]
    path = lines(tmp_path / "b.jsonl", row, NEUTRAL)
    with pytest.raises(StimulusError, match=message) as caught:
        load_battery(path)
    assert str(path) in str(caught.value)


def test_broken_pairing_names_file_and_line(tmp_path):
    path = lines(tmp_path / "b.jsonl", {**CLINICAL, "matched_control_id": "N-2"}, NEUTRAL)
    with pytest.raises(StimulusError, match=r"b\.jsonl, line 1, id 'V-1': .*did you mean 'N-1'"):
        load_battery(path)


def test_variants_and_the_new_splits_are_read(tmp_path):
    retold = {**without(CLINICAL, "matched_control_id", "intensity"), "variant_of": "V-1"}
    rows = [
        CLINICAL,
        NEUTRAL,
        {**retold, "id": "P-1", "split": "paraphrase"},
        {**retold, "id": "M-1", "split": "moderate"},
        {**retold, "id": "L-1", "split": "labelled", "variant_of": ""},
    ]
    battery = load_battery(lines(tmp_path / "b.jsonl", *rows))
    assert [i.variant_of for i in battery.items] == [None, None, "V-1", "V-1", None]
    assert [i.intensity for i in battery.unpaired] == ["unrated", "moderate", "unrated"]
    assert [i.id for i in battery.variants("V-1")] == ["P-1", "M-1"]


def test_a_file_named_after_a_split_gives_it(tmp_path):
    rows = [without(CLINICAL, "split", "matched_control_id", "intensity")]
    assert load_battery(lines(tmp_path / "labelled.jsonl", *rows)).items[0].split == "labelled"


def test_labels_of_a_scheme(tmp_path):
    neutral = without(NEUTRAL, "emotion")
    path = lines(tmp_path / "b.jsonl", {**CLINICAL, "emotion": "sadness"}, neutral)
    assert load_battery(path, scheme="ekman").emotions == ("grief",)
    with pytest.raises(StimulusError, match="or name the scheme it comes from"):
        load_battery(path)
    path = lines(tmp_path / "c.jsonl", {**CLINICAL, "emotion": "remorse"}, neutral)
    with pytest.raises(StimulusError, match="'remorse' of goemotions has no counterpart"):
        load_battery(path, scheme="goemotions")
    battery = load_battery(path, scheme="goemotions", aliases={"remorse": "grief"})
    assert battery.emotions == ("grief",)


def test_valence_labels(tmp_path):
    rows = [{**CLINICAL, "emotion": "Negative"}, {**NEUTRAL, "emotion": "negative"}]
    battery = load_battery(lines(tmp_path / "b.jsonl", *rows))
    assert (battery.emotions, battery.clusters) == (("negative",), ("negative/1",))
