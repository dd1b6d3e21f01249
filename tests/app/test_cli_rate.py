"""`affectlens battery rate`: questions, going on, undoing, importing, summing up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from affectlens.cli_battery_rate import Sitting, order_of
from affectlens.data import ratings
from affectlens.data.ratings import intents, open_log, read_ratings, text_sha256
from affectlens.data.stimuli import load_battery

Cli = Callable[..., Any]
BATTERY = load_battery()
MEANT = intents(BATTERY)
ITEMS = {i.id: i for i in BATTERY.items}


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend to be a terminal at which these lines are typed."""

    def set_lines(*lines: str) -> None:
        left: Iterator[str] = iter(lines)

        def read(_: str) -> str:
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", read)
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)

    return set_lines


def order(rater: str = "anna", seed: int = 0) -> tuple[str, ...]:
    return order_of(BATTERY, rater, seed)


def test_a_sitting_is_written_and_gone_on_with(cli: Cli, typed, tmp_path: Path) -> None:
    out = tmp_path / "r" / "anna.jsonl"
    words = ["battery", "rate", "--rater", "anna", "--out", out]
    typed("x", "2", "9", "6", "odd", "9", "0", "", "q")
    first = cli(*words)
    assert first.code == 0
    assert "emotion: type one of 1, 2" in first.out
    assert "2 answers given, 2 of 656" in first.out
    rows = read_ratings(out).rows
    assert [(r.item, r.emotion, r.intensity, r.comment) for r in rows] == [
        (order()[0], "grief", 6, "odd"),
        (order()[1], "neutral", 0, ""),
    ]
    assert all(r.text_sha256 == text_sha256(ITEMS[r.item].text) for r in rows)
    assert all(r.time is not None and r.seconds is not None for r in rows)
    typed("0", "1", "", "1", "1", "")
    second = cli(*words, "--limit", "1")
    assert "2 of 656 items are answered" in second.out
    assert [r.item for r in read_ratings(out).rows] == list(order()[:3])
    assert read_ratings(out).rows[2].emotion == "other"


def test_nothing_that_tells_the_intent_is_shown(cli: Cli, typed, tmp_path: Path) -> None:
    lines = [x for _ in BATTERY.items for x in ("9", "0", "")]
    typed(*lines)
    result = cli("battery", "rate", "--rater", "anna", "--out", tmp_path / "a.jsonl")
    assert "656 answers given, 656 of 656" in result.out
    shown = result.out
    for item in BATTERY.items:
        assert item.text in shown
        assert item.id not in shown
        shown = shown.replace(item.text, "")
    for word in ("clinical", "split", "pair", "domain"):
        assert word not in shown


def test_undo_and_stop(tmp_path: Path) -> None:
    said: list[str] = []
    lines = iter(["u", "3", "u", "1", "2", "c", "u", "4", "5", "", "9", "q"])
    clock = iter(range(100))
    with open_log(tmp_path / "a.jsonl", BATTERY, "anna") as log:
        sitting = Sitting(
            log=log,
            texts={i.id: i.text for i in BATTERY.items},
            hashes={i.id: text_sha256(i.text) for i in BATTERY.items},
            rater="anna",
            queue=list(order()),
            ask=lambda _: next(lines),
            say=said.append,
            clock=lambda: float(next(clock)),
        )
        assert sitting.run() == 1
        (row,) = log.rows
    assert (row.item, row.emotion, row.intensity) == (order()[0], "ecstasy", 5)
    assert row.seconds == 1
    assert "there is nothing to undo" in said
    assert "the last answer is taken back" in said
    assert sitting.queue == list(order()[1:])


