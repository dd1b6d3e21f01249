"""Texts with appraisals: which columns are ratings, what is left out, every way to be wrong."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.appraisals import APPRAISALS, load_appraised
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import load_battery

HEADER = ("round_number", "emotion", "text_id", "age", "joy", "generated_text", "hidden_emo_text",
          "intensity", "suddenness", "effort", "novelty", "calm")  # fmt: skip
ROWS = [
    ("r1", "joy", "21", "34", "5", "The ferry came early.", "...", "4", "3", "1", "2", "7"),
    ("r1", "guilt", "22", "51", "1", "I kept the change.", "...", "2", "2", "4", "1", "3"),
    ("r2", "no-emotion", "23", "18", "1", "The ferry came at six.", "...", "1", "1", "", "5", "2"),
    ("r2", "trust", "24", "40", "3", "She held the ladder.", "...", "3", "1.5", "2", "3", "1"),
]


def write(path, header=HEADER, rows=ROWS):
    mark = "\t" if path.suffix == ".tsv" else ","
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=mark).writerows([header, *rows])
    return path


def changed(row, **values):
    return tuple(values.get(name, cell) for name, cell in zip(HEADER, ROWS[row], strict=True))


def test_the_corpus_has_21_appraisals():
    assert len(APPRAISALS) == len(set(APPRAISALS)) == 21


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_ratings_of_the_items_that_are_kept(tmp_path, suffix):
    path = write(tmp_path / f"corpus.{suffix}")
    found = load_appraised(path)
    assert list(found.appraisals.columns) == ["suddenness", "effort", "novelty"]
    assert list(found.appraisals.index) == [i.id for i in found.battery.items] == ["21", "23", "24"]
    assert found.appraisals.index.name == "id"
    expected = [[3, 1, 2], [1, np.nan, 5], [1.5, 2, 3]]
    np.testing.assert_array_equal(found.appraisals.to_numpy(), np.array(expected))
    assert [i.emotion for i in found.battery.items] == ["ecstasy", "neutral", "admiration"]
    assert found.battery.texts[0] == "The ferry came early."
    left, unused, missing = found.battery.warnings
    assert left.endswith("were left out: guilt (1)")
    assert "calm (4 items), hidden_emo_text (4 items), intensity (4 items)" in unused
    assert missing == "1 ratings are missing: effort (1)"
    assert load_battery(path).sha256 == found.battery.sha256
    assert load_battery(path, layout="appraisals").sha256 == found.battery.sha256


def test_other_names_of_the_text_and_another_scheme(tmp_path):
    header = ("text", "emotion", "pleasantness", "urgency", "effort")
    path = write(
        tmp_path / "b.csv", header, [("Rain.", "remorse", 1, 2, 3), ("Sun.", "joy", 5, 1, 1)]
    )
    found = load_appraised(path, scheme="goemotions", aliases={"remorse": "grief"})
    assert found.battery.emotions == ("grief", "ecstasy")
    assert list(found.appraisals.index) == ["b-1", "b-2"]
    header = ("hidden_emo_text", "emotion", "effort")
    assert load_appraised(write(tmp_path / "c.csv", header, [("Rain.", "joy", 3)])).appraisals.shape


BAD = {
    "no number": ([changed(0, effort="high")], "line 2, id '21': 'effort' must be a number from 1"),
    "off the scale": ([ROWS[1], changed(0, effort="0")], "line 3, id '21': .*got '0'"),
    "label": ([changed(0, emotion="jy")], "unknown label of crowd-envent 'jy'"),
    "no text": ([changed(0, generated_text="")], "the field 'generated_text' is missing"),
    "no label": ([changed(0, emotion="")], "the field 'emotion' is missing"),
    "twice": ([ROWS[0], ROWS[0]], "this id was used before"),
    "nothing left": ([ROWS[1]], "no item is left"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_name_the_line(tmp_path, case):
    rows, message = BAD[case]
    path = write(tmp_path / "b.tsv", rows=rows)
    with pytest.raises(StimulusError, match=message) as caught:
        load_appraised(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("generated_text", "label"), "no column emotion with one of generated_text, text, hidden"),
        (("generated_text", "emotion"), "no column of appraisals"),
        (("emotion", "effort"), "no column emotion with one of"),
    ],
)
def test_files_without_the_columns(tmp_path, header, message):
    path = write(tmp_path / "b.csv", header, [("joy", "joy")])
    with pytest.raises(StimulusError, match=message):
        load_appraised(path)
    with pytest.raises(StimulusError, match="is a folder; name the file"):
        load_appraised(tmp_path)


@settings(deadline=None, max_examples=30)
@given(
    text=st.text(
        st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=30
    ).filter(str.strip),
    rating=st.floats(1, 5),
)
def test_any_text_and_rating_survive(tmp_path_factory, text, rating):
    path = tmp_path_factory.mktemp("appraised") / "b.csv"
    write(path, ("generated_text", "emotion", "effort"), [(text, "fear", repr(rating))])
    found = load_appraised(path)
    assert found.battery.texts == (text,)
    assert found.appraisals.loc["b-1", "effort"] == rating


@settings(deadline=None, max_examples=40)
@given(data=st.one_of(st.binary(max_size=120), st.text(max_size=120).map(str.encode)))
def test_arbitrary_bytes_are_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("noise")
    for suffix in ("tsv", "csv", "jsonl", "parquet"):
        path = folder / f"noise.{suffix}"
        path.write_bytes(data)
        with pytest.raises(StimulusError):
            load_appraised(path)
