"""Contexts by range of activation, and co-firing counts, on hand-made passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch

from affectlens.data.errors import ConfigError
from affectlens.data.store import Rows
from affectlens.features import contexts
from affectlens.features.contexts import HeldoutScan, grouped_contexts


class Words:
    def decode(self, ids: Sequence[int]) -> str:
        return f"<{ids[0]}>"


def scan_of(trace: Sequence[float], doc: Sequence[int]) -> HeldoutScan:
    docs = np.asarray(doc, dtype=np.int32)
    n = len(docs)
    position = np.array([i - int(np.argmax(docs == d)) for i, d in enumerate(docs)], dtype=np.int32)
    rows = Rows(torch.zeros(0, 2), np.ones(n, bool), docs, position, np.arange(n, dtype=np.int32))
    values = np.asarray(trace, dtype=np.float32)[:, None]
    names = tuple(f"d{i}" for i in range(int(docs.max()) + 1))
    return HeldoutScan(pd.DataFrame(), (7,), values, rows, names, n)


def test_groups_are_equal_ranges_strongest_first() -> None:
    scan = scan_of([10, 0, 5, 0, 5.1, 0, 0.1, 0], [0, 0, 1, 1, 2, 2, 3, 3])
    (groups,) = grouped_contexts(scan, Words(), n_groups=2, n=5, width=1)
    assert [(g.low, g.high, g.n_tokens, g.share) for g in groups] == [
        (5, 10, 2, 0.5),
        (0, 5, 2, 0.5),
    ]
    assert [c.doc_id for c in groups[0].contexts] == ["d0", "d2"]
    assert [c.doc_id for c in groups[1].contexts] == ["d1", "d3"]  # 5 is in (0, 5]


def test_the_margin_of_a_strong_place_is_not_a_weak_place() -> None:
    scan = scan_of([0, 1, 10, 1, 0, 0, 0, 1], [0] * 8)
    (groups,) = grouped_contexts(scan, Words(), n_groups=2, n=5, width=2)
    weak = groups[1]
    assert weak.n_tokens == 3  # all are counted, one is shown
    assert [c.position for c in weak.contexts] == [7]
    for group in groups:
        for context in group.contexts:
            assert context.activations[context.peak] == max(context.activations)


def test_equal_neighbours_give_one_place() -> None:
    (groups,) = grouped_contexts(scan_of([2, 2, 2], [0] * 3), Words(), n_groups=1, n=5, width=2)
    assert [c.position for c in groups[0].contexts] == [0]


def test_weak_groups_are_spread_over_their_ranks() -> None:
    trace = [100.0, *range(1, 10)]
    (groups,) = grouped_contexts(scan_of(trace, range(10)), Words(), n_groups=10, n=3, width=1)
    shown = [c.activations[c.peak] for c in groups[-1].contexts]
    assert shown == [9, 5, 1]
    assert all(not g.contexts for g in groups[1:-1])


def test_at_most_one_a_document_in_a_group() -> None:
    (groups,) = grouped_contexts(scan_of([9, 0, 10, 0, 8], [0] * 4 + [1]), Words(), 1, 5, 0)
    assert [c.doc_id for c in groups[0].contexts] == ["d0", "d1"]
    assert groups[0].contexts[0].activations == [10]


@pytest.mark.parametrize("trace", [[0.0, 0.0], [0.0, 3.0]])
def test_silent_or_firing_once(trace: list[float]) -> None:
    (groups,) = grouped_contexts(scan_of(trace, [0, 0]), Words(), 5, 5, 10)
    assert len(groups) == (5 if any(trace) else 0)
    assert sum(g.n_tokens for g in groups) == sum(v > 0 for v in trace)


@pytest.mark.parametrize(("n_groups", "n", "width"), [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_refuses_numbers_out_of_range(n_groups: int, n: int, width: int) -> None:
    with pytest.raises(ConfigError, match="need at least"):
        grouped_contexts(scan_of([1.0], [0]), Words(), n_groups, n, width)


def test_both_active() -> None:
    latents = torch.tensor([[1.0, 2, 0], [0, 1, 0], [-1, 1, 3]])
    counts = contexts._both_active(latents, torch.tensor([0, 1]))
    assert counts.tolist() == [[1, 1, 0], [1, 3, 1]]
