"""Reading and writing batteries: layouts, formats, and every way a file can be wrong."""

import csv
import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data import battery_files
from affectlens.data.battery_files import write_battery
from affectlens.data.errors import StimulusError
from affectlens.data.stimuli import Stimulus, load_battery, make_battery

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


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_embedded_battery_survives_every_format(tmp_path, suffix):
    battery = load_battery()
    path = write_battery(battery, tmp_path / f"copy.{suffix}")
    again = load_battery(path)
    assert (again.items, again.sha256) == (battery.items, battery.sha256)
    assert again.warnings == ()


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40
).filter(str.strip)


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), label=TEXTS)
def test_any_text_survives_every_format(tmp_path_factory, texts, label):
    folder = tmp_path_factory.mktemp("formats")
    items = [
        Stimulus(f"c-{n}", "neutral", "none", "", label, None, len(t.split()), t, "complex_neutral")
        for n, t in enumerate(texts)
    ]
    battery = make_battery("b", items, "test")
    for suffix in ("jsonl", "csv", "parquet"):
        again = load_battery(write_battery(battery, folder / f"b.{suffix}"))
        assert again.items == battery.items


@settings(deadline=None, max_examples=50)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_arbitrary_bytes_give_a_battery_or_a_stimulus_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("noise")
    for suffix in ("jsonl", "csv", "parquet"):
        path = folder / f"noise.{suffix}"
        path.write_bytes(data)
        with pytest.raises(StimulusError):
            load_battery(path)


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


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    for suffix in ("jsonl", "csv"):
        path = write_battery(load_battery().select(limit=2), tmp_path / f"a.{suffix}")
        data = path.read_bytes()
        path.write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") + b"\r\n\r\n")
        assert load_battery(path).items == load_battery().select(limit=2).items


def test_formula_cells_stay_text(tmp_path):
    text = '=HYPERLINK("http://example.org"),"+1"'
    item = Stimulus("=1+1", "neutral", "none", "", "@x", None, 1, text, "complex_neutral")
    path = write_battery(make_battery("b", [item], "t"), tmp_path / "b.csv")
    assert load_battery(path).items == (item,)


def test_line_separators_inside_a_string_do_not_cut_the_line(tmp_path):
    row = {**CLINICAL, "text": "one\u2028two\u0085three four"}
    path = tmp_path / "b.jsonl"
    path.write_text(
        "\n".join(json.dumps(r, ensure_ascii=False) for r in (row, NEUTRAL)), encoding="utf-8"
    )
    assert load_battery(path).items[0].text == row["text"]


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
        load_battery(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


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


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_empty_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"b.{suffix}"
    path.write_text("id,text\n" if suffix == "csv" else "\n")
    with pytest.raises(StimulusError, match="has no items"):
        load_battery(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id;text\n", "the header lacks 'id' or 'text'.*separated by commas"),
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
        load_battery(path)


def test_not_utf8_names_the_line(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"id": "a"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(StimulusError, match="line 2: byte 0xe9 is not UTF-8"):
        load_battery(path)


def test_unknown_suffixes_are_refused(tmp_path):
    path = tmp_path / "b.xlsx"
    path.write_bytes(b"x")
    with pytest.raises(StimulusError, match=r"'\.xlsx' is not known; allowed: \.jsonl"):
        load_battery(path)
    with pytest.raises(StimulusError, match=r"holds no [.]jsonl"):
        load_battery(tmp_path)
    with pytest.raises(StimulusError, match="cannot write a battery as 'txt'"):
        write_battery(load_battery(), tmp_path / "b.txt")


def test_same_items_in_two_files_are_refused(tmp_path):
    for suffix in ("csv", "jsonl"):
        write_battery(load_battery().select(limit=1), tmp_path / f"b.{suffix}")
    with pytest.raises(StimulusError, match=r"b\.jsonl, line 1.*used before \(.*b\.csv, line 2\)"):
        load_battery(tmp_path)


def test_folder_card_states_name_licence_and_aliases(tmp_path):
    lines(tmp_path / "items.jsonl", {**CLINICAL, "emotion": "sorrow"}, {**NEUTRAL, "emotion": "-"})
    card = {"name": "mine", "licence": "CC0-1.0", "aliases": {"sorrow": "grief", "-": "neutral"}}
    (tmp_path / "battery.json").write_text(json.dumps(card))
    battery = load_battery(tmp_path)
    assert (battery.name, battery.licence, battery.emotions) == ("mine", "CC0-1.0", ("grief",))
    assert load_battery(tmp_path / "items.jsonl", aliases=card["aliases"]).emotions == ("grief",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be one JSON object"),
        ('{"license": "MIT"}', "unknown key 'license'; allowed: name, licence"),
        ('{"name": 3}', "'name' must be a str"),
        ('{"aliases": {"joy": 1}}', "every alias must map"),
    ],
)
def test_bad_folder_card(tmp_path, content, message):
    lines(tmp_path / "items.jsonl", CLINICAL, NEUTRAL)
    (tmp_path / "battery.json").write_text(content)
    with pytest.raises(StimulusError, match=message):
        load_battery(tmp_path)


COMMIT = "1e24598" + "0" * 33


def fake_hub(monkeypatch, commits, splits, seen):
    class Hub:
        def dataset_info(self, repository, revision=None):
            return SimpleNamespace(sha=commits[0] if revision is None else "b" * 40)

        def list_repo_commits(self, repository, repo_type):
            return [SimpleNamespace(commit_id=c) for c in commits]

    def load_dataset(repository, revision):
        seen.append((repository, revision))
        return splits

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Hub))


