"""Branched rows: how they are laid out, and that they give what their rows give alone."""

from __future__ import annotations

import pytest
import torch

from affectlens.data.errors import HookError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.features import resumed
from affectlens.features.resumed import Branches, Stored, batches, branches, last_logits

ROWS = ([5, 6, 7, 8], [5, 6, 7, 9, 10], [5, 6, 11])


def stored(lm: LanguageModel, rows: list[list[int]], layer: int) -> Stored:
    """Residuals captured row by row."""
    name = f"blocks.{layer}.hook_resid_post" if layer >= 0 else "blocks.0.hook_resid_pre"
    found = [capture(lm, [name], lm.pad([row]))[name][0] for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    return Stored.cut(branches(rows), padded)


def full(lm: LanguageModel, rows: list[list[int]]) -> torch.Tensor:
    return torch.cat([lm.forward_logits(lm.pad([row])) for row in rows])


def test_rows_split_into_beginning_and_ends() -> None:
    assert branches(ROWS) == Branches((5, 6), ((7, 8), (7, 9, 10), (11,)))
    assert branches(ROWS).n_tokens == 8
    # An end has at least one token, also where one row begins another, or there is only one.
    assert branches([[1, 2], [1, 2, 3]]) == Branches((1,), ((2,), (2, 3)))
    assert branches([[1, 2]]) == Branches((1,), ((2,),))
    assert branches([[1], [2, 3]]) == Branches((), ((1,), (2, 3)))
    assert branches(ROWS).only([2, 0]) == Branches((5, 6), ((11,), (7, 8)))


def test_ends_are_grouped_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumed, "MAX_BRANCHED_TOKENS", 6)
    rows = Branches((1, 2), ((3,), (3, 4, 5), (6,), (7, 8, 9, 10, 11), (12,)))
    assert rows.groups([0, 1, 2, 3, 4]) == [(0, 1), (2,), (3,), (4,)]
    assert rows.groups([4, 2]) == [(4, 2)]
    assert rows.groups([]) == []


def test_batches_hold_every_row_once() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(40):
        shared, n_ends = (int(torch.randint(1, n, (1,), generator=generator)) for n in (20, 4))
        rows.append(Branches((1,) * shared, ((2, 3),) * n_ends))
    found = list(batches(rows, 60))
    assert sorted(place for batch in found for place in batch) == list(range(40))
    for batch in found:
        assert len({len(rows[i].ends) for i in batch}) == 1
        assert len(batch) * max(rows[i].n_tokens for i in batch) <= 60
    assert len(found) < 15
    assert list(batches(rows[:3], 1)) == [[i] for i in sorted(
        range(3), key=lambda i: (len(rows[i].ends), rows[i].n_tokens))]  # fmt: skip
    assert list(batches([], 10)) == []


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_branches_give_what_rows_give_alone(lm: LanguageModel, layer: int) -> None:
    texts = [[list(row) for row in ROWS], [[9, 1, 2, 3, 4], [9, 1, 2, 3, 5, 6, 7], [9, 1, 2, 8]]]
    expected = torch.stack([full(lm, rows) for rows in texts])
    found = last_logits(lm, layer, [stored(lm, rows, layer) for rows in texts])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_rows_of_unequal_length_alone(lm: LanguageModel, layer: int) -> None:
    rows = [[5, 6, 7, 8], [9, 1], [3]]
    found = last_logits(lm, layer, [stored(lm, [row], layer) for row in rows])
    torch.testing.assert_close(found[:, 0], full(lm, rows), atol=1e-4, rtol=1e-4)


def test_branches_do_not_see_each_other(lm: LanguageModel) -> None:
    one = [[5, 6, 7, 8], [5, 6, 9, 10]]
    other = [[5, 6, 7, 8], [5, 6, 200, 201, 202]]
    logits = [last_logits(lm, 1, [stored(lm, rows, 1)])[0, 0] for rows in (one, other)]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)


def test_the_input_of_the_first_block_takes_no_branches(tiny_llama: LanguageModel) -> None:
    rows = stored(tiny_llama, [list(row) for row in ROWS], -1)
    with pytest.raises(HookError, match="two-dimensional attention_mask"):
        last_logits(tiny_llama, -1, [rows])


def test_rows_are_put_together_and_taken_apart() -> None:
    rows = branches(ROWS)
    resid = torch.arange(8.0)[:, None] * torch.ones(1, 2)
    apart = Stored(rows, resid).unpacked()
    assert [row[:, 0].tolist() for row in apart] == [[0, 1, 2, 3], [0, 1, 4, 5, 6], [0, 1, 7]]
    padded = torch.nn.utils.rnn.pad_sequence(apart, batch_first=True)
    torch.testing.assert_close(Stored.cut(rows, padded).resid, resid)
    assert Stored(rows, resid).only([2]).resid[:, 0].tolist() == [0, 1, 7]