def test_bytes_that_are_no_text_are_replaced(cli: Cli, typed, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    typed("1", "1", "caf\udce9")
    assert cli("battery", "rate", "--rater", "anna", "--out", out).code == 0
    assert read_ratings(out).rows[0].comment == "caf?"


def test_orders_differ_between_raters_and_seeds() -> None:
    assert order("anna") == order("anna")
    assert len({order("anna"), order("ben"), order("anna", 1)}) == 3


def test_questions_need_a_terminal(cli: Cli, typed, tmp_path: Path) -> None:
    words = ["battery", "rate", "--rater", "anna", "--out", tmp_path / "a.jsonl"]
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert "needs a terminal" in result.err
    assert "--answers FILE" in result.err
    typed("q")
    assert "--json goes with" in cli(*words, "--json").err
    assert list(tmp_path.iterdir()) == []


def test_refusals(cli: Cli, typed, tmp_path: Path) -> None:
    typed("1", "1", "")
    out = tmp_path / "a.jsonl"
    assert cli("battery", "rate", "--rater", "anna", "--out", out).code == 0
    other = tmp_path / "other.jsonl"
    item = {"id": "V-1", "text": "Another text.", "emotion": "grief", "split": "moderate"}
    other.write_text(json.dumps(item) + "\n")
    for words, message in [
        (["--rater", "ben", "--out", out], "holds answers by 'anna', not by 'ben'"),
        ([other, "--rater", "anna", "--out", out], "does not belong to battery 'other'"),
        (["--out", out], "give --rater NAME and --out FILE"),
        (["--rater", "anna"], "give --rater NAME and --out FILE"),
        (["--rater", "anna", "--out", out, "--with", out], "are for --summary"),
        (["--summary"], "nothing to sum up"),
        (["--summary", "--out", tmp_path / "absent.jsonl"], "cannot be read"),
        ([other, "--summary", "--out", out], "does not belong to battery 'other'"),
        ([other, "--summary", "--second-reading"], "ships without a second reading"),
    ]:
        result = cli("battery", "rate", *words)
        assert (result.code, message in result.err) == (2, True), (words, result.err)
    assert len(read_ratings(out).rows) == 1


def test_import(cli: Cli, tmp_path: Path) -> None:
    out, answers = tmp_path / "a.jsonl", tmp_path / "answers.jsonl"
    lines = [{"item": i.id, "emotion": MEANT[i.id], "intensity": 3} for i in BATTERY.items]
    text = "".join(json.dumps(x) + "\n" for x in lines[:10])
    answers.write_text(text + '{"item": "V-')
    words = ["battery", "rate", "--rater", "anna", "--out", out, "--answers", answers]
    found = cli(*words, "--json").json
    assert (found["imported"], found["already_there"], found["torn_lines"]) == (10, 0, 1)
    answers.write_text(text + json.dumps(lines[10]) + "\n")
    assert "1 answers imported, 10 were there before; 11 of 656" in cli(*words).out
    answers.write_text(json.dumps({**lines[11]}) + "\n" + json.dumps({**lines[0], "intensity": 1}))
    refused = cli(*words)
    assert refused.code == 2
    assert f"line 2: item '{lines[0]['item']}' has another answer" in refused.err
    assert len(read_ratings(out).rows) == 11


def _write(path: Path, rater: str, emotions: dict[str, str]) -> None:
    rows = [
        {"item": k, "text_sha256": text_sha256(ITEMS[k].text), "rater": rater, "emotion": e,
         "intensity": 2}
        for k, e in emotions.items()
    ]  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_summary(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ratings"
    folder.mkdir()
    right = {i.id: MEANT[i.id] for i in BATTERY.items[:655]}
    first = BATTERY.items[0].id
    _write(folder / "anna.jsonl", "anna", right)
    _write(folder / "ben.jsonl", "ben", {**right, first: "other"})
    with (folder / "ben.jsonl").open("a") as handle:
        handle.write('{"item": "')
    reading = tmp_path / "affectlens-vignettes.second-reading.jsonl"
    _write(reading, "second reading (language model)", right)
    monkeypatch.setattr(ratings, "second_reading", lambda _: reading)
    words = ["battery", "rate", "--summary", "--out", folder, "--second-reading"]
    shown = cli(*words).out
    assert "656 items, 1 rated by nobody" in shown
    assert "Fleiss' kappa of 3 raters on 655 items" in shown
    assert "ben.jsonl: 1 line was cut short" in shown
    assert "1 answers differ from the intent" in shown
    assert "second reading (language model) (rows) against the intent (columns)" in shown
    found = cli(*words, "--json").json
    assert (found["n_unrated"], found["torn_lines"], len(found["between"])) == (1, 1, 3)
    assert [d["item"] for d in found["differences"]] == [first]
    assert found["with_intent"][0]["accuracy"]["value"] == 1
    alone = cli("battery", "rate", "--summary", "--with", folder, "--rater", "ben", "--json").json
    assert [c["a"] for c in alone["with_intent"]] == ["ben"]
