"""Reading and writing batteries: formats, folders, cards, the hub."""

import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

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


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_empty_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"b.{suffix}"
    path.write_text("id,text\n" if suffix == "csv" else "\n")
    with pytest.raises(StimulusError, match="has no items"):
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
