"""Ratings files: what is written is read, what is torn is counted, what is foreign is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.data import ratings
from affectlens.data.errors import MachineError, StimulusError
from affectlens.data.ratings import (
    ANSWERS,
    GAP,
    KEYS,
    Rating,
    intents,
    open_log,
    presentation_order,
    read_answers,
    read_ratings,
    text_sha256,
)
from affectlens.data.stimuli import Battery, Stimulus, load_battery, make_battery
from affectlens.data.taxonomy import EMOTIONS


def battery(n_pairs: int, n_single: int = 0) -> Battery:
    items = []
    for k in range(n_pairs):
        emotion = EMOTIONS[k % 8]
        for kind, split in (("V", "clinical"), ("N", "neutral")):
            control = f"N-{k}" if kind == "V" else None
            text = f"Text {kind} number {k}."
            items.append(
                Stimulus(f"{kind}-{k}", emotion, "", "1", "", control, 4, text, split)  # type: ignore[arg-type]
            )
    items += [
        Stimulus(f"C-{k}", "neutral", "", "", "", None, 2, f"Single {k}.", "complex_neutral")
        for k in range(n_single)
    ]
    return make_battery("made", items, "test")


def rating(made: Battery, index: int, **changes: object) -> Rating:
    item = made.items[index]
    return Rating.model_validate(
        {
            "item": item.id,
            "text_sha256": text_sha256(item.text),
            "rater": "anna",
            "emotion": "grief",
            "intensity": 3,
            "seconds": 1.5,
            "time": "2026-01-31T12:00:00+00:00",
            **changes,
        }
    )


def test_keys_are_the_eight_emotions_neutral_and_other():
    assert [KEYS[str(k)] for k in range(1, 9)] == list(EMOTIONS)
    assert (KEYS["9"], KEYS["0"]) == ("neutral", "other")
    assert list(ANSWERS) == [*EMOTIONS, "neutral", "other"]


def test_what_is_added_is_read_back(tmp_path):
    made = battery(2)
    path = tmp_path / "deep" / "anna.jsonl"
    rows = [rating(made, 0), rating(made, 1, emotion="other", comment='odd, "quoted" — ü')]
    with open_log(path, made, "anna") as log:
        for row in rows:
            log.add(row)
            assert read_ratings(path).rows[-1] == row
    found = read_ratings(path)
    assert (found.rows, found.lines, found.n_torn) == (tuple(rows), (1, 2), 0)
    assert found.raters == ("anna",)
    assert set(json.loads(path.read_text().splitlines()[0])) == set(Rating.model_fields)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0, max_value=10_000))
def test_a_file_cut_anywhere_loses_at_most_one_answer(tmp_path_factory, cut):
    made = battery(3)
    path = tmp_path_factory.mktemp("cut") / "anna.jsonl"
    rows = [rating(made, k, comment="ä" * k) for k in range(4)]
    with open_log(path, made, "anna") as log:
        for row in rows:
            log.add(row)
    data = path.read_bytes()
    kept = data[: cut % (len(data) + 1)]
    path.write_bytes(kept)
    whole = kept.count(b"\n")
    with open_log(path, made, "anna") as log:
        assert len(log.rows) in (whole, whole + 1)
        assert log.n_torn == int(
            not kept.endswith(b"\n") and len(log.rows) == whole and kept != b""
        )
        assert log.rows == tuple(rows[: len(log.rows)])
        for row in rows[len(log.rows) :]:
            log.add(row)
    assert path.read_bytes() == data


def test_undo_reaches_into_the_file(tmp_path):
    made = battery(2)
    path = tmp_path / "anna.jsonl"
    with open_log(path, made, "anna") as log:
        log.add(rating(made, 0))
        log.add(rating(made, 1))
    with open_log(path, made, "anna") as log:
        assert log.undo() == rating(made, 1)
        assert read_ratings(path).rows == (rating(made, 0),)
        log.add(rating(made, 2))
        assert log.undo() == rating(made, 2)
        assert log.undo() == rating(made, 0)
        assert log.undo() is None
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    made = battery(2)
    path = tmp_path / "anna.jsonl"
    real = ratings.os.write

    def short(descriptor: int, data: bytes) -> int:
        if len(data) <= 10:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:10])

    with open_log(path, made, "anna") as log:
        log.add(rating(made, 0))
        before = path.read_bytes()
        monkeypatch.setattr(ratings.os, "write", short)
        with pytest.raises(MachineError, match="disk is full"):
            log.add(rating(made, 1))
        assert path.read_bytes() == before
        assert len(log.rows) == 1


def test_foreign_files_are_refused(tmp_path):
    made, path = battery(2), tmp_path / "anna.jsonl"
    with open_log(path, made, "anna") as log:
        log.add(rating(made, 0))
        with pytest.raises(MachineError, match="another sitting"), open_log(path, made, "anna"):
            pass
    with (
        pytest.raises(StimulusError, match="holds answers by 'anna', not by 'ben'"),
        open_log(path, made, "ben"),
    ):
        pass
    other = make_battery(
        "other",
        [Stimulus("V-0", "neutral", "", "", "", None, 2, "Another text.", "complex_neutral")],
        "test",
    )
    with (
        pytest.raises(
            StimulusError, match=r"does not belong to battery 'other'.* line 1: the text"
        ),
        open_log(path, other, "anna"),
    ):
        pass
    with pytest.raises(StimulusError, match="has no item 'V-0'"):
        read_ratings(path).check(load_battery())
    assert len(read_ratings(path).rows) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emotion": "joy"}, "line 2: emotion"),
        ({"intensity": 7}, "line 2: intensity"),
        ({"intensity": 2.5}, "line 2: intensity"),
        ({"intensity": True}, "line 2: intensity"),
        ({"seconds": -1}, "line 2: seconds"),
        ({"text_sha256": "abc"}, "line 2: text_sha256"),
        ({"time": "yesterday"}, "line 2: time"),
        ({"time": "2026-01-31T12:00:00+02:00"}, "must be in UTC"),
        ({"rater": ""}, "line 2: rater"),
        ({"extra": 1}, "line 2: extra"),
        ({"item": "V-0"}, r"line 2: 'anna' answered item 'V-0' before \(line 1\)"),
    ],
)
def test_malformed_rows_are_named_with_file_and_line(tmp_path, change, message):
    made, path = battery(2), tmp_path / "anna.jsonl"
    lines = [rating(made, 0).model_dump(), {**rating(made, 1).model_dump(), **change}]
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    with pytest.raises(StimulusError, match=message) as error:
        read_ratings(path)
    assert str(path) in str(error.value)


def test_broken_lines_in_the_middle_and_absent_files(tmp_path):
    made, path = battery(2), tmp_path / "anna.jsonl"
    line = json.dumps(rating(made, 0).model_dump())
    path.write_text(line[:20] + "\n" + line + "\n")
    with pytest.raises(StimulusError, match="line 1: not one JSON object"):
        read_ratings(path)
    path.write_text('\n[1]\n3\n"x"\n')
    with pytest.raises(StimulusError, match="3 problems"):
        read_ratings(path)
    with pytest.raises(StimulusError, match="cannot be read"):
        read_ratings(tmp_path / "absent.jsonl")


def test_what_a_row_need_not_say(tmp_path):
    made, path = battery(2), tmp_path / "r.jsonl"
    few = {"item": "V-0", "text_sha256": text_sha256(made.items[0].text), "rater": "x"}
    path.write_text(json.dumps({**few, "emotion": "rage"}) + "\r\n\n")
    (row,) = read_ratings(path).rows
    assert (row.intensity, row.seconds, row.time, row.comment) == (None, None, None, "")


def test_answers_to_import_are_filled_in(tmp_path):
    made, path = battery(2), tmp_path / "answers.jsonl"
    path.write_text(
        '{"item": "V-0", "emotion": 1, "intensity": 4}\n{"item": "N-1", "emotion": "9"}'
    )
    found = read_answers(path, made, "anna")
    assert [(r.rater, r.item, r.emotion) for r in found.rows] == [
        ("anna", "V-0", "rage"),
        ("anna", "N-1", "neutral"),
    ]
    assert found.rows[0].text_sha256 == text_sha256(made.items[0].text)
    for text, message in [
        ('{"item": "V-9", "emotion": 1}\n', "has no item 'V-9'"),
        ('{"item": 3, "emotion": 1}\n', "line 1: item"),
        ('{"item": "V-0", "emotion": 11}\n', "line 1: emotion"),
        ('{"item": "V-0", "emotion": 1, "rater": "ben"}\n', "not by 'anna'"),
    ]:
        path.write_text(text)
        with pytest.raises(StimulusError, match=message):
            read_answers(path, made, "anna")


def retold(n_pairs: int) -> Battery:
    """Pairs, a single item, and for each pair a paraphrase of either member and a moderate item."""
    made = battery(n_pairs, n_single=1)
    items = list(made.items)
    for pair in made.pairs:
        for origin, split in (
            (pair.clinical, "paraphrase"),
            (pair.neutral, "paraphrase"),
            (pair.clinical, "moderate"),
        ):
            name, text = f"{split}-{origin.id}", f"{split} of {origin.text}"
            items.append(
                Stimulus(
                    name, pair.emotion, "", "1", "", None, 6, text, split, variant_of=origin.id  # type: ignore[arg-type]
                )
            )  # fmt: skip
    return make_battery("retold", items, "test")


@pytest.mark.parametrize("n_pairs", [1, 5, 14, 40])
def test_all_tellings_of_a_scene_are_far_apart(n_pairs):
    made = retold(n_pairs)
    for seed in range(5):
        order = presentation_order(made, np.random.default_rng(seed))
        assert sorted(order) == sorted(i.id for i in made.items)
        place = {name: k for k, name in enumerate(order)}
        for pair in made.pairs:
            told = [pair.clinical.id, pair.neutral.id]
            told += [i.id for i in made.items if i.variant_of in told]
            gaps = np.diff(sorted(place[name] for name in told)) - 1
            assert len(gaps) == 4
            assert gaps.min() >= min(GAP, n_pairs - 1)


def test_intent():
    made = retold(1)
    assert list(intents(made).values()) == ["rage", "neutral", "neutral", "rage", "neutral", "rage"]


def gaps(made: Battery, order: tuple[str, ...]) -> list[int]:
    place = {name: k for k, name in enumerate(order)}
    return [abs(place[p.clinical.id] - place[p.neutral.id]) - 1 for p in made.pairs]


@settings(max_examples=40, deadline=None)
@given(n_pairs=st.integers(0, 60), n_single=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_members_of_a_pair_are_far_apart(n_pairs, n_single, seed):
    made = battery(n_pairs, n_single)
    order = presentation_order(made, np.random.default_rng(seed))
    assert sorted(order) == sorted(i.id for i in made.items)
    if n_pairs:
        assert min(gaps(made, order)) >= min(GAP, n_pairs - 1)


def test_order_depends_on_the_generator_alone_and_hides_the_side():
    made = load_battery()
    one = presentation_order(made, np.random.default_rng(1))
    assert one == presentation_order(made, np.random.default_rng(1))
    assert one != presentation_order(made, np.random.default_rng(2))
    clinical = {p.clinical.id for p in made.pairs}
    members = clinical | {p.neutral.id for p in made.pairs}
    first = []
    for seed in range(10):
        order = presentation_order(made, np.random.default_rng(seed))
        early = [name for name in order if name in members][: len(made.pairs)]
        first.append(np.mean([name in clinical for name in early]))
    assert np.mean(first) == pytest.approx(0.5, abs=0.06)


def test_no_second_reading_of_an_unknown_battery(tmp_path: Path):
    assert ratings.second_reading("nothing") is None
