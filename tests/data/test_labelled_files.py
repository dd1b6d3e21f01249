"""Label files: text with label or labels, the original GoEmotions files, what is left out."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import load_battery
from affectlens.data.taxonomy import GOEMOTIONS

ROWS = [
    ("The cake rose twice as high as I hoped.", "joy"),
    ("The bus left at nine.", "neutral"),
    ("I never rang her back.", "remorse"),
    ("Nobody told me about the wall.", "surprise"),
    ("I should have rung.", "remorse"),
]


def write(path, header, rows):
    if path.suffix == ".parquet":
        values = [dict(zip(header, row, strict=True)) for row in rows]
        pq.write_table(pa.Table.from_pylist(values), path)
    elif path.suffix == ".jsonl":
        values = [dict(zip(header, row, strict=True)) for row in rows]
        path.write_text("".join(json.dumps(v) + "\n" for v in values), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as handle:
            mark = "\t" if path.suffix == ".tsv" else ","
            csv.writer(handle, delimiter=mark).writerows([header, *rows])
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_labels_of_a_scheme_in_every_format(tmp_path, suffix):
    path = write(tmp_path / f"reddit.{suffix}", ("text", "label"), ROWS)
    battery = load_battery(path, scheme="goemotions")
    assert battery.pairs == ()
    assert battery.emotions == ("ecstasy", "amazement")
    assert [(i.id, i.emotion, i.intensity) for i in battery.items] == [
        ("reddit-1", "ecstasy", "unrated"),
        ("reddit-2", "neutral", "none"),
        ("reddit-4", "amazement", "unrated"),
    ]
    assert {i.split for i in battery.items} == {"labelled"}
    assert battery.warnings == (
        "2 rows whose label has no counterpart among the emotions were left out: remorse (2)",
    )


@pytest.mark.parametrize(
    ("suffix", "several", "none"),
    [("jsonl", ["joy", "love"], []), ("parquet", ["joy", "love"], []), ("csv", "joy, love", ""),
     ("tsv", "['joy', 'love']", "[]")],
)  # fmt: skip
def test_several_labels_and_none_are_left_out_and_counted(tmp_path, suffix, several, none):
    one = ["joy"] if isinstance(several, list) else "joy"
    rows = [("a", several), ("b", none), ("c", one)]
    path = write(tmp_path / f"b.{suffix}", ("text", "labels"), rows)
    battery = load_battery(path, scheme="ekman", aliases={"love": "joy"})
    assert battery.texts == ("c",)
    assert battery.warnings == (
        "1 rows with several labels were left out: joy + love (1)",
        "1 rows without a label were left out: no label (1)",
    )


def test_numbers_are_names_in_goemotions_only(tmp_path):
    path = write(
        tmp_path / "b.parquet", ("text", "labels", "id"), [("a", [17], "x"), ("b", [27], "y")]
    )
    battery = load_battery(path, scheme="goemotions")
    assert [(i.id, i.emotion) for i in battery.items] == [("x", "ecstasy"), ("y", "neutral")]
    with pytest.raises(StimulusError, match="row 1, id 'x': 'labels' holds the number 17"):
        load_battery(path)
    path = write(tmp_path / "c.csv", ("text", "labels"), [("a", "28"), ("b", "7")])
    with pytest.raises(StimulusError, match="label number 28 is not one of 0 to 27"):
        load_battery(path, scheme="goemotions")


def test_own_names_and_valences_need_no_scheme(tmp_path):
    path = write(tmp_path / "b.csv", ("text", "label"), [("a", "Positive"), ("b", "grief")])
    assert load_battery(path).emotions == ("grief", "positive")


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (
            ("text", "label"),
            ("a", "joi"),
            "line 2, id 'b-1': unknown label of ekman 'joi'; nearest: 'joy'",
        ),
        (("text", "label", "labels"), ("a", "joy", "joy"), "has both columns label and labels"),
        (("text", "label"), (" ", "joy"), "line 2, id 'b-1': the text is empty"),
        (("text", "label"), ("", "joy"), "line 2, id 'b-1': the field 'text' is missing"),
        (("text", "label", "text_id"), ("a", "joy", ""), "line 2: the field 'text_id' is missing"),
        (("text", "label"), ("a", "3"), "'label' holds the number 3; write the label's name"),
        (("text", "label"), ("a", ""), "no item is left. 1 rows without a label were left out"),
    ],
)
def test_bad_rows_name_the_line(tmp_path, header, row, message):
    path = write(tmp_path / "b.csv", header, [row])
    with pytest.raises(StimulusError, match=message):
        load_battery(path, scheme="ekman")


def test_a_file_without_labels_is_refused(tmp_path):
    path = write(tmp_path / "b.csv", ("text", "mood"), [("a", "joy")])
    with pytest.raises(StimulusError, match="line 1: no column label or labels"):
        load_battery(path, layout="labels")
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "a", "label": ["joy"]}\n')
    with pytest.raises(StimulusError, match=r"'label' must name a label, got \['joy'\]"):
        load_battery(path, scheme="ekman")


GOEMOTIONS_FILE = (
    "The cake rose.\t17\tc1\n"
    '"He said ""no"" twice."\t2\tc2\r\n'
    "Say that you like her\t5,27\tc3\n"
    "I should have rung.\t24\tc4\n"
    'Six " of rope.\t27\tc5\n'
)


def test_original_goemotions_files(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text(GOEMOTIONS_FILE, newline="")
    battery = load_battery(path)
    assert [(i.id, i.emotion, i.text) for i in battery.items] == [
        ("c1", "ecstasy", "The cake rose."),
        ("c2", "rage", 'He said "no" twice.'),
        ("c5", "neutral", 'Six " of rope.'),
    ]
    assert battery.warnings == (
        "1 rows with several labels were left out: caring + neutral (1)",
        "1 rows whose label has no counterpart among the emotions were left out: remorse (1)",
    )
    assert load_battery(path, layout="goemotions").sha256 == battery.sha256


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("text\tlabel\tid", "line 2: not text, label numbers"),
        ("a\t17", "line 2: not text, label numbers"),
        ("a\t28\tx", "line 2, id 'x': label number 28"),
        ("\t17\tx", "line 2, id 'x': the field 'text' is missing"),
        ("a\t17\tc1", r"this id was used before \(.*dev.tsv, line 1\)"),
    ],
)
def test_bad_goemotions_lines(tmp_path, line, message):
    path = tmp_path / "dev.tsv"
    path.write_text(f"The cake rose.\t17\tc1\n{line}\n")
    with pytest.raises(StimulusError, match=message):
        load_battery(path)


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=40
).filter(str.strip)


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_any_text_survives(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("labels")
    rows = [(text, "rage") for text in texts]
    for suffix in ("csv", "jsonl", "parquet"):
        path = write(folder / f"b.{suffix}", ("text", "label"), rows)
        assert load_battery(path).texts == tuple(texts)
    plain = [t for t in texts if not set(t) & set('\t\n"')]
    path = folder / "original.tsv"
    body = "".join(f"{t}\t{n % 28}\tid{n}\n" for n, t in enumerate(plain, start=26))
    path.write_text(body or "x\t27\ty\n", encoding="utf-8", newline="")
    try:
        found = load_battery(path)
    except StimulusError as error:
        assert "no item is left" in str(error)
    else:
        assert set(found.texts) <= {*plain, "x"}


@given(st.sampled_from(GOEMOTIONS))
def test_numbers_stand_for_the_published_order(name):
    assert GOEMOTIONS[GOEMOTIONS.index(name)] == name
    assert list(GOEMOTIONS[:27]) == sorted(GOEMOTIONS[:27])
