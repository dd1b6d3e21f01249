"""Texts of many arms in one batch, and the file that a stopped study goes on from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from affectlens.data.errors import HookError, MachineError
from affectlens.data.generation import Sampling, continuations
from affectlens.data.hooks import edit
from affectlens.features import steering_writing
from affectlens.features.interventions import residual_edit
from affectlens.features.specs import AddDirection
from affectlens.features.steering_writing import (
    ASK,
    ASK_PLAIN,
    GO_ON,
    Cost,
    Item,
    PartialTexts,
    Written,
    batches_of,
    prompt_ids,
    study_prompt,
    write_texts,
)

from .steered_model import PLANTED, world

SAMPLING = Sampling(max_new_tokens=6, temperature=0.7, top_p=0.95, seed=3)
PLANT = AddDirection(tuple(world().sae.W_dec[PLANTED].tolist()), 1.0, "residual_norm")
WEAK = AddDirection(tuple(world().sae.W_dec[3].tolist()), 0.3, "residual_norm")


def items() -> list[Item]:
    lm = world().lm
    prompts = ["One day I went out.", "The train was late again, and so I waited.", "It rained."]
    return [
        Item(tuple(lm.token_ids(p)), i, specs)
        for specs in ((), (PLANT,), (WEAK,))
        for i, p in enumerate(prompts)
    ]


def test_a_row_of_a_mixed_batch_is_what_it_is_alone() -> None:
    w = world()
    together = write_texts(w.lm, w.sae, items(), SAMPLING, 9, quiet=True)
    for item, got in zip(items(), together, strict=True):
        edit_fn, tally = residual_edit(w.sae, list(item.specs))
        if item.specs:
            with edit(w.lm, {w.sae.info.hook_name: edit_fn}):
                (alone,) = continuations(w.lm, [item.ids], SAMPLING, streams=[item.stream])
        else:
            (alone,) = continuations(w.lm, [item.ids], SAMPLING, streams=[item.stream])
        assert got.text == alone
        assert got.n_edited == tally.tokens
        assert got.norm == pytest.approx(tally.mean_norm, rel=1e-5)
    assert [t.n_edited for t in together[:3]] == [0, 0, 0]
    assert all(t.n_edited for t in together[3:])


def test_batches_hold_every_text_once_shortest_prompts_first() -> None:
    made = items()
    batches = batches_of(made, 4)
    assert sorted(i for b in batches for i in b) == list(range(9))
    lengths = [len(made[i].ids) for b in batches for i in b]
    assert lengths == sorted(lengths)
    assert [len(b) for b in batches] == [4, 4, 1]


def test_a_batch_without_an_edit_needs_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise AssertionError("a hook was set")

    w = world()
    monkeypatch.setattr(steering_writing, "edit", refuse)
    texts = write_texts(w.lm, w.sae, items()[:3], SAMPLING, 3, quiet=True)
    assert [t.norm for t in texts] == [0.0] * 3


def test_prompts_of_a_model_without_a_chat_template() -> None:
    lm = world().lm
    scene = "I sat down. It was noon."
    assert study_prompt(lm, scene, "") == f"{GO_ON}\n\n{scene}"
    asked = study_prompt(lm, scene, "grief")
    assert asked == f"{GO_ON} {ASK.format(emotion='grief')}\n\n{scene}"
    plain = study_prompt(lm, scene, "plain")
    assert len(asked.split()) == len(plain.split())  # the instructions are equally long
    assert ASK_PLAIN in plain
    assert prompt_ids(lm, scene, "x") == tuple(lm.token_ids(scene))


def test_prompts_of_a_chat_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = world().lm
    template = "{% for m in messages %}<u>{{ m['content'] }}{% endfor %}<a>"
    monkeypatch.setattr(lm.tokenizer, "chat_template", template)
    prompt = study_prompt(lm, "I sat down.", "rage")
    assert prompt == f"<u>I sat down.\n\n{GO_ON} {ASK.format(emotion='rage')}<a>"


def test_no_target_is_named_without_an_instruction() -> None:
    from affectlens.data.taxonomy import EMOTIONS
    from affectlens.features.naming_rate import named_words

    for text in (GO_ON, ASK_PLAIN):
        assert not any(named_words([text], e)[0] for e in EMOTIONS)


def test_the_cost_is_told() -> None:
    line = Cost(12, 1000, 52_000, 60_000, 16).line()
    assert "1,000 texts (12 conditions)" in line
    assert "60,000 new tokens" in line


TEXTS = [Written(" a\u2028b\ud83d", 3, 0.125), Written("", 0, 0.0)]
BATCHES = [[0, 1], [2, 3], [4, 5]]


def test_batches_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "steering/partial.jsonl"
    with PartialTexts.opened(path, "k") as kept:
        assert kept.finished(BATCHES) == {}
        kept.append(1, TEXTS)
        kept.append(0, TEXTS[::-1])
    with PartialTexts.opened(path, "k") as kept:
        assert kept.finished(BATCHES) == {1: TEXTS, 0: TEXTS[::-1]}
        assert (kept.n_resumed, kept.n_dropped) == (4, 0)
        kept.remove()
    assert not path.exists()


def test_a_file_cut_at_any_byte_gives_its_whole_batches_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    with PartialTexts.opened(path, "k") as kept:
        for number in range(3):
            kept.append(number, TEXTS)
    whole = path.read_bytes()
    ends = np.cumsum([len(line) + 1 for line in whole.split(b"\n")[:-1]])
    cuts = {*range(0, len(whole), 11), *(e + d for e in (0, *ends) for d in (-1, 0, 1))}
    for size in sorted(c for c in cuts if 0 <= c <= len(whole)):
        path.write_bytes(whole[:size])
        n_batches = max(int((ends <= size).sum()) - 1, 0)
        with PartialTexts.opened(path, "k") as kept:
            assert sorted(kept.finished(BATCHES)) == list(range(n_batches))
            torn = size not in (0, *ends) and size > ends[0]
            assert kept.n_dropped == int(torn)
            for number in range(n_batches, 3):
                kept.append(number, TEXTS)
        assert path.read_bytes() == whole


def test_texts_of_other_settings_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "partial.jsonl"
    with PartialTexts.opened(path, "k") as kept:
        kept.append(0, TEXTS)
    with (
        caplog.at_level(logging.WARNING, "affectlens"),
        PartialTexts.opened(path, "another") as kept,
    ):
        assert kept.finished(BATCHES) == {}
    assert "other settings (2 lines)" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        {"batch": 9, "texts": ["a", "b"], "n_edited": [1, 1], "norms": [0.5, 0.5]},
        {"batch": 1, "texts": ["a"], "n_edited": [1], "norms": [0.5]},
        {"batch": 1, "texts": ["a", "b"], "n_edited": [1, 1], "norms": [0.5]},
        {"batch": 1, "texts": ["a", None], "n_edited": [1, 1], "norms": [0.5, 0.5]},
        {"batch": True, "texts": ["a", "b"], "n_edited": [1, 1], "norms": [0.5, 0.5]},
        {"batch": 1, "texts": ["a", "b"], "n_edited": [1, 1]},
        {},
        ["a"],
    ],
)
def test_a_line_that_does_not_fit_ends_what_is_used(tmp_path: Path, line: object) -> None:
    path = tmp_path / "partial.jsonl"
    with PartialTexts.opened(path, "k") as kept:
        kept.append(0, TEXTS)
    good = path.read_bytes()
    path.write_bytes(good + (json.dumps(line) + "\n").encode() + good.split(b"\n")[1] + b"\n")
    with PartialTexts.opened(path, "k") as kept:
        assert list(kept.finished(BATCHES)) == [0]
        assert kept.n_dropped == 2
    assert path.read_bytes() == good


def test_two_studies_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    with (
        PartialTexts.opened(path, "k"),
        pytest.raises(MachineError, match="another study"),
        PartialTexts.opened(path, "k"),
    ):
        pass


def test_finished_batches_are_not_written_again(tmp_path: Path, monkeypatch) -> None:
    w = world()
    path = tmp_path / "partial.jsonl"
    wanted = write_texts(w.lm, w.sae, items(), SAMPLING, 4, quiet=True)
    calls: list[int] = []
    original = steering_writing._write_batch

    def stopping(*args: object):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(steering_writing, "_write_batch", stopping)
    with PartialTexts.opened(path, "k") as kept, pytest.raises(KeyboardInterrupt):
        write_texts(w.lm, w.sae, items(), SAMPLING, 4, kept=kept, quiet=True)
    calls.append(1)
    with PartialTexts.opened(path, "k") as kept:
        got = write_texts(w.lm, w.sae, items(), SAMPLING, 4, kept=kept, quiet=True)
        assert kept.n_resumed == 4
    assert len(calls) == 5  # one, the stopped one, ours, and two more batches
    assert got == wanted


def test_an_edit_that_never_runs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    w = world()
    monkeypatch.setattr(steering_writing, "continuations", lambda *_a, **_k: [""])
    with pytest.raises(HookError):
        write_texts(w.lm, w.sae, items()[3:4], SAMPLING, 1, quiet=True)
