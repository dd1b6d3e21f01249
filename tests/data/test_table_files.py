"""Reading rows: places in messages, quotes, line ends, and every way a file can be no table."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data.errors import StimulusError
from affectlens.data.table_files import SUFFIXES, read_table

ANY = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
# Tabs and line ends in one cell are what a .tsv file cannot always tell from rows.
CELL = ANY.filter(lambda t: "\r" not in t and not ("\n" in t and "\t" in t))


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(CELL, min_size=1, max_size=4))
def test_any_cell_survives_with_commas_and_with_tabs(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("cells")
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        path = folder / f"t{suffix}"
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, delimiter=mark, quoting=csv.QUOTE_ALL)
            writer.writerows([["n", "text"], *([str(n), t] for n, t in enumerate(texts))])
        table = read_table(path)
        assert [row.values["text"] for row in table.rows] == texts
        assert (table.columns, table.warnings) == (("n", "text"), ())


@settings(deadline=None, max_examples=50)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_arbitrary_bytes_give_a_table_or_a_stimulus_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("noise")
    for suffix in SUFFIXES:
        path = folder / f"noise{suffix}"
        path.write_bytes(data)
        try:
            table = read_table(path)
        except StimulusError as error:
            assert str(path) in str(error)
        else:
            assert all(set(row.values) <= set(table.columns) for row in table.rows)


def test_lone_quotes_of_a_tsv_file_are_characters(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('id\ttext\na\t"Stop", she said.\nb\tHe took 5" of rope.\n')
    table = read_table(path)
    assert [row.values["text"] for row in table.rows] == [
        '"Stop", she said.',
        'He took 5" of rope.',
    ]
    assert "quotation marks are read as characters" in table.warnings[0]
    assert table.rows[1].where == f"{path}, line 3"


def test_a_quote_that_would_swallow_lines_is_a_character(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('id\ttext\na\t"open\nb\tclosed"\n')
    assert [row.values["text"] for row in read_table(path).rows] == ['"open', 'closed"']


def test_columns_of_json_lines_are_the_keys_of_all_rows(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n\n{"b": 2, "a": 3}\n')
    table = read_table(path)
    assert table.columns == ("a", "b")
    assert [row.where for row in table.rows] == [f"{path}, line 1", f"{path}, line 3"]


def test_line_separators_inside_a_string_do_not_cut_the_line(tmp_path):
    path = tmp_path / "t.jsonl"
    row = {"text": "one\u2028two\u0085three four"}
    path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert read_table(path).rows[0].values == row


def test_unreadable_and_unknown_files(tmp_path):
    with pytest.raises(StimulusError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(
        StimulusError, match=r"'\.txt' is not known; allowed: \.jsonl, \.csv, \.tsv"
    ):
        read_table(tmp_path / "b.txt")


BAD_LINES = {
    "bad json": ('{"id": "x"', "line 1: not a JSON object on one line"),
    "not an object": ("[1, 2]", "line 1: a JSON list; each line must be one JSON object"),
    "twice a key": ('{"id": "x", "id": "y"}', "the key 'id' occurs twice"),
    "nan": ('{"id": "x", "domain": NaN}', "NaN is not JSON; use null"),
    "deep": ("[" * 100_000, "line 1: not a JSON object"),
    "long number": ('{"id": ' + "9" * 5000 + "}", "line 1: not a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_json_names_the_line(tmp_path, case):
    line, message = BAD_LINES[case]
    path = tmp_path / "b.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(StimulusError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text,id\n", "columns named twice: id"),
        ("id,text\nx,a,b\n", "line 2: 3 cells under 2 columns"),
        ('id,text\nx,"a\nb"\ny\n', "line 4: 1 cells under 2 columns"),
        ('id,text\nx,"a\n', "line 2: not valid CSV"),
        ("id,text\nx," + "a" * 200_000, "line 2: not valid CSV"),
    ],
)
def test_bad_csv_names_the_line(tmp_path, content, message):
    path = tmp_path / "b.csv"
    path.write_text(content)
    with pytest.raises(StimulusError, match=message):
        read_table(path)


def test_not_utf8_names_the_line(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"id": "a"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(StimulusError, match="line 2: byte 0xe9 is not UTF-8"):
        read_table(path)