def hub_splits():
    return {
        "neutral": [{**without(NEUTRAL, "split"), "emotion": "neutral"}],
        "clinical": [without(CLINICAL, "split")],
    }


@pytest.mark.parametrize(
    ("name", "commit"),
    [
        ("aipsy-affect", COMMIT),
        ("aipsy-affect@main", "b" * 40),
        ("aipsy-affect@" + "c" * 40, "c" * 40),
    ],
)
def test_hub_battery_records_the_commit(monkeypatch, name, commit):
    seen = []
    fake_hub(monkeypatch, ["a" * 40, COMMIT], hub_splits(), seen)
    battery = load_battery(name)
    assert seen == [("keidolabs/aipsy-affect", commit)]
    assert battery.source == f"hub:keidolabs/aipsy-affect@{commit}"
    assert (battery.name, battery.licence, len(battery.pairs)) == ("aipsy-affect", "MIT", 1)


def test_hub_battery_errors_say_what_to_do(monkeypatch):
    fake_hub(monkeypatch, ["a" * 40], hub_splits(), [])
    with pytest.raises(StimulusError, match=r"1e24598 is not in its history.*pass their folder"):
        load_battery("aipsy-affect")

    def offline(*args, **kwargs):
        raise ConnectionError("Name or service not known\nmore")

    monkeypatch.setattr(battery_files, "_commit", offline)
    with pytest.raises(StimulusError, match="ConnectionError: Name or service not known\\); down"):
        load_battery("aipsy-affect")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StimulusError, match="pip install datasets"):
        load_battery("aipsy-affect")


def test_failed_write_leaves_the_old_file(tmp_path):
    path = write_battery(load_battery().select(limit=1), tmp_path / "b.csv")
    before = path.read_bytes()
    broken = load_battery().select(limit=2)
    items = (replace(broken.items[0], text="\ud800"),)
    with pytest.raises(UnicodeEncodeError):
        write_battery(replace(broken, items=items), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b.csv"]


def test_written_columns_are_the_fields_of_a_stimulus(tmp_path):
    path = write_battery(load_battery(), tmp_path / "b.jsonl")
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert first == asdict(load_battery().items[0])
